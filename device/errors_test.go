package device_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/coretest"
	"github.com/fairlead-iot/fairlead/device"
)

func noRetry(cfg *device.Config, _ *coretest.Hub) { cfg.ConnectionRetry = false }

// Each cause gives the error that a program can tell it by, and the detail that says what to do.
func TestErrorsAreToldApart(t *testing.T) {
	unauthorized := &core.Error{Op: "connect", Phase: "mqtt", Kind: core.Unauthorized, Status: 5, Err: errors.New("the hub refused the credential")}
	unresolved := &core.Error{Op: "dial hub", Phase: "dns", Kind: core.Transient, Err: errors.New("no such host")}
	throttled := &core.Error{Op: "connect", Kind: core.Throttled, Status: 429, RetryAfter: 7 * time.Second}
	for _, c := range []struct {
		name   string
		config func(*device.Config, *coretest.Hub)
		do     func(t *testing.T, c *device.Client, hub *coretest.Hub) error
		is     []error
		isNot  error
		detail device.Error // what errors.As finds, as far as it is set
	}{
		{
			name: "the credential is refused", config: noRetry,
			do: func(t *testing.T, c *device.Client, hub *coretest.Hub) error {
				hub.Refuse(unauthorized)
				return c.Connect(t.Context())
			},
			is: []error{device.ErrCredential, device.ErrConnectionFailed}, detail: device.Error{Kind: device.Unauthorized, Status: 5, Phase: "mqtt"},
		},
		{
			name: "a message finds the credential refused", config: noRetry,
			do: func(t *testing.T, c *device.Client, hub *coretest.Hub) error {
				hub.Refuse(unauthorized)
				return c.Send(t.Context(), text("x"))
			},
			is: []error{device.ErrCredential}, detail: device.Error{Kind: device.Unauthorized, Status: 5},
		},
		{
			name: "no way to the hub", config: noRetry,
			do: func(t *testing.T, c *device.Client, hub *coretest.Hub) error {
				hub.Refuse(unresolved)
				return c.Connect(t.Context())
			},
			is: []error{device.ErrConnectionFailed}, isNot: device.ErrCredential, detail: device.Error{Phase: "dns"},
		},
		{
			name: "the hub has too much to do", config: noRetry,
			do: func(t *testing.T, c *device.Client, hub *coretest.Hub) error {
				hub.Refuse(throttled)
				return c.Connect(t.Context())
			},
			is: []error{device.ErrConnectionFailed}, detail: device.Error{Kind: device.Throttled, Status: 429, RetryAfter: 7 * time.Second},
		},
		{
			name: "the session is lost meanwhile", config: noRetry,
			do: func(t *testing.T, c *device.Client, hub *coretest.Hub) error {
				hub.Withhold(true)
				go func() {
					time.Sleep(time.Second)
					hub.Lose(reset())
				}()
				return c.Send(t.Context(), text("x"))
			},
			is: []error{device.ErrConnectionDropped}, isNot: device.ErrConnectionFailed,
		},
		{
			name: "the deadline comes first",
			do: func(t *testing.T, c *device.Client, hub *coretest.Hub) error {
				hub.Refuse(unresolved, unresolved, unresolved, unresolved, unresolved)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := c.GetTwin(ctx)
				return err
			},
			is: []error{device.ErrTimeout, context.DeadlineExceeded},
		},
		{
			name: "the caller gives up",
			do: func(t *testing.T, c *device.Client, hub *coretest.Hub) error {
				hub.Refuse(unresolved, unresolved, unresolved, unresolved, unresolved)
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				return c.Connect(ctx)
			},
			is: []error{device.ErrCancelled, context.Canceled}, isNot: device.ErrTimeout,
		},
		{
			name: "a disconnect comes first",
			do: func(t *testing.T, c *device.Client, hub *coretest.Hub) error {
				connect(t, c)
				hub.Withhold(true)
				go func() {
					time.Sleep(time.Second)
					_ = c.Disconnect(t.Context())
				}()
				return c.Send(t.Context(), text("x"))
			},
			is: []error{device.ErrCancelled},
		},
		{
			name: "not connected", config: func(cfg *device.Config, _ *coretest.Hub) { cfg.AutoConnect = false },
			do: func(t *testing.T, c *device.Client, _ *coretest.Hub) error {
				_, err := c.PatchReported(t.Context(), map[string]int{"a": 1})
				return err
			},
			is: []error{device.ErrNotConnected},
		},
		{
			name: "shut down",
			do: func(t *testing.T, c *device.Client, _ *coretest.Hub) error {
				if err := c.Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				for name, err := range map[string]error{"connect": c.Connect(t.Context()), "disconnect": c.Disconnect(t.Context())} {
					if !errors.Is(err, device.ErrClosed) {
						t.Errorf("%s after a shutdown: %v", name, err)
					}
				}
				if _, err := c.GetTwin(t.Context()); !errors.Is(err, device.ErrClosed) {
					t.Errorf("get twin after a shutdown: %v", err)
				}
				if c.Connected() {
					t.Error("connected after a shutdown")
				}
				return c.Send(t.Context(), text("x"))
			},
			is: []error{device.ErrClosed},
		},
		{
			name: "a report that does not marshal",
			do: func(t *testing.T, c *device.Client, _ *coretest.Hub) error {
				_, err := c.PatchReported(t.Context(), map[string]any{"f": func() {}})
				return err
			},
			is: []error{device.ErrInvalid},
		},
		{
			name: "a property with a name of the hub's",
			do: func(t *testing.T, c *device.Client, _ *coretest.Hub) error {
				return c.Send(t.Context(), &device.Message{Properties: map[string]string{"$.mid": "1"}})
			},
			is: []error{device.ErrInvalid},
		},
		{
			name: "more properties than a topic holds",
			do: func(t *testing.T, c *device.Client, _ *coretest.Hub) error {
				return c.Send(t.Context(), &device.Message{Properties: map[string]string{"a": strings.Repeat("%", 30_000)}})
			},
			is: []error{device.ErrTooLarge},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.config == nil {
					c.config = func(*device.Config, *coretest.Hub) {}
				}
				client, hub := start(t, c.config)
				err := c.do(t, client, hub)
				for _, is := range c.is {
					if !errors.Is(err, is) {
						t.Errorf("err = %v, want %v", err, is)
					}
				}
				if c.isNot != nil && errors.Is(err, c.isNot) {
					t.Errorf("err = %v, which is also %v", err, c.isNot)
				}
				if c.detail == (device.Error{}) {
					return
				}
				d, ok := errors.AsType[*device.Error](err)
				if !ok {
					t.Fatalf("%v has no *Error", err)
				}
				if d.Kind != c.detail.Kind || d.Status != c.detail.Status || d.RetryAfter != c.detail.RetryAfter ||
					c.detail.Phase != "" && d.Phase != c.detail.Phase {
					t.Errorf("detail %+v, want %+v", d, c.detail)
				}
			})
		})
	}
}

