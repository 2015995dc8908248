package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/sdk"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

func TestSendReturnsWhenAccepted(t *testing.T) {
	h, dev := withDevice(t, sdk.New("test"), sdktest.Config{})
	ctx, cancel := h.Context()
	defer cancel()
	m := &sdk.Message{
		ID: "1", CorrelationID: "2", UserID: "3", ContentType: "text/plain", ContentEncoding: "utf-8", Expiry: time.UnixMilli(1_700_000_000_123).UTC(),
		CreationTime: time.UnixMilli(1_600_000_000_456).UTC(), InterfaceID: "4", Component: "5", Output: "6",
		Properties: map[string]string{"a": "b", "ü": "ñ"}, Payload: []byte("x"),
	}
	if err := dev.Send(ctx, m); err != nil {
		t.Fatal(err)
	}
	got := h.Device.Sent()
	if len(got) != 1 || fmt.Sprintf("%+v", got[0]) != fmt.Sprintf("%+v", m) {
		t.Errorf("sent %+v, want %+v", got[0], m)
	}
}

func TestARefusedSendSaysWhy(t *testing.T) {
	h, dev := withDevice(t, sdk.New("test"), sdktest.Config{})
	ctx, cancel := h.Context()
	defer cancel()
	if err := dev.Send(ctx, &sdk.Message{Payload: make([]byte, core.MaxMessageSize+1)}); !errors.Is(err, sdk.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := dev.Send(ctx, &sdk.Message{UserID: "\xff"}); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("not UTF-8: %v", err)
	}
	if err := dev.Send(ctx, &sdk.Message{Properties: map[string]string{"$.on": "x"}}); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("a property of the hub's own: %v", err)
	}
	h.Device.FailSends(sdktest.ErrOffline)
	if err := dev.Send(ctx, text("x")); !errors.Is(err, sdk.ErrNotConnected) {
		t.Errorf("offline: %v", err)
	}
	err := dev.SendBatch(ctx, []*sdk.Message{text("a"), {ID: strings.Repeat("x", 129)}, text("b")})
	be, ok := errors.AsType[*sdk.BatchError](err)
	if !ok || len(be.Errs) != 3 || !errors.Is(be.Errs[0], sdk.ErrNotConnected) || !errors.Is(be.Errs[1], sdk.ErrInvalid) {
		t.Errorf("batch: %v", err)
	}
	h.Device.FailSends(nil)
	err = dev.SendBatch(ctx, []*sdk.Message{text("a"), {ID: strings.Repeat("x", 129)}, text("b")})
	if be, ok := errors.AsType[*sdk.BatchError](err); !ok || be.Errs[0] != nil || be.Errs[1] == nil || be.Errs[2] != nil {
		t.Errorf("batch: %v", err)
	}
	if sent := h.Device.Sent(); len(sent) != 2 {
		t.Errorf("%d messages were sent, want the 2 good ones", len(sent))
	}
}

func TestASendThatEndsIsWithdrawn(t *testing.T) {
	t.Run("the outbox has it unsettled", func(t *testing.T) {
		h, dev := withDevice(t, sdk.New("test"), sdktest.Config{})
		h.Device.Hold(true)
		ctx, cancel := h.Context()
		defer cancel()
		short, stop := context.WithCancel(ctx)
		go func() { _ = h.Device.Held(ctx, 1); stop() }()
		err := dev.Send(short, text("x"))
		if !errors.Is(err, sdk.ErrCancelled) || !strings.Contains(err.Error(), "the hub may have it") {
			t.Errorf("error: %v", err)
		}
		if err := h.Device.Held(ctx, 0); err != nil {
			t.Errorf("it was not withdrawn: %v", err)
		}
		h.Device.Hold(false)
		if n := len(h.Device.Sent()); n != 0 {
			t.Errorf("%d messages were sent", n)
		}
	})
	t.Run("it waits for the outbox", func(t *testing.T) {
		h, dev := withDevice(t, sdk.New("test"), sdktest.Config{})
		h.Device.Full(true)
		ctx, cancel := h.Context()
		defer cancel()
		var wg sync.WaitGroup
		var firstErr, secondErr error
		short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
		defer stop()
		wg.Go(func() { firstErr = dev.SendBatch(ctx, []*sdk.Message{text("a")}) })
		second := make(chan struct{})
		go func() { defer close(second); secondErr = dev.Send(short, text("x")) }()
		<-second
		h.Device.Full(false)
		wg.Wait()
		if firstErr != nil {
			t.Errorf("the other message: %v", firstErr)
		}
		if secondErr == nil || !strings.Contains(secondErr.Error(), "it was not sent") {
			t.Errorf("error: %v", secondErr)
		}
		for _, m := range h.WaitSent(1) {
			if string(m.Payload) == "x" {
				t.Error("the withdrawn message was sent")
			}
		}
	})
	t.Run("it was accepted meanwhile", func(t *testing.T) {
		h, dev := withDevice(t, sdk.New("test"), sdktest.Config{})
		ctx, cancel := h.Context()
		cancel()
		if err := dev.Send(ctx, text("x")); err == nil || !strings.Contains(err.Error(), "it was not sent") {
			t.Errorf("with an ended context: %v", err)
		}
		_ = h
	})
}

