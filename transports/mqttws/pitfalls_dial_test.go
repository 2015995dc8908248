package mqttws

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// The same as in pitfalls_test.go, of what stands before the upgrade: here gorilla would have to dial by itself.

// startServer starts a web server that speaks HTTP/2 as well and upgrades to MQTT, for hub.example.net.
func startServer(t *testing.T, authority *transporttest.Authority) (port int) {
	t.Helper()
	upgrader := websocket.Upgrader{Subprotocols: []string{"mqtt"}, CheckOrigin: func(*http.Request) bool { return true }}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ws, err := upgrader.Upgrade(w, r, nil); err == nil {
			_, _, _ = ws.ReadMessage() // until the client has gone
			_ = ws.Close()
		}
	}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, nil, "hub.example.net")}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

// alone is gorilla with what it has of its own, on the way to the server at a port.
func alone(authority *transporttest.Authority, port int) *websocket.Dialer {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority.PEM)
	server := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
	return &websocket.Dialer{
		Subprotocols: []string{"mqtt"}, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		NetDial: func(network, addr string) (net.Conn, error) {
			if strings.HasPrefix(addr, "hub.example.net:") {
				addr = server
			}
			return net.Dial(network, addr)
		},
	}
}

const wsURL = "wss://hub.example.net/$iothub/websocket"

func TestHTTP2IsNotAgreedOn(t *testing.T) {
	authority := transporttest.NewAuthority(t, "test")
	port := startServer(t, authority)
	d := alone(authority, port)
	ws, _, err := d.DialContext(t.Context(), wsURL, nil)
	if err != nil {
		t.Fatal("gorilla alone: ", err)
	}
	_ = ws.Close()
	d.TLSClientConfig.NextProtos = []string{"h2", "http/1.1"} // as of whoever shares a configuration with net/http
	if _, _, err = d.DialContext(t.Context(), wsURL, nil); err == nil || !strings.Contains(err.Error(), `protocol "h2" was given but is not supported`) {
		t.Errorf("gorilla alone, offering h2: %v; the defect is gone", err)
	}
	opens(t, mqtt.Config{
		Identity: testIdentity, Address: "127.0.0.1", Port: port,
		TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM, NextProtos: []string{"h2", "http/1.1"}},
	})
}

func TestAProxyMayBeSpokenToInTLS(t *testing.T) {
	authority := transporttest.NewAuthority(t, "test")
	port := startServer(t, authority)
	proxy := startTLSProxy(t, authority, port)
	d := alone(authority, port)
	d.Proxy = http.ProxyURL(&url.URL{Scheme: "https", Host: (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: proxy}).String()})
	if _, _, err := d.DialContext(t.Context(), wsURL, nil); err == nil || !strings.Contains(err.Error(), "unknown scheme") {
		t.Errorf("gorilla alone, through https://: %v; the defect is gone", err)
	}
	opens(t, mqtt.Config{
		Identity: testIdentity, Proxy: netdial.Proxy{Type: netdial.ProxyHTTPS, Addr: "127.0.0.1", Port: proxy},
		TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM, ExtraCA: authority.PEM},
	})
}

// opens opens a WebSocket as our transport does, and closes it.
func opens(t *testing.T, cfg mqtt.Config) {
	t.Helper()
	up, err := opener(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c, err := up(t.Context(), core.Credential{})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// startTLSProxy starts a proxy in TLS, at 127.0.0.1, from which every CONNECT leads to a port of this machine.
func startTLSProxy(t *testing.T, authority *transporttest.Authority, to int) (port int) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, nil, "127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				if req, err := http.ReadRequest(r); err != nil || req.Method != http.MethodConnect {
					return
				}
				far, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: to})
				if err != nil {
					return
				}
				defer far.Close()
				if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
					return
				}
				serving.Go(func() {
					_, _ = io.Copy(conn, far)
					_ = conn.Close()
				})
				_, _ = io.Copy(far, r)
			})
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}
