package mqtt

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/core"
)

// Each test here lets one scripted peer meet paho alone, to show the defect, and then a session, to show its end. Should
// a newer paho mend a defect, the first half says so.

// bytes of packets as a peer sends them.
var (
	connackOK  = []byte{0x20, 2, 0, 0}
	connackSix = []byte{0x20, 2, 0, 6}
)

// script speaks for the hub on one connection; returning closes it.
type script func(conn net.Conn)

// answer reads packets and answers CONNECT, then hands each later packet to f, which returns what to send.
func answer(f func(p packets.ControlPacket) []byte) script {
	return func(conn net.Conn) {
		for {
			p, err := packets.ReadPacket(conn)
			if err != nil {
				return
			}
			reply := connackOK
			if _, ok := p.(*packets.ConnectPacket); !ok {
				reply = f(p)
			}
			if len(reply) == 0 {
				continue
			}
			if _, err := conn.Write(reply); err != nil {
				return
			}
		}
	}
}

// openScript is an opener that leads to the script.
func openScript(s script) Opener {
	return func(context.Context, core.Credential) (net.Conn, error) {
		device, hub := net.Pipe()
		go func() {
			defer hub.Close()
			s(hub)
		}()
		return tcpLike{device}, nil
	}
}

// tcpLike makes a pipe end like TCP: reading from a connection that was closed on this side is net.ErrClosed.
type tcpLike struct{ net.Conn }

func (c tcpLike) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.ErrClosedPipe) {
		err = &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}
	}
	return n, err
}

// bare makes a paho client as recommended, on the connection itself. lost is closed when paho reports the loss.
func bare(t *testing.T, open Opener, adjust func(o *paho.ClientOptions)) (client paho.Client, conn net.Conn, lost chan struct{}) {
	t.Helper()
	lost = make(chan struct{})
	conn, err := open(t.Context(), core.Credential{})
	if err != nil {
		t.Fatal(err)
	}
	o := paho.NewClientOptions().AddBroker("tcp://hub").SetClientID("dev").SetProtocolVersion(4).
		SetCleanSession(false).SetAutoReconnect(false).SetConnectRetry(false).
		SetKeepAlive(2 * time.Second).SetPingTimeout(time.Second).
		SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return conn, nil }).
		SetConnectionLostHandler(func(paho.Client, error) { close(lost) })
	if adjust != nil {
		adjust(o)
	}
	client = paho.NewClient(o)
	return client, conn, lost
}

// guarded makes a session on the script.
func guarded(t *testing.T, open Opener, h core.Handler) (core.Session, error) {
	t.Helper()
	tr, err := New(Config{Identity: testIdentity, KeepAlive: 2 * time.Second, Open: open})
	if err != nil {
		t.Fatal(err)
	}
	link, err := tr.Open(t.Context(), core.Credential{})
	if err != nil {
		t.Fatal(err)
	}
	return link.Connect(t.Context(), core.Credential{}, h)
}

