package doctor

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// WriteText writes the report for people: layer by layer, then what to do, then what it comes to.
func (r *Report) WriteText(out io.Writer) error {
	w := &lines{out: out}
	who := "the device"
	if r.Device != "" {
		who = r.Device + " at " + r.Hub
	}
	w.line("%s", who)
	w.checks(r, "")
	for _, way := range r.Ways {
		text := way.To
		if way.Address != "" {
			text += " at " + way.Address
		}
		if way.Proxy != "" {
			text += " through " + way.Proxy
		}
		w.line("")
		w.line("%s: %s", way.Route, text)
		w.checks(r, way.Route)
	}
	if findings := r.Findings(); len(findings) > 0 {
		w.line("")
		w.line("What to do")
		for i, c := range merge(findings) {
			where := ""
			if c.Route != "" {
				where = ", by " + c.Route
			}
			w.line("  %d. %s (%s%s): %s", i+1, c.Code, c.Severity, where, c.Detail)
			if c.BecauseOf != "" {
				w.line("     → follows from %s; see to that first", c.BecauseOf)
				continue
			}
			w.line("     → %s", c.Fix)
		}
	}
	w.line("")
	w.line("%s (%s)", r.result(), took(r.Took))
	return w.err
}

// merge makes one of findings that want the same done: a name that cannot be looked up fails by every route.
func merge(findings []Check) []Check {
	var out []Check
	for _, c := range findings {
		i := slices.IndexFunc(out, func(o Check) bool {
			return c.Route != "" && o.Route != "" && c.Code == o.Code && c.Severity == o.Severity && c.Fix == o.Fix
		})
		if i < 0 {
			out = append(out, c)
			continue
		}
		out[i].Route += ", " + c.Route
	}
	return out
}

// result is the last line.
func (r *Report) result() string {
	var through []string
	for _, way := range r.Ways {
		if way.Through {
			through = append(through, way.Route)
		}
	}
	problems, warnings := 0, 0
	for _, c := range r.Checks {
		switch c.Severity {
		case Problem:
			problems++
		case Warning:
			warnings++
		case OK, Skipped:
		}
	}
	text := "All is well"
	switch {
	case !r.Healthy && problems == 0:
		text = "The device does not get through"
	case problems > 0:
		text = count(problems, "problem")
		if warnings > 0 {
			text += ", " + count(warnings, "warning")
		}
	case warnings > 0:
		text = "The device can work: " + count(warnings, "warning")
	}
	if len(through) > 0 {
		text += "; through by " + strings.Join(through, ", ")
	}
	return text
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// lines writes, and keeps the first error.
type lines struct {
	out io.Writer
	err error
}

func (w *lines) line(format string, args ...any) {
	if w.err != nil {
		return
	}
	text := strings.TrimRight(fmt.Sprintf(format, args...), " ")
	if _, err := io.WriteString(w.out, text+"\n"); err != nil {
		w.err = fmt.Errorf("write report: %w", err)
	}
}

// checks writes the layers of a route, findings by their code: the cause stands below.
func (w *lines) checks(r *Report, route string) {
	words := map[Severity]string{OK: "ok", Skipped: "-", Warning: "WARNING", Problem: "PROBLEM"}
	for _, c := range r.Checks {
		if c.Route != route {
			continue
		}
		detail := c.Detail
		if c.Code != "" {
			detail = c.Code
		}
		const wide = 72
		if c.Took >= 1 {
			detail += strings.Repeat(" ", max(wide-utf8.RuneCountInString(detail), 2)) + took(c.Took)
		}
		w.line("  %-10s  %-7s  %s", c.Layer, words[c.Severity], detail)
	}
}

func took(ms float64) string { return short(time.Duration(ms * float64(time.Millisecond))) }
