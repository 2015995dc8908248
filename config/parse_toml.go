package config

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// parseTOML decodes with go-toml, which refuses bad syntax and duplicates with a position, and then walks the syntax
// once more for the positions of the keys, which decoded values do not carry.
func parseTOML(name string, data []byte) (*node, []Problem) {
	var values map[string]any
	if err := toml.Unmarshal(data, &values); err != nil {
		p := Problem{Pos: Pos{name, 1, 1}, Text: "not TOML: " + strings.TrimPrefix(err.Error(), "toml: ")}
		if d, ok := errors.AsType[*toml.DecodeError](err); ok {
			p.Pos.Line, p.Pos.Col = d.Position()
		}
		return nil, []Problem{p}
	}
	w := tomlWalker{where: newLocator(name, data), at: map[string]Pos{}, count: map[string]int{}}
	w.walk()
	c := tomlConverter{at: w.at}
	root := c.convert(values, "", Pos{name, 1, 1}, 0)
	return root, c.problems
}

// tomlSep parts the names of a path; it cannot stand in a TOML key unescaped, and an escaped one costs a position only.
const tomlSep = "\x00"

type tomlWalker struct {
	where  *locator
	parser unstable.Parser
	prefix string
	at     map[string]Pos
	count  map[string]int // items so far of each array of tables
}

func (w *tomlWalker) walk() {
	w.parser.Reset(w.where.data)
	for w.parser.NextExpression() {
		switch e := w.parser.Expression(); e.Kind {
		case unstable.Table:
			w.prefix = w.names("", e.Key(), false)
		case unstable.ArrayTable:
			w.prefix = w.names("", e.Key(), true)
		case unstable.KeyValue:
			w.keyValue(w.prefix, e, 0)
		default:
		}
	}
}

// names records the position of each part of a dotted key and returns the whole's path. Within a header, a part that
// is an array of tables means its latest item.
func (w *tomlWalker) names(prefix string, it unstable.Iterator, newItem bool) string {
	path := prefix
	for it.Next() {
		k := it.Node()
		path += tomlSep + string(k.Data)
		if _, ok := w.at[path]; !ok {
			w.at[path] = w.where.at(int(k.Raw.Offset))
		}
		last := it.IsLast()
		if last && newItem {
			w.count[path]++
			item := path + tomlSep + strconv.Itoa(w.count[path]-1)
			w.at[item] = w.where.at(int(k.Raw.Offset))
			path = item
		} else if n := w.count[path]; n > 0 {
			path += tomlSep + strconv.Itoa(n-1)
		}
	}
	return path
}

func (w *tomlWalker) keyValue(prefix string, e *unstable.Node, depth int) {
	w.value(w.names(prefix, e.Key(), false), e.Value(), depth)
}

func (w *tomlWalker) value(path string, v *unstable.Node, depth int) {
	if depth > maxDepth {
		return
	}
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				w.keyValue(path, it.Node(), depth+1)
			}
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.Comment {
				continue
			}
			w.value(path+tomlSep+strconv.Itoa(i), it.Node(), depth+1)
			i++
		}
	default:
	}
}

type tomlConverter struct {
	at       map[string]Pos
	problems []Problem
}

func (c *tomlConverter) convert(v any, path string, parent Pos, depth int) *node {
	pos, ok := c.at[path]
	if !ok {
		pos = parent
	}
	n := &node{kind: otherNode, pos: pos}
	if depth > maxDepth {
		c.problems = append(c.problems, Problem{Pos: pos, Text: "nested more than " + strconv.Itoa(maxDepth) + " deep"})
		return n
	}
	switch v := v.(type) {
	case bool:
		n.kind, n.flag, n.text = boolNode, v, strconv.FormatBool(v)
	case int64:
		n.kind, n.integer, n.text = intNode, v, strconv.FormatInt(v, 10)
	case float64:
		n.kind, n.float, n.text = floatNode, v, strconv.FormatFloat(v, 'g', -1, 64)
	case string:
		n.kind, n.text = stringNode, v
	case []any:
		n.kind = listNode
		for i, item := range v {
			n.items = append(n.items, c.convert(item, path+tomlSep+strconv.Itoa(i), pos, depth+1))
		}
	case map[string]any:
		n.kind = mapNode
		for k, val := range v {
			child := c.convert(val, path+tomlSep+k, pos, depth+1)
			n.entries = append(n.entries, entry{k, child.pos, child})
		}
		slices.SortFunc(n.entries, func(a, b entry) int {
			return cmp.Or(cmp.Compare(a.pos.Line, b.pos.Line), cmp.Compare(a.pos.Col, b.pos.Col), strings.Compare(a.key, b.key))
		})
	}
	return n
}
