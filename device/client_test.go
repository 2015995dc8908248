package device_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/coretest"
	"github.com/fairlead-iot/fairlead/core/engine"
	"github.com/fairlead-iot/fairlead/device"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start makes a client on a fake hub within the bubble, and shuts it down at its end.
func start(t *testing.T, change ...func(*device.Config, *coretest.Hub)) (*device.Client, *coretest.Hub) {
	t.Helper()
	hub := coretest.NewHub()
	cfg := device.DefaultConfig()
	cfg.Identity = core.Identity{Hostname: "hub", DeviceID: "dev1"}
	cfg.Credentials, cfg.Transports = hub, []core.Transport{hub}
	for _, f := range change {
		f(&cfg, hub)
	}
	c, err := device.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Shutdown(context.WithoutCancel(t.Context())) })
	return c, hub
}

func text(s string) *device.Message { return &device.Message{Payload: []byte(s)} }

func payloads(h *coretest.Hub) []string {
	s, _ := h.State()
	var out []string
	for _, m := range s.Received {
		out = append(out, string(m.Payload))
	}
	return out
}

func reset() error {
	return &core.Error{Op: "read", Kind: core.Transient, Err: errors.New("connection reset")}
}

func TestSendConnectsByItselfAndReturnsWhenTheHubHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		if err := c.Send(t.Context(), text("one")); err != nil {
			t.Fatalf("send: %v", err)
		}
		if got := payloads(hub); fmt.Sprint(got) != "[one]" {
			t.Errorf("the hub has %v", got)
		}
	})
}

func TestWithoutAutoConnectASendSaysNotConnectedAndIsNeverSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t, func(cfg *device.Config, _ *coretest.Hub) { cfg.AutoConnect = false })
		if err := c.Send(t.Context(), text("ghost")); !errors.Is(err, core.ErrNotConnected) {
			t.Fatalf("send without a session: %v, want ErrNotConnected", err)
		}
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(t.Context(), text("real")); err != nil {
			t.Fatal(err)
		}
		if got := payloads(hub); fmt.Sprint(got) != "[real]" {
			t.Errorf("the hub has %v, the refused message among them", got)
		}
	})
}

func TestACancelledSendIsNotSentLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		hub.Refuse(reset(), reset(), reset())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.Send(ctx, text("ghost"))
		if !errors.Is(err, core.ErrCancelled) || !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "may have it") {
			t.Fatalf("send while offline: %v, want cancelled by the deadline and surely not sent", err)
		}
		if err := c.Send(t.Context(), text("later")); err != nil {
			t.Fatal(err)
		}
		if got := payloads(hub); fmt.Sprint(got) != "[later]" {
			t.Errorf("the hub has %v", got)
		}
	})
}

func TestACancelledSendThatWasUnderWaySaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		hub.Withhold(true)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := c.Send(ctx, text("maybe")); !errors.Is(err, core.ErrCancelled) || !strings.Contains(err.Error(), "the hub may have it") {
			t.Fatalf("send without an acknowledgement: %v", err)
		}
		hub.Withhold(false)
		hub.Lose(reset())
		if err := c.Send(t.Context(), text("later")); err != nil {
			t.Fatal(err)
		}
		if got := payloads(hub); fmt.Sprint(got) != "[maybe later]" {
			t.Errorf("the hub has %v: the withdrawn message was sent again", got)
		}
	})
}

func TestWhatALostSessionLeftUnacknowledgedIsSentAgainInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		hub.Withhold(true)
		results := make(chan error, 3)
		for i := range 3 {
			go func() { results <- c.Send(t.Context(), text(fmt.Sprint(i))) }()
			synctest.Wait()
		}
		hub.Withhold(false)
		hub.Lose(reset())
		for range 3 {
			if err := <-results; err != nil {
				t.Fatal(err)
			}
		}
		if got := payloads(hub); fmt.Sprint(got) != "[0 1 2 0 1 2]" {
			t.Errorf("the hub has %v", got)
		}
		s, _ := hub.State()
		if s.Received[0].ID == "" || s.Received[0].ID != s.Received[3].ID {
			t.Errorf("message ids %q and %q: a message keeps its id when it is sent again", s.Received[0].ID, s.Received[3].ID)
		}
	})
}

func TestAFullOutboxHoldsTheSenderBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t, func(cfg *device.Config, _ *coretest.Hub) { cfg.OutboxMessages = 2 })
		hub.Withhold(true)
		for i := range 2 {
			go func() { _ = c.Send(t.Context(), text(fmt.Sprint(i))) }()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Send(ctx, text("3")); !errors.Is(err, core.ErrTimeout) {
			t.Fatalf("third send: %v, want it to wait for room until its context ended", err)
		}
		hub.Withhold(false)
		hub.Lose(reset())
		if err := c.Send(t.Context(), text("4")); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAMessageTooLargeIsRefusedBeforeItIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		m := &device.Message{Payload: make([]byte, core.MaxMessageSize-3), Properties: map[string]string{"ab": "cd"}}
		if err := c.Send(t.Context(), m); !errors.Is(err, core.ErrTooLarge) {
			t.Fatalf("send: %v", err)
		}
		if s, _ := hub.State(); s.Sessions != 0 {
			t.Errorf("%d sessions for a message that can't be sent", s.Sessions)
		}
	})
}

func TestAShutdownSaysHowManyMessagesAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		hub.Withhold(true)
		result := make(chan error, 2)
		for range 2 {
			go func() { result <- c.Send(t.Context(), text("x")) }()
		}
		synctest.Wait()
		began := time.Now()
		err := c.Shutdown(t.Context())
		if !errors.Is(err, engine.ErrUnsent) || !strings.HasPrefix(err.Error(), "2 ") {
			t.Errorf("shutdown: %v, want 2 unsent", err)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("shutdown took %v", d)
		}
		for range 2 {
			if err := <-result; !errors.Is(err, core.ErrClosed) {
				t.Errorf("send: %v, want ErrClosed", err)
			}
		}
		if err := c.Send(t.Context(), text("late")); !errors.Is(err, core.ErrClosed) {
			t.Errorf("send after the shutdown: %v", err)
		}
		if _, err := c.GetTwin(t.Context()); !errors.Is(err, core.ErrClosed) {
			t.Errorf("get twin after the shutdown: %v", err)
		}
	})
}

func TestAShutdownDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		hub.Refuse(reset(), reset())
		result := make(chan error, 1)
		go func() { result <- c.Send(t.Context(), text("x")) }()
		synctest.Wait()
		if err := c.Shutdown(t.Context()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-result; err != nil {
			t.Errorf("send: %v", err)
		}
	})
}

func TestMethodsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		c.HandleMethod("echo", func(_ context.Context, p json.RawMessage) (int, any, error) { return 200, p, nil })
		c.HandleMethod("fails", func(context.Context, json.RawMessage) (int, any, error) { return 0, nil, errors.New("no water") })
		c.HandleMethod("panics", func(context.Context, json.RawMessage) (int, any, error) { panic("at the disco") })
		c.HandleMethod("hangs", func(ctx context.Context, _ json.RawMessage) (int, any, error) {
			<-ctx.Done()
			return 200, nil, nil
		})
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for i, name := range []string{"echo", "fails", "panics", "nobody", "hangs"} {
			hub.Push(core.Inbound{Kind: core.InboundMethod, Method: name, RequestID: fmt.Sprint(i), Payload: []byte(`{"a":1}`)})
			synctest.Wait()
		}
		time.Sleep(26 * time.Second)
		synctest.Wait()
		s, _ := hub.State()
		var got []string
		for _, a := range s.Answers {
			got = append(got, fmt.Sprintf("%s %d %s", a.RequestID, a.Status, a.Payload))
		}
		want := []string{
			`0 200 {"a":1}`, `1 500 {"error":"no water"}`, `2 500 {"error":"handler panicked: at the disco"}`,
			`3 404 {"error":"no plugin handles the method \"nobody\""}`, `4 504 {"error":"plugin \"(this process)\" gave no answer in time"}`,
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("answers:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestMessagesAreCompletedInTheOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		var seen []string
		c.HandleMessages(func(_ context.Context, m *device.Message) error {
			seen = append(seen, string(m.Payload))
			if string(m.Payload) == "2" && len(seen) < 4 {
				return device.ErrAbandon
			}
			return nil
		})
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			hub.Push(core.Inbound{Kind: core.InboundMessage, Token: uint64(i), Message: &core.Message{ID: fmt.Sprint(i), Payload: []byte(fmt.Sprint(i))}})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if fmt.Sprint(seen) != "[0 1 2 2 3]" {
			t.Errorf("handler saw %v", seen)
		}
		if s, _ := hub.State(); fmt.Sprint(s.Completed) != "[0 1 2 3]" {
			t.Errorf("completed %v", s.Completed)
		}
	})
}

