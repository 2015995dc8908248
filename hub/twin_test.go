package hub_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func TestTwinOfADevice(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	d.subscribe(twinRes)
	d.subscribe(desired)
	d.send(getTwin+"g1", " ")
	if got := d.receiveFrom("$iothub/twin/res/200/?$rid=g1"); got != `{"desired":{"$version":1},"reported":{"$version":1}}` {
		t.Errorf("a new twin is %s", got)
	}
	d.send(reportTwin+"p1", `{"a":{"b":1,"c":[1,{"d":2}]},"n":12345678901234.5}`)
	if got := d.receiveFrom("$iothub/twin/res/204/?$rid=p1&$version=2"); got != "" {
		t.Errorf("the answer has the body %q", got)
	}
	d.send(reportTwin+"p2", `{"a":{"b":null},"x":{"y":null,"z":true}}`)
	d.receiveFrom("$iothub/twin/res/204/?$rid=p2&$version=3")
	if _, err := h.PatchTwin("dev1", []byte(`{"tags":{"site":"north"},"properties":{"desired":{"interval":10,"gone":null}}}`)); err != nil {
		t.Fatal(err)
	}
	if got := d.receiveFrom("$iothub/twin/PATCH/properties/desired/?$version=2"); got != `{"$version":2,"gone":null,"interval":10}` {
		t.Errorf("pushed %s", got)
	}
	d.send(getTwin+"g2", "")
	want := `{"desired":{"$version":2,"interval":10},"reported":{"$version":3,"a":{"c":[1,{"d":2}]},"n":12345678901234.5,"x":{"z":true}}}`
	if got := d.receiveFrom("$iothub/twin/res/200/?$rid=g2"); got != want {
		t.Errorf("twin %s, want %s", got, want)
	}

	twin, err := h.Twin("dev1")
	if err != nil {
		t.Fatal(err)
	}
	meta := twin.Properties.Reported["$metadata"].(map[string]any)
	for _, path := range []string{"a", "x"} {
		if child, ok := meta[path].(map[string]any); !ok || child["$lastUpdated"] == nil {
			t.Errorf("$metadata of %s is %v", path, meta[path])
		}
	}
	if twin.Properties.Desired["$metadata"].(map[string]any)["interval"].(map[string]any)["$lastUpdatedVersion"] != json.Number("2") {
		t.Errorf("desired $metadata %v", twin.Properties.Desired["$metadata"])
	}
	if twin.Version != 5 || twin.Tags["site"] != "north" || twin.ConnectionState != api.Connected {
		t.Errorf("twin %+v", twin)
	}
	if _, err := h.ReplaceTwin("dev1", []byte(`{"properties":{"desired":{"$metadata":{},"$version":7,"new":1}}}`)); err != nil {
		t.Fatal(err)
	}
	if got := d.receiveFrom("$iothub/twin/PATCH/properties/desired/?$version=3"); got != `{"$version":3,"new":1}` {
		t.Errorf("pushed after a replacement: %s", got)
	}
}

func TestTwinRefusalsCarryAJSONBody(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	d.subscribe(twinRes)
	nested := strings.Repeat(`{"a":`, 11) + "{}" + strings.Repeat("}", 11)
	big := func() string {
		var parts []string
		for i := range 9 {
			parts = append(parts, fmt.Sprintf(`"k%d":%q`, i, strings.Repeat("x", 4000)))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}()
	tests := map[string]struct {
		body   string
		query  string
		status int
	}{
		"not JSON":             {"{", "", 400},
		"not an object":        {"[1]", "", 400},
		"two values":           {"{} {}", "", 400},
		"a dot in a key":       {`{"a.b":1}`, "", 400},
		"a dollar in a key":    {`{"$a":1}`, "", 400},
		"a space in a key":     {`{"a b":1}`, "", 400},
		"a control character":  {`{"a\u0085":1}`, "", 400},
		"a long key":           {`{"` + strings.Repeat("k", 1025) + `":1}`, "", 400},
		"a long string":        {`{"a":"` + strings.Repeat("v", 4097) + `"}`, "", 400},
		"a large integer":      {`{"a":4503599627370496}`, "", 400},
		"a small integer":      {`{"a":-4503599627370497}`, "", 400},
		"too deep":             {nested, "", 400},
		"more than 32 KiB":     {big, "", 400},
		"another version":      {`{"a":1}`, "&$version=9", 412},
		"largest integer":      {`{"a":4503599627370495}`, "", 204},
		"the version it is at": {`{"a":1}`, "&$version=", 204},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			twin, err := h.Twin("dev1")
			if err != nil {
				t.Fatal(err)
			}
			version := twin.Properties.Reported["$version"].(int64)
			query := tt.query
			if strings.HasSuffix(query, "=") {
				query += fmt.Sprint(version)
			}
			d.send(reportTwin+"r"+query, tt.body)
			if tt.status == 204 {
				d.receiveFrom(fmt.Sprintf("$iothub/twin/res/204/?$rid=r&$version=%d", version+1))
				return
			}
			body := object(t, d.receiveFrom(fmt.Sprintf("$iothub/twin/res/%d/?$rid=r", tt.status)))
			for _, key := range []string{"errorCode", "trackingId", "message", "timestampUtc"} {
				if body[key] == nil || body[key] == 0.0 {
					t.Errorf("%s is %v in %v", key, body[key], body)
				}
			}
		})
	}
}

