package hub_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func TestEvents(t *testing.T) {
	h := hubtest.Start(t, hubtest.WithDir(t.TempDir()), hubtest.WithConfig(func(c *hub.Config) {
		c.Events, c.Hostnames = api.EventSources(), []string{"myhub.azure-devices.net"}
	}))
	h.AddDevice("dev1")
	h.AddDevice("dev1/mod")
	d := connect(t, h, options{id: "dev1", clean: true})
	d.subscribe(twinRes)
	d.telemetry("", "hello")
	d.send(reportTwin+"1", `{"a":{"b":1},"gone":null}`)
	d.receiveFrom("$iothub/twin/res/204/?$rid=1&$version=2")
	if _, err := h.PatchTwin("dev1", []byte(`{"tags":{"site":"north"},"properties":{"desired":{"c":2}}}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ReplaceTwin("dev1/mod", []byte(`{"tags":{"x":1}}`)); err != nil {
		t.Fatal(err)
	}
	d.Disconnect(0)
	h.WaitConnected("dev1", false)
	if err := h.DeleteDevice("dev1/mod"); err != nil {
		t.Fatal(err)
	}

	var got []string
	var sequence []string
	bodies := map[string]map[string]any{}
	c := newClient(t, h, "service")
	if err := c.Monitor(t.Context(), api.MessageFilter{Source: api.SourceAll, From: 1}, false, func(m api.Message) error {
		got = append(got, strings.TrimSpace(m.DeviceID+"/"+m.ModuleID+" "+m.System["iothub-message-source"]+" "+m.Properties["iothub-message-schema"]+" "+m.Properties["opType"]))
		if m.System["iothub-message-source"] == api.SourceTelemetry {
			return nil
		}
		for name, want := range map[string]string{
			"content-type": "application/json", "content-encoding": "utf-8", "user-id": "myhub", "iothub-connection-device-id": m.DeviceID,
			"iothub-connection-auth-method": "", "iothub-connection-module-id": m.ModuleID,
		} {
			if m.System[name] != want {
				t.Errorf("%s is %q, want %q", name, m.System[name], want)
			}
		}
		if m.System["correlation-id"] == "" || m.Properties["hubName"] != "myhub" || m.Properties["deviceId"] != m.DeviceID || m.Properties["operationTimestamp"] == "" {
			t.Errorf("event %+v", m)
		}
		body := object(t, string(m.Body))
		bodies[m.DeviceID+"/"+m.ModuleID+" "+m.Properties["opType"]] = body
		if n, ok := body["sequenceNumber"].(string); ok {
			sequence = append(sequence, n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"dev1/ deviceLifecycleEvents deviceLifecycleNotification createDeviceIdentity",
		"dev1/mod deviceLifecycleEvents moduleLifecycleNotification createModuleIdentity",
		"dev1/ deviceConnectionStateEvents deviceConnectionStateNotification deviceConnected",
		"dev1/ Telemetry",
		"dev1/ twinChangeEvents twinChangeNotification updateTwin",
		"dev1/ twinChangeEvents twinChangeNotification updateTwin",
		"dev1/mod twinChangeEvents twinChangeNotification replaceTwin",
		"dev1/ deviceConnectionStateEvents deviceConnectionStateNotification deviceDisconnected",
		"dev1/mod deviceLifecycleEvents moduleLifecycleNotification deleteModuleIdentity",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(sequence) != 2 || len(sequence[0]) != 64 || sequence[0] >= sequence[1] {
		t.Errorf("sequence numbers %v", sequence)
	}
	update := bodies["dev1/ updateTwin"]
	changed := update["properties"].(map[string]any)["desired"].(map[string]any)
	meta := changed["$metadata"].(map[string]any)
	if update["version"] != 4.0 || update["tags"].(map[string]any)["site"] != "north" || changed["c"] != 2.0 || changed["$version"] != 2.0 ||
		meta["$lastUpdatedVersion"] != 2.0 || meta["c"].(map[string]any)["$lastUpdated"] == "" {
		t.Errorf("update %v", update)
	}
	if replaced := bodies["dev1/mod replaceTwin"]; replaced["moduleId"] != "mod" || replaced["etag"] == "" || replaced["tags"].(map[string]any)["x"] != 1.0 {
		t.Errorf("replace %v", replaced)
	}

	// # one source alone, telemetry by default
	for source, n := range map[string]int{"": 1, api.SourceTelemetry: 1, api.SourceTwinChanges: 3, api.SourceConnections: 2, api.SourceLifecycle: 3} {
		all, err := h.Telemetry(api.MessageFilter{Source: source})
		if err != nil || len(all) != n {
			t.Errorf("%s: %d messages, %v; want %d", source, len(all), err, n)
		}
	}
	err := c.Monitor(t.Context(), api.MessageFilter{Source: "gossip"}, false, func(api.Message) error { return nil })
	if e, ok := err.(interface{ Unwrap() error }); !ok || !strings.Contains(err.Error(), "twinChangeEvents") {
		t.Errorf("an unknown source: %v", e)
	}
	if _, err := hub.New(hub.Config{Events: []string{"gossip"}}); err == nil {
		t.Error("a hub that tells gossip")
	}
}

// Without being asked the hub tells nothing but telemetry, as one without routes.
func TestNoEventsUnlessAsked(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	if _, err := h.PatchTwin("dev1", []byte(`{"tags":{"a":1}}`)); err != nil {
		t.Fatal(err)
	}
	all, err := h.Telemetry(api.MessageFilter{Source: api.SourceAll})
	if err != nil || len(all) != 0 {
		text, _ := json.Marshal(all)
		t.Errorf("events %s, %v", text, err)
	}
}
