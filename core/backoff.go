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
	routesTried int
}

// outage decides when to try again after a loss or a failed attempt.
func (m *Machine) outage(now Instant, f Fault, wasUp bool, lasted time.Duration) {
	m.fault = f
	b := &m.backoff
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
		if f.Clean && lasted < m.lim.TakeOverWithin {
			b.cleanCloses++
		} else {
			b.cleanCloses = 0
		}
		if b.cleanCloses >= m.lim.TakeOverCount {
			f.Kind = TakenOver
			f.Reason = "another client uses this identity: the hub closed " + fmt.Sprint(b.cleanCloses) + " sessions soon after they began"
			m.fault = f
			m.emit(Warn{f})
		}
	}
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
	wait := m.wait(now, f)
	if f.Kind != Blocked || wait > 0 {
		wait = max(wait, f.RetryAfter) // else it is the wait of a route, and the next one is another
	}
	m.retryAt = now.Add(wait)
}

// wait computes the time until the next attempt.
//
// In the embedded guidance of Azure's SDKs waits grow from 1 s; ours do so within connection_retry_interval while an
// outage is young, since most are short, and within connection_retry_max later, so that a day costs some 250 attempts.
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
	case Blocked:
		if b.routesTried < m.cfg.Routes {
			b.route = (b.route + 1) % m.cfg.Routes
			return 0
		}
		b.route, b.routesTried = (b.route+1)%m.cfg.Routes, 0
	case Transient:
	}
	if b.tries == 0 {
		return 0
	}
	limit := m.cfg.RetryInterval
	if now.Sub(b.outageSince) >= m.lim.OutageShort {
		limit = m.cfg.RetryMax
	}
	return m.jitter(doubling(m.lim.RetryFirst, b.tries-1, limit))
}
