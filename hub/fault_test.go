package hub_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func TestCutRefusesWhileItLasts(t *testing.T) {
	for name, device := range map[string]string{"one device": "dev1", "all": ""} {
		t.Run(name, func(t *testing.T) {
			h := hubtest.Start(t)
			h.AddDevice("dev1")
			h.AddDevice("dev2")
			d, other := connect(t, h, options{id: "dev1"}), connect(t, h, options{id: "dev2"})
			h.Fault(api.Fault{Name: api.FaultCut, Device: device, Count: 2})
			d.wantLost()
			if device == "" {
				other.wantLost()
			} else {
				other.telemetry("", "untouched")
			}
			for i := range 2 {
				if _, err := tryConnect(t, h, options{id: "dev1"}); err == nil {
					t.Errorf("connect %d was accepted", i)
				}
			}
			connect(t, h, options{id: "dev1"})
			if left := h.Faults(); len(left) != 0 {
				t.Errorf("faults left: %+v", left)
			}
		})
	}
}

func TestConnackFault(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	remove := h.Fault(api.Fault{Name: api.FaultConnack, Device: "dev1", Code: 4})
	if _, err := tryConnect(t, h, options{id: "dev1"}); err == nil || !strings.Contains(err.Error(), "bad user name or password") {
		t.Errorf("connect: %v, want return code 4", err)
	}
	remove()
	connect(t, h, options{id: "dev1"})
}

func TestWithheldPuback(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	h.Fault(api.Fault{Name: api.FaultWithholdPuback, Count: 1})
	tok := d.Publish("devices/dev1/messages/events/", 1, false, "kept, not acknowledged")
	d.telemetry("", "acknowledged")
	if tok.WaitTimeout(10 * time.Millisecond) {
		t.Error("the PUBACK came")
	}
	h.WaitCount("dev1", 2)
	h.WaitCounters("dev1", func(c api.Counters) bool { return c.TelemetryReceived == 2 && c.TelemetryAcked == 1 })
}

func TestTwinFaults(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	d.subscribe(twinRes)
	h.Fault(api.Fault{Name: api.FaultDropTwinResponse, Count: 1})
	d.send(getTwin+"1", " ")
	h.Fault(api.Fault{Name: api.FaultTwinStatus, Count: 1})
	d.send(reportTwin+"2", `{"a":1}`)
	if body := object(t, d.receiveFrom("$iothub/twin/res/429/?$rid=2")); body["errorCode"] != 429001.0 {
		t.Errorf("body %v", body)
	}
	d.send(getTwin+"3", " ")
	if got := d.receiveFrom("$iothub/twin/res/200/?$rid=3"); strings.Contains(got, `"a"`) {
		t.Errorf("the refused patch was carried out: %s", got)
	}
}

func TestSubackAndSessionFaults(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	h.Fault(api.Fault{Name: api.FaultRefuseSuback, Count: 1})
	if code := d.subscribe(twinRes); code != 0x80 {
		t.Errorf("SUBACK code %#x, want 0x80", code)
	}
	d.subscribe(twinRes)
	d.Disconnect(0)
	h.WaitConnected("dev1", false)
	h.Fault(api.Fault{Name: api.FaultLoseSession, Count: 1})
	d = connect(t, h, options{id: "dev1"})
	if d.present {
		t.Error("the session is still there")
	}
	d.send(getTwin+"1", " ")
	d.wantNothing()
}

func TestDuplicateC2DAndMethodBlackHole(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		d := connect(t, h, options{id: "dev1", manualAck: true})
		d.subscribe(devicebound)
		h.Fault(api.Fault{Name: api.FaultDuplicateC2D, Count: 1})
		if err := h.SendC2D("dev1", api.C2D{Body: []byte("twice")}); err != nil {
			t.Fatal(err)
		}
		first, second := d.receive(), d.receive()
		if string(first.Payload()) != "twice" || string(second.Payload()) != "twice" || !second.Duplicate() {
			t.Errorf("%+v, %+v", first, second)
		}
		d.subscribe(methods)
		h.Fault(api.Fault{Name: api.FaultMethodBlackHole, Count: 1})
		timeout := 5
		_, err := h.CallMethod(t.Context(), "dev1", api.MethodRequest{MethodName: "m", ResponseTimeoutInSeconds: &timeout})
		wantCode(t, err, api.CodeGatewayTimeout)
		d.wantNothing()
		d.Disconnect(0)
	})
}

func TestFaultsAreChecked(t *testing.T) {
	h := hubtest.Start(t)
	for _, f := range []api.Fault{
		{Name: "earthquake"},
		{Name: api.FaultCut, Mode: "saw"},
		{Name: api.FaultConnack, Code: 256},
		{Name: api.FaultConnack, Code: 6},
		{Name: api.FaultConnack, Code: -1},
		{Name: api.FaultTwinStatus, Code: 7},
		{Name: api.FaultTwinStatus, Code: 200},
		{Name: api.FaultTwinStatus, Code: 600},
		{Name: api.FaultStorageStatus, Code: 200},
		{Name: api.FaultStorageStatus, Code: 1},
		{Name: api.FaultProvisioningStatus, Code: 399},
		{Name: api.FaultDelayPuback},
		{Name: api.FaultSlowReads},
		{Name: api.FaultCut, Code: 5},
		{Name: api.FaultThrottle, Delay: 1},
		{Name: api.FaultQuota, Mode: "close"},
		{Name: api.FaultHTTPStatus, Code: 204},
		{Name: api.FaultJumpVersion, Count: 1},
		{Name: api.FaultCut, Count: -1},
	} {
		_, err := h.AddFault(f)
		wantCode(t, err, api.CodeArgumentInvalid)
		if f.Name == "earthquake" && !strings.Contains(err.Error(), api.FaultWithholdPuback) {
			t.Errorf("%v does not name the known faults", err)
		}
	}
	if err := h.RemoveFault("7"); err == nil {
		t.Error("a fault that is not there was removed")
	}
}
