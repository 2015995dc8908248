package coretest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Hub is a hub in memory behind fake ports: a core.Transport and a core.CredentialSource at once. It models one session
// at a time, acknowledgements in order, subscriptions, and a twin. It does not model persistent sessions, redelivery,
// properties of messages, or sizes: package hub does. The zero value is not ready; use NewHub.
type Hub struct {
	mu sync.Mutex
	// Life is the credentials'; 0 is for ever. Set before use.
	Life time.Duration

	refuse   []error // what the next opens end with
	withhold bool
	session  *Session
	sessions int
	received []*core.Message
	tokens   int
	desired  map[string]any
	version  int64
	reported map[string]any
	answers  []core.MethodResponse
	complete []uint64
	changed  chan struct{} // closed and replaced when something above changes
}

var (
	_ core.Transport        = (*Hub)(nil)
	_ core.CredentialSource = (*Hub)(nil)
)

// NewHub makes a hub that takes everything.
func NewHub() *Hub {
	return &Hub{desired: map[string]any{}, version: 1, reported: map[string]any{}, changed: make(chan struct{})}
}

// Name implements core.Transport.
func (h *Hub) Name() string { return "fake" }

// Credential implements core.CredentialSource.
func (h *Hub) Credential(context.Context) (core.Credential, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens++
	return core.Credential{Token: core.Secret(fmt.Sprintf("token %d", h.tokens)), Life: h.Life}, nil
}

// Open implements core.Transport.
func (h *Hub) Open(ctx context.Context, _ core.Credential) (core.Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(h.refuse) > 0 {
		err := h.refuse[0]
		h.refuse = h.refuse[1:]
		if err != nil {
			return nil, err
		}
	}
	return link{h}, nil
}

type link struct{ hub *Hub }

func (l link) Close() error { return nil }

func (l link) Connect(ctx context.Context, _ core.Credential, h core.Handler) (core.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if old := l.hub.session; old != nil {
		old.end(&core.Error{Op: "session taken over", Kind: core.Transient, Clean: true})
	}
	l.hub.sessions++
	s := &Session{hub: l.hub, handler: h, done: make(chan struct{}), inbox: make(chan func(), 10_000)}
	l.hub.session = s
	go s.report()
	l.hub.noteLocked()
	return s, nil
}

// Session is one session of the fake hub.
type Session struct {
	hub     *Hub
	handler core.Handler
	inbox   chan func() // reports, carried out one at a time
	done    chan struct{}
	once    sync.Once
	err     error

	mu      sync.Mutex
	subs    map[core.Feature]bool
	waiting []func() // messages until they are subscribed to, as the hub keeps them
}

var _ core.Session = (*Session)(nil)

func (s *Session) report() {
	for {
		select {
		case f := <-s.inbox:
			select {
			case <-s.done:
				return
			default:
				f()
			}
		case <-s.done:
			return
		}
	}
}

func (s *Session) end(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.done)
	})
}

// Present implements core.Session.
func (s *Session) Present() bool { return false }

// Subscribe implements core.Session.
func (s *Session) Subscribe(_ context.Context, f core.Feature) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs == nil {
		s.subs = map[core.Feature]bool{}
	}
	s.subs[f] = true
	if f == core.FeatureMessages {
		for _, deliver := range s.waiting {
			s.inbox <- deliver
		}
		s.waiting = nil
	}
	return nil
}

// Send implements core.Session: everything is received, and acknowledged unless Withhold is on.
func (s *Session) Send(lane core.Lane, batch []core.Outbound) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.isOver() {
		return
	}
	for _, out := range batch {
		s.hub.received = append(s.hub.received, out.Message)
	}
	s.hub.noteLocked()
	if s.hub.withhold {
		return
	}
	upto := batch[len(batch)-1].Seq
	s.inbox <- func() { s.handler.Acked(lane, upto) }
}

// Request implements core.Session.
func (s *Session) Request(r core.Request) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.isOver() {
		return
	}
	reply := core.Reply{ID: r.ID, Status: 204, Version: 2}
	if r.Kind == core.TwinGet {
		reply.Status, reply.Version = 200, 0
		reply.Payload = s.hub.twinLocked()
	} else {
		_ = json.Unmarshal(r.Payload, &s.hub.reported)
		s.hub.noteLocked()
	}
	s.inbox <- func() { s.handler.Replied(reply) }
}

// Respond implements core.Session.
func (s *Session) Respond(_ context.Context, r core.MethodResponse) error {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.isOver() {
		return &core.Error{Op: "respond", Kind: core.Transient, Err: errOver}
	}
	s.hub.answers = append(s.hub.answers, r)
	s.hub.noteLocked()
	return nil
}

// Complete implements core.Session.
func (s *Session) Complete(token uint64) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.isOver() {
		return
	}
	s.hub.complete = append(s.hub.complete, token)
	s.hub.noteLocked()
}

// Close implements core.Session.
func (s *Session) Close(context.Context) error {
	s.end(nil)
	return nil
}

// Done implements core.Session.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err implements core.Session.
func (s *Session) Err() error {
	if s.isOver() {
		return s.err
	}
	return nil
}

// isOver reports whether the session has ended: then nothing reaches the hub any more.
func (s *Session) isOver() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

var errOver = errors.New("the session is over")

func (h *Hub) noteLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *Hub) twinLocked() []byte {
	desired := map[string]any{"$version": h.version}
	maps.Copy(desired, h.desired)
	b, _ := json.Marshal(map[string]any{"desired": desired, "reported": h.reported}) // maps of JSON values marshal
	return b
}

// Refuse makes the next opens end with these errors, in order; nil lets one pass.
func (h *Hub) Refuse(errs ...error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuse = append(h.refuse, errs...)
}

// Withhold makes the hub receive without acknowledging, or ends that for later messages.
func (h *Hub) Withhold(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.withhold = on
}

// Lose ends the present session with an error; it reports whether there was one.
func (h *Hub) Lose(err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session == nil {
		return false
	}
	h.session.end(err)
	h.session = nil
	return true
}

// Push sends something to the device over the present session; a message when it has subscribed to them.
func (h *Hub) Push(in core.Inbound) {
	h.mu.Lock()
	s := h.session
	h.mu.Unlock()
	if s == nil {
		return
	}
	deliver := func() { s.handler.Receive(in) }
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Kind == core.InboundMessage && !s.subs[core.FeatureMessages] {
		s.waiting = append(s.waiting, deliver)
		return
	}
	s.inbox <- deliver
}

// SetDesired sets desired properties and, with push, tells the device.
func (h *Hub) SetDesired(patch map[string]any, push bool) {
	h.mu.Lock()
	h.version++
	with := map[string]any{"$version": h.version}
	for k, v := range patch {
		h.desired[k] = v
		with[k] = v
	}
	version := h.version
	h.mu.Unlock()
	if push {
		b, _ := json.Marshal(with) // a map of JSON values marshals
		h.Push(core.Inbound{Kind: core.InboundDesired, Version: version, Payload: b})
	}
}

// State is what the hub has seen.
type State struct {
	Sessions  int
	Received  []*core.Message
	Answers   []core.MethodResponse
	Completed []uint64
	Reported  map[string]any
}

// State returns a copy of what the hub has seen, and a channel that is closed when that changes.
func (h *Hub) State() (State, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return State{
		Sessions: h.sessions, Received: slices.Clone(h.received), Answers: slices.Clone(h.answers), Completed: slices.Clone(h.complete),
		Reported: h.reported,
	}, h.changed
}
