package core

import (
	"math/rand/v2"
	"time"
)

// Instant is a moment on the monotonic clock, as an offset from the engine's start. Jumps of the wall clock do not
// move it.
type Instant time.Duration

// Add returns the moment d later.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns how much later t is than u.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// Config is what the machine is told once. Names and defaults are the seed client's where it has them.
type Config struct {
	// AutoConnect: an operation that needs a session makes the machine want one.
	AutoConnect bool
	// ConnectAtStart: a session is wanted from the start.
	ConnectAtStart bool
	// ConnectionRetry: a lost session is made again, and a failed attempt is repeated.
	ConnectionRetry bool
	// RetryInterval is the longest wait between attempts in the first Limits.OutageShort of an outage, RetryMax later.
	RetryInterval, RetryMax time.Duration
	// EnsureDesired: each session begins with a twin get, so that no change of the desired properties is missed.
	EnsureDesired bool
	// Routes is the number of routes to the hub, in order of preference; at least 1.
	Routes int
	// Route is the route to begin with: the one that worked last. 0 is the most preferred one.
	Route   int
	Plugins []PluginConfig
	Limits  Limits
}

// PluginConfig is what the machine must know of a configured plugin.
type PluginConfig struct {
	Name string
	// Methods it is given; nil means those that it registers.
	Methods []string
	// Match selects its messages: all properties must be equal. nil takes any message, if it handles messages at all.
	Match map[string]string
	// MethodTimeout is its limit for a method; 0 means Limits.Method.
	MethodTimeout time.Duration
}

// Machine decides everything and does nothing. It is a value with one method that matters: Step takes a fact and
// returns orders. It reads no clock, starts no goroutine and is not safe for concurrent use; the engine is its only
// caller. The same configuration, random source and events give the same effects.
type Machine struct {
	cfg Config
	lim Limits
	rng *rand.Rand

	out   []Effect
	again bool    // plan changed a fact without an order
	wake  Instant // the earliest moment at which plan wants to look again; never is 'none'

	started bool
	keep    bool // a session is wanted
	held    bool // ... but an operator said no until further notice
	fault   Fault
	reason  string
	state   State
	since   Instant

	epoch   Epoch // the last one given out
	cur     attempt
	next    attempt // a renewal's new connection, until it takes cur's place
	retryAt Instant
	// notBefore is what whoever stands in the way asked for: a link that comes up does not override it.
	notBefore Instant
	backoff   backoff
	routing   routing
	causes    []cause // of the present outage
	renewAt   Instant // not before: after a failed renewal
	// renewForced: the credential was changed from outside, and the session still uses the old one.
	renewForced bool
	// wantAt is when to ask for a new credential in place of the one that was given; isWanted: it has been asked for.
	wantAt   Instant
	isWanted bool

	subs     [featureCount]subscription
	twin     twinNeed
	desired  desiredState
	requests []request
	lastOp   Op

	lanes []lane

	calls       []*call
	arrivals    []arrival
	settled     []string // ids of messages acknowledged in this session, newest last
	maybe       []string // ids of messages settled in an earlier session, whose acknowledgement may have been lost
	lastDesired Call

	plugins []plugin

	connectOps, disconnectOps []Op

	stopping  bool
	stopAt    Instant
	finishing bool
	stopped   bool

	counters Counters
}

const never = Instant(1<<63 - 1)

// New makes a machine. A nil rng leaves jitter out: waits are then whole, as the transcripts like it.
func New(cfg Config, rng *rand.Rand) *Machine {
	if cfg.Limits == (Limits{}) {
		cfg.Limits = DefaultLimits()
	}
	if cfg.Routes < 1 {
		cfg.Routes = 1
	}
	m := &Machine{cfg: cfg, lim: cfg.Limits, rng: rng, wake: never, wantAt: never, lastDesired: DesiredCall, reason: "not asked to connect"}
	if cfg.Route < 0 || cfg.Route >= cfg.Routes {
		cfg.Route = 0
	}
	m.backoff.route = cfg.Route
	m.routing = routing{kept: cfg.Route, shown: cfg.Route, chosen: noRoute, spared: make([]Instant, cfg.Routes), sparedFor: make([]Fault, cfg.Routes), linkTries: m.lim.LinkTries}
	for _, p := range cfg.Plugins {
		m.plugins = append(m.plugins, plugin{cfg: p})
	}
	return m
}

