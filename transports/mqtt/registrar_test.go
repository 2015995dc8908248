package mqtt_test

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// newRegistrar makes a registrar of the embedded hub's provisioning service.
func newRegistrar(t *testing.T, h *hubtest.Hub, id, payload string) *mqtt.Registrar {
	t.Helper()
	r, err := mqtt.NewRegistrar(mqtt.RegistrarConfig{
		Host: "localhost", IDScope: h.IDScope(), RegistrationID: id, Payload: json.RawMessage(payload),
		TLS: netdial.TLSConfig{ServerVerificationCert: h.CAPEM()}, DialContext: h.DialContext,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// registrationCredential signs a token for it.
func registrationCredential(t *testing.T, h *hubtest.Hub, id, key string) core.Credential {
	t.Helper()
	source, err := credentials.NewRegistrationKey(h.IDScope(), id, core.Secret(key), time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := source.Credential(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestADeviceRegistersWithItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		e := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1", DeviceID: "dev1", EnrollmentSettings: api.EnrollmentSettings{
			ReturnPayload: json.RawMessage(`{"welcome":1}`),
		}})
		began := time.Now()
		got, err := newRegistrar(t, h, "reg1", `{"model":"ü"}`).Register(t.Context(), registrationCredential(t, h, "reg1", e.Attestation.SymmetricKey.PrimaryKey))
		if err != nil {
			t.Fatal(err)
		}
		st := got.State
		if got.Status != "assigned" || got.OperationID == "" || st.AssignedHub != "localhost" || st.DeviceID != "dev1" || st.RegistrationID != "reg1" ||
			st.Substatus != "initialAssignment" || st.ETag == "" || string(st.Payload) != `{"welcome":1}` || time.Since(st.Created) > time.Minute {
			t.Errorf("told %+v", got)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it took %v, and the service asked for 3s (retry-after)", took)
		}
	})
}

func TestADeviceOfAGroupDerivesItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		g := h.AddEnrollmentGroup(api.EnrollmentGroup{EnrollmentGroupID: "plant"})
		key, err := credentials.DeriveKey(core.Secret(g.Attestation.SymmetricKey.SecondaryKey), "sn-7")
		if err != nil {
			t.Fatal(err)
		}
		got, err := newRegistrar(t, h, "sn-7", "").Register(t.Context(), registrationCredential(t, h, "sn-7", key.Reveal()))
		if err != nil {
			t.Fatal(err)
		}
		if got.State.DeviceID != "sn-7" {
			t.Errorf("device %q, want sn-7", got.State.DeviceID)
		}
	})
}

func TestADeviceRegistersWithItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		root := hubtest.NewCA(t, "root")
		h.AddEnrollmentGroup(api.EnrollmentGroup{EnrollmentGroupID: "certs", Attestation: api.Attestation{X509: &api.X509Attestation{
			SigningCertificates: &api.X509Certificates{Primary: &api.X509Certificate{Certificate: string(root.PEM())}},
		}}})
		cert := root.Intermediate("line 4").Issue("gw-1")
		signer, ok := cert.PrivateKey.(crypto.Signer)
		if !ok {
			t.Fatal("the key cannot sign")
		}
		got, err := newRegistrar(t, h, "gw-1", "").Register(t.Context(), core.Credential{Certificate: cert.Certificate, Signer: signer})
		if err != nil {
			t.Fatal(err)
		}
		if got.State.DeviceID != "gw-1" || got.State.AssignedHub != "localhost" {
			t.Errorf("told %+v", got)
		}
	})
}

func TestARegistrationWaitsAsTheServiceAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		key := h.AddEnrollment(api.Enrollment{RegistrationID: "r"}).Attestation.SymmetricKey.PrimaryKey
		r, c := newRegistrar(t, h, "r", ""), registrationCredential(t, h, "r", key)
		h.Fault(api.Fault{Name: api.FaultSlowAssignment, Device: "r", Count: 2})
		h.Fault(api.Fault{Name: api.FaultProvisioningStatus, Device: "r", Count: 1, Delay: api.Duration(7 * time.Second)})
		began := time.Now()
		if _, err := r.Register(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != (7+3+3+3)*time.Second {
			t.Errorf("it took %v; the service asked for 7s, and three times for 3s", took)
		}

		h.Fault(api.Fault{Name: api.FaultProvisioningStatus, Device: "r", Count: 1, Delay: api.Duration(time.Hour)})
		began = time.Now()
		_, err := r.Register(t.Context(), c)
		e, ok := errors.AsType[*core.Error](err)
		if !ok || e.Kind != core.Throttled || e.RetryAfter != time.Hour || e.Status != 429 {
			t.Errorf("told to wait an hour: %#v, want Throttled with that wait", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v to say so", took)
		}

		h.Fault(api.Fault{Name: api.FaultSlowAssignment, Device: "r"})
		began = time.Now()
		_, err = r.Register(t.Context(), c)
		if took := time.Since(began); err == nil || took > 90*time.Second || core.KindOf(err) != core.Transient {
			t.Errorf("a service that never comes to an end: %v after %v, want a transient error within 90s", err, took)
		}
	})
}

func TestRefusedRegistrationsSayWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		key := h.AddEnrollment(api.Enrollment{RegistrationID: "r"}).Attestation.SymmetricKey.PrimaryKey
		other := h.AddEnrollment(api.Enrollment{RegistrationID: "other"}).Attestation.SymmetricKey.PrimaryKey
		off := h.AddEnrollment(api.Enrollment{RegistrationID: "off", EnrollmentSettings: api.EnrollmentSettings{ProvisioningStatus: api.Disabled}})
		for _, c := range []struct {
			name, id, key string
			fault         *api.Fault
			kind          core.Kind
			status, code  int
			is            error
			want          string
		}{
			{"another's key", "r", other, nil, core.Unauthorized, 401, 401002, core.ErrCredential, "is the key or certificate"},
			{"nobody's name", "nobody", key, nil, core.Unauthorized, 401, 401002, core.ErrCredential, ""},
			{"disabled", "off", off.Attestation.SymmetricKey.PrimaryKey, nil, core.Unauthorized, 200, 0, core.ErrService, "disabled"},
			{"bad request", "r", key, &api.Fault{Name: api.FaultProvisioningStatus, Code: 400}, core.Fatal, 400, -1, core.ErrService, ""},
			{"not found", "r", key, &api.Fault{Name: api.FaultProvisioningStatus, Code: 404}, core.Unauthorized, 404, -1, core.ErrService, "is there an enrollment"},
			{"busy", "r", key, &api.Fault{Name: api.FaultProvisioningStatus, Code: 503}, core.Transient, 503, -1, core.ErrService, ""},
		} {
			remove := func() {}
			if c.fault != nil {
				remove = h.Fault(*c.fault)
			}
			_, err := newRegistrar(t, h, c.id, "").Register(t.Context(), registrationCredential(t, h, c.id, c.key))
			remove()
			e, ok := errors.AsType[*core.Error](err)
			re, ok2 := errors.AsType[*core.RegistrationError](err)
			if !ok || !ok2 {
				t.Errorf("%s: error %v, want *core.Error with a *core.RegistrationError in it", c.name, err)
				continue
			}
			if e.Kind != c.kind || e.Status != c.status || re.Status != c.status || !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v: kind %v, status %d, want %v, %d, %q", c.name, err, e.Kind, e.Status, c.kind, c.status, c.want)
			}
			if c.code >= 0 && re.Code != c.code || c.code > 0 && (re.TrackingID == "" || e.TrackingID != re.TrackingID || re.Message == "") {
				t.Errorf("%s: code %d, tracking id %q, message %q", c.name, re.Code, re.TrackingID, re.Message)
			}
			if strings.Contains(err.Error(), c.key) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: the text holds the key or a line feed: %v", c.name, err)
			}
		}
	})
}

func TestAConnectionThatIsRefusedSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		r, err := mqtt.NewRegistrar(mqtt.RegistrarConfig{
			Host: "localhost", IDScope: "0ne00BAD", RegistrationID: "r", TLS: netdial.TLSConfig{ServerVerificationCert: h.CAPEM()}, DialContext: h.DialContext,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Register(t.Context(), core.Credential{Token: "SharedAccessSignature sr=x"})
		if !errors.Is(err, core.ErrCredential) || core.KindOf(err) != core.Unauthorized || !strings.Contains(err.Error(), "id_scope") {
			t.Errorf("another service's id scope: %v, want a word of id_scope", err)
		}
	})
}

// scripted is a provisioning service that answers each request with the next of answers, "{status}{extra}|{body}"; after
// the last it is silent.
func scripted(t *testing.T, hub *transporttest.FakeHub, answers []string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		answered := 0
		for ctx.Err() == nil {
			requests := hub.Log()
			n := 0
			for _, line := range requests {
				topic, ok := strings.CutPrefix(line, "publish $dps/registrations/")
				if !ok {
					continue
				}
				if n++; n <= answered || answered >= len(answers) {
					continue
				}
				_, rid, _ := strings.Cut(topic, "$rid=")
				rid, _, _ = strings.Cut(rid, " ")
				rid, _, _ = strings.Cut(rid, "&")
				head, body, _ := strings.Cut(answers[answered], "|")
				status, extra, _ := strings.Cut(head, "&")
				if extra != "" {
					extra = "&" + extra
				}
				hub.Push("$dps/registrations/res/"+status+"/?$rid="+rid+extra, body, byte(answered%2))
				answered++
			}
			time.Sleep(10 * time.Millisecond) // virtual
		}
	}()
	return func() { cancel(); <-done }
}

