package core

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// stage is what the world knows of an attempt.
type stage uint8

const (
	stageFetching stage = iota + 1
	stageFetched
	stageOpening
	stageOpened
	stageConnecting
	stageUp
	stageClosing
	stageGone
)

// world is the machine's surroundings in a test: what an engine, a hub and plugins would know. It feeds events and
// checks every order against that knowledge; it shares no bookkeeping with the machine.
type world struct {
	t     *testing.T
	m     *Machine
	story *bytes.Reader
	now   Instant
	log   []string
	past  []Event
	open  []Effect  // orders that wait for their event
	given []Deliver // calls that plugins have

	stages    map[Epoch]stage
	lastEpoch Epoch
	up        Epoch // the session that lives and has not been ordered to close
	session   Epoch // the session that the hub sees, also while it closes
	asked     map[Feature]bool
	arrivals  []Call // of this session, not yet acknowledged

	lanes   [2]worldLane
	ops     map[Op]bool
	lastOp  Op
	calls   map[Call]*worldCall
	last    Call
	desired Call
	plugins [2]worldPlugin
	version int64
	state   Announce
	stopped bool
}

type worldLane struct {
	owed                                  map[Seq]bool // sent in this session, to be acknowledged by the hub
	last, sent, head, resolved, forgotten Seq
	waiting                               map[Seq]bool // not told yet
}

type worldCall struct {
	start              Start
	isMethod           bool
	plugin             PluginIndex
	came               Instant
	isGiven, wasGiven  bool
	hasAnswer          bool // a plugin returned it
	isResponding       Epoch
	isDone, wasRefused bool
	buried             bool
}

type worldPlugin struct {
	applying Call // the desired state that it has and has not returned
	start    Start
	running  bool
	isReady  bool
}

func newWorld(t *testing.T, story *bytes.Reader) *world {
	t.Helper()
	w := &world{
		t: t, story: story, stages: map[Epoch]stage{}, asked: map[Feature]bool{}, ops: map[Op]bool{}, lastOp: CallerOp,
		calls: map[Call]*worldCall{}, desired: DesiredCall, version: 1,
	}
	for i := range w.lanes {
		w.lanes[i].waiting, w.lanes[i].owed = map[Seq]bool{}, map[Seq]bool{}
	}
	flags := w.choose(256)
	cfg := Config{
		AutoConnect: flags&1 == 0, ConnectAtStart: flags&2 == 0, ConnectionRetry: flags&12 != 0, EnsureDesired: flags&16 == 0,
		RetryInterval: 10 * time.Second, RetryMax: 10 * time.Minute, Routes: 1 + flags>>7,
		Plugins: []PluginConfig{{Name: "one"}, {Name: "two", MethodTimeout: 5 * time.Second}}, Limits: DefaultLimits(),
	}
	cfg.Limits.Window, cfg.Limits.OpenCalls = 8, 6
	if flags&32 == 0 {
		cfg.Plugins[1].Match = map[string]string{}
	}
	w.m = New(cfg, rand.New(rand.NewPCG(1, uint64(flags))))
	w.feed(Started{})
	return w
}

func (w *world) failf(format string, args ...any) {
	w.t.Helper()
	from := max(0, len(w.log)-60)
	w.t.Fatalf(format+"\n%s", append(args, strings.Join(w.log[from:], "\n"))...)
}

func (w *world) callMethod(name string) {
	if w.up == 0 {
		return
	}
	w.last++
	w.calls[w.last] = &worldCall{isMethod: true, came: w.now}
	w.feed(MethodCalled{Epoch: w.up, Call: w.last, Name: name})
}

func (w *world) sendMessage(id string, isRedelivered bool) {
	if w.up == 0 {
		return
	}
	w.last++
	w.calls[w.last] = &worldCall{came: w.now}
	w.arrivals = append(w.arrivals, w.last)
	w.feed(MessageReceived{Epoch: w.up, Call: w.last, ID: id, Redelivered: isRedelivered})
}

