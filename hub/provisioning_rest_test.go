package hub_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/hub/internal/journal"
	"github.com/fairlead-iot/fairlead/hub/service"
)

// rest sends a request to the provisioning service, below {idScope}/registrations.
func (n newcomer) rest(t *testing.T, h *hubtest.Hub, method, path, body string) (*http.Response, map[string]any) {
	t.Helper()
	if n.scope == "" {
		n.scope = h.IDScope()
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+h.HTTPSAddr().String()+"/"+n.scope+"/registrations/"+n.id+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if n.key != "" {
		req.Header.Set("Authorization", n.token(t, h))
	}
	transport := &http.Transport{DialContext: h.DialContext, TLSClientConfig: n.tlsConfig(h)}
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
	return resp, object(t, string(text))
}

const version = "?api-version=2021-06-01"

func TestProvisioningOverHTTPS(t *testing.T) {
	h := hubtest.Start(t)
	e := h.AddEnrollment(api.Enrollment{RegistrationID: "reg.1", EnrollmentSettings: api.EnrollmentSettings{ReturnPayload: json.RawMessage(`[1,"a"]`)}})
	cert := hubtest.SelfSigned(t, "reg.2")
	text, _ := hubtest.CertificatePEM(t, cert)
	h.AddEnrollment(api.Enrollment{RegistrationID: "reg.2", Attestation: api.Attestation{X509: &api.X509Attestation{
		ClientCertificates: &api.X509Certificates{Primary: &api.X509Certificate{Certificate: string(text)}},
	}}})
	for _, n := range []newcomer{{id: "reg.1", key: e.Attestation.SymmetricKey.PrimaryKey}, {id: "reg.2", cert: &cert}} {
		if resp, body := n.rest(t, h, "GET", version, ""); resp.StatusCode != 404 || body["errorCode"] != 404202.0 {
			t.Errorf("a lookup before: %d %v", resp.StatusCode, body)
		}
		resp, body := n.rest(t, h, "PUT", "/register"+version, `{"registrationId":"`+n.id+`","payload":{"a":"b"}}`)
		operation := fmt.Sprint(body["operationId"])
		where := "https://" + h.HTTPSAddr().String() + "/" + h.IDScope() + "/registrations/" + n.id + "/operations/" + operation
		if resp.StatusCode != 202 || body["status"] != "assigning" || resp.Header.Get("Retry-After") != "3" || resp.Header.Get("Location") != where {
			t.Fatalf("register: %d %v %v", resp.StatusCode, resp.Header, body)
		}
		resp, body = n.rest(t, h, "GET", "/operations/"+operation+version, "{}")
		state, _ := body["registrationState"].(map[string]any)
		if resp.StatusCode != 200 || body["status"] != "assigned" || state["assignedHub"] != "localhost" || state["deviceId"] != n.id || resp.Header.Get("Retry-After") != "" {
			t.Errorf("operation: %d %v", resp.StatusCode, body)
		}
		if (state["payload"] != nil) != (n.key != "") {
			t.Errorf("payload %v", state["payload"])
		}
		for _, method := range []string{"GET", "POST"} {
			if resp, body := n.rest(t, h, method, version, `{"registrationId":"`+n.id+`"}`); resp.StatusCode != 200 || cmp.Diff(state, body) != "" {
				t.Errorf("%s lookup: %d %v, want %v", method, resp.StatusCode, body, state)
			}
		}
		if st, err := h.Registration(n.id); err != nil || string(st.DevicePayload) != `{"a":"b"}` {
			t.Errorf("registration %+v, %v", st, err)
		}
	}
}

func TestProvisioningRefusesOverHTTPS(t *testing.T) {
	h := hubtest.Start(t)
	key := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1"}).Attestation.SymmetricKey.PrimaryKey
	good := newcomer{id: "reg1", key: key}
	stranger := hubtest.SelfSigned(t, "reg1")
	tests := map[string]struct {
		who          newcomer
		method, path string
		body         string
		status, code int
	}{
		"another id scope":     {newcomer{id: "reg1", key: key, scope: "0ne12345678"}, "PUT", "/register", "{}", 404, 404000},
		"no proof":             {newcomer{id: "reg1"}, "PUT", "/register", "{}", 401, 401002},
		"another's key":        {newcomer{id: "reg1", key: "bm90IHRoaXMgb25l"}, "PUT", "/register", "{}", 401, 401002},
		"an expired token":     {newcomer{id: "reg1", key: key, ttl: -time.Minute}, "PUT", "/register", "{}", 401, 401002},
		"a certificate":        {newcomer{id: "reg1", cert: &stranger}, "PUT", "/register", "{}", 401, 401002},
		"nobody":               {newcomer{id: "reg2", key: key}, "PUT", "/register", "{}", 401, 401002},
		"no proof, no JSON":    {newcomer{id: "reg1"}, "PUT", "/register", "no", 401, 401002},
		"no such address":      {good, "GET", "/operations", "", 404, 404000},
		"no such method":       {good, "DELETE", "/register", "", 405, 405000},
		"no registration id":   {newcomer{key: key}, "PUT", "/register", "{}", 405, 405000},
		"no JSON":              {good, "PUT", "/register", "no", 400, 400004},
		"a list":               {good, "PUT", "/register", "[]", 400, 400004},
		"another registration": {good, "PUT", "/register", `{"registrationId":"x"}`, 400, 400004},
		"a large payload":      {good, "PUT", "/register", `{"payload":"` + strings.Repeat("x", 256<<10) + `"}`, 413, 413001},
		"a huge body":          {good, "PUT", "/register", strings.Repeat(" ", 2<<20), 413, 413001},
		"no such operation":    {good, "GET", "/operations/4.x", "", 404, 404202},
		"no registration yet":  {good, "GET", "", "", 404, 404202},
		"a bad id":             {newcomer{id: "reg%201", key: key}, "GET", "", "", 400, 400004},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			resp, body := tt.who.rest(t, h, tt.method, tt.path+version, tt.body)
			if resp.StatusCode != tt.status || body["errorCode"] != float64(tt.code) || body["trackingId"] == "" || body["message"] == "" {
				t.Errorf("%d %v, want %d with number %d", resp.StatusCode, body, tt.status, tt.code)
			}
		})
	}
	h.Fault(api.Fault{Name: api.FaultProvisioningStatus, Code: 503, Count: 1, Device: "reg1"})
	if resp, body := good.rest(t, h, "PUT", "/register"+version, "{}"); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "3" || body["errorCode"] != 503001.0 {
		t.Errorf("with a fault: %d %v %v", resp.StatusCode, resp.Header, body)
	}
}

