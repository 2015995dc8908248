package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// parseJSON walks encoding/json's tokens, since decoded values carry no positions. (YAML's parser would take JSON too,
// but neither tabs nor surrogate pairs.)
func parseJSON(name string, data []byte) (*node, []Problem) {
	if len(bytes.TrimSpace(data)) == 0 {
		return &node{kind: mapNode, pos: Pos{name, 1, 1}}, nil
	}
	p := jsonParser{data: data, where: newLocator(name, data), dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	root, err := p.value(0)
	if err == nil {
		pos := p.next()
		if _, err = p.dec.Token(); errors.Is(err, io.EOF) {
			return root, nil
		} else if err == nil {
			return root, []Problem{{Pos: pos, Text: "not JSON: something follows the end"}}
		}
	}
	pos := p.next()
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		pos = p.where.at(int(s.Offset) - 1)
	}
	text := err.Error()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		text = "the text ends too early"
	}
	return nil, []Problem{{Pos: pos, Text: "not JSON: " + text}}
}

type jsonParser struct {
	data  []byte
	where *locator
	dec   *json.Decoder
	nodes int
}

// next returns where the next token begins.
func (p *jsonParser) next() Pos {
	i := int(p.dec.InputOffset())
	for i < len(p.data) && bytes.IndexByte([]byte(" \t\r\n,:"), p.data[i]) >= 0 {
		i++
	}
	return p.where.at(i)
}

func (p *jsonParser) value(depth int) (*node, error) {
	n := &node{kind: nullNode, pos: p.next()}
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	if p.nodes++; p.nodes > maxNodes {
		return nil, fmt.Errorf("more than %d values", maxNodes)
	}
	tok, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := tok.(type) {
	case bool:
		n.kind, n.flag, n.text = boolNode, t, fmt.Sprint(t)
	case string:
		n.kind, n.text = stringNode, t
	case json.Number:
		n.text = t.String()
		if n.integer, err = t.Int64(); err == nil {
			n.kind = intNode
		} else if n.float, err = t.Float64(); err == nil {
			n.kind = floatNode
		} else {
			n.kind = otherNode
		}
	case json.Delim:
		if t == '[' {
			return n, p.list(n, depth)
		}
		return n, p.object(n, depth)
	}
	return n, nil
}

func (p *jsonParser) list(n *node, depth int) error {
	n.kind = listNode
	for p.dec.More() {
		item, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	_, err := p.dec.Token()
	return err
}

func (p *jsonParser) object(n *node, depth int) error {
	n.kind = mapNode
	seen := map[string]*node{}
	for p.dec.More() {
		pos := p.next()
		tok, err := p.dec.Token()
		if err != nil {
			return err
		}
		key, _ := tok.(string)
		val, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		if first, ok := seen[key]; ok {
			n.twice = append(n.twice, entry{key, pos, first})
			continue
		}
		seen[key] = val
		n.entries = append(n.entries, entry{key, pos, val})
	}
	_, err := p.dec.Token()
	return err
}
