package dps_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/hub/internal/dps"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
	"github.com/fairlead-iot/fairlead/hub/internal/sas"
)

// The vector of https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation.
func TestDeriveKey(t *testing.T) {
	const (
		group = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
		id    = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6"
		want  = "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="
	)
	if got, err := dps.DeriveKey(group, id); err != nil || got != want {
		t.Errorf("DeriveKey = %q, %v, want %q", got, err, want)
	}
	for _, bad := range []string{"", "no base64!"} {
		if _, err := dps.DeriveKey(bad, id); err == nil || strings.Contains(err.Error(), "no base64!") {
			t.Errorf("DeriveKey(%q): %v, want an error without the key", bad, err)
		}
	}
}

// service is a provisioning service in memory.
func service(t *testing.T) (*dps.Service, *iot.Service) {
	t.Helper()
	hub, err := iot.Open(iot.Config{Hostnames: []string{"hub.local"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hub.Close() })
	s, err := dps.Open(dps.Config{Hub: hub})
	if err != nil {
		t.Fatal(err)
	}
	return s, hub
}

func enroll(t *testing.T, s *dps.Service, kind dps.Kind, e dps.Entry) dps.Entry {
	t.Helper()
	e, err := s.Put(kind, e, "")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func token(t *testing.T, scope, id, policy, key string, end time.Time) string {
	t.Helper()
	text, err := sas.New(scope+"/registrations/"+id, policy, key, end)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// code is the error number of an answer, or its status.
func code(a dps.Answer) int {
	var body struct {
		ErrorCode int `json:"errorCode"`
	}
	if json.Unmarshal(a.Body, &body) == nil && body.ErrorCode != 0 {
		return body.ErrorCode
	}
	return a.Status
}

func TestTokens(t *testing.T) {
	s, hub := service(t)
	now := time.Now()
	hour := now.Add(time.Hour)
	one := enroll(t, s, dps.Individual, dps.Entry{ID: "Dev1"}).Attestation.SymmetricKey
	group := enroll(t, s, dps.Group, dps.Entry{ID: "group"}).Attestation.SymmetricKey
	enroll(t, s, dps.Group, dps.Entry{ID: "other"})
	enroll(t, s, dps.Individual, dps.Entry{ID: "cert", Attestation: x509Of(pemOf(t, hubtest.SelfSigned(t, "cert")), "")})
	derived := func(key, id string) string {
		t.Helper()
		text, err := dps.DeriveKey(key, id)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	scope := s.Scope()
	tests := map[string]struct {
		scope, id, token string
		want             int
	}{
		"primary key":                {scope, "dev1", token(t, scope, "dev1", "registration", one.PrimaryKey, hour), 202},
		"secondary key":              {scope, "dev1", token(t, scope, "dev1", "registration", one.SecondaryKey, hour), 202},
		"without skn":                {scope, "dev1", token(t, scope, "dev1", "", one.PrimaryKey, hour), 202},
		"another case":               {strings.ToLower(scope), "DEV1", token(t, scope, "DEV1", "", one.PrimaryKey, hour), 202},
		"derived primary key":        {scope, "sn-1", token(t, scope, "sn-1", "registration", derived(group.PrimaryKey, "sn-1"), hour), 202},
		"derived secondary key":      {scope, "sn-2", token(t, scope, "sn-2", "registration", derived(group.SecondaryKey, "sn-2"), hour), 202},
		"another's derived key":      {scope, "sn-3", token(t, scope, "sn-3", "registration", derived(group.PrimaryKey, "sn-1"), hour), 401002},
		"the group's own key":        {scope, "sn-3", token(t, scope, "sn-3", "registration", group.PrimaryKey, hour), 401002},
		"a group's, but enrolled":    {scope, "dev1", token(t, scope, "dev1", "registration", derived(group.PrimaryKey, "dev1"), hour), 401002},
		"a token, but a certificate": {scope, "cert", token(t, scope, "cert", "registration", one.PrimaryKey, hour), 401002},
		"another policy":             {scope, "dev1", token(t, scope, "dev1", "iothubowner", one.PrimaryKey, hour), 401002},
		"another's token":            {scope, "dev1", token(t, scope, "dev2", "registration", one.PrimaryKey, hour), 401002},
		"a token for all":            {scope, "dev1", strings.Replace(token(t, scope, "", "", one.PrimaryKey, hour), "%2Fregistrations%2F", "", 1), 401002},
		"expired":                    {scope, "dev1", token(t, scope, "dev1", "registration", one.PrimaryKey, now), 401002},
		"no token":                   {scope, "dev1", "Bearer x", 401002},
		"nothing":                    {scope, "dev1", "", 401002},
		"another id scope":           {"0ne00000000", "dev1", token(t, "0ne00000000", "dev1", "registration", one.PrimaryKey, hour), 404000},
		"no registration id":         {scope, "dev/1", token(t, scope, "dev/1", "registration", one.PrimaryKey, hour), 400004},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := s.Register(dps.Credential{IDScope: tt.scope, RegistrationID: tt.id, Token: tt.token}, nil, false, now)
			if code(a) != tt.want {
				t.Errorf("answer %d %s, want %d", a.Status, a.Body, tt.want)
			}
			if strings.Contains(string(a.Body), "sig=") {
				t.Errorf("the answer repeats the token: %s", a.Body)
			}
		})
	}
	d, err := hub.Device(api.ID{Device: "sn-2"})
	if err != nil || d.Authentication.SymmetricKey.PrimaryKey != derived(group.PrimaryKey, "sn-2") || d.Authentication.SymmetricKey.SecondaryKey != derived(group.SecondaryKey, "sn-2") {
		t.Errorf("the group's device has the keys %+v, %v", d.Authentication.SymmetricKey, err)
	}
}

func x509Of(client, signing string) api.Attestation {
	x := &api.X509Attestation{}
	if client != "" {
		x.ClientCertificates = &api.X509Certificates{Primary: &api.X509Certificate{Certificate: client}}
	}
	if signing != "" {
		x.SigningCertificates = &api.X509Certificates{Primary: &api.X509Certificate{Certificate: signing}}
	}
	return api.Attestation{Type: api.AttestationX509, X509: x}
}

func TestCertificates(t *testing.T) {
	s, hub := service(t)
	now := time.Now()
	root := hubtest.NewCA(t, "root")
	plant, closed := root.Intermediate("plant"), root.Intermediate("closed plant")
	own := hubtest.SelfSigned(t, "own")
	thumb := hubtest.SelfSigned(t, "thumb")
	enroll(t, s, dps.Group, dps.Entry{ID: "a-all", Attestation: x509Of("", string(root.PEM()))})
	enroll(t, s, dps.Group, dps.Entry{ID: "b-closed", Attestation: x509Of("", string(closed.PEM())), Settings: api.EnrollmentSettings{ProvisioningStatus: api.Disabled}})
	first := enroll(t, s, dps.Individual, dps.Entry{ID: "own", Attestation: x509Of(pemOf(t, own), "")})
	info := first.Attestation.X509.ClientCertificates.Primary.Info
	if info.SubjectName != "CN=own" || len(info.SHA256Thumbprint) != 64 || first.Attestation.X509.ClientCertificates.Primary.Certificate != "" {
		t.Errorf("the enrollment shows %+v", first.Attestation.X509.ClientCertificates.Primary)
	}
	print256 := strings.ToLower(thumbprintOf(t, s, thumb.Leaf))
	enroll(t, s, dps.Individual, dps.Entry{ID: "thumb", Attestation: api.Attestation{X509: &api.X509Attestation{ClientCertificates: &api.X509Certificates{
		Primary: &api.X509Certificate{Info: &api.CertificateInfo{SHA256Thumbprint: print256}},
	}}}})
	enroll(t, s, dps.Individual, dps.Entry{ID: "keyed"})

	chain := func(der ...[]byte) []*x509.Certificate {
		t.Helper()
		var certs []*x509.Certificate
		for _, d := range der {
			cert, err := x509.ParseCertificate(d)
			if err != nil {
				t.Fatal(err)
			}
			certs = append(certs, cert)
		}
		return certs
	}
	tests := map[string]struct {
		id     string
		certs  []*x509.Certificate
		want   int
		status string // of the operation
	}{
		"the enrolled one":            {"own", chain(own.Certificate...), 202, "assigned"},
		"by thumbprint":               {"thumb", chain(thumb.Certificate...), 202, "assigned"},
		"another of the same name":    {"own", chain(hubtest.SelfSigned(t, "own").Certificate...), 401002, ""},
		"the group's, but enrolled":   {"own", chain(root.Issue("own").Certificate...), 401002, ""},
		"a key was enrolled":          {"keyed", chain(root.Issue("keyed").Certificate...), 401002, ""},
		"signed by the group's":       {"g1", chain(root.Issue("g1").Certificate...), 202, "assigned"},
		"by an intermediate":          {"g2", chain(plant.Issue("g2").Certificate...), 202, "assigned"},
		"the intermediate is missing": {"g3", chain(plant.Issue("g3").Certificate[0]), 401002, ""},
		"by a disabled group":         {"g4", chain(closed.Issue("g4").Certificate...), 202, "disabled"},
		"another common name":         {"g5", chain(root.Issue("g6").Certificate...), 401002, ""},
		"another case":                {"G7", chain(root.Issue("g7").Certificate...), 202, "assigned"},
		"expired":                     {"g8", chain(root.IssueUntil("g8", now.Add(-time.Minute)).Certificate...), 401002, ""},
		"not yet good":                {"g9", chain(root.IssueUntil("g9", now.Add(72*time.Hour)).Certificate...), 401002, ""},
		"of a stranger":               {"g10", chain(hubtest.NewCA(t, "root").Issue("g10").Certificate...), 401002, ""},
		"too many": {"g11", chain(append(root.Issue("g11").Certificate, plant.Issue("x").Certificate[0], plant.Issue("x").Certificate[0], plant.Issue("x").Certificate[0],
			plant.Issue("x").Certificate[0], plant.Issue("x").Certificate[0], plant.Issue("x").Certificate[0], plant.Issue("x").Certificate[0],
			plant.Issue("x").Certificate[0], plant.Issue("x").Certificate[0], plant.Issue("x").Certificate[0])...), 401002, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := dps.Credential{IDScope: s.Scope(), RegistrationID: tt.id, Certificates: tt.certs}
			a := s.Register(c, nil, false, now)
			if code(a) != tt.want {
				t.Fatalf("answer %d %s, want %d", a.Status, a.Body, tt.want)
			}
			if tt.want != 202 {
				return
			}
			var told api.OperationStatus
			if a = s.Status(c, a.Operation, now); json.Unmarshal(a.Body, &told) != nil || told.Status != tt.status {
				t.Fatalf("operation %d %s, want %s", a.Status, a.Body, tt.status)
			}
			if tt.status != "assigned" {
				return
			}
			d, err := hub.Device(api.ID{Device: tt.id})
			if err != nil || d.Authentication.Type != "selfSigned" || d.Authentication.X509Thumbprint.PrimaryThumbprint == nil ||
				*d.Authentication.X509Thumbprint.PrimaryThumbprint != strings.ToUpper(thumbprintOf(t, s, tt.certs[0])) {
				t.Errorf("the device proves itself by %+v, %v", d.Authentication, err)
			}
			if told.RegistrationState.X509 == nil || told.RegistrationState.SymmetricKey != nil {
				t.Errorf("the state is %s", a.Body)
			}
		})
	}
}

// thumbprintOf lets the service compute it.
func thumbprintOf(t *testing.T, s *dps.Service, cert *x509.Certificate) string {
	t.Helper()
	id := "thumbprint-of-" + cert.SerialNumber.Text(16)
	e, err := s.Put(dps.Individual, dps.Entry{ID: id, Attestation: x509Of(base64.StdEncoding.EncodeToString(cert.Raw), "")}, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(dps.Individual, id, ""); err != nil {
		t.Fatal(err)
	}
	return e.Attestation.X509.ClientCertificates.Primary.Info.SHA256Thumbprint
}

// pemOf is a certificate's text.
func pemOf(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	text, _ := hubtest.CertificatePEM(t, cert)
	return string(text)
}

func TestEntriesAreChecked(t *testing.T) {
	s, _ := service(t)
	leaf := pemOf(t, hubtest.SelfSigned(t, "leaf"))
	_, key := hubtest.CertificatePEM(t, hubtest.SelfSigned(t, "k"))
	ca := string(hubtest.NewCA(t, "root").PEM())
	tests := map[string]struct {
		kind dps.Kind
		e    dps.Entry
		want string // part of the message
	}{
		"no id":                  {dps.Individual, dps.Entry{}, "registrationId"},
		"an id with a slash":     {dps.Individual, dps.Entry{ID: "a/b"}, "letters, digits and -._:"},
		"an id with a space":     {dps.Group, dps.Entry{ID: "a b"}, "enrollmentGroupId"},
		"an id that ends so":     {dps.Individual, dps.Entry{ID: "a."}, "at its end"},
		"a long id":              {dps.Individual, dps.Entry{ID: strings.Repeat("x", 129)}, "1 to 128"},
		"a device id":            {dps.Individual, dps.Entry{ID: "a", DeviceID: "a b"}, "the id"},
		"a status":               {dps.Individual, dps.Entry{ID: "a", Settings: api.EnrollmentSettings{ProvisioningStatus: "off"}}, "enabled or disabled"},
		"a webhook":              {dps.Individual, dps.Entry{ID: "a", Settings: api.EnrollmentSettings{AllocationPolicy: "custom"}}, "no webhook"},
		"another hub":            {dps.Individual, dps.Entry{ID: "a", Settings: api.EnrollmentSettings{IoTHubs: []string{"x.azure-devices.net"}}}, "must name hub.local"},
		"another hub's name":     {dps.Group, dps.Entry{ID: "a", Settings: api.EnrollmentSettings{IoTHubHostName: "x"}}, "must name hub.local"},
		"a twin":                 {dps.Individual, dps.Entry{ID: "a", Settings: api.EnrollmentSettings{InitialTwin: &api.TwinPatch{Tags: map[string]any{"a.b": 1}}}}, "key"},
		"a large twin":           {dps.Individual, dps.Entry{ID: "a", Settings: api.EnrollmentSettings{InitialTwin: &api.TwinPatch{Tags: map[string]any{"a": strings.Repeat("x", 4096), "b": strings.Repeat("x", 4096)}}}}, "more than"},
		"a short key":            {dps.Individual, dps.Entry{ID: "a", Attestation: api.Attestation{SymmetricKey: &api.SymmetricKey{PrimaryKey: "c2hvcnQ="}}}, "16 to 64 bytes"},
		"a TPM":                  {dps.Individual, dps.Entry{ID: "a", Attestation: api.Attestation{Type: "tpm"}}, "no TPM"},
		"no certificate":         {dps.Individual, dps.Entry{ID: "a", Attestation: api.Attestation{Type: "x509"}}, "x509 is missing"},
		"an empty certificate":   {dps.Individual, dps.Entry{ID: "a", Attestation: api.Attestation{X509: &api.X509Attestation{ClientCertificates: &api.X509Certificates{Primary: &api.X509Certificate{}}}}}, "certificate is missing"},
		"no primary":             {dps.Group, dps.Entry{ID: "a", Attestation: api.Attestation{X509: &api.X509Attestation{SigningCertificates: &api.X509Certificates{}}}}, "primary certificate is missing"},
		"an authority for one":   {dps.Individual, dps.Entry{ID: "a", Attestation: x509Of("", ca)}, "clientCertificates"},
		"a device's for a group": {dps.Group, dps.Entry{ID: "a", Attestation: x509Of(leaf, "")}, "signingCertificates"},
		"no authority":           {dps.Group, dps.Entry{ID: "a", Attestation: x509Of("", leaf)}, "no authority's"},
		"no base64":              {dps.Group, dps.Entry{ID: "a", Attestation: x509Of("", "?")}, "neither PEM nor base64"},
		"no DER":                 {dps.Group, dps.Entry{ID: "a", Attestation: x509Of("", "AAAA")}, "cannot be read"},
		"a key as PEM":           {dps.Group, dps.Entry{ID: "a", Attestation: x509Of("", string(key))}, "not a CERTIFICATE"},
		"a thumbprint":           {dps.Individual, dps.Entry{ID: "a", Attestation: api.Attestation{X509: &api.X509Attestation{ClientCertificates: &api.X509Certificates{Primary: &api.X509Certificate{Info: &api.CertificateInfo{SHA256Thumbprint: "AB"}}}}}}, "64 hex digits"},
		"half a thumbprint":      {dps.Individual, dps.Entry{ID: "a", Attestation: api.Attestation{X509: &api.X509Attestation{ClientCertificates: &api.X509Certificates{Primary: &api.X509Certificate{Info: &api.CertificateInfo{SHA1Thumbprint: strings.Repeat("AB", 20), SHA256Thumbprint: "x"}}}}}}, "64 hex digits"},
		"a reference":            {dps.Group, dps.Entry{ID: "a", Attestation: api.Attestation{Type: "x509", X509: &api.X509Attestation{CAReferences: []byte(`{"primary":"x"}`)}}}, "signingCertificates"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := s.Put(tt.kind, tt.e, "")
			if e := iot.AsError(err); err == nil || e.HTTPStatus != 400 || !strings.Contains(e.Message, tt.want) {
				t.Errorf("Put: %v, want 400 with %q", err, tt.want)
			}
		})
	}
	if _, err := s.Put(dps.Individual, dps.Entry{ID: "a", Settings: api.EnrollmentSettings{ReturnPayload: []byte("{")}}, ""); iot.AsError(err).HTTPStatus != 400 {
		t.Errorf("a payload that is not JSON: %v", err)
	}
	// What clients send for certificates: PEM, and PEM in base64.
	for i, text := range []string{leaf, base64.StdEncoding.EncodeToString([]byte(leaf)), " " + leaf + "\n"} {
		if _, err := s.Put(dps.Individual, dps.Entry{ID: "leaf" + string(rune('0'+i)), Attestation: x509Of(text, "")}, ""); err != nil {
			t.Errorf("form %d: %v", i, err)
		}
	}
}

func FuzzRegister(f *testing.F) {
	hub, err := iot.Open(iot.Config{Hostnames: []string{"hub.local"}})
	if err != nil {
		f.Fatal(err)
	}
	defer hub.Close() //nolint:errcheck // in memory
	s, err := dps.Open(dps.Config{Hub: hub})
	if err != nil {
		f.Fatal(err)
	}
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	if _, err := s.Put(dps.Individual, dps.Entry{ID: "dev1", Attestation: api.Attestation{SymmetricKey: &api.SymmetricKey{PrimaryKey: key}}}, ""); err != nil {
		f.Fatal(err)
	}
	good, err := sas.New(s.Scope()+"/registrations/dev1", "registration", key, time.Now().Add(24*time.Hour))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Scope(), "dev1", good, []byte(`{"registrationId":"dev1","payload":{"a":[1]}}`))
	f.Add(s.Scope(), "dev1", "SharedAccessSignature sr=x&sig=&se=1", []byte(`{`))
	f.Add("", "", "", []byte(" "))
	f.Fuzz(func(t *testing.T, scope, id, text string, body []byte) {
		c := dps.Credential{IDScope: scope, RegistrationID: id, Token: text}
		a := s.Register(c, body, false, time.Now())
		if !json.Valid(a.Body) || a.Status != 202 && a.Status/100 != 4 {
			t.Fatalf("answer %d %q", a.Status, a.Body)
		}
		if a.Status != 202 {
			return
		}
		if token, err := sas.Parse(text); err != nil || !token.SignedBy(key) {
			t.Fatalf("a token that nobody signed was taken: %q", text)
		}
		if a := s.Status(c, a.Operation, time.Now()); a.Status != 200 || !json.Valid(a.Body) {
			t.Fatalf("operation %d %q", a.Status, a.Body)
		}
	})
}

