package iot

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// call is a direct method call that waits for its answer.
type call struct {
	ident  *identity
	answer chan api.MethodResponse // holds one
}

// InvokeMethod calls a direct method and waits for the answer. Errors are
// *api.Error: 404103 when the device is not there or not subscribed within the
// connect timeout, 504101 when it does not answer in time, 400004 for a timeout
// or payload out of bounds; and the context's.
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-direct-methods
func (s *Service) InvokeMethod(ctx context.Context, id api.ID, r api.MethodRequest) (api.MethodResponse, error) {
	wait, timeout, err := checkMethod(&r)
	if err != nil {
		return api.MethodResponse{}, err
	}
	connected := time.NewTimer(wait)
	defer connected.Stop()
	for {
		c, rid, changed, err := s.tryMethod(id, r)
		if err != nil {
			return api.MethodResponse{}, err
		}
		if c != nil {
			return s.awaitAnswer(ctx, id, c, rid, timeout)
		}
		if wait == 0 {
			return api.MethodResponse{}, api.Refuse(api.CodeNotOnline, "The operation failed because the requested device isn't online. To learn more, see https://aka.ms/iothub404103")
		}
		select {
		case <-changed:
		case <-connected.C:
			return api.MethodResponse{}, api.Refuse(api.CodeNotOnline, "Timed out waiting for device to connect.")
		case <-ctx.Done():
			return api.MethodResponse{}, fmt.Errorf("wait for device %s: %w", id, ctx.Err())
		case <-s.done:
			return api.MethodResponse{}, api.Refuse(api.CodeServerError, "the hub stops")
		}
	}
}

func checkMethod(r *api.MethodRequest) (wait, timeout time.Duration, err error) {
	timeout = methodTimeout
	if v := r.ResponseTimeoutInSeconds; v != nil {
		if *v < minMethodTimeout || *v > maxMethodTimeout {
			return 0, 0, api.Refuse(api.CodeArgumentInvalid, "responseTimeoutInSeconds must be within [%d; %d].", minMethodTimeout, maxMethodTimeout)
		}
		timeout = time.Duration(*v) * time.Second
	}
	if v := r.ConnectTimeoutInSeconds; v != nil {
		if *v < 0 || *v > maxMethodConnectWait {
			return 0, 0, api.Refuse(api.CodeArgumentInvalid, "connectTimeoutInSeconds must be within [0; %d].", maxMethodConnectWait)
		}
		wait = time.Duration(*v) * time.Second
	}
	if r.MethodName == "" || len(r.MethodName) > maxMethodName {
		return 0, 0, api.Refuse(api.CodeArgumentInvalid, "methodName is missing or longer than %d bytes", maxMethodName)
	}
	if len(r.Payload) == 0 {
		r.Payload = json.RawMessage("null")
	}
	if len(r.Payload) > maxMethodPayload {
		return 0, 0, api.Refuse(api.CodeArgumentInvalid, "the payload has %d bytes, at most %d", len(r.Payload), maxMethodPayload)
	}
	if !json.Valid(r.Payload) {
		return 0, 0, api.Refuse(api.CodeArgumentInvalid, "the payload is not JSON")
	}
	return wait, timeout, nil
}

// tryMethod sends the call if the device is there; otherwise it gives a channel
// that is closed when that may have changed.
func (s *Service) tryMethod(id api.ID, r api.MethodRequest) (*call, string, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(id)
	if err != nil {
		return nil, "", nil, err
	}
	se := ident.live
	if se == nil || !se.features[FeatureMethods] {
		return nil, "", ident.changed, nil
	}
	inFlight := 0
	for _, c := range s.calls {
		if c.ident == ident {
			inFlight++
		}
	}
	if inFlight >= s.cfg.Unsettled.MethodsInFlight {
		return nil, "", nil, api.Refuse(api.CodeThrottled, "device %s has %d direct methods in flight", id, inFlight)
	}
	s.nextCall++
	rid := strconv.FormatUint(s.nextCall, 16)
	c := &call{ident: ident, answer: make(chan api.MethodResponse, 1)}
	s.calls[rid] = c
	ident.counters.MethodsSent++
	s.saw(id, api.SawMethod, r.MethodName, []byte(r.Payload))
	if _, swallowed := s.strike(api.FaultMethodBlackHole, id); !swallowed {
		se.link.Method(rid, r.MethodName, r.Payload)
	}
	return c, rid, nil, nil
}

func (s *Service) awaitAnswer(ctx context.Context, id api.ID, c *call, rid string, timeout time.Duration) (api.MethodResponse, error) {
	defer func() {
		s.mu.Lock()
		delete(s.calls, rid)
		s.mu.Unlock()
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case answer := <-c.answer:
		return answer, nil
	case <-timer.C:
		s.mu.Lock()
		c.ident.counters.MethodsTimedOut++
		s.mu.Unlock()
		return api.MethodResponse{}, api.Refuse(api.CodeGatewayTimeout, "Timed out waiting for the response from device.")
	case <-ctx.Done():
		return api.MethodResponse{}, fmt.Errorf("wait for the answer of %s: %w", id, ctx.Err())
	case <-s.done:
		return api.MethodResponse{}, api.Refuse(api.CodeServerError, "the hub stops")
	}
}

// Answer takes a direct method's answer. A late one, or one to a call that never
// was, is dropped. The answer may come in a later session than the call.
func (se *Session) Answer(rid string, status int, payload []byte) {
	s := se.svc
	if len(payload) == 0 {
		payload = []byte("null")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !se.isLive() {
		return
	}
	se.touch()
	c, ok := s.calls[rid]
	if !ok || c.ident != se.ident || len(payload) > maxMethodPayload || !json.Valid(payload) {
		se.ident.counters.MethodResponsesLate++
		return
	}
	delete(s.calls, rid)
	se.ident.counters.MethodsAnswered++
	s.saw(se.ident.id, api.SawAnswer, status, payload)
	c.answer <- api.MethodResponse{Status: status, Payload: append(json.RawMessage(nil), payload...)}
}
