package core

import (
	"slices"
	"time"
)

type callState uint8

const (
	held       callState = iota // for a plugin that is not ready, busy, or not known yet
	given                       // to a plugin
	owed                        // an answer to the hub
	responding                  // the answer is on its way
)

// call is one thing that a plugin is handed. A method call must be answered exactly once, whatever happens; a message
// must be acknowledged in the order of arrival.
type call struct {
	id     Call
	kind   InboundKind
	name   string // of the method
	key    string // of the message: its id
	props  map[string]string
	plugin PluginIndex
	start  Start
	state  callState
	epoch  Epoch // in which it came (again); its token is valid there only
	// deadline is the plugin's limit; after that, of an owed answer, the hub's.
	deadline Instant
	status   int // the machine's own answer; 0 is the plugin's
	// ack is the number under which the message came last; it differs from id when the call was joined.
	ack      Call
	abandons int
	wasGiven bool // a message's limit runs from the first time that a plugin had it
}

// arrival keeps the order in which messages came in this session.
type arrival struct {
	call Call
	key  string
	done bool
}

// Statuses of the machine's own answers to method calls, with the meaning that HTTP gives them.
const (
	statusNoHandler = 404
	statusBusy      = 429
	statusDied      = 503
	statusLate      = 504
)

// settledKept is how many ids of acknowledged messages are remembered in case their acknowledgement was lost.
const settledKept = 64

func (m *Machine) call(id Call) *call {
	for _, c := range m.calls {
		if c.id == id {
			return c
		}
	}
	return nil
}

func (m *Machine) dropCall(id Call) {
	m.calls = slices.DeleteFunc(m.calls, func(c *call) bool { return c.id == id })
	if id < DesiredCall {
		m.emit(Discard{id})
	}
}

func (m *Machine) methodCalled(now Instant, ev MethodCalled) {
	m.counters.MethodsCalled++
	c := &call{id: ev.Call, kind: InboundMethod, name: ev.Name, plugin: NoPlugin, epoch: ev.Epoch, deadline: now.Add(m.lim.Method)}
	open := 0
	for _, o := range m.calls {
		if o.kind == InboundMethod && o.state != owed && o.state != responding {
			open++
		}
	}
	m.calls = append(m.calls, c)
	if open >= m.lim.OpenCalls {
		m.owe(now, c, statusBusy)
	}
}

// messageReceived opens a call, or joins an open one: the hub hands out again what a session did not acknowledge, and
// the plugin should not see it twice for that.
func (m *Machine) messageReceived(now Instant, ev MessageReceived) {
	if ev.Epoch != m.cur.epoch || m.cur.phase < connecting {
		m.emit(Discard{ev.Call})
		return
	}
	if ev.ID != "" && ev.Redelivered {
		if i := slices.Index(m.maybe, ev.ID); i >= 0 {
			// Its verdict was given in an earlier session, and the acknowledgement may have been lost with it.
			m.maybe = slices.Delete(m.maybe, i, i+1)
			m.arrivals = append(m.arrivals, arrival{call: ev.Call, key: ev.ID, done: true})
			return
		}
		for _, c := range m.calls {
			if c.kind == InboundMessage && c.key == ev.ID && c.epoch != ev.Epoch {
				// The call goes on under its own number, the acknowledgement under the new one.
				c.epoch, c.ack = ev.Epoch, ev.Call
				m.arrivals = append(m.arrivals, arrival{call: ev.Call, key: ev.ID})
				return
			}
		}
	}
	m.counters.MessagesReceived++
	m.arrivals = append(m.arrivals, arrival{call: ev.Call, key: ev.ID})
	m.calls = append(m.calls, &call{
		id: ev.Call, kind: InboundMessage, key: ev.ID, props: ev.Properties, plugin: NoPlugin, epoch: ev.Epoch, ack: ev.Call,
		deadline: now.Add(m.lim.MessageVerdict),
	})
}

// returned takes a plugin's answer. An answer from an earlier start, or after the limit, finds nothing.
func (m *Machine) returned(now Instant, ev Returned) {
	c := m.call(ev.Call)
	if c == nil || c.state != given || c.plugin != ev.Plugin || c.start != ev.Start {
		return
	}
	p := &m.plugins[c.plugin]
	switch c.kind {
	case InboundMethod:
		status := 0
		if ev.Failed {
			status = statusDied
		}
		m.owe(now, c, status)
	case InboundDesired:
		p.desiredCall, p.isSetUp = 0, true
		m.dropCall(c.id)
	case InboundMessage:
		p.messageCall = 0
		switch {
		case ev.Failed, ev.Verdict == Abandon:
			// Failed: the start is dying, and the next one gets it at once; or this message cannot be handed over, and
			// trying again and again would be a hot loop.
			c.state, c.plugin = held, NoPlugin
			p.messageNotBefore = now.Add(m.jitter(doubling(time.Second, c.abandons, 10*time.Second)))
			c.abandons++
		case ev.Verdict == Reject:
			m.bury(c, "rejected by plugin "+p.cfg.Name)
		default:
			m.counters.MessagesCompleted++
			m.settle(c)
		}
	}
}

