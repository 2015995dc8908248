//go:build faults && linux

package faults

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

// What the runtime is configured with, and what follows from it.
const (
	linkKeepAlive = 10 * time.Second
	// silenceLimit is keep-alive, paho's tick, and the answer to a ping.
	silenceLimit = linkKeepAlive + 5*time.Second + 15*time.Second
	// linkRate is how many numbers the plugin sends in a second, linkWindow how many it leaves unsettled: so many may come
	// again after a loss. The ones of floods are more than a slow link takes: 64 kbit/s take 1000 numbers in 20 to 25 s, and
	// the answer to a call stands in line behind them.
	linkRate, linkWindow   = 100, 100
	floodRate, floodWindow = 500, 1000
	// linkOutage is how long a fault lasts that is told of, silentOutage one that has to be found out: beyond silenceLimit,
	// so that the runtime also dials into it.
	linkOutage, silentOutage = 30 * time.Second, 45 * time.Second
)

// nature is how a fault shows itself.
type nature int

const (
	told      nature = iota // by a reset or a refusal
	nameless                // by a reset; then nobody answers questions for the hub's address
	silent                  // by nothing
	unplugged               // by nothing, and its end by the platform's word
	brief                   // by nothing, and for too short a time to give the session up
	borne                   // it is no reason to give the session up
)

// Bounds and aims, by nature: until the trouble is seen after the fault's beginning, and until a number is accepted after
// its end. The seed client's are those of its documentation, for the same keep-alive: it tries again every 10 s, gives TCP
// 5 s, and takes a peer for dead after twice the keep-alive. Ours waits 2 s at most in the first 45 s of an outage; the question
// for an address that is under way when DNS comes back takes its 5 s first. After a brief silence TCP sends again within 3 s;
// where the kernel cannot be told so, when as much time has passed once more.
var natures = map[nature]struct {
	found, back time.Duration
	aim         string
	seed        string
}{
	told:      {2 * time.Second, 4 * time.Second, "back ≤ 2 s", "found at once, back ≤ 10 s"},
	nameless:  {2 * time.Second, 9 * time.Second, "back ≤ 7 s", "found at once, back ≤ 10 s"},
	silent:    {silenceLimit + 2*time.Second, 25 * time.Second, "back ≤ 25 s", fmt.Sprintf("found ≤ %v, back ≤ 10 s", 2*linkKeepAlive)},
	unplugged: {silenceLimit + 2*time.Second, 5 * time.Second, "back ≤ 2 s", fmt.Sprintf("found ≤ %v, back ≤ 10 s", 2*linkKeepAlive)},
	brief:     {0, 10 * time.Second, "kept, back ≤ 3 s", "kept"},
	borne:     {0, 6 * time.Second, "kept", "kept"},
}

// linkFault is something that links do.
type linkFault struct {
	name       string
	nature     nature
	lasts      time.Duration
	begin, end func(w *linkWorld)
	flood      bool
	use        string // the route; "" is mqtt
}

var linkFaults = []linkFault{
	{"drop both ways", silent, silentOutage, func(w *linkWorld) { w.filter("drop", "drop") }, (*linkWorld).clear, false, ""},
	{"the same, briefly", brief, linkOutage / 4, func(w *linkWorld) { w.filter("drop", "drop") }, (*linkWorld).clear, false, ""},
	{"drop to the hub", silent, silentOutage, func(w *linkWorld) { w.filter("drop", "") }, (*linkWorld).clear, false, ""},
	{"drop from the hub", silent, silentOutage, func(w *linkWorld) { w.filter("", "drop") }, (*linkWorld).clear, false, ""},
	{"reset", told, linkOutage, func(w *linkWorld) { w.filter("meta l4proto tcp reject with tcp reset", "") }, (*linkWorld).clear, false, ""},
	{"10 % loss", borne, linkOutage, func(w *linkWorld) {
		w.filter("numgen random mod 100 < 10 drop", "numgen random mod 100 < 10 drop")
	}, (*linkWorld).clear, false, ""},
	{"64 kbit/s", borne, linkOutage, func(w *linkWorld) { w.shape("64kbit") }, func(w *linkWorld) { w.shape("") }, false, ""},
	{"the same, flooded", borne, linkOutage, func(w *linkWorld) { w.shape("64kbit") }, func(w *linkWorld) { w.shape("") }, true, ""},
	{"link down", unplugged, silentOutage, func(w *linkWorld) { w.plug("down") }, func(w *linkWorld) { w.plug("up") }, false, ""},
	{"reset, DNS gone", nameless, linkOutage, func(w *linkWorld) {
		w.dns.silence(true)
		w.resetOnce()
	}, func(w *linkWorld) { w.dns.silence(false) }, false, ""},
	{"hub moves", told, linkOutage, func(w *linkWorld) {
		w.filter("ip daddr "+hubAddr+" meta l4proto tcp reject with tcp reset", "")
	}, func(w *linkWorld) { w.dns.point(hubAddr2) }, false, ""},
	{"hub away", told, linkOutage, func(w *linkWorld) {
		w.hub.signal(w.t, syscall.SIGTERM)
		if code, _ := w.hub.exit(w.t, 30*time.Second); code != 0 {
			w.t.Errorf("the hub exited %d", code)
		}
	}, (*linkWorld).restart, false, ""},
	{"hub killed", told, 0, func(w *linkWorld) { w.hub.kill(w.t) }, (*linkWorld).restart, false, ""},
	{"hub stopped", silent, silentOutage, func(w *linkWorld) { w.hub.signal(w.t, syscall.SIGSTOP) }, func(w *linkWorld) { w.hub.signal(w.t, syscall.SIGCONT) }, false, ""},
}

