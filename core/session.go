package core

import "time"

// phase is how far a connection attempt has come.
type phase uint8

const (
	absent     phase = iota
	fetching         // the credential is asked for
	opening          // the link is asked for
	opened           // the link is there, and waits for its turn to connect
	connecting       // the session is asked for
	up               // the session lives
	draining         // it lives, but nothing new is sent on it; it is closed when what is in flight has come back
	closing          // Close has been ordered; only Closed is awaited
)

// attempt is one epoch: from fetching its credential to the end of its session.
type attempt struct {
	phase phase
	epoch Epoch
	route int
	// renewal: it takes an earlier session's place, so its connecting is no loss, and its failure is not the end of
	// anything before the old session has been closed for it.
	renewal bool
	// swap: it goes by a better route than the session that it was begun beside, which went by from. fallback: it goes
	// back there. Both are renewals too.
	swap, fallback bool
	from           int
	connectBy      Instant // of a swap: the hub has answered by then, or it falls back
	present        bool
	connectedAt    Instant
	upSince        Instant // kept over renewals: stability is of the connection, not of the token
	// until is the end of the credential's life; renewDue and end are moments shortly before, at which it is renewed, or
	// the session is ended if it could not be. never if it has no end, or if no renewal changes it.
	renewDue, end, until Instant
	// stale: the source had nothing better when it was asked last. forced: the renewal was asked for from outside.
	stale, forced bool
	drainUntil    Instant
	why           string // of draining and closing, for the state's reason
}

// What hangs up for a reason of its own; the other reasons are faults, told in words.
const (
	whyRenewal    = "renewal"
	whySwap       = "another route"
	whyDisconnect = "disconnect"
	whyShutdown   = "shutdown"
	whyRoute      = "another route was chosen"
	whyNoConnack  = "no answer by the preferred route"
)

// wantsSession computes whether there should be a session.
func (m *Machine) wantsSession() bool { return m.keep && !m.held && !m.finishing }

// isUp reports whether messages may be sent.
func (m *Machine) isUp() bool { return m.cur.phase == up }

// isAlive reports whether answers to the hub may still leave.
func (m *Machine) isAlive() bool { return m.cur.phase == up || m.cur.phase == draining }

func (m *Machine) planSession(now Instant) {
	cur, next := &m.cur, &m.next
	if !m.wantsSession() {
		if next.phase != absent {
			m.hangUp(next, "")
		}
		why := whyDisconnect
		if m.finishing {
			why = whyShutdown
		}
		switch cur.phase {
		case absent, draining, closing:
		case up:
			limit := m.lim.DisconnectDrain
			if m.finishing {
				limit = 0 // the shutdown has waited already
			}
			m.drain(now, limit, why)
		default:
			m.hangUp(cur, why)
		}
	}
	if cur.phase == absent && next.phase == absent && len(m.disconnectOps) > 0 {
		// Before anything new begins: somebody may want a session again already.
		m.cancelDoomed()
		m.finishAll(&m.disconnectOps, Succeeded)
	}
	switch {
	case cur.phase == absent && next.phase != absent && next.phase != closing:
		// The old session is gone, lost or closed for this one: the new connection takes its place.
		*cur, *next = *next, attempt{}
	case cur.phase == absent && next.phase == absent && m.wantsSession() && !m.cfg.ConnectionRetry && m.routing.spared[m.backoff.route] > now:
		// Where no attempt is repeated, none is waited for: who asks is told.
		m.keep, m.again = false, true
		m.fault = m.routing.sparedFor[m.backoff.route]
		m.fault.RetryAfter = m.routing.spared[m.backoff.route].Sub(now)
		m.abandonAll(Failed)
	case cur.phase == absent && next.phase == absent && m.wantsSession() && m.due(now, m.attemptAt()):
		m.backoff.tries++
		m.backoff.routesTried++
		*cur = m.begin(m.backoff.route)
	}
	if cur.phase == opened {
		cur.phase, cur.connectBy = connecting, now.Add(m.lim.ProbeConnect)
		m.emit(Connect{cur.epoch})
	}
	if cur.phase == connecting && cur.swap && cur.renewal && m.due(now, cur.connectBy) {
		m.hangUp(cur, whyNoConnack)
	}
	if cur.phase == up {
		m.planRenewal(now)
	}
	if cur.phase == up {
		m.planSwap(now)
	}
	if cur.phase == draining && (!m.hasInFlight() || m.due(now, cur.drainUntil)) {
		m.hangUp(cur, cur.why)
	}
}

