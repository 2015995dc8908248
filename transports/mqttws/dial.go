package mqttws

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// PhaseWebSocket is the upgrade's, as it stands in core.Error.Phase.
const PhaseWebSocket = "websocket"

// Facts of the hub, from https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub
const (
	// DefaultPort is the hub's port for MQTT over WebSocket.
	DefaultPort = 443
	path        = "/$iothub/websocket"
	subprotocol = "mqtt" // MQTT 3.1.1, section 6
)

// New makes a transport whose sessions are those of transports/mqtt, through a WebSocket. The configuration means the
// same, but that Port is 443 if neither it nor the hub's name has one, Name is "mqttws" if it is not set, and that Open, if
// set, opens the connection below the WebSocket. Its error wraps core.ErrInvalid.
func New(cfg mqtt.Config) (*mqtt.Transport, error) {
	var err error
	if cfg.Open, err = opener(cfg); err != nil {
		return nil, fmt.Errorf("make mqttws transport: %w", err)
	}
	if cfg.Name == "" {
		cfg.Name = "mqttws"
	}
	return mqtt.New(cfg)
}

// NewRegistrar makes a registrar that speaks with the provisioning service through a WebSocket. The configuration is
// changed as New does. Its error wraps core.ErrInvalid.
func NewRegistrar(cfg mqtt.RegistrarConfig) (*mqtt.Registrar, error) {
	var err error
	if cfg.Open, err = opener(cfg.Transport()); err != nil {
		return nil, fmt.Errorf("make mqttws registrar: %w", err)
	}
	return mqtt.NewRegistrar(cfg)
}

// opener returns what opens the connection and upgrades it.
func opener(cfg mqtt.Config) (mqtt.Opener, error) {
	host, port := cfg.Endpoint(DefaultPort)
	authority := net.JoinHostPort(host, strconv.Itoa(port))
	target := url.URL{Scheme: "wss", Host: authority, Path: path}
	if parsed, err := url.Parse(target.String()); err != nil || parsed.Host != authority {
		return nil, fmt.Errorf("the host %.100q cannot stand in a URL: %w", host, core.ErrInvalid)
	}
	below := cfg.Open
	if below == nil {
		// A server that takes a protocol it knows from the list could choose HTTP/2, which has no upgrade.
		cfg.TLS.NextProtos = []string{"http/1.1"}
		dialer, err := cfg.Dialer(DefaultPort)
		if err != nil {
			return nil, err
		}
		below = func(ctx context.Context, c core.Credential) (net.Conn, error) {
			conn, err := dialer.Dial(ctx, c)
			if err != nil {
				return nil, err
			}
			return conn, nil
		}
	}
	u := &upgrader{target: target.String(), authority: authority, host: host, now: cfg.Now}
	if u.now == nil {
		u.now = time.Now
	}
	return func(ctx context.Context, c core.Credential) (net.Conn, error) {
		raw, err := below(ctx, c)
		if err != nil {
			return nil, err
		}
		conn, err := u.upgrade(ctx, raw)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}, nil
}

// upgrader makes WebSockets of connections to one hub.
type upgrader struct {
	target    string // the URL
	authority string // "host:port"
	host      string
	now       func() time.Time
}

// upgrade carries out the handshake on raw, which it takes over. Its errors are *core.Error.
func (u *upgrader) upgrade(ctx context.Context, raw net.Conn) (*conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, errHandshakeTimeout)
	defer cancel()
	w := &wire{Conn: raw}
	// gorilla knows a deadline, but not that a context can end before. Closing a tls.Conn would write, and wait for that.
	stop := context.AfterFunc(ctx, func() { _ = netdial.Innermost(raw).Close() })
	dialer := websocket.Dialer{
		// The connection is open and TLS done: with that, gorilla has no proxy to misunderstand.
		NetDialTLSContext: func(context.Context, string, string) (net.Conn, error) { return w, nil },
		Subprotocols:      []string{subprotocol},
		ReadBufferSize:    readBuffer,
		WriteBufferSize:   writeBuffer,
	}
	// The headers of the seed client, whose Origin some gateways look at. Who is speaking is told in CONNECT.
	ws, resp, err := dialer.DialContext(ctx, u.target, http.Header{
		"Origin": {"https://" + u.authority}, "User-Agent": {""},
	})
	if resp != nil {
		_ = resp.Body.Close() // what was read of it is in memory
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = u.check(ws, resp)
	} else {
		err = u.explain(ctx, w, resp, err)
	}
	if err != nil {
		_ = netdial.Innermost(raw).Close()
		_ = raw.Close()
		return nil, err
	}
	return newConn(ws, w), nil
}

// check looks at what gorilla takes as it comes: an upgrade to something that was not asked for.
func (u *upgrader) check(ws *websocket.Conn, resp *http.Response) error {
	switch {
	case ws.Subprotocol() != subprotocol:
		return u.fail(core.Blocked, resp.StatusCode, 0, fmt.Errorf("the answer names the subprotocol %.*q instead of %q: something else than an IoT Hub answers", maxQuoted, ws.Subprotocol(), subprotocol))
	case len(resp.Header.Values("Sec-WebSocket-Extensions")) > 0:
		// gorilla would decompress what it never offered to, without a bound.
		return u.fail(core.Blocked, resp.StatusCode, 0, fmt.Errorf("the answer turns on an extension that was not offered: %.*q", maxQuoted, resp.Header.Get("Sec-WebSocket-Extensions")))
	}
	return nil
}

