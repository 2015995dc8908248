package core

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// FuzzStep lets a world that may do anything play against the machine: answers come late, twice, not at all, out of
// order, or from a life before. Each byte of the input decides one thing that happens. The world (world_test.go) checks
// each order as it is given. Then it turns kind, and the machine has to come to rest with nothing left; then it is shut
// down, and everybody who still waits has to be told.
func FuzzStep(f *testing.F) {
	fuzz(f, 7, 400, func(t *testing.T, data []byte) {
		w := newWorld(t, bytes.NewReader(data))
		for w.more() {
			w.act()
		}
		w.heal()
		w.shutDown()
	})
}

// fuzz plays what the fuzzer makes of some random stories of that size; salt makes them others.
func fuzz(f *testing.F, salt uint64, size int, play func(t *testing.T, data []byte)) {
	f.Helper()
	f.Add([]byte{0, 0})
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, salt))
		b := make([]byte, size)
		for i := 0; i < len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], r.Uint64())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4000 {
			t.Skip("longer stories tell nothing new")
		}
		play(t, data)
	})
}

// TestStepUnderLongRandomStories is FuzzStep without a fuzzer: longer stories than it likes.
func TestStepUnderLongRandomStories(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 3000)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		w := newWorld(t, bytes.NewReader(data))
		for w.more() {
			w.act()
		}
		w.heal()
		w.shutDown()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// choose takes one byte of the story and maps it to 0..n-1.
func (w *world) choose(n int) int {
	b, err := w.story.ReadByte()
	if err != nil || n <= 0 {
		return 0
	}
	return int(b) % n
}

func (w *world) more() bool { return w.story.Len() > 0 && !w.stopped }

// act lets one thing happen.
func (w *world) act() {
	switch w.choose(24) {
	case 0, 1, 2, 3, 4, 5:
		w.answer(w.choose(5) != 0)
	case 6:
		if w.up != 0 {
			w.feed(Lost{Epoch: w.up, Fault: w.fault()})
		}
	case 7, 8:
		l := Lane(w.choose(2))
		n := Seq(w.choose(5) + 1)
		w.feed(Submitted{Lane: l, Upto: w.lanes[l].last + n, Bytes: int(n) * 10})
	case 9:
		l := Lane(w.choose(2))
		if last := w.lanes[l].last; last > 0 {
			w.feed(Withdrawn{Lane: l, Seq: last - min(last-1, Seq(w.choose(8)))})
		}
	case 10, 11:
		l := Lane(w.choose(2))
		if owed := slices.Sorted(maps.Keys(w.lanes[l].owed)); w.up != 0 && len(owed) > 0 {
			w.feed(Acked{Epoch: w.up, Lane: l, Upto: owed[w.choose(len(owed))]})
		}
	case 12:
		w.lastOp++
		w.ops[w.lastOp] = true
		switch w.choose(5) {
		case 0:
			w.feed(ConnectRequested{Op: w.lastOp})
		case 1:
			w.feed(DisconnectRequested{Op: w.lastOp, Hold: w.choose(2) == 0})
		default:
			w.feed(Requested{Op: w.lastOp})
		}
	case 13:
		for op := range w.ops {
			if op == w.lastOp-Op(w.choose(3)) {
				delete(w.ops, op)
				w.feed(OpCancelled{Op: op})
				break
			}
		}
	case 14:
		w.callMethod([]string{"a", "b", "none"}[w.choose(3)])
	case 15:
		w.sendMessage([]string{"", "x", "y", "z"}[w.choose(4)], w.choose(2) == 0)
	case 16:
		if w.up != 0 {
			w.version += int64(w.choose(4)) - 1
			w.feed(DesiredChanged{Epoch: w.up, Version: w.version})
		}
	case 17:
		i := PluginIndex(w.choose(2))
		switch p := &w.plugins[i]; {
		case !p.running:
		case w.choose(3) == 0:
			w.feed(PluginExited{Plugin: i, Start: p.start, Fault: w.fault()})
		default:
			w.feed(w.ready(i))
		}
	case 18, 19:
		w.giveBack(w.choose(4))
	case 20:
		w.pass(time.Duration(w.choose(256)) * 10 * time.Millisecond)
	case 21:
		w.pass([]time.Duration{time.Second, 10 * time.Second, time.Minute, time.Hour}[w.choose(4)])
	case 22:
		if len(w.past) > 0 { // something that has happened already happens again
			w.feed(w.past[len(w.past)-1-w.choose(min(len(w.past), 40))])
		}
	case 23:
		switch w.choose(6) {
		case 4:
			w.feed(NetworkChanged{})
		case 5:
			w.lastOp++
			w.ops[w.lastOp] = true
			w.feed(RouteRequested{Op: w.lastOp, Route: w.choose(2), Auto: w.choose(3) == 0})
		case 0:
			w.feed(CredentialChanged{})
		case 1: // a tick that comes late
			if at, ok := w.m.Deadline(); ok {
				w.now = max(w.now, at.Add(time.Duration(w.choose(256))*100*time.Millisecond))
				w.feed(Ticked{})
			}
		case 2:
			l := &w.lanes[0]
			if w.up != 0 {
				w.feed(Acked{Epoch: w.up, Lane: 0, Upto: l.last + 1}) // of something never sent
			}
		}
	}
}

