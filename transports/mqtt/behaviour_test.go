package mqtt

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

func TestConnectSaysWhoWeAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		s := connect(t, hub, core.Handler{})
		if s.Present() {
			t.Error("the first session was present before")
		}
		mustClose(t, s)
		s = connect(t, hub, core.Handler{})
		if !s.Present() {
			t.Error("the second session was not present before")
		}
		mustClose(t, s)
		got := hub.Connects()[0]
		if got.ClientIdentifier != "dev" || string(got.Password) != "secret" || got.CleanSession || got.Keepalive != 60 || got.ProtocolVersion != 4 || got.WillFlag ||
			got.Username != "hub.example.net/dev/?api-version=2021-04-12&DeviceClientType=fairlead%2Ftest" {
			t.Errorf("CONNECT %+v", got)
		}
		if n := len(hub.Connects()); n != 2 {
			t.Errorf("%d CONNECTs for two sessions", n)
		}
		hub.Close()
	})
}

func mustClose(t *testing.T, s core.Session) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestConnackTable(t *testing.T) {
	for _, c := range []struct {
		code byte
		kind core.Kind
	}{{1, core.Fatal}, {2, core.Fatal}, {3, core.Unavailable}, {4, core.Unauthorized}, {5, core.Unauthorized}, {6, core.Transient}, {0x80, core.Transient}} {
		t.Run(fmt.Sprint(c.code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := transporttest.NewFakeHub()
				hub.Answer(c.code)
				link, err := newTestTransport(t, hub).Open(t.Context(), core.Credential{})
				if err != nil {
					t.Fatal(err)
				}
				_, err = link.Connect(t.Context(), core.Credential{Token: "canary"}, core.Handler{})
				e, ok := err.(*core.Error) //nolint:errorlint // the port says the type itself
				if !ok || e.Kind != c.kind || e.Status != int(c.code) || e.Phase != "mqtt" {
					t.Errorf("%v, want a *core.Error of kind %v", err, c.kind)
				}
				if errors.Is(err, core.ErrCredential) != (c.kind == core.Unauthorized) {
					t.Errorf("%v: ErrCredential goes with Unauthorized", err)
				}
				if strings.Contains(err.Error(), "canary") {
					t.Error("the error contains the token")
				}
				if n := len(hub.Connects()); n != 1 {
					t.Errorf("%d CONNECTs for one refusal", n)
				}
				hub.Close()
			})
		})
	}
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no identity", Config{}, "names no hub"},
		{"keep-alive too long", Config{Identity: testIdentity, KeepAlive: 30 * time.Minute}, "1s to 1740s"},
		{"keep-alive too short", Config{Identity: testIdentity, KeepAlive: time.Millisecond}, "1s to 1740s"},
		{"a bad certificate", Config{Identity: testIdentity, TLS: netdial.TLSConfig{ExtraCA: []byte("x")}}, "extra_ca: it holds no certificate"},
		{"a bad port", Config{Identity: testIdentity, Port: 70000}, "port 70000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.cfg)
			if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want ErrInvalid with %q", err, c.want)
			}
		})
	}
}

// A hub that takes what is sent but says nothing any more: half-open TCP, a black hole.
func TestSilentHubIsNoticedInTime(t *testing.T) {
	for _, keepAlive := range []time.Duration{2 * time.Second, 60 * time.Second, 240 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			tr, err := New(Config{Identity: testIdentity, KeepAlive: keepAlive, Open: openScript(func(conn net.Conn) {
				_, _ = packets.ReadPacket(conn)
				_, _ = conn.Write(connackOK)
				_, _ = io.Copy(io.Discard, conn)
			})})
			if err != nil {
				t.Fatal(err)
			}
			link, err := tr.Open(t.Context(), core.Credential{})
			if err != nil {
				t.Fatal(err)
			}
			s, err := link.Connect(t.Context(), core.Credential{}, core.Handler{})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			wantLost(t, s, keepAlive+pingTimeout+6*time.Second, "nothing was heard from the hub")
			if took := time.Since(start); took < keepAlive+pingTimeout || took > keepAlive+pingTimeout+5*time.Second+windDown {
				t.Errorf("noticed after %v with a keep-alive of %v", took, keepAlive)
			}
		})
	}
}

