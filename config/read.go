package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// reader checks one layer against the schema and turns it into values for koanf. It finds all problems, not only the
// first: a value that is wrong is reported, left out, and counts as given.
type reader struct {
	root     *field
	dir      string         // what relative names of files are relative to, absolute
	at       map[string]Pos // where each key of this layer stands
	plugins  []string       // their names, in order
	replaced []string       // keys whose value replaces an earlier layer's as a whole
	problems []Problem
}

func newReader(root *field, dir string) *reader {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return &reader{root: root, dir: dir, at: map[string]Pos{}}
}

func (r *reader) add(p Pos, key, format string, args ...any) {
	r.problems = append(r.problems, Problem{Pos: p, Key: key, Text: fmt.Sprintf(format, args...)})
}

const unknownKey = "unknown key"

// section reads a map with fixed keys.
func (r *reader) section(f *field, n *node, key string) map[string]any {
	if n.kind == nullNode { // all of its keys are commented out
		return map[string]any{}
	}
	if n.kind != mapNode {
		r.add(n.pos, key, "is %s: a section of keys is wanted", n.words())
		return nil
	}
	r.twice(n, key)
	out := map[string]any{}
	for _, e := range n.entries {
		k := joinKey(key, e.key)
		c := f.child(e.key)
		if c == nil {
			r.add(e.pos, displayKey(k), unknownKey+"%s", r.hint(f, e.key))
			continue
		}
		r.at[k] = e.pos
		if v := r.value(c, e.val, k); v != nil {
			out[e.key] = v
		}
	}
	return out
}

func (r *reader) twice(n *node, key string) {
	for _, t := range n.twice {
		r.add(t.pos, displayKey(joinKey(key, t.key)), "stands twice: first in line %d", t.val.pos.Line)
	}
}

// displayKey keeps a key that somebody invented from breaking the line or the terminal, and from being a secret: braces
// around a connection string make a key of it.
func displayKey(k string) string {
	switch {
	case strings.ContainsAny(k, "=;") || len(k) > 200:
		up := k
		for strings.ContainsAny(up, "=;") || len(up) > 200 {
			up = parentKey(up)
		}
		return joinKey(up, "…")
	case strings.ContainsFunc(k, isControl):
		return fmt.Sprintf("%q", k)
	default:
		return k
	}
}

// movedKeys are names that somebody who knows the Python SDK, or a later version, may write.
var movedKeys = map[string]string{
	"websockets": ": write transports: [{use: mqttws}]",
	"devices":    ": one process serves one device: write device:",
	"on_connect": ": see connection.auto_connect",
}

// hint says what an unknown key may have meant.
func (r *reader) hint(f *field, word string) string {
	if s, ok := movedKeys[word]; ok {
		return s
	}
	names := make([]string, len(f.fields))
	for i, c := range f.fields {
		names[i] = c.name
	}
	if near := nearest(word, names); near != "" {
		return didYouMean(near)
	}
	found := ""
	r.root.walk("", func(key string, c *field) {
		if found == "" && c.name == word {
			found = key
		}
	})
	return didYouMean(found)
}

// value reads one value of any kind; nil means that there is none.
func (r *reader) value(f *field, n *node, key string) any {
	switch f.kind {
	case sectionKind:
		if m := r.section(f, n, key); m != nil {
			return m
		}
		return nil
	case namedKind:
		return r.named(f, n, key)
	case stringMapKind, freeKind, jsonKind, listKind, stringsKind, proxyKind, sourceKind, pemKind, cipherKind:
		r.replaced = append(r.replaced, key)
	default:
	}
	if n.kind == nullNode {
		if f.kind != stringMapKind && f.kind != freeKind && f.kind != jsonKind && f.kind != listKind {
			r.add(n.pos, key, "has no value: write one, or leave the key out")
		}
		return nil
	}
	// A scalar's problems are about the value.
	if f.kind != listKind && f.kind != stringsKind && f.kind != stringMapKind {
		r.at[key] = n.pos
	}
	switch f.kind {
	case listKind:
		return r.list(f, n, key)
	case stringKind, enumKind, fileKind:
		return r.text(f, n, key)
	case boolKind:
		if n.kind != boolNode {
			r.add(n.pos, key, "is %s: write true or false", n.words())
			return nil
		}
		return n.flag
	case intKind:
		return r.integer(f, n, key)
	case durationKind:
		return r.duration(f, n, key)
	case sizeKind:
		return r.size(f, n, key)
	case stringsKind:
		return r.strings(f, n, key)
	case stringMapKind:
		return r.stringMap(n, key)
	case freeKind:
		return r.free(n, key)
	case jsonKind:
		return JSON{Value: r.freeValue(n, key)}
	case sourceKind:
		return r.source(n, key)
	case pemKind:
		return r.pem(n, key)
	case proxyKind:
		return r.proxy(f, n, key)
	case cipherKind:
		if n.kind == listNode {
			if list, ok := r.strings(f, n, key).([]string); ok {
				return strings.Join(list, ":")
			}
			return nil
		}
		return r.text(f, n, key)
	default:
		return nil
	}
}

