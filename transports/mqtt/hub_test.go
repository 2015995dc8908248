package mqtt_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/mqttws"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// embedded is the embedded hub as the contract suite's other side, with a network between that can stall. TLS, the token
// and every packet are real.
type embedded struct {
	t      *testing.T
	hub    *hubtest.Hub
	device string
	wire   *wire

	mu      sync.Mutex
	faults  map[string]func()
	version int
}

func (e *embedded) PushMessage(payload string) {
	e.t.Helper()
	if err := e.hub.SendC2D(e.device, api.C2D{Body: []byte(payload)}); err != nil {
		e.t.Error(err)
	}
}

func (e *embedded) PushDesired() {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.version++
	patch := []byte(`{"properties":{"desired":{"n":` + string(rune('0'+e.version%10)) + `}}}`)
	if _, err := e.hub.PatchTwin(e.device, patch); err != nil {
		e.t.Error(err)
	}
}

// fault switches a fault of the hub.
func (e *embedded) fault(on bool, f api.Fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if remove := e.faults[f.Name]; remove != nil {
		remove()
		delete(e.faults, f.Name)
	}
	if on {
		f.Device = e.device
		e.faults[f.Name] = e.hub.Fault(f)
	}
}

func (e *embedded) HoldAcks(on bool) { e.fault(on, api.Fault{Name: api.FaultWithholdPuback}) }

func (e *embedded) RefuseSubscriptions(on bool) { e.fault(on, api.Fault{Name: api.FaultRefuseSuback}) }

func (e *embedded) Stall(on bool) { e.wire.stall(on) }

func (e *embedded) Drop() {
	e.fault(true, api.Fault{Name: api.FaultCut})
	e.fault(false, api.Fault{Name: api.FaultCut})
}

func (e *embedded) Received() []string {
	messages, err := e.hub.Telemetry(api.MessageFilter{Device: e.device})
	if err != nil {
		e.t.Error(err)
	}
	var payloads []string
	for _, m := range messages {
		payloads = append(payloads, string(m.Body))
	}
	return payloads
}

func (e *embedded) Completed() int {
	counters, err := e.hub.Counters(e.device)
	if err != nil {
		e.t.Error(err)
	}
	return int(counters.C2DCompleted)
}

// wire is a network that forwards TCP and can stall.
type wire struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu      sync.Mutex
	moved   sync.Cond
	stalled bool
}

func (w *wire) stall(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stalled = on
	w.moved.Broadcast()
}

func (w *wire) wait() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.stalled {
		w.moved.Wait()
	}
}

// DialContext returns the near end of a connection through the wire.
func (w *wire) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	hub, err := w.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	forward := func(to, from net.Conn) {
		defer to.Close()
		defer from.Close()
		b := make([]byte, 32<<10)
		for {
			n, err := from.Read(b)
			w.wait()
			if n > 0 {
				if _, err := to.Write(b[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	go forward(hub, far)
	go forward(far, hub)
	return near, nil
}

func TestContractWithTheEmbeddedHub(t *testing.T) {
	contractWithTheEmbeddedHub(t, mqtt.New, (*hubtest.Hub).MQTTPort)
}

// transports/mqttws is a dialer below the same session.
func TestContractWithTheEmbeddedHubOverWebSocket(t *testing.T) {
	contractWithTheEmbeddedHub(t, mqttws.New, (*hubtest.Hub).HTTPSPort)
}

func contractWithTheEmbeddedHub(t *testing.T, newTransport func(mqtt.Config) (*mqtt.Transport, error), port func(*hubtest.Hub) int) {
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		t.Helper()
		hub := hubtest.Start(t)
		cs, err := credentials.ParseConnectionString(hub.AddDevice("dev"))
		if err != nil {
			t.Fatal(err)
		}
		source, err := credentials.NewSharedKey(cs.Identity, cs.Key, time.Hour, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		credential, err := source.Credential(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w := &wire{dial: hub.DialContext}
		w.moved.L = &w.mu
		transport, err := newTransport(mqtt.Config{
			Identity: cs.Identity, UserAgent: "fairlead/test", Port: port(hub),
			TLS: netdial.TLSConfig{ServerVerificationCert: hub.CAPEM()}, DialContext: w.DialContext,
		})
		if err != nil {
			t.Fatal(err)
		}
		return transporttest.Harness{
			Transport: transport, Credential: credential,
			Hub: &embedded{t: t, hub: hub, device: "dev", wire: w, faults: map[string]func(){}},
		}
	})
}

func TestWrongKeyIsUnauthorized(t *testing.T) {
	hub := hubtest.Start(t)
	cs, err := credentials.ParseConnectionString(hub.AddDevice("dev"))
	if err != nil {
		t.Fatal(err)
	}
	transport, err := mqtt.New(mqtt.Config{Identity: cs.Identity, Port: hub.MQTTPort(), TLS: netdial.TLSConfig{ServerVerificationCert: hub.CAPEM()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		key  core.Secret
		at   time.Time
	}{
		{"another key", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", time.Now()},
		{"a clock in 1970", cs.Key, time.Unix(0, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			source, err := credentials.NewSharedKey(cs.Identity, c.key, time.Hour, func() time.Time { return c.at })
			if err != nil {
				t.Fatal(err)
			}
			credential, err := source.Credential(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			link, err := transport.Open(t.Context(), credential)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := link.Connect(t.Context(), credential, core.Handler{}); core.KindOf(err) != core.Unauthorized {
				t.Errorf("%v, want kind unauthorized", err)
			}
		})
	}
}
