package netdial

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptrace"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/internal/quietio"
)

// Phases of a dial, as they stand in core.Error.Phase.
const (
	PhaseDNS = "dns"
	PhaseTCP = "tcp"
	PhaseTLS = "tls"
	// PhaseProxy is everything up to the tunnel, the proxy's own DNS, TCP and TLS included.
	PhaseProxy = "proxy"
)

// The bounds of the phases. The caller's context bounds the sum.
const (
	dnsTimeout = 5 * time.Second
	tcpTimeout = 10 * time.Second
	// dialerTimeout is net.Dialer's own, which the bounds above end sooner.
	dialerTimeout = dnsTimeout + tcpTimeout
	// tlsFirstByteTimeout is how long the server may stay silent after a ClientHello before that is taken for a path
	// which swallows large ones.
	tlsFirstByteTimeout = 8 * time.Second
	tlsTimeout          = 15 * time.Second
)

// ContextDialer is the type of net.Dialer.DialContext.
type ContextDialer func(ctx context.Context, network, addr string) (net.Conn, error)

// Config says where to and how. Host is required.
type Config struct {
	// Host is the name to connect to, and the name that the certificate must bear.
	Host string
	Port int
	// Address, if set, is the IP address or name to dial in Host's place. The certificate must bear Host all the same.
	Address string
	TLS     TLSConfig
	// Proxy, if set, is the only way out: where it fails, nothing is dialed directly. It is told Address, or else Host.
	Proxy Proxy
	// UserTimeout bounds how long sent bytes may stay unacknowledged by the other side's TCP before the connection is
	// given up (TCP_USER_TIMEOUT; Linux only). 0 leaves the system's, about a quarter of an hour.
	UserTimeout time.Duration
	// Renegotiate lets a server ask once more for a device's certificate, after it has seen the request: what IoT Hub may do
	// on port 443. That exists up to TLS 1.2, which is then the newest version offered. It changes nothing for a credential
	// without a certificate.
	Renegotiate bool
	// DialContext, if set, is used in place of net.Dialer, for the proxy too.
	DialContext ContextDialer
	// Now is the wall clock for the validity of certificates; nil is time.Now.
	Now func() time.Time
	// Learn, if set, is told by whom a clock is behind: a moment that has passed, since the server's certificate, which is
	// good otherwise, is valid from then on. It is called by Dial.
	Learn func(passed time.Time)
}

// Dialer opens connections to one host, and to others by the same way. Make it with New.
type Dialer struct {
	cfg  Config
	own  target
	dial ContextDialer
	// tls is for the dialer's own host, otherTLS for others, proxyTLS for the proxy; nil where that wants none.
	tls, otherTLS, proxyTLS *trusting
	isDirect                func(hostPort string) bool
	// small is set once a small ClientHello got through where a large one did not.
	small atomic.Bool
	// proxyScheme is the one in which the proxy took the user's name and password last.
	proxyScheme atomic.Pointer[string]
	// proxyUser is who asks it, for all dialers that share it; nil is nobody.
	proxyUser *proxyUser

	mu       sync.Mutex
	sessions tls.ClientSessionCache // of the identity below
	identity string                 // the leaf certificate; a resumed session would show the old one's
}

// target is where a connection ends.
type target struct {
	host string // the name that the certificate must bear
	addr string // what is dialed, "host:port"
	tls  *trusting
}

// New checks the configuration. Its error wraps core.ErrInvalid.
func New(cfg Config) (*Dialer, error) {
	if cfg.Host == "" {
		return nil, fmt.Errorf("make dialer: no host: %w", core.ErrInvalid)
	}
	if cfg.Port <= 0 || cfg.Port > 65535 {
		return nil, fmt.Errorf("make dialer: port %d: %w", cfg.Port, core.ErrInvalid)
	}
	if err := cfg.Proxy.Check(); err != nil {
		return nil, fmt.Errorf("make dialer: %w", err)
	}
	d := &Dialer{cfg: cfg, dial: cfg.DialContext, isDirect: cfg.Proxy.bypass(), proxyUser: userOf(cfg.Proxy)}
	if err := d.trust(); err != nil {
		return nil, fmt.Errorf("make dialer: %w", err)
	}
	d.own = target{host: cfg.Host, addr: net.JoinHostPort(cmp.Or(cfg.Address, cfg.Host), strconv.Itoa(cfg.Port)), tls: d.tls}
	if d.dial == nil {
		d.dial = (&net.Dialer{
			// Shared out among the addresses of a name. A caller's own deadline would give the first one more than the phase
			// has, and where that is dead no other would be tried.
			Timeout:         dialerTimeout,
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3},
			ControlContext: func(_ context.Context, _, _ string, c syscall.RawConn) error {
				return setOptions(c, cfg.UserTimeout)
			},
		}).DialContext
	}
	return d, nil
}

