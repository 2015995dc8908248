package hub_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/hub/internal/mqttwire"
)

// raw is a client of single bytes, for what a good client never sends.
type raw struct {
	net.Conn
	t *testing.T
}

func dialRaw(t *testing.T, h *hubtest.Hub) *raw {
	t.Helper()
	nc, err := h.DialContext(t.Context(), "tcp", h.MQTTAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return newRaw(t, nc, h.CAPEM())
}

func dialRawAt(t *testing.T, addr string, ca []byte) *raw {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newRaw(t, nc, ca)
}

func newRaw(t *testing.T, nc net.Conn, ca []byte) *raw {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	t.Cleanup(func() { _ = nc.Close() })
	return &raw{tls.Client(nc, &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}), t}
}

func str(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }

func packet(first byte, body string) string {
	head := []byte{first}
	for n := len(body); ; {
		b := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			head = append(head, b|0x80)
			continue
		}
		return string(append(head, b)) + body
	}
}

func (r *raw) connectPacket(h *hubtest.Hub, id string, flags byte, keepAlive uint16, ttl time.Duration) string {
	r.t.Helper()
	cs, err := h.ConnectionString(id)
	if err != nil {
		r.t.Fatal(err)
	}
	return packet(0x10, str("MQTT")+string([]byte{4, flags, byte(keepAlive >> 8), byte(keepAlive)})+str(id)+
		str("localhost/"+id+"/?api-version=2021-04-12")+str(token(r.t, cs, ttl)))
}

func (r *raw) send(text string) {
	r.t.Helper()
	if _, err := io.WriteString(r, text); err != nil {
		r.t.Fatal(err)
	}
}

// want reads exactly these bytes.
func (r *raw) want(text string) {
	r.t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	got := make([]byte, len(text))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != text {
		r.t.Fatalf("read %x, %v; want %x", got[:n], err, text)
	}
}

// wantEnd wants the connection closed, and returns how long that took.
func (r *raw) wantEnd(within time.Duration) time.Duration {
	r.t.Helper()
	start := time.Now()
	if err := r.SetReadDeadline(start.Add(within)); err != nil {
		r.t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.t.Fatalf("open after %v", within)
	}
	if len(rest) > 0 {
		r.t.Fatalf("read %x before the end", rest)
	}
	return time.Since(start)
}

const connack = "\x20\x02\x00\x00"

// bubble runs f in virtual time with a hub that has the device dev1.
func bubble(t *testing.T, f func(t *testing.T, h *hubtest.Hub), o ...hubtest.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t, o...)
		h.AddDevice("dev1")
		f(t, h)
	})
}

func TestTokenExpiryEndsTheSession(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		r := dialRaw(t, h)
		r.send(r.connectPacket(h, "dev1", 0xc2, 0, 10*time.Minute))
		r.want(connack)
		if took := r.wantEnd(time.Hour); took < 9*time.Minute+59*time.Second || took > 10*time.Minute {
			t.Errorf("ended after %v, want 10 minutes", took)
		}
	})
}

func TestKeepAliveIsOneAndAHalfTimes(t *testing.T) {
	tests := map[string]struct {
		keepAlive uint16
		want      time.Duration
	}{
		"60 s":                     {60, 90 * time.Second},
		"none: the longest":        {0, 1767 * time.Second},
		"65535 s: the longest":     {65535, 1767 * time.Second},
		"1 s":                      {1, 1500 * time.Millisecond},
		"1178 s: just the longest": {1178, 1767 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				r := dialRaw(t, h)
				r.send(r.connectPacket(h, "dev1", 0xc2, tt.keepAlive, 2*time.Hour))
				r.want(connack)
				time.Sleep(tt.want / 2)
				r.send(packet(0xc0, ""))
				r.want("\xd0\x00")
				if took := r.wantEnd(time.Hour); took != tt.want {
					t.Errorf("ended after %v of silence, want %v", took, tt.want)
				}
			})
		})
	}
}

