package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/fairlead-iot/fairlead/core"
)

// MethodRequest is a call of a direct method that the program answers when it can. It is answered once; Respond may be
// called from any goroutine.
type MethodRequest struct {
	// Name is the method's; Payload the caller's JSON, null where there was none.
	Name    string
	Payload json.RawMessage

	call   context.Context //nolint:containedctx // the call's own life, which the program may watch
	answer chan core.Answer
	mu     sync.Mutex
	done   bool
}

// Done is closed when the call is over: it has been answered, or an answer comes too late, since the method's limit (25 s)
// is over or the client was shut down. In that case the hub has been told so already.
func (r *MethodRequest) Done() <-chan struct{} { return r.call.Done() }

// Respond answers the call with a status and a result, which is marshalled to JSON. nil means that the answer was handed
// over; it leaves in the present session or, if that is lost, in the next one. ErrTimeout means that it came too late,
// ErrTooLarge that it exceeds 128 KiB, ErrInvalid that it does not marshal or that there was one before. After ErrTooLarge
// or a failed marshal another answer may be tried.
func (r *MethodRequest) Respond(status int, result any) error {
	a, err := answerOf(status, result)
	if err != nil {
		return fmt.Errorf("answer method %q: %w", r.Name, err)
	}
	if n := len(a.Payload); n > core.MaxMethodPayload {
		return fmt.Errorf("answer method %q with %d bytes: %w: the hub takes at most %d", r.Name, n, ErrTooLarge, core.MaxMethodPayload)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.done:
		return fmt.Errorf("answer method %q: %w: it has been answered already", r.Name, ErrInvalid)
	case r.call.Err() != nil:
		return fmt.Errorf("answer method %q: %w: the caller has been told that there was no answer", r.Name, ErrTimeout)
	}
	r.done = true
	r.answer <- a
	return nil
}

// wait returns the program's answer.
func (r *MethodRequest) wait() (core.Answer, error) {
	select {
	case a := <-r.answer:
		return a, nil
	case <-r.call.Done():
		return core.Answer{}, r.call.Err()
	}
}

func newMethodRequest(ctx context.Context, d core.Delivery) *MethodRequest {
	payload := json.RawMessage(d.Payload)
	if len(payload) == 0 {
		payload = json.RawMessage("null")
	}
	return &MethodRequest{Name: d.Method, Payload: payload, call: ctx, answer: make(chan core.Answer, 1)}
}

// HandleMethodRequests sets what is told of the calls of every method that has no handler of its own (HandleMethod). f
// answers by Respond, at once or later and from elsewhere; calls come several at once. nil removes it.
func (c *Client) HandleMethodRequests(f func(*MethodRequest)) {
	if f == nil {
		c.HandleMethod(AnyMethod, nil)
		return
	}
	c.in.setMethod(AnyMethod, func(ctx context.Context, d core.Delivery) (core.Answer, error) {
		r := newMethodRequest(ctx, d)
		f(r)
		return r.wait()
	})
	c.engine.Reregister(0)
}

// MethodRequests gives the calls of a method, or with AnyMethod of all that have no handler, one after the other: those
// that come before the loop is ready for them wait within their limit. The loop answers by Respond, in its body or later.
//
//	for r, err := range c.MethodRequests(ctx, "reboot") {
//		if err != nil {
//			return err
//		}
//		...
//		err = r.Respond(200, nil)
//	}
//
// It ends with an error: ErrCancelled or ErrTimeout when ctx ends, ErrClosed after Shutdown. After a loop that was left
// the calls wait for the next one, until HandleMethod says otherwise; loops over one name at the same time share its
// calls. A name that has a handler gives ErrInvalid.
func (c *Client) MethodRequests(ctx context.Context, name string) iter.Seq2[*MethodRequest, error] {
	return func(yield func(*MethodRequest, error) bool) {
		queue, err := c.in.pullMethod(name)
		if err != nil {
			yield(nil, err)
			return
		}
		c.engine.Reregister(0)
		pull(ctx, c, queue, yield)
	}
}

// Received is a message that waits for the program's verdict. Without one it is completed.
type Received struct {
	*Message
	verdict error
	done    chan error
}

// Abandon has the message handed out again a little later.
func (r *Received) Abandon() { r.verdict = ErrAbandon }

// Reject makes the message a dead letter. Over MQTT the hub is not told.
func (r *Received) Reject() { r.verdict = errRejected }

var errRejected = errors.New("rejected by the program")

// Messages gives the cloud-to-device messages (for a module, those of its inputs), one after the other, in order. When the
// loop comes back for the next one, or is left by break or return, the message is completed, unless Abandon or Reject was
// called; when the loop's body panics it is abandoned.
//
//	for m, err := range c.Messages(ctx) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(string(m.Payload))
//	}
//
// The loop ends as that of MethodRequests does. A message that no loop takes for 50 s is a dead letter. With a handler of
// messages set, it gives ErrInvalid.
func (c *Client) Messages(ctx context.Context) iter.Seq2[*Received, error] {
	return func(yield func(*Received, error) bool) {
		queue, err := c.in.pullMessages()
		if err != nil {
			yield(nil, err)
			return
		}
		c.engine.Reregister(0)
		pull(ctx, c, queue, func(r *Received, err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			returned := false
			defer func() {
				if !returned {
					r.verdict = ErrAbandon
				}
				r.done <- r.verdict
			}()
			goOn := yield(r, nil)
			returned = true
			return goOn
		})
	}
}