// feed takes an event into the world's own knowledge, puts it through the machine, and checks what comes of it.
func (w *world) feed(ev Event) {
	if w.stopped {
		return
	}
	w.know(ev)
	switch ev.(type) {
	case Ticked, Submitted, Requested, ConnectRequested, DisconnectRequested, RouteRequested, ShutdownRequested, MethodCalled, MessageReceived, Withdrawn:
	default:
		w.past = append(w.past, ev)
	}
	w.step(ev)
	// The plan has come to its end: looking again at the same moment finds nothing, and no deadline has passed.
	if at, ok := w.m.Deadline(); ok && at <= w.now {
		w.failf("deadline %v at %v", time.Duration(at), time.Duration(w.now))
	}
	before, had := w.m.Deadline()
	if n := len(w.m.Step(w.now, Ticked{})); n > 0 {
		w.failf("a second look gives %d more orders: %v", n, w.m.out)
	}
	if after, has := w.m.Deadline(); after != before || has != had {
		w.failf("a second look moves the deadline from %v to %v", time.Duration(before), time.Duration(after))
	}
	for i, l := range w.lanes {
		if w.up != 0 && l.sent > l.head && len(l.owed) == 0 {
			w.failf("lane %d waits for an acknowledgement that nobody owes: %+v", i, l)
		}
	}
	for id, c := range w.calls {
		if c.isMethod && w.up != 0 && c.isResponding == 0 && w.now.Sub(c.came) > 26*time.Second {
			w.failf("method call %d is not being answered after %v", id, w.now.Sub(c.came))
		}
	}
}

func (w *world) step(ev Event) {
	if s := ev.String(); strings.ContainsRune(s, '\n') {
		w.failf("%q is not one line", s)
	}
	w.log = append(w.log, time.Duration(w.now).String()+" "+ev.String())
	for _, e := range slices.Clone(w.m.Step(w.now, ev)) {
		w.log = append(w.log, "  → "+e.String())
		w.check(e)
	}
}

func (w *world) sessionGone() {
	w.up, w.session, w.asked, w.arrivals = 0, 0, map[Feature]bool{}, nil
	for i := range w.lanes {
		w.lanes[i].sent, w.lanes[i].owed = w.lanes[i].head, map[Seq]bool{}
	}
	for _, c := range w.calls {
		c.isResponding = 0
	}
}

func (w *world) move(e Epoch, from, to stage) bool {
	if w.stages[e] != from {
		return false
	}
	w.stages[e] = to
	return true
}

// know takes note of a fact.
func (w *world) know(ev Event) {
	switch ev := ev.(type) {
	case CredentialFetched:
		w.move(ev.Epoch, stageFetching, stageFetched)
	case CredentialFailed:
		w.move(ev.Epoch, stageFetching, stageGone)
	case Opened:
		w.move(ev.Epoch, stageOpening, stageOpened)
	case OpenFailed:
		w.move(ev.Epoch, stageOpening, stageGone)
	case Connected:
		if w.move(ev.Epoch, stageConnecting, stageUp) {
			w.up, w.session = ev.Epoch, ev.Epoch
		}
	case ConnectFailed:
		w.move(ev.Epoch, stageConnecting, stageGone)
	case Lost:
		if w.move(ev.Epoch, stageUp, stageGone) {
			w.sessionGone()
		}
	case Closed:
		if w.move(ev.Epoch, stageClosing, stageGone) && w.session == ev.Epoch {
			w.sessionGone()
		}
	case SubscribeFailed:
		if ev.Epoch == w.up {
			w.asked[ev.Feature] = false
		}
	case Submitted:
		l := &w.lanes[ev.Lane]
		for s := l.last + 1; s <= ev.Upto; s++ {
			l.waiting[s] = true
		}
		l.last = max(l.last, ev.Upto)
	case Acked:
		if l := &w.lanes[ev.Lane]; ev.Epoch == w.session && ev.Upto <= l.sent {
			l.head = max(l.head, ev.Upto)
			maps.DeleteFunc(l.owed, func(s Seq, _ bool) bool { return s <= ev.Upto })
		}
	case Responded:
		if c := w.calls[ev.Call]; c != nil && c.isResponding == ev.Epoch {
			c.isDone = c.isDone || !ev.Failed
			c.wasRefused = c.wasRefused || ev.Failed && ev.Epoch == w.up
			c.isResponding = 0
		}
	case Returned:
		if c := w.calls[ev.Call]; c != nil && c.isGiven && c.plugin == ev.Plugin && c.start == ev.Start {
			c.isGiven, c.hasAnswer = false, c.hasAnswer || !ev.Failed
		}
		if p := &w.plugins[ev.Plugin]; p.start == ev.Start && p.applying == ev.Call {
			p.applying = 0
		}
	case PluginReady:
		if p := &w.plugins[ev.Plugin]; p.start == ev.Start && p.running {
			p.isReady = true
		}
	case PluginExited:
		if p := &w.plugins[ev.Plugin]; p.start == ev.Start {
			p.running, p.isReady, p.applying = false, false, 0
			for _, c := range w.calls {
				c.isGiven = c.isGiven && c.plugin != ev.Plugin
			}
		}
	}
}

