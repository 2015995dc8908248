package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Stepper is the machine's boundary: what the world may do with it.
type Stepper interface {
	Step(now core.Instant, ev core.Event) []core.Effect
	Deadline() (core.Instant, bool)
}

var _ Stepper = (*core.Machine)(nil)

// world is everything around the machine. It has one goroutine; time passes only between tasks.
type world struct {
	opts   Options
	faults Faults // none of them once the world is healed
	rng    *rand.Rand
	m      Stepper
	off    map[Oracle]bool

	now     core.Instant
	skew    time.Duration // how far the device's wall clock is ahead of the hub's
	queue   queue
	planned uint64
	steps   int // taken at this very moment
	healed  bool
	stopped bool
	broken  *Violation
	stats   Stats
	trace   []string
	traced  core.Instant

	routes  []obstacle
	links   map[core.Epoch]*link
	epoch   core.Epoch // the last one begun
	hub     hub
	plugins []*plugin
	lanes   []lane
	calls   map[core.Call]*call
	over    []core.Call // in this step
	last    core.Call
	doc     document
	// twinTrouble is when a twin request or a subscription last went wrong: waits have grown since.
	twinTrouble core.Instant
	offered     map[core.Op]document
	pushed      map[int64]document

	ops      map[core.Op]bool
	lastOp   core.Op
	isHeld   bool // an operator has disconnected
	cancels  bool // a disconnect without hold has taken place
	wakes    int  // attempts that callers have caused
	choice   int  // an operator's, as far as it is known; asked by choiceOp
	choiceOp core.Op
	asked    int
	state    core.State
	excused  bool // something went wrong since the state was last 'connected'
	past     []core.Event
	pastNext int

	dials       [64]core.Instant // the last ones
	dialCount   int
	dialsInRow  int // since the device last had a session
	fetches     int
	probes      int // tries of a better route beside a session
	outageSince core.Instant
}

func newWorld(o Options) *world {
	w := &world{
		opts: o, faults: o.Faults, rng: newRand(o.Seed, 1), off: map[Oracle]bool{}, links: map[core.Epoch]*link{},
		calls: map[core.Call]*call{}, offered: map[core.Op]document{}, pushed: map[int64]document{},
		ops: map[core.Op]bool{}, lastOp: core.CallerOp, lanes: make([]lane, plugins), stats: Stats{Faults: map[string]int{}},
	}
	w.choice = noChoice
	for n := range max(1, o.Routes) {
		w.routes = append(w.routes, o.Obstacles.at(n, false))
	}
	for _, name := range o.Without {
		w.off[name] = true
	}
	w.hub = hub{w: w, twin: document{known: true, generation: 1, version: 1}, reported: core.CallerOp, acked: make([]core.Seq, plugins), next: make([]core.Seq, plugins)}
	cfg := core.Config{
		AutoConnect: true, ConnectAtStart: true, ConnectionRetry: true, EnsureDesired: true,
		RetryInterval: 10 * time.Second, RetryMax: 10 * time.Minute, Routes: o.Routes, Limits: o.Limits,
	}
	for i := range plugins {
		p := &plugin{w: w, index: core.PluginIndex(i), open: map[core.Call]bool{}}
		w.plugins = append(w.plugins, p)
		cfg.Plugins = append(cfg.Plugins, core.PluginConfig{Name: p.method(), Match: map[string]string{"to": p.method()}})
		w.hub.next[i] = 1
	}
	if w.chance("clock unset", w.faults.ClockUnset) {
		w.skew = -50 * 365 * 24 * time.Hour
	}
	w.m = core.New(cfg, newRand(o.Seed, 2))
	if o.Wrap != nil {
		w.m = o.Wrap(w.m)
	}
	return w
}

// after plans something.
func (w *world) after(d time.Duration, do func()) { w.at(w.now.Add(d), do) }

func (w *world) at(t core.Instant, do func()) {
	w.planned++
	w.queue.push(task{t, w.planned, do})
}

// every lets something happen again and again, at random, until the world is healed.
func (w *world) every(mean time.Duration, do func()) {
	if mean <= 0 {
		return
	}
	wait := time.Duration(-math.Log(1-w.rng.Float64()) * float64(mean))
	w.after(wait, func() {
		if w.healed {
			return
		}
		do()
		w.every(mean, do)
	})
}

