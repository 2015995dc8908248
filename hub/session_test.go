package hub_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/hub/internal/sas"
)

const devicebound = "devices/dev1/messages/devicebound/#"

func TestConnectIsRefused(t *testing.T) {
	h := hubtest.Start(t)
	own := h.AddDevice("dev1")
	other := h.AddDevice("dev2")
	key := fields(own)["SharedAccessKey"]
	sign := func(resource, policy, key string) string {
		t.Helper()
		text, err := sas.New(resource, policy, key, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	policyKey := func(policy string) string {
		t.Helper()
		cs, err := h.ServiceConnectionString(policy)
		if err != nil {
			t.Fatal(err)
		}
		return fields(cs)["SharedAccessKey"]
	}
	tests := map[string]struct {
		o    options
		want string // of the client's error, "" for accepted
	}{
		"own key":                       {options{id: "dev1"}, ""},
		"policy with DeviceConnect":     {options{id: "dev1", password: sign("localhost", "device", policyKey("device"))}, ""},
		"policy for the device":         {options{id: "dev1", password: sign("localhost/devices/dev1", "iothubowner", policyKey("iothubowner"))}, ""},
		"a port in name and token":      {options{id: "dev1", username: "localhost:18883/dev1/?api-version=2021-04-12", password: sign("localhost:18883/devices/dev1", "", key)}, ""},
		"no slash before the query":     {options{id: "dev1", username: "localhost/dev1?api-version=2018-06-30"}, ""},
		"no query":                      {options{id: "dev1", username: "127.0.0.1/dev1"}, ""},
		"policy without DeviceConnect":  {options{id: "dev1", password: sign("localhost", "service", policyKey("service"))}, "not Authorized"},
		"another device's key":          {options{id: "dev1", password: sign("localhost/devices/dev1", "", fields(other)["SharedAccessKey"])}, "not Authorized"},
		"another device's token":        {options{id: "dev1", password: token(t, other, time.Hour)}, "not Authorized"},
		"device key for the whole hub":  {options{id: "dev1", password: sign("localhost", "", key)}, "not Authorized"},
		"another hub's token":           {options{id: "dev1", password: sign("other/devices/dev1", "", key)}, "not Authorized"},
		"another hub's name":            {options{id: "dev1", username: "other/dev1/?api-version=2021-04-12"}, "not Authorized"},
		"expired":                       {options{id: "dev1", ttl: -time.Second}, "not Authorized"},
		"user name of another device":   {options{id: "dev1", username: "localhost/dev2/?api-version=2021-04-12"}, "not Authorized"},
		"no token at all":               {options{id: "dev1", password: "secret"}, "not Authorized"},
		"policy that does not exist":    {options{id: "dev1", password: sign("localhost", "none", key)}, "not Authorized"},
		"user name that is a mere word": {options{id: "dev1", username: "me"}, "not Authorized"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := tryConnect(t, h, tt.o)
			if err == nil {
				d.Disconnect(0)
			}
			if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tt.want)) {
				t.Errorf("connect: %v, want %q", err, tt.want)
			}
		})
	}
	if c, err := h.Counters("dev1"); err != nil || c.Connects != 6 || c.ConnectsRefused == 0 {
		t.Errorf("counters %+v, %v", c, err)
	}
}

func TestDisabledDeviceIsRefusedAndThrownOut(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	if _, err := h.UpdateDevice(api.Device{DeviceID: "dev1", Status: api.Disabled}); err != nil {
		t.Fatal(err)
	}
	d.wantLost()
	if _, err := tryConnect(t, h, options{id: "dev1"}); err == nil || !strings.Contains(strings.ToLower(err.Error()), "server unavailable") {
		t.Errorf("connect: %v, want return code 3", err)
	}
}

func TestSecondaryKeyIsGoodToo(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d, err := h.Device("dev1")
	if err != nil {
		t.Fatal(err)
	}
	cs := "HostName=localhost;DeviceId=dev1;SharedAccessKey=" + d.Authentication.SymmetricKey.SecondaryKey
	connect(t, h, options{id: "dev1", password: token(t, cs, time.Hour)})
}