// overWebSocket are the faults that are also tried by the other route.
var overWebSocket = []string{"drop both ways", "reset", "hub away"}

// linkCases are the faults by each route.
func linkCases() []linkFault {
	cases := slices.Clone(linkFaults)
	for _, f := range linkFaults {
		if slices.Contains(overWebSocket, f.name) {
			f.use = "mqttws"
			f.name += ", mqttws"
			cases = append(cases, f)
		}
	}
	return cases
}

func (w *linkWorld) clear()   { w.filter("", "") }
func (w *linkWorld) restart() { w.startHub("8883", "443") }

// resetOnce resets the session, and lets later ones be.
func (w *linkWorld) resetOnce() {
	w.t.Helper()
	began := time.Now()
	w.filter("meta l4proto tcp reject with tcp reset", "")
	poll(w.t, 100*time.Millisecond, 30*time.Second, "a loss", func() bool { _, ok := w.trouble(began); return ok })
	w.clear()
}

// Each fault in a world of its own, all at once, since each lasts as long as it lasts.
func TestLinksDoWhatLinksDoAndNothingIsLost(t *testing.T) {
	needLinkTools(t)
	cases := linkCases()
	results := make([]*linkResult, len(cases))
	var running sync.WaitGroup
	for i, f := range cases {
		running.Go(func() { // not t.Parallel, which would let only as many run as there are processors
			t.Run(f.name, func(t *testing.T) { results[i] = f.run(t) })
		})
	}
	running.Wait()
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "fault\tlasts\tfound after\tback after\taim\tseed client, by its documentation\tsessions\tnumbers\tduplicates\tcalls\tslowest\n")
	for i, r := range results {
		if r == nil {
			continue
		}
		f := cases[i]
		found := "-"
		if r.isFound {
			found = r.found.String()
		}
		fmt.Fprintf(table, "%s\t%v\t%s\t%v\t%s\t%s\t%d\t%d\t%d\t%d\t%v\n", f.name, f.lasts, found, r.back, natures[f.nature].aim, natures[f.nature].seed,
			r.sessions, r.numbers, r.duplicates, r.calls, r.slowest)
	}
	_ = table.Flush() // into memory
	t.Logf("keep-alive %v; %d numbers a second, %d in flight at most (flooded: %d and %d); calls are those of healthy times:\n%s",
		linkKeepAlive, linkRate, linkWindow, floodRate, floodWindow, text.String())
}

// linkResult is a line of the table.
type linkResult struct {
	isFound                              bool
	found, back                          time.Duration
	sessions, numbers, duplicates, calls int
	slowest                              time.Duration
}

// starting holds as many worlds that start as there are processors for: all at once would keep each other from it.
var starting = make(chan struct{}, 2)

// start makes a world in which all is well.
func (f linkFault) start(t *testing.T) (w *linkWorld, window int) {
	t.Helper()
	starting <- struct{}{}
	defer func() { <-starting }()
	w = newLinkWorld(t)
	rate, window := linkRate, linkWindow
	if f.flood {
		rate, window = floodRate, floodWindow
	}
	w.configureLink(cmp.Or(f.use, "mqtt"), numbers(fmt.Sprintf("{rate: %d, window: %d, report: true}", rate, window)))
	w.run()
	return w, window
}

