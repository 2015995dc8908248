package core

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// line writes the one-line form of an event or effect: its name, then key=value for each value that is not zero. The
// form is stable: it is the language of the transcripts, the trace and the debug log.
func line(name string, pairs ...any) string {
	var b strings.Builder
	b.WriteString(name)
	for i := 0; i+1 < len(pairs); i += 2 {
		text, isZero := word(pairs[i+1])
		if isZero {
			continue
		}
		b.WriteByte(' ')
		b.WriteString(pairs[i].(string))
		if text != "" {
			b.WriteByte('=')
			b.WriteString(text)
		}
	}
	return b.String()
}

// quoted quotes a text that would not stand as one word of one line. Much of what is shown was written by others: a
// control character must not reach a terminal or a log.
func quoted(s string) string {
	q := strconv.Quote(s)
	if len(q) == len(s)+2 && !strings.ContainsAny(s, " =") {
		return s
	}
	return q
}

// word gives a value's text, quoted where it holds spaces. A true bool is its key alone.
func word(v any) (text string, isZero bool) {
	switch v := v.(type) {
	case bool:
		return "", !v
	case string:
		return quoted(v), v == ""
	case []string:
		return quoted(strings.Join(v, ",")), len(v) == 0
	case map[string]string:
		var parts []string
		for _, k := range sortedKeys(v) {
			parts = append(parts, k+":"+v[k])
		}
		return quoted(strings.Join(parts, ",")), len(v) == 0
	case time.Duration:
		return v.String(), v == 0
	case fmt.Stringer:
		return v.String(), false
	default:
		text = fmt.Sprint(v)
		return text, text == "0"
	}
}
