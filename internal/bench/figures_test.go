//go:build linux

package bench

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/internal/bench/figure"
	"github.com/fairlead-iot/fairlead/internal/bench/load"
)

// plan says how much is measured.
type plan struct {
	parts    []string
	rounds   int
	messages int           // per round at full speed
	slow     int           // per round at 1,000 a second
	single   int           // per round with one in flight
	methods  int           // per round
	settle   time.Duration // before memory is read after connecting
	rest     time.Duration // before it is read after 100,000 messages
}

func (p plan) has(part string) bool { return slices.Contains(p.parts, part) }

// parts are all that there is to measure.
var parts = []string{"start", "memory", "telemetry", "methods", "null", "slow"}

// window is the machine's own (core.DefaultLimits), and the peer's.
const window = 1000

// batch is what SendBatch gets.
const batch = 100

// row is one line of the table. Every value has one entry per round.
type row struct {
	name, unit  string
	ours, peers []float64
	// more says that more is better.
	more bool
}

// table collects rows in the order in which they were first seen.
type table struct {
	// first and second are who is measured, "fairlead" and "paho" if they are not set; what add calls ours is the first.
	first, second string
	rows          []*row
}

func (tb *table) row(name, unit string, more bool) *row {
	for _, r := range tb.rows {
		if r.name == name {
			return r
		}
	}
	r := &row{name: name, unit: unit, more: more}
	tb.rows = append(tb.rows, r)
	return r
}

func (r *row) add(isOurs bool, v float64) {
	if isOurs {
		r.ours = append(r.ours, v)
	} else {
		r.peers = append(r.peers, v)
	}
}

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(float64(len(sorted))*q), len(sorted)-1)]
}

// String writes the table in Markdown: medians, the range in brackets, and ours divided by the peer's.
func (tb *table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| figure | unit | better | %s | %s | ratio |\n|---|---|---|---|---|---|\n", cmp.Or(tb.first, "fairlead"), cmp.Or(tb.second, "paho"))
	for _, r := range tb.rows {
		ratio, better := "–", "less"
		if len(r.ours) > 0 && len(r.peers) > 0 && figure.Median(r.peers) != 0 {
			ratio = fmt.Sprintf("%.2f", figure.Median(r.ours)/figure.Median(r.peers))
		}
		if r.more {
			better = "more"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.name, r.unit, better, figure.Cell(r.ours), figure.Cell(r.peers), ratio)
	}
	return b.String()
}

// both calls f for each side, the first one changing from round to round.
func (w *world) both(round int, f func(s *side, isOurs bool)) {
	if round%2 == 0 {
		f(w.ours, true)
		f(w.peers, false)
	} else {
		f(w.peers, false)
		f(w.ours, true)
	}
}

// measure carries out the plan. Both sides are started by it and run when it returns.
func (w *world) measure(t *testing.T, p plan) *table {
	t.Helper()
	tb := &table{}
	w.starts(tb, p)
	w.memory(t, tb, p) // its messages warm up as well
	for round := range p.rounds {
		for _, part := range []struct {
			name    string
			measure func(*table, plan, int)
		}{{"telemetry", w.telemetry}, {"methods", w.methods}, {"null", w.null}, {"slow", w.slow}} {
			if p.has(part.name) {
				part.measure(tb, p, round)
			}
		}
	}
	return tb
}

// starts measures from exec to connected. The last start stays up.
func (w *world) starts(tb *table, p plan) {
	last := p.rounds
	if !p.has("start") {
		last = 0
	}
	for round := range last + 1 {
		w.both(round, func(s *side, isOurs bool) {
			s.up()
			if round > 0 { // the first one warms the page cache
				tb.row("start of the program to connected", "ms", false).add(isOurs, s.starting.Seconds()*1e3)
			}
			if round < last {
				s.down()
			}
		})
	}
}

// memory measures the resident memory after connecting, and after 100,000 messages.
func (w *world) memory(t *testing.T, tb *table, p plan) {
	t.Helper()
	const mib = 1 << 20
	read := func(when string) {
		for i, who := range []string{"runtime", "plugin"} {
			m := memory(t, w.ours.pids[i])
			anonymous := tb.row("anonymous memory of the "+who+", "+when, "MiB", false)
			total := tb.row("resident memory of the "+who+", "+when, "MiB", false)
			anonymous.add(true, m.Anonymous/mib)
			total.add(true, m.Total/mib)
			if i == 0 { // the peer is one process
				m := memory(t, w.peers.pids[0])
				anonymous.add(false, m.Anonymous/mib)
				total.add(false, m.Total/mib)
			}
		}
	}
	warm := func() {
		w.both(0, func(s *side, _ bool) { s.send(load.Job{Count: p.messages, Size: 256, Window: window}) })
	}
	if !p.has("memory") {
		warm()
		return
	}
	time.Sleep(p.settle) // part of what is measured
	read("idle after connecting")
	warm()
	time.Sleep(p.rest)
	read(fmt.Sprintf("%v after %d messages", p.rest, p.messages))
}

