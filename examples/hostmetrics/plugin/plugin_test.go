package plugin_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/examples/hostmetrics/plugin"
	"github.com/fairlead-iot/fairlead/plugins/sdk"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

func decode(t *testing.T, b []byte) plugin.Snapshot {
	t.Helper()
	var s plugin.Snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return s
}

func TestItSendsFiguresOfThisMachine(t *testing.T) {
	h := sdktest.Start(t, plugin.New(), sdktest.Config{Settings: map[string]any{"interval": "1h", "disks": []string{t.TempDir()}}})
	m := h.WaitSent(1)[0]
	s := decode(t, m.Payload)
	if s.CPU == nil || s.CPU.Cores < 1 || s.CPU.Percent < 0 || s.CPU.Percent > 100 {
		t.Errorf("cpu: %+v", s.CPU)
	}
	if s.Memory == nil || s.Memory.TotalBytes == 0 || s.Memory.AvailableBytes > s.Memory.TotalBytes {
		t.Errorf("memory: %+v", s.Memory)
	}
	if len(s.Disks) != 1 || s.Disks[0].TotalBytes == 0 {
		t.Errorf("disks: %+v", s.Disks)
	}
	if s.Network == nil {
		t.Error("no network")
	}
	if m.ContentType != "application/json" || m.CreationTime.IsZero() {
		t.Errorf("message %+v", m)
	}
}

func TestMethodsAndMessages(t *testing.T) {
	h := sdktest.Start(t, plugin.New(), sdktest.Config{Settings: map[string]any{"interval": "1h"}})
	if status, answer := h.Method("ping", nil); status != 200 || !strings.Contains(string(answer), `"pong":true`) {
		t.Errorf("ping: %d %s", status, answer)
	}
	status, answer := h.Method("snapshot", nil)
	if s := decode(t, answer); status != 200 || s.Memory == nil || s.CPU == nil {
		t.Errorf("snapshot: %d %s", status, answer)
	}
	h.WaitSent(1)
	if v := h.Message(&sdk.Message{Properties: map[string]string{"command": "snapshot"}}); v != core.Complete {
		t.Errorf("verdict %s", v)
	}
	h.WaitSent(2)
}

