package config

import (
	"cmp"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with the configuration. Its text never holds a secret.
type Problem struct {
	Pos  Pos
	Key  string // "connection.keep_alive"; "" where the whole file is meant
	Text string // what is wrong, and what to do
}

// String returns "file:line:col: key: what is wrong".
func (p Problem) String() string {
	var parts []string
	if s := p.Pos.String(); s != "" {
		parts = append(parts, s)
	}
	if p.Key != "" {
		parts = append(parts, p.Key)
	}
	return strings.Join(append(parts, p.Text), ": ")
}

// Error is what Load returns when the input is wrong: every problem that was found, in the order of the files. Those
// who start the program see it and mend the file; nothing is gained by trying again.
type Error struct {
	Problems []Problem
}

// Error returns the problems, one a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// sortProblems orders by place within each file, the files in the order in which they were read, and drops repetitions,
// as come from an anchor that is used twice.
func sortProblems(ps []Problem, files []string) []Problem {
	rank := func(p Problem) int {
		if i := slices.Index(files, p.Pos.File); i >= 0 {
			return i
		}
		return len(files)
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.Pos.File, b.Pos.File),
			cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
	})
	return slices.CompactFunc(ps, func(a, b Problem) bool { return a.Pos == b.Pos && a.Text == b.Text && a.leaf() == b.leaf() })
}

// leaf returns the last part of the key.
func (p Problem) leaf() string { return p.Key[len(parentKey(p.Key)):] }

// followsFrom reports whether p, found in the values, is likely nothing but a consequence of q, found when reading them:
// what could not be read is missing later.
func (p Problem) followsFrom(q Problem) bool {
	switch {
	case p.Key == q.Key || isUnder(p.Key, q.Key):
		return true
	case !isUnder(q.Key, p.Key):
		return false
	case p.Key == "device": // the identity may be what was mistyped
		return strings.HasPrefix(q.Text, unknownKey)
	default: // comparisons of whole items and maps
		return strings.HasSuffix(p.Key, "]") || strings.HasSuffix(p.Key, ".match")
	}
}

// isUnder reports whether key stands somewhere in the section or list parent.
func isUnder(key, parent string) bool {
	rest, ok := strings.CutPrefix(key, parent)
	return ok && rest != "" && (rest[0] == '.' || rest[0] == '[')
}
