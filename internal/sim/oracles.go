package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Oracle names a promise that is checked. Oracles read what the hub, the network, the plugins and the callers saw, never
// the machine.
type Oracle string

// The oracles.
const (
	// OneSession: no CONNECT reaches the hub while the device still holds another session.
	OneSession Oracle = "one session"
	// DeadEpoch: nothing is sent on a connection that the device knows to be over, or that is not up yet.
	DeadEpoch Oracle = "dead epoch"
	// Window: what is unacknowledged, open or waiting stays within its limit.
	Window Oracle = "window"
	// LaneOrder: the hub sees the messages of a lane in order, without a gap, and none again that it is known to have.
	LaneOrder Oracle = "lane order"
	// Settled: each message is reported once, in order, and as accepted only if the hub has acknowledged it.
	Settled Oracle = "settled"
	// Kept: what is done with is let go of in the same step: the store forgets what the hub has, a call that is over is
	// discarded.
	Kept Oracle = "kept"
	// Methods: each method call is answered once, in time while there is a session. An answer that may have been lost is
	// given again, but no other one.
	Methods Oracle = "methods"
	// Messages: cloud-to-device messages are acknowledged in the order of arrival, after a verdict, and are handed out
	// one at a time.
	Messages Oracle = "messages"
	// DesiredRises: a plugin's start is given rising states, each of which the hub has had.
	DesiredRises Oracle = "desired rises"
	// UpToDate: a plugin has the hub's desired state soon, where nothing stands in the way.
	UpToDate Oracle = "up to date"
	// Token: no session outlives its token, as far as the device can know: with a wrong clock the hub may see its end
	// sooner.
	Token Oracle = "token"
	// Dials: attempts stay within the day's budget.
	Dials Oracle = "dials"
	// Preferred: soon after all routes get through, the session goes by the preferred one, or by the one that was chosen.
	Preferred Oracle = "preferred"
	// AtOnce: the first attempt after the loss of a stable session is made at once.
	AtOnce Oracle = "at once"
	// StateTrue: watchers are told that the connection is gone only if something went wrong.
	StateTrue Oracle = "state"
	// Plugins: nothing is handed to a start that is over, and no plugin is given up.
	Plugins Oracle = "plugins"
	// Operations: each caller is told once how its operation ended; reported patches keep their order.
	Operations Oracle = "operations"
	// Drained: after healing nothing is left within HealTime, and everything works.
	Drained Oracle = "drained"
	// Shutdown: it ends in time, and everybody has been told.
	Shutdown Oracle = "shutdown"
	// Spin: the machine never runs in circles.
	Spin Oracle = "spin"
)

// oracles are all of them.
var oracles = [...]Oracle{
	OneSession, DeadEpoch, Window, LaneOrder, Settled, Kept, Methods, Messages, DesiredRises, UpToDate, Token, Dials, Preferred, AtOnce, StateTrue,
	Plugins, Operations, Drained, Shutdown, Spin,
}

// Violation is a promise that was broken.
type Violation struct {
	Oracle Oracle
	At     time.Duration
	Text   string
}

// String returns one line.
func (v *Violation) String() string { return fmt.Sprintf("%s at %v: %s", v.Oracle, v.At, v.Text) }

// fail ends the story, unless the oracle is left out.
func (w *world) fail(o Oracle, format string, args ...any) {
	if w.broken != nil || w.off[o] {
		return
	}
	w.broken = &Violation{o, time.Duration(w.now), fmt.Sprintf(format, args...)}
	if w.opts.Trace {
		w.trace = append(w.trace, "# "+w.broken.String())
	}
}

// sees returns the link of an epoch if the device may send on it; the machine must know.
func (w *world) sees(e core.Epoch, what core.Effect) *link {
	l := w.links[e]
	if l == nil || l.isClosed || l.isEnded || !l.isConnected {
		w.fail(DeadEpoch, "%v: %v", what, l)
	}
	return l
}

// sawStep looks at what must be so after each step.
func (w *world) sawStep() {
	for i := range w.lanes {
		if l := &w.lanes[i]; l.forgotten < l.resolved {
			w.fail(Kept, "lane %d: the hub has what is up to %d, the store lets go up to %d", i, l.resolved, l.forgotten)
		}
	}
	for _, id := range w.over {
		if c := w.calls[id]; c != nil {
			w.fail(Kept, "call %d is over: %v", id, c)
		}
	}
	w.over = w.over[:0]
}

// sawTime looks, once in a while, for what should have happened long ago.
func (w *world) sawTime() {
	const soon = 90 * time.Second
	since := func(t core.Instant) time.Duration { return w.now.Sub(t) }
	s := w.hub.session
	switch {
	case s == nil, !s.link.isUsable(), slices.Contains(s.subscribed[:], false), w.hub.isMissed:
		return
	case since(s.link.connectedAt) < soon, since(s.subscribedAt) < soon, since(w.hub.changed) < soon:
		return
	case since(w.twinTrouble) < w.opts.Limits.RefusedMax+soon:
		return
	}
	for _, p := range w.plugins {
		if p.isReady && !p.isHung && p.applies == 0 && since(p.readyAt) > soon && p.given != w.hub.twin {
			w.fail(UpToDate, "plugin %d has the desired state %v, the hub %v for %v", p.index, p.given, w.hub.twin, since(w.hub.changed))
		}
	}
}

