//go:build faults && unix

package faults

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestEachFlowReachesThePluginThatItIsForAndOnlyThat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(`  numbers:
    command: [`+strconv.Quote(programs.numbers)+`]
    settings: {rate: 5}
    messages: {match: {target: numbers}}
    twin_keys: [numbers]
  metrics:
    builtin: hostmetrics
    settings: {interval: 1s}
    messages: {match: {target: metrics}}
    twin_keys: [hostmetrics]`, "")
	w.run()
	t.Run("telemetry of both", w.telemetryOfBoth)
	t.Run("methods", w.methodsOfBoth)
	t.Run("messages", w.messagesOfBoth)
	t.Run("desired", w.desiredOfBoth)
}

func (w *world) telemetryOfBoth(t *testing.T) {
	sawNumber, sawMetrics := false, false
	eventually(t, 30*time.Second, "a number and metrics", func() bool {
		w.telemetry(t, &sawNumber, &sawMetrics)
		return sawNumber && sawMetrics
	})
}

// telemetry looks at all that the hub has.
func (w *world) telemetry(t *testing.T, sawNumber, sawMetrics *bool) {
	t.Helper()
	for line := range strings.Lines(w.hubDo("monitor", "--follow=false", "--json", "--device", device)) {
		var m struct {
			DeviceID string            `json:"deviceId"`
			System   map[string]string `json:"system"`
			Body     string            `json:"body"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if m.DeviceID != device || m.System["message-id"] == "" {
			t.Errorf("device or message id: %s", line)
		}
		_, err := strconv.Atoi(m.Body)
		*sawNumber = *sawNumber || err == nil
		*sawMetrics = *sawMetrics || strings.Contains(m.Body, `"cpu"`)
	}
}

func (w *world) methodsOfBoth(t *testing.T) {
	if a := w.method("echo", `{"a":[1,"ü"]}`); a.Status != 200 || string(a.Payload) != `{"a":[1,"ü"]}` {
		t.Errorf("echo: %d %s", a.Status, a.Payload)
	}
	pids := map[string]string{}
	for _, p := range w.mustStatus().Plugins {
		pids[p.Name] = strconv.Itoa(p.PID)
	}
	if a := w.method("pid", "null"); a.Status != 200 || string(a.Payload) != pids["numbers"] {
		t.Errorf("pid: %d %s, want that of numbers among %v", a.Status, a.Payload, pids)
	}
	if a := w.method("ping", "null"); a.Status != 200 || !strings.Contains(string(a.Payload), `"pong":true`) {
		t.Errorf("ping: %d %s", a.Status, a.Payload)
	}
	if a := w.method("nobodys", "null"); a.Status != 404 || !strings.Contains(string(a.Payload), "nobodys") {
		t.Errorf("a method of nobody: %d %s, want 404 and its name", a.Status, a.Payload)
	}
	if a := w.method("echo", `"after"`); a.Status != 200 {
		t.Errorf("echo after that: %d %s", a.Status, a.Payload)
	}
}

func (w *world) messagesOfBoth(t *testing.T) {
	w.hubDo("c2d", device, "for numbers", "--property", "target=numbers", "--message-id", "m-numbers")
	w.hubDo("c2d", device, "for metrics", "--property", "target=metrics", "--message-id", "m-metrics")
	w.hubDo("c2d", device, "for nobody", "--property", "target=nobody", "--message-id", "m-nobody")
	eventually(t, 30*time.Second, "the message of numbers", func() bool { return len(w.pluginFile("numbers", "messages")) > 0 })
	eventually(t, 30*time.Second, "the message of metrics", func() bool { return len(w.metricsLog(t, "m-metrics")) > 0 })
	eventually(t, 30*time.Second, "the dead letter", func() bool { return w.mustStatus().Counters.DeadLetters > 0 })
	if got := w.pluginFile("numbers", "messages"); len(got) != 1 || got[0] != "m-numbers for numbers" {
		t.Errorf("numbers got %q", got)
	}
	if got := w.metricsLog(t, "m-numbers"); len(got) > 0 {
		t.Errorf("metrics got what is for numbers: %q", got)
	}
	if got := w.metricsLog(t, "m-nobody"); len(got) > 0 {
		t.Errorf("metrics got what is for nobody: %q", got)
	}
	if s := w.mustStatus(); s.Counters.DeadLetters != 1 || !strings.Contains(s.LastDeadLetter, "m-nobody") {
		t.Errorf("%d dead letters, the last %q, want m-nobody alone", s.Counters.DeadLetters, s.LastDeadLetter)
	}
}

// metricsLog returns the lines of the runtime's log in which the plugin metrics speaks of a message.
func (w *world) metricsLog(t *testing.T, id string) (lines []string) {
	t.Helper()
	data, err := os.ReadFile(w.runtime.log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, "plugin=metrics") && strings.Contains(line, id) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (w *world) desiredOfBoth(t *testing.T) {
	interval := func() string {
		var twin struct {
			Properties struct {
				Reported struct {
					Hostmetrics struct {
						Interval string `json:"interval"`
					} `json:"hostmetrics"`
				} `json:"reported"`
			} `json:"properties"`
		}
		if err := json.Unmarshal([]byte(w.hubDo("twin", "get", device)), &twin); err != nil {
			t.Fatal(err)
		}
		return twin.Properties.Reported.Hostmetrics.Interval
	}
	eventually(t, 30*time.Second, "the first desired state", func() bool { return len(w.pluginFile("numbers", "desired")) > 0 })
	before := len(w.pluginFile("numbers", "desired"))
	w.hubDo("twin", "patch", device, `{"properties":{"desired":{"hostmetrics":{"interval":"3s"}}}}`)
	eventually(t, 30*time.Second, "the interval in force", func() bool { return interval() == "3s" })
	w.hubDo("twin", "patch", device, `{"properties":{"desired":{"nobodys":{"a":1}}}}`)
	w.hubDo("twin", "patch", device, `{"properties":{"desired":{"numbers":{"a":1}}}}`)
	eventually(t, 30*time.Second, "the change for numbers", func() bool { return len(w.pluginFile("numbers", "desired")) > before })
	got := w.pluginFile("numbers", "desired")[before:]
	if len(got) != 1 || got[0] != `4 {"numbers":{"a":1}}` {
		t.Errorf("numbers was given %q, want its own key once, at version 4", got)
	}
	if got := interval(); got != "3s" {
		t.Errorf("interval %q after a change for another plugin, want 3s", got)
	}
}