// owe makes an answer wait for a session. It may leave in a later one: the hub knows the call by its request id.
func (m *Machine) owe(now Instant, c *call, status int) {
	c.state, c.status, c.deadline = owed, status, now.Add(m.lim.MethodAnswer)
}

func (m *Machine) responded(ev Responded) {
	c := m.call(ev.Call)
	if c == nil || c.state != responding || c.epoch != ev.Epoch {
		return
	}
	if ev.Failed {
		c.state = owed
		if ev.Epoch == m.cur.epoch && m.isAlive() {
			// Refused by a living session: another try would end the same.
			m.counters.AnswersDropped++
			m.dropCall(c.id)
		}
		return
	}
	m.counters.MethodsAnswered++
	m.dropCall(c.id)
}

func (m *Machine) bury(c *call, reason string) {
	m.counters.DeadLetters++
	m.emit(Bury{c.id, reason})
	m.settle(c)
}

// settle ends a message call: its acknowledgement leaves when those before it have left.
func (m *Machine) settle(c *call) {
	for i := range m.arrivals {
		if m.arrivals[i].call == c.ack && c.epoch == m.cur.epoch {
			m.arrivals[i].done = true
		}
	}
	if c.epoch != m.cur.epoch && c.key != "" {
		m.maybe = appendBounded(m.maybe, c.key)
	}
	if c.ack != c.id {
		m.dropCall(c.id)
		return
	}
	m.calls = slices.DeleteFunc(m.calls, func(o *call) bool { return o == c })
	if c.epoch != m.cur.epoch {
		m.emit(Discard{c.id})
	}
}

// flushAcks acknowledges the done head of the arrivals.
//
// "A Client MUST send PUBACK packets in the order in which the corresponding PUBLISH packets were received"
// [MQTT-4.6.0-2], https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html#_Toc398718105
func (m *Machine) flushAcks() {
	if !m.isAlive() {
		return
	}
	n := 0
	for _, a := range m.arrivals {
		if !a.done {
			break
		}
		m.emit(Acknowledge{m.cur.epoch, a.call})
		m.emit(Discard{a.call})
		if a.key != "" {
			m.settled = appendBounded(m.settled, a.key)
		}
		n++
	}
	m.arrivals = slices.Delete(m.arrivals, 0, n)
}

func appendBounded(ids []string, id string) []string {
	if len(ids) >= settledKept {
		ids = slices.Delete(ids, 0, len(ids)-settledKept+1)
	}
	return append(ids, id)
}

// callsDetached takes note that the session has ended: tokens are void, answers under way may not have arrived.
func (m *Machine) callsDetached() {
	for _, a := range m.arrivals {
		if a.done && a.key != "" {
			m.settled = appendBounded(m.settled, a.key)
		}
		if c := m.callByAck(a.call); c == nil || c.id != a.call {
			m.emit(Discard{a.call})
		}
	}
	m.arrivals = nil
	// Those of earlier sessions are kept beside them: this one may have ended before the hub handed anything out again.
	for _, id := range m.settled {
		m.maybe = appendBounded(m.maybe, id)
	}
	m.settled = nil
	for _, c := range slices.Clone(m.calls) {
		switch {
		case c.kind == InboundMethod && c.state == responding:
			c.state = owed
		case c.kind == InboundMessage && c.state == held:
			// Nobody has seen it yet; the hub will hand it out again.
			m.dropCall(c.id)
		}
	}
}

func (m *Machine) callByAck(id Call) *call {
	for _, c := range m.calls {
		if c.kind == InboundMessage && c.ack == id {
			return c
		}
	}
	return nil
}

// pluginGone takes back what a start was given. A method call is answered at once and never handed out again: nobody
// knows how far it came. A message is handed to the next start.
func (m *Machine) pluginGone(now Instant, i PluginIndex) {
	p := &m.plugins[i]
	for _, c := range slices.Clone(m.calls) {
		if c.state != given || c.plugin != i {
			continue
		}
		switch c.kind {
		case InboundMethod:
			m.owe(now, c, statusDied)
		case InboundMessage:
			c.state, c.plugin = held, NoPlugin
		case InboundDesired:
			m.dropCall(c.id)
		}
	}
	p.desiredCall, p.messageCall, p.givenChange, p.isSetUp = 0, 0, 0, false
}

