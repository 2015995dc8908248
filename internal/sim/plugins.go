package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// plugins is how many there are. Each has a lane, a method and messages of its own, and handles the desired properties.
const plugins = 2

// plugin models a plugin's process, start after start.
type plugin struct {
	w       *world
	index   core.PluginIndex
	start   core.Start
	isAlive bool // the start has not exited
	isReady bool
	readyAt core.Instant
	isHung  bool // it answers nothing any more
	open    map[core.Call]bool
	given   document // to this start
	applies int      // hand-overs of desired properties that it has not returned
	message *message
	begun   []core.Instant // starts of late
}

func (p *plugin) method() string { return fmt.Sprint("p", int(p.index)) }

func (p *plugin) launch(s core.Start) {
	w := p.w
	if p.isAlive || s != p.start+1 {
		w.fail(Plugins, "start %d of plugin %d while %d is alive: %v", s, p.index, p.start, p.isAlive)
		return
	}
	lim := w.opts.Limits
	begun := slices.DeleteFunc(p.begun, func(t core.Instant) bool { return w.now.Sub(t) >= lim.CrashLoopWithin })
	begun = append(begun, w.now)
	// Those before it counts as a crash loop, then one for each of the shortest waits.
	if most := lim.CrashLoop + 1 + int(2*lim.CrashLoopWithin/lim.CrashLoopRetry) + 1; len(begun) > most {
		w.fail(Plugins, "plugin %d is started %d times within %v, at most %d", p.index, len(begun), lim.CrashLoopWithin, most)
	}
	*p = plugin{w: w, index: p.index, start: s, isAlive: true, open: map[core.Call]bool{}, begun: begun}
	w.after(w.some(10*time.Millisecond, 500*time.Millisecond), func() {
		if p.start != s || !p.isAlive {
			return
		}
		if w.chance("plugin start fails", w.faults.PluginStartFails) {
			p.exit("exited before it was ready")
			return
		}
		p.isReady, p.readyAt = true, w.now
		w.answer(core.PluginReady{Plugin: p.index, Start: s, Methods: []string{p.method()}, Messages: true, Desired: true})
	})
}

func (p *plugin) stop(s core.Start) {
	p.w.after(p.w.some(0, time.Second), func() {
		if p.start == s && p.isAlive {
			p.exit("asked to stop")
		}
	})
}

// exit ends a start. What it was doing is returned before that, or after it, or never: all of it happens.
func (p *plugin) exit(why string) {
	w, s := p.w, p.start
	ids := slices.Sorted(maps.Keys(p.open))
	switch w.rng.IntN(3) {
	case 0:
		for _, id := range ids {
			p.giveBack(s, id, core.Returned{Failed: true})
		}
	case 1:
		for _, id := range ids {
			w.after(w.some(0, 2*time.Second), func() { w.answer(core.Returned{Plugin: p.index, Start: s, Call: id, Failed: true}) })
		}
	}
	if p.message != nil {
		p.message.isHeld = false
	}
	p.isAlive, p.isReady, p.message, p.applies = false, false, nil, 0
	clear(p.open)
	w.answer(core.PluginExited{Plugin: p.index, Start: s, Fault: core.Fault{Reason: why}})
}

func (p *plugin) crash() {
	if p.isAlive {
		p.w.fault("plugin crashed")
		p.exit("crashed")
	}
}

// hang makes the start deaf until its host notices.
func (p *plugin) hang() {
	if !p.isAlive || p.isHung {
		return
	}
	s := p.start
	p.w.fault("plugin hung")
	p.isHung = true
	p.w.after(p.w.some(10*time.Second, 2*time.Minute), func() {
		if p.start == s && p.isAlive {
			p.exit("killed: it did not answer")
		}
	})
}

// takes reports whether a call may be handed to a start.
func (p *plugin) takes(s core.Start, what core.Effect) bool {
	if p.start != s || !p.isReady || !p.isAlive {
		p.w.fail(Plugins, "%v: start %d, ready %v", what, p.start, p.isReady)
		return false
	}
	return true
}

func (p *plugin) deliver(e core.Deliver) {
	w, c := p.w, p.w.calls[e.Call]
	if !p.takes(e.Start, e) {
		return
	}
	if c == nil || p.open[e.Call] {
		w.fail(Plugins, "%v: %v", e, c)
		return
	}
	p.open[e.Call] = true
	if c.message == nil {
		inHand := 0
		for _, q := range w.plugins {
			for id := range q.open {
				if o := w.calls[id]; o != nil && o.message == nil {
					inHand++
				}
			}
		}
		if most := w.opts.Limits.OpenCalls; inHand > most {
			w.fail(Window, "plugins have %d method calls at once, at most %d", inHand, most)
		}
		p.work(e.Start, e.Call, core.Returned{})
		return
	}
	if p.message != nil {
		w.fail(Messages, "%v: the plugin has message %s", e, p.message.id)
	}
	p.message, c.message.isHeld = c.message, true
	verdicts := [...]core.Verdict{core.Complete, core.Complete, core.Complete, core.Reject, core.Abandon}
	v := core.Complete
	if !w.healed {
		v = verdicts[w.rng.IntN(len(verdicts))]
	}
	p.work(e.Start, e.Call, core.Returned{Verdict: v})
}

func (p *plugin) deliverDesired(e core.DeliverDesired) {
	w := p.w
	if !p.takes(e.Start, e) {
		return
	}
	switch d := w.doc; {
	case p.applies > 0:
		w.fail(DesiredRises, "%v: the plugin is applying another state", e)
	case d.isWrong || d.version != e.Version:
		w.fail(DesiredRises, "%v: %+v is a state that the hub never had", e, d)
	case !d.after(p.given):
		w.fail(DesiredRises, "%v: %+v after %+v", e, d, p.given)
	default:
		p.given = d
		p.applies++
		p.open[e.Call] = true
		p.work(e.Start, e.Call, core.Returned{})
	}
}

// work answers a call in its time.
func (p *plugin) work(s core.Start, id core.Call, ev core.Returned) {
	w := p.w
	d := w.some(time.Millisecond, 200*time.Millisecond)
	if w.chance("handler slow", w.faults.HandlerSlow) {
		d = w.some(10*time.Second, 70*time.Second)
	}
	w.after(d, func() {
		if p.start == s && p.isAlive && !p.isHung {
			p.giveBack(s, id, ev)
		}
	})
}

func (p *plugin) giveBack(s core.Start, id core.Call, ev core.Returned) {
	w := p.w
	wasOpen := p.open[id]
	delete(p.open, id)
	ev.Plugin, ev.Start, ev.Call = p.index, s, id
	if wasOpen {
		switch c := w.calls[id]; {
		case id >= core.DesiredCall:
			p.applies--
		case c == nil:
		case c.message != nil:
			c.message.isHeld = false
			p.message = nil
			c.message.isSettled = c.message.isSettled || !ev.Failed && ev.Verdict != core.Abandon
		default:
			c.hasAnswer = !ev.Failed
		}
	}
	w.answer(ev)
}

// abort ends a call whose limit has passed. Its answer, if it still comes, changes nothing.
func (p *plugin) abort(e core.Abort) {
	if p.start != e.Start || !p.open[e.Call] {
		return
	}
	delete(p.open, e.Call)
	if e.Call >= core.DesiredCall {
		p.applies--
		return
	}
	if c := p.w.calls[e.Call]; c != nil && c.message != nil {
		c.message.isHeld = false
		p.message = nil
	}
}