func TestServiceSideOfATwin(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	c := newClient(t, h, "service")
	before, err := h.Twin("dev1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PatchTwin(t.Context(), "dev1", json.RawMessage(`{"tags":{"a":{"b":1,"c":2}},"properties":{"reported":{"mine":1}}}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PatchTwin(t.Context(), "dev1", json.RawMessage(`{"tags":{"a":{"b":null}}}`)); err != nil {
		t.Fatal(err)
	}
	after, err := h.Twin("dev1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"a": map[string]any{"c": json.Number("2")}}, after.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if after.Properties.Reported["mine"] != nil {
		t.Error("the service wrote reported")
	}
	if after.ETag == before.ETag || len(after.ETag) != 12 {
		t.Errorf("etag %q after %q", after.ETag, before.ETag)
	}
	if same, err := h.PatchTwin("dev1", []byte(`{"properties":{"reported":{"mine":1}}}`)); err != nil || same.ETag != after.ETag || same.Version != after.Version {
		t.Errorf("a patch that changes nothing: etag %s after %s, version %d after %d, %v", same.ETag, after.ETag, same.Version, after.Version, err)
	}
	for _, bad := range []string{`{"tags":[]}`, `{"properties":{"desired":7}}`, `{"tags":{"a":"` + strings.Repeat("x", 4097) + `"}}`, `[]`} {
		_, err := c.PatchTwin(t.Context(), "dev1", json.RawMessage(bad))
		if e, ok := errors.AsType[*api.Error](err); !ok || e.HTTPStatus != 400 {
			t.Errorf("patch %.40s: %v, want 400", bad, err)
		}
	}
	if _, err := c.Twin(t.Context(), "none"); err == nil {
		t.Error("a twin of nobody")
	}
}

func TestLimitsOfTheServicesPartOfATwin(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	c := newClient(t, h, "service")
	many := func(n int) string { // n times 4 KiB, and a little for the keys
		var parts []string
		for i := range n {
			parts = append(parts, fmt.Sprintf(`"k%d":%q`, i, strings.Repeat("x", 4090)))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	for name, tt := range map[string]struct {
		patch string
		ok    bool
	}{
		"tags of 8 KiB":                 {`{"tags":` + many(2) + `}`, true},
		"tags of 12 KiB":                {`{"tags":` + many(3) + `}`, false},
		"desired of 32 KiB":             {`{"properties":{"desired":` + many(8) + `}}`, true},
		"desired of 36 KiB":             {`{"properties":{"desired":` + many(9) + `}}`, false},
		"a dollar in a key of tags":     {`{"tags":{"$a":1}}`, false},
		"an integer that is too large":  {`{"properties":{"desired":{"n":4503599627370496}}}`, false},
		"an array, a null in an object": {`{"tags":{"k0":null,"k1":null,"list":[1,{"a":"b"}],"new":{"gone":null,"here":1}}}`, true},
	} {
		_, err := c.ReplaceTwin(t.Context(), "dev1", json.RawMessage(tt.patch))
		if e, refused := errors.AsType[*api.Error](err); (err == nil) != tt.ok || err != nil && (!refused || e.HTTPStatus != 400) {
			t.Errorf("%s: %v, want it taken: %v", name, err, tt.ok)
		}
	}
	if _, err := c.ReplaceTwin(t.Context(), "dev1", json.RawMessage(`{"tags":{"new":{"gone":null,"here":[1]}}}`)); err != nil {
		t.Fatal(err)
	}
	twin, err := h.Twin("dev1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"new": map[string]any{"here": []any{json.Number("1")}}}, twin.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
}

// answering makes the device answer direct methods.
func answering(d *device, status int, body string) {
	d.wait(d.Subscribe(methods, 1, func(c mqtt.Client, m mqtt.Message) {
		if m.Qos() != 0 {
			d.t.Errorf("the call came with QoS %d", m.Qos())
		}
		_, rid, _ := strings.Cut(m.Topic(), "$rid=")
		c.Publish(fmt.Sprintf("$iothub/methods/res/%d/?$rid=never-asked", status), 1, false, body)
		c.Publish(fmt.Sprintf("$iothub/methods/res/%d/?$rid=%s", status, rid), 1, false, body)
	}), "subscribe")
}

func TestDirectMethod(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	_, err := h.InvokeMethod(t.Context(), "dev1", "m", nil)
	wantCode(t, err, api.CodeNotOnline)
	d := connect(t, h, options{id: "dev1"})
	_, err = h.InvokeMethod(t.Context(), "dev1", "m", nil)
	wantCode(t, err, api.CodeNotOnline)
	answering(d, 207, `{"done":true}`)
	c := newClient(t, h, "service")
	got, err := c.InvokeMethod(t.Context(), "dev1", api.MethodRequest{MethodName: "set point", Payload: json.RawMessage(`{"v":1}`)})
	if err != nil || got.Status != 207 || string(got.Payload) != `{"done":true}` {
		t.Errorf("answer %+v, %v", got, err)
	}
	h.WaitCounters("dev1", func(c api.Counters) bool { return c.MethodsAnswered == 1 && c.MethodResponsesLate == 1 })
	answering(d, 200, "")
	if got, err := h.InvokeMethod(t.Context(), "dev1", "m", nil); err != nil || string(got.Payload) != "null" {
		t.Errorf("answer without a body: %+v, %v", got, err)
	}
	_, err = h.CallMethod(t.Context(), "dev1", api.MethodRequest{MethodName: "m", Payload: json.RawMessage(`"` + strings.Repeat("x", 128<<10) + `"`)})
	wantCode(t, err, api.CodeArgumentInvalid)
}

func TestMethodWaitsForTheDevice(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	wait := 60
	answered := make(chan error)
	go func() {
		got, err := h.CallMethod(t.Context(), "dev1", api.MethodRequest{MethodName: "m", ConnectTimeoutInSeconds: &wait})
		if err == nil && got.Status != 200 {
			err = fmt.Errorf("status %d", got.Status)
		}
		answered <- err
	}()
	d := connect(t, h, options{id: "dev1"})
	answering(d, 200, "{}")
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
