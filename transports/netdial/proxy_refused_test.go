package netdial_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

const basic = "Proxy-Authenticate: Basic realm=\"x\"\r\n"

// Whatever a proxy answers, the error is of the proxy's phase, says what to do, and gives way to the next route.
func TestEachRefusalOfAnHTTPProxySaysWhatToDo(t *testing.T) {
	const ask = time.Minute
	for _, c := range []struct {
		name, answer string // "" hangs up
		user         string
		status       int
		wait         time.Duration
		want         string
	}{
		{"who are you", "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM\r\n" + basic + "\r\n", "", 407, ask, "407 Proxy Authentication Required: offers NTLM, Basic; set proxy_username"},
		{"several in one header", "HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate, NTLM, Basic realm=\"a, b=c\", charset=\"UTF-8\"\r\n\r\n", "", 407, ask, "407 x: offers Negotiate, NTLM, Basic; set proxy_username"},
		{"no reason and no header", "HTTP/1.1 407\r\n\r\n", "", 407, ask, "407 Proxy Authentication Required: offers no way to say who asks; set proxy_username"},
		{"the same, as bare lines", "HTTP/1.1 407\n\n", "gw", 407, ask, "offers no way to say who asks; Basic, Digest (MD5, SHA-256) and NTLM are spoken here"},
		{"only what is not spoken", "HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=MD6\r\n\r\n", "gw", 407, ask, "offers Negotiate, Digest; Basic, Digest (MD5, SHA-256) and NTLM are spoken here"},
		{"wrong password", "HTTP/1.1 407 x\r\n" + basic + "Content-Length: 0\r\n\r\n", "gw", 407, ask, "it refuses the user name or the password: check proxy_username and proxy_password"},
		{"wrong password, and each time another connection", "HTTP/1.1 407 x\r\n" + basic + "Connection: close\r\n\r\nsome text", "gw", 407, ask, "it refuses the user name or the password"},
		{"a colon in the name", "HTTP/1.1 407 x\r\n" + basic + "Content-Length: 0\r\n\r\n", "g:w", 0, 0, "a colon, which the scheme Basic cannot carry"},
		{"who are you, as from a server", "HTTP/1.1 401 Unauthorized\r\n\r\n", "", 401, ask, "401 Unauthorized: set proxy_username"},
		{"forbidden", "HTTP/1.1 403 Forbidden\r\n\r\n", "", 403, 0, "403 Forbidden: it forbids CONNECT to hub.example.net:8883: many proxies let port 443 through only"},
		{"no CONNECT", "HTTP/1.1 405 Method Not Allowed\r\n\r\n", "", 405, 0, "it knows no CONNECT"},
		{"too often", "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 120\r\n\r\n", "", 429, 2 * time.Minute, "429 Too Many Requests: it asks for less"},
		{"too often, and no word of when", "HTTP/1.1 429 Too Many Requests\r\n\r\n", "", 429, 0, "it asks for less"},
		{"too often, for a year", "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 31536000\r\n\r\n", "", 429, time.Hour, "it asks for less"},
		{"it is busy", "HTTP/1.1 503 Service Unavailable\r\nretry-after: 30\r\n\r\n", "gw", 503, 30 * time.Second, "it does not reach hub.example.net:8883"},
		{"a wait that is none", "HTTP/1.1 503 Service Unavailable\r\nRetry-After: soon\r\n\r\n", "", 503, 0, "it does not reach hub.example.net:8883"},
		{"a wait that nobody meant", "HTTP/1.1 502 Bad Gateway\r\nRetry-After: 30\r\n\r\n", "", 502, 0, "it does not reach hub.example.net:8883"},
		{"only what is not spoken, and nobody asks", "HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: Bearer\r\n\r\n", "", 407, ask, "offers Negotiate, Bearer; Basic, Digest (MD5, SHA-256) and NTLM are spoken here, and no user name changes that"},
		{"the hub is not reached", "HTTP/1.1 503 Service Unavailable\r\n\r\n", "", 503, 0, "it does not reach hub.example.net:8883"},
		{"a portal", "HTTP/1.1 302 Found\r\nLocation: http://login\r\n\r\n", "", 302, 0, "as a captive portal does"},
		{"something else", "HTTP/1.1 400 Bad\x1b[31m Request\r\n\r\n", "", 400, 0, "400 Bad[31m Request: it refuses CONNECT to hub.example.net:8883"},
		{"a bare 407", "HTTP/1.1 407", "", 0, 0, "ended the connection without an answer"},
		{"nothing", "", "", 0, 0, "ended the connection without an answer"},
		{"half a status line", "HTTP/1.1 2", "", 0, 0, "ended the connection without an answer"},
		{"half a header", "HTTP/1.1 200 OK\r\nVia: x", "", 0, 0, "ended the connection without an answer"},
		{"a status of no number", "HTTP/1.1 abc OK\r\n\r\n", "", 0, 0, `it does not speak HTTP: it answers "HTTP/1.1 abc OK"`},
		{"another protocol", "SSH-2.0-OpenSSH_9.2p1\r\n", "", 0, 0, `it does not speak HTTP: it answers "S": is proxy_type right?`},
		{"TLS", "\x15\x03\x01\x00\x02\x02\x46", "", 0, 0, "it speaks TLS, as a proxy of type HTTPS does"},
		{"a header without end", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 9000), "", 0, 0, "larger than 8192 bytes"},
		{"a thousand headers", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 2000), "", 0, 0, "larger than 8192 bytes"},
		{"interim without end", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 6), "", 0, 0, "interim answers without end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startProxy(t, nil, func(_ int, conn net.Conn) {
				b := make([]byte, 4096)
				for {
					n, err := conn.Read(b)
					if err != nil || !strings.HasSuffix(string(b[:n]), "\r\n\r\n") {
						return
					}
					if _, err := io.WriteString(conn, c.answer); err != nil || !strings.Contains(c.answer, "Content-Length") {
						return
					}
				}
			})
			password := core.Secret("")
			if c.user != "" {
				password = "pass-word-1"
			}
			_, err := proxied(t, p.config(netdial.ProxyHTTP, c.user, password), netdial.TLSConfig{}).Dial(t.Context(), core.Credential{})
			wantError(t, err, netdial.PhaseProxy, core.Blocked, c.want)
			e, _ := errors.AsType[*core.Error](err)
			if e.Status != c.status || e.RetryAfter != c.wait || !strings.HasPrefix(err.Error(), "proxy 127.0.0.1:") || strings.Contains(err.Error(), "pass-word-1") {
				t.Errorf("status %d, retry after %v, want %d, %v: %v", e.Status, e.RetryAfter, c.status, c.wait, err)
			}
		})
	}
}

