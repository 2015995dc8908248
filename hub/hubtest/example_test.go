package hubtest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// yourClient stands for the client that a test is about: here it is bare MQTT.
func yourClient(t *exampleT, d *hubtest.Device) mqtt.Client {
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(d.Broker()).
		SetClientID(d.ID).SetUsername(d.Username()).SetPassword(d.Password(time.Hour)).SetTLSConfig(d.TLSConfig()).
		SetProtocolVersion(4).SetCleanSession(false).SetAutoReconnect(false))
	if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatalf("connect: %v", tok.Error())
	}
	return c
}

// A device's view: what its client needs, and what the hub has of it afterwards.
func ExampleHub_NewDevice() {
	t := &exampleT{} // in a test, t is its *testing.T
	defer t.end()
	h := hubtest.Start(t)
	d := h.NewDevice("dev1")

	c := yourClient(t, d)
	defer c.Disconnect(0)
	c.Publish(d.Events("unit=celsius"), 1, false, "21.5").Wait()
	c.Publish("$iothub/twin/PATCH/properties/reported/?$rid=1", 1, false, `{"fan":"on"}`).Wait()

	m := d.Telemetry()[0]
	fmt.Println(string(m.Body), m.Properties, d.Reported())
	// Output: 21.5 map[unit:celsius] map[fan:on]
}

// A device may prove itself by a certificate, of its own or of a CA.
func ExampleHub_NewCertificateDevice() {
	t := &exampleT{}
	defer t.end()
	h := hubtest.Start(t)
	d := h.NewCertificateDevice("dev1", hubtest.NewCA(t, "plant"))

	c := yourClient(t, d) // its password is empty
	defer c.Disconnect(0)
	c.Publish(d.Events(""), 1, false, "hello").Wait()

	fmt.Println(d.ConnectionString)
	fmt.Println(d.Telemetry()[0].System["iothub-connection-auth-method"])
	// Output:
	// HostName=localhost;DeviceId=dev1;x509=true
	// {"scope":"device","type":"x509","issuer":"iothub","acceptingIpFilterRule":null}
}

// A service's view, through the wire: the same client works against Azure.
func ExampleHub_Service() {
	t := &exampleT{}
	defer t.end()
	h := hubtest.Start(t)
	d := h.NewDevice("dev1")
	c := yourClient(t, d)
	defer c.Disconnect(0)
	c.Subscribe("$iothub/methods/POST/#", 1, func(c mqtt.Client, m mqtt.Message) {
		_, rid, _ := strings.Cut(m.Topic(), "$rid=")
		c.Publish("$iothub/methods/res/200/?$rid="+rid, 1, false, `{"pong":true}`)
	}).Wait()

	answer, err := h.Service().InvokeMethod(t.Context(), "dev1", api.MethodRequest{MethodName: "ping", Payload: json.RawMessage(`1`)})
	fmt.Println(answer.Status, string(answer.Payload), err)
	// Output: 200 {"pong":true} <nil>
}

// A recorder keeps what the hub saw, in order.
func ExampleHub_Record() {
	t := &exampleT{}
	defer t.end()
	h := hubtest.Start(t)
	d := h.NewDevice("dev1")
	rec := h.Record()

	c := yourClient(t, d)
	c.Subscribe("$iothub/twin/res/#", 1, nil).Wait()
	c.Publish("$iothub/twin/GET/?$rid=1", 1, false, " ").Wait()
	c.Publish(d.Events(""), 1, false, "hello").Wait()
	c.Disconnect(0)

	rec.Wait("dev1", api.SawDisconnected)
	for _, line := range rec.Lines("dev1") {
		fmt.Println(line)
	}
	// Output:
	// connected new session
	// subscribed $iothub/twin/res/#
	// twin get
	// telemetry hello
	// disconnected
}

// A fault makes something go wrong, here twice, on purpose.
func ExampleHub_Fault() {
	t := &exampleT{}
	defer t.end()
	h := hubtest.Start(t)
	d := h.NewDevice("dev1")
	rec := h.Record()
	h.Fault(api.Fault{Name: api.FaultConnack, Device: "dev1", Code: 3, Count: 2})

	for attempt := 1; ; attempt++ { // what a client with patience does
		c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(d.Broker()).SetClientID(d.ID).SetUsername(d.Username()).
			SetPassword(d.Password(time.Hour)).SetTLSConfig(d.TLSConfig()).SetProtocolVersion(4).SetAutoReconnect(false))
		if tok := c.Connect(); tok.Wait() && tok.Error() == nil {
			fmt.Println("connected at attempt", attempt)
			c.Disconnect(0)
			break
		}
	}
	refused := 0
	for _, s := range rec.All() {
		if s.What == api.SawRefused {
			refused++
		}
	}
	fmt.Println("refused", refused)
	// Output:
	// connected at attempt 3
	// refused 2
}
