package hub_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/hub/internal/sas"
	"github.com/fairlead-iot/fairlead/hub/service"
)

func newClient(t *testing.T, h *hubtest.Hub, policy string) *service.Client {
	t.Helper()
	cs, err := h.ServiceConnectionString(policy)
	if err != nil {
		t.Fatal(err)
	}
	c, err := service.New(cs, service.Options{CAPEM: h.CAPEM(), Address: h.HTTPSAddr().String(), DialContext: h.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func wantCode(t *testing.T, err error, code int) {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Code != code {
		t.Errorf("error %v, want number %d", err, code)
	}
}

func TestRegistryOverREST(t *testing.T) {
	h := hubtest.Start(t)
	c := newClient(t, h, "iothubowner")
	ctx := t.Context()
	made, err := c.CreateDevice(ctx, api.Device{DeviceID: "dev.1"})
	if err != nil {
		t.Fatal(err)
	}
	if made.Status != api.Enabled || made.Authentication.SymmetricKey.PrimaryKey == "" || made.ETag == "" || made.GenerationID == "" {
		t.Errorf("made %+v", made)
	}
	got, err := c.Device(ctx, "dev.1")
	if err != nil || cmp.Diff(made, got) != "" {
		t.Errorf("got %+v, %v, want %+v", got, err, made)
	}
	_, err = c.CreateDevice(ctx, api.Device{DeviceID: "dev.1"})
	wantCode(t, err, 409000) // REST gives a name, not a number
	if e, _ := errors.AsType[*api.Error](err); e.Name != "DeviceAlreadyExists" || e.Message != "A device with ID 'dev.1' is already registered." {
		t.Errorf("error %+v", e)
	}
	if _, err := c.CreateDevice(ctx, api.Device{DeviceID: "dev.1", ModuleID: "m"}); err != nil {
		t.Fatal(err)
	}
	_, err = c.CreateDevice(ctx, api.Device{DeviceID: "dev.1", ModuleID: "m"})
	wantCode(t, err, api.CodeModuleExists)
	got.Status = api.Disabled
	if updated, err := c.UpdateDevice(ctx, got); err != nil || updated.Status != api.Disabled || updated.Authentication != made.Authentication || updated.ETag == made.ETag {
		t.Errorf("updated %+v, %v", updated, err)
	}
	if list, err := c.Devices(ctx); err != nil || len(list) != 1 {
		t.Errorf("list %v, %v", list, err)
	}
	if err := c.DeleteDevice(ctx, "dev.1"); err != nil {
		t.Fatal(err)
	}
	_, err = c.Device(ctx, "dev.1/m")
	wantCode(t, err, api.CodeModuleNotFound)
	_, err = c.Device(ctx, "dev.1")
	if e, ok := errors.AsType[*api.Error](err); !ok || e.HTTPStatus != 404 || e.Name != "DeviceNotFound" || e.Message != "dev.1" {
		t.Errorf("error %v", err)
	}
	for _, bad := range []string{"", "a b", "ü", strings.Repeat("x", 129)} {
		if _, err := h.CreateDevice(api.Device{DeviceID: bad}); err == nil {
			t.Errorf("the id %q was taken", bad)
		}
	}
}

func TestPoliciesGiveTheirRightsOnly(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	ctx := t.Context()
	calls := map[string]func(c *service.Client) error{
		"read":  func(c *service.Client) error { _, err := c.Device(ctx, "dev1"); return err },
		"write": func(c *service.Client) error { _, err := c.UpdateDevice(ctx, api.Device{DeviceID: "dev1"}); return err },
		"serve": func(c *service.Client) error { _, err := c.Twin(ctx, "dev1"); return err },
	}
	tests := map[string]string{
		"iothubowner": "read write serve", "service": "serve", "device": "", "registryRead": "read", "registryReadWrite": "read write",
	}
	for policy, allowed := range tests {
		c := newClient(t, h, policy)
		for what, call := range calls {
			err := call(c)
			if strings.Contains(allowed, what) != (err == nil) {
				t.Errorf("%s with policy %s: %v", what, policy, err)
			}
			if e, ok := errors.AsType[*api.Error](err); err != nil && (!ok || e.HTTPStatus != 401) {
				t.Errorf("%s with policy %s: %v, want 401", what, policy, err)
			}
		}
	}
}

// rest sends a request as it is, for what the client would not send.
func rest(t *testing.T, h *hubtest.Hub, method, path, body string, header map[string]string) (*http.Response, string) {
	t.Helper()
	cs, err := h.ServiceConnectionString("iothubowner")
	if err != nil {
		t.Fatal(err)
	}
	token, err := sas.New("localhost", "iothubowner", fields(cs)["SharedAccessKey"], time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+h.HTTPSAddr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", token)
	for key, value := range header {
		req.Header.Set(key, value)
	}
	transport := &http.Transport{DialContext: h.DialContext, TLSClientConfig: &tls.Config{RootCAs: h.CAPool(), MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestRESTDetails(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	device, err := h.Device("dev1")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, method, path, body string
		header                   map[string]string
		status                   int
		want                     string // part of the body
	}{
		{"list with a trailing slash", "GET", "/devices/?api-version=2021-04-12", "", nil, 200, `"deviceId":"dev1"`},
		{"no api-version", "GET", "/devices/dev1", "", nil, 200, `"connectionStateUpdatedTime":"0001-01-01T00:00:00Z"`},
		{"quoted entity tag", "DELETE", "/devices/dev1", "", map[string]string{"If-Match": `"wrong"`}, 412, "PreconditionFailed"},
		{"empty keys are made", "PUT", "/devices/dev2", `{"deviceId":"dev2","authentication":{"symmetricKey":{"primaryKey":"","secondaryKey":""}}}`, nil, 200, `"primaryKey":"`},
		{"update what is not there", "PUT", "/devices/none", `{}`, map[string]string{"If-Match": `"*"`}, 404, "DeviceNotFound"},
		{"body for another device", "PUT", "/devices/dev3", `{"deviceId":"dev4"}`, nil, 400, "ArgumentInvalid"},
		{"not JSON", "PUT", "/devices/dev3", `{`, nil, 400, "ArgumentInvalid"},
		{"bulk", "POST", "/devices", `[{"id":"b1","importMode":"create"},{"id":"b1","importMode":"create"}]`, nil, 400, `"isSuccessful":false,"errors":[{"deviceId":"b1","errorCode":"DeviceAlreadyExists"`},
		{"bulk of twins", "POST", "/devices", `[{"id":"b1","importMode":"updateTwin","tags":{"a":1}},{"id":"b2","tags":{"a":2}}]`, nil, 200, `"isSuccessful":true`},
		{"bulk with a wrong twin tag", "POST", "/devices", `[{"id":"b1","importMode":"updateTwinIfMatchETag","twinETag":"x","tags":{"a":1}}]`, nil, 400, "PreconditionFailed"},
		{"bulk that deletes", "POST", "/devices", `[{"id":"b2","importMode":"deleteIfMatchETag","etag":"x"},{"id":"b2","importMode":"delete"}]`, nil, 400, `"errorCode":"PreconditionFailed"`},
		{"bulk with an odd mode", "POST", "/devices", `[{"id":"b1","importMode":"paint"}]`, nil, 400, "is none of create"},
		{"a route that is not there", "GET", "/jobs/v2/1", "", nil, 404, "this hub has no GET /jobs/v2/1"},
		{"groups", "POST", "/devices/query", `{"query":"SELECT tags.a, COUNT() AS n FROM devices GROUP BY tags.a"}`, nil, 200, `{"a":1,"n":1}`},
		{"a bad continuation", "POST", "/devices/query", `{"query":"SELECT * FROM devices"}`, map[string]string{"x-ms-continuation": "7"}, 400, "not what an earlier page gave"},
		{"method of an absent device", "POST", "/twins/dev1/methods", `{"methodName":"m"}`, nil, 404, `{"Message":"{\"errorCode\":404103,`},
		{"method timeout out of bounds", "POST", "/twins/dev1/methods", `{"methodName":"m","responseTimeoutInSeconds":4}`, nil, 400, `responseTimeoutInSeconds must be within [5; 300].`},
		{"statistics", "GET", "/statistics/devices", "", nil, 200, `"totalDeviceCount":3`},
		{"module envelope", "GET", "/devices/dev1/modules/none", "", nil, 404, `{"errorCode":404010,`},
		{"unknown fault", "POST", "/fairlead/faults", `{"name":"earthquake"}`, nil, 400, "there are connack, cut"},
		{"twin with its tag", "PATCH", "/twins/dev1", `{"tags":{"a":1}}`, map[string]string{"If-Match": `"` + device.ETag + `x"`}, 412, ""},
		{"purge", "DELETE", "/devices/dev1/commands", "", nil, 200, `"totalMessagesPurged":0`},
		{"delete", "DELETE", "/devices/dev1", "", map[string]string{"If-Match": `"` + device.ETag + `"`}, 204, ""},
	}
	for _, tt := range tests {
		resp, body := rest(t, h, tt.method, tt.path, tt.body, tt.header)
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %d %s; want %d with %s", tt.name, resp.StatusCode, body, tt.status, tt.want)
		}
	}
	resp, _ := rest(t, h, "GET", "/devices/none", "", nil)
	if resp.Header.Get("iothub-errorcode") != "DeviceNotFound" {
		t.Errorf("header %v", resp.Header)
	}
	resp, body := rest(t, h, "GET", "/devices/b1", "", map[string]string{"Authorization": "SharedAccessSignature sr=x"})
	if resp.StatusCode != 401 || !strings.Contains(body, `"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestMonitorStreams(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	h.AddDevice("dev2")
	d1, d2 := connect(t, h, options{id: "dev1"}), connect(t, h, options{id: "dev2"})
	before := time.Now()
	d1.telemetry("a=b", "one")
	d2.telemetry("", "other")
	c := newClient(t, h, "service")
	got := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- c.Monitor(ctx, api.MessageFilter{Device: "dev1", Since: before}, true, func(m api.Message) error {
			got <- fmt.Sprint(m.Sequence, m.DeviceID, m.Properties, string(m.Body))
			return nil
		})
	}()
	if s := <-got; s != "1dev1map[a:b]one" {
		t.Error(s)
	}
	d1.telemetry("", "\xff\x00")
	if s := <-got; s != "3dev1map[]\xff\x00" {
		t.Errorf("%q", s)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	var all []string
	if err := c.Monitor(t.Context(), api.MessageFilter{From: 1}, false, func(m api.Message) error {
		all = append(all, m.DeviceID)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"dev1", "dev2", "dev1"}, all); diff != "" {
		t.Error(diff)
	}
}

func TestHubClosesUnderAMonitor(t *testing.T) {
	h := hubtest.Start(t)
	c := newClient(t, h, "service")
	ended := make(chan error)
	go func() {
		ended <- c.Monitor(t.Context(), api.MessageFilter{From: 1}, true, func(api.Message) error { return nil })
	}()
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	<-ended //nolint:errcheck // with an error or without: its connection may not have been up
}

func TestServiceConnectionStringErrors(t *testing.T) {
	for _, text := range []string{"", "HostName=h;DeviceId=d;SharedAccessKey=SECRET", "HostName=h;SharedAccessKeyName=p", "HostName=h;SharedAccessKeyName=p;SharedAccessKey=SECRET!"} {
		_, err := service.ParseConnectionString(text)
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("ParseConnectionString(%q) = %v", text, err)
		}
	}
}

func TestMessageJSONRoundTrip(t *testing.T) {
	for _, body := range []string{"", "text ü", "\xff\xfe"} {
		text, err := json.Marshal(api.Message{Sequence: 7, DeviceID: "d", Body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		var back api.Message
		if err := json.Unmarshal(text, &back); err != nil || string(back.Body) != body || back.Sequence != 7 {
			t.Errorf("%s came back as %+v, %v", text, back, err)
		}
	}
}

func TestQuery(t *testing.T) {
	h := hubtest.Start(t)
	for i := range 250 {
		id := fmt.Sprintf("dev%03d", i)
		h.AddDevice(id)
		if _, err := h.PatchTwin(id, fmt.Appendf(nil, `{"tags":{"n":%d}}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(t, h, "service")
	got, err := c.Query(t.Context(), "SELECT * FROM devices WHERE tags.n >= 100 AND deviceId != 'dev105'")
	if err != nil || len(got) != 149 {
		t.Fatalf("%d twins, %v; want 149", len(got), err)
	}
	var first api.Twin
	if err := json.Unmarshal(got[0], &first); err != nil || first.DeviceID != "dev100" {
		t.Errorf("first %s, %v", got[0], err)
	}
	// Pages go on after the last result, whatever comes and goes meanwhile.
	const some = `{"query":"SELECT TOP 3 deviceId FROM devices WHERE tags.n >= 247 or tags.n = 3"}`
	resp, body := rest(t, h, "POST", "/devices/query?api-version=2021-04-12", some, map[string]string{"x-ms-max-item-count": "2"})
	next := resp.Header.Get("x-ms-continuation")
	if body != `[{"deviceId":"dev003"},{"deviceId":"dev247"}]` || next == "" || resp.Header.Get("x-ms-item-type") != "Raw" {
		t.Errorf("%s %v", body, resp.Header)
	}
	if err := h.DeleteDevice("dev247"); err != nil {
		t.Fatal(err)
	}
	resp, body = rest(t, h, "POST", "/devices/query", some, map[string]string{"x-ms-max-item-count": "2", "x-ms-continuation": next})
	if body != `[{"deviceId":"dev248"}]` || resp.Header.Get("x-ms-continuation") != "" {
		t.Errorf("%s %v", body, resp.Header)
	}
	const groups = `{"query":"SELECT status, tags.n, COUNT() AS c FROM devices WHERE tags.n < 3 GROUP BY status, tags.n"}`
	resp, body = rest(t, h, "POST", "/devices/query", groups, map[string]string{"x-ms-max-item-count": "2"})
	_, last := rest(t, h, "POST", "/devices/query", groups, map[string]string{"x-ms-max-item-count": "2", "x-ms-continuation": resp.Header.Get("x-ms-continuation")})
	if strings.Count(body, `"c":1`) != 2 || last != `[{"c":1,"n":2,"status":"enabled"}]` {
		t.Errorf("%s, then %s", body, last)
	}
	resp, _ = rest(t, h, "POST", "/devices/query", `{"query":"select deviceId from devices"}`, map[string]string{"x-ms-max-item-count": "1000"})
	if _, more := resp.Header["X-Ms-Continuation"]; more {
		t.Error("the last page says that there are more")
	}
	if resp, body := rest(t, h, "POST", "/devices/query", `{"query":"DROP TABLE devices"}`, nil); resp.StatusCode != 400 || !strings.Contains(body, "a query begins with SELECT") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
