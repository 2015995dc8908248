package mqtt

import (
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
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

// slowLink leads to a hub by a link that takes 8 kB a second towards it, and holds nothing back by itself.
func slowLink(hub *transporttest.FakeHub) Opener {
	return func(context.Context, core.Credential) (net.Conn, error) {
		device, far := net.Pipe()
		near, hubEnd := net.Pipe()
		hub.Serve(hubEnd)
		go func() {
			defer near.Close()
			_, _ = io.Copy(near, slowReader{far})
		}()
		go func() {
			defer far.Close()
			_, _ = io.Copy(far, near)
		}()
		return device, nil
	}
}

// What needs an answer does not wait behind what a slow link takes a quarter of a minute for.
func TestRequestsOvertakeTelemetryOnASlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		tr, err := New(Config{Identity: testIdentity, Open: slowLink(hub)})
		if err != nil {
			t.Fatal(err)
		}
		link, err := tr.Open(t.Context(), core.Credential{})
		if err != nil {
			t.Fatal(err)
		}
		replied := make(chan struct{}, 100)
		s, err := link.Connect(t.Context(), core.Credential{}, core.Handler{Replied: func(core.Reply) { replied <- struct{}{} }})
		if err != nil {
			t.Fatal(err)
		}
		var messages []core.Outbound
		for n := range 4000 {
			messages = append(messages, core.Outbound{Seq: core.Seq(n + 1), Message: &core.Message{Payload: make([]byte, 100)}})
		}
		s.Send(1, messages) // more than half a megabyte
		for id := range 10 {
			asked := time.Now()
			s.Request(core.Request{ID: uint64(id + 1), Kind: core.TwinGet})
			<-replied
			if took := time.Since(asked); took > 3*time.Second {
				t.Errorf("request %d was answered after %v", id, took)
			}
			time.Sleep(5 * time.Second)
		}
		mustClose(t, s)
		hub.Close()
		time.Sleep(time.Minute) // the link ends
	})
}

func TestWhatMayWaitFollowsTheLinksPace(t *testing.T) {
	const chunk = writeChunk
	for _, c := range []struct {
		name     string
		ahead, n int
		took     time.Duration
		want     int
	}{
		{"a fast one lets it grow step by step", chunk, chunk, 20 * time.Microsecond, 2 * chunk},
		{"up to a bound", roomMax, chunk, 20 * time.Microsecond, roomMax},
		{"no time at all is fast", chunk, chunk, 0, 2 * chunk},
		{"a small write that is taken at once tells nothing", chunk, 100, time.Microsecond, chunk},
		{"64 kbit/s let half a second's bytes wait", roomMax, 8000, time.Second, roomMin},
		{"256 kbit/s too", roomMax, 16000, 500 * time.Millisecond, 16000},
		{"the slowest let one packet wait", roomMax, 8000, 9 * time.Second, roomMin},
		{"one that has become faster", roomMin, roomMin, 100 * time.Millisecond, 2 * roomMin},
		{"not beyond its pace", 2 * roomMin, 2 * roomMin, 400 * time.Millisecond, 10240},
		{"a small write that waits long is too little to judge by", chunk, 100, 20 * time.Millisecond, chunk},
	} {
		if got := nextAhead(c.ahead, c.n, chunk, c.took); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// Through a proxy writes are small, and the room grows all the same.
func TestWhatMayWaitGrowsThroughAProxy(t *testing.T) {
	ahead := writeChunk
	for range 10 {
		ahead = nextAhead(ahead, proxiedChunk, proxiedChunk, 20*time.Microsecond)
	}
	if ahead != roomMax {
		t.Errorf("%d bytes may wait after ten quick writes, want %d", ahead, roomMax)
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

// A write that the connection does not take ends the session, sooner if the hub is silent as well.
func TestAWriteMayLastLongerWhileTheHubIsHeard(t *testing.T) {
	for _, c := range []struct {
		name  string
		stuck time.Duration // until the peer reads on
		heard bool
		ends  time.Duration // 0 if it does not
	}{
		{"a silent hub", time.Hour, false, writeTimeout},
		{"a hub that only speaks", time.Hour, true, writeLimit},
		{"a slow one that is heard", 25 * time.Second, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, err := New(Config{Identity: testIdentity, Open: openScript(func(conn net.Conn) {
					_, _ = packets.ReadPacket(conn)
					_, _ = conn.Write(connackOK)
					if c.heard {
						go func() {
							for {
								if _, err := conn.Write([]byte{packetPingresp << 4, 0}); err != nil {
									return
								}
								time.Sleep(time.Second)
							}
						}()
					}
					time.Sleep(c.stuck)
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
				s.Send(1, outbound(1, 10))
				if c.ends > 0 {
					began := time.Now()
					wantLost(t, s, c.ends+time.Second, "accepted no bytes for "+c.ends.String())
					if took := time.Since(began); took < c.ends {
						t.Errorf("it ended after %v, want %v", took, c.ends)
					}
				} else {
					time.Sleep(c.stuck + time.Second)
					if isClosed(s.Done()) {
						t.Errorf("it ended: %v", s.Err())
					}
					mustClose(t, s)
				}
				time.Sleep(2 * time.Hour) // the script ends
			})
		})
	}
}
