package hubtest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"go.uber.org/goleak"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// exampleT stands for the *testing.T that a test has and an example has not.
type exampleT struct {
	testing.TB
	ends []func()
}

func (*exampleT) Helper()                   {}
func (t *exampleT) Cleanup(f func())        { t.ends = append(t.ends, f) }
func (*exampleT) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (*exampleT) Errorf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func (*exampleT) Context() context.Context { return context.Background() }

func (t *exampleT) end() {
	for _, f := range slices.Backward(t.ends) {
		f()
	}
}

// A test of a device: start a hub, connect any MQTT client, look at what came.
func ExampleStart() {
	t := &exampleT{} // in a test, t is its *testing.T
	defer t.end()

	h := hubtest.Start(t)
	password, err := hub.DeviceToken(h.AddDevice("dev1"), time.Hour)
	if err != nil {
		t.Fatalf("token: %v", err)
	}
	client := mqtt.NewClient(mqtt.NewClientOptions().
		AddBroker(fmt.Sprintf("tls://127.0.0.1:%d", h.MQTTPort())).
		SetClientID("dev1").
		SetUsername(h.Hostname() + "/dev1/?api-version=2021-04-12").
		SetPassword(password).
		SetProtocolVersion(4).
		SetTLSConfig(&tls.Config{RootCAs: h.CAPool(), MinVersion: tls.VersionTLS12}))
	if tok := client.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatalf("connect: %v", tok.Error())
	}
	defer client.Disconnect(0)
	client.Publish("devices/dev1/messages/events/unit=celsius", 1, false, "21.5").Wait()

	m := h.WaitCount("dev1", 1)[0]
	fmt.Println(m.DeviceID, m.Properties["unit"], string(m.Body))
	// Output: dev1 celsius 21.5
}

func TestPipeDialerChoosesByPortAndEndsWithTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		if h.MQTTPort() != 8883 || h.HTTPSPort() != 443 {
			t.Errorf("ports %d, %d", h.MQTTPort(), h.HTTPSPort())
		}
		for addr, wantHTTP := range map[string]bool{"localhost:8883": false, "hub:443": true} {
			nc, err := h.DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			c := tls.Client(nc, &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS12})
			if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 12)
			n, err := c.Read(answer)
			if (string(answer[:n]) == "HTTP/1.1 404") != wantHTTP {
				t.Errorf("%s answered %q, %v", addr, answer[:n], err)
			}
			_ = nc.Close()
		}
		if err := h.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err := h.DialContext(t.Context(), "tcp", "localhost:8883"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial a closed hub: %v", err)
		}
	})
}

func TestHelpers(t *testing.T) {
	h := hubtest.Start(t, hubtest.WithLog(), hubtest.WithConfig(func(c *hub.Config) { c.Hostnames = []string{"myhub.azure-devices.net"} }))
	if cs := h.AddDevice("dev1/mod"[:4]); cs == "" || h.Hostname() != "myhub.azure-devices.net" {
		t.Errorf("connection string %q of %s", cs, h.Hostname())
	}
	remove := h.Fault(api.Fault{Name: api.FaultTwinStatus})
	if len(h.Faults()) != 1 {
		t.Errorf("faults %v", h.Faults())
	}
	remove()
	remove() // again is fine
	if len(h.Faults()) != 0 {
		t.Errorf("faults %v", h.Faults())
	}
	h.WaitConnected("dev1", false)
	h.WaitCounters("dev1", func(c api.Counters) bool { return c == api.Counters{} })
}

func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		h.NewDevice("dev1")
		rec := h.Record()
		seen := make(chan api.Sighting)
		go func() { seen <- rec.Wait("dev1", api.SawC2DDead) }()
		if err := h.SendC2D("dev1", api.C2D{TTL: "5s", Body: []byte("late")}); err != nil {
			t.Fatal(err)
		}
		if s := <-seen; s.String() != "c2d dead Expired late" {
			t.Errorf("saw %s", s)
		}
		if lines := rec.Lines("dev2"); lines != nil {
			t.Errorf("of another device: %v", lines)
		}
		rec.Reset()
		if all := rec.All(); len(all) != 0 {
			t.Errorf("after Reset: %v", all)
		}
		if twin, err := h.Service().Twin(t.Context(), "dev1"); err != nil || len(twin) == 0 {
			t.Errorf("the service's view in memory: %s, %v", twin, err)
		}
	})
}
