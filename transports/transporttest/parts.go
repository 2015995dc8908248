package transporttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-iot/fairlead/core"
)

// The parts of Run, in its order. Each has a harness of its own.

func unusedLink(h Harness) {
	t := h.t
	link, err := h.Transport.Open(t.Context(), h.Credential)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := link.Close(); err != nil {
			t.Error("close: ", err)
		}
	}
	if _, err := link.Connect(t.Context(), h.Credential, core.Handler{}); err == nil {
		t.Error("a closed link connects")
	}
}

func linkServesOnce(h Harness) {
	t := h.t
	link, err := h.Transport.Open(t.Context(), h.Credential)
	if err != nil {
		t.Fatal(err)
	}
	s, err := link.Connect(t.Context(), h.Credential, core.Handler{})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSession(t, s)
	if _, err := link.Connect(t.Context(), h.Credential, core.Handler{}); err == nil {
		t.Error("a link connects twice")
	}
	if err := link.Close(); err != nil {
		t.Error("close of a used link: ", err)
	}
	if err := s.Subscribe(t.Context(), core.FeatureTwin); err != nil {
		t.Error("closing the used link has ended its session: ", err)
	}
}

func closeTwice(h Harness) {
	t := h.t
	s := h.connect(core.Handler{})
	select {
	case <-s.Done():
		t.Fatal("a fresh session is done")
	default:
	}
	if err := s.Err(); err != nil {
		t.Error("a living session has the error ", err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { closeSession(t, s) })
	}
	wg.Wait()
	closeSession(t, s)
	select {
	case <-s.Done():
	default:
		t.Error("a closed session is not done")
	}
	if err := s.Err(); err != nil {
		t.Error("a closed session has the error ", err)
	}
}

func deadSession(h Harness) {
	t := h.t
	s := h.connect(core.Handler{})
	h.Hub.Drop()
	<-s.Done()
	quickly(t, "a call of a dead session", func() {
		s.Send(1, batch("", 1, 10))
		s.Request(core.Request{ID: 1})
		s.Complete(1)
		if err := s.Subscribe(t.Context(), core.FeatureMethods); err == nil {
			t.Error("subscribe succeeds on a dead session")
		}
		if err := s.Respond(t.Context(), core.MethodResponse{RequestID: "1", Status: 200}); err == nil {
			t.Error("respond succeeds on a dead session")
		}
		closeSession(t, s)
	})
	if s.Err() == nil {
		t.Error("Close has removed the reason of the loss")
	}
}

func callsEndAfterDone(h Harness) {
	t := h.t
	s := h.connect(core.Handler{})
	var wg sync.WaitGroup
	for what, call := range map[string]func() error{
		"subscribe": func() error { return s.Subscribe(t.Context(), core.FeatureTwin) },
		"respond":   func() error { return s.Respond(t.Context(), core.MethodResponse{RequestID: "1", Status: 200}) },
	} {
		answered := make(chan struct{})
		for i := range 4 {
			wg.Go(func() {
				err := call()
				if i == 0 {
					close(answered)
				}
				for err == nil {
					err = call()
				}
				select {
				case <-s.Done():
				default:
					t.Errorf("%s returns %v, and the session is not done", what, err)
				}
			})
		}
		<-answered
	}
	h.Hub.Drop()
	quickly(t, "a call of a session that is lost", wg.Wait)
	closeSession(t, s)
}

func ackPrefixes(h Harness) {
	t := h.t
	var r recorder
	s := h.connect(r.handler())
	const n = 500
	for from := 1; from <= n; from += 50 {
		for lane := core.Lane(1); lane <= 3; lane++ {
			s.Send(lane, batch(fmt.Sprintf("%d/", lane), from, from+49))
		}
	}
	for lane := core.Lane(1); lane <= 3; lane++ {
		until(t, "all of the lane is acknowledged", func() bool { return r.upto(lane) == n })
	}
	last := map[byte]int{}
	for _, payload := range h.Hub.Received() {
		var lane byte
		var seq int
		if _, err := fmt.Sscanf(payload, "%c/%d", &lane, &seq); err != nil {
			t.Fatal(err)
		}
		if seq != last[lane]+1 {
			t.Fatalf("lane %c: the hub received %d after %d", lane, seq, last[lane])
		}
		last[lane] = seq
	}
	closeSession(t, s)
	r.check(t)
}

