package hub_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func TestBytesThatEndTheConnection(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	good := func(r *raw) string { return r.connectPacket(h, "dev1", 0xc2, 0, time.Hour) }
	tests := map[string]struct {
		session bool   // after a CONNECT that is accepted
		send    string // then this
		want    string // and then nothing but the end
	}{
		"first packet is not CONNECT":   {false, packet(0xc0, ""), ""},
		"first packet is HTTP":          {false, "GET / HTTP/1.1\r\n\r\n", ""},
		"CONNECT of MQTT 5":             {false, packet(0x10, str("MQTT")+"\x05\x02\x00\x00\x00"+str("a")), "\x20\x02\x00\x01"},
		"CONNECT without a client id":   {false, packet(0x10, str("MQTT")+"\x04\x02\x00\x00"+str("")), "\x20\x02\x00\x02"},
		"CONNECT without a user name":   {false, packet(0x10, str("MQTT")+"\x04\x02\x00\x00"+str("dev1")), "\x20\x02\x00\x05"},
		"CONNECT of a megabyte":         {false, "\x10\xff\xff\x3f", ""},
		"a second CONNECT":              {true, packet(0x10, str("MQTT")+"\x04\x02\x00\x00"+str("dev1")), ""},
		"PUBLISH of 256 MB":             {true, "\x32\xff\xff\xff\x7f", ""},
		"PUBLISH with a packet id of 0": {true, packet(0x32, str("devices/dev1/messages/events/")+"\x00\x00"), ""},
		"PUBREL":                        {true, "\x62\x02\x00\x01", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := dialRaw(t, h)
			if tt.session {
				r.send(good(r))
				r.want(connack)
			}
			r.send(tt.send)
			if tt.want != "" {
				r.want(tt.want)
			}
			r.wantEnd(10 * time.Second)
		})
	}
}

func TestPacketsInPiecesAndTogether(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	r := dialRaw(t, h)
	events := str("devices/dev1/messages/events/")
	all := r.connectPacket(h, "dev1", 0xc2, 0, time.Hour) +
		packet(0x32, events+"\x00\x01a") + packet(0x30, events+"b") + packet(0x32, events+"\x00\x02"+strings.Repeat("c", 100_000)) +
		packet(0x32, events+"\x00\x02again") + packet(0xe0, "")
	for i := range 300 {
		r.send(all[i : i+1])
	}
	r.send(all[300:])
	r.want(connack + "\x40\x02\x00\x01" + "\x40\x02\x00\x02" + "\x40\x02\x00\x02")
	r.wantEnd(10 * time.Second)
	var bodies []string
	for _, m := range h.WaitCount("dev1", 4) {
		bodies = append(bodies, string(m.Body[:1]))
	}
	if got := strings.Join(bodies, ""); got != "abca" {
		t.Errorf("messages %s", got)
	}
}

func TestWebSocketIsChosenBySubprotocol(t *testing.T) {
	h := hubtest.Start(t)
	for offered, want := range map[string]int{"mqtt": 101, "AMQPWSB10": 400, "": 400} {
		dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: h.CAPool(), MinVersion: tls.VersionTLS12}, EnableCompression: true}
		if offered != "" {
			dialer.Subprotocols = []string{offered}
		}
		ws, resp, err := dialer.DialContext(t.Context(), "wss://"+h.HTTPSAddr().String()+"/$iothub/websocket", http.Header{})
		if resp == nil || resp.StatusCode != want {
			t.Fatalf("offering %q: %v, %v; want %d", offered, resp, err, want)
		}
		_ = resp.Body.Close()
		if err != nil {
			continue
		}
		if resp.Header.Get("Sec-WebSocket-Extensions") != "" {
			t.Error("the hub compresses")
		}
		// MQTT lives in binary messages, [MQTT-6.0.0-1].
		if err := ws.WriteMessage(websocket.TextMessage, []byte(packet(0xc0, ""))); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.ReadMessage(); err == nil {
			t.Error("a text message was answered")
		}
		_ = ws.Close()
	}
}

// freePort finds a port at which nobody listens, below those that systems give out by themselves: one of theirs would be
// another program's soon.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return l.Addr().(*net.TCPAddr).Port
	}
	t.Fatal("no port is free")
	return 0
}

// Who may not bind port 443, or finds it taken, gets the other one, as the documents promise.
func TestHTTPSPortThatCannotBeHadGivesWay(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // nothing was written
	other := freePort(t)
	var log bytes.Buffer
	h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) {
		c.HTTPSPort, c.HTTPSFallbackPort = taken.Addr().(*net.TCPAddr).Port, other
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}))
	if h.HTTPSPort() != other {
		t.Errorf("HTTPS is at port %d, want %d", h.HTTPSPort(), other)
	}
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("other=%d", other); !strings.Contains(log.String(), want) {
		t.Errorf("the log does not say %s:\n%s", want, log.String())
	}
}