func TestC2DLockAndExpiry(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		r := dialRaw(t, h)
		r.send(r.connectPacket(h, "dev1", 0xc0, 0, 24*time.Hour))
		r.want(connack)
		r.send(packet(0x82, "\x00\x01"+str(devicebound)+"\x01"))
		r.want("\x90\x03\x00\x01\x01")
		if err := h.SendC2D("dev1", api.C2D{TTL: "90s", Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		first := r.readPublish()
		start := time.Now()
		again := r.readPublish()
		if took := time.Since(start); took < 59*time.Second || took > 61*time.Second {
			t.Errorf("sent again after %v, want the lock's 60 s", took)
		}
		if first[0] != 0x32 || again[0] != 0x3a || first[1:] != again[1:] {
			t.Errorf("first %x, again %x: want the same with DUP", first, again)
		}
		// It expires at 90 s, while it is locked until 120 s.
		time.Sleep(55 * time.Second)
		if dead, err := h.DeadLetters("dev1"); err != nil || len(dead) != 0 {
			t.Errorf("dead letters %+v, %v while the device has it in hand", dead, err)
		}
		time.Sleep(10 * time.Second)
		if dead, err := h.DeadLetters("dev1"); err != nil || len(dead) != 1 || dead[0].Reason != "Expired" || dead[0].Attempts != 2 {
			t.Errorf("dead letters %+v, %v", dead, err)
		}
	})
}

func (r *raw) readPublish() string {
	r.t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Minute)); err != nil {
		r.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for end := 0; ; {
		total, err := mqttwire.Frame(buf[:end], len(buf))
		if err != nil {
			r.t.Fatal(err)
		}
		if total > 0 && end >= total {
			return string(buf[:total])
		}
		n, err := r.Read(buf[end : end+1])
		if err != nil {
			r.t.Fatal(err)
		}
		end += n
	}
}

func TestUndeliveredMessageExpires(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		if err := h.SendC2D("dev1", api.C2D{Body: []byte("default")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Minute)
		if d, err := h.Device("dev1"); err != nil || d.CloudToDeviceMessageCount != 1 {
			t.Errorf("%+v, %v", d, err)
		}
		time.Sleep(2 * time.Minute)
		if d, err := h.Device("dev1"); err != nil || d.CloudToDeviceMessageCount != 0 {
			t.Errorf("%+v, %v: the default is an hour", d, err)
		}
	})
}

func TestMethodTimeouts(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		start, wait := time.Now(), 20
		_, err := h.CallMethod(t.Context(), "dev1", api.MethodRequest{MethodName: "m", ConnectTimeoutInSeconds: &wait})
		wantCode(t, err, api.CodeNotOnline)
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("waited %v for the device, want 20 s", took)
		}
		r := dialRaw(t, h)
		r.send(r.connectPacket(h, "dev1", 0xc2, 0, 24*time.Hour))
		r.want(connack)
		r.send(packet(0x82, "\x00\x01"+str(methods)+"\x00"))
		r.want("\x90\x03\x00\x01\x00")
		go func() { _, _ = io.Copy(io.Discard, r) }() // it reads and never answers
		for _, tt := range []struct {
			given *int
			want  time.Duration
		}{{nil, 30 * time.Second}, {new(300), 300 * time.Second}} {
			start = time.Now()
			_, err = h.CallMethod(t.Context(), "dev1", api.MethodRequest{MethodName: "m", ResponseTimeoutInSeconds: tt.given})
			wantCode(t, err, api.CodeGatewayTimeout)
			if took := time.Since(start); took != tt.want {
				t.Errorf("waited %v for the answer, want %v", took, tt.want)
			}
		}
		_ = r.NetConn().Close()
	})
}

// NetConn is the bare connection below TLS.
func (r *raw) NetConn() net.Conn { return r.Conn.(*tls.Conn).NetConn() }

