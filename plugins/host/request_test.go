//go:build unix

package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

// slowDevice answers Twin when its context ends.
type slowDevice struct{ *sdktest.Device }

func (slowDevice) Twin(ctx context.Context) (json.RawMessage, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func twinRequest(id, timeoutMs uint64) *pluginv1.SessionResponse {
	return &pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Request{Request: &pluginv1.Request{
		Id: id, TimeoutMs: timeoutMs, Request: &pluginv1.Request_Twin{Twin: &pluginv1.TwinRequest{}},
	}}}
}

func TestTooManyRequestsAreRefused(t *testing.T) {
	codes := make(chan map[pluginv1.Error_Code]int, 1)
	attachTo(t, slowDevice{sdktest.NewDevice()}, host.Config{}, func(s stream) error {
		const requests, open = 100, 64
		got := make(map[pluginv1.Error_Code]int)
		replies := func(n int) error {
			for n > 0 {
				f, err := s.Recv()
				if err != nil {
					return err
				}
				if r := f.GetReply(); r != nil {
					got[r.GetError().GetCode()]++
					n--
				}
			}
			return nil
		}
		cancel := func(id uint64) error {
			return s.Send(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Cancel{Cancel: &pluginv1.Cancel{Id: id}}})
		}
		for id := range uint64(requests) {
			if err := s.Send(twinRequest(id, 0)); err != nil {
				return err
			}
		}
		if err := replies(requests - open); err != nil {
			return err
		}
		// One whose time is over makes room as one that is called off does. It comes when no other wants the room.
		if err := errors.Join(cancel(0), replies(1), s.Send(twinRequest(requests, 50)), replies(1)); err != nil {
			return err
		}
		for id := uint64(1); id < open; id++ {
			if err := cancel(id); err != nil {
				return err
			}
		}
		if err := replies(open - 1); err != nil {
			return err
		}
		codes <- got
		return idle(s)
	})
	want := map[pluginv1.Error_Code]int{pluginv1.Error_CODE_INVALID: 36, pluginv1.Error_CODE_CANCELLED: 64, pluginv1.Error_CODE_TIMEOUT: 1}
	if diff := cmp.Diff(want, <-codes); diff != "" {
		t.Error(diff)
	}
}

// countingDevice counts what it is asked for, and answers Twin with a large document.
type countingDevice struct {
	*sdktest.Device
	twins atomic.Int64
}

func (d *countingDevice) Twin(context.Context) (json.RawMessage, error) {
	d.twins.Add(1)
	return json.RawMessage(`"` + strings.Repeat("x", 64<<10) + `"`), nil
}

func TestRepliesThatNobodyReadsDoNotPileUp(t *testing.T) {
	dev := &countingDevice{Device: sdktest.NewDevice()}
	p := attachTo(t, dev, host.Config{}, func(s stream) error {
		for id := uint64(1); ; id++ { // and reads nothing
			if err := s.Send(twinRequest(id, 0)); err != nil {
				return err
			}
		}
	})
	if err := waitDone(t, p); err == nil || !strings.Contains(err.Error(), "does not read") {
		t.Errorf("the plugin ended with %v", err)
	}
	// Besides the 64 that may be open, some were sent before the stream was full.
	if n := dev.twins.Load(); n > 200 {
		t.Errorf("%d documents of 64 KiB were fetched for a plugin that does not read", n)
	}
}

func TestAPatchThatTheHubWouldNotTakeIsRefused(t *testing.T) {
	replies := make(chan *pluginv1.Reply, 1)
	_, dev := attachScript(t, host.Config{}, func(s stream) error {
		patch := []byte(`{"a":"` + strings.Repeat("x", core.MaxMessageSize) + `"}`)
		if err := s.Send(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Request{Request: &pluginv1.Request{
			Id: 1, Request: &pluginv1.Request_Report{Report: &pluginv1.ReportRequest{Patch: patch}},
		}}}); err != nil {
			return err
		}
		for {
			f, err := s.Recv()
			if err != nil {
				return nil
			}
			if r := f.GetReply(); r != nil {
				replies <- r
				return idle(s)
			}
		}
	})
	if r := <-replies; r.GetError().GetCode() != pluginv1.Error_CODE_TOO_LARGE {
		t.Errorf("the reply to a patch of more than 256 KiB: %v", r)
	}
	if strings.Contains(string(dev.Reported()), "xxx") {
		t.Error("the device was given the patch")
	}
}
