//go:build unix

package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

type stream = grpc.BidiStreamingServer[pluginv1.SessionRequest, pluginv1.SessionResponse]

// attachScript attaches the host to a plugin that a test plays frame by frame, after its registration and the first credit.
func attachScript(t *testing.T, cfg host.Config, play func(stream) error) (core.Plugin, *sdktest.Device) {
	t.Helper()
	dev := sdktest.NewDevice()
	return attachTo(t, dev, cfg, play), dev
}

// credited is a stream on which the first credit has come. What came before it, as a call, is received first.
type credited struct {
	stream
	early []*pluginv1.SessionRequest
}

func (c *credited) Recv() (*pluginv1.SessionRequest, error) {
	if len(c.early) == 0 {
		return c.stream.Recv()
	}
	f := c.early[0]
	c.early = c.early[1:]
	return f, nil
}

func attachTo(t *testing.T, dev core.Device, cfg host.Config, play func(stream) error) core.Plugin {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	// Windows that do not grow: how much a plugin that does not read is sent depends on no measurement.
	const window = 64 << 10
	server := grpc.NewServer(grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window))
	pluginv1.RegisterPluginServiceServer(server, &script{play: func(s stream) error {
		if _, err := s.Recv(); err != nil {
			return err
		}
		if err := s.Send(register()); err != nil {
			return err
		}
		ready := &credited{stream: s}
		for { // who sends before there is credit has overstepped it
			f, err := s.Recv()
			if err != nil {
				return err
			}
			ready.early = append(ready.early, f)
			if f.GetCredit() != nil {
				return play(ready)
			}
		}
	}})
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); server.Stop(); <-served })
	cfg.Name, cfg.Ping = "press", never
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p, err := host.Attach(ctx, cfg, conn, dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closePlugin(t, p, 500*time.Millisecond) })
	return p
}

func register() *pluginv1.SessionResponse {
	return &pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Register{Register: &pluginv1.Register{Name: "script", Sdk: "test/1"}}}
}

func messages(first uint64, ms ...*pluginv1.Message) *pluginv1.SessionResponse {
	return &pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Messages{Messages: &pluginv1.Messages{First: first, Messages: ms}}}
}

// settledUpTo reads frames until each tag up to n is settled, and returns what became of it.
func settledUpTo(s stream, n int) (map[uint64]string, error) {
	got := make(map[uint64]string)
	for len(got) < n {
		f, err := s.Recv()
		if err != nil {
			return got, err
		}
		if r := f.GetSettled(); r != nil {
			for tag := r.GetFrom(); tag <= r.GetTo(); tag++ {
				got[tag] = r.GetError().GetMessage()
			}
		}
	}
	return got, nil
}

// idle reads until the stream ends, and does what an orderly plugin does at its end.
func idle(s stream) error {
	for {
		f, err := s.Recv()
		if err != nil {
			return nil
		}
		if f.GetDrain() != nil {
			if err := s.Send(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Drained{Drained: &pluginv1.Drained{}}}); err != nil {
				return nil
			}
		}
	}
}

func TestABadMessageDoesNotPoisonItsBatch(t *testing.T) {
	type result struct {
		settled map[uint64]string
		err     error
	}
	results := make(chan result, 1)
	_, dev := attachScript(t, host.Config{}, func(s stream) error {
		text := func(p string) *pluginv1.Message { return &pluginv1.Message{Payload: []byte(p)} }
		if err := s.Send(messages(1, text("a"), &pluginv1.Message{Payload: make([]byte, core.MaxMessageSize+1)}, text("b"),
			&pluginv1.Message{Properties: map[string]string{"$.on": "x"}}, text("c"))); err != nil {
			return err
		}
		settled, err := settledUpTo(s, 5)
		results <- result{settled, err}
		return idle(s)
	})
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	for tag, want := range map[uint64]string{1: "", 2: "too large", 3: "", 4: "$.on", 5: ""} {
		if got := r.settled[tag]; (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("message %d: %q, want %q", tag, got, want)
		}
	}
	var sent []string
	for _, m := range dev.Sent() {
		sent = append(sent, string(m.Payload))
	}
	if strings.Join(sent, "") != "abc" {
		t.Errorf("sent %q", sent)
	}
}

