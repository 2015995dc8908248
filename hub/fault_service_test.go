package hub_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func TestThrottle(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	h.AddDevice("dev2")
	d := connect(t, h, options{id: "dev1"})
	d.subscribe(twinRes)
	remove := h.Fault(api.Fault{Name: api.FaultThrottle, Device: "dev1"})
	d.send(getTwin+"1", " ")
	if body := object(t, d.receiveFrom("$iothub/twin/res/429/?$rid=1")); body["errorCode"] != 429001.0 || body["trackingId"] == "" {
		t.Errorf("body %v", body)
	}
	d.send(reportTwin+"2", `{"a":1}`)
	d.receiveFrom("$iothub/twin/res/429/?$rid=2")
	for path, want := range map[string]int{"/twins/dev1": 429, "/devices/dev1": 429, "/devices/dev2": 200, "/devices": 200, "/fairlead/faults": 200} {
		resp, body := rest(t, h, "GET", path, "", nil)
		if resp.StatusCode != want || want == 429 && resp.Header.Get("iothub-errorcode") != "ThrottlingException" {
			t.Errorf("%s: %d %s, want %d", path, resp.StatusCode, body, want)
		}
	}
	https := newHTTPSDevice(t, h, "dev1", nil)
	https.want(429, "POST", events, "x")
	remove()
	https.want(204, "POST", events, "x")
	d.send(getTwin+"3", " ")
	if got := d.receiveFrom("$iothub/twin/res/200/?$rid=3"); strings.Contains(got, `"a"`) {
		t.Errorf("the throttled patch was carried out: %s", got)
	}
}

func TestHTTPStatus(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	h.AddDevice("dev1/mod")
	get := func(path string, want int) {
		t.Helper()
		if resp, body := rest(t, h, "GET", path, "", nil); resp.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", path, resp.StatusCode, body, want)
		}
	}
	h.Fault(api.Fault{Name: api.FaultHTTPStatus, Count: 2})
	get("/devices", 503)
	if _, err := tryConnect(t, h, options{id: "dev1", ws: true}); err == nil {
		t.Error("the upgrade to WebSocket went well")
	}
	get("/devices", 200)
	h.Fault(api.Fault{Name: api.FaultHTTPStatus, Device: "dev1/mod", Code: 500})
	get("/twins/dev1/modules/mod", 500)
	get("/twins/dev1", 200)
	if err := h.RemoveFault("all"); err != nil {
		t.Fatal(err)
	}
	get("/twins/dev1/modules/mod", 200)
}

func TestQuota(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	d.telemetry("", "before")
	h.Fault(api.Fault{Name: api.FaultQuota, Device: "dev1", Count: 2})
	d.Publish("devices/dev1/messages/events/", 1, false, "lost")
	d.wantLost()
	https := newHTTPSDevice(t, h, "dev1", nil)
	if text := https.want(403, "POST", events, "lost"); !strings.Contains(text, "IotHubQuotaExceeded") {
		t.Errorf("body %s", text)
	}
	https.want(204, "POST", events, "after")
	if m := h.WaitCount("dev1", 2)[1]; string(m.Body) != "after" {
		t.Errorf("kept %q", m.Body)
	}
}

func TestExpiredTokens(t *testing.T) {
	h := hubtest.Start(t)
	cs := h.AddDevice("dev1")
	cert := hubtest.SelfSigned(t, "dev2")
	thumbprint := hubtest.Thumbprint(cert)
	addX509(t, h, "dev2", api.Authentication{Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{PrimaryThumbprint: &thumbprint}})
	old := token(t, cs, time.Hour)
	d, other := connect(t, h, options{id: "dev1", password: old}), connect(t, h, options{id: "dev2", cert: &cert, noPassword: true})
	f, err := h.AddFault(api.Fault{Name: api.FaultExpireTokens})
	if err != nil || f.Struck != 1 || len(h.Faults()) != 0 {
		t.Errorf("fault %+v, %v: want one device struck, once", f, err)
	}
	d.wantLost()
	other.telemetry("", "a certificate has no token")
	refused := func(o options) {
		t.Helper()
		if _, err := tryConnect(t, h, o); err == nil || !strings.Contains(strings.ToLower(err.Error()), "not authorized") {
			t.Errorf("connect: %v, want return code 5", err)
		}
	}
	refused(options{id: "dev1", password: old})
	d = connect(t, h, options{id: "dev1", password: token(t, cs, 2*time.Hour)})

	h.Fault(api.Fault{Name: api.FaultExpireTokens, Device: "dev1", Count: 1})
	d.wantLost()
	refused(options{id: "dev1", password: token(t, cs, 3*time.Hour)})
	connect(t, h, options{id: "dev1", password: token(t, cs, 3*time.Hour)})
}

