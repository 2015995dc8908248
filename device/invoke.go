package device

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// Facts of the Edge hub's HTTPS, as Microsoft's clients have them.
const (
	httpsPort        = 443
	invokeAPIVersion = "2019-10-01"
	// callerHeader names the module that calls, "device/module".
	callerHeader = "x-ms-edge-moduleId"
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
	// callAnswer bounds an answer, ours: a payload of 128 KiB and what stands around it.
	callAnswer = 512 << 10
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
	r, err := c.invoker.invoke(ctx, deviceID, moduleID, call)
	if err != nil {
		return MethodResult{}, fmt.Errorf("invoke method %q of %s: %w", call.Name, Identity{DeviceID: deviceID, ModuleID: moduleID}.ClientID(), err)
	}
	return r, nil
}

// invoker calls methods by an Edge hub's HTTPS. Its source is one that may be asked from any goroutine, as those of
// credentials.EdgeEnvironment may.
type invoker struct {
	base   string // "https://gateway"
	caller string
	agent  string
	source core.CredentialSource
	client *http.Client
	dialer atomic.Pointer[netdial.Dialer] // by what is trusted now
}

// newInvoker makes an invoker, which needs trust before it is of use.
func newInvoker(o *Options, id Identity, source core.CredentialSource) *invoker {
	i := &invoker{
		base: "https://" + id.Gateway, caller: id.ClientID(), agent: strings.TrimSpace(o.UserAgent + " " + o.ProductInfo), source: source,
	}
	transport := &http.Transport{
		DisableKeepAlives: true, // a call now and then, to a neighbour; the dialer has the proxy
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := i.dialer.Load().Dial(ctx, core.Credential{})
			if err != nil {
				return nil, err // not a *tls.Conn that is nil
			}
			return conn, nil
		},
	}
	i.client = &http.Client{
		Transport: transport,
		// Another host than the gateway is not to be asked, and another scheme would know of no proxy.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return i
}

// trust has the Edge hub known by the options' authorities from now on.
func (i *invoker) trust(o *Options, id Identity) error {
	trust, err := o.tls()
	if err != nil {
		return err
	}
	d, err := netdial.New(netdial.Config{
		Host: id.Gateway, Port: cmp.Or(o.HTTPSPort, httpsPort), Address: o.Address, TLS: trust, Proxy: o.Proxy, DialContext: netdial.ContextDialer(o.DialContext),
	})
	if err == nil {
		i.dialer.Store(d)
	}
	return err
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

func (i *invoker) invoke(ctx context.Context, deviceID, moduleID string, call MethodCall) (MethodResult, error) {
	body, limit, err := call.encode()
	if err != nil {
		return MethodResult{}, err
	}
	if deviceID == "" {
		return MethodResult{}, fmt.Errorf("%w: no device is named", ErrInvalid)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	proof, err := i.source.Credential(ctx)
	if err != nil {
		return MethodResult{}, err
	}
	path := "/twins/" + url.PathEscape(deviceID)
	if moduleID != "" {
		path += "/modules/" + url.PathEscape(moduleID)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.base+path+"/methods?api-version="+invokeAPIVersion, bytes.NewReader(body))
	if err != nil {
		return MethodResult{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", proof.Token.Reveal())
	r.Header[callerHeader] = []string{i.caller}
	if i.agent != "" {
		r.Header.Set("User-Agent", i.agent)
	}
	resp, err := i.client.Do(r)
	if err != nil {
		return MethodResult{}, invokeError(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // it has been read
	text, err := io.ReadAll(io.LimitReader(resp.Body, callAnswer+1))
	switch {
	case err != nil:
		return MethodResult{}, invokeError(ctx, fmt.Errorf("read answer: %w", err))
	case len(text) > callAnswer:
		return MethodResult{}, &core.Error{Op: "read answer", Kind: core.Refused, Err: fmt.Errorf("it has more than %d bytes: %w", callAnswer, ErrTooLarge)}
	case resp.StatusCode != http.StatusOK:
		return MethodResult{}, refusal(resp, text)
	}
	var result MethodResult
	if err := json.Unmarshal(text, &result); err != nil {
		return MethodResult{}, &core.Error{Op: "read answer", Kind: core.Refused, Err: fmt.Errorf("it is not JSON: %w", err)}
	}
	return result, nil
}

// invokeError tells the end of the caller's patience from trouble on the way.
func invokeError(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	switch cause := ctx.Err(); {
	case errors.Is(cause, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case cause != nil:
		return fmt.Errorf("%w: %w", ErrCancelled, err)
	}
	if _, ok := errors.AsType[*core.Error](err); ok {
		return fmt.Errorf("%w: %w", ErrConnectionFailed, err)
	}
	return &core.Error{Op: "ask the Edge hub", Kind: core.Transient, Err: fmt.Errorf("%w: %w", ErrConnectionFailed, err)}
}

// maxRetryAfter bounds what the Edge hub may ask for, in seconds.
const maxRetryAfter = 3600

// statusKinds are the kinds of HTTP statuses; others from 500 on are Transient, the rest Refused.
var statusKinds = map[int]core.Kind{http.StatusUnauthorized: core.Unauthorized, http.StatusTooManyRequests: core.Throttled}

// refusal makes an error of an answer other than 200.
func refusal(resp *http.Response, body []byte) error {
	kind, known := statusKinds[resp.StatusCode]
	switch {
	case known:
	case resp.StatusCode >= http.StatusInternalServerError:
		kind = core.Transient
	default:
		kind = core.Refused
	}
	var said struct{ Message string }
	_ = json.Unmarshal(body, &said) // what is not JSON has no more to say than its status
	var inner struct{ Message string }
	if json.Unmarshal([]byte(said.Message), &inner) == nil && inner.Message != "" {
		said = inner // a method's refusal is a text within a text
	}
	err := fmt.Errorf("%w: %s: %.300s", ErrService, resp.Status, cmp.Or(said.Message, "no reason given"))
	if kind == core.Unauthorized {
		err = fmt.Errorf("%w: %w", err, ErrCredential)
	}
	e := &core.Error{Op: "ask the Edge hub", Kind: kind, Status: resp.StatusCode, TrackingID: resp.Header.Get("x-ms-request-id"), Err: err}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(min(s, maxRetryAfter)) * time.Second
	}
	return e
}