// A password that was right once is not taken for right for ever.
func TestARefusedPasswordIsNotShownUnaskedAgain(t *testing.T) {
	port, trust := hubBehind(t)
	var requests []string
	d := proxied(t, connectProxy(t, nil, port, script(&requests,
		"HTTP/1.1 407 x\r\n"+basic+"Content-Length: 0\r\n\r\n", established, // asks, and is content
		"HTTP/1.1 407 x\r\n"+basic+"Connection: close\r\n\r\n",                                                            // the password was changed
		"HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\nContent-Length: 0\r\n\r\n", established, // another proxy
	)).config(netdial.ProxyHTTP, "gw", "pw"), trust)
	dialed(t, d)
	_, err := d.Dial(t.Context(), core.Credential{})
	wantError(t, err, netdial.PhaseProxy, core.Blocked, "it refuses the user name or the password")
	netdial.WaitIsOver(d.Proxy())
	dialed(t, d)
	var schemes []string
	for _, r := range requests {
		scheme, _, _ := strings.Cut(r, " ")
		schemes = append(schemes, scheme)
	}
	if got, want := strings.Join(schemes, ","), ",Basic,Basic,,Digest"; got != want {
		t.Errorf("the requests had %q, want %q", got, want)
	}
}

// Each refusal in a row doubles the wait; a tunnel begins anew.
func TestAProxyThatRefusesTheUserIsSparedMoreAndMore(t *testing.T) {
	port, trust := hubBehind(t)
	const no = "HTTP/1.1 407 x\r\n" + basic + "Connection: close\r\n\r\n"
	var answers []string
	for range 7 {
		answers = append(answers, no, no) // asked without the password, then with it
	}
	d := proxied(t, connectProxy(t, nil, port, script(nil, append(answers, established, no)...)).config(netdial.ProxyHTTP, "gw", "pw"), trust)
	const m = time.Minute
	for i, want := range []time.Duration{m, 2 * m, 4 * m, 8 * m, 10 * m, 10 * m, 10 * m, 0, m} {
		netdial.WaitIsOver(d.Proxy())
		if want == 0 {
			dialed(t, d)
			continue
		}
		_, err := d.Dial(t.Context(), core.Credential{})
		if e, ok := errors.AsType[*core.Error](err); !ok || e.RetryAfter != want {
			t.Errorf("refusal %d: %v, want a wait of %v", i, err, want)
		}
	}
}