func TestTheHubsRefusalHasItsStatusAndTrackingID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := startOnHub(t, time.Hour)
		_, err := c.PatchReported(t.Context(), map[string]string{"long": strings.Repeat("x", 5000)})
		d, ok := errors.AsType[*device.Error](err)
		if !errors.Is(err, device.ErrService) || !ok || d.Status != 400 || d.TrackingID == "" || !strings.Contains(err.Error(), "4096") {
			t.Errorf("err = %v, detail %+v", err, d)
		}
	})
}

func TestBackgroundErrorsHaveTheirKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		var got []error
		defer c.OnBackgroundError(func(err error) { got = append(got, err) })()
		hub.Refuse(&core.Error{Op: "connect", Phase: "mqtt", Kind: core.Unauthorized, Status: 5, Err: errors.New("not authorized")})
		connect(t, c)
		hub.Lose(reset())
		synctest.Wait()
		if len(got) != 2 {
			t.Fatalf("background errors: %v", got)
		}
		d, _ := errors.AsType[*device.Error](got[0])
		if !errors.Is(got[0], device.ErrCredential) || d == nil || d.Status != 5 || d.Kind != device.Unauthorized {
			t.Errorf("the first: %v, %+v", got[0], d)
		}
		if d, ok := errors.AsType[*device.Error](got[1]); !ok || d.Kind != device.Transient || errors.Is(got[1], device.ErrCredential) {
			t.Errorf("the second: %v", got[1])
		}
	})
}

func TestTheStateHasReasonSinceAndNextAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		if c.Connected() {
			t.Error("connected before anything was asked")
		}
		var states []device.Connection
		defer c.OnConnection(func(s device.Connection) { states = append(states, s) })()
		connect(t, c)
		if !c.Connected() {
			t.Error("not connected after Connect")
		}
		refused := &core.Error{Op: "dial hub", Kind: core.Transient, Err: errors.New("connection refused")}
		hub.Refuse(refused, refused)
		hub.Lose(reset())
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		s, err := c.Connection(t.Context())
		if err != nil || s.State != device.StateWaiting || !strings.Contains(s.Reason, "connection refused") || s.NextAttempt <= 0 || s.NextAttempt > time.Second || s.Since < 50*time.Millisecond {
			t.Errorf("connection %+v, %v", s, err)
		}
		if c.Connected() {
			t.Error("connected although the session is lost")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if last := states[len(states)-1]; last.State != device.StateConnected {
			t.Errorf("the watcher saw last: %+v", last)
		}
		for i := 1; i < len(states); i++ {
			if states[i].State == states[i-1].State && states[i].Reason == states[i-1].Reason {
				t.Errorf("told twice of %+v", states[i])
			}
		}
	})
}
