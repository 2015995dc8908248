package live

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
)

// step is a part of the suite.
type step struct {
	name string
	run  func(t *testing.T, h *hub)
}

// steps is the suite: first what must hold, then what is asked.
func steps() []step {
	return []step{
		{"a device with a key", func(t *testing.T, h *hub) { withKey(t, h, "") }},
		{"a module with a key", func(t *testing.T, h *hub) { withKey(t, h, "m1") }},
		{"a device with a ready token", withToken},
		{"a device with a certificate", withCertificate},
		{"a device that is provisioned by its group's key", withGroupKey},
		{"three renewals", renewals},
		{"which CONNACK a refusal has", refusals},
		{"how long a session outlives its token", grace},
		{"what a patch does to the etag", etag},
		{"what a service may write", reportedByService},
		{"how many methods at once", methods},
		{"what becomes of RETAIN", retain},
		{"which TLS", tlsVersions},
	}
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// everything goes through all that a device (or module) has of a hub.
func everything(t *testing.T, h *hub, c *device.Client) {
	ctx, id := limited(t), c.Identity()
	c.HandleMethod("double", func(_ context.Context, p json.RawMessage) (int, any, error) {
		var n int
		if err := json.Unmarshal(p, &n); err != nil {
			return 400, nil, err
		}
		return 200, 2 * n, nil
	})
	desired := make(chan device.Desired, 10)
	c.HandleDesired(func(_ context.Context, d device.Desired) error {
		desired <- d
		return nil
	})
	if err := c.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		m := &device.Message{Payload: fmt.Appendf(nil, `{"n":%d}`, i), ContentType: "application/json", ContentEncoding: "utf-8", Properties: map[string]string{"run": "a/b ü"}}
		if err := c.Send(ctx, m); err != nil {
			t.Fatalf("send %d: %v", i, err)
		}
	}
	saw(t, "10 messages acknowledged; az iot hub monitor-events -n %s -d %s shows them", strings.SplitN(h.hostname, ".", 2)[0], id.DeviceID)
	version, err := c.PatchReported(ctx, map[string]any{"fw": "1.2"})
	if err != nil {
		t.Fatal(err)
	}
	twin, err := c.GetTwin(ctx)
	if err != nil || !strings.Contains(string(twin.Reported), `"fw":"1.2"`) {
		t.Fatalf("reported version %d, twin %s, %v", version, twin.Reported, err)
	}
	if _, err := h.PatchTwin(ctx, id.ClientID(), json.RawMessage(`{"properties":{"desired":{"interval":30}}}`)); err != nil {
		t.Fatal(err)
	}
	for found := false; !found; {
		select {
		case d := <-desired:
			found = strings.Contains(string(d.Document), `"interval":30`)
		case <-ctx.Done():
			t.Fatal("the desired change does not arrive")
		}
	}
	wait := 30
	r, err := h.InvokeMethod(ctx, id.ClientID(), api.MethodRequest{MethodName: "double", Payload: json.RawMessage("21"), ConnectTimeoutInSeconds: &wait, ResponseTimeoutInSeconds: &wait})
	if err != nil || r.Status != 200 || string(r.Payload) != "42" {
		t.Errorf("method answered %d %s, %v", r.Status, r.Payload, err)
	}
	_, err = c.PatchReported(ctx, map[string]string{"long": strings.Repeat("x", 5000)})
	if e, ok := errors.AsType[*device.Error](err); !errors.Is(err, device.ErrService) || !ok || e.Status != 400 {
		t.Errorf("a report that the hub refuses: %v", err)
	} else {
		saw(t, "a value of 5000 bytes is refused: %v; tracking id %s", err, e.TrackingID)
	}
}

// renewals has a token of 20 s renewed under load.
func renewals(t *testing.T, h *hub) {
	ctx := limited(t)
	id, key := h.add(t, "")
	c := h.client(t, id, key, func(o *device.Options) { o.SASTokenTTL = 20 * time.Second })
	defer c.OnBackgroundError(func(err error) { t.Errorf("background error: %v", err) })()
	var longest time.Duration
	for n := 0; ; n++ {
		began := time.Now()
		if err := c.Send(ctx, &device.Message{Payload: []byte(fmt.Sprint(n))}); err != nil {
			t.Fatalf("send %d: %v", n, err)
		}
		if n > 0 { // the first one connects
			longest = max(longest, time.Since(began))
		}
		s, err := c.Engine().Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.Machine.Counters.Renewals >= 3 {
			if s.Machine.Counters.Losses != 0 {
				t.Errorf("%d losses", s.Machine.Counters.Losses)
			}
			saw(t, "3 renewals, %d messages, none lost, the longest took %v", n+1, longest.Round(time.Millisecond))
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("no three renewals")
		}
	}
}