// pluginName allows what makes a good name of a folder, a log field and a part of a key.
var pluginName = pattern(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)

func (r *reader) named(f *field, n *node, key string) any {
	if n.kind == nullNode {
		return nil
	}
	if n.kind != mapNode {
		r.add(n.pos, key, "is %s: a section of names is wanted", n.words())
		return nil
	}
	r.twice(n, key)
	out := map[string]any{}
	for _, e := range n.entries {
		k := joinKey(key, e.key)
		if !pluginName().MatchString(e.key) {
			r.add(e.pos, displayKey(k), "a plugin's name has 1 to 63 letters, digits, - and _, and begins with a letter or digit")
			continue
		}
		r.at[k] = e.pos
		if m := r.section(f, e.val, k); m != nil {
			out[e.key] = m
			r.plugins = append(r.plugins, e.key)
		}
	}
	return out
}

func (r *reader) list(f *field, n *node, key string) any {
	if n.kind != listNode {
		r.add(n.pos, key, "is %s: a list is wanted", n.words())
		return nil
	}
	out := []any{}
	for i, item := range n.items {
		k := itemKey(key, i)
		r.at[k] = item.pos
		if item.kind == nullNode {
			r.add(item.pos, k, "is empty")
			continue
		}
		// An item that is wrong still takes its place, so that the numbers in later problems are right.
		m := r.section(f, item, k)
		if m == nil {
			m = map[string]any{}
		}
		out = append(out, m)
	}
	return out
}

func (r *reader) plainText(n *node, key string) (string, bool) {
	switch n.kind {
	case stringNode:
		return n.text, true
	case boolNode, intNode, floatNode:
		r.add(n.pos, key, "is %s: a text is wanted; put it in quotes if it is meant: %q", n.words(), n.text)
	default:
		r.add(n.pos, key, "is %s: a text is wanted", n.words())
	}
	return "", false
}

func (r *reader) text(f *field, n *node, key string) any {
	s, ok := r.plainText(n, key)
	if !ok {
		return nil
	}
	if f.check != nil {
		if wrong := f.check(s); wrong != "" {
			r.add(n.pos, key, "%s", wrong)
			return nil
		}
	}
	switch f.kind {
	case enumKind:
		if slices.Contains(f.enum, s) {
			return s
		}
		r.add(n.pos, key, "%s is not known here: write %s%s", quote(s), orList(f.enum), didYouMean(nearest(s, f.enum)))
		return nil
	case fileKind:
		if s == "" {
			r.add(n.pos, key, "is empty: a file's name is wanted")
			return nil
		}
		return r.path(s)
	default:
		if strings.ContainsFunc(s, isControl) {
			r.add(n.pos, key, "holds a line break or another control character")
			return nil
		}
		return s
	}
}

func (r *reader) path(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(r.dir, name)
}

func (r *reader) integer(f *field, n *node, key string) any {
	if n.kind != intNode {
		r.add(n.pos, key, "is %s: a whole number is wanted", n.words())
		return nil
	}
	if f.name == "version" && n.integer > CurrentVersion {
		r.add(n.pos, key, "%d is newer than this program, which knows %d: install a newer fairlead", n.integer, CurrentVersion)
		return nil
	}
	switch {
	case f.max > 0 && (n.integer < f.min || n.integer > f.max):
		r.add(n.pos, key, "%d is out of range: %d to %d", n.integer, f.min, f.max)
		return nil
	case n.integer < f.min:
		r.add(n.pos, key, "%d is too small: at least %d", n.integer, f.min)
		return nil
	}
	return int(n.integer)
}

