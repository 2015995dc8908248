package netdial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Bounds of HTTPS beyond those of a dial.
const (
	// httpAnswerTimeout is how long a server may think after it has been sent a request.
	httpAnswerTimeout = 60 * time.Second
	httpIdleTimeout   = 90 * time.Second
	httpIdlePerHost   = 4
	maxHTTPHeader     = 64 << 10
)

// HTTPTransport makes an http.RoundTripper for HTTPS, in HTTP/1.1, that opens its connections as Dial does: the same
// proxy, bounds, trust and errors. A request to the dialer's own host, at any port, goes to Config.Address where that is
// set, is checked against ServerVerificationCert where that is set, and is shown the certificate of the credential that c
// returns then. Every other host (a storage account, a provisioning service) is dialed by its own name, checked against
// the roots and ExtraCA, and never shown a certificate. c may be nil: then no certificate is shown; it is called for each
// connection, from any goroutine, and must not block.
//
// The error of a dial is a *core.Error within the *url.Error of net/http: use errors.AsType. Plain http: is refused. The
// request's context bounds the whole; without one a server may think for 60 s. A server that asks for a client's
// certificate after the handshake is answered with an error: no renegotiation.
//
// Connections are kept for 90 s. Use one transport for many requests, and CloseIdleConnections when the credential
// changes and at the end.
func (d *Dialer) HTTPTransport(c func() core.Credential) *http.Transport {
	return &http.Transport{
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			return nil, &core.Error{Op: "dial " + addr, Kind: core.Fatal, Phase: PhaseTLS, Err: errPlainHTTP}
		},
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, &core.Error{Op: "dial " + addr, Kind: core.Fatal, Phase: PhaseDNS, Err: err}
			}
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil || n == 0 {
				return nil, &core.Error{Op: "dial " + addr, Kind: core.Fatal, Phase: PhaseTCP, Err: fmt.Errorf("port %q", port)}
			}
			var credential core.Credential
			if c != nil {
				credential = c()
			}
			conn, err := d.DialHost(ctx, host, int(n), credential)
			if err != nil {
				return nil, err
			}
			return conn, nil
		},
		// Not nil, or it would take up HTTP/2, which has its own idea of connections.
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost:    httpIdlePerHost,
		IdleConnTimeout:        httpIdleTimeout,
		ResponseHeaderTimeout:  httpAnswerTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHTTPHeader,
	}
}

var errPlainHTTP = errors.New("plain HTTP is not spoken: https: must begin the address")

// DialHost opens TLS to any host, by the same way as Dial does to the dialer's own. c's certificate is shown to the
// dialer's own host only. Its errors are *core.Error.
func (d *Dialer) DialHost(ctx context.Context, host string, port int, c core.Credential) (*tls.Conn, error) {
	t := target{host: host, addr: net.JoinHostPort(host, strconv.Itoa(port)), tls: d.otherTLS}
	if strings.EqualFold(host, d.cfg.Host) {
		t.tls = d.tls
		if d.cfg.Address != "" {
			t.addr = net.JoinHostPort(d.cfg.Address, strconv.Itoa(port))
		}
	}
	return d.dialTLS(ctx, t, c)
}
