//go:build interop

package interop_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// registry calls a method of the SDK's Registry and decodes what it gave.
func registry[T any](s *nodeScript, method string, arguments ...any) T {
	s.t.Helper()
	if arguments == nil {
		arguments = []any{}
	}
	var out T
	text := s.must("registry", map[string]any{"method": method, "arguments": arguments})
	if err := json.Unmarshal(text, &out); err != nil {
		s.t.Fatalf("%s gave %s: %v", method, text, err)
	}
	return out
}

// registryRefused wants the SDK to fail with an error of that name.
func registryRefused(s *nodeScript, name, method string, arguments ...any) {
	s.t.Helper()
	if _, err := s.do("registry", map[string]any{"method": method, "arguments": arguments}); err == nil || !strings.Contains(err.Error(), name) {
		s.t.Errorf("%s: %v, want %s", method, err, name)
	}
}

type object = map[string]any

// checkNodeRegistry goes through what Microsoft's service SDK has of the registry: what it saw, and what the hub has of it.
func checkNodeRegistry(t *testing.T, h *hubtest.Hub, s *nodeScript) {
	seen := func(id string) api.Device {
		t.Helper()
		d, err := h.Device(id)
		if err != nil {
			t.Fatalf("the hub: %v", err)
		}
		return d
	}
	gone := func(id string) {
		t.Helper()
		if d, err := h.Device(id); err == nil {
			t.Errorf("the hub still has %+v", d)
		}
	}

	// # create, get, update, list
	made := registry[api.Device](s, "create", object{"deviceId": "made"})
	if key := made.Authentication.SymmetricKey.PrimaryKey; key == "" || key != seen("made").Authentication.SymmetricKey.PrimaryKey {
		t.Errorf("key %q, the hub has another", key)
	}
	registryRefused(s, "DeviceAlreadyExistsError", "create", object{"deviceId": "made"})
	registryRefused(s, "DeviceNotFoundError", "get", "none")
	registryRefused(s, "DeviceNotFoundError", "update", object{"deviceId": "none", "status": "enabled"})
	registryRefused(s, "ArgumentError", "create", object{"deviceId": "a b"})
	if got := registry[api.Device](s, "get", "made"); got.ETag != seen("made").ETag || got.GenerationID != made.GenerationID {
		t.Errorf("got %+v", got)
	}
	updated := registry[api.Device](s, "update", object{"deviceId": "made", "status": "disabled", "statusReason": "test"})
	if d := seen("made"); updated.Status != api.Disabled || d.Status != api.Disabled || d.StatusReason == nil || *d.StatusReason != "test" || d.Authentication.SymmetricKey != made.Authentication.SymmetricKey {
		t.Errorf("updated to %+v, the hub has %+v", updated, d)
	}
	print1, print2 := strings.Repeat("AB", 20), strings.Repeat("CD", 20)
	registry[api.Device](s, "create", object{"deviceId": "cert", "authentication": object{"type": "selfSigned", "x509Thumbprint": object{"primaryThumbprint": print1, "secondaryThumbprint": print2}}})
	if a := seen("cert").Authentication; a.Type != api.AuthSelfSigned || *a.X509Thumbprint.PrimaryThumbprint != print1 || *a.X509Thumbprint.SecondaryThumbprint != print2 {
		t.Errorf("the hub has %+v", a)
	}
	var listed []string
	for _, d := range registry[[]api.Device](s, "list") {
		listed = append(listed, d.DeviceID)
	}
	if diff := cmp.Diff([]string{"cert", "made", "node"}, listed); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}

	// # modules
	registry[api.Device](s, "addModule", object{"deviceId": "made", "moduleId": "m1"})
	registry[api.Device](s, "addModule", object{"deviceId": "made", "moduleId": "m2"})
	registryRefused(s, "DeviceAlreadyExistsError", "addModule", object{"deviceId": "made", "moduleId": "m1"})
	registryRefused(s, "Error", "getModule", "made", "none")
	if got := registry[[]api.Device](s, "getModulesOnDevice", "made"); len(got) != 2 || got[1].ModuleID != "m2" || got[1].ETag != seen("made/m2").ETag {
		t.Errorf("modules %+v", got)
	}
	module := registry[api.Device](s, "getModule", "made", "m1")
	module.ManagedBy = "someone"
	registryRefused(s, "InvalidEtagError", "updateModule", object{"deviceId": "made", "moduleId": "m1", "etag": "wrong", "managedBy": "x"}, false)
	if got := registry[api.Device](s, "updateModule", module, true); got.ManagedBy != "someone" || seen("made/m1").ManagedBy != "someone" {
		t.Errorf("updated %+v", got)
	}
	registry[any](s, "removeModule", "made", "m2")
	gone("made/m2")

	// # bulk
	type bulk struct {
		IsSuccessful bool `json:"isSuccessful"`
	}
	many := []object{{"deviceId": "b1"}, {"deviceId": "b2"}, {"deviceId": "b3"}}
	if r := registry[bulk](s, "addDevices", many); !r.IsSuccessful || seen("b3").Authentication.SymmetricKey.PrimaryKey == "" {
		t.Errorf("add: %+v", r)
	}
	registryRefused(s, "ArgumentError", "addDevices", many)
	for _, d := range many {
		d["status"] = "disabled"
	}
	if r := registry[bulk](s, "updateDevices", many, true); !r.IsSuccessful || seen("b2").Status != api.Disabled {
		t.Errorf("update: %+v, the hub has %+v", r, seen("b2"))
	}
	if r := registry[object](s, "getRegistryStatistics"); r["totalDeviceCount"] != 6.0 || r["disabledDeviceCount"] != 4.0 || h.Statistics().TotalDeviceCount != 6 {
		t.Errorf("statistics %v", r)
	}
	many[0]["etag"] = "wrong"
	registryRefused(s, "ArgumentError", "removeDevices", many[:1], false)
	if r := registry[bulk](s, "removeDevices", many, true); !r.IsSuccessful {
		t.Errorf("remove: %+v", r)
	}
	gone("b1")

	// # delete takes the modules with it
	registry[any](s, "delete", "made")
	registry[any](s, "delete", "cert")
	gone("made")
	gone("made/m1")
	registryRefused(s, "DeviceNotFoundError", "delete", "made")
}