// forceRegistration makes anew what an enrollment that never re-provisions would
// leave.
func TestForceRegistration(t *testing.T) {
	h := hubtest.Start(t)
	e := api.Enrollment{RegistrationID: "reg1", EnrollmentSettings: api.EnrollmentSettings{ReprovisionPolicy: &api.ReprovisionPolicy{}}}
	n := newcomer{id: "reg1", key: h.AddEnrollment(e).Attestation.SymmetricKey.PrimaryKey}
	n.rest(t, h, "PUT", "/register"+version, "{}")
	e.Attestation.SymmetricKey = &api.SymmetricKey{PrimaryKey: "bmV3IGtleSBuZXcga2V5IG5ldyBrZXk="}
	if _, err := h.UpdateEnrollment(e); err != nil {
		t.Fatal(err)
	}
	n.key = e.Attestation.SymmetricKey.PrimaryKey
	for _, force := range []bool{false, true} {
		if resp, body := n.rest(t, h, "PUT", fmt.Sprintf("/register%s&forceRegistration=%v", version, force), "{}"); resp.StatusCode != 202 {
			t.Fatalf("register: %d %v", resp.StatusCode, body)
		}
		d, err := h.Device("reg1")
		if err != nil || (d.Authentication.SymmetricKey.PrimaryKey == n.key) != force {
			t.Errorf("forceRegistration=%v: the hub has the new key: %v, %v", force, !force, err)
		}
	}
}

