package device_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// exampleT stands for the *testing.T that a test has and an example has not.
type exampleT struct {
	testing.TB
	ends []func()
}

func (*exampleT) Helper()                   {}
func (t *exampleT) Cleanup(f func())        { t.ends = append(t.ends, f) }
func (*exampleT) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (*exampleT) Errorf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func (t *exampleT) end() {
	for _, f := range slices.Backward(t.ends) {
		f()
	}
}

// check is what an example does about an error.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

// A device that answers a method and sends a message, on a hub within this process. For a hub of Azure's leave out
// everything that names hub, and give ParseConnectionString what the portal shows.
func Example() {
	t := &exampleT{}
	defer t.end()
	hub := hubtest.Start(t)

	cs, err := credentials.ParseConnectionString(hub.AddDevice("press-7"))
	check(err)
	source, err := credentials.NewSharedKey(cs.Identity, cs.Key, time.Hour, time.Now)
	check(err)
	transport, err := mqtt.New(mqtt.Config{
		Identity: cs.Identity, Port: hub.MQTTPort(), Address: "127.0.0.1", TLS: netdial.TLSConfig{ServerVerificationCert: hub.CAPEM()},
	})
	check(err)

	cfg := device.DefaultConfig()
	cfg.Identity, cfg.Credentials, cfg.Transports = cs.Identity, source, []core.Transport{transport}
	c, err := device.New(cfg)
	check(err)
	defer func() { check(c.Shutdown(context.Background())) }()

	c.HandleMethod("double", func(_ context.Context, payload json.RawMessage) (int, any, error) {
		var n int
		if err := json.Unmarshal(payload, &n); err != nil {
			return 400, "a number, please", nil
		}
		return 200, 2 * n, nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	check(c.Send(ctx, &device.Message{Payload: []byte("21.5"), Properties: map[string]string{"unit": "celsius"}})) // connects

	m := hub.WaitCount("press-7", 1)[0]
	fmt.Println("telemetry:", string(m.Body), m.Properties["unit"])
	wait := 30
	r, err := hub.CallMethod(ctx, "press-7", api.MethodRequest{MethodName: "double", Payload: []byte("4"), ConnectTimeoutInSeconds: &wait})
	check(err)
	fmt.Println("method:", r.Status, string(r.Payload))
	// Output:
	// telemetry: 21.5 celsius
	// method: 200 8
}
