package device_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
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

// onHub leads a client to a hub of this process. With Azure's it is not needed.
func onHub(hub *hubtest.Hub) func(*device.Options) {
	return func(o *device.Options) {
		o.Address, o.Port, o.ServerVerificationCert = "127.0.0.1", hub.MQTTPort(), hub.CAPEM()
	}
}

// A device that answers a method and sends a message, on a hub within this process. For a hub of Azure's leave out
// everything that names hub, and give FromConnectionString what the portal shows.
func Example() {
	t := &exampleT{}
	defer t.end()
	hub := hubtest.Start(t)

	c, err := device.FromConnectionString(hub.AddDevice("press-7"), onHub(hub))
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

// A device that takes its time: the answer comes from another goroutine.
func ExampleClient_HandleMethodRequests() {
	t := &exampleT{}
	defer t.end()
	hub := hubtest.Start(t)
	c, err := device.FromConnectionString(hub.AddDevice("press-7"), onHub(hub))
	check(err)
	defer func() { check(c.Shutdown(context.Background())) }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	check(c.Connect(ctx))

	jobs := make(chan *device.MethodRequest)
	c.HandleMethodRequests(func(r *device.MethodRequest) { jobs <- r })
	go func() {
		for r := range jobs {
			check(r.Respond(200, map[string]string{"done": r.Name}))
		}
	}()
	defer close(jobs)

	wait := 30
	r, err := hub.CallMethod(ctx, "press-7", api.MethodRequest{MethodName: "lubricate", ConnectTimeoutInSeconds: &wait})
	check(err)
	fmt.Println(r.Status, string(r.Payload))
	// Output: 200 {"done":"lubricate"}
}

// A loop that takes messages from the hub as the program gets to them.
func ExampleClient_Messages() {
	t := &exampleT{}
	defer t.end()
	hub := hubtest.Start(t)
	c, err := device.FromConnectionString(hub.AddDevice("press-7"), onHub(hub))
	check(err)
	defer func() { check(c.Shutdown(context.Background())) }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	check(c.Connect(ctx))

	for _, body := range []string{"first", "second", "that is all"} {
		check(hub.SendC2D("press-7", api.C2D{Body: []byte(body)}))
	}
	for m, err := range c.Messages(ctx) {
		check(err)
		fmt.Println(string(m.Payload))
		if string(m.Payload) == "that is all" {
			break
		}
	}
	// Output:
	// first
	// second
	// that is all
}

// A device that applies what is desired, and reports what it has come to.
func ExampleClient_DesiredChanges() {
	t := &exampleT{}
	defer t.end()
	hub := hubtest.Start(t)
	c, err := device.FromConnectionString(hub.AddDevice("press-7"), onHub(hub))
	check(err)
	defer func() { check(c.Shutdown(context.Background())) }()
	_, err = hub.PatchTwin("press-7", []byte(`{"properties":{"desired":{"interval":30}}}`))
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	check(c.Connect(ctx))

	for d, err := range c.DesiredChanges(ctx) {
		check(err)
		fmt.Println("desired:", string(d.Document))
		_, err = c.PatchReported(ctx, d.Document)
		check(err)
		break
	}
	twin, err := c.GetTwin(ctx)
	check(err)
	fmt.Println("reported:", string(twin.Reported))
	// Output:
	// desired: {"interval":30}
	// reported: {"$version":2,"interval":30}
}

// What is refused says why, in words for people and in values for programs.
func ExampleError() {
	t := &exampleT{}
	defer t.end()
	hub := hubtest.Start(t)
	c, err := device.FromConnectionString(hub.AddDevice("press-7"), onHub(hub))
	check(err)
	defer func() { check(c.Shutdown(context.Background())) }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	_, err = c.PatchReported(ctx, map[string]string{"note": strings.Repeat("x", 5000)})
	e, ok := errors.AsType[*device.Error](err)
	fmt.Println(errors.Is(err, device.ErrService), ok, e.Kind, e.Status, e.TrackingID != "")
	// Output: true true refused 400 true
}
