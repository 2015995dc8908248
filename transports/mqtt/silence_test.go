package mqtt

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/core"
)

// A link may go silent in many ways without anything being closed. Each is found in time, and a hundred of them leave
// nothing behind: the bubble would not end.
func TestSilenceIsFoundInTime(t *testing.T) {
	const keepAlive = 20 * time.Second
	bound := keepAlive + pingTimeout + pahoTick
	for _, c := range []struct {
		name string
		peer script // after CONNACK; until the device hangs up
		// sends: the device has something to send.
		sends bool
		most  time.Duration
	}{
		{"half-open: the other side is gone, and nobody says so", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }, false, bound},
		{"half-open, while the device sends", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }, true, bound},
		{"write-blocked: the other side takes nothing any more", func(net.Conn) { time.Sleep(time.Hour) }, true, writeTimeout},
		{"black-holed, and the device is idle: the first ping gets stuck", func(net.Conn) { time.Sleep(time.Hour) }, false, bound},
		{"one-way: the hub is heard, and hears nothing", func(conn net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			for {
				p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
				p.TopicName, p.Payload = "devices/d/messages/devicebound/", []byte("x")
				if p.Write(conn) != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, false, bound},
		{"slow: an answer that never comes to its end", func(conn net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			if _, err := conn.Write([]byte{packetPublish << 4, 0xff, 0xff, 0x03}); err != nil {
				return
			}
			for {
				if _, err := conn.Write([]byte{0}); err != nil {
					return
				}
				time.Sleep(10 * time.Second)
			}
		}, false, bound},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, err := New(Config{Identity: testIdentity, KeepAlive: keepAlive, Open: openScript(func(conn net.Conn) {
					_, _ = packets.ReadPacket(conn)
					_, _ = conn.Write(connackOK)
					c.peer(conn)
				})})
				if err != nil {
					t.Fatal(err)
				}
				defer time.Sleep(2 * time.Hour) // the peers go home
				for range 100 {
					link, err := tr.Open(t.Context(), core.Credential{})
					if err != nil {
						t.Fatal(err)
					}
					s, err := link.Connect(t.Context(), core.Credential{}, core.Handler{})
					if err != nil {
						t.Fatal(err)
					}
					began := time.Now()
					if c.sends {
						s.Send(1, outbound(1, 10))
					}
					<-s.Done()
					if took := time.Since(began); took > c.most+windDown {
						t.Fatalf("found after %v, want %v at most: %v", took, c.most, s.Err())
					}
					if core.KindOf(s.Err()) != core.Transient {
						t.Errorf("its end is %v", s.Err())
					}
					if err := s.Close(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// A hub that trickles its CONNACK is waited for no longer than the caller will.
func TestConnackThatTricklesEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, err := New(Config{Identity: testIdentity, Open: openScript(func(conn net.Conn) {
			_, _ = packets.ReadPacket(conn)
			for _, b := range connackOK {
				time.Sleep(20 * time.Second)
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
			}
		})})
		if err != nil {
			t.Fatal(err)
		}
		defer time.Sleep(time.Minute) // the peers go home
		for range 100 {
			link, err := tr.Open(t.Context(), core.Credential{})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			_, err = link.Connect(ctx, core.Credential{}, core.Handler{})
			cancel()
			if took := time.Since(began); err == nil || took > 31*time.Second {
				t.Fatalf("after %v: %v", took, err)
			}
		}
	})
}
