//go:build faults && linux

package faults

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A hub has one connection per identity: the newer throws out the older, which must not go on for ever.
func TestOfTwoRuntimesWithOneIdentityOneGivesWayAndSaysWhy(t *testing.T) {
	needLinkTools(t)
	t.Parallel()
	w := newLinkWorld(t)
	w.configure(numbers("{rate: 20}"), "")
	edit(t, w.path("fairlead.yaml"), func(s string) string {
		return regexp.MustCompile(`(?m)^transports: .*$`).ReplaceAllString(s, "transports: [{use: mqtt, address: "+hubAddr+"}]")
	})
	w.run()
	// The second is on the hub's host: on the first's it would not start.
	edit(t, w.path("fairlead.yaml"), func(s string) string { return strings.Replace(s, w.path("state"), w.path("state2"), 1) })
	_, stderr, code := w.cli("run", "-c", w.path("fairlead.yaml"))
	if pid := strconv.Itoa(w.runtime.cmd.Process.Pid); code != 3 || !strings.Contains(stderr, "is in use by another fairlead on this host (process "+pid+")") {
		t.Fatalf("the second on the same host exits %d: %s", code, stderr)
	}
	second := launch(t, w.dir, "second", nil, []string{"ip", "netns", "exec", w.netns.hub, programs.fairlead, "run", "-c", w.path("fairlead.yaml")})
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
	text := w.must("status", "--socket", w.path("state", "fairlead.sock")) + w.must("status", "--socket", w.path("state2", "fairlead.sock"))
	if !strings.Contains(text, "another client uses this identity") {
		t.Errorf("status does not say it to people: %s", text)
	}

	// From now on they swap at most twice a minute: the one that waits tries, and is thrown out.
	const minute = 60 * time.Second
	type look struct {
		at       time.Time
		sessions int
	}
	var looks []look
	ended := time.Now().Add(2*minute + 30*time.Second)
	eventually(t, 4*minute, "two and a half minutes", func() bool {
		l := look{at: time.Now()}
		all := states()
		for _, s := range all {
			l.sessions += s.Counters.Sessions
		}
		if len(all) == 2 {
			looks = append(looks, l)
		}
		time.Sleep(2 * time.Second) // between two looks
		return time.Now().After(ended)
	})
	most := 0
	for i, from := range looks {
		for _, to := range looks[i:] {
			if to.at.Sub(from.at) <= minute {
				most = max(most, to.sessions-from.sessions)
			}
		}
	}
	if most > 2 {
		t.Errorf("%d swaps within a minute: want at most 2", most)
	}
	last := looks[len(looks)-1]
	if last.sessions == looks[0].sessions {
		t.Error("the one that waits never tried again")
	}
	t.Logf("%d swaps in %v, at most %d within a minute", last.sessions-looks[0].sessions, last.at.Sub(looks[0].at).Round(time.Second), most)
	second.kill(t)
}