// chance is how every fault asks whether it is its turn. A fault that does not exist in this world takes no number from
// the random source.
func (w *world) chance(name string, p float64) bool {
	if p <= 0 || w.healed || w.rng.Float64() >= p {
		return false
	}
	w.fault(name)
	return true
}

// fault counts a fault, and excuses the machine for leaving the state 'connected'.
func (w *world) fault(name string) {
	w.stats.Faults[name]++
	w.excused = true
}

func (w *world) some(least, most time.Duration) time.Duration { return between(w.rng, least, most) }

// runUntil lets time pass.
func (w *world) runUntil(end core.Instant) {
	for w.broken == nil && !w.stopped {
		at, isDue := w.m.Deadline()
		if len(w.queue) > 0 && (!isDue || w.queue[0].at < at) {
			if w.queue[0].at > end {
				break
			}
			t := w.queue.pop()
			w.setTime(t.at)
			t.do()
			continue
		}
		if !isDue || at > end {
			break
		}
		if at <= w.now && w.steps > 0 {
			w.fail(Spin, "the deadline %v is not in the future", at)
			return
		}
		w.setTime(at)
		w.feed(core.Ticked{})
	}
	w.setTime(max(w.now, end))
}

func (w *world) setTime(t core.Instant) {
	if t > w.now {
		w.now, w.steps = t, 0
	}
}

// feed tells the machine a fact and carries out what it orders. It is never called while an order is being carried out.
func (w *world) feed(ev core.Event) {
	if w.stopped || w.broken != nil {
		return
	}
	w.steps++
	w.stats.Steps++
	if w.steps > 2000 {
		w.fail(Spin, "%d steps at one moment", w.steps)
		return
	}
	if w.opts.Trace {
		if d := w.now.Sub(w.traced); d > 0 {
			w.trace = append(w.trace, "+"+d.String())
			w.traced = w.now
		}
		w.trace = append(w.trace, ev.String())
	}
	for _, e := range w.m.Step(w.now, ev) {
		if w.opts.Trace {
			w.trace = append(w.trace, "  → "+e.String())
		}
		w.execute(e)
	}
	w.sawStep()
}

// answer feeds the completion of an order. It may be told twice, and told again much later.
func (w *world) answer(ev core.Event) {
	w.remember(ev)
	w.feed(ev)
	if w.chance("answer doubled", w.faults.AnswerDoubled) {
		w.after(w.some(0, 50*time.Millisecond), func() { w.feed(ev) })
	}
}

// arrive feeds what the hub has sent by itself. It may be told again, but only when its session is over.
func (w *world) arrive(ev core.Event) {
	w.remember(ev)
	w.feed(ev)
}

// remember keeps an event of late for tellStale.
func (w *world) remember(ev core.Event) {
	if w.faults.StaleEvery <= 0 {
		return
	}
	if len(w.past) < 64 {
		w.past = append(w.past, ev)
		return
	}
	w.past[w.pastNext%len(w.past)] = ev
	w.pastNext++
}

// tellStale feeds an event of late whose epoch or start is over.
func (w *world) tellStale() {
	if len(w.past) > 0 {
		w.tellAgain(w.past[w.rng.IntN(len(w.past))])
	}
}

// mayTellStale is for a moment at which a certain stale event would do harm: by chance alone it would hardly come then.
func (w *world) mayTellStale(within time.Duration, harms func(core.Event) bool) {
	if len(w.past) == 0 || w.healed || w.rng.IntN(10) > 0 {
		return
	}
	first := w.rng.IntN(len(w.past))
	w.after(w.some(0, within), func() {
		for i := range w.past {
			if ev := w.past[(first+i)%len(w.past)]; harms(ev) && w.isStale(ev) {
				w.tellAgain(ev)
				return
			}
		}
	})
}

func (w *world) tellAgain(ev core.Event) {
	if !w.isStale(ev) {
		return
	}
	w.stats.Faults["stale event"]++ // no excuse: it changes nothing
	// The engine numbers each arrival.
	if m, ok := ev.(core.MessageReceived); ok {
		w.last++
		w.calls[w.last] = &call{id: w.last, epoch: m.Epoch, message: &message{id: m.ID}}
		w.over = append(w.over, w.last)
		m.Call = w.last
		ev = m
	}
	w.feed(ev)
}