// trust makes the TLS configurations.
func (d *Dialer) trust() (err error) {
	if d.tls, err = d.cfg.TLS.build(); err != nil {
		return err
	}
	// The certificate is checked against the name that was asked for, never against the address that was dialed.
	d.tls.ServerName = d.cfg.Host
	d.tls.Time = d.cfg.Now
	// What replaces the roots does so for the hub alone.
	others := d.cfg.TLS
	others.ServerVerificationCert = nil
	if d.otherTLS, err = others.build(); err != nil {
		return err
	}
	d.otherTLS.Time = d.cfg.Now
	d.otherTLS.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	if d.cfg.Proxy.Type != ProxyHTTPS {
		return nil
	}
	// A proxy is not the hub: it may have other ciphers, and sees no certificate of the device's.
	if d.proxyTLS, err = (TLSConfig{ExtraCA: d.cfg.TLS.ExtraCA, NextProtos: []string{"http/1.1"}}).build(); err != nil {
		return err
	}
	d.proxyTLS.ServerName = d.cfg.Proxy.Addr
	d.proxyTLS.Time = d.cfg.Now
	d.proxyTLS.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	return nil
}

// Addr returns what is dialed, "host:port".
func (d *Dialer) Addr() string { return d.own.addr }

// Proxy returns the proxy through which the dialer's own host is reached; the zero value where it is reached directly.
func (d *Dialer) Proxy() Proxy {
	if d.direct(d.own) {
		return Proxy{}
	}
	return d.cfg.Proxy
}

// direct reports whether t is reached without a proxy. Both the name and the address that stands in its place may be
// named by NoProxy.
func (d *Dialer) direct(t target) bool {
	if d.isDirect(t.addr) {
		return true
	}
	_, port, err := net.SplitHostPort(t.addr)
	return err == nil && d.isDirect(net.JoinHostPort(t.host, port))
}

// Dial opens a connection and TLS within it, through the proxy if there is one. c's certificate, if it has one, is shown
// to the server. It ends when ctx does. Its errors are *core.Error.
func (d *Dialer) Dial(ctx context.Context, c core.Credential) (*tls.Conn, error) {
	return d.dialTLS(ctx, d.own, c)
}

func (d *Dialer) dialTLS(ctx context.Context, t target, c core.Credential) (*tls.Conn, error) {
	conn, silent, err := d.try(ctx, t, c, d.small.Load())
	if err == nil || !silent || d.small.Load() || ctx.Err() != nil {
		return conn, err
	}
	conn, _, err = d.try(ctx, t, c, true)
	if err == nil {
		d.small.Store(true)
	}
	return conn, err
}

// try makes one attempt. silent says that TLS failed by a stall or a cut before the server's first byte.
func (d *Dialer) try(ctx context.Context, t target, c core.Credential, small bool) (conn *tls.Conn, silent bool, err error) {
	raw, err := d.open(ctx, t)
	if err != nil {
		return nil, false, err
	}
	cfg := d.config(t, c)
	if small {
		cfg.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
	}
	return d.handshake(ctx, t, raw, cfg)
}

// DialTCP opens what TLS would be spoken in: a TCP connection to the host, or a tunnel through the proxy. Its errors are
// *core.Error of phase dns, tcp or proxy.
func (d *Dialer) DialTCP(ctx context.Context) (net.Conn, error) { return d.open(ctx, d.own) }

func (d *Dialer) open(ctx context.Context, t target) (net.Conn, error) {
	if !d.direct(t) {
		return d.tunnel(ctx, t)
	}
	conn, phase, err := d.dialTCP(ctx, t.addr)
	if err != nil {
		return nil, d.fail(ctx, phase, t, err)
	}
	return conn, nil
}

// dialTCP opens a TCP connection; phase says what failed.
func (d *Dialer) dialTCP(ctx context.Context, addr string) (_ net.Conn, phase string, _ error) {
	dialing, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &phases{cancel: cancel, phase: PhaseTCP}
	p.enter(PhaseTCP, dnsTimeout+tcpTimeout)
	defer p.stop()
	// net.Dialer does DNS and TCP in one call, and races the families well; the trace tells when one ends and the other begins.
	dialing = httptrace.WithClientTrace(dialing, &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { p.enter(PhaseDNS, dnsTimeout) },
		DNSDone:  func(httptrace.DNSDoneInfo) { p.enter(PhaseTCP, tcpTimeout) },
	})
	conn, err := d.dial(dialing, "tcp", addr)
	if err != nil {
		phase := p.current()
		if dnsError, ok := errors.AsType[*net.DNSError](err); ok {
			phase = PhaseDNS
			err = dnsError
		} else if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" && e.Addr != nil && e.Addr.String() == addr {
			err = e.Err // the caller says the rest; another address, which a name stands for, is kept
		}
		// Which of the contexts ended it is told by the causes: a phase's own bound, or the caller.
		if dialing.Err() != nil {
			err = context.Cause(dialing)
		}
		return nil, phase, err
	}
	if t, ok := conn.(*net.TCPConn); ok {
		// Go's default, said again because the coalescing writer of transports/mqtt depends on it.
		_ = t.SetNoDelay(true)
	}
	return conn, PhaseTCP, nil
}

