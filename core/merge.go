package core

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
)

// MergePatch applies a JSON merge patch (RFC 7396, https://www.rfc-editor.org/rfc/rfc7396) to a document, as the hub
// does with twins. Both are JSON objects; an empty doc stands for {}. Numbers keep their text.
func MergePatch(doc, patch []byte) ([]byte, error) {
	d, err := parseObject(doc)
	if err != nil {
		return nil, fmt.Errorf("parse document: %w", err)
	}
	p, err := parseObject(patch)
	if err != nil {
		return nil, fmt.Errorf("parse patch: %w", err)
	}
	return json.Marshal(merge(d, p, false))
}

// JoinPatches returns the patch that does what first and then second do. Unlike MergePatch it keeps nulls.
//
// Merge patches cannot say "an object with these keys and no others". Where second puts an object in the place of
// something that first removed or replaced, the joined patch leaves alone what the object held before both.
func JoinPatches(first, second []byte) ([]byte, error) {
	a, err := parseObject(first)
	if err != nil {
		return nil, fmt.Errorf("parse first patch: %w", err)
	}
	b, err := parseObject(second)
	if err != nil {
		return nil, fmt.Errorf("parse second patch: %w", err)
	}
	return json.Marshal(merge(a, b, true))
}

// DiffPatch returns the merge patch that leads from one document to another: {} if they are equal.
func DiffPatch(from, to []byte) ([]byte, error) {
	a, err := parseObject(from)
	if err != nil {
		return nil, fmt.Errorf("parse document: %w", err)
	}
	b, err := parseObject(to)
	if err != nil {
		return nil, fmt.Errorf("parse document: %w", err)
	}
	return json.Marshal(diff(a, b))
}

// SelectKeys returns the document with these top-level keys only (all for nil), and without $version and $metadata.
func SelectKeys(doc []byte, keys []string) ([]byte, error) {
	d, err := parseObject(doc)
	if err != nil {
		return nil, fmt.Errorf("parse document: %w", err)
	}
	delete(d, "$version")
	delete(d, "$metadata")
	if keys != nil {
		picked := make(map[string]any, len(keys))
		for _, k := range keys {
			if v, ok := d[k]; ok {
				picked[k] = v
			}
		}
		d = picked
	}
	return json.Marshal(d)
}

// SameJSON reports whether two objects mean the same. What does not parse is the same as nothing.
func SameJSON(a, b []byte) bool {
	x, errX := parseObject(a)
	y, errY := parseObject(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

func parseObject(b []byte) (map[string]any, error) {
	if len(b) == 0 {
		return map[string]any{}, nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var m map[string]any
	if err := dec.Decode(&m); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	if m == nil {
		m = map[string]any{}
	}
	return m, nil
}

func merge(doc, patch map[string]any, keepNulls bool) map[string]any {
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			if keepNulls {
				doc[k] = nil
			} else {
				delete(doc, k)
			}
		case map[string]any:
			under, isObject := doc[k].(map[string]any)
			if !isObject {
				under = map[string]any{}
			}
			doc[k] = merge(under, v, keepNulls)
		default:
			doc[k] = v
		}
	}
	return doc
}

func diff(from, to map[string]any) map[string]any {
	out := map[string]any{}
	for k := range from {
		if _, ok := to[k]; !ok {
			out[k] = nil
		}
	}
	for k, v := range to {
		old, ok := from[k]
		if ok && reflect.DeepEqual(old, v) {
			continue
		}
		a, isA := old.(map[string]any)
		b, isB := v.(map[string]any)
		if isA && isB {
			out[k] = diff(a, b)
			continue
		}
		out[k] = v
	}
	return out
}
