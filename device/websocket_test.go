package device_test

import (
	"context"
	"encoding/json"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// httpsOnly points options at a hub in the bubble behind a firewall that lets port 443 out and nothing else.
func httpsOnly(t *testing.T, h *hubtest.Hub) func(*device.Options) {
	t.Helper()
	return func(o *device.Options) {
		o.WebSockets, o.ServerVerificationCert = true, h.CAPEM()
		o.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if _, port, _ := net.SplitHostPort(addr); port != "443" {
				t.Errorf("%s is dialed", addr)
			}
			return h.DialContext(ctx, network, addr)
		}
	}
}

func TestWebSocketsCarryEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		c, err := device.FromConnectionString(h.AddDevice("dev1"), httpsOnly(t, h))
		if err != nil {
			t.Fatal(err)
		}
		desired, messages := make(chan device.Desired, 10), make(chan string, 10)
		c.HandleMethod("echo", func(_ context.Context, p json.RawMessage) (int, any, error) { return 200, p, nil })
		c.HandleDesired(func(_ context.Context, d device.Desired) error { desired <- d; return nil })
		c.HandleMessages(func(_ context.Context, m *device.Message) error { messages <- string(m.Payload); return nil })
		connect(t, c)
		if err := c.Send(t.Context(), text("telemetry")); err != nil {
			t.Fatal(err)
		}
		if got := h.WaitCount("dev1", 1); string(got[0].Body) != "telemetry" {
			t.Errorf("the hub has %q", got[0].Body)
		}
		if r, err := h.InvokeMethod(t.Context(), "dev1", "echo", "hello"); err != nil || r.Status != 200 || string(r.Payload) != `"hello"` {
			t.Errorf("method: %+v, %v", r, err)
		}
		if err := h.SendC2D("dev1", api.C2D{Body: []byte("message")}); err != nil {
			t.Fatal(err)
		}
		if got := <-messages; got != "message" {
			t.Errorf("message %q", got)
		}
		<-desired // the twin as it was
		if _, err := h.PatchTwin("dev1", []byte(`{"properties":{"desired":{"color":"red"}}}`)); err != nil {
			t.Fatal(err)
		}
		if d := <-desired; d.Version != 2 {
			t.Errorf("desired %+v", d)
		}
		// # An idle session lives: proxies see a ping each half a minute, the hub one of MQTT.
		time.Sleep(time.Hour)
		// # The token's renewal is a second connection beside the first.
		n := counters(t, c)
		if n.Losses != 0 || n.Renewals != 1 {
			t.Errorf("%d losses and %d renewals in an hour, want 0 and 1", n.Losses, n.Renewals)
		}
		if err := c.Send(t.Context(), text("later")); err != nil {
			t.Error(err)
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestProvisioningGoesByWebSocketToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		e := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1", DeviceID: "dev1"})
		r, err := device.Provision(t.Context(), device.Enrollment{
			Host: "localhost", IDScope: h.IDScope(), RegistrationID: "reg1", SymmetricKey: e.Attestation.SymmetricKey.PrimaryKey,
		}, httpsOnly(t, h))
		if err != nil {
			t.Fatal(err)
		}
		if r.State.AssignedHub != "localhost" || r.State.DeviceID != "dev1" {
			t.Errorf("told %+v", r)
		}
	})
}
