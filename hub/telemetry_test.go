package hub_test

import (
	"strings"
	"testing"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func TestTelemetryIsDecodedAndStamped(t *testing.T) {
	for name, ws := range map[string]bool{"TCP": false, "WebSocket": true} {
		t.Run(name, func(t *testing.T) {
			h := hubtest.Start(t)
			h.AddDevice("dev1")
			d := connect(t, h, options{id: "dev1", ws: ws})
			d.telemetry("%24.mid=id%201%2F2&$.ct=application%2Fjson&a%2F%C3%A9=1%2B2&empty=&bare/", `{"x":1}`)
			m := h.WaitCount("dev1", 1)[0]
			want := map[string]string{"a/é": "1+2", "empty": "", "bare": ""}
			if diff := cmp.Diff(want, m.Properties); diff != "" {
				t.Errorf("properties (-want +got):\n%s", diff)
			}
			for key, value := range map[string]string{
				"message-id": "id 1/2", "content-type": "application/json", "iothub-connection-device-id": "dev1",
				"iothub-message-source":         "Telemetry",
				"iothub-connection-auth-method": `{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}`,
			} {
				if m.System[key] != value {
					t.Errorf("%s = %q, want %q", key, m.System[key], value)
				}
			}
			device, err := h.Device("dev1")
			if err != nil {
				t.Fatal(err)
			}
			if m.System["iothub-connection-auth-generation-id"] != device.GenerationID || string(m.Body) != `{"x":1}` {
				t.Errorf("message = %+v", m)
			}
		})
	}
}

func TestModuleTelemetry(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	h.AddDevice("dev1/mod")
	d := connect(t, h, options{id: "dev1/mod"})
	d.send("devices/dev1/modules/mod/messages/events/%24.on=out", "x")
	m := h.WaitCount("dev1", 1)[0]
	if m.ModuleID != "mod" || m.System["iothub-connection-module-id"] != "mod" || m.System["iothub-outputname"] != "out" {
		t.Errorf("message = %+v", m)
	}
}

func TestRetainedMessageIsMarkedNotStored(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	d.wait(d.Publish("devices/dev1/messages/events/", 1, true, "x"), "publish")
	if m := h.WaitCount("dev1", 1)[0]; m.Properties["mqtt-retain"] != "true" {
		t.Errorf("properties = %v", m.Properties)
	}
}

func TestWillIsTelemetryOfABadEnd(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	will := func(o *mqtt.ClientOptions) { o.SetWill("devices/dev1/messages/events/k=v", "gone", 1, false) }
	d := connect(t, h, options{id: "dev1", will: will})
	d.Disconnect(100)
	h.WaitConnected("dev1", false)
	connect(t, h, options{id: "dev1", will: will})
	h.Fault(api.Fault{Name: api.FaultCut, Device: "dev1"})
	m := h.WaitCount("dev1", 1)[0]
	if string(m.Body) != "gone" || m.Properties["iothub-MessageType"] != "Will" || m.Properties["k"] != "v" {
		t.Errorf("message = %+v", m)
	}
}

func TestRulesThatEndTheConnection(t *testing.T) {
	events := "devices/dev1/messages/events/"
	tests := map[string]func(d *device){
		"publish with QoS 2":            func(d *device) { d.Publish(events, 2, false, "x") },
		"publish to another's topic":    func(d *device) { d.Publish("devices/dev2/messages/events/", 1, false, "x") },
		"publish to a topic of no use":  func(d *device) { d.Publish("hello", 0, false, "x") },
		"a bag that cannot be decoded":  func(d *device) { d.Publish(events+"a=%zz", 1, false, "x") },
		"a message over 262144 bytes":   func(d *device) { d.Publish(events, 1, false, strings.Repeat("x", 262145)) },
		"properties count for the size": func(d *device) { d.Publish(events+"k="+strings.Repeat("v", 10), 1, false, strings.Repeat("x", 262140)) },
		"subscribe to anything":         func(d *device) { d.Subscribe("#", 1, nil) },
		"subscribe to another's topic":  func(d *device) { d.Subscribe("devices/dev2/messages/devicebound/#", 1, nil) },
		"twin request without an id":    func(d *device) { d.Publish("$iothub/twin/GET/", 0, false, " ") },
	}
	for name, act := range tests {
		t.Run(name, func(t *testing.T) {
			h := hubtest.Start(t)
			h.AddDevice("dev1")
			d := connect(t, h, options{id: "dev1"})
			act(d)
			d.wantLost()
			if all, err := h.Telemetry(api.MessageFilter{}); len(all) != 0 || err != nil {
				t.Errorf("the hub kept %v, %v", all, err)
			}
		})
	}
}

func TestLargestMessageIsTaken(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	d.telemetry("", strings.Repeat("x", 262144))
	if m := h.WaitCount("dev1", 1)[0]; len(m.Body) != 262144 {
		t.Errorf("%d bytes", len(m.Body))
	}
}
