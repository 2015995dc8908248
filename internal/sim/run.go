package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Stats count what happened, so that a test can see that a world was not idle.
type Stats struct {
	Steps, Dials, Sessions                   int
	Submitted, Messages                      int // Messages came to the hub, each counted once
	Methods, Answers, CloudMessages, Changes int
	Faults                                   map[string]int
}

// Result is the end of a story.
type Result struct {
	// Violation is nil if every promise was kept.
	Violation *Violation
	Stats     Stats
	// Transcript has a line for each event, effect and passage of time, as core/testdata has them, if asked for.
	Transcript []string
}

// Run plays one world from its start to the machine's end: a faulty phase, a healed one in which everything has to
// drain, some work, a shutdown. It reads no clock and starts no goroutine; equal options give equal results.
func Run(o Options) Result {
	w := newWorld(o)
	w.live()
	if w.broken == nil {
		w.heal()
	}
	if w.broken == nil {
		w.prove()
	}
	if w.broken == nil {
		w.shutDown()
	}
	return Result{w.broken, w.stats, w.trace}
}

// live is the faulty phase.
func (w *world) live() {
	o, f := w.opts, w.faults
	for i := range w.lanes {
		w.every(o.SubmitEvery, func() {
			count := 1 + w.rng.IntN(3)
			if w.rng.IntN(20) == 0 {
				count = 20 + w.rng.IntN(60)
			}
			w.submit(i, count)
		})
		w.every(f.WithdrawnEvery, func() { w.withdraw(i) })
	}
	for _, p := range w.plugins {
		w.every(f.PluginCrashedEvery, p.crash)
		w.every(f.PluginHungEvery, p.hang)
	}
	w.every(o.MethodEvery, func() {
		w.hub.callMethod()
		if w.rng.IntN(10) == 0 {
			for range 5 {
				w.hub.callMethod()
			}
		}
	})
	w.every(o.MessageEvery, func() { w.hub.sendMessage(w.plugins[w.rng.IntN(plugins)].method()) })
	w.every(o.DesiredEvery, func() {
		for range 1 + w.rng.IntN(3) {
			w.hub.changeDesired()
		}
	})
	w.every(o.ReportEvery, w.report)
	w.every(f.SessionLostEvery, w.lose)
	w.every(f.HubAwayEvery, w.hub.away)
	w.every(f.TakenOverEvery, w.hub.stolen)
	w.every(f.StaleEvery, w.tellStale)
	w.every(f.TwinRecreatedEvery, w.hub.recreate)
	w.every(f.OperatorEvery, w.operate)
	w.every(f.CancelledEvery, w.cancel)
	w.every(f.ClockJumpedEvery, w.jumpClock)
	w.every(f.RouteBlockedEvery, w.blockRoute)
	w.every(f.LinkUpEvery, w.linkUp)
	w.every(f.RouteChosenEvery, w.choose)
	w.every(time.Minute, w.sawTime)
	w.feed(core.Started{})
	w.runUntil(core.Instant(o.Duration))
}

func (w *world) newOp() core.Op {
	w.lastOp++
	w.ops[w.lastOp] = true
	return w.lastOp
}

func (w *world) report() {
	if len(w.ops) > 100 {
		return
	}
	op := w.newOp()
	if w.isHeld {
		w.wakes++ // it may connect again
	}
	w.feed(core.Requested{Op: op})
}

// cancel is a caller who gives up an operation. The numbers are in order, since a map has none that a seed would fix.
func (w *world) cancel() {
	if len(w.ops) == 0 {
		return
	}
	ops := slices.Sorted(maps.Keys(w.ops))
	op := ops[w.rng.IntN(len(ops))]
	if op == w.choiceOp {
		w.choiceOp = 0 // what becomes of it is not told
	}
	delete(w.ops, op)
	w.stats.Faults["operation cancelled"]++
	w.feed(core.OpCancelled{Op: op})
}