// planRenewal keeps a session from outliving its credential: the new connection is opened beside it in good time, and
// then it drains.
func (m *Machine) planRenewal(now Instant) {
	cur, next := &m.cur, &m.next
	switch {
	case next.phase == opened:
		why := whyRenewal
		if next.swap {
			why = whySwap
		}
		m.drain(now, m.lim.RenewDrain, why)
		return
	case next.phase == absent && (m.renewForced || cur.renewDue != never):
		from := m.renewAt
		if !m.renewForced {
			from = max(from, cur.renewDue)
		}
		from = max(from, m.routing.spared[cur.route])
		if m.due(now, from) {
			*next = m.begin(cur.route)
			next.renewal = true
		}
	}
	// A credential that nobody replaces may as well be used until the hub has had enough of it.
	if cur.end != never && !cur.stale && m.due(now, cur.end) {
		m.emit(Warn{Fault{Kind: Transient, Reason: "the credential ends and could not be renewed"}})
		m.hangUp(cur, "the credential ended")
	}
}

// begin starts an attempt: a fresh credential each time, since the last one's rest of life is not known to suffice.
func (m *Machine) begin(route int) attempt {
	m.epoch++
	m.counters.Attempts++
	m.emit(FetchCredential{m.epoch})
	a := attempt{phase: fetching, epoch: m.epoch, route: route, renewDue: never, end: never, until: never, forced: m.renewForced}
	m.renewForced = false
	return a
}

// drain lets what is in flight come back, but not beyond the end of the credential.
func (m *Machine) drain(now Instant, limit time.Duration, why string) {
	m.cur.phase, m.cur.drainUntil, m.cur.why = draining, min(now.Add(limit), m.cur.end), why
}

// hangUp ends an attempt, however far it has come.
func (m *Machine) hangUp(a *attempt, why string) {
	if a.phase == closing || a.phase == absent {
		return
	}
	a.phase, a.why = closing, why
	m.emit(Close{a.epoch, why})
}

// find returns the attempt of this epoch if it is in the phase that the event completes.
func (m *Machine) find(e Epoch, p phase) *attempt {
	for _, a := range []*attempt{&m.cur, &m.next} {
		if a.epoch == e && a.phase == p {
			return a
		}
	}
	return nil
}

func (m *Machine) credentialFetched(now Instant, ev CredentialFetched) {
	a := m.find(ev.Epoch, fetching)
	if a == nil {
		return
	}
	if a == &m.next && !a.swap && !m.isBetter(now, ev) {
		m.keepCredential(now, ev)
		return
	}
	m.noteGiven(now, ev)
	if ev.Life > 0 {
		a.until = now.Add(ev.Life)
	}
	if ev.Life > 0 && !ev.Given {
		part := m.lim.RenewFrom
		if m.rng != nil {
			part += m.rng.Float64() * (m.lim.RenewTo - m.lim.RenewFrom)
		}
		a.renewDue = now.Add(time.Duration(float64(ev.Life) * part))
		a.end = now.Add(ev.Life - time.Duration(float64(ev.Life)*m.lim.EndMargin))
	}
	a.phase = opening
	m.emit(Open{a.epoch, a.route})
}

func (m *Machine) linkOpened(e Epoch) {
	if a := m.find(e, opening); a != nil {
		a.phase = opened
	}
}