func withheldAcks(h Harness) {
	t := h.t
	var r recorder
	s := h.connect(r.handler())
	s.Send(1, batch("", 1, 5))
	until(t, "5 are acknowledged", func() bool { return r.upto(1) == 5 })
	h.Hub.HoldAcks(true)
	s.Send(1, batch("", 6, 20))
	until(t, "the hub has received 20", func() bool { return len(h.Hub.Received()) == 20 })
	if got := r.upto(1); got != 5 {
		t.Errorf("acknowledged up to %d, want 5: the hub has not acknowledged more", got)
	}
	h.Hub.Drop()
	<-s.Done()
	closeSession(t, s)
	if got := r.upto(1); got != 5 {
		t.Errorf("acknowledged up to %d after the loss, want 5", got)
	}
	r.check(t)
}

func nothingAfterDone(h Harness) {
	t := h.t
	for round := range 20 {
		var r recorder
		s := h.connect(r.handler())
		if err := s.Subscribe(t.Context(), core.FeatureDesired); err != nil {
			t.Fatal(err)
		}
		s.Send(1, batch("", 1, 200))
		for range 50 {
			h.Hub.PushDesired()
		}
		if round%2 == 0 {
			h.Hub.Drop()
		} else {
			go closeSession(t, s)
		}
		<-s.Done()
		r.mu.Lock()
		before := r.calls
		r.mu.Unlock()
		closeSession(t, s) // returns when every goroutine of the session has ended
		if r.calls != before {
			t.Fatalf("round %d: the handler was called %d times after Done", round, r.calls-before)
		}
		r.check(t)
	}
}

func lossIsTyped(h Harness) {
	t := h.t
	s := h.connect(core.Handler{})
	h.Hub.Drop()
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("the loss was not noticed")
	}
	e, ok := s.Err().(*core.Error) //nolint:errorlint // the contract says the type itself
	if !ok {
		t.Fatalf("the loss is a %T (%v), want *core.Error", s.Err(), s.Err())
	}
	if !e.Clean || e.Kind != core.Transient {
		t.Errorf("a bare close is %v (clean: %v), want transient and clean", e.Kind, e.Clean)
	}
	closeSession(t, s)
}

// handOver is how a credential is renewed: the new connection is opened while the old session works.
func handOver(h Harness) {
	t := h.t
	var r recorder
	old := h.connect(r.handler())
	link, err := h.Transport.Open(t.Context(), h.Credential)
	if err != nil {
		t.Fatal(err)
	}
	old.Send(1, batch("", 1, 10))
	until(t, "the old session still works", func() bool { return r.upto(1) == 10 })
	s, err := link.Connect(t.Context(), h.Credential, core.Handler{})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-old.Done():
	case <-time.After(patience):
		t.Fatal("the old session lives on")
	}
	if e, ok := errors.AsType[*core.Error](old.Err()); !ok || !e.Clean {
		t.Errorf("the old session ended with %v, want a clean close", old.Err())
	}
	closeSession(t, old)
	if err := s.Subscribe(t.Context(), core.FeatureTwin); err != nil {
		t.Error("the new session does not work: ", err)
	}
	closeSession(t, s)
	r.check(t)
}

func connectEnds(h Harness) {
	t := h.t
	link, err := h.Transport.Open(t.Context(), h.Credential)
	if err != nil {
		t.Fatal(err)
	}
	h.Hub.Stall(true)
	defer h.Hub.Stall(false)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	quickly(t, "connect to a hub that does not answer", func() {
		if _, err = link.Connect(ctx, h.Credential, core.Handler{}); err == nil {
			t.Fatal("connect succeeds without an answer")
		}
	})
	cancelled, cancelNow := context.WithCancel(t.Context())
	cancelNow()
	quickly(t, "open with a context that has ended", func() {
		if link, err := h.Transport.Open(cancelled, h.Credential); err == nil {
			_ = link.Close()
			t.Error("open succeeds although its context has ended")
		}
	})
}

