package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// What the documents leave open is decided by a setting, and both answers are kept.
func TestUnsettledQuestions(t *testing.T) {
	for _, other := range []bool{false, true} {
		t.Run(fmt.Sprint(other), func(t *testing.T) {
			h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) {
				if other {
					c.Unsettled = hub.Unsettled{
						DisabledCode: 5, RetainValue: "yes", MethodsInFlight: 1, C2DNeedsSession: true, ReportedETag: true, RefuseReported: true, QueryPage: 1,
					}
				}
			}))
			pick := func(usual, otherwise any) any {
				if other {
					return otherwise
				}
				return usual
			}
			check := func(what string, got, usual, otherwise any) {
				t.Helper()
				if want := pick(usual, otherwise); got != want {
					t.Errorf("%s: %v, want %v", what, got, want)
				}
			}
			h.AddDevice("dev1")
			h.AddDevice("dev2")

			check("a message before the first session is queued", h.SendC2D("dev1", api.C2D{Body: []byte("x")}) == nil, true, false)
			d := connect(t, h, options{id: "dev1"})
			d.wait(d.Publish("devices/dev1/messages/events/", 1, true, "x"), "publish")
			check("mqtt-retain", h.WaitCount("dev1", 1)[0].Properties["mqtt-retain"], "true", "yes")
			d.Disconnect(0)
			h.WaitConnected("dev1", false)
			if err := h.SendC2D("dev1", api.C2D{Body: []byte("x")}); err != nil {
				t.Errorf("a device with a session: %v", err)
			}

			d = connect(t, h, options{id: "dev1"})
			d.subscribe(twinRes)
			d.subscribe(methods)
			before, err := h.Twin("dev1")
			if err != nil {
				t.Fatal(err)
			}
			d.send(reportTwin+"1", `{"a":1}`)
			d.receiveFrom(fmt.Sprintf("$iothub/twin/res/204/?$rid=1&$version=%d", 2))
			after, err := h.Twin("dev1")
			if err != nil {
				t.Fatal(err)
			}
			check("a reported change alters the etag", after.ETag != before.ETag, false, true)
			_, err = h.PatchTwin("dev1", []byte(`{"properties":{"reported":{"a":2}}}`))
			check("a patch of reported is taken", err == nil, true, false)

			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = h.InvokeMethod(ctx, "dev1", "first", nil) // it only takes up the place
			}()
			if m := d.receive(); !strings.Contains(m.Topic(), "/first/") {
				t.Errorf("topic %s", m.Topic())
			}
			go func() { _, _ = h.InvokeMethod(ctx, "dev1", "second", nil) }() // as above
			if other {
				_, err = h.InvokeMethod(ctx, "dev1", "third", nil)
				wantCode(t, err, api.CodeThrottled)
			} else if m := d.receive(); !strings.Contains(m.Topic(), "/second/") {
				t.Errorf("topic %s", m.Topic())
			}
			cancel()
			<-ended

			resp, body := rest(t, h, "POST", "/devices/query", `{"query":"SELECT deviceId FROM devices"}`, nil)
			var page []json.RawMessage
			if err := json.Unmarshal([]byte(body), &page); err != nil || resp.StatusCode != 200 {
				t.Fatalf("query: %d %s", resp.StatusCode, body)
			}
			check("a page of results", len(page), 2, 1)

			if _, err := h.UpdateDevice(api.Device{DeviceID: "dev2", Status: api.Disabled}); err != nil {
				t.Fatal(err)
			}
			_, err = tryConnect(t, h, options{id: "dev2"})
			word := pick("server unavailable", "not authorized").(string)
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), word) {
				t.Errorf("a disabled device: %v, want %s", err, word)
			}
		})
	}
}

func TestNoKeepAlive(t *testing.T) {
	for _, off := range []bool{false, true} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				r := dialRaw(t, h)
				r.send(r.connectPacket(h, "dev1", 0xc2, 0, 100*24*time.Hour))
				r.want(connack)
				time.Sleep(1768 * time.Second)
				synctest.Wait()
				d, err := h.Device("dev1")
				if err != nil {
					t.Fatal(err)
				}
				if connected := d.ConnectionState == api.Connected; connected != off {
					t.Errorf("connected after 1768 s: %v", connected)
				}
			}, hubtest.WithConfig(func(c *hub.Config) { c.Unsettled.KeepAliveOff = off }))
		})
	}
}
