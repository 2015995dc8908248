package netdial_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

const host = "hub.example.net"

// serve listens on loopback, counts the bytes of application data that arrive, and answers TLS with cfg.
func serve(t *testing.T, cfg *tls.Config) (port int, heard *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard = new(atomic.Int64)
	var wg sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer raw.Close()
				_ = raw.SetDeadline(time.Now().Add(time.Minute))
				conn := raw
				if cfg != nil {
					conn = tls.Server(raw, cfg)
				} else {
					_, _ = io.WriteString(raw, "HTTP/1.0 200 OK\r\n\r\n<html>please log in</html>")
				}
				b := make([]byte, 1024)
				for {
					n, err := conn.Read(b)
					if cfg != nil {
						heard.Add(int64(n))
					}
					if err != nil {
						return
					}
				}
			})
		}
	})
	return listener.Addr().(*net.TCPAddr).Port, heard
}

func dialer(t *testing.T, cfg netdial.Config) *netdial.Dialer {
	t.Helper()
	cfg.Host, cfg.Address = host, "127.0.0.1"
	d, err := netdial.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wantError asserts the phase and kind of a dial's error, and a part of its text.
func wantError(t *testing.T, err error, phase string, kind core.Kind, text string) {
	t.Helper()
	e, ok := err.(*core.Error) //nolint:errorlint // the port says the type itself
	if !ok {
		t.Fatalf("%T (%v), want *core.Error", err, err)
	}
	if e.Phase != phase || e.Kind != kind || !strings.Contains(e.Error(), text) {
		t.Errorf("%s %s %q, want %s %s with %q", e.Phase, e.Kind, e, phase, kind, text)
	}
}

func TestDialTrustsTheRightHubOnly(t *testing.T) {
	good, stranger := transporttest.NewAuthority(t, "good"), transporttest.NewAuthority(t, "stranger")
	server := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	for _, c := range []struct {
		name   string
		server *tls.Config
		kind   core.Kind
		want   string // "" connects
	}{
		{"the hub", server(good.Issue(t, nil, host)), 0, ""},
		{"an unknown authority", server(stranger.Issue(t, nil, host)), core.Fatal, `issued by "CN=stranger", which is not trusted`},
		{"another name", server(good.Issue(t, nil, "other.example.net")), core.Fatal, "not for hub.example.net"},
		{"the address that was dialed instead of the name", server(good.Issue(t, nil, "127.0.0.1")), core.Fatal, "not for hub.example.net"},
		{"expired", server(good.Issue(t, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(1, 0, 0) }, host)), core.Fatal, "this device's clock says"},
		{"not yet valid", server(good.Issue(t, func(c *x509.Certificate) { c.NotBefore = c.NotAfter.AddDate(-1, 0, 0) }, host)), core.Fatal, "this device's clock says"},
		{
			"a client's certificate",
			server(good.Issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, host)),
			core.Fatal, "cannot be trusted",
		},
		{
			"TLS 1.1",
			&tls.Config{Certificates: []tls.Certificate{good.Issue(t, nil, host)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, //nolint:gosec // the bad server
			core.Fatal, "no version or cipher of TLS in common",
		},
		{"something else than TLS", nil, core.Blocked, "does not speak TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			port, heard := serve(t, c.server)
			conn, err := dialer(t, netdial.Config{Port: port, TLS: netdial.TLSConfig{ServerVerificationCert: good.PEM}}).Dial(t.Context(), core.Credential{})
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				return
			}
			wantError(t, err, netdial.PhaseTLS, c.kind, c.want)
			if n := heard.Load(); n != 0 {
				t.Errorf("%d bytes were sent to a server that cannot be trusted", n)
			}
		})
	}
}