func (m *Machine) planCalls(now Instant) {
	for _, c := range slices.Clone(m.calls) {
		if c.state == held {
			m.route(now, c)
		}
		switch c.state {
		case held, given:
			if m.due(now, c.deadline) {
				m.expire(now, c)
			}
		case owed:
			if m.isAlive() {
				c.state, c.epoch = responding, m.cur.epoch
				m.emit(Respond{m.cur.epoch, c.id, c.status})
			} else if m.due(now, c.deadline) {
				m.counters.AnswersDropped++
				m.dropCall(c.id)
			}
		case responding:
		}
	}
	m.flushAcks()
}

// expire ends a call whose plugin took too long.
func (m *Machine) expire(now Instant, c *call) {
	if c.state == given {
		m.emit(Abort{c.plugin, c.start, c.id})
	}
	switch c.kind {
	case InboundMethod:
		m.owe(now, c, statusLate)
		m.at(c.deadline)
		if m.isAlive() {
			c.state, c.epoch = responding, m.cur.epoch
			m.emit(Respond{m.cur.epoch, c.id, c.status})
		}
	case InboundMessage:
		if c.state == given {
			m.plugins[c.plugin].messageCall = 0
		}
		m.bury(c, "no verdict within "+m.lim.MessageVerdict.String())
	case InboundDesired:
		p := &m.plugins[c.plugin]
		p.desiredCall, p.isSetUp = 0, true
		m.dropCall(c.id)
	}
}

// route finds the plugin of a held call and hands it over, if it can take it now.
func (m *Machine) route(now Instant, c *call) {
	i, known := m.target(c)
	switch {
	case !known:
		return // a plugin that has not said what it handles may be the one
	case i == NoPlugin:
		if c.kind == InboundMethod {
			m.owe(now, c, statusNoHandler)
		} else {
			m.bury(c, "no plugin takes it")
		}
		return
	}
	p := &m.plugins[i]
	if c.kind == InboundMethod && p.cfg.MethodTimeout > 0 && c.plugin != i {
		c.deadline += Instant(p.cfg.MethodTimeout - m.lim.Method)
	}
	c.plugin = i
	switch p.state {
	case pluginReady:
		if m.mustWait(now, p, c) {
			return
		}
		if c.kind == InboundMessage {
			if p.messageCall != 0 || m.isBehind(c, i) {
				c.deadline = now.Add(m.lim.MessageVerdict) // the limit is the plugin's, not the queue's
				return
			}
			if !m.due(now, p.messageNotBefore) {
				return
			}
			p.messageCall = c.id
			if !c.wasGiven {
				c.wasGiven, c.deadline = true, now.Add(m.lim.MessageVerdict)
			}
		}
		c.state, c.start = given, p.start
		m.emit(Deliver{i, p.start, c.id})
	case pluginFailed, pluginStopping, pluginStopped:
		if c.kind == InboundMethod {
			m.owe(now, c, statusDied)
		}
	case pluginWaiting:
		if c.kind == InboundMethod && p.notBefore >= c.deadline {
			m.owe(now, c, statusDied) // waiting could not help
		}
	case pluginStarting:
	}
}

// isBehind reports whether an earlier message for the same plugin waits: their order is kept.
func (m *Machine) isBehind(c *call, i PluginIndex) bool {
	for _, o := range m.calls {
		if o == c {
			return false
		}
		if o.kind == InboundMessage && o.state == held {
			if j, _ := m.target(o); j == i {
				return true
			}
		}
	}
	return false
}

// target computes whose a call is: a method's owner (the one that names it before the one that takes any), or the first
// plugin in file order that takes the message. It is not known as long as a plugin that could be it has never said what it
// handles.
func (m *Machine) target(c *call) (PluginIndex, bool) {
	isKnown, takesAny := true, NoPlugin
	for i := range m.plugins {
		p := &m.plugins[i]
		switch {
		case c.kind == InboundMethod && slices.Contains(p.methods(), c.name):
			return PluginIndex(i), true
		case c.kind == InboundMethod:
			isKnown = isKnown && (p.cfg.Methods != nil || !p.isUnknown())
			if slices.Contains(p.methods(), AnyMethod) {
				takesAny = PluginIndex(i)
			}
		case p.state == pluginFailed || !p.matches(c.props):
		case p.handlesMessages():
			return PluginIndex(i), true
		case p.isUnknown():
			return NoPlugin, false // a later one must not get ahead of it
		}
	}
	if c.kind == InboundMethod && isKnown {
		return takesAny, true
	}
	return NoPlugin, isKnown
}