// telemetry measures at full speed and with one message in flight.
func (w *world) telemetry(tb *table, p plan, round int) {
	for _, size := range []int{256, 4096} {
		j := load.Job{Count: p.messages, Size: size, Window: window}
		if size > 256 {
			j.Count /= 2
		}
		name, per100k := fmt.Sprintf("telemetry of %d B", size), 1e5/float64(j.Count)
		cpu := func(part string) *row { return tb.row(name+part, "s per 100k", false) }
		var peers sent
		w.both(round, func(s *side, isOurs bool) {
			r := s.send(j)
			tb.row(name+", rate", "k/s", true).add(isOurs, float64(j.Count)/r.wall/1e3)
			cpu(", CPU").add(isOurs, r.cpu*per100k)
			if isOurs {
				cpu(", CPU of the runtime").add(true, r.runtime*per100k)
				cpu(", CPU of the plugin").add(true, r.plugin*per100k)
			} else {
				peers = r
			}
			cpu(", CPU of the hub").add(isOurs, r.hub*per100k)
		})
		if size == 256 { // the peer has no batches: its figures of this round stand beside ours
			j.Batch = batch
			r := w.ours.send(j)
			rate, name := tb.row(name+fmt.Sprintf(" in batches of %d, rate", batch), "k/s", true), fmt.Sprintf(" in batches of %d, CPU", batch)
			rate.add(true, float64(j.Count)/r.wall/1e3)
			rate.add(false, float64(j.Count)/peers.wall/1e3)
			cpu(name).add(true, r.cpu*per100k)
			cpu(name).add(false, peers.cpu*per100k)
		}
	}
	j := load.Job{Count: p.single, Size: 256, Window: 1}
	w.both(round, func(s *side, isOurs bool) {
		r := s.send(j)
		tb.row("telemetry of 256 B, one in flight", "µs each", false).add(isOurs, r.wall/float64(j.Count)*1e6)
	})
}

// methods measures direct methods, one after the other, timed inside the hub.
func (w *world) methods(tb *table, p plan, round int) {
	w.both(round, func(s *side, isOurs bool) {
		took := w.hub.do(hubOrder{Methods: &methods{Device: s.device, Count: p.methods}}).Took
		us := make([]float64, len(took))
		for i, d := range took {
			us[i] = float64(d) / 1e3
		}
		tb.row("direct method, median", "µs", false).add(isOurs, figure.Median(us))
		tb.row("direct method, p99", "µs", false).add(isOurs, quantile(us, 0.99))
	})
}

// null measures the generator alone.
func (w *world) null(tb *table, p plan, round int) {
	j := load.Job{Count: p.messages, Size: 256, Window: window, Null: true}
	w.both(round, func(s *side, isOurs bool) {
		r := s.send(j)
		tb.row("load generator into nothing, rate", "k/s", true).add(isOurs, float64(j.Count)/r.wall/1e3)
		tb.row("load generator into nothing, CPU", "s per 100k", false).add(isOurs, r.cpu/float64(j.Count)*1e5)
	})
}

// slow measures at 1,000 messages a second: evenly as an author gets it, evenly with each message leaving at once, and in
// bunches of 5 every 5 ms. The peer knows no difference between the first two.
func (w *world) slow(tb *table, p plan, round int) {
	for _, j := range []struct {
		name string
		job  load.Job
	}{
		{"one each ms", load.Job{}},
		{"one each ms, each at once", load.Job{AtOnce: true}},
		{"5 each 5 ms", load.Job{Bunch: 5}},
	} {
		j.job.Count, j.job.Size, j.job.Window, j.job.Rate = p.slow, 256, window, 1000
		w.both(round, func(s *side, isOurs bool) {
			tb.row("1,000 a second, "+j.name+", CPU", "s per 100k", false).add(isOurs, s.send(j.job).cpu/float64(p.slow)*1e5)
		})
	}
}

// check compares what the hub has of a side with what it was sent: a fast client that loses messages is none.
func (w *world) check(t *testing.T, p plan) {
	t.Helper()
	each := 0
	if p.has("telemetry") {
		each += p.messages + p.messages/2 + p.single
	}
	if p.has("slow") {
		each += 3 * p.slow
	}
	want := int64(p.messages + p.rounds*each)
	for _, s := range []*side{w.peers, w.ours} {
		if s == w.ours && p.has("telemetry") {
			want += int64(p.rounds * p.messages) // the batches
		}
		c := w.hub.do(hubOrder{Counters: s.device}).Counters
		if c.TelemetryReceived != want || c.TelemetryAcked != want {
			t.Errorf("%s: the hub received %d messages and acknowledged %d, want %d", s.device, c.TelemetryReceived, c.TelemetryAcked, want)
		}
	}
}

func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs programs")
	}
	w := newWorld(t, "")
	p := plan{parts: parts, rounds: 1, messages: 2000, slow: 100, single: 20, methods: 20}
	tb := w.measure(t, p)
	w.check(t, p)
	for _, r := range tb.rows {
		for _, v := range slices.Concat(r.ours, r.peers) {
			if v <= 0 {
				t.Errorf("%s: %v", r.name, v)
			}
		}
	}
	if t.Failed() {
		t.Logf("\n%s", tb)
	}
}

// TestFigures prints the table of docs/benchmarks.md.
func TestFigures(t *testing.T) {
	if !*figures {
		t.Skip("measures only with -figures: make bench")
	}
	w := newWorld(t, "")
	p := plan{
		parts: strings.Split(*only, ","), rounds: *rounds, messages: 100_000, slow: 5000, single: 2000, methods: 2000,
		settle: 3 * time.Second, rest: time.Minute,
	}
	for _, part := range p.parts {
		if !slices.Contains(parts, part) {
			t.Fatalf("-only: there is no part %q: use some of %s", part, strings.Join(parts, ","))
		}
	}
	before := figure.LoadAverage()
	tb := w.measure(t, p)
	w.check(t, p)
	fmt.Printf("%s, %s/%s, %d CPUs, %d rounds, load average %s before and %s after\n\n%s",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), p.rounds, before, figure.LoadAverage(), tb)
}