// A hub that only answers pings is alive, however long.
func TestPingsKeepASessionAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		s := connect(t, hub, core.Handler{})
		time.Sleep(24 * time.Hour)
		if isClosed(s.Done()) {
			t.Errorf("an idle session ended: %v", s.Err())
		}
		mustClose(t, s)
		hub.Close()
	})
}

// 64 kbit/s is slow, not dead.
func TestSlowLinkIsNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		var acked atomic.Uint64
		tr, err := New(Config{Identity: testIdentity, Open: func(context.Context, core.Credential) (net.Conn, error) {
			device, far := net.Pipe()
			near, hubEnd := net.Pipe()
			hub.Serve(hubEnd)
			go func() { // the link, towards the hub
				defer near.Close()
				b := make([]byte, 800)
				for {
					n, err := far.Read(b)
					if err != nil {
						return
					}
					time.Sleep(time.Duration(n) * time.Second / 8000)
					if _, err := near.Write(b[:n]); err != nil {
						return
					}
				}
			}()
			go func() { _, _ = io.Copy(far, near); far.Close() }()
			return device, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		link, err := tr.Open(t.Context(), core.Credential{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := link.Connect(t.Context(), core.Credential{}, core.Handler{Acked: func(_ core.Lane, upto core.Seq) { acked.Store(uint64(upto)) }})
		if err != nil {
			t.Fatal(err)
		}
		var messages []core.Outbound
		for n := range 20 {
			messages = append(messages, core.Outbound{Seq: core.Seq(n + 1), Message: &core.Message{Payload: make([]byte, 250_000)}})
		}
		s.Send(1, messages)
		time.Sleep(15 * time.Minute) // 5 MB at 8 kB/s take 10.5 minutes
		if isClosed(s.Done()) || acked.Load() != 20 {
			t.Errorf("acknowledged up to %d, session error %v", acked.Load(), s.Err())
		}
		mustClose(t, s)
		hub.Close()
		time.Sleep(time.Minute) // the link ends
	})
}

// What needs an answer does not wait behind a backlog of telemetry.
func TestRequestsOvertakeTelemetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		var order []string
		s := connect(t, hub, core.Handler{
			Acked:   func(_ core.Lane, upto core.Seq) { order = append(order, fmt.Sprint("acked ", upto)) },
			Replied: func(r core.Reply) { order = append(order, fmt.Sprint("reply ", r.ID)) },
		})
		hub.Stall(true)
		large := make([]core.Outbound, 100)
		for i := range large {
			large[i] = core.Outbound{Seq: core.Seq(i + 1), Message: &core.Message{Payload: make([]byte, 200_000)}}
		}
		s.Send(1, large)
		synctest.Wait()
		s.Request(core.Request{ID: 9, Kind: core.TwinGet})
		synctest.Wait()
		hub.Stall(false)
		synctest.Wait()
		at := slices.Index(order, "reply 9")
		if at < 0 || at > 10 {
			t.Errorf("the reply came at place %d of %v", at, order)
		}
		mustClose(t, s)
		hub.Close()
	})
}

func TestPubacksLeaveInTheOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		tokens := map[string]uint64{}
		s := connect(t, hub, core.Handler{Receive: func(in core.Inbound) {
			if in.Kind == core.InboundMessage {
				tokens[string(in.Message.Payload)] = in.Token
			}
		}})
		for _, m := range []string{"a", "b", "c"} {
			hub.Push("devices/dev/messages/devicebound/", m, 1)
			hub.Push("$iothub/who/knows", "after "+m, 1) // completed by itself, in its turn
		}
		synctest.Wait()
		s.Complete(tokens["c"])
		s.Complete(tokens["b"])
		s.Complete(12345)
		synctest.Wait()
		if got := hub.Log(); len(got) != 0 {
			t.Errorf("acknowledged before a: %v", got)
		}
		s.Complete(tokens["a"])
		synctest.Wait()
		s.Complete(tokens["a"]) // a second time
		mustClose(t, s)
		want := []string{"complete a", "complete after a", "complete b", "complete after b", "complete c", "complete after c"}
		if diff := cmp.Diff(want, hub.Log()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		hub.Close()
	})
}