// announce is what watchers of the connection see.
func (w *world) announce(e core.Announce) {
	if w.state == core.StateConnected && e.State != core.StateConnected && !w.excused && !w.isHeld && e.State < core.StateStopping {
		w.fail(StateTrue, "announced as %v (%s), but nothing went wrong", e.State, e.Reason)
	}
	if e.State == core.StateConnected && w.state != core.StateConnected {
		w.excused = false
	}
	w.state = e.State
}

// dialsPerDay is the bound that the product promises. The waits come to about 250, as their jitter falls.
const dialsPerDay = core.DialBudget

// sawDial holds an attempt against three budgets. One is for any minute, in which a renewal that fails and a loss may
// follow each other. One is for an outage: ten attempts of the beginning, one each second (half of RetryEarly) for
// OutageEarly, one each five seconds (half of connection_retry_interval) for five minutes, then one each five minutes (half
// of connection_retry_max). The last is for each day of it. More routes cost the first rounds from one to the next;
// link-ups cost so many and one an hour. Better routes that are tried beside a session have a budget of their own.
func (w *world) sawDial(route int) {
	w.dials[w.dialCount%len(w.dials)] = w.now
	w.dialCount++
	w.stats.Dials++
	if w.opts.Dialed != nil {
		w.opts.Dialed(w.now, route)
	}
	lim := w.opts.Limits
	inMinute := 0
	for i, at := range w.dials {
		if i < w.dialCount && w.now.Sub(at) < time.Minute {
			inMinute++
		}
	}
	extra := (w.opts.Routes-1)*(lim.RouteRounds+1) + lim.LinkTries + 4*w.wakes
	if most := 60 + extra; inMinute > most {
		w.fail(Dials, "%d attempts within a minute", inMinute)
	}
	for e := range w.epoch {
		l := w.links[e]
		if l == nil || !l.isConnected || l.isClosed || l.isEnded {
			continue
		}
		if l.route != route {
			w.probes++
			if most := 10 + int(time.Duration(w.now)/(lim.ProbeFirst/2)) + w.wakes; w.probes > most {
				w.fail(Dials, "%d tries of a better route", w.probes)
			}
		}
		return // a renewal: the end of the token bounds its attempts
	}
	w.dialsInRow++
	lasted := w.now.Sub(w.outageSince)
	first, early, late := min(lasted, lim.OutageEarly), min(lasted, 5*time.Minute), max(0, lasted-5*time.Minute)
	most := min(10+int(first/(lim.RetryEarly/2))+int(early/(5*time.Second))+int(late/(5*time.Minute)), dialsPerDay*(1+int(lasted/(24*time.Hour))))
	most += extra + int(lasted/lim.LinkRefill)
	if w.dialsInRow > most {
		w.fail(Dials, "%d attempts in an outage of %v, at most %d", w.dialsInRow, lasted, most)
	}
}

// sawLoss looks whether the device tries again at once after a stable session.
func (w *world) sawLoss(l *link, f core.Fault) {
	if w.isHeld || f.Kind != core.Transient || w.now.Sub(l.connectedAt) < w.opts.Limits.Stable {
		return
	}
	for _, other := range w.links {
		if other != l && !other.isEnded {
			return // a renewal is on its way
		}
	}
	before := w.fetches
	w.after(time.Second, func() {
		if w.fetches == before && !w.isHeld {
			w.fail(AtOnce, "no attempt within a second of the loss of epoch %d, which was stable", l.epoch)
		}
	})
}

// sawSilence looks whether a session leaves method calls unanswered that it could answer.
func (w *world) sawSilence(l *link) {
	if !l.isUsable() || w.now.Sub(l.connectedAt) < settleTime {
		return
	}
	lim := w.opts.Limits
	kept := w.hub.waiting[:0]
	for _, c := range w.hub.waiting {
		age := w.now.Sub(c.came)
		if c.isClosed || age > lim.MethodAnswer-settleTime {
			continue
		}
		kept = append(kept, c)
		if age > lim.Method+settleTime && c.sentIn != l.epoch {
			w.fail(Methods, "call %d is not answered after %v", c.id, age)
		}
	}
	clear(w.hub.waiting[len(kept):])
	w.hub.waiting = kept
}

// settleTime is what the way of a packet and of news may cost.
const settleTime = 3 * time.Second

// undrained says what is left, "" if nothing is.
func (w *world) undrained() string {
	switch s := w.hub.session; {
	case s == nil || !s.link.isUsable():
		return "no session"
	case slices.Contains(s.subscribed[:], false):
		return fmt.Sprintf("subscriptions %v", s.subscribed)
	case len(w.ops) > 0:
		return fmt.Sprintf("operations %v", w.ops)
	case len(w.hub.messages) > 0:
		return fmt.Sprintf("%d cloud-to-device messages", len(w.hub.messages))
	}
	for i := range w.lanes {
		if n := w.lanes[i].kept(); n > 0 {
			return fmt.Sprintf("%d messages of lane %d", n, i)
		}
	}
	if len(w.calls) > 0 {
		id := slices.Min(slices.Collect(maps.Keys(w.calls)))
		return fmt.Sprintf("call %d: %v", id, w.calls[id])
	}
	for _, p := range w.plugins {
		if !p.isReady {
			return fmt.Sprintf("plugin %d is not ready", p.index)
		}
		if p.given != w.hub.twin {
			return fmt.Sprintf("plugin %d has the desired state %v, the hub %v", p.index, p.given, w.hub.twin)
		}
	}
	return ""
}