func stuckHub(h Harness) {
	t := h.t
	s := h.connect(core.Handler{})
	h.Hub.Stall(true)
	defer h.Hub.Stall(false)
	large := make([]core.Outbound, 200)
	for i := range large {
		large[i] = core.Outbound{Seq: core.Seq(i + 1), Message: &core.Message{Payload: make([]byte, 64<<10)}}
	}
	quickly(t, "send", func() { s.Send(1, large) })
	quickly(t, "request", func() { s.Request(core.Request{ID: 1}) })
	quickly(t, "complete", func() { s.Complete(1) })
	for what, call := range map[string]func(ctx context.Context) error{
		"subscribe": func(ctx context.Context) error { return s.Subscribe(ctx, core.FeatureTwin) },
		"respond": func(ctx context.Context) error {
			return s.Respond(ctx, core.MethodResponse{RequestID: "1", Status: 200})
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		quickly(t, what, func() {
			if err := call(ctx); err == nil {
				t.Errorf("%s succeeds although the hub is stuck", what)
			}
		})
		cancel()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := s.Close(ctx); err != nil {
		t.Error("close: ", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("close took %v with a stuck hub", took)
	}
	select {
	case <-s.Done():
	default:
		t.Error("close returned, and the session is not done")
	}
}

func refusal(h Harness) {
	t := h.t
	h.Hub.RefuseSubscriptions(true)
	s := h.connect(core.Handler{})
	defer closeSession(t, s)
	err := s.Subscribe(t.Context(), core.FeatureMessages)
	if core.KindOf(err) != core.Refused {
		t.Errorf("a refused subscription is %v, want kind refused", err)
	}
}

func replyOrder(h Harness) {
	t := h.t
	var r recorder
	s := h.connect(r.handler())
	for _, f := range []core.Feature{core.FeatureTwin, core.FeatureDesired} {
		if err := s.Subscribe(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	const n = 50
	for i := range n {
		s.Request(core.Request{ID: uint64(i + 1), Kind: core.TwinGet})
		h.Hub.PushDesired()
	}
	until(t, "everything has come", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.order) == 2*n
	})
	closeSession(t, s)
	var reply, desired, status int
	for _, line := range r.order {
		last := desired
		if _, err := fmt.Sscanf(line, "desired %d", &desired); err == nil {
			if desired <= last {
				t.Fatalf("desired %d came after desired %d", desired, last)
			}
			continue
		}
		last = reply
		if _, err := fmt.Sscanf(line, "reply %d %d", &reply, &status); err != nil || reply != last+1 || status != 200 {
			t.Fatalf("%q came after reply %d", line, last)
		}
	}
	r.check(t)
}

func redelivery(h Harness) {
	t := h.t
	inbox := func(r *recorder, want ...string) []core.Inbound {
		t.Helper()
		until(t, fmt.Sprintf("the messages %v have come", want), func() bool { return len(r.inbox()) >= len(want) })
		for i, in := range r.inbox() {
			if i >= len(want) || string(in.Message.Payload) != want[i] {
				t.Fatalf("message %d is %q, want %v", i, in.Message.Payload, want)
			}
		}
		return r.inbox()
	}
	var first recorder
	s := h.connect(first.handler())
	if err := s.Subscribe(t.Context(), core.FeatureMessages); err != nil {
		t.Fatal(err)
	}
	h.Hub.PushMessage("one")
	h.Hub.PushMessage("two")
	s.Complete(inbox(&first, "one", "two")[0].Token)
	until(t, "one is completed", func() bool { return h.Hub.Completed() == 1 })
	h.Hub.Drop()
	<-s.Done()
	closeSession(t, s)

	var second recorder
	s = h.connect(second.handler())
	if err := s.Subscribe(t.Context(), core.FeatureMessages); err != nil {
		t.Fatal(err)
	}
	again := inbox(&second, "two")[0]
	if !again.Redelivered || first.inbox()[1].Redelivered {
		t.Errorf("Redelivered is %v when the message comes first and %v when it comes again", first.inbox()[1].Redelivered, again.Redelivered)
	}
	s.Complete(again.Token)
	until(t, "two is completed", func() bool { return h.Hub.Completed() == 2 })
	closeSession(t, s)

	var third recorder
	s = h.connect(third.handler())
	if err := s.Subscribe(t.Context(), core.FeatureMessages); err != nil {
		t.Fatal(err)
	}
	h.Hub.PushMessage("three")
	inbox(&third, "three")
	closeSession(t, s)
}

func noLeaks(h Harness) {
	t := h.t
	before := goleak.IgnoreCurrent()
	for round := range 100 {
		var r recorder
		s := h.connect(r.handler())
		if err := s.Subscribe(t.Context(), core.FeatureMessages); err != nil {
			t.Fatal(err)
		}
		s.Send(1, batch("", 1, 20))
		switch round % 3 {
		case 0:
			h.Hub.Drop()
			<-s.Done()
		case 1:
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = s.Close(ctx)
		}
		closeSession(t, s)
	}
	h.Hub.Drop()
	var err error
	for late := time.Now().Add(patience); ; { // goleak itself waits for less than half a second
		if err = goleak.Find(before); err == nil || time.Now().After(late) {
			break
		}
	}
	if err != nil {
		t.Error(err)
	}
}
