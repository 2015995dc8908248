package hub_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// httpsDevice is a device that has HTTPS only.
type httpsDevice struct {
	t    *testing.T
	h    *hubtest.Hub
	id   string
	auth string // of the header Authorization
	http *http.Client
}

func newHTTPSDevice(t *testing.T, h *hubtest.Hub, id string, cert *tls.Certificate) *httpsDevice {
	t.Helper()
	d := &httpsDevice{t: t, h: h, id: id}
	cfg := &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	} else {
		cs, err := h.ConnectionString(id)
		if err != nil {
			t.Fatal(err)
		}
		d.auth = token(t, cs, 24*time.Hour)
	}
	transport := &http.Transport{DialContext: h.DialContext, TLSClientConfig: cfg, DisableKeepAlives: true}
	d.http = &http.Client{Transport: transport}
	return d
}

func (d *httpsDevice) do(method, path, body string, header ...string) (*http.Response, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, "https://"+d.h.HTTPSAddr().String()+"/devices/"+d.id+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if d.auth != "" {
		req.Header.Set("Authorization", d.auth)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := d.http.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp, string(text)
}

func (d *httpsDevice) want(status int, method, path, body string, header ...string) string {
	d.t.Helper()
	resp, text := d.do(method, path, body, header...)
	if resp.StatusCode != status {
		d.t.Fatalf("%s %s: %d %s, want %d", method, path, resp.StatusCode, text, status)
	}
	return text
}

const events = "/messages/events?api-version=2021-04-12"

func TestTelemetryOverHTTPS(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	h.AddDevice("dev1/mod")
	d := newHTTPSDevice(t, h, "dev1", nil)
	d.want(204, "POST", events, "hello", "iothub-to", "/devices/dev1/messages/events", "IoTHub-MessageId", "m/1", "IoTHub-CorrelationId", "c 1",
		"IoTHub-UserId", "u", "iothub-contenttype", "text/plain", "iothub-contentencoding", "utf-8", "iothub-app-Unit", "°C + &=/")
	m := h.WaitCount("dev1", 1)[0]
	if diff := cmp.Diff(map[string]string{"unit": "°C + &=/"}, m.Properties); diff != "" || string(m.Body) != "hello" {
		t.Errorf("body %q, properties (-want +got):\n%s", m.Body, diff)
	}
	for name, want := range map[string]string{
		"message-id": "m/1", "correlation-id": "c 1", "user-id": "u", "content-type": "text/plain", "content-encoding": "utf-8",
		"iothub-connection-device-id": "dev1", "iothub-message-source": "Telemetry",
		"iothub-connection-auth-method": `{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}`,
	} {
		if m.System[name] != want {
			t.Errorf("%s is %q, want %q", name, m.System[name], want)
		}
	}

	batch := fmt.Sprintf(`[{"body":%q,"properties":{"iothub-app-N":"1"}},{"body":"plain","base64Encoded":false,"properties":{"iothub-messageid":"m2"}}]`, base64.StdEncoding.EncodeToString([]byte("first")))
	d.want(204, "POST", events, batch, "Content-Type", "application/vnd.microsoft.iothub.json; charset=utf-8")
	all := h.WaitCount("dev1", 3)
	if string(all[1].Body) != "first" || all[1].Properties["N"] != "1" || string(all[2].Body) != "plain" || all[2].System["message-id"] != "m2" {
		t.Errorf("batch %+v", all[1:])
	}
	mod := newHTTPSDevice(t, h, "dev1/mod", nil)
	mod.id = "dev1/modules/mod"
	mod.want(204, "POST", events, "of the module")
	if m := h.WaitCount("dev1", 4)[3]; m.ModuleID != "mod" {
		t.Errorf("module %q", m.ModuleID)
	}

	for name, tt := range map[string]struct {
		body   string
		header []string
		status int
		word   string
	}{
		"too large":          {strings.Repeat("x", 262145), nil, 413, "MessageTooLarge"},
		"huge":               {strings.Repeat("x", 2<<20), nil, 413, "MessageTooLarge"},
		"a long id":          {"x", []string{"iothub-messageid", strings.Repeat("x", 129)}, 400, "ArgumentInvalid"},
		"no array":           {"{}", []string{"Content-Type", batchType}, 400, "ArgumentInvalid"},
		"no message":         {"[]", []string{"Content-Type", batchType}, 400, "ArgumentInvalid"},
		"no base64":          {`[{"body":"ü"}]`, []string{"Content-Type", batchType}, 400, "not base64"},
		"a batch too large":  {`[{"body":"` + strings.Repeat("AAAA", 60_000) + `"},{"body":"` + strings.Repeat("AAAA", 60_000) + `"}]`, []string{"Content-Type", batchType}, 413, "MessageTooLarge"},
		"a service's token":  {"x", []string{"Authorization", policyToken(t, "localhost", serviceString(t, h, "service"))}, 401, "IotHubUnauthorizedAccess"},
		"another's token":    {"x", []string{"Authorization", "SharedAccessSignature sr=localhost%2fdevices%2fdev2&sig=x&se=9999999999"}, 401, "IotHubUnauthorizedAccess"},
		"no token":           {"x", []string{"Authorization", ""}, 401, "IotHubUnauthorizedAccess"},
		"a policy's is good": {"x", []string{"Authorization", policyToken(t, "localhost", serviceString(t, h, "device"))}, 204, ""},
	} {
		if resp, body := d.do("POST", events, tt.body, tt.header...); resp.StatusCode != tt.status || !strings.Contains(body, tt.word) {
			t.Errorf("%s: %d %s, want %d with %s", name, resp.StatusCode, body, tt.status, tt.word)
		}
	}
	if _, err := h.UpdateDevice(api.Device{DeviceID: "dev1", Status: api.Disabled}); err != nil {
		t.Fatal(err)
	}
	if text := d.want(403, "POST", events, "x"); !strings.Contains(text, "DeviceDisabled") {
		t.Errorf("a disabled device: %s", text)
	}

	cert := hubtest.SelfSigned(t, "dev2")
	thumbprint := hubtest.Thumbprint(cert)
	addX509(t, h, "dev2", api.Authentication{Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{PrimaryThumbprint: &thumbprint}})
	newHTTPSDevice(t, h, "dev2", &cert).want(204, "POST", events, "by certificate")
	if m := h.WaitCount("dev2", 1)[0]; !strings.Contains(m.System["iothub-connection-auth-method"], "x509") {
		t.Errorf("auth method %s", m.System["iothub-connection-auth-method"])
	}
	other := hubtest.SelfSigned(t, "dev2")
	newHTTPSDevice(t, h, "dev2", &other).want(401, "POST", events, "x")
}

const batchType = "application/vnd.microsoft.iothub.json"

func serviceString(t *testing.T, h *hubtest.Hub, policy string) string {
	t.Helper()
	cs, err := h.ServiceConnectionString(policy)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

const bound = "/messages/devicebound"

func TestC2DOverHTTPS(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		d := newHTTPSDevice(t, h, "dev1", nil)
		send := func(body string) {
			t.Helper()
			value := "a/b"
			if err := h.SendC2D("dev1", api.C2D{MessageID: body, CorrelationID: "c", Ack: "full", Body: []byte(body), Properties: map[string]*string{"k": &value, "null": nil}}); err != nil {
				t.Fatal(err)
			}
		}
		receive := func(want string) (lock string) {
			t.Helper()
			resp, body := d.do("GET", bound, "")
			if resp.StatusCode != 200 || body != want || resp.Header.Get("iothub-messageid") != want || resp.Header.Get("iothub-app-k") != "a/b" ||
				resp.Header.Get("iothub-to") != "/devices/dev1/messages/devicebound" || resp.Header.Get("iothub-correlationid") != "c" {
				t.Fatalf("received %d %q %v, want %s", resp.StatusCode, body, resp.Header, want)
			}
			return strings.Trim(resp.Header.Get("ETag"), `"`)
		}
		d.want(204, "GET", bound, "")
		send("m1")
		send("m2")
		send("m3")
		first, second := receive("m1"), receive("m2")
		d.want(204, "DELETE", bound+"/"+first, "", "If-Match", first)
		d.want(412, "DELETE", bound+"/"+first, "")
		d.want(204, "DELETE", bound+"/"+second+"?reject&api-version=2021-04-12", "")
		third := receive("m3")
		d.want(204, "GET", bound, "")
		d.want(204, "POST", bound+"/"+third+"/abandon", "")
		third = receive("m3")
		time.Sleep(61 * time.Second)
		d.want(412, "DELETE", bound+"/"+third, "") // the lock is over
		for range 8 {                              // a lock that ends does not count, an abandonment does
			d.want(204, "POST", bound+"/"+receive("m3")+"/abandon", "")
		}
		resp, _ := d.do("GET", bound, "")
		if n := resp.Header.Get("iothub-deliverycount"); n != "9" {
			t.Errorf("delivery count %s, want 9", n)
		}
		d.want(204, "POST", bound+"/"+strings.Trim(resp.Header.Get("ETag"), `"`)+"/abandon", "")
		d.want(204, "GET", bound, "")

		send("m4")
		receive("m4") // in the hands of HTTPS: MQTT does not get it until the lock ends
		c := connect(t, h, options{id: "dev1"})
		c.subscribe(devicebound)
		c.wantNothing()
		time.Sleep(61 * time.Second)
		if m := c.receive(); string(m.Payload()) != "m4" || m.Duplicate() {
			t.Errorf("message %+v", m)
		}
		h.WaitCounters("dev1", func(c api.Counters) bool { return c.C2DCompleted == 2 })
		c.Disconnect(0)

		dead, err := h.DeadLetters("dev1")
		if err != nil || len(dead) != 2 || dead[0].Reason != "Rejected" || dead[1].Reason != "DeliveryCountExceeded" {
			t.Errorf("dead letters %+v, %v", dead, err)
		}
		client := newClient(t, h, "service")
		batch, err := client.ReceiveFeedback(t.Context())
		if err != nil || batch == nil {
			t.Fatalf("feedback %v, %v", batch, err)
		}
		var got []string
		for _, f := range batch.Records {
			got = append(got, f.OriginalMessageID+" "+f.StatusCode)
		}
		if diff := cmp.Diff([]string{"m1 Success", "m2 Rejected", "m3 DeliveryCountExceeded", "m4 Success"}, got); diff != "" {
			t.Errorf("feedback (-want +got):\n%s", diff)
		}
		client.Close()
		synctest.Wait()
	})
}