func (w *world) isStale(ev core.Event) bool {
	switch ev := ev.(type) {
	case core.CredentialFetched:
		return w.isOver(ev.Epoch)
	case core.CredentialFailed:
		return w.isOver(ev.Epoch)
	case core.Opened:
		return w.isOver(ev.Epoch)
	case core.OpenFailed:
		return w.isOver(ev.Epoch)
	case core.Connected:
		return w.isOver(ev.Epoch)
	case core.ConnectFailed:
		return w.isOver(ev.Epoch)
	case core.Lost:
		return w.isOver(ev.Epoch)
	case core.Closed:
		return w.isOver(ev.Epoch)
	case core.Subscribed:
		return w.isOver(ev.Epoch)
	case core.SubscribeFailed:
		return w.isOver(ev.Epoch)
	case core.Acked:
		return w.isOver(ev.Epoch)
	case core.MessageReceived:
		return w.isOver(ev.Epoch)
	case core.DesiredChanged:
		return w.isOver(ev.Epoch)
	case core.Replied:
		return w.isOver(ev.Epoch)
	case core.Responded:
		return w.isOver(ev.Epoch)
	case core.PluginReady:
		return ev.Start < w.plugins[ev.Plugin].start
	case core.PluginExited:
		return ev.Start < w.plugins[ev.Plugin].start
	case core.Returned:
		return ev.Start < w.plugins[ev.Plugin].start
	default:
		return false
	}
}

// isOver reports whether everything of an epoch has been told.
func (w *world) isOver(e core.Epoch) bool { l := w.links[e]; return l == nil || l.isEnded }

// execute carries out one order.
func (w *world) execute(e core.Effect) {
	switch e := e.(type) {
	case core.FetchCredential:
		w.fetchCredential(e.Epoch)
	case core.Open:
		w.open(e)
	case core.Connect:
		w.connect(e.Epoch)
	case core.Close:
		w.close(e.Epoch)
	case core.Subscribe:
		w.subscribe(e)
	case core.Send:
		w.send(e)
	case core.Ask:
		w.ask(e)
	case core.Respond:
		w.respond(e)
	case core.Acknowledge:
		w.acknowledge(e)
	case core.Resolve:
		w.resolve(e)
	case core.Forget:
		w.forget(e)
	case core.GiveUp:
		w.giveUp(e)
	case core.Finish:
		if !w.ops[e.Op] {
			w.fail(Operations, "operation %d ended that nobody waits for", e.Op)
		}
		w.chosen(e)
		delete(w.ops, e.Op)
	case core.Announce:
		w.announce(e)
	case core.AdoptTwin:
		w.doc = w.offered[e.Op]
		clear(w.offered)
	case core.MergeDesired:
		w.doc = w.doc.merge(w.pushed[e.Version])
		delete(w.pushed, e.Version)
	case core.Deliver:
		w.plugins[e.Plugin].deliver(e)
	case core.DeliverDesired:
		w.plugins[e.Plugin].deliverDesired(e)
	case core.Abort:
		w.plugins[e.Plugin].abort(e)
	case core.StartPlugin:
		w.plugins[e.Plugin].launch(e.Start)
	case core.StopPlugin:
		w.plugins[e.Plugin].stop(e.Start)
	case core.Bury:
		if c := w.calls[e.Call]; c != nil && c.message != nil {
			c.message.isSettled = true
		}
	case core.Discard:
		if c := w.calls[e.Call]; c != nil && c.message == nil && !c.isClosed && w.now.Sub(c.came) < w.opts.Limits.MethodAnswer {
			w.fail(Methods, "%v: %v", e, c)
		}
		delete(w.calls, e.Call)
	case core.FailPlugin:
		w.fail(Plugins, "plugin %d was given up: %s", e.Plugin, e.Reason)
	case core.Stop:
		w.stopped = true
	case core.Warn, core.RememberRoute:
	default:
		panic(fmt.Sprintf("an order that the world does not know: %v", e))
	}
}
