package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/fairlead-iot/fairlead/core"
)

// MethodHandler answers a direct method call. payload is the caller's JSON. The result is marshalled to JSON; an error
// is answered with status 500 and its text. ctx ends at the method's limit.
type MethodHandler func(ctx context.Context, payload json.RawMessage) (status int, result any, err error)

// MessageHandler handles a message. nil completes it, ErrAbandon has it handed out again a little later, any other
// error makes it a dead letter.
type MessageHandler func(ctx context.Context, m *Message) error

// DesiredHandler applies a state of the desired properties.
type DesiredHandler func(ctx context.Context, d core.Desired) error

// ErrAbandon is returned by a MessageHandler that cannot handle the message now; it is handed out again within 50 s of its
// arrival, and then is a dead letter.
var ErrAbandon = errors.New("abandon the message")

// methodFunc answers a method call; err is what its handler failed with.
type methodFunc func(ctx context.Context, d core.Delivery) (core.Answer, error)

// handlers is the plugin within this process: the functions that the program has set.
type handlers struct {
	mu       sync.Mutex
	methods  map[string]methodFunc // AnyMethod is among the names
	messages MessageHandler
	desired  DesiredHandler
	pulled   pulled
	active   int // calls under way
	closing  bool
	done     chan struct{}
	close    func()
}

var (
	_ core.Launcher = (*handlers)(nil)
	_ core.Plugin   = (*handlers)(nil)
)

func newHandlers() *handlers {
	h := &handlers{methods: map[string]methodFunc{}, done: make(chan struct{})}
	h.close = sync.OnceFunc(func() { close(h.done) })
	return h
}

func (h *handlers) setMethod(name string, f methodFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.pulled.methods, name)
	if f == nil {
		delete(h.methods, name)
		return
	}
	h.methods[name] = f
}

func (h *handlers) setMessages(f MessageHandler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages, h.pulled.messages = f, nil
}

func (h *handlers) setDesired(f DesiredHandler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.desired, h.pulled.desired = f, nil
}

// Launch implements core.Launcher: there is nothing to start.
func (h *handlers) Launch(context.Context, core.Device) (core.Plugin, error) { return h, nil }

// Info implements core.Plugin.
func (h *handlers) Info() core.PluginInfo {
	h.mu.Lock()
	defer h.mu.Unlock()
	return core.PluginInfo{Methods: slices.Sorted(maps.Keys(h.methods)), Messages: h.messages != nil, Desired: h.desired != nil}
}

// Handle implements core.Plugin. It ends when ctx does; a handler that does not is left behind, so that it holds up
// nobody else.
func (h *handlers) Handle(ctx context.Context, d core.Delivery) (core.Answer, error) {
	h.mu.Lock()
	h.active++
	h.mu.Unlock()
	type result struct {
		answer core.Answer
		err    error
	}
	done := make(chan result, 1)
	go func() {
		defer h.leave()
		answer, err := h.call(ctx, d)
		done <- result{answer, err}
	}()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		select {
		case r := <-done: // its last words
			return r.answer, r.err
		default:
			return core.Answer{}, ctx.Err()
		}
	}
}

// leave notes the end of a call; the last one ends a plugin that is to close.
func (h *handlers) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active--
	if h.closing && h.active == 0 {
		h.close()
	}
}

// call runs the handler. A panic of a handler is an error of that call only.
func (h *handlers) call(ctx context.Context, d core.Delivery) (answer core.Answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			answer, err = failure(d, fmt.Errorf("handler panicked: %v", p)), nil
		}
	}()
	h.mu.Lock()
	messages, desired := h.messages, h.desired
	method, ok := h.methods[d.Method]
	if !ok {
		method = h.methods[core.AnyMethod]
	}
	h.mu.Unlock()
	switch d.Kind {
	case core.InboundMethod:
		if method == nil {
			return core.Answer{Status: 404, Payload: reason("no handler for the method " + d.Method)}, nil
		}
		answer, err := method(ctx, d)
		if err != nil {
			return failure(d, err), nil
		}
		return answer, nil
	case core.InboundMessage:
		if messages == nil {
			return core.Answer{Verdict: core.Reject}, nil
		}
		if err := messages(ctx, d.Message); err != nil {
			return failure(d, err), nil
		}
		return core.Answer{Verdict: core.Complete}, nil
	default:
		if desired == nil {
			return core.Answer{}, nil
		}
		return core.Answer{}, desired(ctx, *d.Desired)
	}
}

// methodOf makes a MethodHandler one of the handlers'.
func methodOf(f MethodHandler) methodFunc {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, d core.Delivery) (core.Answer, error) {
		status, result, err := f(ctx, d.Payload)
		if err != nil {
			return core.Answer{}, err
		}
		return answerOf(status, result)
	}
}

// answerOf makes an answer of a status and of what marshals to JSON.
func answerOf(status int, result any) (core.Answer, error) {
	body, err := json.Marshal(result)
	if err != nil {
		return core.Answer{}, fmt.Errorf("marshal the result: %w: %w", core.ErrInvalid, err)
	}
	return core.Answer{Status: status, Payload: body}, nil
}

// failure is the answer to a call whose handler failed.
func failure(d core.Delivery, err error) core.Answer {
	switch {
	case d.Kind == core.InboundMessage && errors.Is(err, ErrAbandon):
		return core.Answer{Verdict: core.Abandon}
	case d.Kind == core.InboundMessage:
		return core.Answer{Verdict: core.Reject}
	default:
		return core.Answer{Status: 500, Payload: reason(err.Error())}
	}
}

func reason(text string) []byte {
	body, _ := json.Marshal(map[string]string{"error": text}) // strings always marshal
	return body
}

// Close implements core.Plugin: it waits for the calls under way, as long as ctx lets it.
func (h *handlers) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closing = true
	if h.active == 0 {
		h.close()
	}
	h.mu.Unlock()
	select {
	case <-h.done:
		return nil
	case <-ctx.Done():
		h.close()
		return fmt.Errorf("close handlers: %w", ctx.Err())
	}
}

// Done implements core.Plugin.
func (h *handlers) Done() <-chan struct{} { return h.done }

// Err implements core.Plugin.
func (h *handlers) Err() error { return nil }