func TestVersionJumps(t *testing.T) {
	dir := t.TempDir()
	h := hubtest.Start(t, hubtest.WithDir(dir))
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	d.subscribe(twinRes)
	d.subscribe(desired)
	h.Fault(api.Fault{Name: api.FaultJumpVersion, Device: "dev1"})
	d.wantNothing()
	d.send(getTwin+"1", " ")
	if got := d.receiveFrom("$iothub/twin/res/200/?$rid=1"); !strings.Contains(got, `"$version":101`) {
		t.Errorf("twin %s", got)
	}
	if _, err := h.PatchTwin("dev1", []byte(`{"properties":{"desired":{"a":1}}}`)); err != nil {
		t.Fatal(err)
	}
	d.receiveFrom("$iothub/twin/PATCH/properties/desired/?$version=102")
	h.Fault(api.Fault{Name: api.FaultJumpVersion, Device: "dev1", Code: -1000})
	_, err := h.AddFault(api.Fault{Name: api.FaultJumpVersion, Device: "none"})
	wantCode(t, err, api.CodeDeviceNotFound)
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h = hubtest.Start(t, hubtest.WithDir(dir))
	twin, err := h.Twin("dev1")
	if err != nil || twin.Properties.Desired["$version"] != int64(1) || twin.Properties.Desired["a"] == nil {
		t.Errorf("twin %+v, %v", twin.Properties.Desired, err)
	}
}

func TestSlowReads(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		r := dialRaw(t, h)
		r.send(r.connectPacket(h, "dev1", 0xc2, 10, 24*time.Hour))
		r.want(connack)
		remove := h.Fault(api.Fault{Name: api.FaultSlowReads, Device: "dev1", Delay: api.Duration(7 * time.Second)})
		ping := packet(0xc0, "")
		r.send(ping) // this read has begun already
		r.want("\xd0\x00")
		start := time.Now()
		for i := range 5 {
			r.send(ping)
			r.want("\xd0\x00")
			if took, want := time.Since(start), time.Duration(i+1)*7*time.Second; took != want {
				t.Fatalf("answer %d after %v, want %v", i, took, want)
			}
		}
		remove()
		time.Sleep(7 * time.Second) // the wait that was under way
		start = time.Now()
		r.send(ping)
		r.want("\xd0\x00")
		if took := time.Since(start); took > time.Second {
			t.Errorf("slow after its end: %v", took)
		}
		// Who is thrown out meanwhile does not wait for the end of it.
		h.Fault(api.Fault{Name: api.FaultSlowReads, Device: "dev1", Delay: api.Duration(time.Hour)})
		r.send(ping)
		r.want("\xd0\x00")
		synctest.Wait()
		h.Fault(api.Fault{Name: api.FaultCut, Device: "dev1"})
		if took := r.wantEnd(time.Minute); took != 0 {
			t.Errorf("cut after %v", took)
		}
	})
}

func TestThrottlingAndQuotaOnOrder(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		d := connect(t, h, options{id: "dev1"})
		d.subscribe(twinRes)
		order := func(kind string) {
			d.telemetry("AzIoTHub_FaultOperationType="+kind+"&AzIoTHub_FaultOperationDurationInSecs=10", "x")
			synctest.Wait()
		}
		order("InvokeThrottling")
		d.send(getTwin+"1", " ")
		d.receiveFrom("$iothub/twin/res/429/?$rid=1")
		time.Sleep(11 * time.Second)
		d.send(getTwin+"2", " ")
		d.receiveFrom("$iothub/twin/res/200/?$rid=2")
		order("KillAmqpConnection") // not of this hub
		order("InvokeMaxMessageQuota")
		d.Publish("devices/dev1/messages/events/", 1, false, "x")
		d.wantLost()
		d.Disconnect(0)

		https := newHTTPSDevice(t, h, "dev1", nil)
		time.Sleep(11 * time.Second)
		https.want(204, "POST", events, "x", "iothub-app-AzIoTHub_FaultOperationType", "InvokeThrottling", "iothub-app-AzIoTHub_FaultOperationDurationInSecs", "10")
		synctest.Wait()
		https.want(429, "POST", events, "x")
		time.Sleep(11 * time.Second)
		https.want(204, "POST", events, "x")
	})
}