// refusals asks which code each reason has, and checks that the client tells what it can.
func refusals(t *testing.T, h *hub) {
	ctx := limited(t)
	id, key := h.add(t, "")
	inAnHour := time.Now().Add(time.Hour)
	if code, err := h.dialRaw(t).connect(t, id, key, inAnHour); err != nil || code != 0 {
		t.Fatalf("the right token: code %d, %v", code, err)
	}
	unknown := id
	unknown.DeviceID += "-unknown"
	wrongKey := core.Secret("d3Jvbmcga2V5IHdyb25nIGtleSB3cm9uZyBrZXkhISE=")
	for _, c := range []struct {
		why    string
		id     core.Identity
		key    core.Secret
		expiry time.Time
	}{
		{"a wrong key", id, wrongKey, inAnHour},
		{"an unknown device", unknown, key, inAnHour},
		{"a token that ended an hour ago", id, key, time.Now().Add(-time.Hour)},
	} {
		code, err := h.dialRaw(t).connect(t, c.id, c.key, c.expiry)
		if err == nil && code == 0 {
			t.Errorf("%s is let in", c.why)
		}
		saw(t, "%s: %s", c.why, answered(code, err))
	}
	refused := h.client(t, id, wrongKey, func(o *device.Options) { o.ConnectionRetry = false })
	if err := refused.Connect(ctx); !errors.Is(err, device.ErrCredential) {
		t.Errorf("a wrong key: %v", err)
	}
	d, err := h.Device(ctx, id.DeviceID)
	if err != nil {
		t.Fatal(err)
	}
	d.Status = "disabled"
	if _, err := h.UpdateDevice(ctx, d); err != nil {
		t.Fatal(err)
	}
	code, err := h.dialRaw(t).connect(t, id, key, inAnHour)
	if err == nil && code == 0 {
		t.Error("a disabled device is let in")
	}
	saw(t, "a disabled device: %s", answered(code, err))
}

// answered says how a hub answered CONNECT.
func answered(code byte, err error) string {
	if err != nil {
		return fmt.Sprintf("no CONNACK: %v", err)
	}
	return fmt.Sprintf("CONNACK %d", code)
}