// check holds an order against what the world knows.
func (w *world) check(e Effect) {
	switch e := e.(type) {
	case FetchCredential, Open, Connect, Close:
		w.checkConnection(e)
	case Send, Resolve, Forget, GiveUp:
		w.checkLane(e)
	case Subscribe:
		if w.up != e.Epoch || w.asked[e.Feature] {
			w.failf("%v: the session is %d, asked before: %v", e, w.up, w.asked[e.Feature])
		}
		w.asked[e.Feature] = true
		w.open = append(w.open, e)
	case Ask:
		if w.up != e.Epoch || e.Op >= CallerOp && !w.ops[e.Op] {
			w.failf("%v: the session is %d", e, w.up)
		}
		w.open = append(w.open, e)
	case Finish:
		if !w.ops[e.Op] {
			w.failf("%v: nobody waits for it", e)
		}
		delete(w.ops, e.Op)
	case Announce:
		if e == w.state {
			w.failf("%v: said before", e)
		}
		w.state = e
	case Stop:
		w.stopped = true
	case StartPlugin:
		p := &w.plugins[e.Plugin]
		if p.running || e.Start != p.start+1 {
			w.failf("%v: start %d runs: %v", e, p.start, p.running)
		}
		p.start, p.running = e.Start, true
		w.open = append(w.open, e)
	case StopPlugin:
		if p := w.plugins[e.Plugin]; !p.running || e.Start != p.start {
			w.failf("%v: start %d runs: %v", e, p.start, p.running)
		}
		w.open = append(w.open, e)
	default:
		w.checkCall(e)
	}
}

func (w *world) checkConnection(e Effect) {
	switch e := e.(type) {
	case FetchCredential:
		alive := 0
		for _, s := range w.stages {
			if s != stageGone {
				alive++
			}
		}
		if e.Epoch != w.lastEpoch+1 || alive > 1 {
			w.failf("%v: after %d, with %d attempts alive", e, w.lastEpoch, alive)
		}
		w.lastEpoch = e.Epoch
		w.stages[e.Epoch] = stageFetching
	case Open:
		if !w.move(e.Epoch, stageFetched, stageOpening) || e.Route >= w.m.cfg.Routes {
			w.failf("%v: the attempt is at stage %d", e, w.stages[e.Epoch])
		}
	case Connect:
		if !w.move(e.Epoch, stageOpened, stageConnecting) {
			w.failf("%v: the attempt is at stage %d", e, w.stages[e.Epoch])
		}
		for other, s := range w.stages {
			if other != e.Epoch && (s == stageConnecting || s == stageUp || w.session == other) {
				w.failf("%v: session %d still lives", e, other)
			}
		}
	case Close:
		if s := w.stages[e.Epoch]; s == 0 || s >= stageClosing {
			w.failf("%v: the attempt is at stage %d", e, s)
		}
		w.stages[e.Epoch] = stageClosing
		if w.up == e.Epoch {
			w.up = 0
		}
	}
	w.open = append(w.open, e)
}

