package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Keys returns every key of the configuration as Explain takes them, in the order of the example: items of a list are
// written [], and names of the user's NAME.
func Keys() []string {
	var keys []string
	schema().walk("", func(key string, _ *field) { keys = append(keys, key) })
	return keys
}

// Explain describes a key for a reader: what it means, what it may hold, what it is when left out, and how else it can
// be given. The empty key lists all of them. A key may be written with a number or a plugin's name as well. An error
// names the key that may have been meant.
func Explain(key string) (string, error) {
	root := schema()
	var out strings.Builder
	if key == "" {
		root.walk("", func(k string, f *field) { fmt.Fprintf(&out, "%-44s %s\n", k, f.summary()) })
		return out.String(), nil
	}
	found := false
	root.walk("", func(k string, f *field) {
		if !found && keyMatches(k, key) {
			found = true
			f.explain(&out, k)
		}
	})
	if !found {
		keys := Keys()
		near := nearest(key, keys)
		for _, k := range keys {
			if near == "" && k[strings.LastIndexByte(k, '.')+1:] == key {
				near = k
			}
		}
		return "", fmt.Errorf("explain %q: unknown key%s", key, didYouMean(near))
	}
	return out.String(), nil
}

func keyMatches(pattern, key string) bool {
	if pattern == key {
		return true
	}
	p, k := strings.Split(pattern, "."), strings.Split(key, ".")
	if len(p) != len(k) {
		return false
	}
	for i := range p {
		base, _, _ := strings.Cut(k[i], "[")
		if p[i] != "NAME" && strings.TrimSuffix(p[i], "[]") != base {
			return false
		}
	}
	return true
}

func (f *field) summary() string {
	first, _, cut := strings.Cut(f.doc, ". ")
	if cut {
		first += "."
	}
	return first
}

func (f *field) explain(out *strings.Builder, key string) {
	fmt.Fprintf(out, "%s: %s\n\n%s\n", key, f.typeWords(), f.doc)
	switch {
	case f.required:
		fmt.Fprintf(out, "\nIt must be given.\n")
	case f.defDoc != "":
		fmt.Fprintf(out, "\nLeft out: %s\n", f.defDoc)
	case f.def != "":
		fmt.Fprintf(out, "\nLeft out: %s\n", f.def)
	}
	if f.env {
		fmt.Fprintf(out, "\nAlso: %s%s, or --set %s=…\n", EnvPrefix, strings.ToUpper(strings.ReplaceAll(key, ".", "__")), key)
	}
	if len(f.fields) > 0 {
		out.WriteString("\nKeys:\n")
		for i := range f.fields {
			fmt.Fprintf(out, "  %-28s %s\n", f.fields[i].name, f.fields[i].summary())
		}
	}
}

// typeWords says what may be written.
func (f *field) typeWords() string {
	switch f.kind {
	case sectionKind:
		return "section"
	case listKind:
		return "list of sections"
	case namedKind:
		return "sections by name"
	case boolKind:
		return "true or false"
	case intKind:
		if f.max > 0 {
			return fmt.Sprintf("whole number from %d to %d", f.min, f.max)
		}
		return "whole number"
	case durationKind:
		s := fmt.Sprintf("duration from %s to %s", formatDuration(timeOf(f.min)), formatDuration(timeOf(f.max)))
		if f.seconds {
			s += ", or a number of seconds"
		}
		return s
	case sizeKind:
		return fmt.Sprintf("size from %s to %s", formatSize(f.min), formatSize(f.max))
	case enumKind:
		return orList(f.enum)
	case stringsKind:
		return "list of texts"
	case stringMapKind:
		return "section of texts"
	case freeKind:
		return "section of any keys"
	case jsonKind:
		return "anything that JSON can say"
	case sourceKind:
		return "secret: {file: NAME}, {credential: NAME}, {env: NAME} or text"
	case pemKind:
		return "certificates: {file: NAME} or text"
	case fileKind:
		return "name of a file or directory"
	case proxyKind:
		return "none, environment, or a section"
	case cipherKind:
		return "text, or list of texts"
	default:
		return "text"
	}
}

// JSONSchema returns a JSON Schema (draft 2020-12) of the configuration, for editors. It allows all that Load allows; it
// cannot say everything that Load refuses.
func JSONSchema() []byte {
	s := schema().jsonSchema()
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Fairlead configuration"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // maps of texts and numbers; a test looks
	}
	return append(b, '\n')
}

type object = map[string]any

func (f *field) jsonSchema() object {
	s := f.jsonType()
	if f.doc != "" {
		s["description"] = f.doc
	}
	if f.def != "" {
		s["default"] = f.jsonDefault()
	}
	return s
}

func (f *field) jsonDefault() any {
	switch n := scalar(f, f.def, Pos{}); n.kind {
	case boolNode:
		return n.flag
	case intNode:
		return n.integer
	default:
		return f.def
	}
}

func (f *field) jsonType() object {
	text := object{"type": "string"}
	switch f.kind {
	case sectionKind:
		return f.jsonSection()
	case listKind:
		return object{"type": "array", "minItems": 1, "items": f.jsonSection()}
	case namedKind:
		return object{"type": []string{"object", "null"}, "propertyNames": object{"pattern": pluginName().String()}, "additionalProperties": f.jsonSection()}
	case boolKind:
		return object{"type": "boolean"}
	case intKind:
		s := object{"type": "integer", "minimum": f.min}
		if f.max > 0 {
			s["maximum"] = f.max
		}
		if f.name == "version" {
			s["maximum"] = CurrentVersion
		}
		return s
	case durationKind:
		s := object{"type": "string", "pattern": `^0$|^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+$`}
		if f.seconds {
			return object{"anyOf": []object{s, {"type": "integer", "minimum": 0}}}
		}
		return s
	case sizeKind:
		return object{"anyOf": []object{{"type": "integer", "minimum": f.min}, {"type": "string", "pattern": sizePattern().String()}}}
	case enumKind:
		return object{"enum": slices.Clone(f.enum)}
	case stringsKind:
		return object{"type": "array", "items": text}
	case stringMapKind:
		return object{"type": []string{"object", "null"}, "additionalProperties": text}
	case freeKind:
		return object{"type": []string{"object", "null"}}
	case jsonKind:
		return object{}
	case sourceKind:
		one := func(key string) object {
			return object{"type": "object", "properties": object{key: object{"type": "string", "minLength": 1}}, "required": []string{key}, "additionalProperties": false}
		}
		return object{"anyOf": []object{{"type": "string", "minLength": 1}, one("file"), one("credential"), one("env")}}
	case pemKind:
		return object{"anyOf": []object{
			{"type": "string", "minLength": 1},
			{"type": "object", "properties": object{"file": text}, "required": []string{"file"}, "additionalProperties": false},
		}}
	case proxyKind:
		return object{"anyOf": []object{{"enum": []string{ProxyNone, ProxyEnvironment}}, f.jsonSection()}}
	case cipherKind:
		return object{"anyOf": []object{text, {"type": "array", "items": text}}}
	default:
		return text
	}
}

func (f *field) jsonSection() object {
	props := object{}
	required := []string{}
	for i := range f.fields {
		props[f.fields[i].name] = f.fields[i].jsonSchema()
		if f.fields[i].required {
			required = append(required, f.fields[i].name)
		}
	}
	s := object{"type": "object", "properties": props, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	} else {
		s["type"] = []string{"object", "null"} // all of its keys are commented out
	}
	return s
}
