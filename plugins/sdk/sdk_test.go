package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/plugins/sdk"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// withDevice starts a plugin and gives the test its Device.
func withDevice(t *testing.T, p *sdk.Plugin, cfg sdktest.Config) (*sdktest.Harness, *sdk.Device) {
	t.Helper()
	got := make(chan *sdk.Device, 1)
	p.Run(func(ctx context.Context, dev *sdk.Device) error {
		got <- dev
		<-ctx.Done()
		return nil
	})
	h := sdktest.Start(t, p, cfg)
	return h, <-got
}

func text(s string) *sdk.Message { return &sdk.Message{Payload: []byte(s)} }

// explosive is an answer that cannot be encoded without a panic.
type explosive struct{}

func (explosive) MarshalJSON() ([]byte, error) { panic("ouch") }

func TestMethodAnswers(t *testing.T) {
	p := sdk.New("test")
	p.HandleMethod("value", func(context.Context, *sdk.MethodRequest) (any, error) { return map[string]int{"a": 1}, nil })
	p.HandleMethod("nothing", func(context.Context, *sdk.MethodRequest) (any, error) { return nil, nil })
	p.HandleMethod("status", func(context.Context, *sdk.MethodRequest) (any, error) {
		return sdk.Response{Status: http.StatusAccepted, Payload: "later"}, nil
	})
	p.HandleMethod("error", func(context.Context, *sdk.MethodRequest) (any, error) { return nil, errors.New("no pressure") })
	p.HandleMethod("refuse", func(context.Context, *sdk.MethodRequest) (any, error) {
		return nil, fmt.Errorf("wrapped: %w", sdk.Errorf(http.StatusConflict, "already open"))
	})
	p.HandleMethod("panic", func(context.Context, *sdk.MethodRequest) (any, error) { panic("ouch") })
	p.HandleMethod("unencodable", func(context.Context, *sdk.MethodRequest) (any, error) { return make(chan int), nil })
	p.HandleMethod("explosive", func(context.Context, *sdk.MethodRequest) (any, error) { return explosive{}, nil })
	p.HandleMethod("no status", func(context.Context, *sdk.MethodRequest) (any, error) { return &sdk.Response{Payload: 1}, nil })
	p.HandleMethod("no response", func(context.Context, *sdk.MethodRequest) (any, error) { return (*sdk.Response)(nil), nil })
	p.HandleMethod("no refusal status", func(context.Context, *sdk.MethodRequest) (any, error) { return nil, &sdk.StatusError{Reason: "no"} })
	p.HandleMethod("decode", func(_ context.Context, req *sdk.MethodRequest) (any, error) {
		var v struct{ Pressure int }
		return v.Pressure, req.Decode(&v)
	})
	p.HandleMethod("deferred", func(_ context.Context, req *sdk.MethodRequest) (any, error) {
		d := req.Defer()
		go func() {
			if d.Context().Err() == nil {
				d.Respond(sdk.Response{Status: http.StatusCreated, Payload: "done"}, nil)
				d.Respond("too late", nil)
			}
		}()
		return "ignored", nil
	})
	h := sdktest.Start(t, p, sdktest.Config{})
	tests := []struct {
		method  string
		payload any
		status  int
		answer  string
	}{
		{"value", nil, 200, `{"a":1}`},
		{"nothing", nil, 200, `null`},
		{"status", nil, 202, `"later"`},
		{"error", nil, 500, `{"error":"no pressure"}`},
		{"refuse", nil, 409, `{"error":"wrapped: already open"}`},
		{"panic", nil, 500, `{"error":"method panic: the handler panicked"}`},
		{"unencodable", nil, 500, `{"error":"encode answer: json: unsupported type: chan int"}`},
		{"explosive", nil, 500, `{"error":"encoding the answer panicked"}`},
		{"no status", nil, 200, `1`},
		{"no response", nil, 200, `null`},
		{"no refusal status", nil, 500, `{"error":"no"}`},
		{"decode", "no object", 400, `{"error":"payload of decode: json: cannot unmarshal string into Go value of type struct { Pressure int }"}`},
		{"deferred", nil, 201, `"done"`},
		{"unknown", nil, 404, `{"error":"this plugin has no method \"unknown\""}`},
	}
	for _, tt := range tests {
		t.Run(tt.method, func(t *testing.T) {
			status, answer := h.Method(tt.method, tt.payload)
			if status != tt.status || string(answer) != tt.answer {
				t.Errorf("got %d %s, want %d %s", status, answer, tt.status, tt.answer)
			}
		})
	}
	if diff := cmp.Diff([]string{
		"decode", "deferred", "error", "explosive", "no refusal status", "no response", "no status", "nothing", "panic", "refuse", "status",
		"unencodable", "value",
	}, h.Info().Methods); diff != "" {
		t.Error(diff)
	}
}

