package netdial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/internal/quietio"
)

// The bounds of the way through a proxy, beside those of DNS and TCP, and of TLS to it.
const (
	// askTimeout is how long a proxy may take to answer; it dials the hub meanwhile.
	askTimeout = 10 * time.Second
	// tunnelTimeout bounds all of it, with the connections that a conversation about the user's name takes.
	tunnelTimeout = 25 * time.Second
	// maxAsked is how often CONNECT is sent for one tunnel: once, once with NTLM's first message, once with the answer,
	// and once more where a nonce is stale or a connection turned out to be closed.
	maxAsked = 4
	// refusedUserWait is the least wait before the same proxy is asked again after it refused or missed a user. Where one
	// was named it doubles with each refusal in a row up to refusedUserMax: often the name is an account of the company's,
	// which too many tries lock.
	refusedUserWait = time.Minute
	refusedUserMax  = 10 * time.Minute
	// maxRetryAfter bounds what a proxy that is busy may ask for.
	maxRetryAfter = time.Hour
)

const statusProxyAuth = 407

// proxyRefusalError is a proxy's no.
type proxyRefusalError struct {
	status int // of HTTP; 0 with SOCKS
	text   string
	user   bool // it is about who asks
	// unspoken: it offers no way to say who asks that is spoken here.
	unspoken   bool
	retryAfter time.Duration // that it asks for; 0 for none
}

func (e *proxyRefusalError) Error() string { return e.text }

// toProxyError is an error of the connection to the proxy itself.
type toProxyError struct {
	phase string
	err   error
}

func (e *toProxyError) Error() string { return e.phase + ": " + e.err.Error() }
func (e *toProxyError) Unwrap() error { return e.err }

// UnspokenAuth reports whether err is the answer of a proxy that wants to know who asks, and offers only ways to say so that
// are not spoken here, as Negotiate is: no user name and no password changes that.
func UnspokenAuth(err error) bool {
	e, ok := errors.AsType[*proxyRefusalError](err)
	return ok && e.unspoken
}

// ToProxy returns the phase in which the connection to the proxy itself failed: dns, tcp or tls; "" where err is anything
// else.
func ToProxy(err error) string {
	if e, ok := errors.AsType[*toProxyError](err); ok {
		return e.phase
	}
	return ""
}

// tunnel opens a connection to t through the proxy. Its errors are *core.Error of phase proxy.
func (d *Dialer) tunnel(ctx context.Context, t target) (net.Conn, error) {
	dialing, cancel := context.WithTimeoutCause(ctx, tunnelTimeout, errPhaseTimeout(tunnelTimeout))
	defer cancel()
	var conn net.Conn
	err := d.proxyUser.ask(dialing, func() (err error) {
		switch d.cfg.Proxy.Type {
		case ProxySOCKS4:
			conn, err = d.socks(dialing, t, socks4)
		case ProxySOCKS5:
			conn, err = d.socks(dialing, t, socks5)
		default:
			conn, err = d.httpTunnel(dialing, t)
		}
		if err != nil {
			err = d.failProxy(ctx, err)
		} else {
			d.proxyUser.taken()
		}
		return err
	})
	if _, ok := errors.AsType[*core.Error](err); err != nil && !ok { // it was not asked
		err = d.failProxy(ctx, err)
	}
	return conn, err
}

// failProxy makes the error of a proxy. Whatever it is, another route may get through, so it is Blocked: never
// Unauthorized, which would have the machine doubt the device's own credential, and never Fatal, which would keep it from
// the next route. What must not be repeated soon says so by RetryAfter.
func (d *Dialer) failProxy(ctx context.Context, err error) error {
	e := &core.Error{Op: "proxy " + d.cfg.Proxy.hostPort(), Kind: core.Blocked, Phase: PhaseProxy, Err: err}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		e.Kind, e.Err = core.Transient, cause // cancelled by the caller
	} else if held, ok := errors.AsType[*heldBackError](err); ok {
		e.Status, e.RetryAfter, e.Err = held.status, held.left, held.proxyRefusalError
	} else if refusal, ok := errors.AsType[*proxyRefusalError](err); ok {
		e.Status, e.RetryAfter = refusal.status, refusal.retryAfter
		if refusal.user {
			d.proxyScheme.Store(nil)
			e.RetryAfter = max(e.RetryAfter, d.proxyUser.refused(refusal))
		}
	}
	return e
}

// dialProxy opens the connection to the proxy itself, with TLS where the proxy wants it.
func (d *Dialer) dialProxy(ctx context.Context) (net.Conn, error) {
	conn, phase, err := d.dialTCP(ctx, d.cfg.Proxy.hostPort())
	if err != nil {
		return nil, &toProxyError{phase, err}
	}
	if d.proxyTLS == nil {
		return conn, nil
	}
	shaking, cancel := context.WithTimeoutCause(ctx, tlsTimeout, errPhaseTimeout(tlsTimeout))
	defer cancel()
	secure := tls.Client(quietio.Wrap(conn), d.proxyTLS.config())
	if err := secure.HandshakeContext(shaking); err != nil {
		_ = conn.Close()
		if shaking.Err() != nil {
			err = context.Cause(shaking)
		}
		if isCut(err) {
			err = fmt.Errorf("it ends the connection: does it speak TLS, as proxy_type HTTPS says? %w", err)
		}
		_, err = Classify(PhaseTLS, err, d.cfg.Proxy.Addr, d.now())
		return nil, &toProxyError{PhaseTLS, err}
	}
	return secure, nil
}

