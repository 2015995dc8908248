package mqtt

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/core"
)

// slowReader reads 8 kB a second.
type slowReader struct{ net.Conn }

func (r slowReader) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p[:min(len(p), 800)])
	time.Sleep(time.Duration(n) * time.Second / 8000)
	return n, err
}

// A slow link costs time, and no packet ids: they would be used up in hours, and then nothing could be sent any more.
func TestSlowLinkCostsNoPacketIDs(t *testing.T) {
	for name, size := range map[string]int{"small messages": 8000, "large messages": 100_000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var ids []uint16
				tr, err := New(Config{Identity: testIdentity, Open: openScript(func(conn net.Conn) {
					_, _ = packets.ReadPacket(conn)
					_, _ = conn.Write(connackOK)
					for {
						p, err := packets.ReadPacket(slowReader{conn})
						if err != nil {
							return
						}
						if m, ok := p.(*packets.PublishPacket); ok {
							mu.Lock()
							ids = append(ids, m.MessageID)
							mu.Unlock()
							_, _ = conn.Write([]byte{packetPuback << 4, 2, byte(m.MessageID >> 8), byte(m.MessageID)})
						}
					}
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
				var want []uint16
				for n := range 10 {
					// One by one, as at rest: each may be written through.
					s.Send(1, []core.Outbound{{Seq: core.Seq(n + 1), Message: &core.Message{Payload: make([]byte, size)}}})
					time.Sleep(time.Millisecond)
					want = append(want, ownIDs+uint16(n+1))
				}
				time.Sleep(10 * time.Minute)
				mu.Lock()
				if !slices.Equal(ids, want) {
					t.Errorf("the packet ids are %v, want one per message", ids)
				}
				mu.Unlock()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := s.Close(ctx); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Whoever closes a session after its loss waits for its goroutines, the one that was about to send included.
func TestCloseAfterALossIsQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 {
			tr, err := New(Config{Identity: testIdentity, Open: openScript(func(conn net.Conn) {
				_, _ = packets.ReadPacket(conn)
				_, _ = conn.Write(connackOK)
				for range 10 {
					_, _ = packets.ReadPacket(conn)
				}
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
			var messages []core.Outbound
			for n := range 100 {
				messages = append(messages, core.Outbound{Seq: core.Seq(n + 1), Message: &core.Message{}})
			}
			s.Send(1, messages)
			<-s.Done()
			start := time.Now()
			mustClose(t, s)
			if took := time.Since(start); took > 250*time.Millisecond {
				t.Fatalf("close took %v after the loss", took)
			}
		}
	})
}
