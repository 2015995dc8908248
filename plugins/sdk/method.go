package sdk

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"

	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// MethodHandler answers a direct method. The value it returns is sent as JSON with status 200; a Response gives another
// status; an error is status 500, or that of a StatusError, with {"error": its text}. A panic is a 500 too, and the
// plugin lives on. Handlers run concurrently. ctx ends at the method's deadline, when the answer is of no use any more.
type MethodHandler func(ctx context.Context, req *MethodRequest) (any, error)

// Response is a method's answer with a status of the handler's choice.
type Response struct {
	Status  int // 0 means 200
	Payload any // marshalled to JSON; nil is null, a json.RawMessage is sent as it is
}

// StatusError is a method's refusal: a status, as in HTTP, and a reason for the caller.
type StatusError struct {
	Status int // 0 means 500
	Reason string
}

// Error returns the reason.
func (e *StatusError) Error() string { return e.Reason }

// Errorf returns a StatusError.
func Errorf(status int, format string, args ...any) error {
	return &StatusError{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// MethodRequest is a call of a direct method.
type MethodRequest struct {
	Name string
	// Payload is the caller's JSON; null if there was none.
	Payload json.RawMessage

	call *methodCall
}

// Decode reads the payload into v. Its error is a StatusError of 400, fit to be returned by the handler.
func (r *MethodRequest) Decode(v any) error {
	if err := json.Unmarshal(r.Payload, v); err != nil {
		return Errorf(http.StatusBadRequest, "payload of %s: %v", r.Name, err)
	}
	return nil
}

// Defer takes the answer out of the handler's hands: what the handler returns is ignored, unless it is an error, and
// Respond answers later, from any goroutine. The call's context lives until then.
func (r *MethodRequest) Defer() *DeferredResponse {
	r.call.deferred = true
	return &DeferredResponse{call: r.call}
}

// DeferredResponse answers a method after its handler has returned.
type DeferredResponse struct{ call *methodCall }

// Context ends at the method's deadline and when the call was answered.
func (d *DeferredResponse) Context() context.Context { return d.call.ctx }

// Respond answers the call as a handler's return would. Only the first answer counts.
func (d *DeferredResponse) Respond(v any, err error) { d.call.answer(v, err) }

// methodCall is one open call of a method. deferred is only touched by the handler's goroutine.
type methodCall struct {
	id       uint64
	ctx      context.Context //nolint:containedctx // it is the call's own, and outlives the handler when deferred
	s        *session
	once     sync.Once
	finished func()
	deferred bool
}

// run calls the handler and answers, unless the answer was deferred.
func (c *methodCall) run(h MethodHandler, name string, payload []byte) {
	defer func() {
		if r := recover(); r != nil {
			c.s.dev.log.Error("method handler panicked", "method", name, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			c.answer(nil, fmt.Errorf("method %s: the handler panicked", name))
		}
	}()
	if len(payload) == 0 {
		payload = []byte("null")
	}
	v, err := h(c.ctx, &MethodRequest{Name: name, Payload: payload, call: c})
	if !c.deferred || err != nil {
		c.answer(v, err)
	}
}

func (c *methodCall) answer(v any, err error) {
	status, payload := c.encode(v, err)
	c.once.Do(func() {
		c.s.out.control(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Return{
			Return: &pluginv1.Return{Id: c.id, Status: int32(status), Payload: payload},
		}})
		c.finished()
	})
}

// encode is encodeAnswer, whatever the author's MarshalJSON does: a call without an answer would stay open until its
// deadline.
func (c *methodCall) encode(v any, err error) (status int, payload []byte) {
	defer func() {
		if r := recover(); r != nil {
			c.s.dev.log.Error("method answer panicked", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			status, payload = http.StatusInternalServerError, reason("encoding the answer panicked")
		}
	}()
	return encodeAnswer(v, err)
}

// encodeAnswer turns what a handler returned into a status and JSON.
func encodeAnswer(v any, err error) (status int, payload []byte) {
	if err != nil {
		status = http.StatusInternalServerError
		if se, ok := errors.AsType[*StatusError](err); ok && se.Status != 0 {
			status = se.Status
		}
		return status, reason(err.Error())
	}
	status = http.StatusOK
	switch r := v.(type) {
	case Response:
		status, v = cmp.Or(r.Status, status), r.Payload
	case *Response:
		if r == nil {
			v = nil // a typed nil is null, as for any other pointer
			break
		}
		status, v = cmp.Or(r.Status, status), r.Payload
	}
	payload, err = json.Marshal(v)
	if err != nil {
		return http.StatusInternalServerError, reason("encode answer: " + err.Error())
	}
	return status, payload
}

// reason is the JSON body of every refusal.
func reason(text string) []byte {
	b, err := json.Marshal(map[string]string{"error": text})
	if err != nil {
		return []byte(`{"error":"unknown"}`) // cannot happen: strings always marshal
	}
	return b
}
