package sim

import (
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// obstacle is what stands in the way of a route.
type obstacle uint8

const (
	unblocked obstacle = iota
	// swallowed: packets vanish, as behind a firewall that drops them.
	swallowed
	// refusing: a connection is reset at once.
	refusing
	// hollow: TLS comes about, and nothing of MQTT gets through: CONNECT is not answered, or the connection reset.
	hollow
	obstacles
)

// faultNames are the names under which the obstacles are counted.
var faultNames = [obstacles]string{swallowed: "route swallowed", refusing: "route refusing", hollow: "route hollow"}

// tcpTimeout is how long a dial waits for an answer.
const tcpTimeout = 10 * time.Second

// What the world knows of an operator's choice beside the number of a route.
const (
	noChoice    = -1
	anyChoice   = -2 // nobody was told what became of it
	probeWithin = 8 * time.Minute
)

// blockRoute is the faults of those names: a route does not get through for up to an hour. A session by it ends.
func (w *world) blockRoute() {
	n := w.rng.IntN(len(w.routes))
	if w.routes[n] != unblocked {
		return
	}
	o := obstacle(1 + w.rng.IntN(int(obstacles)-1))
	w.stats.Faults[faultNames[o]]++
	w.routes[n] = o
	for e := range w.epoch + 1 { // in order, as ever
		l := w.links[e]
		switch {
		case l == nil || !l.isIntact || l.route != n:
		case o == swallowed:
			w.cut(l, core.Fault{Reason: "silence"}, w.some(0, keepAlive), w.some(0, hubKeepAlive))
		default:
			w.cut(l, core.Fault{Reason: "connection reset"}, w.way(), w.way())
		}
	}
	w.after(w.some(time.Minute, time.Hour), func() { w.routes[n] = w.opts.Obstacles.at(n, w.healed) })
}

// Obstacles are what stands in the way of each route, by its number, as long as the world is not healed.
type Obstacles []string

// at returns the obstacle of a route.
func (o Obstacles) at(route int, healed bool) obstacle {
	if healed || route >= len(o) {
		return unblocked
	}
	for n, name := range faultNames {
		if name == "route "+o[route] {
			return obstacle(n)
		}
	}
	return unblocked
}

// linkUp is the platform's news that a link came up. It may be one of a flapping series.
func (w *world) linkUp() {
	w.stats.Faults["link up"]++ // no excuse: it is good news
	w.feed(core.NetworkChanged{})
	if w.rng.IntN(10) == 0 {
		for n := range 5 {
			w.after(time.Duration(n+1)*time.Second, func() { w.feed(core.NetworkChanged{}) })
		}
	}
}

// choose is an operator who says by which route to go, or to go by the order of preference again.
func (w *world) choose() {
	w.stats.Faults["route chosen"]++
	if w.isHeld {
		return
	}
	w.wakes++
	op := w.newOp()
	ev := core.RouteRequested{Op: op, Route: w.rng.IntN(len(w.routes)), Auto: w.rng.IntN(3) == 0}
	w.choice, w.choiceOp = anyChoice, op
	if w.asked = ev.Route; ev.Auto {
		w.asked = noChoice
	}
	w.feed(ev)
}

// chosen takes note of what became of an operator's choice.
func (w *world) chosen(f core.Finish) {
	if f.Op != w.choiceOp {
		return
	}
	switch f.Outcome {
	case core.Succeeded:
		w.choice = w.asked
	case core.Failed:
		w.choice = noChoice
	default: // nobody waits for it any more, and it may still come about
	}
}

// isBeside reports whether this link is a try of another route beside a session that works.
func (w *world) isBeside(l *link) bool {
	s := w.hub.session
	return s != nil && s.link != l && s.link.isUsable() && s.link.route != l.route
}

// notPreferred says by which lesser route the session goes, "" if it goes by the right one.
func (w *world) notPreferred() string {
	want := w.choice
	if want == noChoice {
		want = 0
	}
	if s := w.hub.session; want >= 0 && s != nil && s.link.route != want {
		return "the session goes by route " + string(rune('0'+s.link.route)) + ", and " + string(rune('0'+want)) + " gets through"
	}
	return ""
}
