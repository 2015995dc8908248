package hub_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// dialPort opens a connection, and no more.
func dialPort(t *testing.T, h *hubtest.Hub, addr net.Addr) net.Conn {
	t.Helper()
	nc, err := h.DialContext(t.Context(), "tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc
}

// drip writes a text, a byte every second, until the other side has enough of it.
func drip(w io.Writer, text string) {
	for i := range len(text) {
		if _, err := io.WriteString(w, text[i:i+1]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

const upgrade = "GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"

// Whatever a stranger does, and however slowly, its connection ends in time.
func TestAStrangersTimeIsBounded(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	hello := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + long // of a handshake, as far as it comes
	tests := map[string]struct {
		https bool
		tls   bool
		do    func(nc net.Conn) // with what it wants to send
		want  time.Duration     // at most, and not much less
	}{
		"MQTT: nothing":            {false, false, func(net.Conn) {}, iot.ConnectWithin},
		"MQTT: TLS in drips":       {false, false, func(nc net.Conn) { drip(nc, hello) }, iot.ConnectWithin},
		"MQTT: nothing after TLS":  {false, true, func(net.Conn) {}, iot.ConnectWithin},
		"MQTT: CONNECT in drips":   {false, true, func(nc net.Conn) { drip(nc, packet(0x10, long)) }, iot.ConnectWithin},
		"HTTPS: nothing":           {true, false, func(net.Conn) {}, iot.ConnectWithin / 2},
		"HTTPS: TLS in drips":      {true, false, func(nc net.Conn) { drip(nc, hello) }, iot.ConnectWithin / 2},
		"HTTPS: nothing after TLS": {true, true, func(net.Conn) {}, iot.ConnectWithin / 2},
		"HTTPS: a header in drips": {true, true, func(nc net.Conn) { drip(nc, "GET / HTTP/1.1\r\nX: "+long) }, iot.ConnectWithin / 2},
		"HTTPS: the body of a refused request": {true, true, func(nc net.Conn) {
			_, _ = io.WriteString(nc, "PUT /devices/dev1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n")
			drip(nc, long)
		}, iot.RefusedWithin},
		"WebSocket: nothing after the upgrade": {true, true, func(nc net.Conn) { _, _ = io.WriteString(nc, upgrade) }, iot.ConnectWithin},
		"WebSocket: a message in drips": {true, true, func(nc net.Conn) {
			_, _ = io.WriteString(nc, upgrade)
			time.Sleep(time.Millisecond) // what comes with the upgrade is an error
			drip(nc, "\x82\xfe\x20\x00\x00\x00\x00\x00"+packet(0x10, long))
		}, iot.ConnectWithin},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				addr := h.MQTTAddr()
				if tt.https {
					addr = h.HTTPSAddr()
				}
				nc := dialPort(t, h, addr)
				if tt.tls {
					c := tls.Client(nc, &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS12})
					if err := c.HandshakeContext(t.Context()); err != nil {
						t.Fatal(err)
					}
					nc = c
				}
				start := time.Now()
				done := make(chan struct{})
				go func() {
					defer close(done)
					tt.do(nc)
				}()
				if err := nc.SetReadDeadline(start.Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
				_, err := io.Copy(io.Discard, nc) // to the end, a refusal included
				took := time.Since(start)
				if took > tt.want+time.Second || took < tt.want-2*time.Second {
					t.Errorf("it ended after %v (%v), want %v", took, err, tt.want)
				}
				_ = nc.Close()
				<-done
			})
		})
	}
}

// What a stranger announces costs nothing: the hub takes the space as the bytes come.
func TestAStrangersMemoryIsBounded(t *testing.T) {
	const count, each = 200, 48 << 10 // both ends, TLS included
	h := hubtest.Start(t)
	warm := dialRaw(t, h)
	warm.send("\x10\xf0\xff\x04" + "x")
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	before := heap()
	all := make([]*raw, count)
	for i := range all {
		all[i] = dialRaw(t, h)
		all[i].send(packet(0x10, strings.Repeat("x", iot.MaxConnect-10))[:5]) // nearly all that is allowed, announced
	}
	if grown := (heap() - before) / count; grown > each {
		t.Errorf("a stranger costs %d bytes, at most %d", grown, each)
	}
	over := dialRaw(t, h)
	over.send(packet(0x10, strings.Repeat("x", iot.MaxConnect))[:5])
	over.wantEnd(iot.ConnectWithin * 2 / 3) // of itself, not of the time that it has
	runtime.KeepAlive(all)
}

func TestAHeaderIsBounded(t *testing.T) {
	h := hubtest.Start(t)
	nc := tls.Client(dialPort(t, h, h.HTTPSAddr()), &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS12})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.WriteString(nc, "GET /devices HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 2*iot.MaxHeader)) // the hub does not read all of it
	}()
	answer := make([]byte, 12)
	if _, err := io.ReadFull(nc, answer); err != nil || string(answer) != "HTTP/1.1 431" {
		t.Errorf("%s, %v", answer, err)
	}
	_ = nc.Close()
	<-ended
}

// More strangers than there are places wait outside; who is known takes no place.
func TestTheNumberOfStrangersIsBounded(t *testing.T) {
	for name, https := range map[string]bool{"MQTT": false, "HTTPS": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				addr, ends := h.MQTTAddr(), iot.ConnectWithin
				if https {
					addr, ends = h.HTTPSAddr(), iot.ConnectWithin/2
				}
				known := connect(t, h, options{id: "dev1", ws: https})
				start := time.Now()
				for range iot.MaxStrangers {
					dialPort(t, h, addr)
				}
				if took := time.Since(start); took > 0 {
					t.Errorf("%d strangers came in after %v, want at once", iot.MaxStrangers, took)
				}
				known.telemetry("", "works all the same")
				dialPort(t, h, addr) // it returns when the hub accepts
				if took := time.Since(start); took != ends {
					t.Errorf("with every place taken one more came in after %v, want %v", took, ends)
				}
				known.Disconnect(0)
			})
		})
	}
}

// Sessions and authorized requests are no strangers, however many there are.
func TestKnownOnesLeaveTheirPlaces(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		raws := make([]*raw, iot.MaxStrangers+1)
		for i := range raws {
			id := fmt.Sprintf("many%d", i)
			h.AddDevice(id)
			raws[i] = dialRaw(t, h)
			raws[i].send(raws[i].connectPacket(h, id, 0xc2, 0, time.Hour))
			raws[i].want(connack)
		}
		for _, r := range raws {
			_ = r.NetConn().Close()
		}
	})
}

// Who is held in a black hole takes no place: it may stay there when the fault is over.
func TestABlackHoleIsNoLobby(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		remove := h.Fault(api.Fault{Name: api.FaultCut, Mode: "black-hole"})
		for range iot.MaxStrangers + 1 {
			dialPort(t, h, h.MQTTAddr())
		}
		remove()
		d := connect(t, h, options{id: "dev1"})
		d.Disconnect(0)
	})
}

// One try to a connection: who is refused has to come again, and takes a place as anyone.
func TestARefusedRequestEndsItsConnection(t *testing.T) {
	h := hubtest.Start(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.CAPool(), MinVersion: tls.VersionTLS12}}}
	for _, path := range []string{"/devices", "/nothing", "/$iothub/websocket", "/devices/dev1/messages/devicebound"} {
		resp, err := client.Get("https://" + h.HTTPSAddr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if !resp.Close || resp.StatusCode < 400 {
			t.Errorf("%s: %d, and the connection stays", path, resp.StatusCode)
		}
	}
}