// checkNodeTwins goes through twins and queries.
func checkNodeTwins(t *testing.T, h *hubtest.Hub, s *nodeScript) {
	twin := registry[object](s, "getTwin", "node")
	patched := registry[api.Twin](s, "updateTwin", "node", object{"tags": object{"site": "north", "gone": 1}, "properties": object{"desired": object{"interval": 7}}}, twin["etag"])
	seen, err := h.Twin("node")
	if err != nil {
		t.Fatal(err)
	}
	if patched.ETag != seen.ETag || seen.Tags["site"] != "north" || fmt.Sprint(seen.Properties.Desired["interval"]) != "7" {
		t.Errorf("patched to %+v, the hub has %+v", patched, seen)
	}
	registryRefused(s, "InvalidEtagError", "updateTwin", "node", object{"tags": object{"site": "south"}}, twin["etag"])
	registryRefused(s, "DeviceNotFoundError", "getTwin", "none")
	registry[object](s, "updateTwin", "node", object{"tags": object{"gone": nil}}, "*")
	if seen, _ = h.Twin("node"); seen.Tags["gone"] != nil || seen.Tags["site"] != "north" {
		t.Errorf("tags %v", seen.Tags)
	}
	h.AddDevice("node/mod")
	registry[object](s, "updateModuleTwin", "node", "mod", object{"properties": object{"desired": object{"a": object{"b": 1}}}}, "*")
	if got := registry[api.Twin](s, "getModuleTwin", "node", "mod"); got.ModuleID != "mod" || fmt.Sprint(got.Properties.Desired["a"]) != "map[b:1]" {
		t.Errorf("module twin %+v", got)
	}
	if seen, err = h.Twin("node/mod"); err != nil || fmt.Sprint(seen.Properties.Desired["a"]) != "map[b:1]" {
		t.Errorf("the hub has %+v, %v", seen.Properties.Desired, err)
	}

	// # queries with pages
	for i := range 5 {
		id := fmt.Sprintf("q%d", i)
		h.AddDevice(id)
		if _, err := h.PatchTwin(id, fmt.Appendf(nil, `{"tags":{"n":%d,"site":"south"}}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	query := func(text string, size int, twins bool) (pages [][]object) {
		t.Helper()
		if err := json.Unmarshal(s.must("query", map[string]any{"text": text, "size": size, "twins": twins}), &pages); err != nil {
			t.Fatal(err)
		}
		return pages
	}
	var ids []string
	pages := query("SELECT * FROM devices WHERE tags.site = 'south' AND tags.n > 0", 3, true)
	for _, p := range pages {
		for _, twin := range p {
			ids = append(ids, twin["deviceId"].(string))
		}
	}
	if diff := cmp.Diff([]string{"q1", "q2", "q3", "q4"}, ids); diff != "" || len(pages) != 2 {
		t.Errorf("%d pages (-want +got):\n%s", len(pages), diff)
	}
	if diff := cmp.Diff([][]object{{{"site": "north", "n": 1.0}, {"site": "south", "n": 5.0}}}, query("SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site", 10, false)); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][]object{{{"moduleId": "mod"}}}, query("SELECT moduleId FROM devices.modules WHERE deviceId = 'node'", 10, false)); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	if _, err := s.do("query", map[string]any{"text": "SELECT"}); err == nil || !strings.Contains(err.Error(), "ArgumentError") {
		t.Errorf("a bad query: %v", err)
	}
}

// checkNodeMethods calls the device "node", which answers the method "read" with 207.
func checkNodeMethods(t *testing.T, h *hubtest.Hub, s *nodeScript) {
	before, err := h.Counters("node")
	if err != nil {
		t.Fatal(err)
	}
	invoke := func(device, name string) (json.RawMessage, error) {
		return s.do("invoke", map[string]any{"device": device, "parameters": object{"methodName": name, "payload": object{"a": 1}, "responseTimeoutInSeconds": 5}})
	}
	if got, err := invoke("node", "read"); err != nil || string(got) != `{"status":207,"payload":{"name":"read","echo":{"a":1}}}` {
		t.Errorf("read gave %s, %v", got, err)
	}
	if _, err := invoke("q0", "read"); err == nil || !strings.Contains(err.Error(), "Not found") {
		t.Errorf("a device that is not there: %v", err)
	}
	if _, err := s.do("invoke", map[string]any{"device": "node", "parameters": object{"methodName": "read", "responseTimeoutInSeconds": 4}}); err == nil || !strings.Contains(err.Error(), "ArgumentError") {
		t.Errorf("a timeout out of bounds: %v", err)
	}
	h.Fault(api.Fault{Name: api.FaultMethodBlackHole, Device: "node", Count: 1})
	start := time.Now()
	if _, err := invoke("node", "read"); err == nil || !strings.Contains(err.Error(), "GatewayTimeoutError") || time.Since(start) < 5*time.Second {
		t.Errorf("a device that does not answer: %v after %v", err, time.Since(start))
	}
	h.WaitCounters("node", func(c api.Counters) bool {
		return c.MethodsSent == before.MethodsSent+2 && c.MethodsAnswered == before.MethodsAnswered+1 && c.MethodsTimedOut == before.MethodsTimedOut+1
	})
}
