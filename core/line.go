package core

import (
	"fmt"
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

// word gives a value's text, quoted where it holds spaces. A true bool is its key alone.
func word(v any) (text string, isZero bool) {
	switch v := v.(type) {
	case bool:
		return "", !v
	case string:
		if strings.ContainsAny(v, " =\"\n") {
			return fmt.Sprintf("%q", v), false
		}
		return v, v == ""
	case []string:
		return strings.Join(v, ","), len(v) == 0
	case map[string]string:
		var parts []string
		for _, k := range sortedKeys(v) {
			parts = append(parts, k+":"+v[k])
		}
		return strings.Join(parts, ","), len(v) == 0
	case time.Duration:
		return v.String(), v == 0
	case fmt.Stringer:
		return v.String(), false
	default:
		text = fmt.Sprint(v)
		return text, text == "0"
	}
}