func (w *world) fault() Fault {
	return Fault{Kind: Kind(w.choose(int(Fatal) + 1)), Reason: "chance", Clean: w.choose(2) == 0}
}

// answer completes one of the orders that wait for their event.
func (w *world) answer(isGood bool) {
	if len(w.open) == 0 {
		return
	}
	i := w.choose(len(w.open))
	order := w.open[i]
	w.open = append(w.open[:i:i], w.open[i+1:]...)
	switch o := order.(type) {
	case FetchCredential:
		if isGood {
			w.feed([]CredentialFetched{
				{Epoch: o.Epoch},
				{Epoch: o.Epoch, Life: time.Minute},
				{Epoch: o.Epoch, Life: time.Hour, Fixed: true},
				{Epoch: o.Epoch, Life: time.Minute, Given: true},
				{Epoch: o.Epoch, Given: true, Doubtful: true},
				{Epoch: o.Epoch, Fixed: true, Doubtful: true},
			}[w.choose(6)])
		} else {
			w.feed(CredentialFailed{Epoch: o.Epoch, Fault: w.fault()})
		}
	case Open:
		if isGood {
			w.feed(Opened{Epoch: o.Epoch})
		} else {
			w.feed(OpenFailed{Epoch: o.Epoch, Fault: w.fault()})
		}
	case Connect:
		if isGood {
			w.feed(Connected{Epoch: o.Epoch})
		} else {
			w.feed(ConnectFailed{Epoch: o.Epoch, Fault: w.fault()})
		}
	case Close:
		w.feed(Closed{Epoch: o.Epoch})
	case Subscribe:
		if isGood {
			w.feed(Subscribed(o))
		} else {
			w.feed(SubscribeFailed{Epoch: o.Epoch, Feature: o.Feature, Fault: w.fault()})
		}
	case Ask:
		status := 200
		if !isGood {
			status = []int{400, 429, 500, 0}[w.choose(4)]
		}
		w.feed(Replied{Epoch: o.Epoch, Op: o.Op, Status: status, Version: w.version, Changed: w.choose(2) == 0})
	case Respond:
		w.feed(Responded{Epoch: o.Epoch, Call: o.Call, Failed: !isGood})
	case StartPlugin:
		if isGood {
			w.feed(w.readyAt(o.Plugin, o.Start))
		} else {
			w.feed(PluginExited{Plugin: o.Plugin, Start: o.Start, Fault: w.fault()})
		}
	case StopPlugin:
		w.feed(PluginExited{Plugin: o.Plugin, Start: o.Start, Fault: Fault{Reason: "ended"}})
	}
}

// giveBack lets a plugin return something that it was given.
func (w *world) giveBack(how int) {
	if len(w.given) == 0 {
		return
	}
	i := w.choose(len(w.given))
	g := w.given[i]
	w.given = append(w.given[:i:i], w.given[i+1:]...)
	w.feed(Returned{Plugin: g.Plugin, Start: g.Start, Call: g.Call, Verdict: Verdict(how % 3), Failed: how == 3})
}

func (w *world) ready(i PluginIndex) Event { return w.readyAt(i, w.plugins[i].start) }

