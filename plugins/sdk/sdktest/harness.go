package sdktest

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

const (
	// limit bounds every wait of a harness. It is long, since it only ends tests that fail.
	limit = time.Minute
	// closeLimit is how long a plugin may take to end with its test; some never do by themselves.
	closeLimit = 10 * time.Second
)

// Config sets up a harness; the zero value will do.
type Config struct {
	// Name is the plugin's name in the configuration; "" means "plugin".
	Name string
	// Settings is marshalled to JSON; a json.RawMessage is taken as it is.
	Settings any
	// Device is the device to use; nil means a new one.
	Device *Device
	// Metric, if set, is told the plugin's observations.
	Metric func(host.Metric)
	// Files is what the plugin may do with files: a *Files, or another; nil means nothing.
	Files core.PluginFiles
}

// Harness runs a plugin in the test's own process, behind the very stream and the very host that a runtime uses.
type Harness struct {
	Device *Device

	t      testing.TB
	plugin core.Plugin
	logs   *logs
	ended  chan error
}

// Start runs p and returns when it has registered. The plugin is closed with the test. It ends the test if the plugin does
// not come up; see Try for plugins that refuse to.
func Start(t testing.TB, p *sdk.Plugin, cfg Config) *Harness {
	t.Helper()
	h, err := Try(t, p, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Try is Start for a plugin that may refuse its settings.
func Try(t testing.TB, p *sdk.Plugin, cfg Config) (*Harness, error) {
	t.Helper()
	if cfg.Device == nil {
		cfg.Device = NewDevice()
	}
	if cfg.Name == "" {
		cfg.Name = "plugin"
	}
	var settings json.RawMessage
	if cfg.Settings != nil {
		b, err := json.Marshal(cfg.Settings)
		if err != nil {
			t.Fatalf("settings: %v", err)
		}
		settings = b
	}
	h := &Harness{Device: cfg.Device, t: t, logs: new(logs), ended: make(chan error, 1)}
	ours, theirs := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		h.ended <- p.ServeConn(theirs)
	}()
	t.Cleanup(func() {
		if h.plugin != nil {
			ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
			_ = h.plugin.Close(ctx)
			cancel()
		}
		_ = ours.Close()
		<-served
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var err error
	h.plugin, err = host.AttachConn(ctx, host.Config{
		Name: cfg.Name, Settings: settings, Metric: cfg.Metric, Files: cfg.Files,
		Logger: slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, ours, cfg.Device)
	if err != nil {
		h.plugin = nil
		return nil, err
	}
	return h, nil
}

// Info returns what the plugin registered.
func (h *Harness) Info() core.PluginInfo { return h.plugin.Info() }

// Method calls a direct method and returns the answer's status and JSON. payload is marshalled to JSON.
func (h *Harness) Method(name string, payload any) (status int, answer json.RawMessage) {
	h.t.Helper()
	b, err := json.Marshal(payload)
	if err != nil {
		h.t.Fatalf("payload of %s: %v", name, err)
	}
	ctx, cancel := h.Context()
	defer cancel()
	a, err := h.Handle(ctx, core.Delivery{Kind: core.InboundMethod, Method: name, Payload: b})
	if err != nil {
		h.t.Fatalf("call method %s: %v", name, err)
	}
	return a.Status, a.Payload
}

// Message hands over a cloud-to-device message and returns the verdict.
func (h *Harness) Message(m *sdk.Message) core.Verdict {
	h.t.Helper()
	ctx, cancel := h.Context()
	defer cancel()
	a, err := h.Handle(ctx, core.Delivery{Kind: core.InboundMessage, Message: m})
	if err != nil {
		h.t.Fatalf("hand over message: %v", err)
	}
	return a.Verdict
}

// Desired hands over a state of the desired properties and returns when it was handled: with status 200 if it was
// applied. document is marshalled to JSON.
func (h *Harness) Desired(version int64, document any) (status int) {
	h.t.Helper()
	b, err := json.Marshal(document)
	if err != nil {
		h.t.Fatalf("desired properties: %v", err)
	}
	ctx, cancel := h.Context()
	defer cancel()
	a, err := h.Handle(ctx, core.Delivery{Kind: core.InboundDesired, Desired: &core.Desired{Version: version, Document: b}})
	if err != nil {
		h.t.Fatalf("hand over desired properties: %v", err)
	}
	return a.Status
}

// Handle carries out any call.
func (h *Harness) Handle(ctx context.Context, d core.Delivery) (core.Answer, error) {
	return h.plugin.Handle(ctx, d)
}

// WaitSent waits until n messages were accepted and returns them all.
func (h *Harness) WaitSent(n int) []*sdk.Message {
	h.t.Helper()
	ctx, cancel := h.Context()
	defer cancel()
	ms, err := h.Device.WaitSent(ctx, n)
	if err != nil {
		h.t.Fatalf("%v\nlog:\n%s", err, h.Logs())
	}
	return ms
}

// WaitReported waits until the reported properties satisfy ok and returns them.
func (h *Harness) WaitReported(ok func(json.RawMessage) bool) json.RawMessage {
	h.t.Helper()
	ctx, cancel := h.Context()
	defer cancel()
	r, err := h.Device.WaitReported(ctx, ok)
	if err != nil {
		h.t.Fatalf("%v\nlog:\n%s", err, h.Logs())
	}
	return r
}

// Close stops the plugin in an orderly way and returns what its session ended with: nil unless its loop gave up.
func (h *Harness) Close() error {
	h.t.Helper()
	ctx, cancel := h.Context()
	defer cancel()
	return h.CloseWithin(ctx)
}

// CloseWithin is Close with a limit of the test's choice.
func (h *Harness) CloseWithin(ctx context.Context) error {
	h.t.Helper()
	if err := h.plugin.Close(ctx); err != nil {
		return err
	}
	ended, cancel := h.Context()
	defer cancel()
	select {
	case err := <-h.ended:
		return err
	case <-ended.Done():
		h.t.Fatal("the plugin's session did not end: does its loop return when its context ends?")
		return nil
	}
}

// Done is closed when the plugin has ended; Err then says why.
func (h *Harness) Done() <-chan struct{} { return h.plugin.Done() }

// Err says why the plugin ended; nil while it runs and after Close.
func (h *Harness) Err() error { return h.plugin.Err() }

// Logs returns what the plugin has logged so far, as text.
func (h *Harness) Logs() string { return h.logs.String() }

// Context returns a context that bounds a wait of the test.
func (h *Harness) Context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.t.Context(), limit)
}

// logs is a buffer for several goroutines.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