func TestWhateverTheServiceAnswersIsUnderstood(t *testing.T) {
	const assigned = `200|{"operationId":"o","status":"assigned","registrationState":{"assignedHub":"h","deviceId":"d"}}`
	for _, c := range []struct {
		name    string
		answers []string
		took    time.Duration // at least, and less than a second more
		kind    core.Kind
		want    string // of the error; "" for success
	}{
		{"at once", []string{assigned}, 0, 0, ""},
		{"no retry-after", []string{`202|{"operationId":"4.a b","status":"assigning"}`, assigned}, 2 * time.Second, 0, ""},
		{"an absurd retry-after", []string{`202&retry-after=99999999999|{"operationId":"o","status":"assigning"}`}, 0, core.Transient, "patience"},
		{"a negative retry-after", []string{`202&retry-after=-1|{"operationId":"o","status":"assigning"}`, assigned}, 2 * time.Second, 0, ""},
		{"failed", []string{`200|{"status":"failed","registrationState":{"errorCode":400207,"errorMessage":"no hub"}}`}, 0, core.Fatal, "no hub (status 200, error 400207)"},
		{"failed by itself", []string{`200|{"status":"failed","registrationState":{"errorCode":500000}}`}, 0, core.Transient, "the registration failed"},
		{"unassigned", []string{`200|{"status":"unassigned"}`}, 0, core.Fatal, `"unassigned"`},
		{"no hub", []string{`200|{"status":"assigned","registrationState":{"deviceId":"d"}}`}, 0, core.Transient, "names no hub"},
		{"no operation", []string{`202|{"status":"assigning"}`}, 0, core.Transient, "names no operation"},
		{"garbage", []string{"200|\x00\xff"}, 0, core.Transient, "parse the provisioning service's answer"},
		{"a refusal without JSON", []string{"404|<html>"}, 0, core.Unauthorized, "no reason given (status 404)"},
		{"silence", nil, 30 * time.Second, core.Transient, "did not answer within 30s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := transporttest.NewFakeHub()
				defer hub.Close()
				defer scripted(t, hub, c.answers)()
				r, err := mqtt.NewRegistrar(mqtt.RegistrarConfig{IDScope: "0ne1", RegistrationID: "r", UserAgent: "a b", Payload: json.RawMessage(`[1]`), Open: hub.Open})
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				got, err := r.Register(t.Context(), core.Credential{Token: "token"})
				if took := time.Since(began); took < c.took || took >= c.took+time.Second {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				if c.want == "" {
					if err != nil || got.State.AssignedHub != "h" || got.State.DeviceID != "d" {
						t.Errorf("got %+v, %v", got, err)
					}
				} else if err == nil || !strings.Contains(err.Error(), c.want) || core.KindOf(err) != c.kind {
					t.Errorf("error %v (%v), want %v with %q", err, core.KindOf(err), c.kind, c.want)
				}
				connect := hub.Connects()[0]
				if connect.Username != "0ne1/registrations/r/api-version=2019-03-31&ClientVersion=a%20b" || connect.ClientIdentifier != "r" ||
					string(connect.Password) != "token" || !connect.CleanSession || hub.Goodbyes() != 1 {
					t.Errorf("CONNECT %+v and %d goodbyes", connect, hub.Goodbyes())
				}
				log := hub.Log()
				if log[0] != "subscribe $dps/registrations/res/#" || !strings.HasPrefix(log[1], "publish $dps/registrations/PUT/iotdps-register/?$rid=") ||
					!strings.HasSuffix(log[1], ` {"registrationId":"r","payload":[1]}`) {
					t.Errorf("asked %q", log)
				}
				if c.name == "no retry-after" && (!strings.HasPrefix(log[2], "publish $dps/registrations/GET/iotdps-get-operationstatus/?$rid=") ||
					!strings.Contains(log[len(log)-1]+log[2], "&operationId=4.a%20b ")) {
					t.Errorf("polled %q", log[2:])
				}
			})
		})
	}
}

func TestARegistrationEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := transporttest.NewFakeHub()
		defer hub.Close()
		r, err := mqtt.NewRegistrar(mqtt.RegistrarConfig{IDScope: "0ne1", RegistrationID: "r", Open: hub.Open})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := r.Register(ctx, core.Credential{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		go func() {
			time.Sleep(time.Second)
			hub.Drop()
		}()
		if _, err := r.Register(t.Context(), core.Credential{}); err == nil || core.KindOf(err) != core.Transient {
			t.Errorf("a connection that was cut: %v", err)
		}
	})
}

func TestRegistrarsAreCheckedWhenMade(t *testing.T) {
	for name, cfg := range map[string]mqtt.RegistrarConfig{
		"no scope":          {RegistrationID: "r"},
		"a slash in it":     {IDScope: "a/b", RegistrationID: "r"},
		"no id":             {IDScope: "s"},
		"an id with spaces": {IDScope: "s", RegistrationID: "a b"},
		"an id that ends":   {IDScope: "s", RegistrationID: "a."},
		"payload":           {IDScope: "s", RegistrationID: "r", Payload: json.RawMessage("{")},
		"certificate":       {IDScope: "s", RegistrationID: "r", TLS: netdial.TLSConfig{ExtraCA: []byte("x")}},
	} {
		if _, err := mqtt.NewRegistrar(cfg); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}