func TestExtraCAIsAddedAndRootsAreNotForgotten(t *testing.T) {
	a, b, c := transporttest.NewAuthority(t, "a"), transporttest.NewAuthority(t, "b"), transporttest.NewAuthority(t, "c")
	for _, issuer := range []struct {
		authority *transporttest.Authority
		trusted   bool
	}{{a, true}, {b, true}, {c, false}} {
		port, _ := serve(t, &tls.Config{Certificates: []tls.Certificate{issuer.authority.Issue(t, nil, host)}})
		conn, err := dialer(t, netdial.Config{Port: port, TLS: netdial.TLSConfig{ServerVerificationCert: a.PEM, ExtraCA: b.PEM}}).Dial(t.Context(), core.Credential{})
		if (err == nil) != issuer.trusted {
			t.Errorf("err = %v, want trusted: %v", err, issuer.trusted)
		}
		if err == nil {
			conn.Close()
		}
	}
	// Beside the system's roots.
	port, _ := serve(t, &tls.Config{Certificates: []tls.Certificate{b.Issue(t, nil, host)}})
	conn, err := dialer(t, netdial.Config{Port: port, TLS: netdial.TLSConfig{ExtraCA: b.PEM}}).Dial(t.Context(), core.Credential{})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	authority := transporttest.NewAuthority(t, "a")
	for _, c := range []struct {
		name string
		cfg  netdial.Config
		want string
	}{
		{"no host", netdial.Config{Port: 1}, "no host"},
		{"no port", netdial.Config{Host: "h"}, "port 0"},
		{"a path for a PEM", netdial.Config{Host: "h", Port: 1, TLS: netdial.TLSConfig{ExtraCA: []byte("/etc/ssl/ca.pem")}}, "extra_ca: it holds no certificate in PEM form"},
		{"a private key", netdial.Config{Host: "h", Port: 1, TLS: netdial.TLSConfig{ServerVerificationCert: []byte("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n")}}, "server_verification_cert: it contains a private key"},
		{
			"a second certificate that is broken",
			netdial.Config{Host: "h", Port: 1, TLS: netdial.TLSConfig{ExtraCA: append(authority.PEM, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...)}},
			"certificate 2 of it cannot be parsed",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := netdial.New(c.cfg)
			if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want ErrInvalid with %q", err, c.want)
			}
		})
	}
}

func TestDialShowsTheDevicesCertificate(t *testing.T) {
	authority := transporttest.NewAuthority(t, "hub")
	device := transporttest.NewAuthority(t, "self-signed").Issue(t, nil, "dev")
	shown := make(chan string, 1)
	port, _ := serve(t, &tls.Config{
		Certificates: []tls.Certificate{authority.Issue(t, nil, host)}, ClientAuth: tls.RequireAnyClientCert, ClientCAs: x509.NewCertPool(),
		VerifyConnection: func(s tls.ConnectionState) error {
			shown <- s.PeerCertificates[0].Subject.CommonName
			return nil
		},
	})
	d := dialer(t, netdial.Config{Port: port, TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM}})
	conn, err := d.Dial(t.Context(), core.Credential{Certificate: device.Certificate, Signer: device.PrivateKey.(crypto.Signer)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := <-shown; got != "dev" {
		t.Errorf("the hub was shown %q", got)
	}
}

func TestRefusedClientCertificateIsUnauthorized(t *testing.T) {
	authority := transporttest.NewAuthority(t, "hub")
	port, _ := serve(t, &tls.Config{
		Certificates: []tls.Certificate{authority.Issue(t, nil, host)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool(),
		MaxVersion: tls.VersionTLS12, // with 1.3 the refusal comes after the handshake: transports/mqtt classifies it there
	})
	device := transporttest.NewAuthority(t, "unknown").Issue(t, nil, "dev")
	d := dialer(t, netdial.Config{Port: port, TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM}})
	_, err := d.Dial(t.Context(), core.Credential{Certificate: device.Certificate, Signer: device.PrivateKey.(crypto.Signer)})
	wantError(t, err, netdial.PhaseTLS, core.Unauthorized, "refused the device's certificate")
}

func TestSessionsAreResumedForTheSameIdentityOnly(t *testing.T) {
	authority := transporttest.NewAuthority(t, "hub")
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, nil, host)}, ClientAuth: tls.RequestClientCert})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Write([]byte("x")) // the ticket comes along
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	d := dialer(t, netdial.Config{Port: listener.Addr().(*net.TCPAddr).Port, TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM}})
	resumed := func(c core.Credential) bool {
		t.Helper()
		conn, err := d.Dial(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return conn.ConnectionState().DidResume
	}
	device := transporttest.NewAuthority(t, "self").Issue(t, nil, "dev")
	withCertificate := core.Credential{Certificate: device.Certificate, Signer: device.PrivateKey.(crypto.Signer)}
	got := []bool{resumed(core.Credential{}), resumed(core.Credential{}), resumed(withCertificate), resumed(withCertificate)}
	if got[0] || !got[1] || got[2] || !got[3] {
		t.Errorf("resumed: %v, want no, yes, no (another identity), yes", got)
	}
}