func TestFeedback(t *testing.T) {
	dir := t.TempDir()
	h := hubtest.Start(t, hubtest.WithDir(dir))
	h.AddDevice("dev1")
	for _, ack := range []string{"", "none", "positive", "negative", "full"} {
		if err := h.SendC2D("dev1", api.C2D{MessageID: "purged-" + ack, Ack: ack}); err != nil {
			t.Fatal(err)
		}
	}
	if resp, body := rest(t, h, "DELETE", "/devices/dev1/commands", "", nil); resp.StatusCode != 200 {
		t.Fatal(body)
	}
	d := connect(t, h, options{id: "dev1"})
	d.subscribe(devicebound)
	for _, ack := range []string{"", "none", "positive", "negative", "full"} {
		if err := h.SendC2D("dev1", api.C2D{MessageID: "done-" + ack, Ack: ack}); err != nil {
			t.Fatal(err)
		}
		d.receive()
	}
	h.WaitCounters("dev1", func(c api.Counters) bool { return c.C2DCompleted == 5 })
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	// # it survives, and is locked for whoever received it
	h = hubtest.Start(t, hubtest.WithDir(dir))
	resp, body := rest(t, h, "GET", "/messages/servicebound/feedback", "", nil)
	for i, want := range []string{"purged-negative", "purged-full", "done-positive", "done-full"} {
		if at := strings.Index(body, `"originalMessageId":"`+want+`"`); at < 0 {
			t.Errorf("record %d: no %s in %s", i, want, body)
		}
	}
	if n := strings.Count(body, "originalMessageId"); n != 4 || resp.StatusCode != 200 {
		t.Errorf("%d %d records: %s", resp.StatusCode, n, body)
	}
	lock := strings.Trim(resp.Header.Get("ETag"), `"`)
	if resp, _ := rest(t, h, "GET", "/messages/serviceBound/feedback", "", nil); resp.StatusCode != 204 {
		t.Errorf("received twice: %d", resp.StatusCode)
	}
	if resp, _ := rest(t, h, "POST", "/messages/serviceBound/feedback/"+lock+"/abandon", "", nil); resp.StatusCode != 204 {
		t.Errorf("abandon: %d", resp.StatusCode)
	}
	batch := h.ReceiveFeedback()
	if batch == nil || len(batch.Records) != 4 || batch.Records[0].StatusCode != api.FeedbackPurged || batch.Records[3].StatusCode != api.FeedbackSuccess {
		t.Fatalf("batch %+v", batch)
	}
	if err := h.CompleteFeedback(batch.Lock); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.CompleteFeedback(batch.Lock), api.CodeLockLost)
	if batch := h.ReceiveFeedback(); batch != nil {
		t.Errorf("received again: %+v", batch)
	}
}
