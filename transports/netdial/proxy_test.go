package netdial_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// scriptedProxy is a proxy that does what a function says, for each connection anew. It models the bytes of one
// conversation, none of a real proxy's rules.
type scriptedProxy struct {
	port  int
	conns atomic.Int64
}

// startProxy listens on loopback, in TLS where secure is given. serve is told the number of the connection, from 1.
func startProxy(t *testing.T, secure *tls.Config, serve func(n int, conn net.Conn)) *scriptedProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &scriptedProxy{port: listener.Addr().(*net.TCPAddr).Port}
	netdial.ForgetUsers(p.port) // the system may give out a port again
	var wg sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			n := int(p.conns.Add(1))
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				if secure != nil {
					conn = tls.Server(conn, secure)
				}
				serve(n, conn)
			})
		}
	})
	return p
}

// config is a proxy's, with a user's name and password or without.
func (p *scriptedProxy) config(kind netdial.ProxyType, user string, password core.Secret) netdial.Proxy {
	return netdial.Proxy{Type: kind, Addr: "127.0.0.1", Port: p.port, Username: user, Password: password}
}

// carry joins two connections until one of them ends.
func carry(a io.ReadWriter, b net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(b, a)
		_ = b.Close()
	}()
	_, _ = io.Copy(a, b)
	if c, ok := a.(io.Closer); ok {
		_ = c.Close()
	}
	<-done
}

// reads is a connection whose reader has a buffer.
type reads struct {
	*bufio.Reader
	net.Conn
}

func (r reads) Read(b []byte) (int, error) { return r.Reader.Read(b) }

// connectProxy answers CONNECTs: answer returns what is sent for a request, and whether the tunnel to the hub follows.
func connectProxy(t *testing.T, secure *tls.Config, hubPort int, answer func(n int, req *http.Request) (text string, tunnel bool)) *scriptedProxy {
	t.Helper()
	return startProxy(t, secure, func(n int, conn net.Conn) {
		r := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			text, tunnel := answer(n, req)
			if _, err := io.WriteString(conn, text); err != nil || text == "" {
				return
			}
			if tunnel {
				hub, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", hubPort))
				if err != nil {
					t.Error(err)
					return
				}
				carry(reads{r, conn}, hub)
				return
			}
			if strings.Contains(text, "Connection: close") {
				return
			}
		}
	})
}

// hubBehind starts a TLS server that is the hub, and returns its port and what trusts it.
func hubBehind(t *testing.T) (port int, trust netdial.TLSConfig) {
	t.Helper()
	authority := transporttest.NewAuthority(t, "hub")
	port, _ = serve(t, &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, nil, host)}})
	return port, netdial.TLSConfig{ServerVerificationCert: authority.PEM}
}

// script answers one request after the other, on whatever connection, and notes what each said of the user.
func script(requests *[]string, answers ...string) func(int, *http.Request) (string, bool) {
	var mu sync.Mutex
	n := 0
	return func(_ int, req *http.Request) (string, bool) {
		mu.Lock()
		defer mu.Unlock()
		if requests != nil {
			*requests = append(*requests, req.Header.Get("Proxy-Authorization"))
		}
		answer := answers[min(n, len(answers)-1)]
		n++
		return answer, strings.Contains(answer, " 200 ")
	}
}

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// proxied makes a dialer to a hub that only the proxy knows how to reach.
func proxied(t *testing.T, p netdial.Proxy, trust netdial.TLSConfig) *netdial.Dialer {
	t.Helper()
	d, err := netdial.New(netdial.Config{Host: host, Port: 8883, TLS: trust, Proxy: p})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func dialed(t *testing.T, d *netdial.Dialer) {
	t.Helper()
	conn, err := d.Dial(t.Context(), core.Credential{})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheProxyIsToldTheHubsName(t *testing.T) {
	port, trust := hubBehind(t)
	var asked atomic.Value
	p := connectProxy(t, nil, port, func(_ int, req *http.Request) (string, bool) {
		asked.Store(req.Method + " " + req.RequestURI + " " + req.Host + req.Header.Get("Proxy-Authorization"))
		return established, true
	})
	dialed(t, proxied(t, p.config(netdial.ProxyHTTP, "", ""), trust))
	if want := "CONNECT hub.example.net:8883 hub.example.net:8883"; asked.Load() != want {
		t.Errorf("asked %q, want %q", asked.Load(), want)
	}
}

func TestThePasswordIsShownToWhomAsksForItAndThenAtOnce(t *testing.T) {
	port, trust := hubBehind(t)
	const user, password = "gw-ü", "p:ä s%&\"s"
	var requests []string
	p := connectProxy(t, nil, port, func(_ int, req *http.Request) (string, bool) {
		requests = append(requests, req.Header.Get("Proxy-Authorization"))
		if requests[len(requests)-1] != "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)) {
			return "HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=\"plant, hall 2\"\r\nContent-Length: 5\r\n\r\n12345", false
		}
		return established, true
	})
	d := proxied(t, p.config(netdial.ProxyHTTP, user, password), trust)
	dialed(t, d)
	dialed(t, d)
	if len(requests) != 3 || requests[0] != "" || requests[2] == "" || p.conns.Load() != 2 {
		t.Errorf("%d requests over %d connections, want 3 over 2: the first of each without a password, then with it: %q", len(requests), p.conns.Load(), requests)
	}
}
