package core

import "time"

// needState is how far a need has come.
type needState uint8

const (
	wanted needState = iota
	asked
	met
)

// subscription is the need of one feature. It lives as long as a session; whether it is wanted at all is computed.
type subscription struct {
	state     needState
	notBefore Instant
	refusals  int
}

func resetSubscriptions(s [featureCount]subscription) [featureCount]subscription {
	for i := range s {
		s[i].state = wanted
	}
	return s
}

// needsFeature computes whether somebody handles what the feature brings. Nobody does: it is not subscribed to.
func (m *Machine) needsFeature(f Feature) bool {
	switch f {
	case FeatureTwin:
		return len(m.requests) > 0 || m.subs[f].state == met || m.cfg.EnsureDesired && m.needsFeature(FeatureDesired)
	case FeatureMessages:
		return m.anyPlugin(func(p *plugin) bool { return p.handlesMessages() })
	case FeatureMethods:
		return m.anyPlugin(func(p *plugin) bool { return len(p.methods()) > 0 })
	case FeatureDesired:
		return m.anyPlugin(func(p *plugin) bool { return p.registered && p.desired })
	default:
		return false
	}
}

func (m *Machine) planSubscriptions(now Instant) {
	if !m.isUp() {
		return
	}
	// All are asked for at each session, also when the hub says that it still has them: a hub that forgot half of them
	// costs a round trip this way, and the device's ears otherwise.
	for f := range featureCount {
		s := &m.subs[f]
		if s.state != wanted || !m.needsFeature(f) || !m.due(now, s.notBefore) {
			continue
		}
		s.state = asked
		m.emit(Subscribe{m.cur.epoch, f})
	}
}

func (m *Machine) subscribed(ev Subscribed) {
	if ev.Epoch != m.cur.epoch || !m.isAlive() || ev.Feature >= featureCount {
		return
	}
	m.subs[ev.Feature].state = met
	m.subs[ev.Feature].refusals = 0
}

func (m *Machine) subscribeFailed(now Instant, ev SubscribeFailed) {
	if ev.Epoch != m.cur.epoch || !m.isAlive() || ev.Feature >= featureCount {
		return
	}
	s := &m.subs[ev.Feature]
	s.state = wanted
	s.notBefore = now.Add(m.jitter(doubling(m.lim.SubscribeRetry, s.refusals, m.lim.RefusedMax)))
	s.refusals++
	m.emit(Warn{ev.Fault})
}

// twinNeed is the twin get that opens a session.
type twinNeed struct {
	state     needState
	op        Op
	notBefore Instant
	deadline  Instant
	failures  int
	// announced is the highest version that a push named before the answer came.
	announced int64
}

func (t *twinNeed) begin() { t.state, t.announced = wanted, 0 }
func (t *twinNeed) reset() { t.state, t.op, t.announced = wanted, 0, 0 }

// desiredState is what is known of the desired properties: versions and a count of changes, never the document.
type desiredState struct {
	known   bool
	version int64
	// change counts the states; a plugin that was given a smaller one is behind.
	change uint64
}

func (m *Machine) planTwin(now Instant) {
	t := &m.twin
	if !m.isUp() || !m.cfg.EnsureDesired || !m.needsFeature(FeatureDesired) {
		return
	}
	if t.state == asked && m.due(now, t.deadline) {
		m.twinFailed(now, 0)
	}
	// Both subscriptions come first: an answer without the one is not heard, a change without the other is missed.
	if t.state != wanted || m.subs[FeatureTwin].state != met || m.subs[FeatureDesired].state != met || !m.due(now, t.notBefore) {
		return
	}
	m.lastOp++
	t.state, t.op, t.deadline = asked, m.lastOp, now.Add(m.lim.Reply)
	m.at(t.deadline)
	m.emit(Ask{m.cur.epoch, t.op})
}

func (m *Machine) twinReplied(now Instant, ev Replied) {
	t := &m.twin
	if ev.Status != 200 {
		m.twinFailed(now, ev.Status)
		return
	}
	t.state, t.op, t.failures = met, 0, 0
	// The opening get is the truth whatever its number: a twin can be created anew, a hub fail over.
	if !m.desired.known || ev.Version != m.desired.version || ev.Changed {
		m.desired.known = true
		m.desired.version = ev.Version
		m.desired.change++
		m.emit(AdoptTwin{ev.Op, ev.Version})
	}
	if t.announced > ev.Version {
		// A change was pushed before this answer that does not contain it: look again.
		t.state, t.notBefore = wanted, now.Add(m.jitter(m.lim.TwinRetry))
	}
}

