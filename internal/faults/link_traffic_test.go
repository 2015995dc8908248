//go:build faults && linux

package faults

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// How often the service side calls and changes something, and how long a call may take.
const (
	callEvery    = 500 * time.Millisecond
	desiredEvery = time.Second
	callLimit    = 30 * time.Second // the hub's own, where a caller does not say
	// floodCallLimit is for a link that takes longer than that.
	floodCallLimit = time.Minute
)

// methodCall is a direct method call of the service side.
type methodCall struct {
	began, ended time.Time
	err          error
}

// traffic is what the service side does all the time: it calls a direct method, and changes a desired property. What the
// hub refuses, as it does while the device is away, is written down, and is no failure yet.
type traffic struct {
	c     *hubClient
	limit time.Duration // of a call
	stop  chan struct{}
	done  sync.WaitGroup

	mu      sync.Mutex
	calls   []methodCall
	open    map[int]time.Time // calls that are not over, by number, and when they began
	patched int               // desired changes that the hub acknowledged
}

func (w *linkWorld) startTraffic(limit time.Duration) *traffic {
	w.service.http.Timeout = limit + 10*time.Second
	tr := &traffic{c: w.service, limit: limit, stop: make(chan struct{}), open: map[int]time.Time{}}
	tr.done.Go(func() { tr.every(callEvery, func(n int) { tr.done.Go(func() { tr.call(n) }) }) })
	tr.done.Go(func() { tr.every(desiredEvery, tr.patch) })
	return tr
}

func (tr *traffic) every(d time.Duration, f func(n int)) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
			f(n)
		case <-tr.stop:
			return
		}
	}
}

func (tr *traffic) call(n int) {
	var answer struct{ Status, Payload int }
	tr.mu.Lock()
	began := time.Now()
	tr.open[n] = began
	tr.mu.Unlock()
	err := tr.c.do(http.MethodPost, "/twins/"+device+"/methods",
		map[string]any{"methodName": "echo", "payload": n, "responseTimeoutInSeconds": int(tr.limit.Seconds())}, &answer)
	if err == nil && (answer.Status != 200 || answer.Payload != n) {
		err = fmt.Errorf("call %d was answered %d %d", n, answer.Status, answer.Payload)
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.calls = append(tr.calls, methodCall{began, time.Now(), err})
	delete(tr.open, n)
}

// isOpen reports whether a call that began before a moment is not over.
func (tr *traffic) isOpen(before time.Time) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, began := range tr.open {
		if !began.After(before) {
			return true
		}
	}
	return false
}

func (tr *traffic) patch(n int) {
	err := tr.c.change(http.MethodPatch, "/twins/"+device, map[string]any{"properties": map[string]any{"desired": map[string]any{"n": n}}})
	if err == nil {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.patched++
	}
}

// end stops it, and waits for what is under way.
func (tr *traffic) end() {
	close(tr.stop)
	tr.done.Wait()
}

// answered counts the calls that began in a stretch of time and were answered, and returns those that were not.
func (tr *traffic) answered(from, to time.Time) (n int, slowest time.Duration, failed []methodCall) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, c := range tr.calls {
		switch {
		case c.began.Before(from) || c.began.After(to):
		case c.err != nil:
			failed = append(failed, c)
		default:
			n++
			slowest = max(slowest, c.ended.Sub(c.began))
		}
	}
	return n, slowest, failed
}

// settle makes a last desired change, and waits until the plugin's report of its version is at the hub.
func (w *linkWorld) settle(limit time.Duration) {
	w.t.Helper()
	if err := w.service.change(http.MethodPatch, "/twins/"+device, map[string]any{"properties": map[string]any{"desired": map[string]any{"n": "last"}}}); err != nil {
		w.t.Fatal(err)
	}
	var twin struct {
		Properties struct {
			Desired struct {
				Version int `json:"$version"`
			}
			Reported struct{ Seen int }
		}
	}
	poll(w.t, 100*time.Millisecond, limit, "the last desired version in the reported properties", func() bool {
		if err := w.service.do(http.MethodGet, "/twins/"+device, nil, &twin); err != nil {
			w.t.Fatal(err)
		}
		return twin.Properties.Reported.Seen == twin.Properties.Desired.Version
	})
	last := -1
	for _, line := range w.pluginFile("numbers", "desired") {
		var version int
		if _, err := fmt.Sscan(line, &version); err != nil {
			w.t.Fatalf("line %q: %v", line, err)
		}
		if version <= last {
			w.t.Errorf("desired version %d was given after %d", version, last)
		}
		last = version
	}
	if last != twin.Properties.Desired.Version {
		w.t.Errorf("the plugin was given desired version %d last, and the hub has %d", last, twin.Properties.Desired.Version)
	}
}

// checkCalls wants calls of a stretch of time answered.
func (tr *traffic) checkCalls(t *testing.T, when string, from, to time.Time) (n int, slowest time.Duration) {
	t.Helper()
	n, slowest, failed := tr.answered(from, to)
	for _, c := range failed {
		t.Errorf("a call %s, %v after its beginning, was not answered: %v (after %v)", when, c.began.Sub(from).Round(time.Millisecond), c.err, c.ended.Sub(c.began).Round(time.Millisecond))
	}
	if n == 0 {
		t.Errorf("no call %s was answered", when)
	}
	return n, slowest
}
