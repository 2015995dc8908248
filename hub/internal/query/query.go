package query

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Query is a parsed query. It may be used by several goroutines.
type Query struct {
	// Modules says that it is about modules, not devices.
	Modules bool
	// Top bounds the number of results, 0 for no bound.
	Top     int
	columns []column // nil for *
	where   node     // nil for all
	group   [][]string
}

type column struct {
	path     []string // nil for COUNT()
	name     string
	function string // an aggregate in lower case, "" for the value itself
}

// IsRaw reports whether results are columns and not whole twins.
func (q *Query) IsRaw() bool { return q.columns != nil }

// Match reports whether a twin meets the condition. doc is its JSON, decoded with
// json.Number or float64.
func (q *Query) Match(doc map[string]any) bool {
	return q.where == nil || q.where.eval(doc) == yes
}

// Results makes the answer's items of the twins that matched: one for each twin,
// or for each group. It leaves Top to the caller.
func (q *Query) Results(docs []map[string]any) []map[string]any {
	if q.IsGrouped() {
		return q.grouped(docs)
	}
	if q.columns == nil {
		return docs
	}
	out := make([]map[string]any, 0, len(docs))
	for _, doc := range docs {
		row := map[string]any{}
		for _, c := range q.columns {
			if v, ok := lookup(doc, c.path); ok {
				row[c.name] = v
			}
		}
		out = append(out, row)
	}
	return out
}

// truth has a third value: what compares with something that is not there is
// undefined, and so is its negation.
type truth int

const (
	unknown truth = iota
	no
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// node is a condition.
type node interface {
	eval(doc map[string]any) truth
}

type logic struct {
	and         bool
	left, right node
}

func (l logic) eval(doc map[string]any) truth {
	a, b := l.left.eval(doc), l.right.eval(doc)
	decisive := truthOf(!l.and) // one of these decides
	switch {
	case a == decisive || b == decisive:
		return decisive
	case a == unknown || b == unknown:
		return unknown
	default:
		return truthOf(l.and)
	}
}

type not struct{ inner node }

func (n not) eval(doc map[string]any) truth {
	switch n.inner.eval(doc) {
	case yes:
		return no
	case no:
		return yes
	default:
		return unknown
	}
}

// value is a literal or a path.
type value struct {
	path    []string // nil for a literal
	literal any
}

func (v value) get(doc map[string]any) (any, bool) {
	if v.path == nil {
		return v.literal, true
	}
	return lookup(doc, v.path)
}

// eval makes a bare value a condition: true is true.
func (v value) eval(doc map[string]any) truth {
	got, ok := v.get(doc)
	b, isBool := got.(bool)
	if !ok || !isBool {
		return unknown
	}
	return truthOf(b)
}

func lookup(doc map[string]any, path []string) (any, bool) {
	var at any = doc
	for _, key := range path {
		object, ok := at.(map[string]any)
		if !ok {
			return nil, false
		}
		if at, ok = object[key]; !ok {
			return nil, false
		}
	}
	return at, true
}

type comparison struct {
	op          string
	left, right value
}

func (c comparison) eval(doc map[string]any) truth {
	a, okA := c.left.get(doc)
	b, okB := c.right.get(doc)
	if !okA || !okB {
		return unknown
	}
	order, alike := compare(a, b)
	switch c.op {
	case "=":
		return truthOf(alike && order == 0)
	case "!=", "<>":
		return truthOf(!alike || order != 0)
	}
	if !alike {
		return unknown
	}
	switch c.op {
	case "<":
		return truthOf(order < 0)
	case "<=":
		return truthOf(order <= 0)
	case ">":
		return truthOf(order > 0)
	default:
		return truthOf(order >= 0)
	}
}

// compare orders two values of the same kind; false for values of two kinds, and
// for objects and arrays.
func compare(a, b any) (int, bool) {
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return strings.Compare(a, b), ok
	case bool:
		b, ok := b.(bool)
		if ok && a != b {
			return 1, true
		}
		return 0, ok
	case nil:
		return 0, b == nil
	}
	x, okX := number(a)
	y, okY := number(b)
	switch {
	case !okX || !okY:
		return 0, false
	case x < y:
		return -1, true
	case x > y:
		return 1, true
	default:
		return 0, true
	}
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	default:
		return 0, false
	}
}

type membership struct {
	left   value
	list   []value
	negate bool
}

func (m membership) eval(doc map[string]any) truth {
	a, ok := m.left.get(doc)
	if !ok {
		return unknown
	}
	found := false
	for _, item := range m.list {
		b, ok := item.get(doc)
		order, alike := compare(a, b)
		found = found || ok && alike && order == 0
	}
	return truthOf(found != m.negate)
}

type function struct {
	name string // in lower case
	args []value
}

func (f function) eval(doc map[string]any) truth {
	first, ok := f.args[0].get(doc)
	if f.name == "is_defined" {
		return truthOf(ok)
	}
	second, okSecond := f.args[1].get(doc)
	text, isText := first.(string)
	part, isPart := second.(string)
	if !ok || !okSecond || !isText || !isPart {
		return unknown
	}
	if f.name == "startswith" {
		return truthOf(strings.HasPrefix(text, part))
	}
	return truthOf(strings.HasSuffix(text, part))
}

// arity of the functions that there are.
func arity(name string) (int, error) {
	switch name {
	case "is_defined":
		return 1, nil
	case "startswith", "endswith":
		return 2, nil
	}
	return 0, fmt.Errorf("no function %s; there are is_defined, STARTSWITH, ENDSWITH", name)
}
