package query

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxDepth bounds nested conditions, so that no query exhausts the stack.
const maxDepth = 100

// Parse reads a query.
func Parse(text string) (*Query, error) {
	tokens, err := scan(text)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	q, err := p.query()
	if err != nil {
		return nil, fmt.Errorf("near %s: %w", p.describe(), err)
	}
	return q, nil
}

type kind int

const (
	word kind = iota // a keyword, a function, or a path
	text
	num
	symbol
	end
)

type token struct {
	kind kind
	text string
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.$-", c) >= 0 || c >= 0x80
}

func scan(in string) ([]token, error) {
	var out []token
	for i := 0; i < len(in); {
		switch c := in[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '\'' || c == '"':
			s, n, err := scanText(in[i:])
			if err != nil {
				return nil, err
			}
			out = append(out, token{text, s})
			i += n
		case c >= '0' && c <= '9' || c == '-' && i+1 < len(in) && in[i+1] >= '0' && in[i+1] <= '9':
			start := i
			i++
			for i < len(in) && (in[i] >= '0' && in[i] <= '9' || strings.IndexByte(".eE+-", in[i]) >= 0) {
				i++
			}
			if !json.Valid([]byte(in[start:i])) {
				return nil, fmt.Errorf("%q is not a number", in[start:i])
			}
			out = append(out, token{num, in[start:i]})
		case isWordByte(c):
			start := i
			for i < len(in) && isWordByte(in[i]) {
				i++
			}
			out = append(out, token{word, in[start:i]})
		default:
			s := in[i : i+1]
			if two := in[i:min(i+2, len(in))]; slices.Contains([]string{"!=", "<>", "<=", ">="}, two) {
				s = two
			} else if !strings.Contains("=<>()[],*", s) {
				return nil, fmt.Errorf("unexpected %q", s)
			}
			out = append(out, token{symbol, s})
			i += len(s)
		}
	}
	return append(out, token{end, ""}), nil
}

// scanText reads a quoted text; the quote is doubled, or follows a backslash,
// inside it.
func scanText(in string) (string, int, error) {
	var b strings.Builder
	quote := in[0]
	for i := 1; i < len(in); i++ {
		switch {
		case in[i] == '\\' && i+1 < len(in):
			i++
			b.WriteByte(in[i])
		case in[i] != quote:
			b.WriteByte(in[i])
		case i+1 < len(in) && in[i+1] == quote:
			i++
			b.WriteByte(quote)
		default:
			return b.String(), i + 1, nil
		}
	}
	return "", 0, errors.New("a text has no end")
}

type parser struct {
	tokens []token
	at     int
	depth  int
}

func (p *parser) describe() string {
	if t := p.tokens[p.at]; t.kind != end {
		return fmt.Sprintf("%q", t.text)
	}
	return "the end"
}

func (p *parser) next() token {
	t := p.tokens[p.at]
	if t.kind != end {
		p.at++
	}
	return t
}

// keyword takes a keyword if it is there, whatever its case.
func (p *parser) keyword(name string) bool {
	t := p.tokens[p.at]
	if t.kind != word || !strings.EqualFold(t.text, name) {
		return false
	}
	p.at++
	return true
}

func (p *parser) symbol(s string) bool {
	t := p.tokens[p.at]
	if t.kind != symbol || t.text != s {
		return false
	}
	p.at++
	return true
}

func (p *parser) query() (*Query, error) {
	q := &Query{}
	if !p.keyword("SELECT") {
		return nil, errors.New("a query begins with SELECT")
	}
	if p.keyword("TOP") {
		n := p.next()
		var err error
		if q.Top, err = strconv.Atoi(n.text); err != nil || n.kind != num || q.Top < 1 {
			return nil, errors.New("TOP wants a number above 0")
		}
	}
	if err := p.columns(q); err != nil {
		return nil, err
	}
	if !p.keyword("FROM") {
		return nil, errors.New("FROM is missing")
	}
	switch from := p.next(); strings.ToLower(from.text) {
	case "devices":
	case "devices.modules":
		q.Modules = true
	default:
		return nil, fmt.Errorf("FROM %s: this hub knows devices and devices.modules", from.text)
	}
	if p.keyword("WHERE") {
		var err error
		if q.where, err = p.or(); err != nil {
			return nil, err
		}
	}
	if p.keyword("GROUP") {
		if err := p.groupBy(q); err != nil {
			return nil, err
		}
	}
	if p.tokens[p.at].kind != end {
		return nil, errors.New("this hub knows SELECT, FROM, WHERE and GROUP BY, and nothing after them")
	}
	return q, q.checkGroup()
}