func withdraw(tag uint64) *pluginv1.SessionResponse {
	return &pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Withdraw{Withdraw: &pluginv1.Withdraw{Tag: tag}}}
}

func TestMessagesAreWithdrawnWhereverTheyAre(t *testing.T) {
	type result struct {
		settled map[uint64]string
		err     error
	}
	withdrawn, rest := make(chan result, 1), make(chan result, 1)
	dev := sdktest.NewDevice()
	dev.Full(true)
	attachTo(t, dev, host.Config{}, func(s stream) error {
		text := func(p string) *pluginv1.Message { return &pluginv1.Message{Payload: []byte(p)} }
		// The first frame waits in Submit, the second behind it.
		for _, f := range []*pluginv1.SessionResponse{
			messages(1, text("a"), text("x"), text("b")), messages(4, text("y"), text("c")),
			withdraw(2), withdraw(4), withdraw(4),
		} {
			if err := s.Send(f); err != nil {
				return err
			}
		}
		settled, err := settledUpTo(s, 2)
		withdrawn <- result{settled, err}
		settled, err = settledUpTo(s, 3)
		rest <- result{settled, err}
		return idle(s)
	})
	r := <-withdrawn
	if r.err != nil {
		t.Fatal(r.err)
	}
	for _, tag := range []uint64{2, 4} {
		if text, ok := r.settled[tag]; !ok || !strings.Contains(text, "withdrawn") || !strings.Contains(text, "it was not sent") {
			t.Errorf("message %d: %q", tag, text)
		}
	}
	dev.Full(false)
	r = <-rest
	if diff := cmp.Diff(map[uint64]string{1: "", 3: "", 5: ""}, r.settled); r.err != nil || diff != "" {
		t.Errorf("the others: %v\n%s", r.err, diff)
	}
	var sent []string
	for _, m := range dev.Sent() {
		sent = append(sent, string(m.Payload))
	}
	if strings.Join(sent, "") != "abc" {
		t.Errorf("sent %q", sent)
	}
}