func TestDesiredPropertiesArriveOnceWhateverTheSessionDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		hub.SetDesired(map[string]any{"interval": 5}, false)
		var got []string
		c.HandleDesired(func(_ context.Context, d core.Desired) error {
			got = append(got, fmt.Sprintf("v%d %s patch %s", d.Version, d.Document, d.Patch))
			return nil
		})
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		hub.Lose(reset())
		hub.SetDesired(map[string]any{"mode": "eco"}, false) // while the link is down
		time.Sleep(5 * time.Second)
		synctest.Wait()
		hub.Lose(reset())
		time.Sleep(5 * time.Second)
		synctest.Wait()
		want := []string{`v2 {"interval":5} patch `, `v3 {"interval":5,"mode":"eco"} patch {"mode":"eco"}`}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("handler was given:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestARenewalIsNotALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t, func(_ *device.Config, h *coretest.Hub) { h.Life = time.Minute })
		var states []string
		stop := c.OnConnection(func(s core.Connection) { states = append(states, s.State.String()) })
		defer stop()
		stopErrors := c.OnBackgroundError(func(err error) { t.Errorf("background error: %v", err) })
		defer stopErrors()
		synctest.Wait()
		sent := 0
		for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if err := c.Send(t.Context(), text("x")); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		synctest.Wait()
		s, _ := hub.State()
		if s.Sessions < 10 || len(s.Received) != sent {
			t.Errorf("%d sessions, %d messages received of %d sent", s.Sessions, len(s.Received), sent)
		}
		// A watcher may miss a state that lasts no time.
		if got := strings.Join(states, " "); strings.Replace(got, "connecting ", "", 1) != "disconnected connected" {
			t.Errorf("states shown: %s", got)
		}
	})
}

func TestTwinRequestsSurviveALostSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		if _, err := c.PatchReported(t.Context(), map[string]any{"fw": "1.2"}); err != nil {
			t.Fatal(err)
		}
		hub.Lose(reset())
		twin, err := c.GetTwin(t.Context())
		if err != nil || !strings.Contains(string(twin.Reported), `"fw":"1.2"`) {
			t.Errorf("twin %s: %v", twin.Reported, err)
		}
		if _, err := c.PatchReported(t.Context(), []int{1}); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("report of an array: %v", err)
		}
	})
}

func TestDisconnectStaysUntilAnOperationAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Disconnect(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if s, _ := hub.State(); s.Sessions != 1 {
			t.Errorf("%d sessions after a disconnect", s.Sessions)
		}
		if err := c.Send(t.Context(), text("again")); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAHundredLossesLeakNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		c.HandleMethod("m", func(context.Context, json.RawMessage) (int, any, error) { return 200, nil, nil })
		for range 100 {
			if err := c.Send(t.Context(), text("x")); err != nil {
				t.Fatal(err)
			}
			hub.Lose(reset())
		}
	})
}

func TestAShutdownLetsHandlersFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		c.HandleMethod("slow", func(context.Context, json.RawMessage) (int, any, error) {
			time.Sleep(3 * time.Second)
			return 200, "done", nil
		})
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		hub.Push(core.Inbound{Kind: core.InboundMethod, Method: "slow", RequestID: "1"})
		synctest.Wait()
		if err := c.Shutdown(t.Context()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if s, _ := hub.State(); len(s.Answers) != 1 || s.Answers[0].Status != 200 {
			t.Errorf("answers: %+v", s.Answers)
		}
	})
}

func TestAHandlerMayShutTheClientDownAndOneThatHangsDoesNotStopIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		release, ended := make(chan struct{}), make(chan error, 1)
		c.HandleMethod("off", func(context.Context, json.RawMessage) (int, any, error) {
			ended <- c.Shutdown(context.WithoutCancel(t.Context()))
			return 200, nil, nil
		})
		c.HandleMethod("hangs", func(context.Context, json.RawMessage) (int, any, error) {
			<-release
			return 200, nil, nil
		})
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		hub.Push(core.Inbound{Kind: core.InboundMethod, Method: "hangs", RequestID: "1"})
		hub.Push(core.Inbound{Kind: core.InboundMethod, Method: "off", RequestID: "2"})
		began := time.Now()
		if err := <-ended; err != nil || time.Since(began) > 10*time.Second {
			t.Errorf("shutdown took %v: %v", time.Since(began), err)
		}
		if s, _ := hub.State(); len(s.Answers) != 2 || s.Answers[0].Status != 503 || s.Answers[1].Status != 503 {
			t.Errorf("answers: %+v, want that the runtime speaks for both", s.Answers)
		}
		close(release)
	})
}