// Who updates an enrollment sends back what it got, in which the certificate is
// described only.
func TestUpdateKeepsTheCertificate(t *testing.T) {
	s, _ := service(t)
	now := time.Now()
	root := hubtest.NewCA(t, "root")
	own := hubtest.SelfSigned(t, "own")
	enroll(t, s, dps.Group, dps.Entry{ID: "group", Attestation: x509Of("", string(root.PEM()))})
	enroll(t, s, dps.Individual, dps.Entry{ID: "own", Attestation: x509Of(pemOf(t, own), "")})
	for kind, id := range map[dps.Kind]string{dps.Group: "group", dps.Individual: "own"} {
		got, err := s.Get(kind, id, false)
		if err != nil {
			t.Fatal(err)
		}
		got.Settings.InitialTwin = &api.TwinPatch{Tags: map[string]any{"a": 1}}
		updated, err := s.Put(kind, got, iot.Match(got.Settings.ETag))
		if err != nil {
			t.Fatalf("update of %s: %v", id, err)
		}
		// What is given back is the caller's to change.
		updated.Settings.InitialTwin.Tags["a"] = "changed"
		updated.Settings.ReprovisionPolicy.UpdateHubAssignment = false
		if kept, err := s.Get(kind, id, false); err != nil || kept.Settings.InitialTwin.Tags["a"] == "changed" || !kept.Settings.ReprovisionPolicy.UpdateHubAssignment {
			t.Errorf("%s was changed from without: %+v, %v", id, kept.Settings, err)
		}
	}
	for id, cert := range map[string]*x509.Certificate{"g1": root.Issue("g1").Leaf, "own": own.Leaf} {
		if a := s.Register(dps.Credential{IDScope: s.Scope(), RegistrationID: id, Certificates: []*x509.Certificate{cert}}, nil, false, now); a.Status != 202 {
			t.Errorf("%s after the update: %d %s", id, a.Status, a.Body)
		}
	}
}