// Routes, uploads and provisioning have a dialer each. To the proxy they are one account, and at a start they ask all at
// once.
func TestDialersOfOneProxyShowAWrongPasswordOnce(t *testing.T) {
	port, trust := hubBehind(t)
	var shown atomic.Int64
	p := connectProxy(t, nil, port, func(_ int, req *http.Request) (string, bool) {
		switch req.Header.Get("Proxy-Authorization") {
		case "":
		case "Basic " + base64.StdEncoding.EncodeToString([]byte("gw:right")):
			return established, true
		default:
			shown.Add(1)
		}
		return "HTTP/1.1 407 x\r\n" + basic + "Connection: close\r\n\r\n", false
	})
	all := func(password core.Secret) (waits []time.Duration) {
		errs := make(chan error)
		const dialers = 5
		for n := range dialers {
			cfg := p.config(netdial.ProxyHTTP, "gw", password)
			if n%2 == 1 {
				cfg.NoProxy = "elsewhere.example" // which is not the account's business
			}
			d := proxied(t, cfg, trust)
			go func() {
				conn, err := d.Dial(t.Context(), core.Credential{})
				if err == nil {
					err = conn.Close()
				}
				errs <- err
			}()
		}
		for range dialers {
			err := <-errs
			if err == nil {
				continue
			}
			wantError(t, err, netdial.PhaseProxy, core.Blocked, "it refuses the user name or the password")
			e, _ := errors.AsType[*core.Error](err)
			if e.Status != http.StatusProxyAuthRequired {
				t.Errorf("status %d: %v", e.Status, err)
			}
			waits = append(waits, e.RetryAfter)
		}
		return waits
	}
	for try, most := range []time.Duration{time.Minute, 2 * time.Minute} {
		waits := all("wrong")
		if n := shown.Load(); n != int64(try)+1 || len(waits) != 5 {
			t.Errorf("try %d of 5 dialers: the wrong password was shown %d times in all, and %d failed", try+1, n, len(waits))
		}
		slices.Sort(waits)
		if waits[0] <= most/2 || waits[len(waits)-1] != most {
			t.Errorf("they are told to wait %v, want %v and what is left of it", waits, most)
		}
		netdial.WaitIsOver(p.config(netdial.ProxyHTTP, "gw", "wrong"))
	}
	if waits := all("right"); len(waits) != 0 {
		t.Errorf("with another password %d of 5 dialers failed", len(waits))
	}
}

func TestSOCKSProxiesRefuseInWords(t *testing.T) {
	for _, c := range []struct {
		name   string
		kind   netdial.ProxyType
		user   string
		script []string // an answer to each thing that is said; the last one hangs up
		wait   time.Duration
		want   string
	}{
		{"wants a user", netdial.ProxySOCKS5, "", []string{"\x05\xff"}, time.Minute, "set proxy_username and proxy_password"},
		{"wants neither", netdial.ProxySOCKS5, "gw", []string{"\x05\xff"}, time.Minute, "takes neither"},
		{"wrong password", netdial.ProxySOCKS5, "gw", []string{"\x05\x02", "\x01\x01"}, time.Minute, "it refuses the user name or the password"},
		{"asks for what was not offered", netdial.ProxySOCKS5, "", []string{"\x05\x02"}, 0, "authentication 2, which was not offered"},
		{"rules", netdial.ProxySOCKS5, "", []string{"\x05\x00", "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"}, 0, "it gives no connection to hub.example.net:8883: its rules do not allow the connection (code 2)"},
		{"host unreachable", netdial.ProxySOCKS5, "", []string{"\x05\x00", "\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00"}, 0, "host unreachable (code 4)"},
		{"an unknown code", netdial.ProxySOCKS5, "", []string{"\x05\x00", "\x05\x63\x00\x01\x00\x00\x00\x00\x00\x00"}, 0, "an unknown reason (code 99)"},
		{"an unknown address", netdial.ProxySOCKS5, "", []string{"\x05\x00", "\x05\x00\x00\x09"}, 0, "an address of the unknown type 9"},
		{"another version", netdial.ProxySOCKS5, "", []string{"\x04\x00"}, 0, "it does not speak this version of SOCKS: its answer begins with 0x04"},
		{"HTTP", netdial.ProxySOCKS5, "", []string{"HTTP/1.1 400 Bad Request\r\n\r\n"}, 0, "it answers as an HTTP proxy: is proxy_type right?"},
		{"hangs up", netdial.ProxySOCKS5, "", []string{"\x05\x00", "\x05\x00"}, 0, "ended the connection without an answer"},
		{"4: rejected", netdial.ProxySOCKS4, "", []string{"\x00\x5b\x00\x00\x00\x00\x00\x00"}, 0, "rejected or failed; a proxy without SOCKS 4a, such as dante, reaches addresses only, no names (code 91)"},
		{"4: another user", netdial.ProxySOCKS4, "gw", []string{"\x00\x5d\x00\x00\x00\x00\x00\x00"}, 0, "identd on this device names another user (code 93)"},
		{"4: another version", netdial.ProxySOCKS4, "", []string{"\x05\x00"}, 0, "it does not speak this version of SOCKS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startProxy(t, nil, func(_ int, conn net.Conn) {
				b := make([]byte, 1024)
				for _, answer := range c.script {
					if _, err := conn.Read(b); err != nil {
						return
					}
					if _, err := io.WriteString(conn, answer); err != nil {
						return
					}
				}
			})
			var password core.Secret
			if c.user != "" && c.kind == netdial.ProxySOCKS5 {
				password = "pass-word-1"
			}
			_, err := proxied(t, p.config(c.kind, c.user, password), netdial.TLSConfig{}).Dial(t.Context(), core.Credential{})
			wantError(t, err, netdial.PhaseProxy, core.Blocked, c.want)
			if e, _ := errors.AsType[*core.Error](err); e.RetryAfter != c.wait || strings.Contains(err.Error(), "pass-word-1") {
				t.Errorf("retry after %v, want %v: %v", e.RetryAfter, c.wait, err)
			}
		})
	}
}