// jumpClock is the fault of that name.
func (w *world) jumpClock() {
	w.fault("wall clock jumped")
	switch w.rng.IntN(3) {
	case 0:
		w.setClock(0)
	case 1:
		w.setClock(w.some(-10*time.Minute, 10*time.Minute))
	default:
		w.setClock(w.some(-24*time.Hour, 24*time.Hour))
	}
}

// setClock makes the device's wall clock wrong by so much. Whoever watches the clock tells the machine.
func (w *world) setClock(skew time.Duration) {
	if w.skew == skew {
		return
	}
	w.skew = skew
	if w.opts.ClockNoticed {
		w.outageSince, w.dialsInRow = w.now, 0 // a changed credential begins the back-off anew
		w.wakes++
		w.feed(core.CredentialChanged{})
	}
}

// operate is an operator who disconnects for a while. Without hold the next operation connects again.
func (w *world) operate() {
	if w.isHeld {
		return
	}
	w.fault("operator")
	w.isHeld = true
	w.wakes++
	isHold := w.rng.IntN(2) == 0
	w.cancels = w.cancels || !isHold
	w.feed(core.DisconnectRequested{Op: w.newOp(), Hold: isHold})
	w.after(w.some(time.Second, 5*time.Minute), w.reconnect)
}

func (w *world) reconnect() {
	if w.isHeld {
		w.isHeld = false
		w.wakes++
		w.feed(core.ConnectRequested{Op: w.newOp()})
	}
}

// heal ends all faults and waits until everything has drained.
func (w *world) heal() {
	w.healed, w.faults = true, Faults{}
	w.hub.isAway, w.hub.isStolen = false, false
	for n := range w.routes {
		w.routes[n] = unblocked
	}
	w.setClock(0)
	w.hub.changeDesired() // the last change may have been lost, and only another one tells of it
	w.reconnect()
	for _, p := range w.plugins {
		if p.isHung && p.isAlive {
			p.exit("killed: it did not answer")
		}
	}
	if left := w.rest(HealTime); left != "" {
		w.fail(Drained, "%v after healing: %s", HealTime, left)
	}
	// The better routes take turns, so that it may get to the best of them by another.
	for range w.routes {
		if w.notPreferred() == "" || w.broken != nil {
			return
		}
		w.runUntil(w.now.Add(probeWithin + 2*w.opts.Limits.ProbePatience))
	}
	if lesser := w.notPreferred(); lesser != "" {
		w.fail(Preferred, "%v after healing: %s", HealTime+time.Duration(len(w.routes))*probeWithin, lesser)
	}
}

// rest lets time pass and says what is then left to do. A renewal at that very moment is given its seconds.
func (w *world) rest(d time.Duration) (left string) {
	w.runUntil(w.now.Add(d))
	for range 10 {
		if left = w.undrained(); left == "" || w.broken != nil {
			return ""
		}
		w.runUntil(w.now.Add(time.Second))
	}
	return left
}

// prove does some of everything, and looks whether it works.
func (w *world) prove() {
	for i, p := range w.plugins {
		w.submit(i, 3)
		w.hub.invoke(p.method())
		w.hub.sendMessage(p.method())
	}
	w.hub.changeDesired()
	w.report()
	if left := w.rest(time.Minute); left != "" {
		w.fail(Drained, "something does not work any more: %s", left)
	}
}

// shutDown asks for the end in the midst of work.
func (w *world) shutDown() {
	w.submit(0, 3)
	w.hub.invoke("p0")
	w.report()
	w.feed(core.ShutdownRequested{})
	w.runUntil(w.now.Add(10 * time.Second))
	left := ""
	switch {
	case w.broken != nil:
		return
	case !w.stopped:
		left = "not stopped after 10 s"
	case len(w.ops) > 0:
		left = fmt.Sprintf("operations %v", w.ops)
	}
	for i := range w.lanes {
		if n := w.lanes[i].pending(); n > 0 {
			left = fmt.Sprintf("nobody was told of %d messages of lane %d", n, i)
		}
	}
	if left != "" {
		w.fail(Shutdown, "%s", left)
	}
}