// ask has f speak with the proxy on conn, for no longer than askTimeout. A conn that failed is of no use any more.
func (d *Dialer) ask(ctx context.Context, conn net.Conn, t target, f func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, &phaseTimeoutError{
		fmt.Sprintf("no answer within %v: it does not reach %s, or is overloaded", askTimeout, t.addr),
	})
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil && isCut(err) {
		err = fmt.Errorf("it ended the connection without an answer: %w", err)
	}
	return err
}

func (d *Dialer) socks(ctx context.Context, t target, speak func(conn io.ReadWriter, p Proxy, target string) error) (net.Conn, error) {
	conn, err := d.dialProxy(ctx)
	if err != nil {
		return nil, err
	}
	heard := &heardConn{Conn: conn}
	if err := d.ask(ctx, conn, t, func() error { return speak(heard, d.cfg.Proxy, t.addr) }); err != nil {
		closeNow(conn)
		if !heard.any.Load() && d.cfg.Proxy.Type == ProxySOCKS5 { // which answers before it dials anybody
			err = fmt.Errorf("it says nothing to a greeting of SOCKS5: is proxy_type right? %w", err)
		}
		return nil, err
	}
	return conn, nil
}

// httpTunnel asks by CONNECT. The password leaves only for a proxy that asks for it, and later at once in the scheme
// that served before.
func (d *Dialer) httpTunnel(ctx context.Context, t target) (net.Conn, error) {
	p := d.cfg.Proxy
	auth := &proxyAuth{user: p.Username, password: p.Password.Reveal()}
	if scheme := d.proxyScheme.Load(); scheme != nil && *scheme != schemeDigest { // which cannot begin without a nonce
		auth.scheme = *scheme
	}
	var conn net.Conn
	var err error
	for range maxAsked {
		isFresh := conn == nil
		if isFresh {
			auth.restart()
			if conn, err = d.dialProxy(ctx); err != nil {
				return nil, err
			}
		}
		var resp *connectResponse
		again := false
		err = d.ask(ctx, conn, t, func() (err error) {
			resp, again, err = askConnect(conn, t.addr, auth, d.now())
			return err
		})
		switch {
		case err == nil && resp.status/100 == 2:
			if auth.scheme != "" {
				d.proxyScheme.Store(&auth.scheme)
			}
			return conn, nil
		case err == nil && again:
			continue
		}
		closeNow(conn)
		conn = nil
		switch {
		case err != nil && !isFresh && isCut(err) && !auth.keepsConnection():
			// It said keep-alive and closed all the same.
		case err != nil:
			return nil, err
		case auth.keepsConnection():
			return nil, errors.New("it closes the connection in the middle of NTLM, which cannot go on over another one")
		}
	}
	if conn != nil {
		closeNow(conn)
	}
	if err == nil {
		err = fmt.Errorf("it was asked %d times and wants to be asked again", maxAsked)
	}
	return nil, err
}

// askConnect sends one CONNECT and reads the answer. Without an error the answer is a tunnel, or a challenge that auth
// will answer, and again says that it can do so on the same connection.
func askConnect(conn net.Conn, target string, auth *proxyAuth, now time.Time) (resp *connectResponse, again bool, err error) {
	authorization, err := auth.header(target)
	if err != nil {
		return nil, false, err
	}
	if _, err := conn.Write(connectRequest(target, authorization)); err != nil {
		return nil, false, err
	}
	if resp, err = readConnectResponse(conn); err != nil {
		return nil, false, err
	}
	switch {
	case resp.status/100 == 2:
		return resp, false, nil
	case resp.status == statusProxyAuth:
		if err := auth.challenged(resp.line, resp.authenticate); err != nil {
			return nil, false, err
		}
		return resp, resp.skipBody(conn), nil
	}
	return nil, false, refusedConnect(resp, target, auth, now)
}

// refusedConnect says what a status other than 2xx and 407 means.
func refusedConnect(resp *connectResponse, target string, auth *proxyAuth, now time.Time) error {
	advice := "it refuses CONNECT to " + target
	switch resp.status {
	case 401: // what tinyproxy answers a wrong password
		advice = adviceSetUser
		if auth.answered {
			advice = adviceCheckUser
		}
	case 403:
		advice = "it forbids CONNECT to " + target + ": many proxies let port 443 through only, which is that of mqttws"
	case 405, 501:
		advice = "it knows no CONNECT, so that it cannot carry TLS"
	case 429:
		advice = "it asks for less"
	case 502, 503, 504:
		advice = "it does not reach " + target
	case 301, 302, 303, 307, 308:
		advice = "it redirects CONNECT, as a captive portal does: log in there first"
	}
	e := &proxyRefusalError{status: resp.status, text: resp.line + ": " + advice, user: resp.status == 401}
	if resp.status == 429 || resp.status == 503 {
		e.retryAfter = ParseRetryAfter(resp.retryAfter, now, maxRetryAfter)
	}
	return e
}

// closeNow closes the innermost connection: closing a tls.Conn writes an alert, for which a stuck peer would make it wait.
func closeNow(conn net.Conn) { _ = Innermost(conn).Close() }

// Innermost returns the connection below all that wraps it and offers NetConn() net.Conn, as tls.Conn does. Closing that
// one waits for nobody, where closing a tls.Conn writes.
func Innermost(conn net.Conn) net.Conn {
	for {
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok || wrapper.NetConn() == nil {
			return conn
		}
		conn = wrapper.NetConn()
	}
}
