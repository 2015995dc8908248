package core

import "slices"

// announce computes the state from the facts, in this one place, and makes a change known.
func (m *Machine) announce(now Instant) {
	state, reason := m.computeState()
	route := m.backoff.route
	switch {
	case state == StateConnected && !m.isUp():
		route = m.routing.shown // until the next session is up
	case m.cur.phase != absent:
		route = m.cur.route
	}
	if state == m.state && (reason == m.reason || state == StateConnected) && route == m.routing.shown {
		return
	}
	m.routing.shown = route
	if state != m.state {
		m.since = now
	}
	m.state, m.reason = state, reason
	// Who is told that an operation is over finds the state by which it is: Connect returns, and the device is connected.
	a := Announce{state, reason, route}
	if i := slices.IndexFunc(m.out, tellsCallers); i >= 0 {
		m.out = slices.Insert(m.out, i, Effect(a))
		return
	}
	m.emit(a)
}

// tellsCallers reports whether an effect ends what somebody waits for.
func tellsCallers(e Effect) bool {
	switch e.(type) {
	case Finish, GiveUp:
		return true
	default:
		return false
	}
}

func (m *Machine) computeState() (State, string) {
	switch {
	case m.stopped:
		return StateStopped, "shut down"
	case m.stopping:
		return StateStopping, "asked to stop"
	case m.isAlive(), m.cur.renewal, m.cur.phase == closing && (m.cur.why == whyRenewal || m.cur.why == whySwap):
		// A renewal is a planned hang-up: for everyone else the connection goes on.
		return StateConnected, "session up"
	case m.cur.phase == absent && !m.wantsSession(), m.cur.phase == closing && !m.wantsSession():
		if m.fault.Reason != "" {
			return StateDisconnected, m.fault.Reason
		}
		if m.epoch == 0 {
			return StateDisconnected, "not asked to connect"
		}
		return StateDisconnected, "asked to disconnect"
	case m.cur.phase == closing:
		return StateWaiting, m.cur.why
	case m.cur.phase == absent && m.attemptAt() > m.retryAt: // somebody asked, and is put off
		return StateWaiting, m.routing.sparedFor[m.backoff.route].Reason
	case m.cur.phase == absent:
		return StateWaiting, m.fault.Reason
	default:
		if m.fault.Reason != "" {
			return StateConnecting, "again after: " + m.fault.Reason
		}
		return StateConnecting, "first attempt"
	}
}
