package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// yamlLine finds the line that yaml's syntax errors carry; they have no columns and no type of their own.
var yamlLine = pattern(`^(?:yaml: )?(?:line (\d+): )?(.*)$`)

func parseYAML(name string, data []byte) (*node, []Problem) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return &node{kind: mapNode, pos: Pos{name, 1, 1}}, nil
	} else if err != nil {
		return nil, []Problem{yamlProblem(name, data, err)}
	}
	c := yamlConverter{file: name}
	root := c.convert(&doc, 0)
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case err == nil:
		c.add(Pos{name, max(second.Line, 1), max(second.Column, 1)}, "a second document begins here: one file holds one configuration")
	case !errors.Is(err, io.EOF):
		c.problems = append(c.problems, yamlProblem(name, data, err))
	}
	return root, c.problems
}

// yamlParserErrors are the errors whose line the library counts from 0; its other errors count from 1.
var yamlParserErrors = pattern(`^did not find expected (<|node content|'-' indicator|key$|',' or)`)

var yamlAnchorError = pattern(`^unknown anchor '(.*)' referenced$`)

func yamlProblem(name string, data []byte, err error) Problem {
	p := Problem{Pos: Pos{name, 1, 1}, Text: "not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	m := yamlLine().FindStringSubmatch(err.Error())
	if m == nil {
		return p
	}
	p.Text = "not YAML: " + m[2]
	if n, err := strconv.Atoi(m[1]); err == nil {
		p.Pos.Line = n
	}
	if yamlParserErrors().MatchString(m[2]) && m[1] != "" {
		p.Pos.Line++
	}
	lines := bytes.Split(data, []byte{'\n'})
	if p.Pos.Line <= len(lines) && bytes.HasPrefix(bytes.TrimLeft(lines[p.Pos.Line-1], " "), []byte{'\t'}) {
		p.Text = "not YAML: a tab indents this line: use spaces"
	}
	if a := yamlAnchorError().FindStringSubmatch(m[2]); a != nil {
		p.Text = fmt.Sprintf("not YAML: there is no anchor &%s before this alias", a[1])
		p.Pos = newLocator(name, data).at(bytes.Index(data, []byte("*"+a[1])))
	}
	return p
}

// yamlConverter follows aliases and merge keys, so that the rest need not know of them.
type yamlConverter struct {
	file     string
	nodes    int
	open     []*yaml.Node // aliases being followed: one inside itself is a loop
	problems []Problem
}

func (c *yamlConverter) add(p Pos, text string) {
	c.problems = append(c.problems, Problem{Pos: p, Text: text})
}

func (c *yamlConverter) pos(y *yaml.Node) Pos { return Pos{c.file, y.Line, y.Column} }

func (c *yamlConverter) convert(y *yaml.Node, depth int) *node {
	c.nodes++
	if c.nodes == maxNodes+1 {
		c.add(c.pos(y), fmt.Sprintf("more than %d values once the aliases are followed", maxNodes))
	}
	n := &node{kind: nullNode, pos: c.pos(y)}
	if c.nodes > maxNodes {
		return n
	}
	if depth > maxDepth {
		c.add(n.pos, fmt.Sprintf("nested more than %d deep", maxDepth))
		return n
	}
	switch y.Kind {
	case yaml.DocumentNode:
		if len(y.Content) == 0 {
			return n
		}
		return c.convert(y.Content[0], depth)
	case yaml.AliasNode:
		if slices.Contains(c.open, y.Alias) {
			c.add(n.pos, "the alias *"+y.Value+" stands inside its own anchor")
			return n
		}
		c.open = append(c.open, y.Alias)
		// The position stays that of the anchor: there the value can be mended.
		n = c.convert(y.Alias, depth+1)
		c.open = c.open[:len(c.open)-1]
		return n
	case yaml.SequenceNode:
		n.kind = listNode
		for _, item := range y.Content {
			n.items = append(n.items, c.convert(item, depth+1))
		}
	case yaml.MappingNode:
		n.kind = mapNode
		c.convertMap(n, y, depth)
	case yaml.ScalarNode:
		c.convertScalar(n, y)
	}
	return n
}

func (c *yamlConverter) convertMap(n *node, y *yaml.Node, depth int) {
	seen := map[string]*node{}
	var merges []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			merges = append(merges, c.convert(v, depth+1))
			continue
		}
		if k.Kind != yaml.ScalarNode || (k.ShortTag() != "!!str" && k.Value == "") {
			c.add(c.pos(k), "a key must be a text")
			continue
		}
		// on, 12 and null are fine as keys: a plugin may be called so, and an unknown key is named as it is written.
		key := k.Value
		if first, ok := seen[key]; ok {
			n.twice = append(n.twice, entry{key, c.pos(k), first})
			continue
		}
		seen[key] = c.convert(v, depth+1)
		n.entries = append(n.entries, entry{key, c.pos(k), seen[key]})
	}
	for _, m := range merges {
		maps := m.items
		if m.kind != listNode {
			maps = []*node{m}
		}
		for _, m := range maps {
			if m.kind != mapNode {
				c.add(m.pos, "<< wants a section, or a list of sections")
				continue
			}
			for _, e := range m.entries {
				if _, ok := seen[e.key]; !ok {
					seen[e.key] = e.val
					n.entries = append(n.entries, e)
				}
			}
		}
	}
}

func (c *yamlConverter) convertScalar(n *node, y *yaml.Node) {
	n.text = y.Value
	var err error
	switch y.ShortTag() {
	case "!!null":
		n.kind = nullNode
	case "!!bool":
		n.kind = boolNode
		err = y.Decode(&n.flag)
	case "!!int":
		n.kind = intNode
		if y.Decode(&n.integer) != nil { // beyond 64 bits
			n.kind = floatNode
			err = y.Decode(&n.float)
		}
	case "!!float":
		n.kind = floatNode
		err = y.Decode(&n.float)
	case "!!str", "!!timestamp": // 2026-11-23 is text to us
		n.kind = stringNode
	default:
		n.kind = otherNode
	}
	if err != nil { // a tag that lies about its value
		n.kind = otherNode
	}
}
