package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Status is what a running engine knows of itself.
type Status struct {
	Identity   core.Identity
	Connection core.Connection
	Machine    core.Status
	Plugins    []core.PluginInfo // of the present starts; PID 0 where none runs
	// Outbox is what waits for the hub's acknowledgement.
	OutboxMessages, OutboxBytes       int
	OutboxMaxMessages, OutboxMaxBytes int
	// ReportedVersion is the $version after the last report; 0 before the first.
	ReportedVersion int64
	// Transport is the route of the present session or attempt.
	Transport string
	// Routes are all of them, in order of preference; Chosen is the one that an operator chose, "" for none.
	Routes      []string
	Chosen      string
	DeadLetters []DeadLetter
	Uptime      time.Duration
	// Doubt is what speaks against the newest credential: see core.Credential.
	Doubt string
}

// CredentialLeft is what was left of the session's credential when the status was taken; 0 if it has no end.
func (s Status) CredentialLeft() time.Duration {
	if !s.Machine.HasEnd {
		return 0
	}
	return max(0, time.Duration(s.Machine.CredentialEnd)-s.Uptime)
}

// Spared is how long nobody can have the next attempt made sooner; 0 where anybody can: see core.Status.SparedUntil.
func (s Status) Spared() time.Duration { return max(0, time.Duration(s.Machine.SparedUntil)-s.Uptime) }

// NextProbe is how long until a better route is tried again at the earliest; false where the session goes by the right one.
func (s Status) NextProbe() (time.Duration, bool) {
	if s.Machine.NextProbe == 0 {
		return 0, false
	}
	return max(0, time.Duration(s.Machine.NextProbe)-s.Uptime), true
}

// Status returns what the engine knows now; after Run has ended, what it knew last.
func (e *Engine) Status(ctx context.Context) (Status, error) {
	answer := make(chan Status, 1)
	wasPosted := e.inbox.run(func() core.Event {
		answer <- e.status()
		return nil
	})
	if wasPosted {
		select {
		case s := <-answer:
			return s, nil
		case <-ctx.Done():
			return Status{}, fmt.Errorf("status: %w", ctxError(ctx))
		case <-e.ended:
		}
	}
	<-e.ended
	return e.status(), nil
}

// Connection returns the state of the connection as it was announced last.
func (e *Engine) Connection() core.Connection { return e.watch.get() }

func (e *Engine) status() Status {
	s := Status{
		Identity: e.who.get(), Connection: e.watch.get(), Machine: e.m.Status(), Uptime: time.Since(e.start),
		OutboxMaxMessages: e.cfg.OutboxMessages, OutboxMaxBytes: e.cfg.OutboxBytes,
		ReportedVersion: e.reported, Doubt: e.doubt, DeadLetters: append([]DeadLetter(nil), e.deadLetters...),
	}
	s.Transport, s.Routes = e.routeName(s.Machine.Route), e.Routes()
	if s.Machine.Chosen >= 0 {
		s.Chosen = e.routeName(s.Machine.Chosen)
	}
	s.OutboxMessages, s.OutboxBytes = e.outbox.load()
	for _, p := range e.plugins {
		info := p.info
		info.Name = p.cfg.Name
		s.Plugins = append(s.Plugins, info)
	}
	return s
}

// Line is one line of the trace: an event that the machine took, or an effect that it ordered.
type Line struct {
	// At is the offset from the engine's start; Time the wall clock's view of it.
	At     time.Duration `json:"at"`
	Time   time.Time     `json:"time"`
	Effect bool          `json:"effect,omitempty"`
	Text   string        `json:"text"`
	// Number counts the lines, so that a reader can go on where it stopped.
	Number uint64 `json:"number"`
	// Connection is what began with an effect that announces a state of the connection; nil with any other line.
	Connection *LineConnection `json:"connection,omitempty"`
}

// LineConnection is core.Connection at the time of a line: the machine's own words for it number the routes, and leave out
// what a reader wants to know beside the change.
type LineConnection struct {
	State string `json:"state"`
	// Since is when the state began.
	Since  time.Time  `json:"since"`
	Reason string     `json:"reason"`
	Epoch  core.Epoch `json:"epoch"`
	Route  string     `json:"route"`
	// NextAttempt is when the next attempt is made, as far as was known then; zero where none was planned.
	NextAttempt time.Time   `json:"next_attempt,omitzero"`
	Causes      []LineCause `json:"causes,omitempty"`
}

// LineCause is core.ConnectionCause.
type LineCause struct {
	Route  string `json:"route"`
	Kind   string `json:"kind"`
	Phase  string `json:"phase,omitempty"`
	Reason string `json:"reason"`
	Count  int    `json:"count"`
}

// lineConnection is what the line says that announces c.
func (e *Engine) lineConnection(c core.Connection, s core.Status) *LineConnection {
	l := &LineConnection{State: c.State.String(), Since: e.start.Add(time.Duration(s.Since)), Reason: c.Reason, Epoch: c.Epoch, Route: c.Route}
	if c.State == core.StateWaiting {
		l.NextAttempt = e.start.Add(time.Duration(s.NextAttempt))
	}
	for _, cause := range c.Causes {
		l.Causes = append(l.Causes, LineCause{cause.Route, cause.Kind.String(), cause.Phase, cause.Reason, cause.Count})
	}
	return l
}

// traceKept is how many lines of the trace are kept. Those of the message flow are kept apart, since they would push
// out everything else within a second.
const traceKept = 2048

// trace keeps the last lines as values and writes them out only when someone asks.
type trace struct {
	mu    sync.Mutex
	lines []traced
	next  uint64
	added chan struct{} // closed and replaced at each line
}

type traced struct {
	at     core.Instant
	wall   time.Time
	effect bool
	line   fmt.Stringer
	about  *LineConnection
}

func newTrace() *trace { return &trace{added: make(chan struct{})} }

func (t *trace) event(now core.Instant, ev core.Event) {
	switch ev.(type) {
	case core.Submitted, core.Acked, core.Ticked:
	default:
		t.add(traced{at: now, wall: time.Now(), line: ev})
	}
}

func (t *trace) effect(now core.Instant, f core.Effect) {
	switch f.(type) {
	case core.Send, core.Resolve, core.Forget:
	case core.Announce: // announce adds it, with what it is about
	default:
		t.add(traced{at: now, wall: time.Now(), effect: true, line: f})
	}
}

func (t *trace) add(l traced) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) < traceKept {
		t.lines = append(t.lines, l)
	} else {
		t.lines[t.next%traceKept] = l
	}
	t.next++
	close(t.added)
	t.added = make(chan struct{})
}

// note is a line that is not the machine's.
type note string

func (n note) String() string { return string(n) }

// Note adds a line to the trace: what happened beside the machine, in its style. It may be called from any goroutine.
func (e *Engine) Note(text string) {
	e.trace.add(traced{at: core.Instant(time.Since(e.start)), wall: time.Now(), line: note(text)})
}

// Trace returns the lines with numbers of at least from (as far as they are kept), and a channel that is closed when
// there are more. Lines of the message flow are not part of it.
func (e *Engine) Trace(from uint64) ([]Line, <-chan struct{}) {
	t := e.trace
	t.mu.Lock()
	defer t.mu.Unlock()
	if oldest := t.next - uint64(len(t.lines)); from < oldest {
		from = oldest
	}
	var out []Line
	for n := from; n < t.next; n++ {
		l := t.lines[n%traceKept]
		out = append(out, Line{At: time.Duration(l.at), Time: l.wall, Effect: l.effect, Text: l.line.String(), Number: n, Connection: l.about})
	}
	return out, t.added
}