// A hub that waits too long for a PUBACK may send the packet again on the same connection: that is one message.
func TestPacketThatComesAgainInItsSessionIsOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		var came []string
		var tokens []uint64
		s := connect(t, hub, core.Handler{Receive: func(in core.Inbound) {
			came, tokens = append(came, fmt.Sprintf("%s %v", in.Message.Payload, in.Redelivered)), append(tokens, in.Token)
		}})
		raw := func(first byte, id byte, payload string) []byte {
			topic := "devices/dev/messages/devicebound/"
			b := append([]byte{first, byte(2 + len(topic) + 2 + len(payload)), 0, byte(len(topic))}, topic...)
			return append(append(b, 0, id), payload...)
		}
		hub.PushRaw(raw(0x32, 7, "a"))
		hub.PushRaw(raw(0x3a, 7, "a")) // DUP
		hub.PushRaw(raw(0x3a, 8, "b")) // DUP of something that an earlier session had
		synctest.Wait()
		if diff := cmp.Diff([]string{"a false", "b true"}, came); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, token := range tokens {
			s.Complete(token)
		}
		synctest.Wait()
		hub.PushRaw(raw(0x32, 7, "c")) // the id is free again
		synctest.Wait()
		if len(came) != 3 || came[2] != "c false" {
			t.Errorf("came: %v", came)
		}
		mustClose(t, s)
		hub.Close()
	})
}

// A verdict that was given before Close reaches the hub before the goodbye.
func TestCloseTakesLastVerdictsAlong(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			hub := transporttest.NewFakeHub()
			var token uint64
			s := connect(t, hub, core.Handler{Receive: func(in core.Inbound) { token = in.Token }})
			hub.Push("devices/dev/messages/devicebound/", "a", 1)
			synctest.Wait()
			s.Complete(token)
			mustClose(t, s)
			synctest.Wait()
			if hub.Completed() != 1 || hub.Goodbyes() != 1 {
				t.Errorf("completed %d, goodbyes %d, want 1 and 1", hub.Completed(), hub.Goodbyes())
			}
			hub.Close()
		})
	}
}

// An answer that the hub kept for an earlier session, or made up, is nobody's.
func TestForeignRepliesAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		var replies []core.Reply
		s := connect(t, hub, core.Handler{Replied: func(r core.Reply) { replies = append(replies, r) }})
		for _, rid := range []string{"1", "0badcafe-1", "", "-1", "x-y"} {
			hub.Push("$iothub/twin/res/200/?$rid="+rid, "{}", 0)
		}
		synctest.Wait()
		if len(replies) != 0 {
			t.Errorf("replies that nobody asked for: %v", replies)
		}
		s.Request(core.Request{ID: 1})
		synctest.Wait()
		want := []core.Reply{{ID: 1, Status: 200, Payload: []byte(`{"desired":{"$version":1},"reported":{"$version":1}}`)}}
		if diff := cmp.Diff(want, replies); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		mustClose(t, s)
		hub.Close()
	})
}

// What the hub said before it hung up counts.
func TestLastWordsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var acked core.Seq
		var received int
		s := mustGuarded(t, openScript(func(conn net.Conn) {
			_, _ = packets.ReadPacket(conn)
			_, _ = conn.Write(connackOK)
			var last []byte
			for range 3 {
				p, err := packets.ReadPacket(conn)
				if err != nil {
					return
				}
				id := p.Details().MessageID
				last = append(last, packetPuback<<4, 2, byte(id>>8), byte(id))
			}
			topic := "$iothub/methods/POST/reboot/?$rid=1"
			last = append(last, packetPublish<<4, byte(2+len(topic)), 0, byte(len(topic)))
			last = append(last, topic...)
			_, _ = conn.Write(last)
		}), core.Handler{
			Acked:   func(_ core.Lane, upto core.Seq) { acked = upto },
			Receive: func(core.Inbound) { received++ },
		})
		s.Send(1, outbound(1, 3))
		wantLost(t, s, time.Second, "the hub closed the connection")
		if acked != 3 || received != 1 {
			t.Errorf("acknowledged up to %d, %d received, want 3 and 1", acked, received)
		}
	})
}

