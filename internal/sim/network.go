package sim

import (
	"fmt"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Limits of the engine and of the transports, as they are known to be.
const (
	openTimeout      = 25 * time.Second
	connectTimeout   = 30 * time.Second
	subscribeTimeout = 10 * time.Second
	respondTimeout   = 10 * time.Second
	// keepAlive is how long a break may stay unnoticed: 60 s and what the answer may take; the hub waits one and a half
	// times as long.
	keepAlive    = 75 * time.Second
	hubKeepAlive = 90 * time.Second
)

// link is one epoch: what the network knows of an attempt and of the connection that came of it.
type link struct {
	epoch core.Epoch
	route int
	// lifeEnd is when the device knows its token to end, tokenEnd when it ends for the hub. They differ by what the
	// device's wall clock was wrong by.
	lifeEnd, tokenEnd core.Instant
	isShort           bool // its life may not suffice for a renewal
	isOpen            bool // TLS is up
	isIntact          bool // packets get through
	// isConnected: the device was told that it has a session.
	isConnected bool
	connectedAt core.Instant
	isClosed    bool // the device has ordered its end
	isEnded     bool // the device has been told of its end
	isAsked     bool // CONNECT was ordered
	isAnswered  bool // CONNECT has been answered, or given up
	toHub       core.Instant
	toDevice    core.Instant
	session     *session
	flight      []flight // sent and not known to be acknowledged, of each lane
}

// flight are the messages of a lane that are under way on a link.
type flight struct {
	seqs  []core.Seq
	sizes []int
	bytes int
}

// String returns what a violation wants to show.
func (l *link) String() string {
	if l == nil {
		return "no such epoch"
	}
	return fmt.Sprintf("epoch %d: open %v, intact %v, connected %v, closed %v, ended %v", l.epoch, l.isOpen, l.isIntact, l.isConnected, l.isClosed, l.isEnded)
}

// isUsable reports whether both ends hold a working session.
func (l *link) isUsable() bool { return l.isConnected && l.isHeld() }

// isHeld reports whether the device holds the connection and it works.
func (l *link) isHeld() bool { return l.isIntact && !l.isClosed && !l.isEnded }

func (w *world) way() time.Duration { return w.some(w.opts.Latency/4, w.opts.Latency) }

// up carries a packet to the hub, in the order of the link.
func (w *world) up(l *link, arrive func(s *session)) {
	l.toHub = max(l.toHub, w.now.Add(w.way()))
	w.at(l.toHub, func() {
		if l.isIntact && l.session != nil && w.hub.session == l.session {
			arrive(l.session)
		}
	})
}

// down carries a packet to the device, in the order of the link. A link that is being closed is still read from.
func (w *world) down(l *link, arrive func()) {
	l.toDevice = max(l.toDevice, w.now.Add(w.way()))
	w.at(l.toDevice, func() {
		if l.isIntact && !l.isEnded {
			arrive()
		}
	})
}

func (w *world) fetchCredential(e core.Epoch) {
	l := &link{epoch: e, flight: make([]flight, plugins)}
	w.links[e] = l
	w.epoch = e
	w.fetches++
	w.after(w.some(time.Millisecond, 50*time.Millisecond), func() {
		switch {
		case l.isClosed:
		case w.chance("credential fails", w.faults.CredentialFails):
			w.end(l, core.CredentialFailed{Epoch: e, Fault: core.Fault{Reason: "no credential"}})
		default:
			life := w.opts.TokenLife
			if w.chance("token short-lived", w.faults.TokenShort) {
				life, l.isShort = w.some(time.Second, w.opts.ShortLife), true
			}
			// The device counts the life on its monotonic clock; the hub reads an end that the wall clock has put there.
			l.lifeEnd = w.now.Add(life)
			l.tokenEnd = l.lifeEnd.Add(w.skew)
			w.answer(core.CredentialFetched{Epoch: e, Life: life})
		}
	})
}

// end tells the device that nothing of an epoch is left.
func (w *world) end(l *link, ev core.Event) {
	if l.isEnded {
		return
	}
	l.isEnded = true
	w.sessionOver(l)
	w.answer(ev)
	for e, old := range w.links {
		if old.isEnded && e+16 < w.epoch {
			delete(w.links, e)
		}
	}
}

// sessionOver takes note that the device has no session any more, as far as it knows.
func (w *world) sessionOver(l *link) {
	if l.isConnected {
		w.outageSince, w.dialsInRow = w.now, 0
	}
}

func (w *world) open(e core.Open) {
	l := w.links[e.Epoch]
	if l == nil || l.isClosed || l.isEnded || l.isOpen {
		w.fail(DeadEpoch, "%v: %v", e, l)
		return
	}
	l.route = e.Route
	w.sawDial(e.Route)
	failed := func(wait time.Duration, k core.Kind, why string) {
		w.after(wait, func() {
			if !l.isClosed {
				w.end(l, core.OpenFailed{Epoch: e.Epoch, Fault: core.Fault{Kind: k, Reason: why}})
			}
		})
	}
	if w.isBeside(l) {
		// A try beside the session is no excuse for it, whatever comes of it.
		defer func(was bool) { w.excused = was }(w.excused)
	}
	isHanging := w.hub.isAway && w.hub.isSilent
	switch {
	case isHanging || w.chance("dial hangs", w.faults.DialHangs):
		w.excused = true
		failed(openTimeout, core.Blocked, "no answer")
	case w.routes[e.Route] == swallowed:
		w.excused = true
		failed(tcpTimeout, core.Blocked, "no answer")
	case w.hub.isAway || w.routes[e.Route] == refusing || w.chance("dial refused", w.faults.DialRefused):
		w.excused = true
		failed(w.way()*2, core.Transient, "refused")
	case w.chance("dial blocked", w.faults.DialBlocked):
		failed(w.way()*2, core.Blocked, "reset in TLS")
	default:
		w.after(w.way()*4, func() {
			if !l.isClosed {
				l.isOpen, l.isIntact = true, true
				w.answer(core.Opened{Epoch: e.Epoch})
			}
		})
	}
}

func (w *world) connect(e core.Epoch) {
	l := w.links[e]
	if l == nil || l.isClosed || l.isEnded || !l.isOpen || l.session != nil {
		w.fail(DeadEpoch, "connect: %v", l)
		return
	}
	for n := range e { // in order, so that the same seed fails in the same words
		if old := w.links[n]; old != nil && old.isConnected && !old.isEnded {
			w.fail(OneSession, "epoch %d is to connect before the last session has ended: %v", e, old)
		}
	}
	l.isAsked = true
	l.toHub = max(l.toHub, w.now.Add(w.way()))
	w.at(l.toHub, func() {
		switch {
		case !l.isIntact && !l.isClosed && w.routes[l.route] != swallowed:
			w.after(w.way(), func() { w.connectFailed(l, core.Fault{Reason: "connection reset"}) })
		case l.isIntact && w.routes[l.route] == hollow:
			l.isIntact = false
			if w.rng.IntN(2) == 0 {
				w.after(w.way(), func() { w.connectFailed(l, core.Fault{Reason: "connection reset"}) })
			}
		case l.isIntact && !w.hub.isAway:
			w.hub.connect(l)
		}
	})
	w.mayTellStale(w.opts.Latency, func(ev core.Event) bool { _, ok := ev.(core.Connected); return ok })
	w.after(connectTimeout, func() {
		if !l.isAnswered && !l.isClosed {
			w.connectFailed(l, core.Fault{Reason: "no CONNACK"})
		}
	})
}

func (w *world) connectFailed(l *link, f core.Fault) {
	if l.isAnswered || l.isEnded {
		return
	}
	l.isAnswered = true
	w.excused = true
	if l.session != nil {
		w.hub.sessionEnds(l.session)
	}
	l.isIntact = false
	w.end(l, core.ConnectFailed{Epoch: l.epoch, Fault: f})
}

// close ends an epoch from the device's side.
func (w *world) close(e core.Epoch) {
	l := w.links[e]
	if l == nil || l.isClosed || l.isEnded {
		w.fail(DeadEpoch, "close: %v", l)
		return
	}
	l.isClosed, l.isAnswered = true, true
	w.sessionOver(l)
	w.up(l, func(s *session) { w.hub.sessionEnds(s) })
	wait := w.way()
	if l.toHub > w.now {
		wait = max(wait, l.toHub.Sub(w.now))
	}
	if w.chance("close slow", w.faults.AnswerLate) {
		wait += w.some(0, 5*time.Second)
	}
	w.after(wait, func() {
		l.isIntact = false
		w.end(l, core.Closed{Epoch: e})
		if l.session != nil {
			w.hub.sessionEnds(l.session)
		}
	})
}

// cut breaks a connection. Each end learns of it in its own time.
func (w *world) cut(l *link, f core.Fault, deviceLearns, hubLearns time.Duration) {
	if !l.isIntact {
		return
	}
	l.isIntact = false
	w.excused = true
	if s := l.session; s != nil {
		w.after(hubLearns, func() { w.hub.sessionEnds(s) })
	}
	w.at(max(l.toDevice, w.now.Add(deviceLearns)), func() {
		switch {
		case l.isClosed || l.isEnded:
		case !l.isAsked: // nobody reads from it yet: CONNECT will show
		case l.isConnected:
			w.sawLoss(l, f)
			w.excused = true
			w.end(l, core.Lost{Epoch: l.epoch, Fault: f})
		default:
			w.connectFailed(l, f)
		}
	})
}

// lose is the fault of that name.
func (w *world) lose() {
	s := w.hub.session
	if s == nil {
		return
	}
	w.fault("session lost")
	var device, far time.Duration
	if w.rng.Float64() < w.faults.SilentLoss {
		device, far = w.some(0, keepAlive), w.some(0, hubKeepAlive)
	}
	w.cut(s.link, core.Fault{Reason: "connection reset"}, device, far)
}

// roundTrip carries a request to the hub and its answer back. serve runs at the hub and returns what the device makes of
// the answer when that arrives. With a limit the device is told late when it has passed.
func (w *world) roundTrip(l *link, limit time.Duration, serve func(s *session) (arrive func() core.Event), late core.Event) {
	isDone := false
	w.up(l, func(s *session) {
		arrive := serve(s)
		if w.chance("answer lost", w.faults.AnswerLost) {
			w.twinTrouble = w.now
			return
		}
		wait := w.some(0, 20*time.Millisecond)
		if w.chance("answer late", w.faults.AnswerLate) {
			wait = w.some(time.Second, 20*time.Second)
		}
		w.after(wait, func() {
			w.down(l, func() {
				if !isDone {
					isDone = true
					w.answer(arrive())
				}
			})
		})
	})
	if limit > 0 {
		w.after(limit, func() {
			if !isDone && !l.isEnded && !l.isClosed {
				isDone = true
				w.excused, w.twinTrouble = true, w.now
				w.answer(late)
			}
		})
	}
}

func (w *world) subscribe(e core.Subscribe) {
	l := w.sees(e.Epoch, e)
	if l == nil {
		return
	}
	refused := core.SubscribeFailed{Epoch: e.Epoch, Feature: e.Feature, Fault: core.Fault{Kind: core.Refused, Reason: "refused"}}
	w.roundTrip(l, subscribeTimeout, func(s *session) func() core.Event {
		if w.chance("subscription refused", w.faults.SubscriptionRefused) {
			w.twinTrouble = w.now
			return func() core.Event { return refused }
		}
		w.hub.subscribe(s, e.Feature)
		return func() core.Event { return core.Subscribed(e) }
	}, refused)
}