func TestCutByBlackHole(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		r := dialRaw(t, h)
		r.send(r.connectPacket(h, "dev1", 0xc2, 30, 24*time.Hour))
		r.want(connack)
		h.Fault(api.Fault{Name: api.FaultCut, Device: "dev1", Duration: api.Duration(5 * time.Minute), Mode: "black-hole"})
		if d, err := h.Device("dev1"); err != nil || d.ConnectionState != api.Disconnected {
			t.Errorf("%+v, %v", d, err)
		}
		r.send(packet(0xc0, "")) // no PINGRESP comes
		if took := r.wantEnd(time.Hour); took != 5*time.Minute {
			t.Errorf("closed after %v, want the fault's 5 minutes", took)
		}
		h.Fault(api.Fault{Name: api.FaultCut, Device: "dev1", Duration: api.Duration(time.Minute), Mode: "black-hole"})
		during := dialRaw(t, h)
		during.send(during.connectPacket(h, "dev1", 0xc2, 30, 24*time.Hour) + packet(0xc0, ""))
		if took := during.wantEnd(time.Hour); took != time.Minute {
			t.Errorf("a new connection closed after %v, want the fault's minute", took)
		}
		again := dialRaw(t, h)
		again.send(again.connectPacket(h, "dev1", 0xc2, 30, 24*time.Hour))
		again.want(connack)
	})
}

func TestDelayedPuback(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		h.Fault(api.Fault{Name: api.FaultDelayPuback, Delay: api.Duration(3 * time.Second), Count: 1})
		r := dialRaw(t, h)
		r.send(r.connectPacket(h, "dev1", 0xc2, 0, 24*time.Hour))
		r.want(connack)
		start := time.Now()
		r.send(packet(0x32, str("devices/dev1/messages/events/")+"\x00\x05x"))
		r.want("\x40\x02\x00\x05")
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("PUBACK after %v, want 3 s", took)
		}
	})
}

func TestConnectTimesOut(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		r := dialRaw(t, h)
		r.send("\x10")
		if took := r.wantEnd(time.Hour); took < 29*time.Second || took > 30*time.Second {
			t.Errorf("a connection without CONNECT ended after %v", took)
		}
	})
}

// A real client in virtual time: the way that other packages use StartPipe.
func TestRealClientInABubble(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		d := connect(t, h, options{id: "dev1", keepAlive: time.Minute, ttl: 3 * time.Hour})
		time.Sleep(2 * time.Hour)
		d.telemetry("", "still there")
		h.WaitCount("dev1", 1)
		ws := connect(t, h, options{id: "dev1", ws: true, keepAlive: time.Minute})
		d.wantLost()
		ws.telemetry("", "by WebSocket")
		d.Disconnect(0)
		ws.Disconnect(0)
	})
}

// Azure's own end-to-end tests order faults by message properties.
func TestFaultsOnOrder(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		order := func(id byte, bag string) string {
			return packet(0x32, str("devices/dev1/messages/events/"+bag)+string([]byte{0, id})+"x")
		}
		const kill = "%24.mid=m1&AzIoTHub_FaultOperationType=KillTcp&AzIoTHub_FaultOperationCloseReason=boom&AzIoTHub_FaultOperationDelayInSecs=5&AzIoTHub_FaultOperationDurationInSecs=10"
		r := dialRaw(t, h)
		r.send(r.connectPacket(h, "dev1", 0xc2, 0, 24*time.Hour))
		r.want(connack)
		r.send(order(1, kill))
		if took := r.wantEnd(time.Hour); took != 5*time.Second {
			t.Errorf("cut after %v, want the delay of 5 s and no PUBACK before it", took)
		}
		r = dialRaw(t, h)
		r.send(r.connectPacket(h, "dev1", 0xc2, 0, 24*time.Hour))
		r.want(connack)
		r.send(order(2, kill) + order(3, "AzIoTHub_FaultOperationType=InvokeAuthError&AzIoTHub_FaultOperationDurationInSecs=10"))
		r.want("\x40\x02\x00\x02\x40\x02\x00\x03") // applied once per message id; an auth error cuts nobody
		synctest.Wait()
		again := dialRaw(t, h)
		again.send(again.connectPacket(h, "dev1", 0xc2, 0, time.Hour))
		again.want("\x20\x02\x00\x05")
		time.Sleep(11 * time.Second)
		again = dialRaw(t, h)
		again.send(again.connectPacket(h, "dev1", 0xc2, 0, time.Hour))
		again.want(connack)
	})
}
