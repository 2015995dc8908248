package device

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Limits of a method call, the hub's: https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-direct-methods
const (
	// callTimeout is how long the Edge hub waits for an answer where a call does not say.
	callTimeout    = 30 * time.Second
	callTimeoutMin = 5 * time.Second
	callTimeoutMax = 300 * time.Second
	// callSlack is how much longer than the Edge hub the caller waits, ours. Microsoft's client gives up after 10 s,
	// though the method may take longer.
	callSlack = 15 * time.Second
)

// MethodCall is a direct method that a module of IoT Edge calls.
type MethodCall struct {
	Name string
	// Payload is anything that marshals to JSON; nil for null.
	Payload any
	// ResponseTimeout is how long the called one may take: 5 s to 300 s, in whole seconds; 30 s if not set.
	ResponseTimeout time.Duration
	// ConnectTimeout is how long to wait for it to be connected, up to 300 s; not at all if not set.
	ConnectTimeout time.Duration
}

// MethodResult is what the called device or module answered.
type MethodResult struct {
	Status  int             `json:"status"`
	Payload json.RawMessage `json:"payload"`
}

// InvokeMethod calls a direct method of another module, or of a device, by way of the Edge hub; moduleID is "" for a
// device's own. Only modules that FromEdgeEnvironment made can: ErrUnsupported otherwise. It needs no session, and tries
// once, until ctx ends or the call's own timeouts are over. ErrInvalid: the call is malformed. ErrService: the Edge hub
// says no, with its status (404: not connected; 504: no answer in time) in the *Error; ErrCredential when it does not
// believe the module.
//
// https://learn.microsoft.com/azure/iot-edge/module-development
func (c *Client) InvokeMethod(ctx context.Context, deviceID, moduleID string, call MethodCall) (MethodResult, error) {
	if c.invoker == nil {
		return MethodResult{}, fmt.Errorf("invoke method %q: %w: only a module that FromEdgeEnvironment made can call others", call.Name, ErrUnsupported)
	}
	target := Identity{DeviceID: deviceID, ModuleID: moduleID}
	r, err := c.invoke(ctx, target, call)
	if err != nil {
		return MethodResult{}, fmt.Errorf("invoke method %q of %s: %w", call.Name, target.ClientID(), err)
	}
	return r, nil
}

// methodBody is the request's form.
type methodBody struct {
	Name            string `json:"methodName"`
	Payload         any    `json:"payload"`
	ResponseTimeout int    `json:"responseTimeoutInSeconds,omitempty"`
	ConnectTimeout  int    `json:"connectTimeoutInSeconds,omitempty"`
}

// encode checks a call and returns its body, and how long it may take.
func (m MethodCall) encode() ([]byte, time.Duration, error) {
	response := cmp.Or(m.ResponseTimeout, callTimeout)
	switch {
	case m.Name == "":
		return nil, 0, fmt.Errorf("%w: it has no name", ErrInvalid)
	case response < callTimeoutMin || response > callTimeoutMax:
		return nil, 0, fmt.Errorf("ResponseTimeout is %v: %w: give it %v to %v", m.ResponseTimeout, ErrInvalid, callTimeoutMin, callTimeoutMax)
	case m.ConnectTimeout < 0 || m.ConnectTimeout > callTimeoutMax:
		return nil, 0, fmt.Errorf("ConnectTimeout is %v: %w: give it 0 to %v", m.ConnectTimeout, ErrInvalid, callTimeoutMax)
	}
	text, err := json.Marshal(methodBody{m.Name, m.Payload, int(m.ResponseTimeout / time.Second), int(m.ConnectTimeout / time.Second)})
	if err != nil {
		return nil, 0, fmt.Errorf("payload: %w: %w", ErrInvalid, err)
	}
	return text, response + m.ConnectTimeout + callSlack, nil
}

func (c *Client) invoke(ctx context.Context, target Identity, call MethodCall) (MethodResult, error) {
	var result MethodResult
	body, limit, err := call.encode()
	if err != nil {
		return result, err
	}
	if target.DeviceID == "" {
		return result, fmt.Errorf("%w: no device is named", ErrInvalid)
	}
	text, err := c.invoker.InvokeMethod(ctx, target, body, limit)
	if err != nil {
		return result, invokeError(ctx, err)
	}
	if err := json.Unmarshal(text, &result); err != nil {
		return result, &core.Error{Op: "read answer", Kind: core.Refused, Err: fmt.Errorf("it is not JSON: %w", err)}
	}
	return result, nil
}

// invokeError gives an error the sentinel by which callers of this package tell it.
func invokeError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrService), errors.Is(err, ErrCredential), errors.Is(err, ErrInvalid), errors.Is(err, ErrTooLarge), errors.Is(err, ErrTimeout):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrCancelled, err)
	}
	return fmt.Errorf("%w: %w", ErrConnectionFailed, err)
}
