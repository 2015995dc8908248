//go:build interop && linux

package interop_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func TestMicrosoftsDevicesProvisionThemselves(t *testing.T) {
	nodePackages(t)
	runInNamespace(t, "TestProvisioningInsideTheNamespace")
}

// job is a device for provision.js.
type job struct {
	Host      string `json:"host"`
	Scope     string `json:"scope"`
	Transport string `json:"transport"`
	ID        string `json:"id"`
	Key       string `json:"key,omitempty"`
	Cert      string `json:"cert,omitempty"`
	CertKey   string `json:"certKey,omitempty"`
	Payload   any    `json:"payload,omitempty"`
	Connect   bool   `json:"connect,omitempty"`
}

// told is what the SDK gave its user.
type told struct {
	Registration api.RegistrationState `json:"registration"`
	Desired      map[string]any        `json:"desired"`
	Error        string                `json:"error"`
	Message      string                `json:"message"`
	Said         string                `json:"said"`
}

// TestProvisioningInsideTheNamespace is the process of the test above.
func TestProvisioningInsideTheNamespace(t *testing.T) {
	if os.Getenv(insideNamespace) != t.Name() {
		t.Skip("runs only as a process of TestMicrosoftsDevicesProvisionThemselves")
	}
	raiseLoopback(t)
	nameLoopback(t, hubName, provisioningName)
	h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) {
		c.Hostnames, c.MQTTPort, c.HTTPSPort, c.ProvisioningRetryAfter = []string{hubName, provisioningName}, 8883, 443, time.Second
	}))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, h.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	trust := "NODE_EXTRA_CA_CERTS=" + ca
	root := hubtest.NewCA(t, "root")
	keys := h.AddEnrollmentGroup(api.EnrollmentGroup{EnrollmentGroupID: "keys"}).Attestation.SymmetricKey
	h.AddEnrollmentGroup(api.EnrollmentGroup{EnrollmentGroupID: "certs", Attestation: api.Attestation{X509: &api.X509Attestation{
		SigningCertificates: &api.X509Certificates{Primary: &api.X509Certificate{Certificate: string(root.PEM())}},
	}}})
	for _, transport := range []string{"mqtt", "mqttws", "http"} {
		t.Run(transport, func(t *testing.T) { provisionByTransport(t, h, transport, trust, keys.SecondaryKey, root) })
	}

	// # the service
	cs, err := h.ServiceConnectionString("provisioningserviceowner")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := nodeCommand(ctx, t, "provisioning_service.js", trust, "CA="+string(root.PEM()),
		"CONNECTION_STRING="+strings.Replace(cs, hubName, provisioningName, 1)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all of it held") {
		t.Errorf("provisioning_service.js: %v\n%s", err, out)
	}
	if _, err := h.Registration("mqtt-group"); err == nil {
		t.Error("the service deleted a registration, and the hub still has it")
	}
}

// pemTexts are a device's certificate, with those above it, and its key.
func pemTexts(t *testing.T, cert tls.Certificate) (certificate, key string) {
	t.Helper()
	c, k := hubtest.CertificatePEM(t, cert)
	return string(c), string(k)
}

// provision has devices made of the SDK provision themselves, all at once.
func provision(t *testing.T, trust string, jobs ...job) []told {
	t.Helper()
	in, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := nodeCommand(ctx, t, "provision.js", trust)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("provision.js: %v", err)
	}
	var all []told
	if err := json.Unmarshal(out, &all); err != nil || len(all) != len(jobs) {
		t.Fatalf("provision.js said %s: %v", out, err)
	}
	return all
}

