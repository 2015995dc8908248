package core

import (
	"fmt"
	"time"
)

// noRoute is the absence of a route.
const noRoute = -1

// routing is what the machine knows of the routes to the hub beyond the one that is next (backoff.route).
//
// Routes stand in order of preference. One that does not get through gives way to the next (see wait); what worked is
// remembered; and where that is not the best one, a better one is tried again beside the session, as a renewal is: its
// failure costs nothing, and when it is open the session moves to it.
type routing struct {
	kept   int // by which a session was made last, as the engine remembers it
	chosen int // by an operator, in place of the order of preference; noRoute
	// probeAt is when a better route may be tried again, 0 if that has not been planned; probes counts failures in a row,
	// and probe says which of the better ones is next.
	probeAt Instant
	probes  int
	probe   int
	// spared says, of each route, until when it is not tried, because whoever stands on it asked for that, and sparedFor of
	// what. Neither a caller nor an operator overrides it: see attemptAt.
	spared    []Instant
	sparedFor []Fault
	fault     Fault // of the last probe that failed; empty after one that did not
	shown     int   // the route that watchers were told of
	ops       []Op  // wait for the chosen route

	// link-ups that may still be answered by an attempt at once, and since when the count holds; the next not before.
	linkTries int
	linkSince Instant
	linkNext  Instant
}

// cause is something that stands in the way of a session, for whoever asks why.
type cause struct {
	route int
	fault Fault
	at    Instant
	count int
}

// causesKept bounds the causes of one outage: one for each route, and one for what is no route's, is the usual.
const causesKept = 8

// noteCause keeps the newest failure of each route, newest last.
func (m *Machine) noteCause(now Instant, route int, f Fault) {
	c := cause{route, f, now, 1}
	for i, old := range m.causes {
		if old.route != route || old.fault.Phase != f.Phase {
			continue
		}
		if old.fault.Reason == f.Reason {
			c.count = old.count + 1
		}
		m.causes = append(m.causes[:i], m.causes[i+1:]...)
		break
	}
	if len(m.causes) == causesKept {
		m.causes = append(m.causes[:0], m.causes[1:]...)
	}
	m.causes = append(m.causes, c)
}

// betterRoute returns a route that is preferred to this one, if there is any.
func (m *Machine) betterRoute(route int) (int, bool) {
	r := &m.routing
	switch {
	case r.chosen != noRoute:
		return r.chosen, r.chosen != route
	case route == 0:
		return 0, false
	}
	return r.probe % route, true
}

// planSwap tries a better route beside the session, in quiet moments; for an operator, at once.
func (m *Machine) planSwap(now Instant) {
	r := &m.routing
	to, ok := m.betterRoute(m.cur.route)
	if !ok || m.next.phase != absent || m.renewForced || m.stopping {
		return
	}
	if len(r.ops) == 0 {
		if !m.due(now, max(r.probeAt, r.spared[to])) {
			return
		}
		due := m.cur.renewDue
		if due == never || m.cur.stale {
			due = m.cur.until // nothing renews it: beyond its end no route would take it
		}
		if due != never && now.Add(m.lim.ProbeRoom) > due && due.Sub(m.cur.connectedAt) > m.lim.ProbeRoom {
			return // after the renewal, which wakes the plan, there is room enough
		}
		if !m.isQuiet() && !m.due(now, r.probeAt.Add(m.lim.ProbePatience)) {
			return
		}
	}
	m.putOffProbe(now)
	m.next = m.begin(to)
	m.next.renewal, m.next.swap, m.next.from = true, true, m.cur.route
}

// isQuiet reports whether a swap would disturb little.
func (m *Machine) isQuiet() bool {
	if len(m.calls) > 0 || len(m.requests) > 0 {
		return false
	}
	n := Seq(0)
	for i := range m.lanes {
		n += m.lanes[i].sent - min(m.lanes[i].sent, m.lanes[i].acked)
	}
	return n <= Seq(m.lim.ProbeQuiet)
}

// putOffProbe plans the next probe.
func (m *Machine) putOffProbe(now Instant) {
	m.routing.probeAt = now.Add(m.jitter(doubling(m.lim.ProbeFirst, m.routing.probes, m.lim.ProbeMax)))
}

// probeFailed: a better route does not get through yet. The session knows nothing of it.
func (m *Machine) probeFailed(now Instant, route int, f Fault) {
	r := &m.routing
	m.spare(now, route, f)
	r.probes++
	r.probe++
	r.fault = f
	m.counters.ProbesFailed++
	m.putOffProbe(now)
	m.leaveChoice(Failed)
}

// leaveChoice ends the wait for a chosen route that did not come about; then it is not chosen after all.
func (m *Machine) leaveChoice(o Outcome) {
	if len(m.routing.ops) > 0 {
		m.routing.chosen = noRoute
		m.finishAll(&m.routing.ops, o)
	}
}

// distrust makes the next probes rarer: a route that opens, but carries no session for long, costs a gap each time.
func (m *Machine) distrust(now Instant, route int, f Fault) {
	r := &m.routing
	r.probes = max(r.probes+1, m.lim.ProbesDistrusted)
	r.fault = f
	m.counters.ProbesFailed++
	m.putOffProbe(now)
	if route == r.chosen {
		m.leaveChoice(Failed)
	}
}

