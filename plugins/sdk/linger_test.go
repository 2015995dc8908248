package sdk_test

import (
	"context"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

// departure is a frame of messages.
type departure struct {
	at    time.Duration
	count int
}

// departures runs loop as a plugin's, in virtual time, before a host that settles each message after the time given, and
// returns what arrived at the host, in frames.
func departures(t *testing.T, settle time.Duration, loop func(ctx context.Context, dev *sdk.Device) error) []departure {
	t.Helper()
	ours, theirs := net.Pipe()
	h := wire.NewHostPipe(ours)
	send := func(f *pluginv1.SessionRequest) {
		if err := h.Send(f); err != nil {
			t.Error(err)
		}
	}
	type arrival struct {
		m  *pluginv1.Messages
		at time.Time
	}
	settled := make(chan arrival, 1000)
	writer := make(chan struct{})
	go func() {
		defer close(writer)
		for a := range settled {
			time.Sleep(time.Until(a.at.Add(settle)))
			m := a.m
			send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Settled{
				Settled: &pluginv1.Settled{From: m.GetFirst(), To: m.GetFirst() + uint64(len(m.GetMessages())) - 1},
			}})
		}
	}()
	var seen []departure
	began := time.Now()
	reader := make(chan struct{})
	go func() {
		defer close(reader)
		for {
			f, err := h.Recv()
			if err != nil {
				return
			}
			if m := f.GetMessages(); m != nil {
				seen = append(seen, departure{time.Since(began), len(m.GetMessages())})
				settled <- arrival{m, time.Now()}
			}
		}
	}()
	p := sdk.New("test")
	over := make(chan struct{})
	p.Run(func(ctx context.Context, dev *sdk.Device) error {
		defer close(over)
		return loop(ctx, dev)
	})
	served := make(chan error, 1)
	go func() { served <- p.ServeConn(theirs) }()
	send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Init{Init: &pluginv1.Init{PluginName: "test"}}})
	send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Credit{Credit: &pluginv1.Credit{Messages: 1 << 20, Bytes: 1 << 30}}})
	send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Connection{Connection: &pluginv1.ConnectionState{}}})
	<-over
	time.Sleep(time.Second) // virtual; what lingers has left by then
	_ = ours.Close()
	<-reader
	close(settled)
	<-writer
	if err := <-served; err != nil {
		t.Error(err)
	}
	return seen
}

func counts(ds []departure) []int {
	ns := make([]int, len(ds))
	for i, d := range ds {
		ns[i] = d.count
	}
	return ns
}

// everyMS sends n messages, one each millisecond.
func everyMS(ctx context.Context, dev *sdk.Device, n int) error {
	for range n {
		if err := dev.SendAsync(ctx, &sdk.Message{Payload: []byte("x")}, nil); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func TestAStreamLeavesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ds := departures(t, 0, func(ctx context.Context, dev *sdk.Device) error { return everyMS(ctx, dev, 100) })
		if n := len(ds); n < 20 || n > 22 {
			t.Errorf("100 messages, one each ms, left in %d frames, want one each 5 ms: %v", n, counts(ds))
		}
		if ds[0] != (departure{0, 1}) {
			t.Errorf("the first left as %v: nobody was there to wait for", ds[0])
		}
		for i, d := range ds[1:] {
			if gap := d.at - ds[i].at; gap > 5*time.Millisecond {
				t.Errorf("%v passed before departure %d", gap, i+1)
			}
		}
	})
}

func TestNothingWaitsWithoutLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ds := departures(t, 0, func(ctx context.Context, dev *sdk.Device) error {
			dev.SetLinger(0)
			return everyMS(ctx, dev, 100)
		})
		if len(ds) != 100 {
			t.Errorf("100 messages left in %d frames: %v", len(ds), counts(ds))
		}
	})
}

func TestSendWaitsForNobodyAndTakesTheOthersAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began time.Time
		var took time.Duration
		ds := departures(t, 0, func(ctx context.Context, dev *sdk.Device) error {
			if err := everyMS(ctx, dev, 3); err != nil { // the second and third linger
				return err
			}
			began = time.Now()
			err := dev.Send(ctx, &sdk.Message{Payload: []byte("y")})
			took = time.Since(began)
			return err
		})
		if took != 0 {
			t.Errorf("Send waited %v for others", took)
		}
		if got := counts(ds); !slices.Equal(got, []int{1, 3}) {
			t.Errorf("the frames have %v messages, want 1 and 3", got)
		}
	})
}

// Who sends the next message when the one before is settled gains nothing by waiting: it is tried once a second.
func TestWhoWaitsForAnswersIsNotKeptWaiting(t *testing.T) {
	for _, window := range []int{1, 10} {
		synctest.Test(t, func(t *testing.T) {
			sent := 0
			departures(t, 300*time.Microsecond, func(ctx context.Context, dev *sdk.Device) error {
				open := make(chan struct{}, window)
				for began := time.Now(); time.Since(began) < 3*time.Second; sent++ {
					open <- struct{}{}
					if err := dev.SendAsync(ctx, &sdk.Message{}, func(error) { <-open }); err != nil {
						return err
					}
				}
				return nil
			})
			// Each 300 µs a window, less 5 ms a second.
			if most := 3_000_000 / 300 * window; sent < most*9/10 {
				t.Errorf("%d messages in 3 s with a window of %d, want nearly %d", sent, window, most)
			}
		})
	}
}

func TestEnoughLeavesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ds := departures(t, time.Millisecond, func(ctx context.Context, dev *sdk.Device) error {
			for range 1000 {
				if err := dev.SendAsync(ctx, &sdk.Message{}, nil); err != nil {
					return err
				}
			}
			return nil
		})
		last := ds[len(ds)-1]
		if last.at > 5*time.Millisecond {
			t.Errorf("the last of 1000 messages at once left after %v", last.at)
		}
		total := 0
		for _, d := range ds {
			total += d.count
		}
		if total != 1000 {
			t.Errorf("%d messages left", total)
		}
	})
}