func (w *world) readyAt(i PluginIndex, s Start) Event {
	ev := PluginReady{Plugin: i, Start: s, Messages: w.choose(4) != 0, Desired: w.choose(4) != 0, Methods: []string{"a"}}
	if i == 1 {
		ev.Methods = []string{"b"}
	}
	if w.choose(30) == 29 {
		ev.Methods = append(ev.Methods, "both")
	}
	return ev
}

// pass lets time go by, with a tick at each deadline on the way.
func (w *world) pass(d time.Duration) {
	end := w.now.Add(d)
	for n := 0; ; n++ {
		at, ok := w.m.Deadline()
		if !ok || at > end {
			w.now = end
			return
		}
		if n > 20_000 {
			w.t.Fatalf("the machine spins: %d ticks within %v", n, d)
		}
		w.now = at
		w.feed(Ticked{})
	}
}

// heal makes the world kind until nothing is left to do.
func (w *world) heal() {
	if w.stopped {
		return
	}
	w.lastOp++
	w.ops[w.lastOp] = true
	w.feed(ConnectRequested{Op: w.lastOp})
	for round := range 600 {
		if round == 80 { // and everything still works
			for range 3 {
				w.sendMessage("", false)
				w.callMethod("a")
			}
		}
		w.kindness()
		if w.up == 0 && !w.m.cfg.ConnectionRetry && len(w.open) == 0 {
			w.lastOp++
			w.ops[w.lastOp] = true
			w.feed(ConnectRequested{Op: w.lastOp})
		}
		if w.isAtRest() && round > 100 {
			break
		}
		w.pass(100 * time.Millisecond)
		if round > 50 {
			w.pass(10 * time.Second)
		}
	}
	m := w.m
	if !w.isAtRest() {
		w.t.Errorf("not at rest: up %d, calls %d, arrivals %d, requests %d, connect ops %d, disconnect ops %d, ops %v, status %+v",
			w.up, len(m.calls), len(m.arrivals), len(m.requests), len(m.connectOps), len(m.disconnectOps), w.ops, m.Status())
	}
	for i := range m.lanes {
		if l := m.lanes[i]; l.acked != l.last || len(l.marks) > 2 {
			w.t.Errorf("lane %d at rest: %+v", i, l)
		}
	}
	if len(w.calls) > 0 {
		w.t.Errorf("calls never discarded: %v", w.calls)
	}
}

// kindness answers everything that waits, well.
func (w *world) kindness() {
	for len(w.open) > 0 || len(w.given) > 0 {
		w.answer(true)
		w.giveBack(0)
	}
	for l := range w.lanes {
		if owed := slices.Sorted(maps.Keys(w.lanes[l].owed)); w.up != 0 && len(owed) > 0 {
			w.feed(Acked{Epoch: w.up, Lane: Lane(l), Upto: owed[len(owed)-1]})
		}
	}
}

func (w *world) isAtRest() bool {
	m := w.m
	return w.up != 0 && len(m.calls)+len(m.arrivals)+len(m.requests)+len(m.connectOps)+len(m.disconnectOps)+len(w.ops) == 0 && !m.hasUnsent()
}

// shutDown asks for the end and checks that it comes in time, whoever still answers.
func (w *world) shutDown() {
	if w.stopped {
		return
	}
	w.callMethod("a")
	w.feed(Submitted{Lane: 0, Upto: w.lanes[0].last + 3, Bytes: 30})
	w.lastOp++
	w.ops[w.lastOp] = true
	w.feed(Requested{Op: w.lastOp})
	w.feed(ShutdownRequested{})
	w.pass(10 * time.Second)
	if !w.stopped {
		w.t.Fatalf("not stopped 10 s after the shutdown was requested: %+v", w.m.Status())
	}
	if len(w.ops) > 0 {
		w.t.Errorf("operations that nobody ended: %v", w.ops)
	}
	for i, l := range w.lanes {
		if len(l.waiting) > 0 {
			w.t.Errorf("lane %d: nobody was told of %v", i, l.waiting)
		}
	}
	if effects := w.m.Step(w.now, Ticked{}); len(effects) > 0 {
		w.t.Errorf("orders after the stop: %v", effects)
	}
}