func (m *Machine) sessionConnected(now Instant, ev Connected) {
	a := m.find(ev.Epoch, connecting)
	if a == nil || a != &m.cur {
		return
	}
	a.phase, a.present, a.connectedAt = up, ev.Present, now
	m.counters.Sessions++
	wasPlanned := a.renewal
	switch {
	case !a.renewal:
		a.upSince = now
	case a.swap:
		m.counters.Swaps++
	case !a.fallback:
		m.counters.Renewals++
	}
	a.renewal, a.fallback = false, false
	m.routeWorks(now, a, wasPlanned)
	m.renewAt = now.Add(m.lim.RenewMin)
	m.fault = Fault{}
	m.backoff.routesTried, m.backoff.slow = 0, 0
	m.subs = resetSubscriptions(m.subs)
	m.twin.begin()
	for i := range m.lanes {
		m.lanes[i].progressed = now
	}
	m.finishAll(&m.connectOps, Succeeded)
}

// attemptFailed handles the failure of an attempt in the phase that the event completes.
func (m *Machine) attemptFailed(now Instant, e Epoch, p phase, f Fault) {
	a := m.find(e, p)
	if a == nil {
		return
	}
	m.emit(Warn{f})
	if a == &m.next && a.swap {
		m.renewForced = m.renewForced || a.forced
		route := a.route
		*a = attempt{}
		m.probeFailed(now, route, f)
		return
	}
	if a == &m.next {
		// The old session still works: try again within what is left of its credential's life.
		m.renewForced = m.renewForced || a.forced
		*a = attempt{}
		m.counters.RenewalsFailed++
		m.spareBlocked(now, m.cur.route, f)
		m.renewAt = now.Add(m.jitter(m.renewalWait(now)))
		return
	}
	was := *a
	*a = attempt{}
	if p == connecting {
		m.sessionGone() // the hub may have taken the session, and have sent messages already
	}
	if was.renewal && was.swap {
		m.swapFailed(now, was, f)
		return
	}
	m.noteCause(now, was.route, f)
	if was.renewal {
		// The session was closed for this one: now it is a loss like any other.
		m.counters.Losses++
		m.outage(now, f, up, now.Sub(was.upSince))
		return
	}
	m.outage(now, f, p, 0)
}

// renewalWait spreads a handful of further tries over the rest of the life.
func (m *Machine) renewalWait(now Instant) time.Duration {
	if m.cur.until == never {
		return time.Minute
	}
	rest := min(m.cur.end, m.cur.until).Sub(now)
	return max(time.Second, min(rest/4, time.Minute))
}

func (m *Machine) sessionLost(now Instant, ev Lost) {
	var a *attempt
	for _, p := range []phase{up, draining} {
		if f := m.find(ev.Epoch, p); f != nil {
			a = f
		}
	}
	if a == nil {
		return
	}
	was := *a
	*a = attempt{}
	m.sessionGone()
	m.next.upSince = was.upSince
	if was.phase == draining {
		return // the hub hung up while we were about to
	}
	m.next.renewal = false // it is the reconnection now
	if m.next.swap && m.next.phase < opened {
		m.hangUp(&m.next, "") // the route that worked is the shorter way back
	}
	m.counters.Losses++
	m.emit(Warn{ev.Fault})
	m.routeLost(now, was, ev.Fault)
	m.noteCause(now, was.route, ev.Fault)
	m.outage(now, ev.Fault, up, now.Sub(was.upSince))
}

func (m *Machine) attemptClosed(now Instant, e Epoch) {
	for _, a := range []*attempt{&m.cur, &m.next} {
		if a.epoch != e || a.phase != closing {
			continue
		}
		was := *a
		*a = attempt{}
		if a == &m.next {
			return
		}
		m.sessionGone()
		switch was.why {
		case whyRenewal, whySwap:
			m.next.upSince = was.upSince
		case whyDisconnect, whyShutdown:
			m.fault = Fault{}
		case whyRoute:
			m.retryAt = now
		case whyNoConnack:
			f := m.noConnack()
			m.emit(Warn{f})
			m.swapFailed(now, was, f)
		default:
			f := Fault{Kind: Transient, Reason: was.why}
			m.counters.Losses++
			m.next.renewal = false
			m.noteCause(now, was.route, f)
			m.outage(now, f, up, now.Sub(was.upSince))
		}
	}
}