func TestAPluginThatBreaksTheProtocolIsEnded(t *testing.T) {
	one := &pluginv1.Message{Payload: []byte("x")}
	many := func(n int) []*pluginv1.Message {
		ms := make([]*pluginv1.Message, n)
		for i := range ms {
			ms[i] = one
		}
		return ms
	}
	tests := []struct {
		name string
		play func(stream) error
		full bool
		want string
	}{
		{name: "gap in the tags", play: func(s stream) error { return s.Send(messages(2, one)) }, want: "not numbered in order"},
		{name: "tags again", play: func(s stream) error { return errors.Join(s.Send(messages(1, one)), s.Send(messages(1, one))) }, want: "not numbered in order"},
		{name: "more than its credit", full: true, play: func(s stream) error {
			for i := range 5 {
				if err := s.Send(messages(uint64(1+i*1000), many(1000)...)); err != nil {
					return err
				}
			}
			return nil
		}, want: "more messages than it had credit for"},
		{name: "a frame without end", play: func(s stream) error {
			return s.Send(messages(1, &pluginv1.Message{Payload: make([]byte, 8<<20)}))
		}, want: "larger than max"},
		{name: "a batch that is too large", play: func(s stream) error {
			large := &pluginv1.Message{Payload: make([]byte, 200<<10)}
			return s.Send(messages(1, large, large, large, large, large, large))
		}, want: "more than 1 MiB"},
		{name: "registers again", play: func(s stream) error { return s.Send(register()) }, want: "registered twice"},
		{name: "does not read", play: func(s stream) error {
			for i := 0; ; i++ {
				if err := s.Send(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Request{Request: &pluginv1.Request{
					Id: uint64(i), Request: &pluginv1.Request_Twin{Twin: &pluginv1.TwinRequest{}},
				}}}); err != nil {
					return err
				}
			}
		}, want: "does not read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			began := make(chan struct{})
			p, dev := attachScript(t, host.Config{}, func(s stream) error {
				<-began
				if err := tt.play(s); err != nil {
					return err
				}
				return idle(s)
			})
			dev.Full(tt.full)
			close(began)
			err := waitDone(t, p)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestStrangeFramesAreHarmless(t *testing.T) {
	done := make(chan error, 1)
	p, dev := attachScript(t, host.Config{}, func(s stream) error {
		frames := []*pluginv1.SessionResponse{
			{}, // a frame of a later protocol
			messages(1),
			{Frame: &pluginv1.SessionResponse_Return{Return: &pluginv1.Return{Id: 99}}},
			{Frame: &pluginv1.SessionResponse_Cancel{Cancel: &pluginv1.Cancel{Id: 99}}},
			{Frame: &pluginv1.SessionResponse_Withdraw{Withdraw: &pluginv1.Withdraw{Tag: 0}}},
			{Frame: &pluginv1.SessionResponse_Withdraw{Withdraw: &pluginv1.Withdraw{Tag: 1 << 60}}},
			{Frame: &pluginv1.SessionResponse_Pong{Pong: &pluginv1.Pong{Number: 99}}},
			{Frame: &pluginv1.SessionResponse_Drained{Drained: &pluginv1.Drained{}}},
			{Frame: &pluginv1.SessionResponse_Drained{Drained: &pluginv1.Drained{}}},
			{Frame: &pluginv1.SessionResponse_Metric{}},
			{Frame: &pluginv1.SessionResponse_Log{}},
			messages(1, &pluginv1.Message{Payload: []byte("still here")}),
		}
		for _, f := range frames {
			if err := s.Send(f); err != nil {
				done <- err
				return err
			}
		}
		_, err := settledUpTo(s, 1)
		done <- err
		return idle(s)
	})
	if err := <-done; err != nil {
		t.Errorf("the stream ended: %v, %v", err, p.Err())
	}
	if n := len(dev.Sent()); n != 1 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestAMethodAnswerThatTheHubWouldNotTakeIsA500(t *testing.T) {
	jsonOf := func(bytes int) string { return `"` + strings.Repeat("x", bytes-2) + `"` }
	answers := map[string]string{"bad": "{oops", "longest": jsonOf(128 << 10), "too long": jsonOf(128<<10 + 1)}
	p, _ := attachScript(t, host.Config{}, func(s stream) error {
		for {
			f, err := s.Recv()
			if err != nil {
				return nil
			}
			if c := f.GetCall(); c != nil {
				if err := s.Send(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Return{
					Return: &pluginv1.Return{Id: c.GetId(), Status: 200, Payload: []byte(answers[c.GetMethod().GetName()])},
				}}); err != nil {
					return err
				}
			}
		}
	})
	for _, tt := range []struct {
		name   string
		status int
		answer string
	}{
		{"bad", 500, `{"error":"the plugin's answer is not JSON"}`},
		{"longest", 200, answers["longest"]},
		{"too long", 500, `{"error":"the plugin's answer has 131073 bytes; the hub takes at most 131072"}`},
	} {
		if status, answer := method(t, p, tt.name, `{}`); status != tt.status || answer != tt.answer {
			t.Errorf("%s: %d %.100s, want %d %.100s", tt.name, status, answer, tt.status, tt.answer)
		}
	}
}

// tellingDevice tells of each Submit.
type tellingDevice struct {
	*sdktest.Device
	submitted chan struct{}
}

func (d *tellingDevice) Submit(ctx context.Context, by core.Settler, first uint64, batch []*core.Message) error {
	err := d.Device.Submit(ctx, by, first, batch)
	select {
	case d.submitted <- struct{}{}:
	case <-ctx.Done():
	}
	return err
}

// What is not counted as credit must not be a way around it.
func TestWhatIsOnlyInwardIsNotTakenOver(t *testing.T) {
	_, dev := attachScript(t, host.Config{}, func(s stream) error {
		long := strings.Repeat("x", 1<<20)
		if err := s.Send(messages(1, &pluginv1.Message{To: long, Ack: long, Input: long, Payload: []byte("a")})); err != nil {
			return err
		}
		return idle(s)
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sent, err := dev.WaitSent(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if m := sent[0]; m.To != "" || m.Ack != "" || m.Input != "" || string(m.Payload) != "a" {
		t.Errorf("to %d bytes, ack %d, input %d, payload %q", len(m.To), len(m.Ack), len(m.Input), m.Payload)
	}
}

func TestLongMetricsAreDropped(t *testing.T) {
	metrics := make(chan host.Metric, 3)
	attachScript(t, host.Config{Metric: func(m host.Metric) { metrics <- m }}, func(s stream) error {
		for _, m := range []*pluginv1.Metric{
			{Name: strings.Repeat("x", 1<<20)}, {Name: "y", Labels: map[string]string{"z": strings.Repeat("x", 1<<10)}}, {Name: "good"},
		} {
			if err := s.Send(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Metric{Metric: m}}); err != nil {
				return err
			}
		}
		return idle(s)
	})
	if m := <-metrics; m.Name != "good" {
		t.Errorf("%.20s… was observed", m.Name)
	}
}

func TestAPluginThatDoesNotReadWhatBecameOfItsMessagesIsEnded(t *testing.T) {
	dev := &tellingDevice{Device: sdktest.NewDevice(), submitted: make(chan struct{})}
	p := attachTo(t, dev, host.Config{}, func(s stream) error {
		// Good and bad ones in turn, so that nothing can be merged.
		var batch []*pluginv1.Message
		for range 256 {
			batch = append(batch, &pluginv1.Message{}, &pluginv1.Message{Properties: map[string]string{"$.on": "x"}})
		}
		for first := uint64(1); ; first += uint64(len(batch)) {
			if err := s.Send(messages(first, batch...)); err != nil {
				return err
			}
			for range len(batch) / 2 { // so it has credit, although it does not read of it
				select {
				case <-dev.submitted:
				case <-s.Context().Done():
					return nil
				}
			}
		}
	})
	if err := waitDone(t, p); err == nil || !strings.Contains(err.Error(), "does not read") {
		t.Errorf("the plugin ended with %v", err)
	}
}

func TestAFloodIsHeldBackAndThePluginStillAnswers(t *testing.T) {
	cfg := config(t, "plugin")
	cfg.Settings = json.RawMessage(`{"flood":true}`)
	counted := &countingHandler{}
	cfg.Logger = slog.New(counted)
	metrics := make(chan struct{}, 1<<20)
	cfg.Metric = func(host.Metric) { metrics <- struct{}{} }
	debug.FreeOSMemory()
	before := residentBytes(t)
	dev := sdktest.NewDevice()
	dev.Full(true) // the outbox takes nothing

	began := time.Now() // the rates count from the launch on
	p, err := host.New(cfg).Launch(t.Context(), dev)
	if err != nil {
		t.Fatal(err)
	}
	for flooded := time.Now(); time.Since(flooded) < time.Second; {
		if status, _ := method(t, p, "echo", `1`); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	closePlugin(t, p, time.Second)
	took := int(time.Since(began).Seconds()) + 1
	// stderr and log lines have 500 at once and 50 per second each; metrics 10,000 and 1,000.
	if n := int(counted.n.Load()); n > 2*(500+50*took)+10 {
		t.Errorf("%d log records in %d s: the rate limit does not hold", n, took)
	}
	if n := len(metrics); n > 10_000+1000*took {
		t.Errorf("%d metrics in %d s: the rate limit does not hold", n, took)
	}
	if grown := residentBytes(t) - before; grown > 150<<20 {
		t.Errorf("the host grew by %d MiB", grown>>20)
	}
}

func residentBytes(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("no /proc")
	}
	var size, resident int
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize()
}
