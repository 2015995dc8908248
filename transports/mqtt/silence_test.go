package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

const (
	// wholeDial is how long the engine gives a link and CONNECT together.
	wholeDial       = 30 * time.Second
	silentKeepAlive = 20 * time.Second
	// foundSilent is how long it takes at most until a session that is not heard any more is given up.
	foundSilent = silentKeepAlive + pahoTick + pingTimeout
)

// silences are peers that go silent, or nearly so, at some point. Each is told by what it does on a connection, from TCP on.
var silences = []struct {
	name string
	peer func(conn net.Conn, server *tls.Config)
	// dialed says that the session comes about, loaded that it has messages to send; found is the most that it then takes
	// until it is given up. Else the dial has to fail within wholeDial.
	dialed, loaded bool
	found          time.Duration
}{
	{"nobody answers TCP", nil, false, false, 0},
	{"nobody answers TLS", func(conn net.Conn, _ *tls.Config) { swallow(conn) }, false, false, 0},
	{"TLS byte by byte", func(conn net.Conn, _ *tls.Config) {
		go swallow(conn)
		trickle(conn, append([]byte{22, 3, 3, 0x10, 0, 2, 0, 0x0f, 0xfc}, make([]byte, 4096)...))
	}, false, false, 0},
	{"nobody answers CONNECT", func(conn net.Conn, cfg *tls.Config) { swallow(tls.Server(conn, cfg)) }, false, false, 0},
	{"half a CONNACK", func(conn net.Conn, cfg *tls.Config) {
		hub := tls.Server(conn, cfg)
		go trickle(hub, connackOK[:3])
		swallow(hub)
	}, false, false, 0},
	{"CONNACK byte by byte, then nothing", func(conn net.Conn, cfg *tls.Config) {
		hub := tls.Server(conn, cfg)
		go trickle(hub, connackOK)
		swallow(hub)
	}, true, false, foundSilent},
	{"half-open: it takes all and says nothing", func(conn net.Conn, cfg *tls.Config) { swallow(accepted(conn, cfg)) }, true, false, foundSilent},
	{"the same under load", func(conn net.Conn, cfg *tls.Config) { swallow(accepted(conn, cfg)) }, true, true, foundSilent},
	{"a black hole", func(conn net.Conn, cfg *tls.Config) { accepted(conn, cfg); hold() }, true, false, foundSilent},
	{"a black hole under load", func(conn net.Conn, cfg *tls.Config) { accepted(conn, cfg); hold() }, true, true, writeTimeout},
	{"one way: it speaks and does not read", func(conn net.Conn, cfg *tls.Config) {
		hub := accepted(conn, cfg)
		for {
			if _, err := hub.Write([]byte{packetPingresp << 4, 0}); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}, true, true, writeLimit},
	{"one way: it speaks and does not hear", func(conn net.Conn, cfg *tls.Config) {
		hub := accepted(conn, cfg)
		go swallow(hub)
		const topic = "$iothub/methods/POST/ping/?$rid=1"
		call := append([]byte{packetPublish << 4, byte(2 + len(topic) + 2), 0, byte(len(topic))}, topic+"{}"...)
		for {
			if _, err := hub.Write(call); err != nil {
				return
			}
			time.Sleep(5 * time.Second)
		}
	}, true, false, foundSilent},
	{"a packet byte by byte, without end", func(conn net.Conn, cfg *tls.Config) {
		hub := accepted(conn, cfg)
		go swallow(hub)
		trickle(hub, append([]byte{packetPublish << 4, 0x80, 0x80, 0x10, 0, 5}, make([]byte, 256<<10)...))
	}, true, false, foundSilent},
}

// accepted makes TLS and MQTT on a connection, as a hub does.
func accepted(conn net.Conn, cfg *tls.Config) net.Conn {
	hub := tls.Server(conn, cfg)
	if _, err := packets.ReadPacket(hub); err == nil {
		_, _ = hub.Write(connackOK)
	}
	return hub
}

func swallow(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// hold waits until whoever dialed has given up.
func hold() { time.Sleep(time.Hour) }

// trickle sends a byte a second.
func trickle(conn net.Conn, p []byte) {
	for i := range p {
		if _, err := conn.Write(p[i : i+1]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// countedConn counts those that are open.
type countedConn struct {
	net.Conn
	open   *atomic.Int64
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// A peer that goes silent at whatever point is found in time, a hundred times over, and nothing of it is kept: the bubble
// ends only when every goroutine has.
func TestSilenceIsFoundInTimeAndNothingIsKeptOfIt(t *testing.T) {
	const tries = 100
	authority := transporttest.NewAuthority(t, "hub")
	server := &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, nil, "hub.example.net")}, MinVersion: tls.VersionTLS12}
	for _, c := range silences {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var open atomic.Int64
				tr, err := New(Config{
					Identity: core.Identity{Hostname: "hub.example.net", DeviceID: "dev"}, KeepAlive: silentKeepAlive,
					TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM},
					DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						if c.peer == nil {
							<-ctx.Done()
							return nil, ctx.Err()
						}
						device, far := net.Pipe()
						go func() {
							defer far.Close()
							c.peer(far, server)
						}()
						open.Add(1)
						return &countedConn{Conn: device, open: &open}, nil
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				for range tries {
					began := time.Now()
					s, err := dialWhole(t, tr)
					if took := time.Since(began); took > wholeDial {
						t.Fatalf("the dial took %v", took)
					}
					if !c.dialed {
						if e, ok := errors.AsType[*core.Error](err); !ok || e.Kind != core.Blocked && e.Kind != core.Transient {
							t.Fatalf("%v, want an error that says to try again", err)
						}
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					if c.loaded {
						s.Send(1, outbound(1, 1000))
					}
					wantLost(t, s, c.found+windDown, "")
				}
				if n := open.Load(); n != 0 {
					t.Errorf("%d connections are open after %d tries", n, tries)
				}
				time.Sleep(2 * time.Hour) // the peers give up
			})
		})
	}
}

// dialWhole opens a link and makes the session, within one limit.
func dialWhole(t *testing.T, tr *Transport) (core.Session, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wholeDial)
	defer cancel()
	link, err := tr.Open(ctx, core.Credential{})
	if err != nil {
		return nil, err
	}
	return link.Connect(ctx, core.Credential{}, core.Handler{})
}

// pastClose is a connection that the hub has closed, as writers see it once they have written.
type pastClose struct {
	net.Conn
	isClosed atomic.Bool
}

func (c *pastClose) Write(p []byte) (int, error) {
	if c.isClosed.Load() {
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.EPIPE)}
	}
	return c.Conn.Write(p)
}

// Whether the reader or the writer sees it first: the hub has closed the session. Three such soon after the beginning tell
// of another client with the identity.
func TestACloseThatAWriteRunsIntoIsClean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conn *pastClose
		open := openScript(func(conn net.Conn) {
			_, _ = packets.ReadPacket(conn)
			_, _ = conn.Write(connackOK)
			time.Sleep(time.Second + time.Millisecond)
		})
		s := mustGuarded(t, func(ctx context.Context, c core.Credential) (net.Conn, error) {
			inner, err := open(ctx, c)
			conn = &pastClose{Conn: inner}
			return conn, err
		}, core.Handler{})
		time.Sleep(time.Second)
		conn.isClosed.Store(true)
		s.Send(1, outbound(1, 1))
		<-s.Done()
		if e, ok := errors.AsType[*core.Error](s.Err()); !ok || !e.Clean || !errors.Is(e, errHubClosed) {
			t.Errorf("%v, want a clean close by the hub", s.Err())
		}
		mustClose(t, s)
	})
}
