package sim

import (
	"fmt"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// features is how many subscriptions there are.
const features = int(core.FeatureDesired) + 1

// nobodys is a method that no plugin handles; statusNoHandler is what the device says then.
const (
	nobodys         = "nobody's"
	statusNoHandler = 404
)

// hub is the other side. It models one identity: one session at a time, tokens that end, subscriptions that are kept or
// forgotten, messages that are handed out until they are acknowledged, a twin with versions. It is stricter than IoT Hub,
// which lets a session outlive its token by minutes. It does not model properties, payloads, quotas or leases of messages.
type hub struct {
	w       *world
	session *session
	kept    [features]bool // subscriptions of the last session

	isAway, isSilent bool // nothing gets through; and nothing says so
	isStolen         bool // another client uses the identity

	next     []core.Seq // of each lane: the lowest number never seen
	acked    []core.Seq // of each lane: acknowledged, whether or not the device knows
	twin     document
	changed  core.Instant // the twin
	isMissed bool         // the last change was lost
	reported core.Op      // the last patch

	methods  int
	waiting  []*call // method calls that reached the device and are not closed
	messages []*message
	lastID   int
}

// session is one that the hub holds.
type session struct {
	link       *link
	subscribed [features]bool
	// subscribedAt is when something was last subscribed to.
	subscribedAt core.Instant
	lastSeq      []core.Seq // of each lane, in this session
	ackAt        core.Instant
	isMute       bool       // it acknowledges nothing more
	unacked      []*message // handed out in this session, in order
}

// document is a state of the desired properties. Patches raise the version by one; a twin that is created anew begins
// another generation.
type document struct {
	known      bool
	generation int
	version    int64
	isWrong    bool // patched with what does not follow
}

func (d document) merge(patch document) document {
	if !d.known || d.generation != patch.generation || d.version+1 != patch.version {
		patch.isWrong = true
	}
	patch.isWrong = patch.isWrong || d.isWrong
	return patch
}

func (d document) after(e document) bool {
	return d.generation > e.generation || d.generation == e.generation && d.version > e.version
}

// message is a cloud-to-device message.
type message struct {
	id        string
	to        string
	sent      bool // in any session
	sentIn    core.Epoch
	isSettled bool // a plugin has given its verdict, or it was buried
	isHeld    bool // by a plugin
}

// call is what the device was handed: a method call or a message.
type call struct {
	id      core.Call
	name    string
	came    core.Instant
	epoch   core.Epoch
	message *message
	// of methods
	hasAnswer bool // of the plugin
	isOwed    bool // an answer has been ordered, with this status
	status    int
	sentIn    core.Epoch
	gotIn     core.Epoch // the hub has an answer from this session
	isClosed  bool       // the device knows that its answer has arrived, or was refused
}

// String returns what a violation wants to show.
func (c *call) String() string {
	switch {
	case c == nil:
		return "no such call"
	case c.message != nil:
		return fmt.Sprintf("message %s of epoch %d", c.message.id, c.epoch)
	default:
		return fmt.Sprintf("method %s, answered by the plugin %v, sent in %d, arrived in %d, closed %v", c.name, c.hasAnswer, c.sentIn, c.gotIn, c.isClosed)
	}
}

func (h *hub) connect(l *link) {
	w := h.w
	refuse := func(k core.Kind, why string) {
		w.down(l, func() { w.connectFailed(l, core.Fault{Kind: k, Reason: why}) })
	}
	switch {
	case w.now >= l.tokenEnd:
		refuse(core.Unauthorized, "token expired")
		return
	case w.chance("token rejected", w.faults.TokenRejected):
		refuse(core.Unauthorized, "not authorized")
		return
	case w.chance("throttled", w.faults.Throttled):
		refuse(core.Throttled, "hub busy")
		return
	case w.chance("unavailable", w.faults.Unavailable):
		refuse(core.Unavailable, "hub unavailable, or device disabled")
		return
	}
	if old := h.session; old != nil {
		if old.link.isHeld() {
			w.fail(OneSession, "epoch %d connects while the device holds %v", l.epoch, old.link)
		}
		h.drop(old, core.Fault{Reason: "taken over", Clean: true})
	}
	s := &session{link: l, lastSeq: make([]core.Seq, plugins)}
	isPresent := h.kept != [features]bool{} && !w.chance("session forgotten", w.faults.SessionForgotten)
	if isPresent {
		s.subscribed = h.kept
	}
	h.session, l.session = s, s
	h.isMissed = false // the session begins with a twin get
	h.kept = s.subscribed
	w.stats.Sessions++
	w.at(l.lifeEnd, func() {
		if h.session == s && l.isUsable() && w.now.Sub(l.connectedAt) > settleTime {
			w.fail(Token, "the session of epoch %d outlives its token", l.epoch)
		}
	})
	w.at(l.tokenEnd, func() {
		if h.session == s {
			h.drop(s, core.Fault{Reason: "token expired"})
		}
	})
	if h.isStolen {
		w.after(w.some(0, 5*time.Second), func() { h.steal(s) })
	}
	if w.chance("answer lost", w.faults.AnswerLost) {
		return
	}
	w.down(l, func() {
		// The news of CONNACK and of what follows it take different ways within the device.
		connected := w.now.Add(w.some(0, 3*time.Millisecond))
		l.toDevice = max(l.toDevice, connected-core.Instant(w.some(0, 3*time.Millisecond)))
		w.at(connected, func() {
			if l.isAnswered || l.isClosed || l.isEnded {
				return
			}
			l.isAnswered, l.isConnected, l.connectedAt = true, true, w.now
			w.after(settleTime+time.Millisecond, func() { w.sawSilence(l) })
			w.answer(core.Connected{Epoch: l.epoch, Present: isPresent})
			w.excused = w.excused || l.isShort
			w.mayTellStale(time.Minute, func(ev core.Event) bool { _, ok := ev.(core.Lost); return ok })
		})
		if l.isIntact && s.subscribed[core.FeatureMessages] {
			h.handOut(s)
		}
	})
}

// drop ends a session from the hub's side.
func (h *hub) drop(s *session, f core.Fault) {
	h.sessionEnds(s)
	h.w.cut(s.link, f, h.w.way(), 0)
}

func (h *hub) sessionEnds(s *session) {
	if h.session == s {
		h.session = nil
	}
}

func (h *hub) steal(s *session) {
	if h.session == s && h.isStolen {
		h.w.fault("taken over")
		h.drop(s, core.Fault{Reason: "closed by the hub", Clean: true})
	}
}

func (h *hub) stolen() {
	h.isStolen = true
	if h.session != nil {
		h.steal(h.session)
	}
	h.w.after(h.w.some(10*time.Second, 10*time.Minute), func() { h.isStolen = false })
}

func (h *hub) away() {
	if h.isAway {
		return
	}
	h.w.fault("hub away")
	h.isAway, h.isSilent = true, h.w.rng.IntN(2) == 0
	if h.session != nil {
		h.w.cut(h.session.link, core.Fault{Reason: "connection lost"}, h.w.some(0, keepAlive), 0)
	}
	h.w.after(h.w.some(time.Minute, 40*time.Minute), func() { h.isAway = false })
}

func (h *hub) subscribe(s *session, f core.Feature) {
	s.subscribed[f] = true
	s.subscribedAt = h.w.now
	h.kept = s.subscribed
	if f == core.FeatureMessages {
		h.w.after(0, func() { h.handOut(s) })
	}
}

// receive takes messages of a lane in.
func (h *hub) receive(s *session, n int, seqs []core.Seq) {
	w := h.w
	for _, seq := range seqs {
		if seq <= s.lastSeq[n] {
			w.fail(LaneOrder, "lane %d: %d after %d in one session", n, seq, s.lastSeq[n])
		}
		s.lastSeq[n] = seq
		for ; h.next[n] < seq; h.next[n]++ {
			if w.lanes[n].fates[h.next[n]-1] != givenUp {
				w.fail(LaneOrder, "lane %d: %d comes, but %d has never come", n, seq, h.next[n])
				return
			}
		}
		if seq == h.next[n] {
			h.next[n]++
			w.stats.Messages++
		}
	}
	if s.isMute || w.chance("answer lost", w.faults.AnswerLost) {
		s.isMute = true
		return
	}
	wait := w.some(0, 20*time.Millisecond)
	if w.chance("answer late", w.faults.AnswerLate) {
		wait = w.some(time.Second, 20*time.Second)
	}
	upto := seqs[len(seqs)-1]
	s.ackAt = max(s.ackAt, w.now.Add(wait)) // in order
	w.at(s.ackAt, func() {
		if h.session != s {
			return
		}
		h.acked[n] = max(h.acked[n], upto)
		w.down(s.link, func() { w.ackArrives(s.link, n, upto) })
	})
}

// callMethod is somebody at the back end.
func (h *hub) callMethod() {
	h.methods++
	names := []string{"p0", "p1", "p0", "p1", nobodys}
	h.invoke(names[h.w.rng.IntN(len(names))])
}

func (h *hub) invoke(name string) {
	w, s := h.w, h.session
	if s == nil || !s.subscribed[core.FeatureMethods] {
		return
	}
	w.down(s.link, func() {
		w.last++
		c := &call{id: w.last, name: name, came: w.now, epoch: s.link.epoch}
		w.calls[c.id] = c
		h.waiting = append(h.waiting, c)
		w.stats.Methods++
		w.after(w.opts.Limits.Method+settleTime+time.Millisecond, func() {
			if h.session != nil && !c.isClosed {
				w.sawSilence(h.session.link)
			}
		})
		w.feed(core.MethodCalled{Epoch: s.link.epoch, Call: c.id, Name: name})
	})
}

func (w *world) respond(e core.Respond) {
	l, c := w.sees(e.Epoch, e), w.calls[e.Call]
	if l == nil {
		return
	}
	switch {
	case c == nil || c.message != nil || e.Status == 0 && !c.hasAnswer || c.isClosed:
		w.fail(Methods, "%v: %v", e, c)
		return
	case c.isOwed && e.Status != c.status:
		w.fail(Methods, "%v: answered with status %d before", e, c.status)
	case e.Status == statusNoHandler && c.name != nobodys:
		w.fail(Methods, "%v: somebody handles %s", e, c.name)
	}
	c.isOwed, c.status, c.sentIn = true, e.Status, e.Epoch
	w.after(respondTimeout, func() { // planned first: the news of it may end the session
		if !l.isEnded && !l.isClosed {
			c.isClosed = true // refused by a living session
		}
	})
	w.roundTrip(l, respondTimeout, func(*session) func() core.Event {
		if c.isClosed || c.gotIn == e.Epoch {
			w.fail(Methods, "call %d is answered twice", c.id)
		}
		c.gotIn = e.Epoch
		w.stats.Answers++
		return func() core.Event {
			c.isClosed = true
			w.over = append(w.over, e.Call)
			return core.Responded{Epoch: e.Epoch, Call: e.Call}
		}
	}, core.Responded{Epoch: e.Epoch, Call: e.Call, Failed: true})
}

// maxQueued is how many cloud-to-device messages the hub keeps for a device; it refuses more.
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d
const maxQueued = 50

func (h *hub) sendMessage(to string) {
	if len(h.messages) >= maxQueued {
		return
	}
	h.lastID++
	h.messages = append(h.messages, &message{id: fmt.Sprint("m", h.lastID), to: to})
	h.w.stats.CloudMessages++
	if h.session != nil {
		h.handOut(h.session)
	}
}

// handOut sends what has not been sent in this session.
func (h *hub) handOut(s *session) {
	if h.session != s || !s.subscribed[core.FeatureMessages] {
		return
	}
	w, l := h.w, s.link
	for _, m := range h.messages {
		if m.sentIn == l.epoch {
			continue
		}
		isAgain := m.sent
		m.sent, m.sentIn = true, l.epoch
		w.down(l, func() {
			if l.isConnected || !l.isAnswered {
				w.last++
				w.calls[w.last] = &call{id: w.last, epoch: l.epoch, message: m}
				s.unacked = append(s.unacked, m)
				w.arrive(core.MessageReceived{
					Epoch: l.epoch, Call: w.last, ID: m.id, Redelivered: isAgain, Properties: map[string]string{"to": m.to},
				})
			}
		})
	}
}

func (w *world) acknowledge(e core.Acknowledge) {
	l, c := w.sees(e.Epoch, e), w.calls[e.Call]
	if l == nil {
		return
	}
	switch s := l.session; {
	case c == nil || c.message == nil || c.epoch != e.Epoch:
		w.fail(Messages, "%v: %v", e, c)
		return
	case len(s.unacked) == 0 || s.unacked[0] != c.message:
		w.fail(Messages, "message %s is acknowledged out of order", c.message.id)
		return
	case !c.message.isSettled:
		w.fail(Messages, "message %s is acknowledged before a verdict", c.message.id)
		return
	default:
		s.unacked = s.unacked[1:]
		w.over = append(w.over, e.Call)
	}
	w.up(l, func(*session) {
		for i, m := range w.hub.messages {
			if m == c.message {
				w.hub.messages = append(w.hub.messages[:i], w.hub.messages[i+1:]...)
				break
			}
		}
	})
}

// changeDesired is somebody at the back end.
func (h *hub) changeDesired() {
	w, s := h.w, h.session
	h.twin.version++
	h.changed = w.now
	w.stats.Changes++
	if s == nil || !s.subscribed[core.FeatureDesired] {
		return
	}
	patch := h.twin
	if w.chance("change lost", w.faults.ChangeLost) {
		h.isMissed = true // nobody can know before the next one
		return
	}
	h.isMissed = false
	w.down(s.link, func() {
		w.pushed[patch.version] = patch
		w.arrive(core.DesiredChanged{Epoch: s.link.epoch, Version: patch.version})
	})
}

// recreate deletes the device and creates it anew, which throws it out.
func (h *hub) recreate() {
	h.w.fault("twin re-created")
	h.twin = document{known: true, generation: h.twin.generation + 1, version: 1 + h.w.rng.Int64N(4)}
	h.changed = h.w.now
	h.kept = [features]bool{}
	if h.session != nil {
		h.drop(h.session, core.Fault{Reason: "device deleted"})
	}
}

// ask is a twin get of the machine or a reported patch of a caller.
func (w *world) ask(e core.Ask) {
	l := w.sees(e.Epoch, e)
	if l == nil {
		return
	}
	w.roundTrip(l, 0, func(s *session) func() core.Event {
		reply := core.Replied{Epoch: e.Epoch, Op: e.Op, Status: 200}
		if w.chance("throttled", w.faults.Throttled) {
			reply.Status = 429
			w.twinTrouble = w.now
			return func() core.Event { return reply }
		}
		if !s.subscribed[core.FeatureTwin] {
			w.fail(Operations, "%v before its answers are subscribed to", e)
		}
		if e.Op >= core.CallerOp {
			if e.Op < w.hub.reported {
				w.fail(Operations, "patch %d comes after %d", e.Op, w.hub.reported)
			}
			w.hub.reported = e.Op
			return func() core.Event { return reply }
		}
		doc := w.hub.twin
		return func() core.Event {
			w.offered[e.Op] = doc
			reply.Version, reply.Changed = doc.version, w.doc != doc
			return reply
		}
	}, nil)
}