// handshake carries out TLS on raw, which it takes over.
func (d *Dialer) handshake(ctx context.Context, t target, raw net.Conn, cfg *tls.Config) (conn *tls.Conn, silent bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, tlsTimeout, errPhaseTimeout(tlsTimeout))
	defer cancel()
	below := quietio.Wrap(raw)
	if !d.direct(t) {
		below = ackPromptly(below)
	}
	heard := &heardConn{Conn: below}
	stalled := make(chan struct{})
	stall := time.AfterFunc(tlsFirstByteTimeout, func() {
		if !heard.any.Load() {
			close(stalled)
			closeNow(raw)
		}
	})
	conn = tls.Client(heard, cfg)
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	err = conn.HandshakeContext(ctx)
	stall.Stop()
	if trace != nil && trace.TLSHandshakeDone != nil {
		trace.TLSHandshakeDone(conn.ConnectionState(), err)
	}
	if err == nil {
		return conn, false, nil
	}
	closeNow(raw)
	select {
	case <-stalled:
		return nil, true, d.fail(ctx, PhaseTLS, t, errPhaseTimeout(tlsFirstByteTimeout))
	default:
	}
	if ctx.Err() != nil {
		return nil, false, d.fail(ctx, PhaseTLS, t, context.Cause(ctx))
	}
	d.learn(err)
	return nil, !heard.any.Load() && isCut(err), d.fail(ctx, PhaseTLS, t, err)
}

// config returns the TLS configuration for a credential. Another host than the dialer's own is never shown one.
func (d *Dialer) config(t target, c core.Credential) *tls.Config {
	cfg := t.tls.config()
	if t.tls != d.tls {
		cfg.ServerName = t.host
		return cfg
	}
	leaf := ""
	if len(c.Certificate) > 0 {
		leaf = string(c.Certificate[0])
		certificate := tls.Certificate{Certificate: c.Certificate, PrivateKey: c.Signer}
		// Not Certificates: with that, Go sends none where the server's list of authorities does not name the issuer, and the
		// hub, which knows self-signed ones by thumbprint, does not name it.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
		if d.cfg.Renegotiate && cfg.MinVersion <= tls.VersionTLS12 {
			cfg.Renegotiation, cfg.MaxVersion = tls.RenegotiateOnceAsClient, tls.VersionTLS12
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions == nil || d.identity != leaf {
		d.sessions, d.identity = tls.NewLRUClientSessionCache(4), leaf
	}
	cfg.ClientSessionCache = d.sessions
	return cfg
}

func (d *Dialer) fail(ctx context.Context, phase string, t target, err error) error {
	op := fmt.Sprintf("dial %s %s", phase, t.addr)
	if !d.direct(t) {
		op += " through " + d.cfg.Proxy.String()
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		if _, bound := errors.AsType[*phaseTimeoutError](cause); !bound {
			return &core.Error{Op: op, Kind: core.Transient, Phase: phase, Err: cause} // cancelled by the caller
		}
	}
	kind, advised := Classify(phase, err, t.host, d.now())
	return &core.Error{Op: op, Kind: kind, Phase: phase, Err: advised}
}

func (d *Dialer) now() time.Time {
	if d.cfg.Now != nil {
		return d.cfg.Now()
	}
	return time.Now()
}

// phases bounds DNS and TCP, which one call of net.Dialer carries out. Its methods are called from any goroutine.
type phases struct {
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	phase string
	timer *time.Timer
}

func (p *phases) enter(phase string, limit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	p.phase = phase
	p.timer = time.AfterFunc(limit, func() { p.cancel(errPhaseTimeout(limit)) })
}

func (p *phases) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer.Stop()
}

func (p *phases) current() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase
}

// phaseTimeoutError is the end of a phase by its own bound.
type phaseTimeoutError struct{ text string }

func errPhaseTimeout(after time.Duration) error {
	return &phaseTimeoutError{fmt.Sprintf("no answer within %v; a firewall that drops packets looks like this", after)}
}

func (e *phaseTimeoutError) Error() string { return e.text }

// Timeout makes it a timeout to whoever asks as of a net.Error.
func (e *phaseTimeoutError) Timeout() bool { return true }

// heardConn notes whether anything was read.
type heardConn struct {
	net.Conn
	any atomic.Bool
}

func (c *heardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.any.Load() {
		c.any.Store(true)
	}
	return n, err
}

// NetConn returns the connection below, as tls.Conn.NetConn does.
func (c *heardConn) NetConn() net.Conn { return c.Conn }

// isCut reports whether the other side, or something between, ended the connection.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