func TestAProxyIsTrustedByItsOwnName(t *testing.T) {
	authority, stranger := transporttest.NewAuthority(t, "plant"), transporttest.NewAuthority(t, "stranger")
	port, trust := hubBehind(t)
	for _, c := range []struct {
		name   string
		issuer *transporttest.Authority
		bears  string
		want   string // "" connects
	}{
		{"the proxy", authority, "127.0.0.1", ""},
		{"the hub's name", authority, host, "tls: the certificate is not for 127.0.0.1"},
		{"an unknown authority", stranger, "127.0.0.1", `issued by "CN=stranger", which is not trusted: if that is your company's proxy, add its CA as tls.extra_ca`},
	} {
		t.Run(c.name, func(t *testing.T) {
			secure := &tls.Config{Certificates: []tls.Certificate{c.issuer.Issue(t, nil, c.bears)}}
			p := connectProxy(t, secure, port, script(nil, established))
			trust := trust
			trust.ExtraCA = authority.PEM
			d := proxied(t, p.config(netdial.ProxyHTTPS, "", ""), trust)
			if c.want == "" {
				dialed(t, d)
				return
			}
			_, err := d.Dial(t.Context(), core.Credential{})
			wantError(t, err, netdial.PhaseProxy, core.Blocked, c.want)
			if phase := netdial.ToProxy(err); phase != netdial.PhaseTLS {
				t.Errorf("it failed at %q on the way to the proxy", phase)
			}
		})
	}
	// What replaces the hub's roots says nothing of the proxy's.
	p := connectProxy(t, &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, nil, "127.0.0.1")}}, port, script(nil, established))
	_, err := proxied(t, p.config(netdial.ProxyHTTPS, "", ""), netdial.TLSConfig{ServerVerificationCert: authority.PEM}).Dial(t.Context(), core.Credential{})
	wantError(t, err, netdial.PhaseProxy, core.Blocked, `issued by "CN=plant", which is not trusted`)
	for answer, want := range map[string]string{
		"HTTP/1.1 400 Bad Request\r\n\r\n": "tls: something that does not speak TLS answers on this port",
		"":                                 "tls: it ends the connection: does it speak TLS, as proxy_type HTTPS says?",
	} {
		plain := startProxy(t, nil, func(_ int, conn net.Conn) {
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = io.WriteString(conn, answer)
		})
		_, err = proxied(t, plain.config(netdial.ProxyHTTPS, "", ""), netdial.TLSConfig{}).Dial(t.Context(), core.Credential{})
		wantError(t, err, netdial.PhaseProxy, core.Blocked, want)
	}
}

