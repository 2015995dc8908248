package core

// Counters count since the machine began.
type Counters struct {
	Attempts, Sessions, Losses, Renewals, RenewalsFailed uint64
	Submitted, Acknowledged                              uint64
	MethodsCalled, MethodsAnswered, AnswersDropped       uint64
	MessagesReceived, MessagesCompleted, DeadLetters     uint64
	PluginExits, Anomalies                               uint64
	// Swaps are moves of the session to a better route, ProbesFailed tries that did not come to that.
	Swaps, ProbesFailed uint64
}

// Status is what the machine knows of itself, as a value.
type Status struct {
	State  State
	Since  Instant
	Reason string
	Fault  Fault
	Epoch  Epoch
	// Route is the one that the present session or attempt goes by, or that the next attempt will try.
	Route int
	// Causes are what ended the last session and what each route has failed of since, newest last. None in a session.
	Causes []Cause
	// Chosen is the route that an operator chose; -1 for none.
	Chosen int
	// NextProbe is when a better route is tried again at the earliest, where the session goes by a lesser one; 0 where not.
	// ProbeFault is what the last try failed of.
	NextProbe  Instant
	ProbeFault Fault
	// NextAttempt is set in StateWaiting.
	NextAttempt Instant
	// SparedUntil is until when nobody can have that attempt made sooner, in StateWaiting: what stands on the route asked for
	// the wait, as a proxy that refused the user does. Past where none did.
	SparedUntil Instant
	// SessionPresent says that the hub had kept the subscriptions.
	SessionPresent bool
	DesiredVersion int64
	// CredentialEnd is when the session's credential ends; HasEnd says whether it does.
	CredentialEnd Instant
	HasEnd        bool
	// Given: the credential was given from outside, and is renewed by whoever gave it.
	Given     bool
	OpenCalls int
	Plugins   []PluginStatus
	Counters  Counters
}

// Cause is something that stands in the way of a session.
type Cause struct {
	Route int
	Fault Fault
	// At is when it was last met, Count how often in a row.
	At    Instant
	Count int
}

// PluginStatus is the machine's view of a plugin.
type PluginStatus struct {
	Name     string
	State    string // stopped, starting, ready, waiting, failed, stopping
	Start    Start
	Restarts int
	Reason   string
	// LastExit is why the last start ended; "" before the first end.
	LastExit string
	Methods  []string
	// Degraded: it crashes again and again, and is tried rarely.
	Degraded  bool
	NextStart Instant // in state waiting
}

// Status returns what the machine knows now. The slices are copies.
func (m *Machine) Status() Status {
	s := Status{
		State: m.state, Since: m.since, Reason: m.reason, Fault: m.fault, Epoch: m.cur.epoch, SessionPresent: m.cur.present,
		DesiredVersion: m.desired.version, OpenCalls: len(m.calls), Counters: m.counters,
	}
	s.Given = m.wantAt != never
	s.Route = m.backoff.route
	if m.cur.phase != absent {
		s.Route = m.cur.route
	}
	s.Chosen, s.ProbeFault = m.routing.chosen, m.routing.fault
	if _, isLesser := m.betterRoute(m.cur.route); isLesser && m.isUp() {
		s.NextProbe = m.routing.probeAt
	}
	for _, c := range m.causes {
		s.Causes = append(s.Causes, Cause{c.route, c.fault, c.at, c.count})
	}
	if m.state == StateWaiting {
		s.NextAttempt = m.attemptAt()
		s.SparedUntil = m.routing.spared[m.backoff.route]
	}
	if m.cur.phase >= opening && m.cur.until != never {
		s.CredentialEnd, s.HasEnd = m.cur.until, true
	}
	for i := range m.plugins {
		p := &m.plugins[i]
		ps := PluginStatus{
			Name: p.cfg.Name, State: pluginStateNames[p.state], Start: p.start, Restarts: p.restarts, Reason: p.reason, LastExit: p.lastExit,
			Methods: append([]string(nil), p.methods()...), Degraded: len(p.crashTimes) > m.lim.CrashLoop && p.state != pluginReady,
		}
		if p.state == pluginWaiting {
			ps.NextStart = p.notBefore
		}
		s.Plugins = append(s.Plugins, ps)
	}
	return s
}

// planStop carries a shutdown through: the plugins finish first, since what they say last must still leave; then what
// the outbox holds and what is owed to the hub; then the session; then all who still wait are told.
func (m *Machine) planStop(now Instant) {
	if !m.stopping {
		return
	}
	isOver := m.due(now, m.stopAt.Add(m.lim.Shutdown))
	if !m.finishing {
		if m.anyPlugin(func(p *plugin) bool { return p.state == pluginStopping }) && !isOver && !m.due(now, m.stopAt.Add(m.lim.PluginStop)) {
			return
		}
		isPending := m.hasUnsent() || len(m.requests) > 0 || m.hasInFlight()
		if isPending && m.keep && !m.held && !isOver {
			return
		}
		m.finishing, m.again = true, true
		return // the session plan hangs up in the next round
	}
	if m.cur.phase != absent && !m.due(now, m.stopAt.Add(m.lim.Shutdown+m.lim.ShutdownClose)) {
		return
	}
	m.abandonAll(Stopped)
	m.finishAll(&m.disconnectOps, Succeeded)
	m.stopped = true
	m.announce(now)
	m.emit(Stop{})
}
