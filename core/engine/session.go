package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// attempt is what an epoch has: a context, then a credential, a link, a session. It is filled in by the goroutine of
// the effect that is under way, of which there is one at a time.
type attempt struct {
	epoch core.Epoch
	// route, noRoute before the link is asked for, and connectedAt belong to the engine's goroutine.
	route       int
	connectedAt time.Time

	ctx    context.Context //nolint:containedctx // it is the attempt's life, and ends with it
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu         sync.Mutex
	credential core.Credential
	doubt      string // the credential's, which is kept when the credential has served
	link       core.Link
	opening    time.Duration // how long the link took to open
	session    core.Session
}

func (a *attempt) getSession() core.Session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.session
}

// failed reports the end of an attempt that came to nothing, and lets go of what is kept of it.
func (e *Engine) failed(a *attempt, ev core.Event, f core.Fault) {
	e.inbox.run(func() core.Event {
		if e.attempts[a.epoch] == a {
			delete(e.attempts, a.epoch)
			e.happened(a, AttemptFailed, f, "")
		}
		a.cancel()
		return ev
	})
}

// begin runs one phase of an attempt and posts what it returns, if anything.
func (e *Engine) begin(a *attempt, phase func(ctx context.Context) core.Event) {
	a.work.Add(1)
	e.background(func() {
		defer a.work.Done()
		if ev := phase(a.ctx); ev != nil {
			e.inbox.post(ev)
		}
	})
}

func (e *Engine) fetchCredential(ctx context.Context, epoch core.Epoch) {
	a := &attempt{epoch: epoch, route: noRoute}
	a.ctx, a.cancel = context.WithCancel(ctx)
	e.attempts[epoch] = a
	e.begin(a, func(ctx context.Context) core.Event {
		ctx, cancel := context.WithTimeout(ctx, credentialTimeout)
		defer cancel()
		c, err := e.cfg.Credentials.Credential(ctx)
		if err != nil {
			f := core.FaultOf(fmt.Errorf("fetch credential: %w", err))
			e.failed(a, core.CredentialFailed{Epoch: epoch, Fault: f}, f)
			return nil
		}
		e.who.set(c.Identity)
		a.mu.Lock()
		a.credential, a.doubt = c, c.Doubt
		a.mu.Unlock()
		e.inbox.run(func() core.Event {
			e.noteDoubt(ctx, c.Doubt)
			return core.CredentialFetched{Epoch: epoch, Life: c.Life, Given: c.Given, Fixed: len(c.Certificate) > 0, Doubtful: c.Doubt != "" && c.Life == 0}
		})
		return nil
	})
}

// noteDoubt logs what speaks against a credential, once.
func (e *Engine) noteDoubt(ctx context.Context, doubt string) {
	if doubt != "" && doubt != e.doubt {
		e.log.WarnContext(ctx, "the hub may refuse the device's credential, which is tried all the same", "reason", doubt)
	}
	e.doubt = doubt
}

// fault is the fault of an attempt that failed. What spoke against its credential before is said if the hub refused it.
func (a *attempt) fault(err error) core.Fault {
	a.mu.Lock()
	doubt := a.doubt
	a.mu.Unlock()
	if doubt != "" && core.KindOf(err) == core.Unauthorized {
		err = fmt.Errorf("%s: %w", doubt, err)
	}
	return core.FaultOf(err)
}

func (e *Engine) open(f core.Open) {
	a := e.attempts[f.Epoch]
	a.route = f.Route
	e.begin(a, func(ctx context.Context) core.Event {
		ctx, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		a.mu.Lock()
		c := a.credential
		a.mu.Unlock()
		began := time.Now()
		link, err := e.cfg.Transports[f.Route].Open(ctx, c)
		if err != nil {
			fault := a.fault(err)
			e.failed(a, core.OpenFailed{Epoch: f.Epoch, Fault: fault}, fault)
			return nil
		}
		a.mu.Lock()
		a.link, a.opening = link, time.Since(began)
		a.mu.Unlock()
		return core.Opened{Epoch: f.Epoch}
	})
}

func (e *Engine) connect(epoch core.Epoch) {
	a := e.attempts[epoch]
	a.work.Add(1)
	e.background(func() {
		s, err := e.makeSession(a)
		if err != nil {
			f := a.fault(err)
			e.failed(a, core.ConnectFailed{Epoch: epoch, Fault: f}, f)
			a.work.Done()
			return
		}
		e.inbox.run(func() core.Event {
			if e.attempts[epoch] == a {
				a.connectedAt = time.Now()
				e.happened(a, SessionBegan, core.Fault{}, "")
			}
			return core.Connected{Epoch: epoch, Present: s.Present()}
		})
		a.work.Done()
		e.watchSession(a, s)
	})
}

func (e *Engine) makeSession(a *attempt) (core.Session, error) {
	a.mu.Lock()
	c, link, limit := a.credential, a.link, dialTimeout-a.opening
	a.link, a.credential = nil, core.Credential{} // the token has served
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(a.ctx, limit)
	defer cancel()
	s, err := link.Connect(ctx, c, e.handler(a))
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.session = s
	a.mu.Unlock()
	return s, nil
}

// handler posts what a session reports, marked with its epoch. The order of the wire is the order of the inbox.
func (e *Engine) handler(a *attempt) core.Handler {
	return core.Handler{
		Receive: func(in core.Inbound) { e.inbox.run(func() core.Event { return e.received(a, in) }) },
		Acked: func(lane core.Lane, upto core.Seq) {
			e.inbox.post(core.Acked{Epoch: a.epoch, Lane: lane, Upto: upto})
		},
		Replied: func(r core.Reply) { e.inbox.run(func() core.Event { return e.replied(a.epoch, r) }) },
	}
}

