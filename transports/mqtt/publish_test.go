package mqtt

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// A subscription waits for paho's writer and for room. Nobody but the publisher, which waits with it, would make room.
func TestASubscriptionBehindALargePacketIsAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		s := connect(t, hub, core.Handler{})
		// Both are queued before the publisher looks.
		hold := make(chan struct{})
		s.(*session).queue.first(func() { <-hold })
		synctest.Wait()
		s.Request(core.Request{ID: 1, Kind: core.ReportedPatch, Payload: make([]byte, roomMax)})
		subscribed := make(chan error, 1)
		began := time.Now()
		go func() { subscribed <- s.Subscribe(t.Context(), core.FeatureMessages) }()
		synctest.Wait()
		close(hold)
		if err := <-subscribed; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the subscription took %v", took)
		}
		mustClose(t, s)
		hub.Close()
	})
}

// What needs an answer, and the end, do not wait for the acknowledgement of telemetry, however much of it is out.
func TestWithheldAcknowledgementsHoldUpMessagesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		replies, acked := 0, core.Seq(0)
		s := connect(t, hub, core.Handler{
			Replied: func(core.Reply) { replies++ },
			Acked:   func(_ core.Lane, upto core.Seq) { acked = max(acked, upto) },
		})
		hub.HoldAcks(true)
		s.Send(1, outbound(1, maxFlight+100))
		synctest.Wait()
		if n := len(hub.Received()); n != maxFlight {
			t.Fatalf("%d messages are out, want %d", n, maxFlight)
		}
		s.Request(core.Request{ID: 1, Kind: core.TwinGet})
		synctest.Wait()
		if replies != 1 {
			t.Errorf("%d replies while nothing is acknowledged, want 1", replies)
		}
		if n := len(hub.Received()); n != maxFlight {
			t.Errorf("then %d messages are out, want %d", n, maxFlight)
		}
		hub.HoldAcks(false)
		synctest.Wait()
		if n := len(hub.Received()); n != maxFlight+100 || acked != maxFlight+100 {
			t.Errorf("in the end %d messages arrived, and up to %d is acknowledged, want %d", n, acked, maxFlight+100)
		}

		hub.HoldAcks(true)
		s.Send(1, outbound(maxFlight+101, 2*maxFlight+200))
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > windDown {
			t.Errorf("the end took %v", took)
		}
		synctest.Wait()
		if n := hub.Goodbyes(); n != 1 {
			t.Errorf("%d goodbyes, want 1", n)
		}
		hub.Close()
	})
}

// A topic's length has two bytes: a longer one would come out as another packet.
func TestAnAnswerWhoseTopicIsTooLongIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		s := connect(t, hub, core.Handler{})
		err := s.Respond(t.Context(), core.MethodResponse{RequestID: strings.Repeat("%", maxTopicBytes/3), Status: 200})
		if !errors.Is(err, core.ErrTooLarge) {
			t.Errorf("error %v", err)
		}
		if err := s.Respond(t.Context(), core.MethodResponse{RequestID: "1", Status: 200}); err != nil {
			t.Errorf("the next answer: %v", err)
		}
		mustClose(t, s)
		hub.Close()
	})
}