// DesiredChanges gives the states of the desired properties, as HandleDesired's handler would be: the present one first.
// Changes that come during the loop's body are given together. The loop ends as that of MethodRequests does; with a
// handler of desired properties set, it gives ErrInvalid.
func (c *Client) DesiredChanges(ctx context.Context) iter.Seq2[Desired, error] {
	return func(yield func(Desired, error) bool) {
		box, err := c.in.pullDesired()
		if err != nil {
			yield(Desired{}, err)
			return
		}
		c.engine.Reregister(0)
		for {
			d, changed, ok := box.take()
			if ok {
				if !yield(d, nil) {
					return
				}
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(Desired{}, pullEnd(ctx))
				return
			case <-c.ended:
				yield(Desired{}, ErrClosed)
				return
			}
		}
	}
}

// pull gives what a queue holds until something ends it.
func pull[T any](ctx context.Context, c *Client, queue <-chan T, yield func(T, error) bool) {
	var none T
	for {
		if ctx.Err() != nil { // it counts for more than what waits
			yield(none, pullEnd(ctx))
			return
		}
		select {
		case v := <-queue:
			if !yield(v, nil) {
				return
			}
		case <-ctx.Done():
		case <-c.ended:
			yield(none, ErrClosed)
			return
		}
	}
}

func pullEnd(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("receive: %w: %w", ErrTimeout, ctx.Err())
	}
	return fmt.Errorf("receive: %w: %w", ErrCancelled, ctx.Err())
}

// pulled is what the loops of Messages, MethodRequests and DesiredChanges take from.
type pulled struct {
	methods  map[string]chan *MethodRequest
	messages chan *Received
	desired  *mailbox
}

func errHandled(what string) error {
	return fmt.Errorf("receive %s: %w: a handler is set for that; remove it (nil), or use it", what, ErrInvalid)
}

func (h *handlers) pullMethod(name string) (<-chan *MethodRequest, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if queue := h.pulled.methods[name]; queue != nil {
		return queue, nil
	}
	if h.methods[name] != nil {
		return nil, errHandled(fmt.Sprintf("method %q", name))
	}
	queue := make(chan *MethodRequest)
	if h.pulled.methods == nil {
		h.pulled.methods = map[string]chan *MethodRequest{}
	}
	h.pulled.methods[name] = queue
	h.methods[name] = func(ctx context.Context, d core.Delivery) (core.Answer, error) {
		r := newMethodRequest(ctx, d)
		select {
		case queue <- r:
			return r.wait()
		case <-ctx.Done():
			return core.Answer{}, ctx.Err()
		}
	}
	return queue, nil
}

func (h *handlers) pullMessages() (<-chan *Received, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pulled.messages != nil {
		return h.pulled.messages, nil
	}
	if h.messages != nil {
		return nil, errHandled("messages")
	}
	queue := make(chan *Received)
	h.pulled.messages = queue
	h.messages = func(ctx context.Context, m *Message) error {
		r := &Received{Message: m, done: make(chan error, 1)}
		select {
		case queue <- r:
		case <-ctx.Done():
			return ErrAbandon
		}
		select {
		case err := <-r.done:
			return err
		case <-ctx.Done():
			return ErrAbandon
		}
	}
	return queue, nil
}

func (h *handlers) pullDesired() (*mailbox, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pulled.desired != nil {
		return h.pulled.desired, nil
	}
	if h.desired != nil {
		return nil, errHandled("desired properties")
	}
	box := &mailbox{changed: make(chan struct{})}
	h.pulled.desired = box
	h.desired = func(_ context.Context, d Desired) error { return box.put(d) }
	return box, nil
}

// mailbox holds the one state of the desired properties that nobody has taken yet.
type mailbox struct {
	mu      sync.Mutex
	full    bool
	state   Desired
	changed chan struct{} // closed and replaced at each put
}

// put adds a state: what had not been taken is joined with it, so that the patch leads from what was taken last.
func (b *mailbox) put(d Desired) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full {
		switch {
		case b.state.Patch == nil: // the first: there is nothing that a patch could lead from
			d.Patch = nil
		case d.Patch != nil:
			joined, err := core.JoinPatches(b.state.Patch, d.Patch)
			if err != nil {
				return fmt.Errorf("join desired patches: %w", err)
			}
			d.Patch = joined
		}
	}
	b.full, b.state = true, d
	close(b.changed)
	b.changed = make(chan struct{})
	return nil
}

// take returns the state, or what to wait for.
func (b *mailbox) take() (d Desired, changed <-chan struct{}, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok = b.state, b.full
	b.full, b.state = false, Desired{}
	return d, b.changed, ok
}
