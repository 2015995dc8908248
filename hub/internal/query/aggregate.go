package query

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// isAggregate reports whether a name in a column is a function over a group.
func isAggregate(name string) bool {
	return slices.Contains([]string{"count", "sum", "avg", "min", "max"}, strings.ToLower(name))
}

// IsGrouped reports whether a result stands for several twins.
func (q *Query) IsGrouped() bool {
	return q.group != nil || slices.ContainsFunc(q.columns, func(c column) bool { return c.function != "" })
}

// checkGroup holds the rule that a column beside aggregates must be grouped by.
func (q *Query) checkGroup() error {
	if !q.IsGrouped() {
		return nil
	}
	if q.columns == nil {
		return fmt.Errorf("GROUP BY wants columns, not *")
	}
	for _, c := range q.columns {
		if c.function == "" && !slices.ContainsFunc(q.group, func(path []string) bool { return slices.Equal(path, c.path) }) {
			return fmt.Errorf("%s stands beside an aggregate and not in GROUP BY", strings.Join(c.path, "."))
		}
	}
	return nil
}

// grouped makes a row for each group, in the order in which they first appear. A
// twin that lacks what is grouped by belongs to the group of those that do.
func (q *Query) grouped(docs []map[string]any) []map[string]any {
	var keys []string
	groups := map[string][]map[string]any{}
	for _, doc := range docs {
		values := make([]any, len(q.group))
		for i, path := range q.group {
			values[i], _ = lookup(doc, path) // nil is the group of those without
		}
		text, _ := json.Marshal(values) // it came from JSON
		key := string(text)
		if _, known := groups[key]; !known {
			keys = append(keys, key)
		}
		groups[key] = append(groups[key], doc)
	}
	if q.group == nil && keys == nil {
		keys = []string{""} // COUNT() of nothing is 0, not nothing
	}
	out := make([]map[string]any, 0, len(keys))
	for _, key := range keys {
		row := map[string]any{}
		for _, c := range q.columns {
			if value, ok := c.over(groups[key]); ok {
				row[c.name] = value
			}
		}
		out = append(out, row)
	}
	return out
}

// over is the column's value for a group; false when there is none.
func (c column) over(docs []map[string]any) (any, bool) {
	if c.function == "count" {
		return len(docs), true
	}
	if c.function == "" {
		if len(docs) == 0 {
			return nil, false
		}
		return lookup(docs[0], c.path)
	}
	var numbers []float64
	for _, doc := range docs {
		value, _ := lookup(doc, c.path) // nil is no number
		if n, ok := number(value); ok {
			numbers = append(numbers, n)
		}
	}
	if len(numbers) == 0 {
		return nil, false
	}
	sum := 0.0
	for _, n := range numbers {
		sum += n
	}
	switch c.function {
	case "sum":
		return sum, true
	case "avg":
		return sum / float64(len(numbers)), true
	case "min":
		return slices.Min(numbers), true
	default:
		return slices.Max(numbers), true
	}
}
