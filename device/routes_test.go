package device_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core/engine"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// site is a hub behind a firewall that swallows what goes by the first of two routes, as long as it is shut.
type site struct {
	hub    *hubtest.Hub
	text   string // the connection string
	isShut atomic.Bool
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{hub: hubtest.StartPipe(t)}
	s.text = s.hub.AddDevice("dev1")
	s.isShut.Store(true)
	return s
}

// client makes a client with both routes, which begins with the remembered one.
func (s *site) client(t *testing.T, remembered string, change ...func(*device.Config)) *device.Client {
	t.Helper()
	cs, err := credentials.ParseConnectionString(s.text)
	if err != nil {
		t.Fatal(err)
	}
	source, err := credentials.NewSharedKey(cs.Identity, cs.Key, time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	cfg := device.DefaultConfig()
	cfg.Identity, cfg.Credentials, cfg.Route = cs.Identity, source, remembered
	for _, name := range []string{"mqtt", "mqtt-2"} {
		dial := s.hub.DialContext
		if name == "mqtt" {
			dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if s.isShut.Load() {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return s.hub.DialContext(ctx, network, addr)
			}
		}
		transport, err := mqtt.New(mqtt.Config{
			Name: name, Identity: cs.Identity, TLS: netdial.TLSConfig{ServerVerificationCert: s.hub.CAPEM()}, DialContext: dial,
		})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Transports = append(cfg.Transports, transport)
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := device.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return c
}

// TestASilentFirewallCostsSecondsOnceAndNothingLater: through by the second route in well under half a minute the first
// time, and at once when it is remembered.
func TestASilentFirewallCostsSecondsOnceAndNothingLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		var remembered string
		began := time.Now()
		c := s.client(t, "", func(cfg *device.Config) { cfg.OnRoute = func(name string) { remembered = name } })
		if err := c.Send(t.Context(), text("0")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the first message was through after %v, want 15 s at most", took)
		}
		now, err := c.Connection(t.Context())
		if err != nil || now.Route != "mqtt-2" || len(now.Causes) > 0 {
			t.Errorf("the connection is %+v: %v", now, err)
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if remembered != "mqtt-2" {
			t.Fatalf("the remembered route is %q, want mqtt-2", remembered)
		}
		began = time.Now()
		c = s.client(t, remembered)
		if err := c.Send(t.Context(), text("1")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("with the remembered route it took %v, want 1 s at most", took)
		}
	})
}

