package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/internal/quietio"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

// piped is a plugin at the end of the system's own pipes, as in a process of its own: what it sends may leave in the
// goroutine of the author.
type piped struct {
	t      *testing.T
	host   wire.HostPipe
	served chan struct{} // closed when the plugin has ended
}

// overPipes starts loop as a plugin's. The test is its host.
func overPipes(t *testing.T, loop func(ctx context.Context, dev *sdk.Device) error) *piped {
	t.Helper()
	pluginIn, hostOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	hostIn, pluginOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h := &piped{t: t, host: wire.NewHostPipe(quietio.NewPipe(hostIn, hostOut)), served: make(chan struct{})}
	p := sdk.New("test")
	p.Run(loop)
	go func() {
		defer close(h.served)
		_ = p.ServeConn(quietio.NewPipe(pluginIn, pluginOut)) // the host sees how it ends
	}()
	t.Cleanup(h.end)
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Init{Init: &pluginv1.Init{PluginName: "test"}}})
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Connection{Connection: &pluginv1.ConnectionState{}}})
	return h
}

// end ends the session as a host does that has died.
func (h *piped) end() {
	_ = h.host.Close()
	<-h.served
}

func (h *piped) send(frames ...*pluginv1.SessionRequest) {
	if err := h.host.Send(frames...); err != nil {
		h.t.Error(err)
	}
}

func (h *piped) credit(messages, bytes uint64) {
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Credit{Credit: &pluginv1.Credit{Messages: messages, Bytes: bytes}}})
}

func (h *piped) settle(m *pluginv1.Messages) {
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Settled{
		Settled: &pluginv1.Settled{From: m.GetFirst(), To: m.GetFirst() + uint64(len(m.GetMessages())) - 1},
	}})
}

// messages returns the next frame of messages; it passes others over. Where none comes it ends the session.
func (h *piped) messages() *pluginv1.Messages {
	h.t.Helper()
	late := time.AfterFunc(time.Minute, func() { _ = h.host.Close() })
	defer late.Stop()
	for {
		f, err := h.host.Recv()
		if err != nil {
			h.t.Fatalf("no frame of messages came: %v", err)
		}
		if m := f.GetMessages(); m != nil {
			return m
		}
	}
}

