//go:build faults && unix

package faults

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// accepted is a number whose Send returned nil.
type accepted struct {
	n  int
	at time.Time // to the millisecond
}

// accepted reads what the plugin wrote down.
func (w *world) accepted() []accepted {
	w.t.Helper()
	var out []accepted
	for _, line := range w.pluginFile("numbers", "accepted") {
		var n int
		var ms int64
		if _, err := fmt.Sscanf(line, "%d %d", &n, &ms); err != nil {
			w.t.Fatalf("line %q: %v", line, err)
		}
		out = append(out, accepted{n, time.UnixMilli(ms)})
	}
	return out
}

// atHub returns the numbers that the hub has, in the order in which it got them.
func (w *world) atHub() []int {
	w.t.Helper()
	var out []int
	for line := range strings.Lines(w.hubDo("monitor", "--follow=false", "--json", "--device", device)) {
		var m struct {
			Body string `json:"body"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			w.t.Fatalf("line %q: %v", line, err)
		}
		if n, err := strconv.Atoi(m.Body); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// check says what is wrong with the numbers: each accepted one must be at the hub; first occurrences must be in order; a
// number may come twice only if it had not been accepted when the fault began.
func check(acc []accepted, hub []int, fault time.Time) (problems []string, duplicates int) {
	say := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	seen := make(map[int]int, len(hub))
	highest := -1
	for _, n := range hub {
		if seen[n]++; seen[n] > 1 {
			duplicates++
			continue
		}
		if n < highest {
			say("the hub got %d first after %d", n, highest)
		}
		highest = max(highest, n)
	}
	for i, a := range acc {
		if i > 0 && a.n <= acc[i-1].n {
			say("%d was accepted after %d", a.n, acc[i-1].n)
		}
		if seen[a.n] == 0 {
			say("%d was accepted and is not at the hub", a.n)
		}
		if seen[a.n] > 1 && a.at.Before(fault) {
			say("%d came %d times although it was accepted before the fault", a.n, seen[a.n])
		}
	}
	return problems, duplicates
}

// checkNumbers is check of a world's numbers. It returns how many came again.
func (w *world) checkNumbers(fault time.Time) (duplicates int) {
	w.t.Helper()
	acc, hub := w.accepted(), w.atHub()
	problems, duplicates := check(acc, hub, fault)
	for i, p := range problems {
		if i == 10 {
			w.t.Errorf("… and %d more", len(problems)-i)
			break
		}
		w.t.Error(p)
	}
	gap, at := longestGap(acc)
	w.t.Logf("%d numbers accepted, %d at the hub, %d duplicates; longest gap between two accepted ones %v, %v after the fault began",
		len(acc), len(hub)-duplicates, duplicates, gap, at.Sub(fault).Round(time.Millisecond))
	return duplicates
}

// longestGap returns the longest time without an accepted number, and when it began.
func longestGap(acc []accepted) (gap time.Duration, at time.Time) {
	for i := 1; i < len(acc); i++ {
		if d := acc[i].at.Sub(acc[i-1].at); d > gap {
			gap, at = d, acc[i-1].at
		}
	}
	return gap, at
}

// awaitAccepted waits until that many more numbers are accepted.
func (w *world) awaitAccepted(more int, limit time.Duration) time.Duration {
	w.t.Helper()
	before := len(w.pluginFile("numbers", "accepted"))
	return eventually(w.t, limit, strconv.Itoa(more)+" more accepted numbers", func() bool {
		return len(w.pluginFile("numbers", "accepted")) >= before+more
	})
}

func TestTheCheckOfNumbersSeesLossesAndDisorder(t *testing.T) {
	fault := time.UnixMilli(100)
	at := func(n int, ms int64) accepted { return accepted{n, time.UnixMilli(ms)} }
	tests := []struct {
		name string
		acc  []accepted
		hub  []int
		want []string
	}{
		{"all is well", []accepted{at(0, 1), at(1, 200)}, []int{0, 1}, nil},
		{"an unaccepted one may be there, and twice", []accepted{at(0, 1), at(2, 300)}, []int{0, 1, 1, 2}, nil},
		{"in flight at the fault", []accepted{at(0, 1), at(1, 200), at(2, 201)}, []int{0, 1, 2, 1, 2}, nil},
		{"lost", []accepted{at(0, 1), at(1, 200)}, []int{0}, []string{"1 was accepted and is not at the hub"}},
		{"out of order", []accepted{at(0, 1), at(1, 2)}, []int{1, 0}, []string{"the hub got 0 first after 1"}},
		{"sent again although accepted", []accepted{at(0, 1)}, []int{0, 0}, []string{"0 came 2 times although it was accepted before the fault"}},
		{"accepted out of order", []accepted{at(1, 1), at(0, 2)}, []int{0, 1}, []string{"0 was accepted after 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := check(tt.acc, tt.hub, fault); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