// grace asks when the hub ends a session whose token has ended.
func grace(t *testing.T, h *hub) {
	id, key := h.add(t, "")
	r := h.dialRaw(t)
	end := time.Now().Add(20 * time.Second)
	if code, err := r.connect(t, id, key, end); err != nil || code != 0 {
		t.Fatalf("code %d, %v", code, err)
	}
	limit := end.Add(h.patience)
	for {
		if err := packets.NewControlPacket(packets.Pingreq).Write(r); err != nil {
			break
		}
		if err := r.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := packets.ReadPacket(r); err != nil {
			break
		}
		if time.Now().After(limit) {
			saw(t, "a session goes on for %v after its token's end, and perhaps longer: set FAIRLEAD_LIVE_PATIENCE=20m", h.patience)
			return
		}
		select {
		case <-time.After(2 * time.Second):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
	saw(t, "a session ends %v after its token (looked at every 2 s)", time.Since(end).Round(time.Second))
}

func (h *hub) etagOf(t *testing.T, id core.Identity) string {
	t.Helper()
	text, err := h.Twin(t.Context(), id.ClientID())
	if err != nil {
		t.Fatal(err)
	}
	var twin struct {
		ETag string `json:"etag"`
	}
	if err := json.Unmarshal(text, &twin); err != nil || twin.ETag == "" {
		t.Fatalf("twin %s: %v", text, err)
	}
	return twin.ETag
}

func etag(t *testing.T, h *hub) {
	ctx := limited(t)
	id, key := h.add(t, "")
	c := h.client(t, id, key, unchanged)
	before := h.etagOf(t, id)
	if _, err := c.PatchReported(ctx, map[string]int{"a": 1}); err != nil {
		t.Fatal(err)
	}
	reported := h.etagOf(t, id)
	if _, err := h.PatchTwin(ctx, id.DeviceID, json.RawMessage(`{"properties":{"desired":{"a":1}}}`)); err != nil {
		t.Fatal(err)
	}
	desired := h.etagOf(t, id)
	if desired == reported {
		t.Error("the etag stays the same when desired properties change")
	}
	saw(t, "reported properties change the etag: %v (%s, %s, then by desired %s)", before != reported, before, reported, desired)
}

func reportedByService(t *testing.T, h *hub) {
	ctx := limited(t)
	id, _ := h.add(t, "")
	_, err := h.PatchTwin(ctx, id.DeviceID, json.RawMessage(`{"properties":{"reported":{"by":"service"}}}`))
	text, getErr := h.Twin(ctx, id.DeviceID)
	if getErr != nil {
		t.Fatal(getErr)
	}
	if strings.Contains(string(text), `"by"`) {
		t.Error("a service writes reported properties")
	}
	if err == nil {
		saw(t, "a service's patch of reported properties is accepted, and has no effect")
	} else {
		saw(t, "a service's patch of reported properties is refused: %v", err)
	}
}

// methods asks how many calls may wait for one device.
func methods(t *testing.T, h *hub) {
	ctx := limited(t)
	id, key := h.add(t, "")
	c := h.client(t, id, key, unchanged)
	release := make(chan struct{})
	c.HandleMethodRequests(func(r *device.MethodRequest) {
		<-release
		_ = r.Respond(200, nil) // one that comes too late has been counted by its caller
	})
	if err := c.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	const calls = 60
	var mu sync.Mutex
	outcomes := map[string]int{}
	var work sync.WaitGroup
	limit := 20
	for range calls {
		work.Go(func() {
			_, err := h.InvokeMethod(ctx, id.DeviceID, api.MethodRequest{MethodName: "wait", ConnectTimeoutInSeconds: &limit, ResponseTimeoutInSeconds: &limit})
			outcome := "answered"
			if e, ok := errors.AsType[*api.Error](err); ok {
				outcome = fmt.Sprint(e.Code)
			} else if err != nil {
				outcome = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			outcomes[outcome]++
		})
	}
	select {
	case <-time.After(5 * time.Second): // all are on their way
	case <-ctx.Done():
	}
	close(release)
	work.Wait()
	if outcomes["answered"] == 0 {
		t.Errorf("of %d calls none was answered: %v", calls, outcomes)
	}
	saw(t, "%d calls of one device at once: %v", calls, outcomes)
}

// retain sends what a hub does not keep. What it makes of it can be seen by who reads the telemetry.
func retain(t *testing.T, h *hub) {
	id, key := h.add(t, "")
	r := h.dialRaw(t)
	if code, err := r.connect(t, id, key, time.Now().Add(time.Hour)); err != nil || code != 0 {
		t.Fatalf("code %d, %v", code, err)
	}
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.Retain, p.MessageID = "devices/"+id.DeviceID+"/messages/events/", []byte("retained"), 1, true, 1
	if err := p.Write(r); err != nil {
		t.Fatal(err)
	}
	answer, err := packets.ReadPacket(r)
	if err != nil {
		t.Fatalf("a message with RETAIN: %v", err)
	}
	if ack, ok := answer.(*packets.PubackPacket); !ok || ack.MessageID != 1 {
		t.Fatalf("a message with RETAIN: %v", answer)
	}
	seen := false
	err = h.Monitor(t.Context(), api.MessageFilter{Device: id.DeviceID, Since: time.Now().Add(-time.Hour)}, false, func(m api.Message) error {
		seen = true
		saw(t, "RETAIN becomes the property mqtt-retain=%q", m.Properties["mqtt-retain"])
		return nil
	})
	if err != nil || !seen {
		saw(t, "this hub's telemetry is not read over HTTPS (%v): look for mqtt-retain with az iot hub monitor-events -d %s --properties all", err, id.DeviceID)
	}
}

func tlsVersions(t *testing.T, h *hub) {
	state := h.dialRaw(t).ConnectionState()
	if state.Version < tls.VersionTLS12 {
		t.Errorf("the hub speaks %s", tls.VersionName(state.Version))
	}
	saw(t, "MQTT by %s with %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite))
}