func provisionByTransport(t *testing.T, h *hubtest.Hub, transport, trust, groupKey string, root *hubtest.CA) {
	id := func(what string) string { return transport + "-" + what }
	device := func(what string) job {
		return job{Host: provisioningName, Scope: h.IDScope(), Transport: transport, ID: id(what)}
	}
	keyed := func(what string, e api.EnrollmentSettings, deviceID string) job {
		t.Helper()
		j := device(what)
		j.Key = h.AddEnrollment(api.Enrollment{RegistrationID: j.ID, DeviceID: deviceID, EnrollmentSettings: e}).Attestation.SymmetricKey.PrimaryKey
		return j
	}
	one := keyed("one", api.EnrollmentSettings{
		InitialTwin:   &api.TwinPatch{Properties: &api.TwinPatchProperties{Desired: map[string]any{"interval": 7}}},
		ReturnPayload: json.RawMessage(`{"welcome":1}`),
	}, id("device"))
	one.Payload, one.Connect = map[string]any{"model": "x/1 ü"}, true
	group := device("group")
	derived, err := hub.DeriveDeviceKey(groupKey, group.ID)
	if err != nil {
		t.Fatal(err)
	}
	group.Key = derived
	own := device("own")
	cert := hubtest.SelfSigned(t, own.ID)
	own.Cert, own.CertKey = pemTexts(t, cert)
	own.Connect = true
	h.AddEnrollment(api.Enrollment{RegistrationID: own.ID, Attestation: api.Attestation{X509: &api.X509Attestation{
		ClientCertificates: &api.X509Certificates{Primary: &api.X509Certificate{Certificate: own.Cert}},
	}}})
	signed := device("signed")
	cert = root.Intermediate("line 4").Issue(signed.ID)
	signed.Cert, signed.CertKey = pemTexts(t, cert)
	signed.Connect = true
	wrong := keyed("wrong", api.EnrollmentSettings{}, "")
	wrong.Key = one.Key
	stranger := device("stranger")
	cert = hubtest.SelfSigned(t, stranger.ID)
	stranger.Cert, stranger.CertKey = pemTexts(t, cert)
	disabled := keyed("disabled", api.EnrollmentSettings{ProvisioningStatus: api.Disabled}, "")
	slow := keyed("slow", api.EnrollmentSettings{}, "")
	h.Fault(api.Fault{Name: api.FaultSlowAssignment, Device: slow.ID, Count: 2})
	throttled := keyed("throttled", api.EnrollmentSettings{}, "")
	h.Fault(api.Fault{Name: api.FaultProvisioningStatus, Device: throttled.ID, Count: 1})

	jobs := []job{one, group, own, signed, wrong, stranger, disabled, slow, throttled}
	all := provision(t, trust, jobs...)
	got := map[string]told{}
	for i, j := range jobs {
		got[j.ID] = all[i]
	}

	// # what the SDK gave, and what the hub has, of those that were let in
	for _, want := range []struct {
		job
		device, auth, group string
	}{
		{one, id("device"), "sas", ""}, {group, group.ID, "sas", "keys"}, {own, own.ID, "selfSigned", ""}, {signed, signed.ID, "selfSigned", "certs"}, {slow, slow.ID, "sas", ""},
	} {
		g := got[want.ID]
		if g.Error != "" || g.Registration.AssignedHub != hubName || g.Registration.DeviceID != want.device || g.Registration.Status != "assigned" || g.Registration.Substatus != "initialAssignment" {
			t.Errorf("%s was told %+v", want.ID, g)
			continue
		}
		d, err := h.Device(want.device)
		if err != nil || d.Authentication.Type != want.auth {
			t.Errorf("%s: device %+v, %v", want.ID, d, err)
		}
		if st, err := h.Registration(want.ID); err != nil || st.Status != "assigned" || st.EnrollmentGroupID != want.group {
			t.Errorf("%s: registration %+v, %v", want.ID, st, err)
		}
	}
	if g := got[one.ID]; fmt.Sprint(g.Desired["interval"]) != "7" || string(g.Registration.Payload) != `{"welcome":1}` {
		t.Errorf("%s has the desired properties %v and the payload %s", one.ID, g.Desired, g.Registration.Payload)
	}
	for _, device := range []string{id("device"), own.ID, signed.ID} { // those that went on to the hub
		if m := h.WaitCount(device, 1)[0]; string(m.Body) != "from "+device {
			t.Errorf("message %s of %s", m.Body, device)
		}
	}
	if st, err := h.Registration(one.ID); err != nil || string(st.DevicePayload) != `{"model":"x/1 ü"}` {
		t.Errorf("%s sent the payload %s, %v", one.ID, st.DevicePayload, err)
	}

	// # those that were not
	for _, refused := range []struct{ id, name, said string }{
		{wrong.ID, "UnauthorizedError", `"errorCode":401002`}, {stranger.ID, "UnauthorizedError", "Invalid certificate."}, {disabled.ID, "SyntaxError", `"status":"disabled"`},
	} {
		g := got[refused.id]
		if g.Error != refused.name || !strings.Contains(g.Said, refused.said) {
			t.Errorf("%s was told %+v, want %s with %s", refused.id, g, refused.name, refused.said)
		}
		if _, err := h.Device(refused.id); err == nil {
			t.Errorf("%s is in the hub", refused.id)
		}
	}

	// # throttled: by MQTT the SDK waits and tries again; by HTTPS it gives the error to its user
	g := got[throttled.ID]
	if transport == "http" {
		if g.Error != "ThrottlingError" || !strings.Contains(g.Said, `"errorCode":429001`) {
			t.Errorf("%s was told %+v", throttled.ID, g)
		}
	} else if g.Error != "" || g.Registration.Status != "assigned" {
		t.Errorf("%s was told %+v", throttled.ID, g)
	}
	if left := h.Faults(); len(left) != 0 {
		t.Errorf("faults left: %+v", left)
	}
}