func (r *reader) duration(f *field, n *node, key string) any {
	var d time.Duration
	switch {
	case n.kind == intNode && f.seconds:
		if n.integer < 0 || n.integer > 1e9 {
			r.add(n.pos, key, "%d seconds are out of range: %s to %s", n.integer, formatDuration(time.Duration(f.min)), formatDuration(time.Duration(f.max)))
			return nil
		}
		d = time.Duration(n.integer) * time.Second
	case n.kind == intNode || n.kind == floatNode:
		r.add(n.pos, key, "%s has no unit (did you mean %q?)", n.text, n.text+"s")
		return nil
	case n.kind != stringNode:
		r.add(n.pos, key, "is %s: a duration is wanted, as in 60s or 10m", n.words())
		return nil
	default:
		var err error
		if d, err = parseDuration(n.text); err != nil {
			r.add(n.pos, key, "%s is not a duration: %v", quote(n.text), err)
			return nil
		}
	}
	switch {
	case d < time.Duration(f.min):
		text := ""
		if f.why != "" {
			text = ": " + f.why
		}
		r.add(n.pos, key, "%s is too short: at least %s%s", formatDuration(d), formatDuration(time.Duration(f.min)), text)
		return nil
	case d > time.Duration(f.max):
		r.add(n.pos, key, "%s is too long: at most %s", formatDuration(d), formatDuration(time.Duration(f.max)))
		return nil
	}
	return d
}

func (r *reader) size(f *field, n *node, key string) any {
	var size int64
	switch n.kind {
	case intNode:
		size = n.integer
	case stringNode:
		var err error
		if size, err = parseSize(n.text); err != nil {
			r.add(n.pos, key, "%s is not a size: %v", quote(n.text), err)
			return nil
		}
	default:
		r.add(n.pos, key, "is %s: a size is wanted, as in 64MiB", n.words())
		return nil
	}
	switch {
	case size < f.min:
		without := ""
		if f.defDoc != "" {
			without = ", or leave it out (" + f.defDoc + ")"
		}
		r.add(n.pos, key, "%s is too small: at least %s%s", formatSize(size), formatSize(f.min), without)
		return nil
	case size > f.max:
		r.add(n.pos, key, "%s is too large: at most %s", formatSize(size), formatSize(f.max))
		return nil
	}
	return size
}

func (r *reader) strings(f *field, n *node, key string) any {
	if n.kind != listNode {
		r.add(n.pos, key, "is %s: a list is wanted, as in [a, b]", n.words())
		return nil
	}
	out := []string{}
	for i, item := range n.items {
		k := itemKey(key, i)
		r.at[k] = item.pos
		s, ok := r.plainText(item, k)
		if !ok {
			continue
		}
		if f.check != nil {
			if wrong := f.check(s); wrong != "" {
				r.add(item.pos, k, "%s", wrong)
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

func (r *reader) stringMap(n *node, key string) any {
	if n.kind != mapNode {
		r.add(n.pos, key, "is %s: a section of texts is wanted", n.words())
		return nil
	}
	r.twice(n, key)
	out := StringMap{}
	for _, e := range n.entries {
		k := joinKey(key, e.key)
		r.at[k] = e.val.pos
		switch e.val.kind {
		case stringNode:
			out[e.key] = e.val.text
		case boolNode, intNode, floatNode: // not shown: somebody may have put a PIN into env
			r.add(e.val.pos, displayKey(k), "is %s: a text is wanted; put it in quotes if it is meant", e.val.words())
		default:
			r.add(e.val.pos, displayKey(k), "is %s: a text is wanted", e.val.words())
		}
	}
	return out
}

func (r *reader) free(n *node, key string) any {
	if n.kind != mapNode {
		r.add(n.pos, key, "is %s: a section is wanted", n.words())
		return nil
	}
	m, _ := r.freeValue(n, key).(map[string]any)
	return Settings(m)
}

func (r *reader) freeValue(n *node, key string) any {
	switch n.kind {
	case nullNode:
		return nil
	case boolNode:
		return n.flag
	case intNode:
		return n.integer
	case floatNode:
		if n.float-n.float != 0 { // infinite, or not a number
			r.add(n.pos, displayKey(key), "%s cannot be handed over as JSON", n.text)
			return nil
		}
		return n.float
	case stringNode:
		return n.text
	case listNode:
		out := []any{}
		for i, item := range n.items {
			out = append(out, r.freeValue(item, itemKey(key, i)))
		}
		return out
	case mapNode:
		r.twice(n, key)
		out := map[string]any{}
		for _, e := range n.entries {
			out[e.key] = r.freeValue(e.val, joinKey(key, e.key))
		}
		return out
	default:
		r.add(n.pos, displayKey(key), "is %s: write it as a text", n.words())
		return nil
	}
}

// required reports the keys that a section must have and has not. A key whose value is wrong counts as given.
func (r *reader) required(f *field, p Pos, key string) {
	for i := range f.fields {
		k := joinKey(key, f.fields[i].name)
		if _, ok := r.at[k]; f.fields[i].required && !ok {
			r.add(p, k, "is missing")
		}
	}
}

func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