func TestNewConnectionDropsTheOld(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	first := connect(t, h, options{id: "dev1"})
	first.subscribe(twinRes)
	second := connect(t, h, options{id: "dev1"})
	first.wantLost()
	if !second.present {
		t.Error("the persistent session was not taken over")
	}
	second.telemetry("", "after")
	if c, err := h.Counters("dev1"); err != nil || c.TakeOvers != 1 || c.Connects != 2 {
		t.Errorf("counters %+v, %v", c, err)
	}
	h.WaitConnected("dev1", true)
}

func TestDeletedDeviceIsThrownOut(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	if err := h.DeleteDevice("dev1"); err != nil {
		t.Fatal(err)
	}
	d.wantLost()
}

func TestSubscriptionsSurviveAPersistentSession(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	if d.present {
		t.Error("session present at the first connection")
	}
	for _, filter := range []string{twinRes, desired, methods, devicebound} {
		d.subscribe(filter)
	}
	h.Fault(api.Fault{Name: api.FaultCut, Device: "dev1"})
	d.wantLost()
	d = connect(t, h, options{id: "dev1"})
	if !d.present {
		t.Error("no session present")
	}
	// Not subscribed again: all four must still be there.
	d.send(getTwin+"1", " ")
	d.receiveFrom("$iothub/twin/res/200/?$rid=1")
	if _, err := h.PatchTwin("dev1", []byte(`{"properties":{"desired":{"a":1}}}`)); err != nil {
		t.Fatal(err)
	}
	d.receiveFrom("$iothub/twin/PATCH/properties/desired/?$version=2")
	if err := h.SendC2D("dev1", api.C2D{Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	d.receive()
	go func() { _, _ = h.InvokeMethod(t.Context(), "dev1", "m", nil) }() // only the request matters here
	if m := d.receive(); !strings.HasPrefix(m.Topic(), "$iothub/methods/POST/m/?$rid=") {
		t.Errorf("topic %s", m.Topic())
	}
	d.Disconnect(0)
	h.WaitConnected("dev1", false)
	clean := connect(t, h, options{id: "dev1", clean: true})
	if clean.present {
		t.Error("session present with CleanSession=1")
	}
	clean.Disconnect(0)
	h.WaitConnected("dev1", false)
	if again := connect(t, h, options{id: "dev1"}); again.present {
		t.Error("the session survived a CleanSession=1 connection")
	}
}

func TestSubscribing(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	h.AddDevice("dev1/mod")
	d := connect(t, h, options{id: "dev1"})
	tok := d.Subscribe(twinRes, 2, nil)
	d.wait(tok, "subscribe")
	if got := tok.(interface{ Result() map[string]byte }).Result()[twinRes]; got != 1 {
		t.Errorf("QoS 2 was granted as %d, want 1", got)
	}
	d.wait(d.Unsubscribe(twinRes), "unsubscribe")
	d.send(getTwin+"1", " ") // answered nowhere
	d.wantNothing()

	m := connect(t, h, options{id: "dev1/mod"})
	for _, filter := range []string{twinRes, desired, methods, "devices/dev1/modules/mod/#", "devices/dev1/modules/mod/inputs/#"} {
		m.subscribe(filter)
	}
	m.subscribe(methods) // a filter again is no sixth
}

func TestQueuedMessagesAndCleanSessions(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	send := func(body string) {
		t.Helper()
		if err := h.SendC2D("dev1", api.C2D{Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	send("before any session")
	d := connect(t, h, options{id: "dev1"})
	d.subscribe(devicebound)
	if m := d.receive(); string(m.Payload()) != "before any session" || m.Qos() != 1 || m.Duplicate() {
		t.Errorf("%+v", m)
	}
	h.WaitCounters("dev1", func(c api.Counters) bool { return c.C2DCompleted == 1 })
	d.Disconnect(0)
	h.WaitConnected("dev1", false)
	for i := range 3 {
		send(fmt.Sprint("while away ", i))
	}
	d = connect(t, h, options{id: "dev1"})
	for i := range 3 {
		if m := d.receive(); string(m.Payload()) != fmt.Sprint("while away ", i) {
			t.Errorf("%d: %s", i, m.Payload())
		}
	}
	h.WaitCounters("dev1", func(c api.Counters) bool { return c.C2DCompleted == 4 })
	d.Disconnect(0)
	h.WaitConnected("dev1", false)
	send("discarded by CleanSession=1")
	d = connect(t, h, options{id: "dev1", clean: true})
	d.subscribe(devicebound)
	send("fresh")
	if m := d.receive(); string(m.Payload()) != "fresh" {
		t.Errorf("%s", m.Payload())
	}
	if dead, err := h.DeadLetters("dev1"); err != nil || len(dead) != 1 || dead[0].Reason != "Purged" {
		t.Errorf("dead letters %+v, %v", dead, err)
	}
}

func TestUnacknowledgedMessageComesAgain(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1", manualAck: true})
	d.subscribe(devicebound)
	if err := h.SendC2D("dev1", api.C2D{MessageID: "m1", Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	first := d.receive()
	// The device's own packets have the same numbers; they acknowledge nothing.
	d.telemetry("", "1")
	d.telemetry("", "2")
	h.Fault(api.Fault{Name: api.FaultCut, Device: "dev1"})
	d.wantLost()
	d = connect(t, h, options{id: "dev1", manualAck: true})
	again := d.receive()
	if !again.Duplicate() || again.MessageID() != first.MessageID() || again.Topic() != first.Topic() {
		t.Errorf("came again as %d dup=%v, was %d", again.MessageID(), again.Duplicate(), first.MessageID())
	}
	again.Ack()
	h.WaitCounters("dev1", func(c api.Counters) bool { return c.C2DCompleted == 1 && c.C2DSent == 2 })
}

func TestC2DTopicAndLimits(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	d.subscribe(devicebound)
	value, empty := "a/b c+d", ""
	err := h.SendC2D("dev1", api.C2D{
		MessageID: "m/1", ContentType: "text/plain", Ack: "full", Body: []byte("x"),
		Properties: map[string]*string{"k/1": &value, "empty": &empty, "null": nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "devices/dev1/messages/devicebound/%24.to=%2Fdevices%2Fdev1%2Fmessages%2Fdevicebound&%24.mid=m%2F1&%24.ct=text%2Fplain&iothub-ack=full&empty=&k%2F1=a%2Fb%20c%2Bd&null"
	d.receiveFrom(want)
	h.WaitCounters("dev1", func(c api.Counters) bool { return c.C2DCompleted == 1 })
	d.Disconnect(0)
	h.WaitConnected("dev1", false)
	wantCode(t, h.SendC2D("none", api.C2D{}), api.CodeDeviceNotFound)
	wantCode(t, h.SendC2D("dev1", api.C2D{Body: make([]byte, 64<<10+1)}), api.CodeMessageTooLarge)
	wantCode(t, h.SendC2D("dev1", api.C2D{TTL: "49h"}), api.CodeArgumentInvalid)
	wantCode(t, h.SendC2D("dev1", api.C2D{Ack: "maybe"}), api.CodeArgumentInvalid)
	for range 50 {
		if err := h.SendC2D("dev1", api.C2D{}); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, h.SendC2D("dev1", api.C2D{}), api.CodeQueueFull)
}

// From the moment in which a device counts as connected it gets what is sent to it.
func TestNothingIsLostAsASessionBegins(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	r := dialRaw(t, h)
	r.send(r.connectPacket(h, "dev1", 0xc0, 0, time.Hour))
	r.want(connack)
	r.send(packet(0x82, "\x00\x01"+str(desired)+"\x01"))
	r.want("\x90\x03\x00\x01\x01")
	for i := range 100 {
		next := dialRaw(t, h)
		next.send(next.connectPacket(h, "dev1", 0xc0, 0, time.Hour))
		for {
			if c, err := h.Counters("dev1"); err != nil || c.Connects == int64(i+2) {
				break
			}
			runtime.Gosched()
		}
		if _, err := h.PatchTwin("dev1", fmt.Appendf(nil, `{"properties":{"desired":{"i":%d}}}`, i)); err != nil {
			t.Fatal(err)
		}
		next.want("\x20\x02\x01\x00")
		if p := next.readPublish(); !strings.Contains(p, fmt.Sprintf(`"i":%d`, i)) {
			t.Fatalf("%d: %s", i, p)
		}
	}
}