func TestEnrollmentsOverREST(t *testing.T) {
	h := hubtest.Start(t)
	c := newClient(t, h, "provisioningserviceowner")
	ctx := t.Context()
	if scope, err := c.IDScope(ctx); err != nil || scope != h.IDScope() || !strings.HasPrefix(scope, "0ne") {
		t.Errorf("id scope %q, %v", scope, err)
	}
	made, err := c.PutEnrollment(ctx, api.Enrollment{RegistrationID: "reg1", EnrollmentSettings: api.EnrollmentSettings{AllocationPolicy: "hashed", IoTHubs: []string{"localhost"}}}, false)
	if err != nil || made.Attestation.SymmetricKey == nil || made.Attestation.SymmetricKey.PrimaryKey == "" || made.ProvisioningStatus != api.Enabled ||
		made.ReprovisionPolicy == nil || !made.ReprovisionPolicy.MigrateDeviceData || made.CreatedDateTimeUTC.IsZero() || !strings.HasPrefix(made.ETag, `"`) {
		t.Fatalf("made %+v, %v", made, err)
	}
	_, err = c.PutEnrollment(ctx, api.Enrollment{RegistrationID: "REG1"}, false)
	wantCode(t, err, api.CodeEnrollmentExists)
	got, err := c.Enrollment(ctx, "Reg1")
	if err != nil || got.Attestation.SymmetricKey != nil || got.RegistrationID != "reg1" || got.RegistrationState != nil {
		t.Errorf("got %+v, %v: keys belong to the attestation route", got, err)
	}
	keys, err := c.EnrollmentKeys(ctx, "reg1")
	if err != nil || *keys.SymmetricKey != *made.Attestation.SymmetricKey {
		t.Errorf("keys %+v, %v", keys, err)
	}
	got.ProvisioningStatus = api.Disabled
	updated, err := c.PutEnrollment(ctx, got, true)
	if err != nil || updated.ProvisioningStatus != api.Disabled || *updated.Attestation.SymmetricKey != *made.Attestation.SymmetricKey || updated.ETag == made.ETag || !updated.CreatedDateTimeUTC.Equal(made.CreatedDateTimeUTC) {
		t.Errorf("updated %+v, %v", updated, err)
	}
	_, err = c.PutEnrollment(ctx, api.Enrollment{RegistrationID: "none"}, true)
	wantCode(t, err, api.CodeEnrollmentNotFound)

	// # a group and its devices
	g, err := c.PutEnrollmentGroup(ctx, api.EnrollmentGroup{EnrollmentGroupID: "plant"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"sn-2", "sn-1"} {
		key, err := hub.DeriveDeviceKey(g.Attestation.SymmetricKey.PrimaryKey, id)
		if err != nil {
			t.Fatal(err)
		}
		newcomer{id: id, key: key}.rest(t, h, "PUT", "/register"+version, "{}")
	}
	states, err := c.Registrations(ctx, "plant")
	if err != nil || len(states) != 2 || states[0].RegistrationID != "sn-1" || states[0].EnrollmentGroupID != "plant" {
		t.Errorf("registrations %+v, %v", states, err)
	}
	if st, err := c.Registration(ctx, "sn-2"); err != nil || st.Status != "assigned" {
		t.Errorf("registration %+v, %v", st, err)
	}
	if err := c.DeleteRegistration(ctx, "sn-2"); err != nil {
		t.Error(err)
	}
	_, err = c.Registration(ctx, "sn-2")
	wantCode(t, err, api.CodeRegistrationNotFound)
	if shown, err := c.EnrollmentGroup(ctx, "plant"); err != nil || shown.Attestation.SymmetricKey != nil || shown.ETag != g.ETag {
		t.Errorf("group %+v, %v", shown, err)
	}
	if again, err := c.EnrollmentGroupKeys(ctx, "plant"); err != nil || *again.SymmetricKey != *g.Attestation.SymmetricKey {
		t.Errorf("keys %+v, %v", again, err)
	}
	if groups, err := c.EnrollmentGroups(ctx); err != nil || len(groups) != 1 {
		t.Errorf("groups %+v, %v", groups, err)
	}

	// # removal: registrations go along, devices stay
	if err := c.DeleteEnrollmentGroup(ctx, "plant"); err != nil {
		t.Error(err)
	}
	_, err = c.Registration(ctx, "sn-1")
	wantCode(t, err, api.CodeRegistrationNotFound)
	if _, err := h.Device("sn-1"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteEnrollment(ctx, "reg1"); err != nil {
		t.Error(err)
	}
	_, err = c.Enrollment(ctx, "reg1")
	wantCode(t, err, api.CodeEnrollmentNotFound)
	_, err = c.Registrations(ctx, "plant")
	wantCode(t, err, api.CodeEnrollmentNotFound)
}

func TestEnrollmentRoutesByHand(t *testing.T) {
	h := hubtest.Start(t)
	want := func(method, path, body string, header map[string]string, status int, part string) *http.Response {
		t.Helper()
		resp, text := rest(t, h, method, path, body, header)
		if resp.StatusCode != status || !strings.Contains(text, part) {
			t.Errorf("%s %s: %d %s, want %d with %q", method, path, resp.StatusCode, text, status, part)
		}
		return resp
	}
	etag := want("PUT", "/enrollments/a", `{"registrationId":"a","attestation":{"type":"symmetricKey"},"initialTwin":{"tags":{"n":1.50}}}`, nil, 200, `"n":1.50`).Header.Get("ETag")
	want("PUT", "/enrollments/a", `{"attestation":{"type":"symmetricKey"}}`, map[string]string{"If-Match": `"other"`}, 412, `"errorCode":412000`)
	want("PUT", "/enrollments/a", `{"attestation":{"type":"symmetricKey"}}`, map[string]string{"If-Match": etag}, 200, `"registrationId":"a"`)
	want("DELETE", "/enrollments/a", "", map[string]string{"If-Match": etag}, 412, "ETag")
	want("PUT", "/enrollments/a", `{"registrationId":"b"}`, nil, 400, "address")
	want("PUT", "/enrollments/a", `{"registrationId":7}`, nil, 400, `"errorCode":400004`)
	want("PUT", "/enrollments/a", `{} {}`, nil, 400, "more than one")
	want("PUT", "/enrollments/t", `{"attestation":{"type":"tpm"}}`, nil, 400, "TPM")

	// # bulk, by both spellings of the address
	items := `[{"registrationId":"b1","attestation":{"type":"symmetricKey"}},{"registrationId":"a","attestation":{"type":"symmetricKey"}}]`
	want("POST", "/enrollments/", `{"mode":"create","enrollments":`+items+`}`, nil, 200, `{"isSuccessful":false,"errors":[{"registrationId":"a","errorCode":409000`)
	want("POST", "/enrollments", `{"mode":"update","enrollments":`+items+`}`, nil, 200, `{"isSuccessful":true,"errors":[]}`)
	want("POST", "/enrollments", `{"mode":"updateIfMatchEtag","enrollments":`+items+`}`, nil, 200, "has no etag")
	want("POST", "/enrollments", `{"mode":"shuffle","enrollments":`+items+`}`, nil, 200, "mode must be")
	want("POST", "/enrollments", `{"mode":"create","enrollments":[]}`, nil, 400, "1 to 10")
	want("POST", "/enrollmentgroups", `{"mode":"create","enrollmentGroups":[{"enrollmentGroupId":"g1"},{"enrollmentGroupId":"g2"}]}`, nil, 200, `"isSuccessful":true`)
	want("POST", "/enrollmentGroups/", `{"mode":"create","enrollmentGroups":[{"enrollmentGroupId":"g1"}]}`, nil, 200, `"enrollmentGroupId":"g1","errorCode":409000`)
	want("POST", "/enrollmentgroups/g1/attestationmechanism", "", nil, 200, `"primaryKey":"`)

	// # queries, page by page
	resp := want("POST", "/enrollments/query", `{"query":"*"}`, map[string]string{"x-ms-max-item-count": "1"}, 200, `[{"registrationId":"a"`)
	if next := resp.Header.Get("x-ms-continuation"); next == "" || resp.Header.Get("x-ms-item-type") != "enrollment" {
		t.Errorf("header %v", resp.Header)
	} else if resp := want("POST", "/enrollments/query", `{"query":"SELECT * FROM enrollments"}`, map[string]string{"x-ms-continuation": next}, 200, `[{"registrationId":"b1"`); resp.Header.Get("x-ms-continuation") != "" {
		t.Error("there is more")
	}
	want("POST", "/enrollments/query", `{"query":"SELECT * FROM enrollments WHERE registrationId = 'a'"}`, nil, 400, "without WHERE")
	want("POST", "/enrollments/query", `{"query":"*"}`, map[string]string{"x-ms-continuation": "x"}, 400, "must be a number")
	want("POST", "/registrations/g1/query", "", nil, 200, "[]")
	want("DELETE", "/enrollments/a", "", nil, 204, "")
	want("GET", "/enrollments/a", "", nil, 404, `"errorCode":404201`)
	want("DELETE", "/registrations/a", "", nil, 404, `"errorCode":404202`)
}

func TestEnrollmentsNeedTheirRights(t *testing.T) {
	h := hubtest.Start(t)
	for policy, allowed := range map[string]bool{
		"iothubowner": true, "provisioningserviceowner": true, "service": false, "device": false, "registryRead": false, "registryReadWrite": false,
	} {
		c := newClient(t, h, policy)
		_, err := c.PutEnrollment(t.Context(), api.Enrollment{RegistrationID: policy}, false)
		_, readErr := c.Enrollments(t.Context())
		if (err == nil) != allowed || (readErr == nil) != allowed {
			t.Errorf("policy %s: %v, %v", policy, err, readErr)
		}
		if e, ok := errors.AsType[*api.Error](err); err != nil && (!ok || e.HTTPStatus != 401 || e.Code != 401002) {
			t.Errorf("policy %s: %v, want 401", policy, err)
		}
	}
	c := newClient(t, h, "provisioningserviceowner")
	if _, err := c.Devices(t.Context()); err == nil {
		t.Error("the provisioning service's policy reads the registry")
	}
}

// The provisioning service has its own name in connection strings; any that the
// hub answers to will do.
func TestEnrollmentsUnderAnotherName(t *testing.T) {
	const name = "global.azure-devices-provisioning.net"
	h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) { c.Hostnames = []string{"myhub.azure-devices.net", name} }))
	cs, err := h.ServiceConnectionString("provisioningserviceowner")
	if err != nil {
		t.Fatal(err)
	}
	c, err := service.New(strings.Replace(cs, h.Hostname(), name, 1), service.Options{CAPEM: h.CAPEM(), Address: h.HTTPSAddr().String(), DialContext: h.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.PutEnrollment(t.Context(), api.Enrollment{RegistrationID: "reg1"}, false); err != nil {
		t.Error(err)
	}
}

// A directory of a program that knew no enrollments has an owner who may manage
// them.
func TestOwnerOfAnOlderDirectory(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Put("policy/iothubowner", json.RawMessage(`{"rights":15,"key":{"primaryKey":"a2V5IG9mIDE2IGJ5dGVzIQ==","secondaryKey":"a2V5IG9mIDE2IGJ5dGVzIQ=="}}`)); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	h := hubtest.Start(t, hubtest.WithDir(dir))
	if cs, err := h.ServiceConnectionString("iothubowner"); err != nil || !strings.HasSuffix(cs, "=a2V5IG9mIDE2IGJ5dGVzIQ==") {
		t.Fatalf("the owner's key changed: %v", err)
	}
	if _, err := newClient(t, h, "iothubowner").PutEnrollment(t.Context(), api.Enrollment{RegistrationID: "reg1"}, false); err != nil {
		t.Error(err)
	}
}
