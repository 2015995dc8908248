package mqtt

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

var testIdentity = core.Identity{Hostname: "hub.example.net", DeviceID: "dev"}

// newTestTransport returns a transport whose connections lead to hub.
func newTestTransport(tb testing.TB, hub *transporttest.FakeHub) *Transport {
	tb.Helper()
	tr, err := New(Config{Identity: testIdentity, UserAgent: "fairlead/test", Open: hub.Open})
	if err != nil {
		tb.Fatal(err)
	}
	return tr
}

// connect makes a session with hub, and closes it at the end of the test.
func connect(tb testing.TB, hub *transporttest.FakeHub, h core.Handler) core.Session {
	tb.Helper()
	link, err := newTestTransport(tb, hub).Open(tb.Context(), core.Credential{Token: "secret"})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := link.Connect(tb.Context(), core.Credential{Token: "secret"}, h)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func outbound(from, to int) []core.Outbound {
	var batch []core.Outbound
	for n := from; n <= to; n++ {
		batch = append(batch, core.Outbound{Seq: core.Seq(n), Message: &core.Message{Payload: fmt.Append(nil, n)}})
	}
	return batch
}

func TestSessionCarriesEverythingBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		var got []string
		var token uint64
		s := connect(t, hub, core.Handler{
			Receive: func(in core.Inbound) {
				if in.Kind == core.InboundMessage {
					token = in.Token
				}
				got = append(got, fmt.Sprintf("in %d %s%s v%d", in.Kind, in.Method, in.RequestID, in.Version))
			},
			Acked: func(lane core.Lane, upto core.Seq) {
				if upto == 3 { // or the prefixes 1 and 2 before
					got = append(got, fmt.Sprintf("acked %d %d", lane, upto))
				}
			},
			Replied: func(r core.Reply) { got = append(got, fmt.Sprintf("reply %d %d v%d", r.ID, r.Status, r.Version)) },
		})
		for f := core.FeatureMessages; f <= core.FeatureDesired; f++ {
			if err := s.Subscribe(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}
		s.Send(3, outbound(1, 3))
		synctest.Wait()
		s.Request(core.Request{ID: 4, Kind: core.TwinGet})
		synctest.Wait()
		s.Request(core.Request{ID: 5, Kind: core.ReportedPatch, Payload: []byte(`{"a":1}`)})
		synctest.Wait()
		hub.Push("devices/dev/messages/devicebound/%24.mid=m1&a=b", "hello", 1)
		hub.Push("$iothub/methods/POST/re%20boot/?$rid=a1", "null", 0)
		hub.Push("$iothub/twin/PATCH/properties/desired/?$version=9", `{"$version":9}`, 0)
		hub.Push("$iothub/nonsense", "", 1)
		synctest.Wait()
		if err := s.Respond(t.Context(), core.MethodResponse{RequestID: "a1", Status: 200}); err != nil {
			t.Fatal(err)
		}
		s.Complete(token)
		synctest.Wait()
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"acked 3 3", "reply 4 200 v0", "reply 5 204 v7", "in 0  v0", "in 1 re boota1 v0", "in 2  v9",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("handler saw (-want +got):\n%s", diff)
		}
		wantLog := []string{
			"subscribe devices/dev/messages/devicebound/#", "subscribe $iothub/methods/POST/#",
			"subscribe $iothub/twin/res/#", "subscribe $iothub/twin/PATCH/properties/desired/#",
			"publish $iothub/methods/res/200/?$rid=a1 null", "complete hello", "complete ",
		}
		if diff := cmp.Diff(wantLog, hub.Log()); diff != "" {
			t.Errorf("hub saw (-want +got):\n%s", diff)
		}
		if hub.Goodbyes() != 1 {
			t.Errorf("goodbyes %d, want 1: a close is told to the hub", hub.Goodbyes())
		}
		if err := s.Err(); err != nil {
			t.Errorf("Err after Close is %v, want nil", err)
		}
		hub.Close()
	})
}