// recycle ends a session that lives but does not work.
func (m *Machine) recycle(why string) {
	if !m.isAlive() {
		return
	}
	m.emit(Warn{Fault{Kind: Transient, Reason: why}})
	m.hangUp(&m.cur, why)
}

// sessionGone takes back what was in flight: needs that the session had met or was asked for are wanted again.
func (m *Machine) sessionGone() {
	m.subs = resetSubscriptions(m.subs)
	m.twin.reset()
	for i := range m.requests {
		m.requests[i].asked = false
	}
	for i := range m.lanes {
		m.detach(Lane(i))
	}
	m.callsDetached()
}

func (m *Machine) connectRequested(now Instant, op Op) {
	if m.stopping {
		m.emit(Finish{op, Stopped})
		return
	}
	m.keep, m.held = true, false
	if m.cur.phase == absent {
		// Someone asks: a planned wait ends now, however long it was meant to be. What spares the route does not: attemptAt.
		m.retryAt = now
	}
	if m.cur.phase == up {
		m.emit(Finish{op, Succeeded})
		return
	}
	m.connectOps = append(m.connectOps, op)
}

func (m *Machine) disconnectRequested(ev DisconnectRequested) {
	m.keep = false
	m.held = m.held || ev.Hold
	m.fault = Fault{}
	m.finishAll(&m.connectOps, Cancelled)
	m.finishAll(&m.routing.ops, Cancelled)
	if !ev.Hold {
		m.doomPending()
	}
	m.disconnectOps = append(m.disconnectOps, ev.Op)
}

// wantByOperation is auto_connect: it reports whether an operation may wait for a session.
func (m *Machine) wantByOperation() bool {
	if m.keep || m.stopping {
		return true
	}
	if !m.cfg.AutoConnect {
		return false
	}
	if !m.held {
		m.keep = true
	}
	return true
}

func (m *Machine) opCancelled(op Op) {
	for i, r := range m.requests {
		if r.op == op {
			m.requests = append(m.requests[:i], m.requests[i+1:]...)
			return
		}
	}
	for _, ops := range []*[]Op{&m.connectOps, &m.disconnectOps, &m.routing.ops} {
		for i, o := range *ops {
			if o == op {
				*ops = append((*ops)[:i], (*ops)[i+1:]...)
				return
			}
		}
	}
}

func (m *Machine) finishAll(ops *[]Op, o Outcome) {
	for _, op := range *ops {
		m.emit(Finish{op, o})
	}
	*ops = nil
}

// abandonAll ends everything that waits for a session.
func (m *Machine) abandonAll(o Outcome) {
	m.finishAll(&m.connectOps, o)
	m.finishAll(&m.routing.ops, o)
	for _, r := range m.requests {
		m.emit(Finish{r.op, o})
	}
	m.requests = nil
	for i := range m.lanes {
		m.giveUpLane(Lane(i), m.lanes[i].last, o)
	}
}

// doomPending marks what is pending now: a disconnect without Hold cancels it once the session is closed, unless the
// hub acknowledges it before. What is submitted later is not touched.
func (m *Machine) doomPending() {
	for i := range m.lanes {
		m.lanes[i].doomed = m.lanes[i].last
	}
	for i := range m.requests {
		m.requests[i].doomed = true
	}
}

func (m *Machine) cancelDoomed() {
	for i := range m.lanes {
		m.giveUpLane(Lane(i), m.lanes[i].doomed, Cancelled)
	}
	kept := m.requests[:0]
	for _, r := range m.requests {
		if r.doomed {
			m.emit(Finish{r.op, Cancelled})
			continue
		}
		kept = append(kept, r)
	}
	m.requests = kept
}