func TestAProxyThatCannotBeReachedIsNamed(t *testing.T) {
	for _, c := range []struct {
		name  string
		addr  string
		dial  netdial.ContextDialer
		want  string
		phase string
	}{
		{"refused", "127.0.0.1", nil, "proxy 127.0.0.1:1: tcp: connect: connection refused", netdial.PhaseTCP},
		{"no such name", "proxy.plant", func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "proxy.plant", IsNotFound: true}}
		}, "proxy proxy.plant:1: dns: lookup proxy.plant: no such host", netdial.PhaseDNS},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := netdial.New(netdial.Config{Host: host, Port: 8883, DialContext: c.dial, Proxy: netdial.Proxy{Type: netdial.ProxyHTTP, Addr: c.addr, Port: 1}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.Dial(t.Context(), core.Credential{})
			wantError(t, err, netdial.PhaseProxy, core.Blocked, c.want)
			if phase := netdial.ToProxy(err); phase != c.phase {
				t.Errorf("it failed at %q on the way to the proxy, want %q", phase, c.phase)
			}
		})
	}
}

// Where the tunnel stands and TLS fails in it, the error says that there was a proxy.
func TestAFailureBehindTheProxyIsTheHubs(t *testing.T) {
	port, _ := hubBehind(t)
	p := connectProxy(t, nil, port, script(nil, established))
	_, err := proxied(t, p.config(netdial.ProxyHTTP, "", ""), netdial.TLSConfig{}).Dial(t.Context(), core.Credential{})
	wantError(t, err, netdial.PhaseTLS, core.Fatal, "dial tls hub.example.net:8883 through HTTP proxy 127.0.0.1:")
	if phase := netdial.ToProxy(err); phase != "" {
		t.Errorf("it is said to have failed at %q on the way to the proxy", phase)
	}
}

func TestEachPhaseOfAProxyIsBounded(t *testing.T) {
	silent := func(_ int, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	drip := func(text string) func(int, net.Conn) {
		return func(_ int, conn net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			for {
				for _, b := range []byte(text) {
					time.Sleep(time.Second)
					if _, err := conn.Write([]byte{b}); err != nil {
						return
					}
				}
			}
		}
	}
	for _, c := range []struct {
		name  string
		kind  netdial.ProxyType
		peer  func(int, net.Conn)
		want  string
		limit time.Duration
	}{
		{"silent to CONNECT", netdial.ProxyHTTP, silent, "no answer within 10s: it does not reach hub.example.net:8883", 10 * time.Second},
		{"a byte a second", netdial.ProxyHTTP, drip("HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 50)), "no answer within 10s", 10 * time.Second},
		{"silent to SOCKS5", netdial.ProxySOCKS5, silent, "it says nothing to a greeting of SOCKS5: is proxy_type right? no answer within 10s", 10 * time.Second},
		{"silent to SOCKS4", netdial.ProxySOCKS4, silent, "no answer within 10s", 10 * time.Second},
		{"silent to TLS", netdial.ProxyHTTPS, silent, "tls: no answer within 15s", 15 * time.Second},
		{"asks for ever", netdial.ProxyHTTP, func(_ int, conn net.Conn) {
			b := make([]byte, 1024)
			for {
				if _, err := conn.Read(b); err != nil {
					return
				}
				time.Sleep(9 * time.Second)
				if _, err := io.WriteString(conn, "HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm=\"r\", nonce=\"n\", stale=true\r\nContent-Length: 0\r\n\r\n"); err != nil {
					return
				}
			}
		}, "", 25 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, _ := pipes(c.peer)
				p := netdial.Proxy{Type: c.kind, Addr: "proxy.plant", Port: 3128}
				if c.name == "asks for ever" {
					p.Username, p.Password = "gw", "pw"
				}
				d, err := netdial.New(netdial.Config{Host: host, Port: 8883, Proxy: p, DialContext: dial})
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				_, err = d.Dial(t.Context(), core.Credential{})
				wantError(t, err, netdial.PhaseProxy, core.Blocked, c.want)
				if took := time.Since(start); took > c.limit {
					t.Errorf("it took %v, want at most %v", took, c.limit)
				}
				time.Sleep(2 * time.Minute) // the scripts end
			})
		})
	}
}

func TestACancelledDialThroughAProxySaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, _ := pipes(func(_ int, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		d, err := netdial.New(netdial.Config{Host: host, Port: 8883, Proxy: netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "p", Port: 1}, DialContext: dial})
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Dial(ctx, core.Credential{})
		wantError(t, err, netdial.PhaseProxy, core.Transient, "context canceled")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v is not context.Canceled", err)
		}
	})
}
