// Package bubble looks into the bubble of a test: see testing/synctest.
package bubble

import (
	"runtime"
	"strings"
)

// Goroutines returns the stacks of the goroutines in the caller's bubble, without the caller's own. Others of the process, as
// of the tests before and of the garbage collector, come and go: runtime.NumGoroutine counts them too.
func Goroutines() []string {
	text := make([]byte, 8<<20)
	text = text[:runtime.Stack(text, true)]
	own, others, _ := strings.Cut(string(text), "\n\n") // the caller's comes first
	_, name, found := strings.Cut(own[:strings.IndexByte(own, '\n')], ", synctest")
	if !found {
		return nil
	}
	var out []string
	for stack := range strings.SplitSeq(others, "\n\n") {
		if first, _, _ := strings.Cut(stack, "\n"); strings.HasSuffix(first, ", synctest"+name) {
			out = append(out, stack)
		}
	}
	return out
}
