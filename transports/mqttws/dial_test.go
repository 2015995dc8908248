package mqttws

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

func TestTheUpgradeIsTheSeedClients(t *testing.T) {
	var got *http.Request
	c := mustDial(t, upgrades(speaksMQTT, func(req *http.Request, _ net.Conn, _ *bufio.Reader) { got = req }))
	_, _ = c.Read(make([]byte, 1)) // until the server has gone
	defer c.Close()
	if got.Method != "GET" || got.RequestURI != "/$iothub/websocket" || got.Host != "hub.example.net:443" || got.Proto != "HTTP/1.1" {
		t.Errorf("%s %s %s, Host %s", got.Method, got.RequestURI, got.Proto, got.Host)
	}
	if key := got.Header["Sec-Websocket-Key"]; len(key) != 1 || len(key[0]) != 24 {
		t.Errorf("Sec-WebSocket-Key %q", key)
	}
	delete(got.Header, "Sec-Websocket-Key")
	want := http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Origin": {"https://hub.example.net:443"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": {"mqtt"},
	}
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestARefusedUpgradeHasItsKindAndAdvice(t *testing.T) {
	for _, c := range []struct {
		answer string
		kind   core.Kind
		wait   time.Duration
		want   string
	}{
		{"401 Unauthorized", core.Unauthorized, 0, "401 Unauthorized: the hub refuses the device"},
		{"403 Forbidden", core.Unauthorized, 0, "IP filter"},
		{"404 Not Found", core.Blocked, 0, "is the host name an IoT Hub's?"},
		{"407 Proxy Authentication Required", core.Blocked, 0, "set proxy_options"},
		{"429 Too Many Requests\r\nRetry-After: 17", core.Throttled, 17 * time.Second, "the hub asks for less"},
		{"503 Service Unavailable\r\nRetry-After: 99999999", core.Throttled, maxRetryAfter, "the hub is busy"},
		{"503 Service Unavailable\r\nRetry-After: Sat, 01 Jan 2000 00:00:09 GMT", core.Throttled, 9 * time.Second, "the hub is busy"},
		{"503 Service Unavailable\r\nRetry-After: soon", core.Throttled, 0, "the hub is busy"},
		{"500 Internal Server Error", core.Transient, 0, "has failed"},
		{"302 Found\r\nLocation: http://portal.lan/", core.Blocked, 0, "captive portal"},
		{"200 OK\r\nContent-Length: 1000000", core.Blocked, 0, "captive portal"},
		{"400 Bad Request", core.Blocked, 0, "captive portal"},
		{"101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x", core.Blocked, 0, "no upgrade to WebSocket"},
		{"503 " + strings.Repeat("\x1b[31m", 1000), core.Throttled, 0, `503 \x1b[31m`},
	} {
		t.Run(c.answer[:min(len(c.answer), 20)], func(t *testing.T) {
			u, err := opener(mqtt.Config{
				Identity: testIdentity, Open: says("HTTP/1.1 " + c.answer + "\r\n\r\n"),
				Now: func() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) },
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = u(t.Context(), core.Credential{})
			wantFailure(t, err, c.kind, c.want)
			e, _ := errors.AsType[*core.Error](err)
			if status := c.answer[:3]; e == nil || e.RetryAfter != c.wait || !strings.Contains(e.Error(), status) || e.Status == 0 {
				t.Errorf("%+v, want status %s and a wait of %v", e, status, c.wait)
			}
			if errors.Is(err, core.ErrCredential) != (c.kind == core.Unauthorized) {
				t.Errorf("%v: ErrCredential goes with Unauthorized", err)
			}
		})
	}
}

func TestWhateverElseAnswersIsBlocked(t *testing.T) {
	for name, peer := range map[string]mqtt.Opener{
		"does not speak HTTP": says("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"),
		"speaks MQTT":         says("\x20\x02\x00\x00" + strings.Repeat("\xff", 5000) + "\n"),
		"speaks HTTP/2":       says("\x00\x00\x12\x04\x00\x00\x00\x00\x00\n\n"),
		"has odd headers":     says("HTTP/1.1 101 Switching Protocols\r\nno colon\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := dial(t.Context(), t, peer)
			wantFailure(t, err, core.Blocked, "something that does not speak HTTP answers")
		})
	}
	for name, text := range map[string]string{"before": "", "within": "HTTP/1.1 101 Swi"} {
		t.Run("hangs up "+name+" the answer", func(t *testing.T) {
			_, err := dial(t.Context(), t, openScript(func(_ *http.Request, conn net.Conn, _ *bufio.Reader) { _, _ = io.WriteString(conn, text) }))
			wantFailure(t, err, core.Blocked, "EOF")
		})
	}
}

func TestBytesBehindTheAnswerAreNotLost(t *testing.T) {
	c := mustDial(t, openScript(func(req *http.Request, conn net.Conn, r *bufio.Reader) {
		if _, err := conn.Write(append([]byte(accept(req, speaksMQTT)), serverFrame(final|binaryOp, []byte("hello"))...)); err == nil {
			_, _ = io.Copy(io.Discard, r)
		}
	}))
	defer c.Close()
	p := make([]byte, 10)
	if n, err := c.Read(p); err != nil || string(p[:n]) != "hello" {
		t.Errorf("%q, %v", p[:n], err)
	}
}

// Over real TLS: what the server is offered, and a certificate that it misses. TLS 1.3 tells of that after the handshake.
func TestTLSBelowTheUpgrade(t *testing.T) {
	authority := transporttest.NewAuthority(t, "test")
	offered := make(chan []string, 1)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{authority.Issue(t, nil, "hub.example.net")}, ClientAuth: tls.RequireAnyClientCert,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			offered <- hello.SupportedProtos
			return nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
		}
	}()
	tr, err := New(mqtt.Config{
		Identity: testIdentity, Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port,
		TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM, NextProtos: []string{"h2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = tr.Open(t.Context(), core.Credential{})
	wantFailure(t, err, core.Unauthorized, "refused the device's certificate")
	if got := <-offered; !slices.Equal(got, []string{"http/1.1"}) {
		t.Errorf("%v is offered: with h2 there would be no upgrade", got)
	}
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	configs := map[string]mqtt.Config{
		"no identity":         {},
		"a host that is none": {Identity: core.Identity{Hostname: "hub example/net", DeviceID: "dev"}},
		"a line in the host":  {Identity: core.Identity{Hostname: "hub\r\nX: y", DeviceID: "dev"}},
		"a bad port":          {Identity: testIdentity, Port: 70000},
		"a bad certificate":   {Identity: testIdentity, TLS: netdial.TLSConfig{ExtraCA: []byte("x")}},
		"a bad keep-alive":    {Identity: testIdentity, KeepAlive: time.Hour},
	}
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		if _, err := New(configs[name]); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if _, err := NewRegistrar(mqtt.RegistrarConfig{Host: "a b", IDScope: "0ne1", RegistrationID: "r"}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("registrar: %v, want ErrInvalid", err)
	}
	tr, err := New(mqtt.Config{Identity: testIdentity})
	if err != nil || tr.Name() != "mqttws" {
		t.Errorf("%v, %v", tr, err)
	}
}