func TestAFullOutboxStopsSendersAndNothingElse(t *testing.T) {
	p := sdk.New("test")
	p.HandleMethod("ping", func(context.Context, *sdk.MethodRequest) (any, error) { return "pong", nil })
	h, dev := withDevice(t, p, sdktest.Config{})
	h.Device.Full(true)
	ctx, cancel := h.Context()
	defer cancel()
	stop, stopped := context.WithCancel(ctx)
	defer stopped()
	queued := 0
	blocked := make(chan struct{})
	go func() {
		defer close(blocked)
		for dev.SendAsync(stop, &sdk.Message{Payload: make([]byte, 64<<10)}, nil) == nil {
			queued++
		}
	}()
	// The plugin can still answer while its sender is stopped by the lack of credit.
	for range 20 {
		if _, a := h.Method("ping", nil); string(a) != `"pong"` {
			t.Fatalf("answer %s", a)
		}
	}
	stopped()
	<-blocked
	h.Device.Full(false)
	h.WaitSent(queued)
}

func TestManySendersKeepTheirOrder(t *testing.T) {
	h, dev := withDevice(t, sdk.New("test"), sdktest.Config{})
	ctx, cancel := h.Context()
	defer cancel()
	const senders, each = 8, 500
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				var err error
				m := &sdk.Message{Payload: fmt.Appendf(nil, "%d", i), Properties: map[string]string{"s": fmt.Sprint(s)}}
				switch i % 3 {
				case 0:
					err = dev.Send(ctx, m)
				case 1:
					err = dev.SendAsync(ctx, m, func(err error) {
						if err != nil {
							t.Error(err)
						}
					})
				default:
					err = dev.SendBatch(ctx, []*sdk.Message{m})
				}
				if err != nil {
					t.Errorf("sender %d, message %d: %v", s, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	next := map[string]int{}
	for _, m := range h.WaitSent(senders * each) {
		s := m.Properties["s"]
		if want := fmt.Sprint(next[s]); string(m.Payload) != want {
			t.Fatalf("sender %s: message %s came where %s should", s, m.Payload, want)
		}
		next[s]++
	}
}

func TestSendsEndWithTheSession(t *testing.T) {
	p := sdk.New("test")
	results := make(chan error, 1)
	began := make(chan struct{})
	p.Run(func(ctx context.Context, dev *sdk.Device) error {
		go func() {
			close(began)
			results <- dev.Send(context.WithoutCancel(ctx), text("x"))
		}()
		<-began
		_ = dev.SendAsync(ctx, text("y"), nil)
		return nil
	})
	dev := sdktest.NewDevice()
	dev.Hold(true)
	h := sdktest.Start(t, p, sdktest.Config{Device: dev})
	ctx, cancel := h.Context()
	defer cancel()
	if err := dev.Held(ctx, 2); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	defer stop()
	_ = h.CloseWithin(short)
	if err := <-results; !errors.Is(err, sdk.ErrClosed) || !strings.Contains(err.Error(), "the hub may have it") {
		t.Errorf("error: %v", err)
	}
}