func TestTCPErrorsAreNamed(t *testing.T) {
	fails := func(err error) netdial.ContextDialer {
		return func(context.Context, string, string) (net.Conn, error) { return nil, err }
	}
	for _, c := range []struct {
		name  string
		dial  netdial.ContextDialer
		phase string
		kind  core.Kind
	}{
		{"no such name", fails(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}), netdial.PhaseDNS, core.Transient},
		{"a name server that is silent", fails(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "timeout", Name: host, IsTimeout: true}}), netdial.PhaseDNS, core.Transient},
		{"refused", fails(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), netdial.PhaseTCP, core.Blocked},
		{"reset", fails(&net.OpError{Op: "dial", Err: syscall.ECONNRESET}), netdial.PhaseTCP, core.Blocked},
		{"timed out", fails(&net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}), netdial.PhaseTCP, core.Blocked},
		{"no network", fails(&net.OpError{Op: "dial", Err: syscall.ENETUNREACH}), netdial.PhaseTCP, core.Transient},
		{"unknown", fails(errors.New("boom")), netdial.PhaseTCP, core.Transient},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := dialer(t, netdial.Config{Port: 8883, DialContext: c.dial}).Dial(t.Context(), core.Credential{})
			wantError(t, err, c.phase, c.kind, "dial "+c.phase+" 127.0.0.1:8883")
		})
	}
}

func TestClosedPortIsBlocked(t *testing.T) {
	d := dialer(t, netdial.Config{Port: 1, UserTimeout: time.Minute}) // no system gives it out, as it might one that was just closed
	if want := "127.0.0.1:1"; d.Addr() != want {
		t.Errorf("Addr %s, want %s", d.Addr(), want)
	}
	_, err := d.Dial(t.Context(), core.Credential{})
	wantError(t, err, netdial.PhaseTCP, core.Blocked, "connection refused")
	if want := "dial tcp " + d.Addr() + ": connect: connection refused"; err.Error() != want {
		t.Errorf("error %q, want %q: each thing once", err, want)
	}
}

// pipes is a dialer to scripted ends of net.Pipe.
func pipes(peer func(n int, conn net.Conn)) (netdial.ContextDialer, *atomic.Int64) {
	n := new(atomic.Int64)
	return func(context.Context, string, string) (net.Conn, error) {
		device, far := net.Pipe()
		number := int(n.Add(1))
		go func() {
			defer far.Close()
			peer(number, far)
		}()
		return device, nil
	}, n
}

