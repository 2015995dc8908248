package sdk

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// busyStream sends a frame when it is let.
type busyStream struct {
	sending chan []*pluginv1.SessionResponse
	let     chan struct{}
}

func (s *busyStream) Send(frames ...*pluginv1.SessionResponse) error {
	s.sending <- frames
	<-s.let
	return nil
}

func (*busyStream) Recv() (*pluginv1.SessionRequest, error) { return nil, io.EOF }

// fate is told what became of a message.
type fate chan error

func (f fate) settled(_ int, err error) { f <- err }

// A message shares its payload with its author, who may change it once Send has given up. So it stays in the queue for as
// long as frames before it hold up the stream, and can be taken back there.
func TestAMessageWaitsInTheQueueForTheFramesBeforeIt(t *testing.T) {
	s := &busyStream{sending: make(chan []*pluginv1.SessionResponse), let: make(chan struct{})}
	w := newWriter(s)
	w.credit(10, 1000)
	w.control(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Pong{Pong: &pluginv1.Pong{Number: 1}}})
	end := make(fate, 1)
	ts := []*ticket{{m: &Message{Payload: []byte("a")}, to: end, size: 1}}
	if _, err := w.enqueue(t.Context(), ts, false); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- w.run(ctx) }()
	if frames := <-s.sending; len(frames) != 1 || frames[0].GetPong() == nil {
		t.Errorf("the first to leave are %v", frames)
	}
	w.withdraw(ts, context.Canceled)
	select {
	case err := <-end:
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "not sent") {
			t.Errorf("it ended with %v", err)
		}
	default:
		t.Fatal("it was on its way already")
	}
	s.let <- struct{}{}
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// What comes while the stream is busy with those before it waits for others as if it had come a moment later.
func TestAMessageLingersThatComesWhileTheStreamIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &busyStream{sending: make(chan []*pluginv1.SessionResponse), let: make(chan struct{})}
		w := newWriter(s)
		w.credit(10, 1000)
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- w.run(ctx) }()
		began := time.Now()
		for i, at := range []time.Duration{0, DefaultLinger} {
			if _, err := w.enqueue(ctx, []*ticket{{m: &Message{}, to: make(fate, 1)}}, true); err != nil {
				t.Fatal(err)
			}
			if frames := <-s.sending; len(frames) != 1 || time.Since(began) != at {
				t.Errorf("departure %d: %v after %v, want %v", i, frames, time.Since(began), at)
			}
			if i == 0 {
				if _, err := w.enqueue(ctx, []*ticket{{m: &Message{}, to: make(fate, 1)}}, true); err != nil {
					t.Fatal(err)
				}
			}
			s.let <- struct{}{}
		}
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

// A message that was due and taken back, for want of credit, leaves nothing behind that holds up the next.
func TestAMessageLeavesAfterOneThatWasTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &busyStream{sending: make(chan []*pluginv1.SessionResponse), let: make(chan struct{}, 1)}
		s.let <- struct{}{}
		w := newWriter(s)
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- w.run(ctx) }()
		ts := []*ticket{{m: &Message{}, to: make(fate, 1)}}
		for i := range 2 {
			if _, err := w.enqueue(ctx, ts, true); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if i == 0 {
				w.withdraw(ts, context.Canceled)
				ts = []*ticket{{m: &Message{}, to: make(fate, 1)}}
				w.credit(10, 1000)
			}
		}
		select {
		case <-s.sending:
		case <-time.After(time.Second):
			t.Error("it waits for ever")
		}
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}
