package wire_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// carry sends p over the wire.
func carry[T proto.Message](t *rapid.T, p, into T) T {
	b, err := proto.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
	return into
}

func TestAMessageComesOutAsItWentIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, when := rapid.String(), rapid.Custom(func(t *rapid.T) time.Time {
			if rapid.Bool().Draw(t, "none") {
				return time.Time{}
			}
			return time.UnixMilli(rapid.Int64Range(-1<<50, 1<<50).Draw(t, "ms")).UTC()
		})
		m := &core.Message{
			ID: text.Draw(t, "id"), CorrelationID: text.Draw(t, "correlation"), UserID: text.Draw(t, "user"), ContentType: text.Draw(t, "type"),
			ContentEncoding: text.Draw(t, "encoding"), Expiry: when.Draw(t, "expiry"), CreationTime: when.Draw(t, "creation"),
			InterfaceID: text.Draw(t, "interface"), Component: text.Draw(t, "component"), Output: text.Draw(t, "output"), Input: text.Draw(t, "input"),
			To: text.Draw(t, "to"), Ack: text.Draw(t, "ack"), Properties: rapid.MapOf(text, text).Draw(t, "properties"),
			Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload"),
		}
		got := wire.ToMessage(carry(t, wire.FromMessage(m), new(pluginv1.Message)))
		if diff := cmp.Diff(m, got, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
		if m.Size() != got.Size() {
			t.Errorf("both sides must count alike: %d, %d", m.Size(), got.Size())
		}
	})
}

func TestDesiredTellsNothingFromEmpty(t *testing.T) {
	for _, d := range []core.Desired{
		{Version: 1},
		{Version: 2, Document: []byte(`{}`)},
		{Version: 3, Patch: []byte(`{"a":null}`)},
		{Version: 4, Document: []byte(`{"a":1}`), Patch: []byte(`{"a":1}`)},
	} {
		b, err := proto.Marshal(wire.FromDesired(&d))
		if err != nil {
			t.Fatal(err)
		}
		p := new(pluginv1.Desired)
		if err := proto.Unmarshal(b, p); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&d, wire.ToDesired(p)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestAnErrorKeepsItsTextItsSentinelAndTheHubsWords(t *testing.T) {
	sentinels := []error{
		core.ErrCredential, core.ErrConnectionFailed, core.ErrConnectionDropped, core.ErrTimeout, core.ErrCancelled, core.ErrNotConnected,
		core.ErrClosed, core.ErrTooLarge, core.ErrInvalid, core.ErrService, core.ErrUnsupported, context.Canceled, context.DeadlineExceeded,
	}
	for _, s := range sentinels {
		err := fmt.Errorf("report: %w", &core.Error{Op: "patch", Status: 429, RetryAfter: 2 * time.Second, TrackingID: "T", Err: s})
		got := wire.ToError(wire.FromError(err))
		if got.Error() != err.Error() {
			t.Errorf("text %q, want %q", got, err)
		}
		want := s
		switch {
		case errors.Is(s, context.Canceled):
			want = core.ErrCancelled
		case errors.Is(s, context.DeadlineExceeded):
			want = core.ErrTimeout
		}
		if !errors.Is(got, want) {
			t.Errorf("%v is not found in %v", want, got)
		}
		e, ok := errors.AsType[*core.Error](got)
		if !ok || e.Status != 429 || e.RetryAfter != 2*time.Second || e.TrackingID != "T" {
			t.Errorf("the hub's words: %+v", e)
		}
	}
	if wire.ToError(wire.FromError(nil)) != nil {
		t.Error("no error became one")
	}
	// What comes from the hub need not be UTF-8, and a frame must be.
	if _, err := proto.Marshal(wire.FromError(&core.Error{Op: "patch\xff", TrackingID: "T\xff", Err: core.ErrService})); err != nil {
		t.Errorf("a frame with the hub's words: %v", err)
	}
	if got := wire.ToError(&pluginv1.Error{Message: "odd", Code: 99}); got.Error() != "odd" {
		t.Errorf("an unknown code: %v", got)
	}
}

func TestConnectionsVerdictsAndDurations(t *testing.T) {
	for s := core.StateDisconnected; s <= core.StateStopped; s++ {
		c := core.Connection{State: s, Since: time.Second, Reason: "why", NextAttempt: time.Minute, Epoch: 7, Route: "mqttws", Causes: []core.ConnectionCause{
			{Route: "mqtt", Kind: core.Blocked, Phase: "tcp", Reason: "no answer", Count: 3}, {Route: "mqttws", Kind: core.Transient, Phase: "dns", Reason: "no such host", Count: 1},
		}}
		if diff := cmp.Diff(c, wire.ToConnection(wire.FromConnection(c))); diff != "" {
			t.Error(diff)
		}
	}
	if s := wire.ToConnection(&pluginv1.ConnectionState{State: 99}).State; s != core.StateDisconnected {
		t.Errorf("an unknown state is %s", s)
	}
	for _, v := range []core.Verdict{core.Complete, core.Reject, core.Abandon} {
		if got := wire.ToVerdict(wire.FromVerdict(v)); got != v {
			t.Errorf("%s became %s", v, got)
		}
	}
	for d, want := range map[time.Duration]uint64{0: 0, -1: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2} {
		if got := wire.FromDuration(d); got != want {
			t.Errorf("%s is %d ms, want %d", d, got, want)
		}
	}
	if d := wire.ToDuration(1 << 63); d <= 0 {
		t.Errorf("an endless duration became %s", d)
	}
}

func TestReadableLeavesTheMessageAlone(t *testing.T) {
	props := map[string]string{"a\xff": "b", "c": "\xfe"}
	p := wire.Readable(wire.FromMessage(&core.Message{ID: "\xff", Properties: props}))
	if _, err := proto.Marshal(p); err != nil {
		t.Error(err)
	}
	if len(props) != 2 || props["c"] != "\xfe" {
		t.Errorf("the message's own properties changed: %q", props)
	}
}

func TestAHangIsFoundWithin15Seconds(t *testing.T) {
	if d := (wire.PingMisses+1)*wire.PingInterval + wire.PingTimeout; d > 15*time.Second {
		t.Errorf("it takes up to %s", d)
	}
}