// A method call that crosses the goodbye is not lost, and a hub that never closes its side does not hold the end up.
func TestWhatCrossesTheGoodbyeCounts(t *testing.T) {
	for _, closes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			received := 0
			end := make(chan struct{})
			s := mustGuarded(t, openScript(func(conn net.Conn) {
				for {
					switch p, err := packets.ReadPacket(conn); p.(type) {
					case *packets.ConnectPacket:
						_, _ = conn.Write(connackOK)
					case *packets.DisconnectPacket:
						topic := "$iothub/methods/POST/reboot/?$rid=1"
						_, _ = conn.Write(append([]byte{packetPublish << 4, byte(2 + len(topic)), 0, byte(len(topic))}, topic...))
						if !closes {
							<-end
						}
						return
					default:
						if err != nil {
							return
						}
					}
				}
			}), core.Handler{Receive: func(core.Inbound) { received++ }})
			began := time.Now()
			mustClose(t, s)
			if took := time.Since(began); received != 1 || took > time.Second {
				t.Errorf("hub closes: %v: %d received, want 1; closed after %v", closes, received, took)
			}
			close(end)
		})
	}
}

// A burst is written in few calls, a single message in one, at once.
func TestWritesAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		var writes atomic.Int64
		tr, err := New(Config{Identity: testIdentity, Open: func(ctx context.Context, c core.Credential) (net.Conn, error) {
			conn, err := hub.Open(ctx, c)
			return &countingConn{conn, &writes}, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		link, err := tr.Open(t.Context(), core.Credential{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := link.Connect(t.Context(), core.Credential{}, core.Handler{})
		if err != nil {
			t.Fatal(err)
		}
		before := writes.Load()
		s.Send(1, outbound(1, 1))
		synctest.Wait()
		if n := writes.Load() - before; n != 1 {
			t.Errorf("a single message took %d writes", n)
		}
		before = writes.Load()
		s.Send(1, outbound(2, 1001))
		synctest.Wait()
		if n := writes.Load() - before; n > 500 {
			t.Errorf("1000 messages took %d writes", n)
		}
		if n := len(hub.Received()); n != 1001 {
			t.Errorf("%d messages arrived", n)
		}
		mustClose(t, s)
		hub.Close()
	})
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// With TLS 1.3 the hub's opinion of the device's certificate comes after the handshake.
func TestRefusedCertificateIsUnauthorized(t *testing.T) {
	authority := transporttest.NewAuthority(t, "hub")
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{authority.Issue(t, nil, "127.0.0.1")},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13,
	})
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
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	tr, err := New(Config{
		Identity: core.Identity{Hostname: "127.0.0.1", DeviceID: "dev"}, Port: listener.Addr().(*net.TCPAddr).Port,
		TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM},
	})
	if err != nil {
		t.Fatal(err)
	}
	device := transporttest.NewAuthority(t, "unknown").Issue(t, nil, "dev")
	c := core.Credential{Certificate: device.Certificate, Signer: device.PrivateKey.(crypto.Signer)}
	link, err := tr.Open(t.Context(), c)
	if err == nil {
		_, err = link.Connect(t.Context(), c, core.Handler{})
	}
	if core.KindOf(err) != core.Unauthorized {
		t.Errorf("%v, want kind unauthorized", err)
	}
}

func TestPortInTheHostName(t *testing.T) {
	for _, c := range []struct {
		host     string
		wantName string
		wantPort int
	}{
		{"hub.example.net", "hub.example.net", 8883},
		{"localhost:18883", "localhost", 18883},
		{"::1", "::1", 8883},
		{"[::1]:18883", "::1", 18883},
	} {
		if name, port := splitHost(c.host, DefaultPort); name != c.wantName || port != c.wantPort {
			t.Errorf("%s: %s and %d, want %s and %d", c.host, name, port, c.wantName, c.wantPort)
		}
	}
}

// A message whose properties no topic can hold must not stop its lane, nor end session after session.
func TestImpossibleTopicIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		var acked core.Seq
		s := connect(t, hub, core.Handler{Acked: func(_ core.Lane, upto core.Seq) { acked = upto }})
		messages := outbound(1, 3)
		messages[1].Message = &core.Message{Properties: map[string]string{"k": strings.Repeat("ä", 20_000)}}
		s.Send(1, messages)
		synctest.Wait()
		if got := hub.Received(); acked != 3 || !slices.Equal(got, []string{"1", "3"}) {
			t.Errorf("acknowledged up to %d, received %v", acked, got)
		}
		mustClose(t, s)
		hub.Close()
	})
}
