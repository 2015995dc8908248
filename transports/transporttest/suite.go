package transporttest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Hub is what the suite needs of the other side. FakeHub implements it.
type Hub interface {
	// PushMessage sends a cloud-to-device message, PushDesired a patch of the desired properties, each of a higher version
	// than the last.
	PushMessage(payload string)
	PushDesired()
	// HoldAcks keeps acknowledgements of telemetry back. Those that were kept back need not be sent later.
	HoldAcks(on bool)
	// Stall makes the hub neither read nor write.
	Stall(on bool)
	// RefuseSubscriptions makes the hub refuse every subscription.
	RefuseSubscriptions(on bool)
	// Drop cuts every connection.
	Drop()
	// Received returns the payloads of the telemetry that came, in order.
	Received() []string
	// Completed counts the messages that the device has completed.
	Completed() int
}

// Harness is a transport and the hub that it leads to.
type Harness struct {
	Transport  core.Transport
	Credential core.Credential
	Hub        Hub

	t *testing.T // of the part
}

// patience is how long a condition may take to come true; quick is how long a call may take that must not wait.
const (
	patience = 30 * time.Second
	quick    = 2 * time.Second
)

// Run holds the sessions of a transport to the contract of core.Transport, Link, Session and Handler. harness is called
// once for each part; what it makes it cleans up with t.Cleanup.
func Run(t *testing.T, harness func(t *testing.T) Harness) {
	t.Helper()
	for _, part := range []struct {
		name string
		run  func(h Harness)
	}{
		{"an unused link closes", unusedLink},
		{"a link serves once", linkServesOnce},
		{"close is idempotent and is not an error", closeTwice},
		{"calls of a dead session are harmless", deadSession},
		{"a call that the end ends returns after done", callsEndAfterDone},
		{"acknowledgements are prefixes of their lane", ackPrefixes},
		{"nothing is acknowledged that the hub has not acknowledged", withheldAcks},
		{"nothing is reported after done", nothingAfterDone},
		{"a loss is a typed error", lossIsTyped},
		{"a new session takes the place of the old", handOver},
		{"connect ends with its context", connectEnds},
		{"no call waits for a stuck hub", stuckHub},
		{"a refused subscription is refused", refusal},
		{"replies and pushes come in order", replyOrder},
		{"a message comes again until it is completed", redelivery},
		{"no goroutine outlives its session", noLeaks},
	} {
		t.Run(part.name, func(t *testing.T) {
			h := harness(t)
			h.t = t
			part.run(h)
		})
	}
}

// recorder is a handler that notes everything.
type recorder struct {
	mu       sync.Mutex
	acked    map[core.Lane]core.Seq
	messages []core.Inbound
	order    []string // "reply 3", "desired 2"
	calls    int
	problem  string

	running atomic.Bool
}

func (r *recorder) handler() core.Handler {
	return core.Handler{
		Receive: func(in core.Inbound) {
			defer r.enter()()
			switch in.Kind {
			case core.InboundMessage:
				r.messages = append(r.messages, in)
			case core.InboundDesired:
				r.order = append(r.order, fmt.Sprintf("desired %d", in.Version))
			case core.InboundMethod:
			}
		},
		Acked: func(lane core.Lane, upto core.Seq) {
			defer r.enter()()
			if upto <= r.acked[lane] {
				r.problem = fmt.Sprintf("lane %d: acknowledged up to %d after %d", lane, upto, r.acked[lane])
			}
			if r.acked == nil {
				r.acked = make(map[core.Lane]core.Seq)
			}
			r.acked[lane] = upto
		},
		Replied: func(reply core.Reply) {
			defer r.enter()()
			r.order = append(r.order, fmt.Sprintf("reply %d %d", reply.ID, reply.Status))
		},
	}
}

// enter notes a call of the handler, and that no other runs at the same time.
func (r *recorder) enter() (leave func()) {
	alone := r.running.CompareAndSwap(false, true)
	r.mu.Lock()
	if !alone {
		r.problem = "two functions of the handler ran at once"
	}
	r.calls++
	return func() {
		r.mu.Unlock()
		r.running.Store(false)
	}
}

func (r *recorder) upto(lane core.Lane) core.Seq {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acked[lane]
}

func (r *recorder) inbox() []core.Inbound {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages)
}

func (r *recorder) check(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.problem != "" {
		t.Error(r.problem)
	}
}

func (h Harness) connect(handler core.Handler) core.Session {
	t := h.t
	t.Helper()
	link, err := h.Transport.Open(t.Context(), h.Credential)
	if err != nil {
		t.Fatal("open: ", err)
	}
	s, err := link.Connect(t.Context(), h.Credential, handler)
	if err != nil {
		t.Fatal("connect: ", err)
	}
	return s
}

func closeSession(t *testing.T, s core.Session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error("close: ", err)
	}
}

// until polls a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come true within %v: %s", patience, what)
		}
	}
}

// quickly fails if f takes long.
func quickly(t *testing.T, what string, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > quick {
		t.Errorf("%s took %v, at most %v is allowed", what, took, quick)
	}
}

func batch(prefix string, from, to int) []core.Outbound {
	messages := make([]core.Outbound, 0, to-from+1)
	for n := from; n <= to; n++ {
		messages = append(messages, core.Outbound{Seq: core.Seq(n), Message: &core.Message{Payload: fmt.Appendf(nil, "%s%d", prefix, n)}})
	}
	return messages
}
