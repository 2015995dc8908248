//go:build linux

package hubload

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/internal/bench/figure"
)

// load is one kind of telemetry.
type load struct {
	name        string
	connections int
	job         Job
}

// loads are what is measured, with so many messages in all of each.
func loads(messages, most int) []load {
	const size = 256
	one := func(name string, connections, window, batch int) load {
		messages := messages
		connections = min(connections, most)
		if batch == 1 {
			messages /= 4 // they take longest
		}
		each := max(messages/connections/batch, 1) * batch
		return load{name, connections, Job{Messages: each, Size: size, Window: window, Batch: batch}}
	}
	return []load{
		one("1 connection", 1, 1000, 100),
		one("1 connection, each message a write", 1, 1000, 1),
		one("100 connections", 100, 100, 10),
		one("100 connections, each message a write", 100, 100, 1),
		one("1,000 connections", 1000, 20, 5),
	}
}

// row is one line of the table, with a value of each server for each round.
type row struct {
	name, unit string
	more       bool // more is better
	values     map[string][]float64
}

type table struct{ rows []*row }

func (tb *table) add(name, unit string, more bool, server string, v float64) {
	i := slices.IndexFunc(tb.rows, func(r *row) bool { return r.name == name })
	if i < 0 {
		i = len(tb.rows)
		tb.rows = append(tb.rows, &row{name, unit, more, map[string][]float64{}})
	}
	tb.rows[i].values[server] = append(tb.rows[i].values[server], v)
}

// The servers, as the table names them.
const (
	hubName  = "hub"
	peerName = "mosquitto"
	sinkName = "sink"
)

// String writes the table in Markdown: medians, the range in brackets, and the hub's divided by mosquitto's.
func (tb *table) String() string {
	var b strings.Builder
	b.WriteString("| figure | unit | better | hub | mosquitto | ratio | sink |\n|---|---|---|---|---|---|---|\n")
	for _, r := range tb.rows {
		ratio, better := "–", "less"
		if ours, peers := r.values[hubName], r.values[peerName]; len(ours) > 0 && len(peers) > 0 && figure.Median(peers) != 0 {
			ratio = fmt.Sprintf("%.2f", figure.Median(ours)/figure.Median(peers))
		}
		if r.more {
			better = "more"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", r.name, r.unit, better,
			figure.Cell(r.values[hubName]), figure.Cell(r.values[peerName]), ratio, figure.Cell(r.values[sinkName]))
	}
	return b.String()
}

// world is everything that runs during a measurement.
type world struct {
	t       *testing.T
	gen     *generator
	names   []string
	servers map[string]*server
	sent    map[string]int // messages that a server has acknowledged
}

func newWorld(t *testing.T, connections int) *world {
	t.Helper()
	w := &world{t: t, names: []string{hubName, sinkName}, servers: map[string]*server{}, sent: map[string]int{}}
	if path := mosquittoPath(); path == "" {
		t.Log("mosquitto is not installed here, the hub is measured alone: apt-get install mosquitto")
	} else {
		w.names = []string{hubName, peerName, sinkName}
		w.servers[peerName] = startMosquitto(t, path, connections)
	}
	w.servers[hubName] = startHub(t, connections)
	w.servers[sinkName] = startSink(t, connections)
	w.gen = startGenerator(t)
	return w
}

func (w *world) open(name string, connections int) {
	w.t.Helper()
	s := w.servers[name]
	w.gen.do(order{Open: &openOrder{s.Target, s.clients[:connections]}})
}

// telemetry measures a load once with each server; who begins changes from round to round.
func (w *world) telemetry(tb *table, l load, round int) {
	w.t.Helper()
	for i := range w.names {
		name := w.names[(i+round)%len(w.names)]
		w.open(name, l.connections)
		s, count := w.servers[name], l.connections*l.job.Messages
		serving, sending := cpu(w.t, s.pid()), cpu(w.t, w.gen.pid())
		seconds := w.gen.do(order{Run: &l.job}).Seconds
		per100k := 1e5 / float64(count)
		serving, sending = cpu(w.t, s.pid())-serving, cpu(w.t, w.gen.pid())-sending
		w.gen.do(order{Close: true})
		w.sent[name] += count
		tb.add(l.name+": rate", "k/s", true, name, float64(count)/seconds/1e3)
		tb.add(l.name+": CPU of the server", "s per 100k", false, name, serving.Seconds()*per100k)
		tb.add(l.name+": CPU of the generator", "s per 100k", false, name, sending.Seconds()*per100k)
	}
}

// idle measures what idle connections add to the memory of each server.
func (w *world) idle(tb *table, connections int, settle time.Duration) {
	w.t.Helper()
	for _, name := range w.names {
		s := w.servers[name]
		before := anonymous(w.t, s.pid())
		w.open(name, connections)
		time.Sleep(settle) // part of what is measured
		grown := anonymous(w.t, s.pid()) - before
		w.gen.do(order{Close: true})
		tb.add(fmt.Sprintf("memory of an idle connection, of %d", connections), "KiB", false, name, grown/1024/float64(connections))
	}
}

func TestFigures(t *testing.T) {
	if !*figures {
		t.Skip("measures only with -figures; TestSmoke shows that it works")
	}
	const connections = 1000
	w := newWorld(t, connections)
	loadBefore := figure.LoadAverage()
	tb := &table{}
	w.idle(tb, connections, 5*time.Second) // first: of servers that have done nothing yet
	for round := range *rounds {
		for _, l := range loads(200_000, connections) {
			w.telemetry(tb, l, round)
		}
	}
	for _, name := range w.names {
		tb.add("memory of the server after all this", "MiB", false, name, anonymous(t, w.servers[name].pid())/(1<<20))
	}
	t.Logf("%s, %d CPUs, load average %s before and %s after, %d rounds\n%s", runtime.Version(), runtime.NumCPU(), loadBefore, figure.LoadAverage(), *rounds, tb)
}

// The benchmark itself works, and what it counts is true.
func TestSmoke(t *testing.T) {
	w := newWorld(t, 20)
	tb := &table{}
	w.idle(tb, 5, 0)
	for round, l := range loads(2000, 20) {
		w.telemetry(tb, l, round)
	}
	for _, r := range tb.rows {
		if len(r.values[hubName]) == 0 || len(r.values[sinkName]) == 0 {
			t.Errorf("%s: %v", r.name, r.values)
		}
	}
	kept := 0
	if err := w.servers[hubName].service.Monitor(t.Context(), api.MessageFilter{From: 1}, false, func(m api.Message) error {
		kept++
		if len(m.Body) != 256 {
			t.Errorf("message %d has %d bytes", m.Sequence, len(m.Body))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if kept != w.sent[hubName] {
		t.Errorf("the hub has acknowledged %d messages and kept %d", w.sent[hubName], kept)
	}
}