func (f linkFault) run(t *testing.T) *linkResult {
	w, window := f.start(t)
	limit := callLimit
	if f.flood {
		limit = floodCallLimit
	}
	tr := w.startTraffic(limit)
	healthy := time.Now()
	w.awaitAccepted(200, 30*time.Second)
	poll(t, 100*time.Millisecond, 30*time.Second, "answered calls", func() bool { n, _, _ := tr.answered(healthy, time.Now()); return n >= 3 })

	before := time.Now()
	poll(t, 10*time.Millisecond, 30*time.Second, "an answer to each call so far", func() bool { return !tr.isOpen(before) })
	began := time.Now()
	f.begin(w)
	inPlace := time.Now()
	time.Sleep(f.lasts - time.Since(began)) // the fault itself
	f.end(w)
	ended := time.Now()

	bounds := natures[f.nature]
	var r linkResult
	var first time.Time // accepted
	poll(t, 200*time.Millisecond, silenceLimit+bounds.back, "an accepted number after the fault", func() bool {
		acc := w.accepted()
		i := slices.IndexFunc(acc, func(a accepted) bool { return a.at.After(ended) })
		if i >= 0 {
			first = acc[i].at
		}
		return i >= 0
	})
	r.back = first.Sub(ended).Round(time.Millisecond)
	if r.back > bounds.back {
		t.Errorf("a number was accepted %v after the fault's end, want within %v", r.back, bounds.back)
	}
	again := first.Add(callEvery)
	poll(t, 100*time.Millisecond, 30*time.Second, "answered calls after the fault", func() bool { n, _, _ := tr.answered(again, time.Now()); return n >= 6 })
	tr.end()
	over := time.Now()
	w.settle(30 * time.Second)

	s := w.mustStatus()
	if seen, ok := w.trouble(began); ok {
		r.isFound, r.found = true, max(0, seen.Sub(inPlace)).Round(time.Millisecond) // some are found while they are made
	}
	f.checkSessions(t, &r, s)
	if f.nature == unplugged && !w.heardOfLink(began) {
		t.Error("the runtime did not hear from the kernel that the link came up")
	}
	w.terminate(0)
	r.sessions, r.numbers = s.Counters.Sessions, s.Counters.Acknowledged
	r.duplicates = w.checkNumbers(began)
	if most := window * (s.Counters.Sessions - 1); r.duplicates > most {
		t.Errorf("%d numbers came again in %d sessions, want at most %d", r.duplicates, s.Counters.Sessions, most)
	}
	if refused := w.pluginFile("numbers", "refused"); len(refused) > 0 {
		t.Errorf("%d numbers were refused: %s", len(refused), refused[0])
	}
	earlier, slowest := tr.checkCalls(t, "before the fault", healthy, before)
	later, slowestAfter := tr.checkCalls(t, "after the fault", again, over)
	r.calls, r.slowest = earlier+later, max(slowest, slowestAfter).Round(time.Millisecond)
	if f.nature == borne {
		during, slowest := tr.checkCalls(t, "during the fault", began, ended)
		r.calls, r.slowest = r.calls+during, max(r.slowest, slowest.Round(time.Millisecond))
	}
	return &r
}

// checkSessions wants a fault found in time, and one that can be borne to be borne.
func (f linkFault) checkSessions(t *testing.T, r *linkResult, s status) {
	t.Helper()
	if f.nature == borne || f.nature == brief {
		if s.Counters.Losses > 1 {
			t.Errorf("%d sessions were lost on a link that works", s.Counters.Losses)
		}
		return
	}
	if s.Counters.Losses == 0 {
		t.Error("no loss was counted: was there a fault?")
	}
	if bound := natures[f.nature].found; !r.isFound || r.found > bound {
		t.Errorf("found after %v, want within %v", r.found, bound)
	}
}

// heardOfLink reports whether the runtime's device was told of a link that came up, after a moment.
func (w *linkWorld) heardOfLink(after time.Time) bool {
	w.t.Helper()
	for line := range strings.Lines(w.must("events", "--json", "-c", w.path("fairlead.yaml"))) {
		var l struct {
			Time time.Time
			Text string
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			w.t.Fatal(err)
		}
		if l.Text == "network-changed" && l.Time.After(after) {
			return true
		}
	}
	return false
}

// configureLink writes a configuration that finds the hub by its name.
func (w *linkWorld) configureLink(use, plugins string) {
	w.t.Helper()
	w.configure(plugins, fmt.Sprintf("connection: {keep_alive: %v}", linkKeepAlive))
	edit(w.t, w.path("fairlead.yaml"), func(s string) string {
		return regexp.MustCompile(`(?m)^transports: .*$`).ReplaceAllString(s, "transports: [{use: "+use+"}]")
	})
}

var troubleLine = regexp.MustCompile(`(?m)^time=(\S+) level=WARN msg=trouble `)

// trouble returns when the runtime first logged trouble after a moment.
func (w *linkWorld) trouble(after time.Time) (at time.Time, ok bool) {
	w.t.Helper()
	log, err := os.ReadFile(w.runtime.log)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, line := range troubleLine.FindAllSubmatch(log, -1) {
		at, err := time.Parse(time.RFC3339Nano, string(line[1]))
		if err != nil {
			w.t.Fatal(err)
		}
		if at.After(after) {
			return at, true
		}
	}
	return time.Time{}, false
}