// TestTheSessionMovesToABetterRouteAndLosesNothing: the firewall is opened while numbers flow and methods are called; by
// hand the session moves to and fro.
func TestTheSessionMovesToABetterRouteAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		var mu sync.Mutex
		var happened []string
		c := s.client(t, "mqtt-2", func(cfg *device.Config) {
			cfg.OnHappening = func(h engine.Happening) {
				mu.Lock()
				defer mu.Unlock()
				happened = append(happened, strings.TrimSpace(fmt.Sprint(h.Kind, " by ", h.Route, " ", h.Reason)))
			}
		})
		c.HandleMethod("echo", func(context.Context, json.RawMessage) (int, any, error) { return 200, nil, nil })
		var seen []string
		defer c.OnConnection(func(n device.Connection) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, n.State.String()+" "+n.Route)
		})()
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var work sync.WaitGroup
		sent := 0
		work.Go(func() {
			for ; ; sent++ {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
				}
				if err := c.Send(t.Context(), text(fmt.Sprint(sent))); err != nil {
					t.Errorf("send %d: %v", sent, err)
				}
			}
		})
		work.Go(func() {
			limit := 5
			for {
				select {
				case <-stop:
					return
				case <-time.After(170 * time.Millisecond):
				}
				r, err := s.hub.CallMethod(t.Context(), "dev1", api.MethodRequest{MethodName: "echo", ConnectTimeoutInSeconds: &limit, ResponseTimeoutInSeconds: &limit})
				if err != nil || r.Status != 200 {
					t.Errorf("method: status %d, %v", r.Status, err)
				}
			}
		})
		isOn := func(route string) {
			t.Helper()
			if n, err := c.Connection(t.Context()); err != nil || n.Route != route || !n.Connected() {
				t.Errorf("the connection is %+v: %v; want it by %s", n, err, route)
			}
		}
		time.Sleep(5 * time.Minute) // some tries of the first route fail meanwhile
		isOn("mqtt-2")
		if err := c.UseRoute(t.Context(), "mqtt"); !errors.Is(err, device.ErrConnectionFailed) {
			t.Errorf("the route that is swallowed was chosen: %v, want ErrConnectionFailed", err)
		}
		isOn("mqtt-2")
		s.isShut.Store(false)
		time.Sleep(10 * time.Minute)
		isOn("mqtt")
		for _, name := range []string{"mqtt-2", "mqtt", "mqtt-2"} {
			if err := c.UseRoute(t.Context(), name); err != nil {
				t.Errorf("use %s: %v", name, err)
			}
			isOn(name)
		}
		time.Sleep(20 * time.Minute) // the choice is kept
		isOn("mqtt-2")
		if err := c.UseRoute(t.Context(), "auto"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		isOn("mqtt")
		if err := c.UseRoute(t.Context(), "pigeon"); !errors.Is(err, device.ErrInvalid) || !strings.Contains(err.Error(), "there are mqtt, mqtt-2") {
			t.Errorf("an unknown route: %v", err)
		}
		close(stop)
		work.Wait()

		got := numbers(t, s.hub)
		for i := range sent {
			if i >= len(got) || got[i] != i {
				t.Fatalf("of %d numbers the hub has %d, and number %d is not in its place", sent, len(got), i)
			}
		}
		if len(got) != sent {
			t.Errorf("the hub has %d numbers of %d: some came twice", len(got), sent)
		}
		mu.Lock()
		defer mu.Unlock()
		if i := slices.Index(seen, "connected mqtt-2"); slices.ContainsFunc(seen[i:], func(s string) bool { return !strings.HasPrefix(s, "connected ") }) {
			t.Errorf("watchers saw %q", seen)
		}
		if slices.ContainsFunc(happened, func(s string) bool { return strings.HasPrefix(s, "lost") }) || !slices.Contains(happened, "closed by mqtt-2 another route") {
			t.Errorf("it happened: %q", happened)
		}
		status, err := c.Engine().Status(t.Context())
		if n := status.Machine.Counters; err != nil || n.Losses != 0 || n.Swaps != 5 {
			t.Errorf("%d losses and %d swaps, want 0 and 5: %v", n.Losses, n.Swaps, err)
		}
	})
}

// TestAnOutageNamesWhatStandsInTheWayOfEachRoute, and ends at once when the platform tells of a link.
func TestAnOutageNamesWhatStandsInTheWayOfEachRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		var isDown atomic.Bool
		isDown.Store(true)
		refuse := func(dial netdial.ContextDialer) netdial.ContextDialer {
			return func(ctx context.Context, network, addr string) (net.Conn, error) {
				if isDown.Load() {
					return nil, &net.DNSError{Err: "no such host", Name: "hub"}
				}
				return dial(ctx, network, addr)
			}
		}
		cs, err := credentials.ParseConnectionString(s.text)
		if err != nil {
			t.Fatal(err)
		}
		second, err := mqtt.New(mqtt.Config{
			Name: "mqtt-2", Identity: cs.Identity, TLS: netdial.TLSConfig{ServerVerificationCert: s.hub.CAPEM()}, DialContext: refuse(s.hub.DialContext),
		})
		if err != nil {
			t.Fatal(err)
		}
		c := s.client(t, "", func(cfg *device.Config) { cfg.Transports[1] = second })
		sent := make(chan error, 1)
		go func() { sent <- c.Send(t.Context(), text("0")) }()
		time.Sleep(time.Hour)
		n, err := c.Connection(t.Context())
		for tried := time.Now(); err == nil && n.State == device.StateConnecting && time.Since(tried) < time.Minute; { // the hour may end in an attempt
			time.Sleep(time.Second)
			n, err = c.Connection(t.Context())
		}
		if err != nil || n.State != device.StateWaiting || n.NextAttempt <= 0 {
			t.Fatalf("the connection is %+v: %v", n, err)
		}
		var causes []string
		for _, cause := range n.Causes {
			causes = append(causes, cause.Route+" "+cause.Phase+" "+cause.Kind.String())
		}
		slices.Sort(causes)
		if want := []string{"mqtt tcp blocked", "mqtt-2 dns transient"}; !slices.Equal(causes, want) {
			t.Errorf("the causes are %q, want %q", causes, want)
		}
		isDown.Store(false)
		s.isShut.Store(false)
		began := time.Now()
		c.NetworkChanged()
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%v after the link came up, want 2 s at most", took)
		}
	})
}
