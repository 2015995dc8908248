//go:build faults && unix

package faults

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// A hub has one connection per identity: the newer throws out the older, which must not go on for ever.
func TestOfTwoRuntimesWithOneIdentityOneGivesWayAndSaysWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(numbers("{rate: 20}"), "")
	w.run()
	edit(t, w.path("fairlead.yaml"), func(s string) string { return strings.Replace(s, w.path("state"), w.path("state2"), 1) })
	second := start(t, w.dir, "second", "run", "-c", w.path("fairlead.yaml"))
	states := func() (all []status) {
		for _, dir := range []string{"state", "state2"} {
			stdout, _, code := w.cli("status", "--json", "--socket", w.path(dir, "fairlead.sock"))
			var s status
			if err := json.Unmarshal([]byte(stdout), &s); err == nil && code == 0 {
				all = append(all, s)
			}
		}
		return all
	}
	var waiting, connected *status
	took := eventually(t, 60*time.Second, "one that waits for the other", func() bool {
		waiting, connected = nil, nil
		for _, s := range states() {
			switch {
			case s.Connection.State == "connected":
				connected = &s
			case strings.Contains(s.Connection.Reason, "another client uses this identity"):
				waiting = &s
			}
		}
		return waiting != nil && connected != nil
	})
	if waiting.Connection.NextAttempt < 30 {
		t.Errorf("the next attempt is made in %v s already: the two would throw each other out for ever", waiting.Connection.NextAttempt)
	}
	t.Logf("after %v one waits %v s: %s", took.Round(time.Millisecond), waiting.Connection.NextAttempt, waiting.Connection.Reason)
	second.kill(t)
}