// explain says why the handshake failed.
func (u *upgrader) explain(ctx context.Context, w *wire, resp *http.Response, err error) error {
	if errors.Is(err, websocket.ErrBadHandshake) && resp != nil {
		return u.refused(resp)
	}
	if resp != nil { // it turned on compression, and so wrongly that gorilla refuses it as well
		return u.fail(core.Blocked, resp.StatusCode, 0, fmt.Errorf("the answer turns on an extension that was not offered: %w", err))
	}
	if w.err != nil {
		err = w.err // gorilla and net/http may have made another of it
	}
	if cause := context.Cause(ctx); cause != nil {
		if !errors.Is(cause, errHandshakeTimeout) && !errors.Is(cause, context.DeadlineExceeded) {
			return u.fail(core.Transient, 0, 0, cause) // cancelled by the caller
		}
		return u.fail(core.Blocked, 0, 0, cause)
	}
	// With TLS 1.3 a server refuses the client's certificate after the handshake, in the first bytes that it sends.
	if _, ok := netdial.RemoteAlert(err); ok {
		kind, advised := netdial.Classify(netdial.PhaseTLS, err, u.host, u.now())
		return u.fail(kind, 0, 0, advised)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return u.fail(core.Blocked, 0, 0, errHandshakeTimeout)
	}
	kind, advised := netdial.Classify(PhaseWebSocket, err, u.host, u.now())
	if _, isNet := errors.AsType[net.Error](err); w.err == nil && kind != core.Blocked && !isNet { // bytes came, and were no HTTP
		kind = core.Blocked
		advised = fmt.Errorf("something that does not speak HTTP answers on this port (a captive portal, a proxy, or another port is meant): %.*s", maxQuoted, err.Error())
	}
	return u.fail(kind, 0, 0, advised)
}

// handshakeTimeoutError is the end of the handshake by its own bound.
type handshakeTimeoutError struct{}

var errHandshakeTimeout error = handshakeTimeoutError{}

func (handshakeTimeoutError) Error() string {
	return fmt.Sprintf("no answer to the upgrade within %v", handshakeTimeout)
}

// Timeout makes it a timeout to whoever asks as of a net.Error.
func (handshakeTimeoutError) Timeout() bool { return true }

func (u *upgrader) fail(kind core.Kind, status int, retryAfter time.Duration, err error) error {
	return &core.Error{Op: "dial websocket " + u.authority, Kind: kind, Phase: PhaseWebSocket, Status: status, RetryAfter: retryAfter, Err: err}
}

// refusals is what an answer other than 101 means to the machine, and what to do. The hub itself asks for no credential
// here: MQTT's CONNECT brings it. https://www.rfc-editor.org/rfc/rfc6455#section-4.1
var refusals = map[int]struct {
	kind core.Kind
	what string
}{
	http.StatusUnauthorized:       {core.Unauthorized, "the hub refuses the device"},
	http.StatusForbidden:          {core.Unauthorized, "the hub refuses the device: does an IP filter keep it out, or is public access off?"},
	http.StatusNotFound:           {core.Blocked, "there is no MQTT over WebSocket: is the host name an IoT Hub's?"},
	http.StatusProxyAuthRequired:  {core.Blocked, "a proxy on the way wants to know who asks: set proxy_options with a user name and a password"},
	http.StatusTooManyRequests:    {core.Throttled, "the hub asks for less"},
	http.StatusServiceUnavailable: {core.Throttled, "the hub is busy"},
}

// refused says what a status means.
func (u *upgrader) refused(resp *http.Response) error {
	known, ok := refusals[resp.StatusCode]
	switch {
	case ok:
	case resp.StatusCode == http.StatusSwitchingProtocols:
		known.kind, known.what = core.Blocked, "the answer is no upgrade to WebSocket; something between takes it apart"
	case resp.StatusCode >= 500:
		known.kind, known.what = core.Transient, "the hub, or something on the way, has failed"
	default:
		known.kind, known.what = core.Blocked, "something that does not upgrade to WebSocket answers (a captive portal, a proxy, or another port is meant)"
	}
	err := errors.New(resp.Proto + " " + clip(resp.Status) + ": " + known.what)
	if known.kind == core.Unauthorized {
		err = fmt.Errorf("%w: %w", core.ErrCredential, err)
	}
	return u.fail(known.kind, resp.StatusCode, netdial.ParseRetryAfter(resp.Header.Get("Retry-After"), u.now(), maxRetryAfter), err)
}

// clip bounds what an answer may say in an error, and keeps it to one line of text.
func clip(s string) string {
	s = strconv.QuoteToASCII(s[:min(len(s), maxQuoted)])
	return s[1 : len(s)-1]
}
