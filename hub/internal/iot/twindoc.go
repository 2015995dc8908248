package iot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// section is one part of a twin: desired or reported. A section is a value:
// patch and replace leave the old one as it was. Rules:
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-device-twins
type section struct {
	Doc     map[string]any `json:"doc"`
	Meta    map[string]any `json:"meta"` // mirrors Doc, with $lastUpdated at every level
	Version int64          `json:"version"`
}

// twin is what is kept of a twin; the rest of api.Twin comes from the registry.
type twin struct {
	ETag     string         `json:"etag"`
	Version  int64          `json:"version"`
	ModelID  string         `json:"modelId"`
	Tags     map[string]any `json:"tags"`
	Desired  section        `json:"desired"`
	Reported section        `json:"reported"`
}

func newTwin() twin {
	empty := func() section {
		return section{map[string]any{}, map[string]any{"$lastUpdated": "0001-01-01T00:00:00Z"}, 1}
	}
	return twin{Version: 2, Tags: map[string]any{}, Desired: empty(), Reported: empty()}
}

// unmarshalNumbers decodes JSON and keeps numbers as they are written.
func unmarshalNumbers(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// DecodeObject reads one JSON object as twins want it; the error is an
// *api.Error.
func DecodeObject(data []byte) (map[string]any, error) {
	var v map[string]any
	if err := unmarshalNumbers(data, &v); err != nil || v == nil {
		return nil, api.Refuse(api.CodeArgumentInvalid, "the body must be one JSON object")
	}
	return v, nil
}

// stamp says what $metadata gets.
type stamp struct {
	at      time.Time
	version int64 // 0: no $lastUpdatedVersion, as in reported
}

func (s stamp) meta() map[string]any {
	m := map[string]any{"$lastUpdated": s.at.UTC().Format("2006-01-02T15:04:05.0000000Z")}
	if s.version > 0 {
		m["$lastUpdatedVersion"] = json.Number(strconv.FormatInt(s.version, 10))
	}
	return m
}

// patch merges p into the section: null deletes, an object merges, anything else
// replaces.
func (s section) patch(p map[string]any, now time.Time, versions bool) section {
	next := section{Doc: cloneTree(s.Doc), Meta: cloneTree(s.Meta), Version: s.Version + 1}
	st := stamp{at: now}
	if versions {
		st.version = next.Version
	}
	merge(next.Doc, next.Meta, p, st)
	return next
}

// replace puts p in the place of the whole section.
func (s section) replace(p map[string]any, now time.Time, versions bool) section {
	empty := section{Doc: map[string]any{}, Meta: map[string]any{}, Version: s.Version}
	return empty.patch(p, now, versions)
}

func merge(doc, meta, p map[string]any, st stamp) {
	maps.Copy(meta, st.meta())
	for key, value := range p {
		child, isObject := value.(map[string]any)
		switch {
		case value == nil:
			delete(doc, key)
			delete(meta, key)
		case isObject:
			old, wasObject := doc[key].(map[string]any)
			oldMeta, hadMeta := meta[key].(map[string]any)
			if !wasObject {
				old = map[string]any{}
			}
			if !wasObject || !hadMeta { // tags have no metadata
				oldMeta = map[string]any{}
			}
			merge(old, oldMeta, child, st)
			doc[key], meta[key] = old, oldMeta
		default:
			doc[key], meta[key] = value, st.meta()
		}
	}
}

// cloneTree copies the objects of a tree; arrays are never changed in place.
func cloneTree(tree map[string]any) map[string]any {
	next := make(map[string]any, len(tree))
	for key, value := range tree {
		if child, ok := value.(map[string]any); ok {
			value = cloneTree(child)
		}
		next[key] = value
	}
	return next
}

// forDevice is the section as $iothub/twin/GET gives it: with $version, without
// $metadata.
func (s section) forDevice() map[string]any {
	out := maps.Clone(s.Doc)
	out["$version"] = s.Version
	return out
}

// forService adds $metadata too.
func (s section) forService() map[string]any {
	out := cloneTree(s.Doc)
	out["$metadata"] = cloneTree(s.Meta)
	out["$version"] = s.Version
	return out
}

// checkGrowth refuses a change that makes a document larger than its limit: the
// hub "rejects operations that increase the size above the limit".
func checkGrowth(name string, old, next map[string]any, limit int) error {
	size := treeSize(next)
	if size > limit && size > treeSize(old) {
		return api.Refuse(api.CodeArgumentInvalid, "%s would have %d bytes, more than %d", name, size, limit)
	}
	return nil
}

// treeSize counts keys in UTF-8 without control characters, strings the same, 8
// for a number, 4 for a boolean.
func treeSize(v any) int {
	switch v := v.(type) {
	case map[string]any:
		n := 0
		for key, value := range v {
			n += textSize(key) + treeSize(value)
		}
		return n
	case []any:
		n := 0
		for _, value := range v {
			n += treeSize(value)
		}
		return n
	case string:
		return textSize(v)
	case json.Number:
		return 8
	case bool:
		return 4
	default:
		return 0
	}
}

func textSize(text string) int {
	n := 0
	for _, r := range text {
		if !unicode.IsControl(r) {
			n += len(string(r))
		}
	}
	return n
}

// checkTree holds the rules for keys and values of a patch.
func checkTree(name string, tree map[string]any) error {
	if err := checkObject(tree, 0); err != nil {
		return api.Refuse(api.CodeArgumentInvalid, "%s: %v", name, err)
	}
	return nil
}

func checkObject(tree map[string]any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("objects nested more than %d deep", maxDepth)
	}
	for key, value := range tree {
		if len(key) > maxKey {
			return fmt.Errorf("a key is longer than %d bytes", maxKey)
		}
		if key == "" || strings.ContainsFunc(key, func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(".$ ", r) }) {
			return fmt.Errorf("key %q is empty or has a control character, a dot, $ or a space", key)
		}
		if err := checkValue(value, depth); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

func checkValue(value any, depth int) error {
	switch v := value.(type) {
	case map[string]any:
		return checkObject(v, depth+1)
	case []any:
		for _, item := range v {
			if err := checkValue(item, depth+1); err != nil {
				return err
			}
		}
		if depth+1 > maxDepth {
			return fmt.Errorf("arrays nested more than %d deep", maxDepth)
		}
	case string:
		if len(v) > maxString {
			return fmt.Errorf("a string is longer than %d bytes", maxString)
		}
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return nil
		}
		if n, err := strconv.ParseInt(v.String(), 10, 64); err != nil || n < minInteger || n > maxInteger {
			return fmt.Errorf("integer %s is not between %d and %d", v, int64(minInteger), int64(maxInteger))
		}
	}
	return nil
}
