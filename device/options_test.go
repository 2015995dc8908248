package device_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// onPipe leads a client to a hub in memory.
func onPipe(hub *hubtest.Hub) func(*device.Options) {
	return func(o *device.Options) { o.ServerVerificationCert, o.DialContext = hub.CAPEM(), hub.DialContext }
}

func TestAClientIsMadeOfAConnectionStringOrAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		text := hub.AddDevice("dev1")
		if _, err := hub.CreateDevice(api.Device{DeviceID: "dev1", ModuleID: "m"}); err != nil {
			t.Fatal(err)
		}
		module, err := hub.ConnectionString("dev1/m")
		if err != nil {
			t.Fatal(err)
		}
		key := func(text string) string {
			cs, err := credentials.ParseConnectionString(text)
			if err != nil {
				t.Fatal(err)
			}
			return cs.Key.Reveal()
		}
		for id, make := range map[string]func() (*device.Client, error){
			"dev1":   func() (*device.Client, error) { return device.FromConnectionString(text, onPipe(hub)) },
			"dev1/m": func() (*device.Client, error) { return device.FromConnectionString(module, onPipe(hub)) },
		} {
			byKey := func() (*device.Client, error) {
				k := key(text)
				if id == "dev1/m" {
					k = key(module)
				}
				return device.FromSymmetricKey(k, hub.Hostname(), id, onPipe(hub))
			}
			for _, make := range []func() (*device.Client, error){make, byKey} {
				c, err := make()
				if err != nil {
					t.Fatal(err)
				}
				if c.Identity().ClientID() != id {
					t.Errorf("identity %+v, want %s", c.Identity(), id)
				}
				if err := c.Send(t.Context(), &device.Message{Payload: []byte("x")}); err != nil {
					t.Errorf("%s: %v", id, err)
				}
				if err := c.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// What an option says reaches the wire, or the behaviour.
func TestOptionsTakeEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		c, err := device.FromConnectionString(hub.AddDevice("dev1"), onPipe(hub), func(o *device.Options) {
			o.ProductInfo, o.SASTokenTTL, o.KeepAlive = "acme-gw/3.2", time.Minute, 30*time.Second
			o.AutoConnect, o.EnsureDesiredProperties, o.ConnectionRetry = false, false, false
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Shutdown(context.WithoutCancel(t.Context())) }()
		if err := c.Send(t.Context(), text("x")); !errors.Is(err, device.ErrNotConnected) {
			t.Errorf("auto_connect is off: %v", err)
		}
		c.HandleDesired(func(_ context.Context, d device.Desired) error {
			t.Errorf("ensure_desired_properties is off, and %+v is handed over", d)
			return nil
		})
		connect(t, c)
		s, err := c.Engine().Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if left := s.CredentialLeft(); left <= 50*time.Second || left > time.Minute {
			t.Errorf("the token is to live a minute, and has %v left", left)
		}
		hub.Fault(api.Fault{Name: api.FaultCut, Device: "dev1", Count: 1})
		time.Sleep(time.Hour)
		synctest.Wait()
		if c.Connected() {
			t.Error("connection_retry is off, and the client is connected again")
		}
	})
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	const text = "HostName=h.net;DeviceId=d;SharedAccessKey=Q0FOQVJZ"
	for _, c := range []struct {
		name, text string
		change     func(*device.Options)
		want       string
	}{
		{"a connection string that is none", "Q0FOQVJZ", nil, "not of the form name=value"},
		{"x509", "HostName=h.net;DeviceId=d;x509=true", nil, "the certificate comes from elsewhere"},
		{"keep-alive 0", text, func(o *device.Options) { o.KeepAlive = 0 }, "1s to 1740s"},
		{"keep-alive of half an hour", text, func(o *device.Options) { o.KeepAlive = 30 * time.Minute }, "1s to 1740s"},
		{"a token that ends at once", text, func(o *device.Options) { o.SASTokenTTL = time.Second }, "10s"},
		{"a token without a life", text, func(o *device.Options) { o.SASTokenTTL = -1 }, "must live"},
		{"no retry interval", text, func(o *device.Options) { o.ConnectionRetryInterval = 0 }, "above 0"},
		{"a longest wait below the shorter one", text, func(o *device.Options) { o.ConnectionRetryMax = time.Second }, "raise the one or lower the other"},
		{"a negative outbox", text, func(o *device.Options) { o.OutboxBytes = -1 }, "negative"},
		{"two gateways", text + ";GatewayHostName=a.lan", func(o *device.Options) { o.GatewayHostname = "b.lan" }, "keep one of them"},
		{"no certificate", text, func(o *device.Options) { o.ServerVerificationCert = []byte("gibberish") }, "server_verification_cert"},
		{"a port that is none", text, func(o *device.Options) { o.Port = 70_000 }, "port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.change == nil {
				c.change = func(*device.Options) {}
			}
			_, err := device.FromConnectionString(c.text, c.change)
			if !errors.Is(err, device.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want ErrInvalid with %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "Q0FOQVJZ") {
				t.Errorf("the error gives the key away: %v", err)
			}
		})
	}
	for _, id := range []string{"", "d/", "/m", "d/m/x", "a b"} {
		if _, err := device.FromSymmetricKey("Q0FOQVJZ", "h.net", id); !errors.Is(err, device.ErrInvalid) {
			t.Errorf("the id %q: %v", id, err)
		}
	}
	if _, err := device.FromSymmetricKey("not base64!", "h.net", "d"); !errors.Is(err, device.ErrInvalid) || strings.Contains(err.Error(), "not base64!") {
		t.Errorf("a key that is none: %v", err)
	}
}

func TestAGatewayIsDialedInTheHubsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		text := strings.Replace(hub.AddDevice("dev1"), "HostName=localhost", "HostName=localhost;GatewayHostName=127.0.0.1", 1)
		for _, change := range []func(*device.Options){
			func(*device.Options) {},
			func(o *device.Options) { o.GatewayHostname = "127.0.0.1" },
		} {
			c, err := device.FromConnectionString(text, onPipe(hub), change)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Connect(t.Context()); err != nil {
				t.Errorf("connect: %v", err)
			}
			if id := c.Identity(); id.Gateway != "127.0.0.1" || id.Hostname != "localhost" {
				t.Errorf("identity %+v", id)
			}
			if err := c.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

// A client that cannot get on holds up no other one of its process.
func TestAStalledClientDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		stalled, err := device.FromConnectionString(hub.AddDevice("stalled"), onPipe(hub), func(o *device.Options) {
			o.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		healthy, err := device.FromConnectionString(hub.AddDevice("healthy"), onPipe(hub))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- stalled.Connect(ctx) }()
		synctest.Wait()
		began := time.Now()
		if err := healthy.Send(t.Context(), text("x")); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("a message of the other client took %v", took)
		}
		cancel()
		if err := <-ended; !errors.Is(err, device.ErrCancelled) {
			t.Errorf("the stalled connect ended with %v", err)
		}
		for _, c := range []*device.Client{stalled, healthy} {
			if err := c.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}