func (w *world) checkLane(e Effect) {
	switch e := e.(type) {
	case Send:
		l := &w.lanes[e.Lane]
		if w.up != e.Epoch || e.From != l.sent+1 || e.To < e.From || e.To > l.last || e.To > l.head+Seq(w.m.lim.Window) {
			w.failf("%v: the session is %d, the lane %+v", e, w.up, *l)
		}
		for s := e.From; s <= e.To; s++ {
			if l.waiting[s] { // a session is not given what was given up
				l.owed[s] = true
			}
		}
		l.sent = e.To
	case Resolve:
		l := &w.lanes[e.Lane]
		if e.Upto > l.head || e.Upto <= l.resolved {
			w.failf("%v: the lane is %+v", e, *l)
		}
		l.resolved = e.Upto
		for s := range l.waiting {
			if s <= e.Upto {
				delete(l.waiting, s)
			}
		}
	case Forget:
		l := &w.lanes[e.Lane]
		if e.Upto <= l.forgotten || e.Upto > l.last {
			w.failf("%v: the lane is %+v", e, *l)
		}
		for s := range l.owed {
			if s <= e.Upto {
				w.failf("%v: the hub still owes the acknowledgement of %d", e, s)
			}
		}
		l.forgotten, l.head, l.sent = e.Upto, max(l.head, e.Upto), max(l.sent, e.Upto)
		for s := range l.waiting {
			if s <= e.Upto {
				w.failf("%v: nobody was told of %d", e, s)
			}
		}
	case GiveUp:
		l := &w.lanes[e.Lane]
		if e.From > e.To || e.From <= l.forgotten || e.To > l.last {
			w.failf("%v: the lane is %+v", e, *l)
		}
		for s := e.From; s <= e.To; s++ {
			delete(l.waiting, s)
			if e.Why == Stopped { // the end: nobody waits for the hub any more
				delete(l.owed, s)
			}
		}
	}
}

func (w *world) checkCall(e Effect) {
	switch e := e.(type) {
	case Deliver:
		c, p := w.calls[e.Call], w.plugins[e.Plugin]
		if c == nil || !p.isReady || p.start != e.Start || c.isGiven || c.isMethod && c.wasGiven {
			w.failf("%v: call %+v, plugin %+v", e, c, p)
		}
		c.isGiven, c.wasGiven, c.plugin, c.start = true, true, e.Plugin, e.Start
		w.given = append(w.given, e)
	case DeliverDesired:
		p := &w.plugins[e.Plugin]
		if e.Call != w.desired+1 || !p.isReady || p.start != e.Start || p.applying != 0 {
			w.failf("%v: after %d, plugin %+v", e, w.desired, *p)
		}
		w.desired, p.applying = e.Call, e.Call
		w.given = append(w.given, Deliver{e.Plugin, e.Start, e.Call})
	case Abort:
		if c := w.calls[e.Call]; c != nil {
			c.isGiven = false
		}
		if p := &w.plugins[e.Plugin]; p.applying == e.Call {
			p.applying = 0
		}
	case Respond:
		c := w.calls[e.Call]
		if c == nil || !c.isMethod || w.up != e.Epoch || c.isDone || c.isResponding != 0 || e.Status == 0 && !c.hasAnswer {
			w.failf("%v: call %+v, the session is %d", e, c, w.up)
		}
		c.isResponding = e.Epoch
		w.open = append(w.open, e)
	case Acknowledge:
		if w.up != e.Epoch || len(w.arrivals) == 0 || w.arrivals[0] != e.Call {
			w.failf("%v: the session is %d, the next in order of %v", e, w.up, w.arrivals)
		}
		w.arrivals = w.arrivals[1:]
	case Bury:
		c := w.calls[e.Call]
		if c == nil || c.isMethod || c.buried {
			w.failf("%v: call %+v", e, c)
		}
		c.buried = true
	case Discard:
		c := w.calls[e.Call]
		if c == nil || c.isMethod && !c.isDone && !c.wasRefused && w.now.Sub(c.came) < w.m.lim.MethodAnswer {
			w.failf("%v: call %+v", e, c)
		}
		delete(w.calls, e.Call)
	case WantCredential:
		if e.Left < 0 || e.Left > w.m.lim.CredentialAhead {
			w.failf("%v: it was not due", e)
		}
	case FailPlugin, Warn, RememberRoute, AdoptTwin, MergeDesired:
	default:
		w.failf("%v: an order that the world does not know", e)
	}
}
