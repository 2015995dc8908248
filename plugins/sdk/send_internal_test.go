package sdk

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

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
