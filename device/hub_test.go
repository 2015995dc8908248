package device_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/internal/bubble"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// startOnHub makes a client with the real transport and credentials on a real hub, all within the bubble.
func startOnHub(t *testing.T, ttl time.Duration) (*device.Client, *hubtest.Hub) {
	t.Helper()
	hub := hubtest.StartPipe(t)
	cs, err := credentials.ParseConnectionString(hub.AddDevice("dev1"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := credentials.NewSharedKey(cs.Identity, cs.Key, ttl, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := mqtt.New(mqtt.Config{
		Identity: cs.Identity, TLS: netdial.TLSConfig{ServerVerificationCert: hub.CAPEM()}, DialContext: hub.DialContext,
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := device.DefaultConfig()
	cfg.Identity, cfg.Credentials, cfg.Transports = cs.Identity, source, []core.Transport{transport}
	c, err := device.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return c, hub
}

// numbers returns the numbers that the hub received as telemetry.
func numbers(t *testing.T, hub *hubtest.Hub) []int {
	t.Helper()
	messages, err := hub.Telemetry(api.MessageFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, m := range messages {
		n, err := strconv.Atoi(string(m.Body))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// Tokens live for a minute; for ten minutes telemetry flows and methods are called, and nobody notices the renewals.
func TestTokensOfAMinuteRenewForTenMinutesUnnoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := startOnHub(t, time.Minute)
		c.HandleMethod("echo", func(_ context.Context, p json.RawMessage) (int, any, error) { return 200, p, nil })
		var states []string
		defer c.OnConnection(func(s core.Connection) { states = append(states, s.State.String()) })()
		synctest.Wait()
		defer c.OnBackgroundError(func(err error) { t.Errorf("background error: %v", err) })()
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()

		end := time.Now().Add(10 * time.Minute)
		var work sync.WaitGroup
		var longest time.Duration
		work.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				began := time.Now()
				if err := c.Send(t.Context(), text(fmt.Sprint(i))); err != nil {
					t.Errorf("send %d: %v", i, err)
					return
				}
				longest = max(longest, time.Since(began))
				time.Sleep(50 * time.Millisecond)
			}
		})
		work.Go(func() {
			limit := 5
			for i := 0; time.Now().Before(end); i++ {
				r, err := hub.CallMethod(t.Context(), "dev1", api.MethodRequest{
					MethodName: "echo", Payload: []byte(strconv.Itoa(i)), ConnectTimeoutInSeconds: &limit, ResponseTimeoutInSeconds: &limit,
				})
				if err != nil || r.Status != 200 {
					t.Errorf("method %d: status %d, %v", i, r.Status, err)
					return
				}
				time.Sleep(70 * time.Millisecond)
			}
		})
		work.Wait()

		got := numbers(t, hub)
		if unique := slices.Compact(slices.Clone(got)); len(unique) != got[len(got)-1]+1 || !slices.IsSorted(got) {
			t.Errorf("the hub has %d messages, %d different, the last is %d", len(got), len(unique), got[len(got)-1])
		}
		s, err := c.Engine().Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := s.Machine.Counters
		if n.Renewals < 10 || n.Losses != 0 || n.Sessions != n.Renewals+1 {
			t.Errorf("%d sessions, %d renewals, %d losses", n.Sessions, n.Renewals, n.Losses)
		}
		if shown := strings.Join(states, " "); strings.Contains(strings.TrimPrefix(shown, "disconnected connecting "), " ") {
			t.Errorf("states shown: %s", shown)
		}
		if longest > time.Second {
			t.Errorf("a send took %v", longest)
		}
		t.Logf("%d renewals, %d messages, the longest send took %v", n.Renewals, len(got), longest)
	})
}

func TestWhatIsSentDuringACutArrivesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := startOnHub(t, time.Hour)
		var versions []int64
		c.HandleDesired(func(_ context.Context, d core.Desired) error {
			versions = append(versions, d.Version)
			return nil
		})
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		go func() {
			time.Sleep(2 * time.Second)
			hub.Fault(api.Fault{Name: api.FaultCut, Device: "dev1", Duration: api.Duration(10 * time.Second)})
			time.Sleep(5 * time.Second)
			if _, err := hub.PatchTwin("dev1", []byte(`{"properties":{"desired":{"mode":"eco"}}}`)); err != nil {
				t.Error(err)
			}
		}()
		for i := range 300 {
			if err := c.Send(t.Context(), text(fmt.Sprint(i))); err != nil {
				t.Fatalf("send %d: %v", i, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		got := numbers(t, hub)
		if unique := slices.Compact(slices.Clone(got)); !slices.IsSorted(got) || len(unique) != 300 {
			t.Errorf("the hub has %d messages, %d different: %v", len(got), len(unique), got)
		}
		if fmt.Sprint(versions) != "[1 2]" {
			t.Errorf("desired versions handed over: %v", versions)
		}
	})
}

// The bubble does not end before each goroutine of the hundred sessions has.
func TestAHundredCutsOfARealSessionLeakNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := startOnHub(t, time.Hour)
		c.HandleMethod("m", func(context.Context, json.RawMessage) (int, any, error) { return 200, nil, nil })
		c.HandleDesired(func(context.Context, core.Desired) error { return nil })
		if err := c.Send(t.Context(), text("0")); err != nil {
			t.Fatal(err)
		}
		settled := func() []string {
			time.Sleep(2 * time.Minute) // whatever still waits for a limit, and the back-off
			synctest.Wait()
			return bubble.Goroutines()
		}
		before := settled()
		for i := range 100 {
			hub.Fault(api.Fault{Name: api.FaultCut, Device: "dev1"})
			if err := c.Send(t.Context(), text(strconv.Itoa(i+1))); err != nil {
				t.Fatalf("send after cut %d: %v", i+1, err)
			}
		}
		if after := settled(); len(before) == 0 || len(after) > len(before) {
			t.Errorf("%d goroutines after a hundred cuts, %d before:\n%s", len(after), len(before), strings.Join(after, "\n\n"))
		}
		s, err := c.Engine().Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Machine.Counters; n.Losses < 100 || n.Sessions < 101 {
			t.Errorf("%d losses and %d sessions: not every cut was one", n.Losses, n.Sessions)
		}
	})
}

func TestMessagesToTheDeviceSurviveALostSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := startOnHub(t, time.Hour)
		release := make(chan struct{})
		var seen []string
		c.HandleMessages(func(_ context.Context, m *device.Message) error {
			seen = append(seen, m.ID+" "+m.Properties["k"]+" "+string(m.Payload))
			if m.ID == "1" {
				<-release
			}
			return nil
		})
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		value := "a/b c"
		for i := range 3 {
			if err := hub.SendC2D("dev1", api.C2D{MessageID: fmt.Sprint(i), Body: []byte("x"), Properties: map[string]*string{"k": &value}}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		hub.Fault(api.Fault{Name: api.FaultCut, Device: "dev1", Count: 1})
		time.Sleep(5 * time.Second) // the session is back, message 1 still in its handler
		close(release)
		hub.WaitCounters("dev1", func(n api.Counters) bool { return n.C2DCompleted == 3 })
		if fmt.Sprint(seen) != "[0 a/b c x 1 a/b c x 2 a/b c x]" {
			t.Errorf("the handler saw %v: one that comes again during its open call joins it", seen)
		}
	})
}