// watchSession reports a session's end.
func (e *Engine) watchSession(a *attempt, s core.Session) {
	select {
	case <-s.Done():
	case <-a.ctx.Done():
		return // it is being closed
	}
	err := s.Err()
	if err == nil {
		err = &core.Error{Op: "session ended", Kind: core.Transient, Clean: true}
	}
	fault := core.FaultOf(err)
	e.inbox.run(func() core.Event {
		if e.attempts[a.epoch] == a {
			delete(e.attempts, a.epoch)
			e.happened(a, SessionLost, fault, "")
		}
		a.cancel()
		return core.Lost{Epoch: a.epoch, Fault: fault}
	})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), closeTimeout)
	defer cancel()
	_ = s.Close(ctx) // it has ended; this frees what it holds
}

// closeAttempt ends an attempt in whatever state, and reports Closed when nothing of it is left.
func (e *Engine) closeAttempt(ctx context.Context, f core.Close) {
	epoch := f.Epoch
	a := e.attempts[epoch]
	delete(e.attempts, epoch)
	if a == nil { // it has just ended by itself
		e.inbox.post(core.Closed{Epoch: epoch})
		return
	}
	if !a.connectedAt.IsZero() {
		e.happened(a, SessionClosed, core.Fault{}, f.Why)
	}
	a.cancel()
	e.background(func() {
		a.work.Wait()
		a.mu.Lock()
		link, session := a.link, a.session
		a.mu.Unlock()
		if session != nil {
			ctx, cancel := context.WithTimeout(ctx, closeTimeout)
			_ = session.Close(ctx) // whether it was orderly changes nothing any more
			cancel()
		}
		if link != nil {
			_ = link.Close()
		}
		e.inbox.post(core.Closed{Epoch: epoch})
	})
}

func (e *Engine) subscribe(f core.Subscribe) {
	a := e.attempts[f.Epoch]
	if a == nil {
		return
	}
	s := a.getSession()
	e.begin(a, func(ctx context.Context) core.Event {
		ctx, cancel := context.WithTimeout(ctx, subscribeTimeout)
		defer cancel()
		err := s.Subscribe(ctx, f.Feature)
		switch {
		case err != nil && isOver(s):
			return nil
		case err != nil:
			return core.SubscribeFailed{Epoch: f.Epoch, Feature: f.Feature, Fault: core.FaultOf(fmt.Errorf("subscribe to %s: %w", f.Feature, err))}
		}
		return core.Subscribed(f)
	})
}

// isOver reports whether a session has ended: what it was asked for is then taken back by Lost or Closed, which may come
// after the error of the call, and is not refused.
func isOver(s core.Session) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

func (e *Engine) send(f core.Send) {
	a := e.attempts[f.Epoch]
	if a == nil {
		return
	}
	batch := e.outbox.collect(f.Lane, f.From, f.To)
	if len(batch) > 0 {
		a.getSession().Send(f.Lane, batch)
	}
}

func (e *Engine) giveUp(f core.GiveUp) {
	runs, live := e.outbox.take(f.Lane, f.From, f.To)
	if f.Why == core.Stopped {
		e.unsent += live
	}
	err := outcomeError(f.Why, e.m.Status().Fault)
	if f.Sent {
		err = fmt.Errorf("%w; it had been sent, and the hub may have it", err)
	}
	settle(runs, err)
}

func settle(runs []settlement, err error) {
	for _, r := range runs {
		if r.by != nil {
			r.by.Settled(r.from, r.to, err)
		}
	}
}

// outcomeError is the error that a caller sees. Where an error of the connection is behind the outcome, the *core.Error in
// its tree says of which kind it was.
func outcomeError(o core.Outcome, f core.Fault) error {
	switch o {
	case core.Cancelled:
		return core.ErrCancelled
	case core.NotConnected:
		return core.ErrNotConnected
	case core.Failed:
		return faultError(core.ErrConnectionFailed, f)
	case core.Dropped:
		return faultError(core.ErrConnectionDropped, f)
	case core.Stopped:
		return core.ErrClosed
	default:
		return nil
	}
}

// faultError makes an error again of what is left of one, with the sentinels that belong to it.
func faultError(sentinel error, f core.Fault) error {
	if f.Reason == "" {
		return sentinel
	}
	if f.Kind == core.Blocked && f.RetryAfter > 0 { // neither a caller nor an operator has it asked sooner
		f.Reason += fmt.Sprintf("; asked again in %v at the earliest", max(time.Second, f.RetryAfter.Round(time.Second)))
	}
	what, is := sentinel.Error(), []error{sentinel}
	if f.Kind == core.Unauthorized {
		what, is = core.ErrCredential.Error()+": "+what, append(is, core.ErrCredential)
	}
	return &core.Error{
		Op: what, Kind: f.Kind, Phase: f.Phase, Status: f.Status, RetryAfter: f.RetryAfter, Clean: f.Clean, Err: &reason{f.Reason, is},
	}
}

// reason is the text of an error that is no more, and what it counts as.
type reason struct {
	text string
	is   []error
}

// Error returns the text.
func (r *reason) Error() string { return r.text }

// Unwrap returns what it counts as.
func (r *reason) Unwrap() []error { return r.is }
