package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// Opener opens a connection over which MQTT can be spoken: for TCP and TLS that is netdial, for WebSocket its dialer.
// Its errors are *core.Error with Phase set. It ends when ctx does.
//
// A connection that wraps another may offer NetConn() net.Conn, as tls.Conn does: then the end of a session closes the
// innermost one and cannot be held up by a goodbye. One that has a goodbye of its own offers CloseWrite() error, as
// tls.Conn does; it follows DISCONNECT.
type Opener func(ctx context.Context, c core.Credential) (net.Conn, error)

// Config says whose session, and how to reach the hub. Identity is required.
type Config struct {
	Identity core.Identity
	// ProductInfo is told to the hub after UserAgent; one that begins with "dtmi:" is the device's Plug and Play model.
	ProductInfo string
	// UserAgent names the program: "fairlead/1.2 (linux; arm64)".
	UserAgent string
	// KeepAlive is the longest silence before a ping, in whole seconds; 0 means 60 s, at most 1740 s, since the hub hangs
	// up after 1767 s of silence. A dead connection is noticed within KeepAlive and 20 s.
	KeepAlive time.Duration
	// Port is the hub's; 0 means the one that stands in its name ("localhost:18883"), else 8883. Address, if set, is dialed
	// in place of the hub's name.
	Port    int
	Address string
	TLS     netdial.TLSConfig
	// Proxy, if set, is the only way to the hub.
	Proxy netdial.Proxy
	// DialContext, if set, takes the place of DNS and TCP.
	DialContext netdial.ContextDialer
	// Now is the wall clock against which certificates are checked; nil is time.Now. Learn and Renegotiate are
	// netdial.Config's, the latter for those who speak HTTPS by Dialer.
	Now         func() time.Time
	Learn       func(passed time.Time)
	Renegotiate bool
	// Logger gets debug lines about what was dropped, and an error line where a message can never be sent; nil is none.
	Logger *slog.Logger

	// Name is the route's name; "" is "mqtt". Open, if set, takes the place of TCP and TLS: then Address, TLS, Proxy,
	// DialContext, Now, Learn and Renegotiate are not used.
	Name string
	Open Opener
}

// Transport makes MQTT sessions for one identity. It may be used from any goroutine.
type Transport struct {
	name      string
	open      Opener
	clientID  string
	username  string
	topics    topics
	keepAlive time.Duration
	chunk     int // bytes that are written at once
	log       *slog.Logger
}

var _ core.Transport = (*Transport)(nil)

// New checks the configuration, certificates included. Its error wraps core.ErrInvalid.
func New(cfg Config) (*Transport, error) {
	if cfg.Identity.Hostname == "" || cfg.Identity.DeviceID == "" {
		return nil, fmt.Errorf("make mqtt transport: the identity names no hub or no device: %w", core.ErrInvalid)
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = defaultKeepAlive
	}
	if cfg.KeepAlive < time.Second || cfg.KeepAlive > maxKeepAliveSeconds*time.Second {
		return nil, fmt.Errorf("make mqtt transport: keep-alive %v: %w: 1s to %ds", cfg.KeepAlive, core.ErrInvalid, maxKeepAliveSeconds)
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = defaultUserAgent()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Name == "" {
		cfg.Name = "mqtt"
	}
	t := &Transport{
		name:      cfg.Name,
		open:      cfg.Open,
		clientID:  cfg.Identity.ClientID(),
		username:  username(cfg.Identity, cfg.UserAgent, cfg.ProductInfo),
		topics:    newTopics(cfg.Identity),
		keepAlive: cfg.KeepAlive.Truncate(time.Second),
		chunk:     writeChunk,
		log:       cfg.Logger,
	}
	if cfg.Proxy.Type != "" {
		t.chunk = proxiedChunk
	}
	if t.open == nil {
		dialer, err := cfg.Dialer(DefaultPort)
		if err != nil {
			return nil, fmt.Errorf("make mqtt transport: %w", err)
		}
		t.open = func(ctx context.Context, c core.Credential) (net.Conn, error) {
			conn, err := dialer.Dial(ctx, c)
			if err != nil {
				return nil, err
			}
			return conn, nil
		}
	}
	return t, nil
}

// Endpoint returns the host and the port that the configuration names; port is taken where neither Port nor the hub's name
// has one.
func (cfg Config) Endpoint(port int) (string, int) {
	host, named := splitHost(cfg.Identity.ConnectHost(), port)
	if cfg.Port != 0 {
		named = cfg.Port
	}
	return host, named
}

// Dialer makes what opens the configuration's connections up to TLS, for transports that put something between it and the
// session; port is as in Endpoint. Its error wraps core.ErrInvalid.
func (cfg Config) Dialer(port int) (*netdial.Dialer, error) {
	host, port := cfg.Endpoint(port)
	return netdial.New(netdial.Config{
		Host: host, Port: port, Address: cfg.Address, TLS: cfg.TLS, Proxy: cfg.Proxy,
		UserTimeout: silence(cfg.KeepAlive), DialContext: cfg.DialContext, Now: cfg.Now, Learn: cfg.Learn, Renegotiate: cfg.Renegotiate,
	})
}

// splitHost takes a port off the host's name, as connection strings of local hubs have it ("localhost:18883").
func splitHost(host string, otherwise int) (name string, port int) {
	name, text, err := net.SplitHostPort(host)
	if err != nil {
		return host, otherwise
	}
	port, err = strconv.Atoi(text)
	if err != nil {
		return host, otherwise
	}
	return name, port
}

// silence is how long the hub may say nothing before the connection counts as dead: until a ping is due, noticed, and
// unanswered.
func silence(keepAlive time.Duration) time.Duration {
	if keepAlive == 0 {
		keepAlive = defaultKeepAlive
	}
	return keepAlive.Truncate(time.Second) + pahoTick + pingTimeout
}

// Name returns the route's name.
func (t *Transport) Name() string { return t.name }

// Open opens the connection. It implements core.Transport.
func (t *Transport) Open(ctx context.Context, c core.Credential) (core.Link, error) {
	conn, err := t.open(ctx, c)
	if err != nil {
		return nil, err
	}
	return &link{t: t, conn: conn}, nil
}

// link is an open connection on which no CONNECT was sent.
type link struct {
	t     *Transport
	conn  net.Conn
	taken atomic.Bool // by Connect or Close
}

// Connect makes the session. It implements core.Link.
func (l *link) Connect(ctx context.Context, c core.Credential, h core.Handler) (core.Session, error) {
	if !l.taken.CompareAndSwap(false, true) {
		return nil, &core.Error{Op: "connect", Kind: core.Transient, Phase: phaseMQTT, Err: errLinkUsed}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, connackTimeout, errNoConnack)
	defer cancel()
	s, err := newSession(ctx, l.t, l.conn, c, h)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Close drops the link. It implements core.Link.
func (l *link) Close() error {
	if !l.taken.CompareAndSwap(false, true) {
		return nil
	}
	err := netdial.Innermost(l.conn).Close()
	_ = l.conn.Close()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close link: %w", err)
	}
	return nil
}

var (
	errLinkUsed  = errors.New("the link was used or closed before")
	errNoConnack = errors.New("the connection stands, but no CONNACK came over it in time: the hub is overloaded, or something else than MQTT answers on this port")
)

// noConnackError says why a wait for CONNACK ended, whose limit may be the caller's.
func noConnackError(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, context.DeadlineExceeded) {
		return &core.Error{Op: "connect", Kind: core.Transient, Phase: phaseMQTT, Err: fmt.Errorf("%w: %w", errNoConnack, cause)}
	}
	return contextError(ctx, "connect")
}