func TestDesiredPropertiesChangeItAndAreConfirmed(t *testing.T) {
	h := sdktest.Start(t, plugin.New(), sdktest.Config{Settings: map[string]any{"interval": "1h"}})
	h.WaitSent(1)
	all := []any{"cpu", "memory", "disks", "network", "temperature"}
	steps := []struct {
		name    string
		desired string
		want    map[string]any
	}{
		{name: "nothing is desired", desired: `{}`, want: map[string]any{"interval": "1h0m0s", "select": all}},
		{
			name: "all is good", desired: `{"hostmetrics":{"interval":"2s","select":["memory"]}}`,
			want: map[string]any{"interval": "2s", "select": []any{"memory"}},
		},
		{
			name: "some is bad", desired: `{"hostmetrics":{"interval":"1ms","select":["cpu","fan"],"color":"red"}}`,
			want: map[string]any{"interval": "1h0m0s", "select": all, "refused": []any{
				refused("color", "there is no such property: choose from interval, select"),
				refused("interval", "1ms is not between 1s and 24h0m0s"),
				refused("select", `there is no "fan": choose from cpu, memory, disks, network, temperature`),
			}},
		},
		{
			name: "less is bad", desired: `{"hostmetrics":{"interval":5,"select":["cpu"]}}`,
			want: map[string]any{"interval": "1h0m0s", "select": []any{"cpu"}, "refused": []any{
				refused("interval", `5 is no duration such as "5s"`),
			}},
		},
		{name: "nothing is an object", desired: `{"hostmetrics":"fast"}`, want: map[string]any{"interval": "1h0m0s", "select": all, "refused": []any{
			refused("hostmetrics", "hostmetrics is no object"),
		}}},
		{
			name: "all is good again", desired: `{"hostmetrics":{"interval":"2h","select":["cpu"]}}`,
			want: map[string]any{"interval": "2h0m0s", "select": []any{"cpu"}},
		},
	}
	for i, step := range steps {
		version := int64(i + 1)
		if status := h.Desired(version, json.RawMessage(step.desired)); status != 200 {
			t.Errorf("%s: status %d\n%s", step.name, status, h.Logs())
		}
		var reported struct {
			Hostmetrics map[string]any `json:"hostmetrics"`
		}
		if err := json.Unmarshal(h.Device.Reported(), &reported); err != nil {
			t.Fatal(err)
		}
		step.want["version"] = float64(version)
		if diff := cmp.Diff(step.want, reported.Hostmetrics); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
	n := len(h.Device.Sent())
	h.Desired(99, json.RawMessage(`{"hostmetrics":{"interval":"2h","select":["memory"]}}`))
	// Before it may come what the earlier changes have set off; nothing else is due for hours.
	for ; ; n++ {
		if s := decode(t, h.WaitSent(n + 1)[n].Payload); s.CPU == nil && s.Memory != nil {
			break
		}
	}
}

func refused(property, reason string) map[string]any {
	return map[string]any{"property": property, "reason": reason}
}

func TestWrongSettingsAreRefused(t *testing.T) {
	for _, settings := range []string{`{"interval":"1ms"}`, `{"disks":[]}`, `{"disk":["/"]}`} {
		if _, err := sdktest.Try(t, plugin.New(), sdktest.Config{Settings: json.RawMessage(settings)}); core.KindOf(err) != core.Fatal {
			t.Errorf("%s: %v", settings, err)
		}
	}
}

func TestARecordingIsUploadedAndItsProgressReported(t *testing.T) {
	hold := make(chan struct{})
	files := &sdktest.Files{Hold: hold}
	h := sdktest.Start(t, plugin.New(), sdktest.Config{Settings: map[string]any{"interval": "1h"}, Files: files})
	for payload, want := range map[string]string{
		`{"samples":0}`: "samples: 0 is not between 1 and 10000", `{"interval":"1ms"}`: "interval: 1ms is not between 10ms", `{"name":""}`: "name: it is empty",
	} {
		if status, answer := h.Method("record", json.RawMessage(payload)); status != 400 || !strings.Contains(string(answer), want) {
			t.Errorf("%s: %d %s, want 400 and %q", payload, status, answer, want)
		}
	}
	call := func(name string) int {
		status, _ := h.Method("record", map[string]any{"samples": 3, "interval": "10ms", "name": name})
		return status
	}
	if status := call("a.jsonl"); status != 202 {
		t.Fatalf("status %d", status)
	}
	h.WaitReported(func(patch json.RawMessage) bool { return uploadOf(patch).State == "uploading" })
	if status := call("b.jsonl"); status != 202 {
		t.Errorf("a second one: status %d", status)
	}
	if status := call("c.jsonl"); status != 409 {
		t.Errorf("a third one: status %d", status)
	}
	close(hold)
	h.WaitReported(func(patch json.RawMessage) bool {
		return uploadOf(patch) == uploadReport{Name: "b.jsonl", State: "done", Percent: 100}
	})
	for _, name := range []string{"a.jsonl", "b.jsonl"} {
		lines := strings.Split(strings.TrimSpace(string(files.Blob(name))), "\n")
		if len(lines) != 3 {
			t.Fatalf("%s has %d lines: %q", name, len(lines), lines)
		}
		if s := decode(t, []byte(lines[2])); s.Memory == nil {
			t.Errorf("%s: no memory in %s", name, lines[2])
		}
	}
	if names := files.Names(); len(names) != 2 {
		t.Errorf("uploaded: %v", names)
	}
}

type uploadReport struct {
	Name, State string
	Percent     int
}

func uploadOf(patch json.RawMessage) uploadReport {
	var reported struct {
		Hostmetrics struct{ Upload uploadReport }
	}
	if json.Unmarshal(patch, &reported) != nil {
		return uploadReport{}
	}
	return reported.Hostmetrics.Upload
}