// Step takes one fact and returns the orders that follow from it. now must not go back. The returned slice is valid
// until the next Step.
func (m *Machine) Step(now Instant, ev Event) []Effect {
	m.out = m.out[:0]
	if m.stopped {
		return m.out
	}
	m.apply(now, ev)
	// A plan may make another one possible (a session that closed lets the next connect). Every round but the last gives
	// an order that changes a fact, so this ends; the bound is for the planted bug that makes it not.
	for range 16 {
		n := len(m.out)
		m.wake, m.again = never, false
		m.plan(now)
		if len(m.out) == n && !m.again || m.stopped {
			break
		}
	}
	return m.out
}

// Deadline returns when a Ticked is due, if ever.
func (m *Machine) Deadline() (Instant, bool) { return m.wake, m.wake != never && !m.stopped }

// apply changes facts. What an event completes is looked up by its number; news of an earlier epoch, start or operation
// finds nothing and so changes nothing.
func (m *Machine) apply(now Instant, ev Event) {
	switch ev := ev.(type) {
	case Started:
		m.started, m.since = true, now
		m.keep = m.cfg.ConnectAtStart
	case Ticked:
	case CredentialFetched:
		m.credentialFetched(now, ev)
	case CredentialFailed:
		m.attemptFailed(now, ev.Epoch, fetching, ev.Fault)
	case Opened:
		m.linkOpened(ev.Epoch)
	case OpenFailed:
		m.attemptFailed(now, ev.Epoch, opening, ev.Fault)
	case Connected:
		m.sessionConnected(now, ev)
	case ConnectFailed:
		m.attemptFailed(now, ev.Epoch, connecting, ev.Fault)
	case Lost:
		m.sessionLost(now, ev)
	case Closed:
		m.attemptClosed(now, ev.Epoch)
	case CredentialChanged:
		m.credentialChanged(now)
	case RouteRequested:
		m.routeRequested(now, ev)
	case NetworkChanged:
		m.networkChanged(now)
	case Subscribed:
		m.subscribed(ev)
	case SubscribeFailed:
		m.subscribeFailed(now, ev)
	case Submitted:
		m.submitted(now, ev)
	case Withdrawn:
		m.withdrawn(ev)
	case Acked:
		m.acked(now, ev)
	case Requested:
		m.requested(ev.Op)
	case Replied:
		m.replied(now, ev)
	case ConnectRequested:
		m.connectRequested(now, ev.Op)
	case DisconnectRequested:
		m.disconnectRequested(ev)
	case OpCancelled:
		m.opCancelled(ev.Op)
	case ShutdownRequested:
		if !m.stopping {
			m.stopping, m.stopAt = true, now
		}
	case MethodCalled:
		m.methodCalled(now, ev)
	case MessageReceived:
		m.messageReceived(now, ev)
	case DesiredChanged:
		m.desiredChanged(ev)
	case Responded:
		m.responded(ev)
	case PluginReady:
		m.pluginReady(now, ev)
	case PluginExited:
		m.pluginExited(now, ev)
	case Returned:
		m.returned(now, ev)
	}
}

// plan derives orders from facts: for each need that is not met and may be asked for now, it asks.
func (m *Machine) plan(now Instant) {
	if !m.started {
		return
	}
	m.planPlugins(now)
	m.planCredential(now)
	m.planSession(now)
	m.planSubscriptions(now)
	m.planTwin(now)
	m.planRequests(now)
	m.planLanes(now)
	m.planDesired(now) // before the calls: a plugin's start is given the desired properties first
	m.planCalls(now)
	m.planStop(now)
	m.announce(now)
}

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

// at asks to be woken at t.
func (m *Machine) at(t Instant) { m.wake = min(m.wake, t) }

// due reports whether t has come, and asks to be woken if not.
func (m *Machine) due(now, t Instant) bool {
	if now >= t {
		return true
	}
	m.at(t)
	return false
}

// jitter returns between half of d and the whole.
func (m *Machine) jitter(d time.Duration) time.Duration {
	if m.rng == nil || d <= 1 {
		return d
	}
	return d/2 + time.Duration(m.rng.Int64N(int64(d/2)+1))
}

// doubling returns first, doubled n times, at most limit.
func doubling(first time.Duration, n int, limit time.Duration) time.Duration {
	d := first
	for range n {
		if d >= limit {
			break
		}
		d *= 2
	}
	return min(d, limit)
}