func mustGuarded(t *testing.T, open Opener, h core.Handler) core.Session {
	t.Helper()
	s, err := guarded(t, open, h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantLost asserts that the session ends within limit, with a typed error whose text contains want.
func wantLost(t *testing.T, s core.Session, limit time.Duration, want string) {
	t.Helper()
	start := time.Now()
	select {
	case <-s.Done():
	case <-time.After(limit):
		t.Fatalf("the session still lives after %v", limit)
	}
	e, ok := errors.AsType[*core.Error](s.Err())
	if !ok || !strings.Contains(e.Error(), want) {
		t.Errorf("lost with %v after %v, want a *core.Error with %q", s.Err(), time.Since(start), want)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestP1UnknownConnackIsNotSuccess(t *testing.T) {
	peer := openScript(func(conn net.Conn) {
		_, _ = packets.ReadPacket(conn)
		_, _ = conn.Write(connackSix)
		_, _ = io.Copy(io.Discard, conn)
	})
	synctest.Test(t, func(t *testing.T) {
		client, conn, lost := bare(t, peer, nil)
		token := client.Connect()
		<-token.Done()
		if token.Error() != nil || !client.IsConnected() || isClosed(lost) {
			t.Errorf("paho alone: error %v, connected %v; the defect is gone", token.Error(), client.IsConnected())
		}
		conn.Close()
		client.Disconnect(0)

		_, err := guarded(t, peer, core.Handler{})
		e, ok := errors.AsType[*core.Error](err)
		if !ok || e.Status != 6 || e.Kind != core.Transient {
			t.Errorf("guarded: %v, want a *core.Error of status 6", err)
		}
		time.Sleep(time.Minute) // whatever paho still waits for
	})
}

// bomb answers SUBSCRIBE with two codes for one topic.
var bomb = openScript(answer(func(p packets.ControlPacket) []byte {
	sub, ok := p.(*packets.SubscribePacket)
	if !ok {
		return nil
	}
	return []byte{0x90, 4, byte(sub.MessageID >> 8), byte(sub.MessageID), 1, 1}
}))

func TestP2SubackBombDoesNotEndTheProcess(t *testing.T) {
	const variable = "MQTT_TEST_BARE_SUBACK_BOMB"
	if os.Getenv(variable) != "" {
		client, _, _ := bare(t, bomb, nil)
		client.Connect().Wait()
		client.Subscribe("a", 1, nil).WaitTimeout(time.Minute)
		return
	}
	command := exec.Command(os.Args[0], "-test.run=^TestP2SubackBombDoesNotEndTheProcess$")
	command.Env = append(os.Environ(), variable+"=1")
	out, err := command.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "index out of range") {
		t.Errorf("paho alone survives (%v); the defect is gone:\n%s", err, out)
	}

	s := mustGuarded(t, bomb, core.Handler{})
	if err := s.Subscribe(t.Context(), core.FeatureTwin); err == nil {
		t.Error("guarded: subscribe succeeds")
	}
	wantLost(t, s, 30*time.Second, "with 4 bytes instead of 3")
}

func TestP3LengthIsCheckedBeforeMemoryIsTaken(t *testing.T) {
	const length = 64 << 20
	peer := openScript(func(conn net.Conn) {
		_, _ = packets.ReadPacket(conn)
		_, _ = conn.Write(append(connackOK, 0x30, 0x80, 0x80, 0x80, 0x20)) // PUBLISH of 64 MiB
		_, _ = io.Copy(io.Discard, conn)
	})
	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	got := allocated(func() {
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		client, conn, _ := bare(t, peer, nil)
		client.Connect().Wait()
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			var now runtime.MemStats
			if runtime.ReadMemStats(&now); now.TotalAlloc-before.TotalAlloc > length {
				break
			}
		}
		conn.Close()
		client.Disconnect(0)
	})
	if got < length {
		t.Errorf("paho alone took %d bytes; the defect is gone", got)
	}
	got = allocated(func() {
		s, err := guarded(t, peer, core.Handler{})
		if err == nil {
			wantLost(t, s, 30*time.Second, "at most 524288 are taken")
			return
		}
		if !strings.Contains(err.Error(), "at most 524288 are taken") {
			t.Errorf("guarded: %v", err)
		}
	})
	if got > 8<<20 {
		t.Errorf("guarded: %d bytes were taken", got)
	}
}

func TestP4ClosedConnectionIsNoticed(t *testing.T) {
	peer := openScript(answer(func(packets.ControlPacket) []byte { return nil }))
	synctest.Test(t, func(t *testing.T) {
		client, conn, lost := bare(t, peer, nil)
		client.Connect().Wait()
		conn.Close()
		time.Sleep(time.Second)
		if isClosed(lost) || !client.IsConnected() {
			t.Error("paho alone notices; the defect is gone")
		}
		<-lost // with the next ping

		var local net.Conn
		s := mustGuarded(t, func(ctx context.Context, c core.Credential) (net.Conn, error) {
			var err error
			local, err = peer(ctx, c)
			return local, err
		}, core.Handler{})
		local.Close()
		wantLost(t, s, time.Millisecond, "read from hub")
	})
}

func TestP5PeerThatDoesNotReadIsNoticed(t *testing.T) {
	peer := openScript(func(conn net.Conn) {
		_, _ = packets.ReadPacket(conn)
		_, _ = conn.Write(connackOK)
		time.Sleep(2 * time.Hour)
	})
	synctest.Test(t, func(t *testing.T) {
		client, conn, lost := bare(t, peer, nil)
		client.Connect().Wait()
		time.Sleep(time.Hour)
		if isClosed(lost) || !client.IsConnected() {
			t.Error("paho alone notices within an hour; the defect is gone")
		}
		conn.Close()

		s := mustGuarded(t, peer, core.Handler{})
		wantLost(t, s, 2*time.Second+pingTimeout+5*time.Second, "")
		s = mustGuarded(t, peer, core.Handler{})
		s.Send(1, outbound(1, 10))
		wantLost(t, s, writeTimeout+time.Second, "accepted no bytes for 10s")
		time.Sleep(2 * time.Hour)
	})
}

func TestP6LossEndsEverythingInFlight(t *testing.T) {
	peer := openScript(func(conn net.Conn) {
		_, _ = packets.ReadPacket(conn)
		_, _ = conn.Write(connackOK)
		_, _ = packets.ReadPacket(conn) // a PUBLISH that gets no answer
	})
	synctest.Test(t, func(t *testing.T) {
		client, _, lost := bare(t, peer, nil)
		client.Connect().Wait()
		token := client.Publish("t", 1, false, "x")
		<-lost
		client.Disconnect(100)
		time.Sleep(time.Hour)
		if isClosed(token.Done()) {
			t.Error("paho alone completes the token; the defect is gone")
		}

		acked := false
		s := mustGuarded(t, peer, core.Handler{Acked: func(core.Lane, core.Seq) { acked = true }})
		err := s.Respond(t.Context(), core.MethodResponse{RequestID: "1", Status: 200})
		if err == nil {
			t.Error("guarded: an answer that the hub did not acknowledge is delivered")
		}
		wantLost(t, s, time.Second, "the hub closed the connection")
		if acked {
			t.Error("guarded: a message that the hub did not acknowledge is reported")
		}
	})
}

func TestP9SendNeverWaits(t *testing.T) {
	peer := openScript(func(conn net.Conn) {
		_, _ = packets.ReadPacket(conn)
		_, _ = conn.Write(connackOK)
		time.Sleep(time.Hour)
	})
	synctest.Test(t, func(t *testing.T) {
		client, conn, _ := bare(t, peer, func(o *paho.ClientOptions) { o.SetKeepAlive(time.Hour) })
		client.Connect().Wait()
		start := time.Now()
		for range 3 {
			client.Publish("t", 1, false, "x")
		}
		if took := time.Since(start); took < 30*time.Second {
			t.Errorf("paho alone: Publish took %v; the defect is gone", took)
		}
		conn.Close()

		s := mustGuarded(t, peer, core.Handler{})
		start = time.Now()
		s.Send(1, outbound(1, 1000))
		s.Request(core.Request{ID: 1})
		s.Complete(1)
		if took := time.Since(start); took != 0 {
			t.Errorf("guarded: Send took %v", took)
		}
		wantLost(t, s, writeTimeout+time.Second, "accepted no bytes")
		time.Sleep(2 * time.Hour)
	})
}

func TestP11MessageAtWorkDoesNotHideALoss(t *testing.T) {
	peer := openScript(func(conn net.Conn) {
		_, _ = packets.ReadPacket(conn)
		_, _ = conn.Write(connackOK)
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.TopicName, p.Qos, p.MessageID = "devices/dev/messages/devicebound/", 1, 1
		_ = p.Write(conn)
		time.Sleep(time.Second)
	})
	synctest.Test(t, func(t *testing.T) {
		work := func() { time.Sleep(time.Minute) }
		client, _, lost := bare(t, peer, func(o *paho.ClientOptions) {
			o.SetDefaultPublishHandler(func(paho.Client, paho.Message) { work() })
		})
		client.Connect().Wait()
		time.Sleep(30 * time.Second)
		if isClosed(lost) {
			t.Error("paho alone reports the loss while a handler works; the defect is gone")
		}
		<-lost

		// The handler's contract is to hand over; the work is done elsewhere and completed later.
		s := mustGuarded(t, peer, core.Handler{Receive: func(core.Inbound) { go work() }})
		wantLost(t, s, 2*time.Second, "the hub closed the connection")
		time.Sleep(time.Hour)
	})
}

func TestP15ConnectEndsWithItsContext(t *testing.T) {
	peer := openScript(func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	synctest.Test(t, func(t *testing.T) {
		client, _, _ := bare(t, peer, func(o *paho.ClientOptions) { o.SetConnectTimeout(30 * time.Second) })
		start := time.Now()
		token := client.Connect()
		time.Sleep(100 * time.Millisecond)
		client.Disconnect(100)
		<-token.Done()
		if took := time.Since(start); took < 30*time.Second {
			t.Errorf("paho alone: Disconnect ends Connect after %v; the defect is gone", took)
		}

		tr, err := New(Config{Identity: testIdentity, Open: peer})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name  string
			limit time.Duration // of the context; 0 is none
			want  time.Duration
		}{{"the context's end", time.Second, time.Second}, {"its own bound", 0, connackTimeout}} {
			link, err := tr.Open(t.Context(), core.Credential{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			if c.limit > 0 {
				ctx, cancel = context.WithTimeout(t.Context(), c.limit)
			}
			start := time.Now()
			_, err = link.Connect(ctx, core.Credential{}, core.Handler{})
			cancel()
			if took := time.Since(start); took != c.want || !errors.Is(err, errNoConnack) {
				t.Errorf("%s: Connect took %v and returned %v, want %v and an error", c.name, took, err, c.want)
			}
		}
	})
}

func TestP21MalformedPacketsEndTheSession(t *testing.T) {
	topic := []byte("\x00\x01t")
	for _, c := range []struct {
		name  string
		bytes []byte
		want  string
	}{
		{"packet id 0", append([]byte{0x32, 5}, append(topic, 0, 0)...), "packet id 0"},
		{"QoS 3", append([]byte{0x36, 5}, append(topic, 0, 1)...), "QoS 3"},
		{"QoS 2", append([]byte{0x34, 5}, append(topic, 0, 1)...), "QoS 2"},
		{"a SUBACK without a code", []byte{0x90, 2, 0, 1}, "with 2 bytes instead of 3"},
		{"a SUBACK that nobody asked for", []byte{0x90, 3, 0, 9, 1}, "nobody asked for"},
		{"PUBREL", []byte{0x62, 2, 0, 1}, "a packet of type 6"},
		{"UNSUBACK", []byte{0xb0, 2, 0, 1}, "a packet of type 11"},
		{"flags on a PUBACK", []byte{0x41, 2, 0, 1}, "flags 0x1"},
		{"a length of five bytes", []byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x01}, "more than four bytes"},
		{"a topic longer than its packet", []byte{0x30, 3, 0, 9, 't'}, "with a topic of 9"},
		{"an empty topic", []byte{0x30, 3, 0, 0, 't'}, "with a topic of 0"},
		{"a second CONNACK", connackOK, "a second CONNACK"},
		{"a CONNECT", []byte{0x10, 2, 0, 0}, "a packet of type 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			peer := openScript(func(conn net.Conn) {
				_, _ = packets.ReadPacket(conn)
				_, _ = conn.Write(connackOK)
				time.Sleep(time.Second)
				_, _ = conn.Write(c.bytes)
				_, _ = io.Copy(io.Discard, conn)
			})
			synctest.Test(t, func(t *testing.T) {
				s := mustGuarded(t, peer, core.Handler{})
				wantLost(t, s, 2*time.Second, c.want)
			})
		})
	}
	// paho alone: these pass unnoticed.
	for _, accepted := range [][]byte{{0x32, 5, 0, 1, 't', 0, 0}, {0x36, 5, 0, 1, 't', 0, 1}, {0x90, 2, 0, 1}, {0x62, 2, 0, 1}} {
		peer := openScript(func(conn net.Conn) {
			_, _ = packets.ReadPacket(conn)
			_, _ = conn.Write(append(connackOK, accepted...))
			_, _ = io.Copy(io.Discard, conn)
		})
		synctest.Test(t, func(t *testing.T) {
			client, conn, lost := bare(t, peer, nil)
			client.Connect().Wait()
			synctest.Wait()
			if isClosed(lost) {
				t.Errorf("paho alone refuses % x; the defect is gone", accepted)
			}
			conn.Close()
			<-lost
		})
	}
}