func (p *parser) groupBy(q *Query) error {
	if !p.keyword("BY") {
		return errors.New("GROUP wants BY")
	}
	for {
		t := p.next()
		if t.kind != word {
			return errors.New("GROUP BY wants a path")
		}
		q.group = append(q.group, strings.Split(t.text, "."))
		if !p.symbol(",") {
			return nil
		}
	}
}

func (p *parser) columns(q *Query) error {
	if p.symbol("*") {
		return nil
	}
	for {
		t := p.next()
		if t.kind != word {
			return errors.New("a column is a path, * or an aggregate")
		}
		c := column{path: strings.Split(t.text, "."), name: t.text[strings.LastIndexByte(t.text, '.')+1:]}
		if p.symbol("(") {
			var err error
			if c, err = p.aggregate(t.text, len(q.columns)); err != nil {
				return err
			}
		}
		if p.keyword("AS") {
			name := p.next()
			if name.kind != word {
				return errors.New("AS wants a name")
			}
			c.name = name.text
		}
		q.columns = append(q.columns, c)
		if !p.symbol(",") {
			return nil
		}
	}
}

// aggregate reads what follows the parenthesis of COUNT(), SUM(path) …. Without
// AS it has the number of its column for a name.
func (p *parser) aggregate(name string, before int) (column, error) {
	c := column{name: fmt.Sprintf("$%d", before+1), function: strings.ToLower(name)}
	if !isAggregate(name) {
		return c, fmt.Errorf("no aggregate %s; there are COUNT(), SUM, AVG, MIN and MAX", name)
	}
	if c.function != "count" {
		t := p.next()
		if t.kind != word {
			return c, fmt.Errorf("%s wants a path", name)
		}
		c.path = strings.Split(t.text, ".")
	}
	if !p.symbol(")") {
		return c, fmt.Errorf("%s( is not closed", name)
	}
	return c, nil
}

func (p *parser) or() (node, error) {
	left, err := p.and()
	for err == nil && p.keyword("OR") {
		var right node
		right, err = p.and()
		left = logic{false, left, right}
	}
	return left, err
}

func (p *parser) and() (node, error) {
	left, err := p.unary()
	for err == nil && p.keyword("AND") {
		var right node
		right, err = p.unary()
		left = logic{true, left, right}
	}
	return left, err
}

func (p *parser) unary() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("conditions nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	if p.keyword("NOT") {
		inner, err := p.unary()
		return not{inner}, err
	}
	if p.symbol("(") {
		inner, err := p.or()
		if err == nil && !p.symbol(")") {
			err = errors.New("a parenthesis is not closed")
		}
		return inner, err
	}
	return p.condition()
}

func (p *parser) condition() (node, error) {
	if t := p.tokens[p.at]; t.kind == word && p.tokens[p.at+1].text == "(" && p.tokens[p.at+1].kind == symbol {
		return p.function()
	}
	left, err := p.value()
	if err != nil {
		return nil, err
	}
	if negate := p.keyword("NIN"); negate || p.keyword("IN") {
		list, err := p.list()
		return membership{left, list, negate}, err
	}
	if t := p.tokens[p.at]; t.kind == symbol && strings.ContainsAny(t.text, "=<>") {
		p.at++
		right, err := p.value()
		return comparison{t.text, left, right}, err
	}
	return left, nil
}

func (p *parser) function() (node, error) {
	f := function{name: strings.ToLower(p.next().text)}
	n, err := arity(f.name)
	if err != nil {
		return nil, err
	}
	p.symbol("(")
	for len(f.args) < n {
		if len(f.args) > 0 && !p.symbol(",") {
			return nil, fmt.Errorf("%s wants %d arguments", f.name, n)
		}
		arg, err := p.value()
		if err != nil {
			return nil, err
		}
		f.args = append(f.args, arg)
	}
	if !p.symbol(")") {
		return nil, fmt.Errorf("%s wants %d arguments", f.name, n)
	}
	return f, nil
}

func (p *parser) list() ([]value, error) {
	if !p.symbol("[") {
		return nil, errors.New("IN wants a list in [ ]")
	}
	var list []value
	for !p.symbol("]") {
		if len(list) > 0 && !p.symbol(",") {
			return nil, errors.New("a list is not closed")
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

func (p *parser) value() (value, error) {
	switch t := p.next(); t.kind {
	case text:
		return value{literal: t.text}, nil
	case num:
		return value{literal: json.Number(t.text)}, nil
	case word:
		switch strings.ToLower(t.text) {
		case "true", "false":
			return value{literal: strings.EqualFold(t.text, "true")}, nil
		case "null":
			return value{}, nil
		}
		return value{path: strings.Split(t.text, ".")}, nil
	default:
		return value{}, errors.New("a path or a literal is missing")
	}
}
