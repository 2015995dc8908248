//go:build unix

package host_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

// launch starts the test binary in a role.
func launch(t *testing.T, role string, change func(*host.Config)) (core.Plugin, *sdktest.Device, error) {
	t.Helper()
	cfg := config(t, role)
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dev := sdktest.NewDevice()
	p, err := host.New(cfg).Launch(ctx, dev)
	if err == nil {
		t.Cleanup(func() { closePlugin(t, p, 10*time.Second) })
	}
	return p, dev, err
}

// patience ends tests that fail: a busy machine takes its time to start a process.
const patience = time.Minute

// never pings, so that a plugin's end is not seen by its silence.
var never = host.Ping{Interval: time.Hour}

func config(t *testing.T, role string) host.Config {
	t.Helper()
	return host.Config{
		StartTimeout: patience, Ping: never,
		Name: "press", Command: []string{os.Args[0]}, RuntimeDir: t.TempDir(),
		// The race detector's runtime would sleep for a second at each exit.
		Env:    map[string]string{roleVar: role, "GORACE": "atexit_sleep_ms=0"},
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if len(p) > 300 {
		p = p[:300]
	}
	w.t.Logf("%s", p)
	return len(p), nil
}

func closePlugin(t *testing.T, p core.Plugin, limit time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	select {
	case <-p.Done():
	default:
		t.Error("the plugin is not done after Close")
	}
}

func mustLaunch(t *testing.T, role string, change func(*host.Config)) (core.Plugin, *sdktest.Device) {
	t.Helper()
	p, dev, err := launch(t, role, change)
	if err != nil {
		t.Fatal(err)
	}
	return p, dev
}

// method calls a method of the plugin.
func method(t *testing.T, p core.Plugin, name string, payload string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := p.Handle(ctx, core.Delivery{Kind: core.InboundMethod, Method: name, Payload: []byte(payload)})
	if err != nil {
		t.Fatalf("call %s: %v", name, err)
	}
	return a.Status, string(a.Payload)
}

func TestAPluginSendsInOrderAndAnswers(t *testing.T) { carriers(t, sendsInOrderAndAnswers) }

func sendsInOrderAndAnswers(t *testing.T, role string) {
	p, dev := mustLaunch(t, role, func(c *host.Config) { c.Settings = json.RawMessage(`{"telemetry":1000}`) })
	info := p.Info()
	if info.Name != "test" || info.PID == 0 || info.SDK == "" || info.Messages || info.Desired || len(info.Methods) == 0 {
		t.Errorf("info: %+v", info)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sent, err := dev.WaitSent(ctx, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range sent {
		if want, _ := json.Marshal(i); string(m.Payload) != string(want) {
			t.Fatalf("message %d has the payload %s", i, m.Payload)
		}
	}
	if status, answer := method(t, p, "echo", `{"a":1}`); status != 200 || answer != `{"a":1}` {
		t.Errorf("echo: %d %s", status, answer)
	}
	if status, answer := method(t, p, "nothing", `{}`); status != 404 || answer != `{"error":"this plugin has no method \"nothing\""}` {
		t.Errorf("unknown method: %d %s", status, answer)
	}
}

// A plugin's environment says which carrier it may use; what it starts is not to find a trace of it.
func TestAPluginsEnvironmentKeepsItsPipesToItself(t *testing.T) {
	p, _ := mustLaunch(t, "plugin", nil)
	_, answer := method(t, p, "env", `{}`)
	if strings.Contains(answer, "FAIRLEAD_PLUGIN_STREAM") {
		t.Errorf("its children would inherit %s", answer)
	}
	if !strings.Contains(answer, `"GOMAXPROCS=1"`) {
		t.Errorf("it is not told to use one CPU: %s", answer)
	}
	p, _ = mustLaunch(t, "plugin", func(c *host.Config) { c.Env["GOMAXPROCS"] = "3" })
	if _, answer := method(t, p, "env", `{}`); !strings.Contains(answer, `"GOMAXPROCS=3"`) || strings.Contains(answer, "GOMAXPROCS=1") {
		t.Errorf("the configuration's word does not count: %s", answer)
	}
	_, answer = method(t, p, "leaks", `{}`)
	var found struct{ Own, Leaks []string }
	if err := json.Unmarshal([]byte(answer), &found); err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	if runtime.GOOS == "linux" && (len(found.Own) != 2 || len(found.Leaks) > 0) {
		t.Errorf("of the plugin's pipes %v a child has %v", found.Own, found.Leaks)
	}
}

// countingHandler counts the records.
type countingHandler struct{ n atomic.Int64 }

func (*countingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *countingHandler) Handle(context.Context, slog.Record) error { h.n.Add(1); return nil }

func (h *countingHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h *countingHandler) WithGroup(string) slog.Handler { return h }
