package config

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Limits of one file. They are far above what a configuration needs and keep a hostile or mistaken file from costing
// memory or stack.
const (
	maxFileSize = 1 << 20 // bytes
	maxDepth    = 64      // nested maps and lists
	maxNodes    = 100_000 // values after YAML aliases are followed: what stops an alias bomb
)

// Pos says where something stands. Line and Col count from 1; they are 0 where only the source is known, as for an
// environment variable, whose name then stands in File.
type Pos struct {
	File string
	Line int
	Col  int
}

// String returns "file:line:col", or what is known of it.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Col == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	default:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
	}
}

type nodeKind uint8

const (
	nullNode nodeKind = iota
	boolNode
	intNode
	floatNode
	stringNode
	listNode
	mapNode
	otherNode // a date of TOML, a binary of YAML: nothing here wants one
)

// node is a value of a file, the same for YAML, TOML and JSON.
type node struct {
	kind    nodeKind
	pos     Pos
	text    string // stringNode: the text; other scalars: as written
	flag    bool   // boolNode
	integer int64  // intNode
	float   float64
	items   []*node // listNode
	entries []entry // mapNode, in file order
	twice   []entry // mapNode: keys that stood in it before, for a problem; val is the value that counts
}

type entry struct {
	key string
	pos Pos
	val *node
}

func (n *node) get(key string) *node {
	for _, e := range n.entries {
		if e.key == key {
			return e.val
		}
	}
	return nil
}

// words describes the node's kind to a reader, for "is a list, not a text".
func (n *node) words() string {
	switch n.kind {
	case nullNode:
		return "empty"
	case boolNode:
		return "a boolean"
	case intNode, floatNode:
		return "a number"
	case stringNode:
		return "a text"
	case listNode:
		return "a list"
	case mapNode:
		return "a section"
	default:
		return "of a kind that is not used here"
	}
}

// parse reads one file's bytes into a tree. What is wrong with the syntax, duplicate keys included, comes back as
// problems; the tree is then nil or partial. name stands in the positions.
func parse(name string, data []byte) (*node, []Problem) {
	at := func(line, col int, text string) []Problem {
		return []Problem{{Pos: Pos{name, line, col}, Text: text}}
	}
	if len(data) > maxFileSize {
		return nil, at(0, 0, fmt.Sprintf("the file is larger than %d bytes: is it a configuration at all?", maxFileSize))
	}
	if i := invalidUTF8(data); i >= 0 {
		p := newLocator(name, data).at(i)
		return nil, at(p.Line, p.Col, "not UTF-8 text")
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		p := newLocator(name, data).at(i)
		return nil, at(p.Line, p.Col, "contains a NUL byte: is it a text file at all?")
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	switch strings.ToLower(filepath.Ext(name)) {
	case ".toml":
		return parseTOML(name, data)
	case ".json":
		return parseJSON(name, data)
	default:
		return parseYAML(name, data)
	}
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return -1
}

// locator turns byte offsets into positions. Offsets that rise cost little: it goes on from the last one.
type locator struct {
	file   string
	data   []byte
	offset int
	line   int
	col    int
}

func newLocator(file string, data []byte) *locator {
	return &locator{file: file, data: data, line: 1, col: 1}
}

// at returns the position of the byte at offset; columns count characters.
func (l *locator) at(offset int) Pos {
	offset = min(max(offset, 0), len(l.data))
	if offset < l.offset {
		l.offset, l.line, l.col = 0, 1, 1
	}
	for l.offset < offset {
		r, n := utf8.DecodeRune(l.data[l.offset:])
		l.offset += n
		if l.col++; r == '\n' {
			l.line, l.col = l.line+1, 1
		}
	}
	return Pos{l.file, l.line, l.col}
}