// swapFailed: the session was closed for a route on which none comes about. Back to the one that worked, at once.
func (m *Machine) swapFailed(now Instant, a attempt, f Fault) {
	m.distrust(now, a.route, f)
	m.backoff.route = a.from
	switch f.Kind {
	case Throttled, Unavailable, Unauthorized, TakenOver: // the hub spoke: the route is not to blame
		m.counters.Losses++
		m.noteCause(now, a.route, f)
		m.outage(now, f, up, now.Sub(a.upSince))
		return
	case Transient, Blocked, Refused, Fatal:
	}
	if !m.wantsSession() {
		return
	}
	m.cur = m.begin(a.from)
	m.cur.renewal, m.cur.fallback, m.cur.upSince = true, true, a.upSince
}

// routeWorks takes note of the route by which a session came about.
func (m *Machine) routeWorks(now Instant, a *attempt, wasPlanned bool) {
	r := &m.routing
	if a.route != m.backoff.route {
		m.backoff.route, m.backoff.stuck = a.route, 0
	}
	if a.route != r.kept {
		r.kept = a.route
		m.emit(RememberRoute{a.route})
	}
	r.spared[a.route] = 0 // it let the session through
	isRefused := false
	switch {
	case r.chosen == a.route:
		m.finishAll(&r.ops, Succeeded)
	case !wasPlanned && len(r.ops) > 0: // it gave way
		isRefused = true
		for _, c := range m.causes {
			if c.route == r.chosen {
				r.fault = c.fault
			}
		}
		m.leaveChoice(Failed)
	}
	m.causes = m.causes[:0]
	if _, isLesser := m.betterRoute(a.route); !isLesser {
		r.probe = 0
		if !isRefused { // whoever chose is told of what it failed
			r.fault = Fault{}
		}
		return
	}
	if r.probeAt == 0 {
		m.putOffProbe(now)
	}
	if !wasPlanned {
		r.probeAt = max(r.probeAt, now.Add(m.lim.Stable))
	}
}

// routeLost judges the route of a session that was lost.
func (m *Machine) routeLost(now Instant, a attempt, f Fault) {
	isSound := now.Sub(a.connectedAt) >= m.lim.RouteSound
	switch _, isLesser := m.betterRoute(a.route); {
	case isSound && !isLesser:
		m.routing.probes, m.routing.probeAt = 0, 0 // another trouble, another time
	case a.swap && !isSound && !f.Clean:
		m.distrust(now, a.route, f)
		m.backoff.route = a.from
	}
}

// routeRequested is an operator's word: use this route from now on, or (auto) the order of preference again.
func (m *Machine) routeRequested(now Instant, ev RouteRequested) {
	r := &m.routing
	switch {
	case m.stopping:
		m.emit(Finish{ev.Op, Stopped})
		return
	case !ev.Auto && (ev.Route < 0 || ev.Route >= m.cfg.Routes):
		m.emit(Finish{ev.Op, Failed})
		return
	}
	if !ev.Auto && r.spared[ev.Route] > now && (!m.isUp() || m.cur.route != ev.Route) {
		r.fault = r.sparedFor[ev.Route]
		r.fault.RetryAfter = r.spared[ev.Route].Sub(now)
		m.emit(Finish{ev.Op, Failed})
		return
	}
	m.finishAll(&r.ops, Cancelled) // the newer word counts
	r.probes, r.probe, r.probeAt = 0, 0, now
	r.chosen = noRoute
	if !ev.Auto {
		r.chosen = ev.Route
	}
	if m.next.swap && m.next.phase != opened { // else the session is closed for it already
		m.hangUp(&m.next, "")
	}
	switch {
	case ev.Auto, m.isUp() && m.cur.route == ev.Route:
		m.emit(Finish{ev.Op, Succeeded})
		return
	case !m.wantsSession():
		m.backoff.route = ev.Route // when one is wanted
		m.emit(Finish{ev.Op, Succeeded})
		return
	}
	r.ops = append(r.ops, ev.Op)
	switch {
	case m.cur.phase == absent && m.next.phase == absent:
		m.backoff.route, m.retryAt = ev.Route, now
	case m.cur.phase < up && !m.cur.renewal && m.cur.route != ev.Route:
		m.backoff.route = ev.Route
		m.hangUp(&m.cur, whyRoute)
	}
}

// networkChanged: the platform says that a link came up. What waits for the network is tried now. A link that comes and
// goes must not flood the hub: so many are answered at once, and then one in a while.
func (m *Machine) networkChanged(now Instant) {
	r := &m.routing
	if n := int(now.Sub(r.linkSince) / m.lim.LinkRefill); n > 0 {
		r.linkTries = min(r.linkTries+n, m.lim.LinkTries)
		r.linkSince = r.linkSince.Add(time.Duration(n) * m.lim.LinkRefill)
	}
	at := max(now, r.linkNext, m.notBefore)
	switch {
	case r.linkTries == 0:
	case m.cur.phase == absent && m.wantsSession() && m.retryAt > at && (m.fault.Kind == Transient || m.fault.Kind == Blocked):
		m.retryAt = at
		r.linkTries--
		r.linkNext = at.Add(m.lim.LinkMin)
	case m.isUp():
		if _, isLesser := m.betterRoute(m.cur.route); isLesser && r.probeAt > now.Add(m.lim.ProbeFirst) {
			r.linkTries--
			r.probes, r.probeAt = 0, now.Add(m.lim.ProbeFirst) // it may be another network
		}
	}
}

// noConnack is why a swap is given up that the hub does not answer.
func (m *Machine) noConnack() Fault {
	return Fault{Kind: Transient, Phase: "mqtt", Reason: fmt.Sprintf("by the preferred route the connection opens, but the hub does not answer within %v", m.lim.ProbeConnect)}
}