// What does not fit into the first frame leaves in the next ones, though nothing else happens.
func TestABatchOfSeveralFramesLeavesWhole(t *testing.T) {
	sent := make(chan error, 1)
	h := overPipes(t, func(ctx context.Context, dev *sdk.Device) error {
		var batch []*sdk.Message
		for range 5 {
			batch = append(batch, &sdk.Message{Payload: make([]byte, wire.FrameTarget*5/8)})
		}
		sent <- dev.SendBatch(ctx, batch)
		return nil
	})
	h.credit(100, 1<<20)
	for got := 0; got < 5; {
		m := h.messages()
		got += len(m.GetMessages())
		h.settle(m)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// A message that waits for credit leaves when there is some.
func TestWhatWaitsForCreditLeavesWithIt(t *testing.T) {
	const n = 200
	h := overPipes(t, func(ctx context.Context, dev *sdk.Device) error {
		for i := range n {
			if err := dev.SendAsync(ctx, &sdk.Message{Payload: fmt.Append(nil, i)}, nil); err != nil {
				return err
			}
		}
		return nil
	})
	for got := 0; got < n; {
		granted := 1 + got%3
		h.credit(uint64(granted), uint64(100*granted))
		for stop := min(n, got+granted); got < stop; {
			for _, m := range h.messages().GetMessages() {
				if want := fmt.Sprint(got); string(m.GetPayload()) != want {
					t.Fatalf("message %s came in the place of %s", m.GetPayload(), want)
				}
				got++
			}
		}
	}
}

// A frame that cannot be sent ends the plugin, which says why; nobody waits for the answer to what never left.
func TestAFrameThatCannotBeSentEndsTheSession(t *testing.T) {
	reported := make(chan error, 1)
	h := overPipes(t, func(ctx context.Context, dev *sdk.Device) error {
		_, err := dev.Report(ctx, map[string]string{"large": strings.Repeat("x", wire.MaxReceive)})
		reported <- err
		return nil
	})
	late := time.AfterFunc(time.Minute, func() { _ = h.host.Close() })
	defer late.Stop()
	for {
		if _, err := h.host.Recv(); err != nil {
			break
		}
	}
	if !late.Stop() {
		t.Error("the session did not end by itself")
	}
	if err := <-reported; err == nil {
		t.Error("the report was taken")
	}
}

// Many at once, of every kind, before a host that reads in fits and starts: each sender's messages keep their order, and
// each message is settled once.
func TestManySendersOverPipes(t *testing.T) {
	const senders, each = 8, 300
	var settled sync.WaitGroup
	sent := make(chan struct{})
	h := overPipes(t, func(ctx context.Context, dev *sdk.Device) error {
		var all sync.WaitGroup
		for s := range senders {
			all.Go(func() {
				body := func(i int) []byte {
					b := fmt.Appendf(nil, "%d %d ", s, i)
					return append(b, bytes.Repeat([]byte("x"), i*i%3000)...)
				}
				for i := 0; i < each; {
					var err error
					switch i % 4 {
					case 0:
						err = dev.Send(ctx, &sdk.Message{Payload: body(i)})
						i++
					case 1:
						batch := []*sdk.Message{{Payload: body(i)}, {Payload: body(i + 1)}}
						err = dev.SendBatch(ctx, batch)
						i += len(batch)
					default:
						settled.Add(1)
						err = dev.SendAsync(ctx, &sdk.Message{Payload: body(i)}, func(err error) {
							if err != nil {
								t.Error(err)
							}
							settled.Done()
						})
						dev.Log().Info("sent", "i", i)
						dev.Metric("sent", float64(i))
						i++
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		close(sent)
		return nil
	})
	h.credit(20, 100_000)
	next := make([]int, senders)
	tag := uint64(1)
	for got := 0; got < senders*each; {
		m := h.messages()
		if m.GetFirst() != tag {
			t.Fatalf("a frame begins with tag %d, want %d", m.GetFirst(), tag)
		}
		size := 0
		for _, m := range m.GetMessages() {
			var s, i int
			if _, err := fmt.Sscan(string(m.GetPayload()), &s, &i); err != nil {
				t.Fatal(err)
			}
			if next[s] != i {
				t.Fatalf("sender %d: message %d came, want %d", s, i, next[s])
			}
			next[s]++
			size += len(m.GetPayload())
		}
		n := len(m.GetMessages())
		tag += uint64(n)
		got += n
		h.settle(m)
		h.credit(uint64(n), uint64(size))
	}
	<-sent
	settled.Wait()
}

// Whatever leaves at the very end does so whole, before the last word.
func TestTheLastWordComesLastAndWhole(t *testing.T) {
	for range 30 {
		var all sync.WaitGroup
		credited := make(chan struct{})
		h := overPipes(t, func(ctx context.Context, dev *sdk.Device) error {
			<-credited
			for range 4 {
				all.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						_ = dev.SendAsync(ctx, &sdk.Message{Payload: make([]byte, i%5000)}, nil)
						dev.Count("sent", 1)
						dev.Log().Info("a line")
					}
				})
			}
			return errGone
		})
		h.credit(1<<20, 1<<30)
		close(credited)
		var err error
		for err == nil {
			_, err = h.host.Recv()
		}
		if !strings.Contains(err.Error(), errGone.Error()) {
			t.Fatalf("the stream ended with %v", err)
		}
		h.end()
		all.Wait()
	}
}

var errGone = errors.New("the press is gone")

// A drain does not wait for what lingers.
func TestADrainEndsLingering(t *testing.T) {
	lingers := make(chan struct{})
	h := overPipes(t, func(ctx context.Context, dev *sdk.Device) error {
		dev.SetLinger(time.Hour)
		for range 3 {
			if err := dev.SendAsync(ctx, &sdk.Message{}, nil); err != nil {
				return err
			}
		}
		close(lingers)
		<-ctx.Done()
		return nil
	})
	h.credit(100, 1000)
	<-lingers
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Drain{Drain: &pluginv1.Drain{TimeoutMs: 60_000}}})
	for got := 0; got < 3; {
		m := h.messages()
		got += len(m.GetMessages())
		h.settle(m)
	}
}