func TestEachPhaseIsBounded(t *testing.T) {
	for _, c := range []struct {
		name  string
		dial  netdial.ContextDialer
		ctx   time.Duration // limit of the caller's context; 0 is none
		phase string
		kind  core.Kind
		limit time.Duration
	}{
		{
			"tcp that never answers",
			func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
			0, netdial.PhaseTCP, core.Blocked, 15 * time.Second,
		},
		{
			"tcp, the caller's limit",
			func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
			time.Second, netdial.PhaseTCP, core.Blocked, time.Second,
		},
		{
			"a server that is silent", // twice: with a large ClientHello and with a small one
			first(pipes(func(_ int, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })),
			0, netdial.PhaseTLS, core.Blocked, 16 * time.Second,
		},
		{
			"a server that sends a byte a second",
			first(pipes(func(_ int, conn net.Conn) {
				go func() { _, _ = io.Copy(io.Discard, conn) }()
				_, _ = conn.Write([]byte{22, 3, 3, 1, 0})
				for {
					time.Sleep(time.Second)
					if _, err := conn.Write([]byte{2}); err != nil {
						return
					}
				}
			})),
			0, netdial.PhaseTLS, core.Blocked, 15 * time.Second,
		},
		{
			"tls, the caller's limit",
			first(pipes(func(_ int, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })),
			time.Second, netdial.PhaseTLS, core.Blocked, time.Second,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if c.ctx > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.ctx)
					defer cancel()
				}
				start := time.Now()
				_, err := dialer(t, netdial.Config{Port: 1, DialContext: c.dial}).Dial(ctx, core.Credential{})
				wantError(t, err, c.phase, c.kind, "")
				if took := time.Since(start); took > c.limit {
					t.Errorf("it took %v, want at most %v", took, c.limit)
				}
				time.Sleep(time.Minute) // the scripts end
			})
		})
	}
}

func first(d netdial.ContextDialer, _ *atomic.Int64) netdial.ContextDialer { return d }

func TestCancelledDialSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, _ := pipes(func(_ int, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := dialer(t, netdial.Config{Port: 1, DialContext: dial}).Dial(ctx, core.Credential{})
		wantError(t, err, netdial.PhaseTLS, core.Transient, "context canceled")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v is not context.Canceled", err)
		}
	})
}

// A middlebox that cannot pass a ClientHello of two segments, by swallowing or by cutting, is passed by a small one.
func TestSmallClientHelloGetsThrough(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  bool
		took time.Duration
	}{{"swallowed", false, 8 * time.Second}, {"cut", true, 0}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				authority := transporttest.NewAuthority(t, "hub")
				cfg := &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, nil, host)}}
				dial, tries := pipes(func(_ int, conn net.Conn) {
					hello := make([]byte, 4096)
					n, err := conn.Read(hello)
					if err != nil {
						return
					}
					if n > 1000 {
						if !c.cut {
							_, _ = io.Copy(io.Discard, conn)
						}
						return
					}
					server := tls.Server(&prefixed{conn, hello[:n]}, cfg)
					_, _ = io.Copy(io.Discard, server)
				})
				d := dialer(t, netdial.Config{Port: 1, DialContext: dial, TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM}})
				var shakes []string
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
					TLSHandshakeStart: func() { shakes = append(shakes, "start") },
					TLSHandshakeDone: func(state tls.ConnectionState, err error) {
						shakes = append(shakes, fmt.Sprint(err == nil && len(state.PeerCertificates) > 0))
					},
				})
				start := time.Now()
				conn, err := d.Dial(ctx, core.Credential{})
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				if diff := cmp.Diff([]string{"start", "false", "start", "true"}, shakes); diff != "" {
					t.Errorf("the trace is told (-want +got):\n%s", diff)
				}
				if took := time.Since(start); tries.Load() != 2 || took != c.took {
					t.Errorf("%d tries in %v, want 2 in %v", tries.Load(), took, c.took)
				}
				conn, err = d.Dial(t.Context(), core.Credential{})
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				if tries.Load() != 3 {
					t.Errorf("%d tries in all, want 3: the dialer remembers", tries.Load())
				}
			})
		})
	}
}

// prefixed gives back what was read already.
type prefixed struct {
	net.Conn
	prefix []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.prefix) > 0 {
		n := copy(b, p.prefix)
		p.prefix = p.prefix[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
