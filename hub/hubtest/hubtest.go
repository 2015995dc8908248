package hubtest

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
)

// patience is how long a wait may take before the test fails.
const patience = 30 * time.Second

// Hub is a hub that ends with its test.
type Hub struct {
	*hub.Hub
	t    testing.TB
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Option changes the hub's configuration.
type Option func(testing.TB, *hub.Config)

// WithConfig changes any part of the configuration.
func WithConfig(change func(*hub.Config)) Option {
	return func(_ testing.TB, c *hub.Config) { change(c) }
}

// WithDir keeps the hub's state in a directory, for tests of restarts.
func WithDir(dir string) Option {
	return func(_ testing.TB, c *hub.Config) { c.Dir = dir }
}

// WithLog writes the hub's log to the test's.
func WithLog() Option {
	return func(t testing.TB, c *hub.Config) {
		c.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
}

// Start starts a hub in memory on random loopback ports. It is closed with the
// test.
func Start(t testing.TB, options ...Option) *Hub {
	t.Helper()
	var d net.Dialer
	return start(t, hub.Config{}, d.DialContext, options)
}

// StartPipe starts a hub that listens on no port: connections come from
// Hub.DialContext in memory. Inside a testing/synctest bubble everything of
// it runs in virtual time.
func StartPipe(t testing.TB, options ...Option) *Hub {
	t.Helper()
	mqtt, https := newPipeListener("localhost:8883"), newPipeListener("localhost:443")
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		if port == "8883" {
			return mqtt.dial(ctx)
		}
		return https.dial(ctx)
	}
	return start(t, hub.Config{MQTTListener: mqtt, HTTPSListener: https}, dial, options)
}

func start(t testing.TB, cfg hub.Config, dial func(context.Context, string, string) (net.Conn, error), options []Option) *Hub {
	t.Helper()
	for _, option := range options {
		option(t, &cfg)
	}
	h, err := hub.New(cfg)
	if err != nil {
		t.Fatalf("make hub: %v", err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Errorf("close hub: %v", err)
		}
	})
	if err := h.Start(); err != nil {
		t.Fatalf("start hub: %v", err)
	}
	return &Hub{h, t, dial}
}

// DialContext connects to the hub. With StartPipe the port of addr chooses the
// listener: 8883 is MQTT, any other HTTPS; with Start it dials addr.
func (h *Hub) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return h.dial(ctx, network, addr)
}

// MQTTPort is the port of MQTT over TLS.
func (h *Hub) MQTTPort() int { return port(h.MQTTAddr()) }

// HTTPSPort is the port of REST and WebSocket.
func (h *Hub) HTTPSPort() int { return port(h.HTTPSAddr()) }

func port(addr net.Addr) int {
	switch a := addr.(type) {
	case *net.TCPAddr:
		return a.Port
	case pipeAddr:
		return a.port()
	default:
		return 0
	}
}

// CAPool holds the hub's authority, for tls.Config.RootCAs.
func (h *Hub) CAPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.CAPEM())
	return pool
}

// AddDevice registers a device, or a module ("device/module"), and returns its
// connection string.
func (h *Hub) AddDevice(id string) string {
	h.t.Helper()
	parsed := api.ParseID(id)
	if _, err := h.CreateDevice(api.Device{DeviceID: parsed.Device, ModuleID: parsed.Module}); err != nil {
		h.t.Fatalf("add device %s: %v", id, err)
	}
	text, err := h.ConnectionString(id)
	if err != nil {
		h.t.Fatalf("connection string of %s: %v", id, err)
	}
	return text
}

// AddEnrollment lets a device register with the hub's provisioning service, whose
// id scope is h.IDScope(), and returns the enrollment with its keys:
//
//	key := h.AddEnrollment(api.Enrollment{RegistrationID: "dev1"}).Attestation.SymmetricKey.PrimaryKey
func (h *Hub) AddEnrollment(e api.Enrollment) api.Enrollment {
	h.t.Helper()
	out, err := h.CreateEnrollment(e)
	if err != nil {
		h.t.Fatalf("add enrollment %s: %v", e.RegistrationID, err)
	}
	return out
}

// AddEnrollmentGroup lets many devices register and returns the group with its
// keys; hub.DeriveDeviceKey makes a device's of them.
func (h *Hub) AddEnrollmentGroup(g api.EnrollmentGroup) api.EnrollmentGroup {
	h.t.Helper()
	out, err := h.CreateEnrollmentGroup(g)
	if err != nil {
		h.t.Fatalf("add enrollment group %s: %v", g.EnrollmentGroupID, err)
	}
	return out
}

// WaitTelemetry returns the first message of the device, of all that the hub has
// kept, that ok accepts. The test fails if there is none within 30 seconds.
func (h *Hub) WaitTelemetry(device string, ok func(api.Message) bool) api.Message {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var found api.Message
	errFound := errors.New("found")
	err := h.ReadTelemetry(ctx, api.MessageFilter{Device: device}, func(m api.Message) error {
		if ok(m) {
			found = m
			return errFound
		}
		return nil
	})
	if !errors.Is(err, errFound) {
		h.t.Fatalf("wait for telemetry of %s: %v", device, err)
	}
	return found
}

// WaitCount returns the first n messages of the device. The test fails if they
// are not there within 30 seconds.
func (h *Hub) WaitCount(device string, n int) []api.Message {
	h.t.Helper()
	all := make([]api.Message, 0, n)
	h.WaitTelemetry(device, func(m api.Message) bool {
		all = append(all, m)
		return len(all) == n
	})
	return all
}

// WaitCounters waits until the device's counters are as ok wants them.
func (h *Hub) WaitCounters(id string, ok func(api.Counters) bool) api.Counters {
	h.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		c, err := h.Counters(id)
		if err != nil {
			h.t.Fatalf("counters of %s: %v", id, err)
		}
		if ok(c) {
			return c
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("counters of %s after %v: %+v", id, patience, c)
		}
		time.Sleep(2 * time.Millisecond) // between two looks at the condition
	}
}

// WaitConnected waits until the device is connected, or is not.
func (h *Hub) WaitConnected(id string, connected bool) {
	h.t.Helper()
	want := api.Disconnected
	if connected {
		want = api.Connected
	}
	deadline := time.Now().Add(patience)
	for {
		d, err := h.Device(id)
		if err != nil {
			h.t.Fatalf("device %s: %v", id, err)
		}
		if d.ConnectionState == want {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("device %s is not %s after %v", id, want, patience)
		}
		time.Sleep(2 * time.Millisecond) // between two looks at the condition
	}
}

// Fault makes something go wrong and returns how to end it.
func (h *Hub) Fault(f api.Fault) (remove func()) {
	h.t.Helper()
	f, err := h.AddFault(f)
	if err != nil {
		h.t.Fatalf("add fault %s: %v", f.Name, err)
	}
	return func() { _ = h.RemoveFault(f.ID) } // it may have ended by itself
}