func (m *Machine) twinFailed(now Instant, status int) {
	t := &m.twin
	t.state, t.op = wanted, 0
	first := m.lim.TwinRetry
	if status == 429 {
		first = m.lim.ThrottledMin
	}
	t.notBefore = now.Add(m.jitter(doubling(first, t.failures, m.lim.RefusedMax)))
	t.failures++
	reason := "the twin get was not answered"
	if status != 0 {
		reason = line("the twin get was refused:", "status", status)
	}
	m.emit(Warn{Fault{Kind: Transient, Reason: reason}})
}

func (m *Machine) desiredChanged(ev DesiredChanged) {
	if ev.Epoch != m.cur.epoch || m.cur.phase < connecting {
		return
	}
	d, t := &m.desired, &m.twin
	switch {
	case !m.cfg.EnsureDesired:
		// Only the patches are known. A number that is not higher than the last may come from a twin created anew, so
		// only the very same one is taken for a repetition.
		if ev.Version == d.version {
			return
		}
	case t.state != met:
		t.announced = max(t.announced, ev.Version)
		return
	case ev.Version <= d.version:
		return
	case ev.Version > d.version+1:
		// Something between was missed; the patch alone would give a state that never was.
		t.state, t.announced = wanted, ev.Version
		return
	}
	d.version = ev.Version
	d.change++
	m.emit(MergeDesired{ev.Version})
}

// planDesired hands the newest state to each plugin that is behind, one hand-over at a time: changes that come
// meanwhile are given together.
func (m *Machine) planDesired(now Instant) {
	if m.desired.change == 0 {
		return
	}
	for i := range m.plugins {
		p := &m.plugins[i]
		if p.state != pluginReady || !p.desired || p.givenChange == m.desired.change || p.desiredCall != 0 {
			continue
		}
		m.lastDesired++
		p.givenChange, p.desiredCall = m.desired.change, m.lastDesired
		m.emit(DeliverDesired{PluginIndex(i), p.start, m.lastDesired, m.desired.version})
		c := &call{
			id: m.lastDesired, kind: InboundDesired, plugin: PluginIndex(i), start: p.start, state: given,
			deadline: now.Add(m.lim.DesiredApply),
		}
		m.calls = append(m.calls, c)
		m.at(c.deadline)
	}
}

// request is a caller's twin request. Requests keep their order over sessions; asking again is harmless, since a
// reported patch is idempotent.
type request struct {
	op        Op
	asked     bool
	doomed    bool
	deadline  Instant
	notBefore Instant
	tries     int
}

func (m *Machine) requested(op Op) {
	if !m.wantByOperation() {
		m.emit(Finish{op, NotConnected})
		return
	}
	m.requests = append(m.requests, request{op: op})
}

func (m *Machine) planRequests(now Instant) {
	if !m.isUp() || m.subs[FeatureTwin].state != met {
		return
	}
	// One at a time. A patch that has to be sent again must not come after a later one: the hub would keep the older
	// value.
	if len(m.requests) == 0 {
		return
	}
	r := &m.requests[0]
	if r.asked && m.due(now, r.deadline) {
		r.asked = false // the answer was lost; the caller's context bounds how often
	}
	if r.asked || !m.due(now, r.notBefore) {
		return
	}
	r.asked, r.deadline = true, now.Add(m.lim.Reply)
	r.tries++
	m.at(r.deadline)
	m.emit(Ask{m.cur.epoch, r.op})
}

// requestTries is how often a request is made when the hub says that it is busy.
const requestTries = 5

func (m *Machine) replied(now Instant, ev Replied) {
	if ev.Epoch != m.cur.epoch || m.cur.phase < up {
		return
	}
	if ev.Op == m.twin.op && m.twin.state == asked {
		m.twinReplied(now, ev)
		return
	}
	for i := range m.requests {
		r := &m.requests[i]
		if r.op != ev.Op || !r.asked {
			continue
		}
		if busy := ev.Status == 429 || ev.Status >= 500 || ev.Status == 0; busy && r.tries < requestTries {
			r.asked = false
			r.notBefore = now.Add(m.jitter(doubling(time.Second, r.tries-1, time.Minute)))
			return
		}
		m.requests = append(m.requests[:i], m.requests[i+1:]...)
		m.emit(Finish{ev.Op, Succeeded})
		return
	}
}