func TestACancelledMethodEndsItsHandler(t *testing.T) {
	began, ended := make(chan struct{}), make(chan error, 1)
	p := sdk.New("test")
	p.HandleMethod("slow", func(ctx context.Context, _ *sdk.MethodRequest) (any, error) {
		close(began)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	h := sdktest.Start(t, p, sdktest.Config{})
	ctx, cancel := h.Context()
	go func() { <-began; cancel() }()
	if _, err := h.Handle(ctx, core.Delivery{Kind: core.InboundMethod, Method: "slow"}); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller: %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the handler's context has no cause")
	}
}

func TestMethodsRunConcurrently(t *testing.T) {
	both := make(chan struct{}, 2)
	meet := make(chan struct{})
	p := sdk.New("test")
	p.HandleMethod("meet", func(ctx context.Context, _ *sdk.MethodRequest) (any, error) {
		both <- struct{}{}
		select {
		case <-meet:
			return "met", nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	h := sdktest.Start(t, p, sdktest.Config{})
	answers := make(chan string, 2)
	for range 2 {
		go func() {
			_, a := h.Method("meet", nil)
			answers <- string(a)
		}()
	}
	<-both
	<-both
	close(meet)
	for range 2 {
		if a := <-answers; a != `"met"` {
			t.Errorf("answer %s", a)
		}
	}
}

func TestVerdicts(t *testing.T) {
	p := sdk.New("test")
	p.HandleMessages(func(_ context.Context, m *sdk.Message) error {
		switch string(m.Payload) {
		case "not now":
			return errors.New("busy")
		case "never":
			return fmt.Errorf("wrapped: %w", sdk.Reject(errors.New("nonsense")))
		case "panic":
			panic("ouch")
		}
		return nil
	})
	h := sdktest.Start(t, p, sdktest.Config{})
	for payload, want := range map[string]core.Verdict{"fine": core.Complete, "not now": core.Abandon, "never": core.Reject, "panic": core.Abandon} {
		if got := h.Message(text(payload)); got != want {
			t.Errorf("%s: %s, want %s", payload, got, want)
		}
	}
	if !h.Info().Messages || h.Info().Desired {
		t.Errorf("info: %+v", h.Info())
	}
}

func TestMessagesAndDesiredAreHandledInOrder(t *testing.T) {
	var got []string
	var versions []int64
	var open atomic.Int32
	p := sdk.New("test")
	p.HandleMessages(func(_ context.Context, m *sdk.Message) error {
		if open.Add(1) != 1 {
			t.Error("two messages at once")
		}
		defer open.Add(-1)
		got = append(got, string(m.Payload)+m.Properties["k"])
		return nil
	})
	p.HandleDesired(func(_ context.Context, d *sdk.Desired) error {
		versions = append(versions, d.Version)
		if string(d.Document) != `{"v":1}` {
			t.Errorf("document %s", d.Document)
		}
		return nil
	})
	h := sdktest.Start(t, p, sdktest.Config{})
	ctx, cancel := h.Context()
	defer cancel()
	// Calls are numbered in the order of Handle; the order of the stream is the hub's.
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprint(i)+"v")
		if v := h.Message(&sdk.Message{Payload: fmt.Append(nil, i), Properties: map[string]string{"k": "v"}}); v != core.Complete {
			t.Fatalf("verdict %s", v)
		}
		if s := h.Desired(int64(i), map[string]int{"v": 1}); s != 200 {
			t.Fatalf("status %d", s)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(versions) != 50 || versions[49] != 49 {
		t.Errorf("versions %v", versions)
	}
	// Invalid UTF-8 from afar does not end the stream.
	if _, err := h.Handle(ctx, core.Delivery{Kind: core.InboundMessage, Message: &core.Message{CorrelationID: "\xff", Properties: map[string]string{"\xfe": "\xfd"}}}); err != nil {
		t.Error(err)
	}
}

func TestSettings(t *testing.T) {
	type settings struct {
		Interval sdk.Duration `json:"interval"`
		Disks    []string     `json:"disks"`
	}
	tests := []struct {
		name     string
		settings string
		want     settings
		refused  string
	}{
		{name: "none", settings: ``, want: settings{Interval: sdk.Duration(time.Minute)}},
		{name: "all", settings: `{"interval":"5s","disks":["/"]}`, want: settings{Interval: sdk.Duration(5 * time.Second), Disks: []string{"/"}}},
		{name: "unknown", settings: `{"intervall":"5s"}`, refused: `settings: json: unknown field "intervall"`},
		{name: "no duration", settings: `{"interval":"soon"}`, refused: `"soon" is no duration`},
		{name: "another type", settings: `{"disks":"/"}`, refused: `settings: disks: a string cannot be a []string`},
		{name: "not valid", settings: `{"interval":"-5s"}`, refused: `settings: interval: must be positive`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := validated[settings]{v: settings{Interval: sdk.Duration(time.Minute)}, check: func(s settings) error {
				if s.Interval <= 0 {
					return errors.New("interval: must be positive")
				}
				return nil
			}}
			p := sdk.New("test")
			p.Settings(&got)
			cfg := sdktest.Config{}
			if tt.settings != "" {
				cfg.Settings = json.RawMessage(tt.settings)
			}
			_, err := sdktest.Try(t, p, cfg)
			if tt.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) || core.KindOf(err) != core.Fatal {
					t.Errorf("error %v (%s), want %q", err, core.KindOf(err), tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got.v); diff != "" {
				t.Error(diff)
			}
		})
	}
}

type validated[T any] struct {
	v     T
	check func(T) error
}

func (v *validated[T]) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	return dec.Decode(&v.v)
}

func (v *validated[T]) Validate() error { return v.check(v.v) }

func TestRequests(t *testing.T) {
	h, dev := withDevice(t, sdk.New("test"), sdktest.Config{Name: "press"})
	ctx, cancel := h.Context()
	defer cancel()
	if dev.Name() != "press" || dev.Identity() != h.Device.Identity() {
		t.Errorf("name %s, identity %+v", dev.Name(), dev.Identity())
	}
	if v, err := dev.Report(ctx, map[string]any{"a": map[string]any{"b": 1}}); err != nil || v != 2 {
		t.Errorf("report: version %d, %v", v, err)
	}
	if _, err := dev.Report(ctx, "no object"); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("a patch that is no object: %v", err)
	}
	twin, err := dev.Twin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if string(twin.Reported) != `{"$version":2,"a":{"b":1}}` || string(twin.Desired) != `{"$version":1}` {
		t.Errorf("twin: %s %s", twin.Desired, twin.Reported)
	}
	h.Device.FailReports(&core.Error{Op: "patch reported", Kind: core.Throttled, Status: 429, TrackingID: "T1", RetryAfter: time.Second, Err: core.ErrService})
	_, err = dev.Report(ctx, map[string]any{})
	if e, ok := errors.AsType[*sdk.Error](err); !ok || e.Status != 429 || e.TrackingID != "T1" || e.RetryAfter != time.Second || !errors.Is(err, sdk.ErrService) {
		t.Errorf("a refused report: %#v", err)
	}
	for name, err := range map[string]error{
		"storage info":  second(dev.StorageInfo(ctx, "blob")),
		"notify upload": dev.NotifyUpload(ctx, sdk.UploadResult{}),
		"upload":        dev.Upload(ctx, "blob", "/file", nil),
	} {
		if !errors.Is(err, sdk.ErrUnsupported) || !strings.Contains(err.Error(), "this host cannot") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := dev.UpdateSASToken(ctx, "SharedAccessSignature sr=x"); err != nil {
		t.Errorf("update the token: %v", err)
	}
	if token, err := h.Device.WaitToken(ctx); err != nil || token.Reveal() != "SharedAccessSignature sr=x" {
		t.Errorf("the host got the token %q, %v", token.Reveal(), err)
	}
	gone, cancelGone := context.WithCancel(ctx)
	cancelGone()
	if err := dev.Connect(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// A loop that begins with a look at the connection must not be told "disconnected" because it was quick.
func TestTheLoopFindsTheConnectionsStateTrue(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) { // it waits a second at most: not for a busy machine
			found := make(chan sdk.Connection, 1)
			p := sdk.New("test")
			p.Run(func(_ context.Context, dev *sdk.Device) error { found <- dev.State(); return nil })
			h := sdktest.Start(t, p, sdktest.Config{})
			if c := <-found; c.State != core.StateConnected || c.Reason != "test" {
				t.Fatalf("the loop found %+v", c)
			}
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestConnectionState(t *testing.T) {
	h, dev := withDevice(t, sdk.New("test"), sdktest.Config{})
	ctx, cancel := h.Context()
	defer cancel()
	states := make(chan sdk.Connection, 10)
	stop := dev.OnState(func(c sdk.Connection) { states <- c })
	errs := make(chan error, 10)
	dev.OnBackgroundError(func(err error) { errs <- err })
	wait := func(s core.State) sdk.Connection {
		t.Helper()
		for {
			select {
			case c := <-states:
				if c.State == s {
					return c
				}
			case <-ctx.Done():
				t.Fatalf("state %s never came", s)
			}
		}
	}
	wait(core.StateConnected)
	if !dev.Connected() {
		t.Error("not connected")
	}
	h.Device.SetConnection(core.Connection{State: core.StateWaiting, Reason: "lost", NextAttempt: time.Second, Epoch: 7})
	if c := wait(core.StateWaiting); c.Reason != "lost" || c.NextAttempt != time.Second || c.Epoch != 7 {
		t.Errorf("state %+v", c)
	}
	if dev.Connected() {
		t.Error("still connected")
	}
	h.Device.BackgroundError(fmt.Errorf("keep alive: %w", core.ErrConnectionDropped))
	select {
	case err := <-errs:
		if !errors.Is(err, sdk.ErrConnectionDropped) || err.Error() != "keep alive: connection dropped" {
			t.Errorf("background error: %v", err)
		}
	case <-ctx.Done():
		t.Fatal("no background error")
	}
	if err := dev.Connect(ctx); err != nil {
		t.Error(err)
	}
	wait(core.StateConnected)
	if err := dev.Disconnect(ctx); err != nil {
		t.Error(err)
	}
	wait(core.StateDisconnected)
	stop()
}

func TestLogAndMetric(t *testing.T) {
	metrics := make(chan host.Metric, 2)
	h, dev := withDevice(t, sdk.New("test"), sdktest.Config{Name: "press", Metric: func(m host.Metric) { metrics <- m }})
	dev.Log().With("line", 4).WithGroup("g").Warn("hot", "celsius", 91, "bad", "\xff")
	dev.Metric("queue_bytes", 12.5, "line", "4")
	dev.Count("pressed_total", 2)
	want := []host.Metric{
		{Plugin: "press", Name: "queue_bytes", Value: 12.5, Labels: map[string]string{"line": "4"}},
		{Plugin: "press", Name: "pressed_total", Counter: true, Value: 2},
	}
	for _, w := range want {
		if diff := cmp.Diff(w, <-metrics); diff != "" {
			t.Error(diff)
		}
	}
	// Frames keep their order, so the line is there.
	if got := h.Logs(); !strings.Contains(got, `level=WARN msg=hot plugin=press g.bad=`) || !strings.Contains(got, `g.celsius=91 line=4`) {
		t.Errorf("log: %s", got)
	}
}

func TestTheLoopsEnd(t *testing.T) {
	t.Run("an error ends the plugin", func(t *testing.T) {
		p := sdk.New("test")
		p.Run(func(context.Context, *sdk.Device) error { return errors.New("the press is gone") })
		h := sdktest.Start(t, p, sdktest.Config{})
		<-h.Done()
		if h.Err() == nil || !strings.Contains(h.Err().Error(), "the press is gone") {
			t.Errorf("error: %v", h.Err())
		}
	})
	t.Run("a panic ends the plugin", func(t *testing.T) {
		p := sdk.New("test")
		p.Run(func(context.Context, *sdk.Device) error { panic("ouch") })
		h := sdktest.Start(t, p, sdktest.Config{})
		<-h.Done()
		if h.Err() == nil || !strings.Contains(h.Err().Error(), "panic: ouch") {
			t.Errorf("error: %v", h.Err())
		}
	})
	t.Run("nil leaves the handlers", func(t *testing.T) {
		p := sdk.New("test")
		p.Run(func(ctx context.Context, dev *sdk.Device) error { return dev.SendJSON(ctx, "hello") })
		p.HandleMethod("ping", func(context.Context, *sdk.MethodRequest) (any, error) { return "pong", nil })
		h := sdktest.Start(t, p, sdktest.Config{})
		if m := h.WaitSent(1)[0]; string(m.Payload) != `"hello"` || m.ContentType != "application/json" || m.ContentEncoding != "utf-8" {
			t.Errorf("message %+v", m)
		}
		if _, a := h.Method("ping", nil); string(a) != `"pong"` {
			t.Errorf("answer %s", a)
		}
	})
	t.Run("a drain lets it finish", func(t *testing.T) {
		p := sdk.New("test")
		began := make(chan struct{}) // one that is drained before it has begun has nothing to say
		p.Run(func(ctx context.Context, dev *sdk.Device) error {
			close(began)
			<-ctx.Done()
			return dev.Send(context.WithoutCancel(ctx), text("the last word"))
		})
		h := sdktest.Start(t, p, sdktest.Config{})
		<-began
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if sent := h.Device.Sent(); len(sent) != 1 || string(sent[0].Payload) != "the last word" {
			t.Errorf("sent: %v", sent)
		}
		if h.Err() != nil {
			t.Errorf("error: %v", h.Err())
		}
	})
}
