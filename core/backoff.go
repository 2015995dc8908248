package core

import (
	"fmt"
	"time"
)

// backoff is what decides the wait before the next attempt.
type backoff struct {
	tries       int // attempts in this outage
	inOutage    bool
	outageSince Instant
	slow        int // failures in a row of the kinds that have a wait of their own
	slowKind    Kind
	cleanCloses int
	route       int
	// routesTried are the attempts of this round over the routes, rounds those that came to nothing, and isMild says that
	// one of this round's failures may pass by itself. stuck counts failures in a row of a route that opens.
	routesTried, rounds, stuck int
	isMild                     bool
}

// outage decides when to try again, and by which route, after a session was lost (at is up) or an attempt failed in a phase.
func (m *Machine) outage(now Instant, f Fault, at phase, lasted time.Duration) {
	m.fault = f
	b := &m.backoff
	wasUp := at >= up
	if wasUp && lasted >= m.lim.Stable {
		*b = backoff{route: b.route} // a loss is no reason to leave a route that works
	}
	if wasUp {
		b.routesTried = 0
	}
	if !b.inOutage {
		b.inOutage, b.outageSince = true, now
		if wasUp {
			b.tries = 0 // the first try after a loss is made at once
		}
	}
	if wasUp {
		switch {
		case lasted >= m.lim.TakeOverWithin:
			b.cleanCloses = 0
		case f.Clean:
			b.cleanCloses++
		default: // the hub may have been cut short at the middle of a packet: it says nothing either way
		}
		if b.cleanCloses >= m.lim.TakeOverCount {
			f.Kind = TakenOver
			f.Reason = "another client uses this identity: the hub closed " + fmt.Sprint(b.cleanCloses) + " sessions soon after they began"
			m.fault = f
			m.emit(Warn{f})
		}
	}
	m.spareBlocked(now, b.route, f)
	if !m.cfg.ConnectionRetry {
		outcome := Failed
		if wasUp {
			outcome = Dropped
		}
		m.keep = false
		m.retryAt = now
		m.abandonAll(outcome)
		return
	}
	if !m.givesWay(f, at, lasted) {
		m.notBefore = now.Add(f.RetryAfter)
		m.retryAt = max(now.Add(m.wait(now, f)), m.notBefore)
		return
	}
	m.spare(now, b.route, f)
	isAtOnce, isLate := m.giveWay(now, f, at)
	wait := time.Duration(0)
	if !isAtOnce {
		if isLate {
			f.Kind = Transient // of several routes with several troubles none sets the pace
		}
		wait = m.wait(now, f)
	}
	m.notBefore = m.routing.spared[b.route]
	m.retryAt = max(now.Add(wait), m.notBefore)
}

// givesWay reports whether a failure speaks against the route. One that does not open for whatever reason may be passed
// by another: names are not resolved here, but a proxy resolves them; a portal shows its own certificate. That the hub
// refuses the identity or asks for patience is no route's fault. A route that opens, and then carries nothing, must
// fail several times, since the hub itself may be in trouble.
func (m *Machine) givesWay(f Fault, at phase, lasted time.Duration) bool {
	b := &m.backoff
	switch {
	case m.cfg.Routes == 1:
		return false
	case at < up && f.Kind == Blocked:
		return true
	case at == opening:
		return f.Kind == Transient || f.Kind == Fatal || f.Kind == Refused
	case at < connecting, f.Kind != Transient && f.Kind != Blocked, f.Clean:
		return false
	case at >= up && lasted >= m.lim.Stable:
		b.stuck = 0
		return false
	}
	b.stuck++
	return b.stuck >= m.lim.RouteTries
}

// giveWay moves on to the next route that may be tried, and reports whether it is tried at once.
//
// All routes together keep to the day's budget: only the first rounds over them go from one to the next at once. Later
// each attempt has its wait, and each route its turn. isMild says that the wait is the ordinary one, whatever one of the
// routes failed of.
func (m *Machine) giveWay(now Instant, f Fault, at phase) (isAtOnce, isMild bool) {
	b := &m.backoff
	b.route, b.stuck = m.nextRoute(now), 0
	b.isMild = b.isMild || f.Kind == Transient || f.Kind == Blocked
	isMild = b.isMild
	switch {
	case b.rounds >= m.lim.RouteRounds:
		isMild = true
	case (at < connecting || f.Kind == Blocked) && b.routesTried < m.cfg.Routes:
		return true, true
	}
	if b.routesTried >= m.cfg.Routes {
		b.rounds++
		b.routesTried, b.isMild = 0, false
	}
	return false, isMild
}

// nextRoute returns the next route that need not be spared; if all must be, the one that need not first.
func (m *Machine) nextRoute(now Instant) int {
	spared := m.routing.spared
	first := (m.backoff.route + 1) % m.cfg.Routes
	for i := range m.cfg.Routes {
		route := (m.backoff.route + 1 + i) % m.cfg.Routes
		if spared[route] <= now {
			return route
		}
		if spared[route] < spared[first] {
			first = route
		}
	}
	return first
}

// spare notes that a route is not to be tried before: a proxy that refuses the user's name locks the account if it is
// asked too often.
func (m *Machine) spare(now Instant, route int, f Fault) {
	if f.RetryAfter > 0 {
		m.routing.spared[route], m.routing.sparedFor[route] = now.Add(f.RetryAfter), f
	}
}

// spareBlocked is spare for what stands on the way, be there another route or not: what the hub asks for is no route's.
func (m *Machine) spareBlocked(now Instant, route int, f Fault) {
	if f.Kind == Blocked {
		m.spare(now, route, f)
	}
}

// attemptAt is when the next attempt may be made: whoever asks for a session ends the wait, but does not have a proxy asked
// that must be spared.
func (m *Machine) attemptAt() Instant { return max(m.retryAt, m.routing.spared[m.backoff.route]) }

// wait computes the time until the next attempt.
//
// In the embedded guidance of Azure's SDKs waits grow from 1 s; ours do so within RetryEarly at first and within
// connection_retry_interval while an outage is young, since most are short, and within connection_retry_max later, so that
// a day costs some 250 attempts.
func (m *Machine) wait(now Instant, f Fault) time.Duration {
	b := &m.backoff
	if f.Kind != b.slowKind {
		b.slow, b.slowKind = 0, f.Kind
	}
	n := b.slow
	b.slow++
	slowly := func(first time.Duration) time.Duration {
		return m.jitter(doubling(first, n, max(first, m.cfg.RetryMax)))
	}
	switch f.Kind {
	case Unauthorized:
		if n == 0 {
			return 0 // once at once, with a fresh token: the last may have ended on the way
		}
		n--
		return slowly(m.lim.UnauthorizedMin)
	case Throttled:
		return slowly(m.lim.ThrottledMin)
	case Unavailable:
		if n == 0 && b.tries == 0 {
			return 0
		}
		return slowly(m.lim.RetryFirst)
	case Fatal, Refused:
		return slowly(m.lim.FatalMin)
	case TakenOver:
		return slowly(m.lim.TakenOverMin)
	case Blocked, Transient:
	}
	if b.tries == 0 {
		return 0
	}
	limit := m.cfg.RetryInterval
	switch lasts := now.Sub(b.outageSince); {
	case lasts < m.lim.OutageEarly:
		limit = min(limit, m.lim.RetryEarly)
	case lasts >= m.lim.OutageShort:
		limit = m.cfg.RetryMax
	}
	return m.jitter(doubling(m.lim.RetryFirst, b.tries-1, limit))
}
