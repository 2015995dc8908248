package hub_test

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func addX509(t *testing.T, h *hubtest.Hub, id string, auth api.Authentication) {
	t.Helper()
	parsed := api.ParseID(id)
	if _, err := h.CreateDevice(api.Device{DeviceID: parsed.Device, ModuleID: parsed.Module, Authentication: auth}); err != nil {
		t.Fatal(err)
	}
}

func TestCertificateOfADevice(t *testing.T) {
	h := hubtest.Start(t)
	first, second, stranger := hubtest.SelfSigned(t, "anything"), hubtest.SelfSigned(t, "dev2"), hubtest.SelfSigned(t, "dev1")
	p, s := strings.ToUpper(hubtest.Thumbprint(first)), hubtest.Thumbprint(second)
	addX509(t, h, "dev1", api.Authentication{Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{PrimaryThumbprint: &p, SecondaryThumbprint: &s}})
	addX509(t, h, "dev1/mod", api.Authentication{Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{SecondaryThumbprint: &s}})

	root := hubtest.NewCA(t, "root")
	between := root.Intermediate("between")
	alone := between.Issue("dev2")
	alone.Certificate = alone.Certificate[:1]
	other := hubtest.NewCA(t, "root") // the same name, another key
	addX509(t, h, "dev2", api.Authentication{Type: api.AuthCA})
	addX509(t, h, "dev2/mod", api.Authentication{Type: api.AuthCA})
	addX509(t, h, "dev3", api.Authentication{Type: api.AuthNone})
	h.AddDevice("dev4")
	if _, err := h.AddCA("plant", root.PEM()); err != nil {
		t.Fatal(err)
	}

	tests := map[string]struct {
		id   string
		cert *tls.Certificate
		ws   bool
		ok   bool
	}{
		"primary thumbprint":                       {"dev1", &first, false, true},
		"secondary thumbprint":                     {"dev1", &second, false, true},
		"over WebSocket":                           {"dev1", &first, true, true},
		"a module's thumbprint":                    {"dev1/mod", &second, false, true},
		"another thumbprint":                       {"dev1", &stranger, false, false},
		"the device's certificate for its module":  {"dev1/mod", &first, false, false},
		"no certificate":                           {"dev1", nil, false, false},
		"signed by the CA":                         {"dev2", new(root.Issue("dev2")), false, true},
		"a module's, signed by the CA":             {"dev2/mod", new(root.Issue("dev2/mod")), false, true},
		"through an intermediate":                  {"dev2", new(between.Issue("dev2")), false, true},
		"through an intermediate that is not sent": {"dev2", &alone, false, false},
		"another's name":                           {"dev2", new(root.Issue("dev1")), false, false},
		"another CA of that name":                  {"dev2", new(other.Issue("dev2")), false, false},
		"self-signed where a CA is wanted":         {"dev2", &second, false, false},
		"an identity without authentication":       {"dev3", new(root.Issue("dev3")), false, false},
		"an identity with keys":                    {"dev4", new(root.Issue("dev4")), false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := tryConnect(t, h, options{id: tt.id, cert: tt.cert, noPassword: true, ws: tt.ws})
			if (err == nil) != tt.ok {
				t.Fatalf("connect: %v, want accepted: %v", err, tt.ok)
			}
			if err == nil {
				d.Disconnect(0)
				return
			}
			if !strings.Contains(strings.ToLower(err.Error()), "not authorized") {
				t.Errorf("connect: %v, want return code 5", err)
			}
		})
	}
	if d := connect(t, h, options{id: "dev4", cert: &first}); !d.IsConnected() {
		t.Error("a token beside a certificate that does not matter was refused")
	}
}

func TestSessionByCertificate(t *testing.T) {
	dir := t.TempDir()
	h := hubtest.Start(t, hubtest.WithDir(dir))
	root := hubtest.NewCA(t, "root")
	if _, err := newClient(t, h, "iothubowner").AddCA(t.Context(), "plant", root.PEM()); err != nil {
		t.Fatal(err)
	}
	addX509(t, h, "dev1", api.Authentication{Type: api.AuthCA})
	if cs, err := h.ConnectionString("dev1"); err != nil || cs != "HostName=localhost;DeviceId=dev1;x509=true" {
		t.Errorf("connection string %q, %v", cs, err)
	}
	cert := root.Issue("dev1")
	d := connect(t, h, options{id: "dev1", cert: &cert, noPassword: true})
	d.telemetry("", "hello")
	m := h.WaitCount("dev1", 1)[0]
	if want := `{"scope":"device","type":"x509","issuer":"iothub","acceptingIpFilterRule":null}`; m.System["iothub-connection-auth-method"] != want {
		t.Errorf("auth method %s, want %s", m.System["iothub-connection-auth-method"], want)
	}
	// A policy's token is good for any device.
	device, err := h.ServiceConnectionString("device")
	if err != nil {
		t.Fatal(err)
	}
	password := policyToken(t, "localhost/devices/dev1", device)
	connect(t, h, options{id: "dev1", password: password}).telemetry("", "by policy")
	d.wantLost()
	if m := h.WaitCount("dev1", 2)[1]; !strings.Contains(m.System["iothub-connection-auth-method"], `"scope":"hub"`) {
		t.Errorf("auth method %s", m.System["iothub-connection-auth-method"])
	}
	d = connect(t, h, options{id: "dev1", cert: &cert, noPassword: true})
	if _, err := h.UpdateDevice(api.Device{DeviceID: "dev1", Status: api.Disabled}); err != nil {
		t.Fatal(err)
	}
	d.wantLost()
	if _, err := tryConnect(t, h, options{id: "dev1", cert: &cert, noPassword: true}); err == nil || !strings.Contains(strings.ToLower(err.Error()), "server unavailable") {
		t.Errorf("connect a disabled device: %v, want return code 3", err)
	}
	if _, err := h.UpdateDevice(api.Device{DeviceID: "dev1", Status: api.Enabled}); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	// # CAs and identities survive
	h = hubtest.Start(t, hubtest.WithDir(dir))
	connect(t, h, options{id: "dev1", cert: &cert, noPassword: true}).telemetry("", "again")
	if err := h.RemoveCA("plant"); err != nil {
		t.Fatal(err)
	}
	if _, err := tryConnect(t, h, options{id: "dev1", cert: &cert, noPassword: true}); err == nil {
		t.Error("a certificate of a CA that was removed is good")
	}
}

func TestCAsAndThumbprintsAreChecked(t *testing.T) {
	h := hubtest.Start(t)
	c := newClient(t, h, "registryReadWrite")
	root, other := hubtest.NewCA(t, "root"), hubtest.NewCA(t, "other")
	leaf, key := hubtest.CertificatePEM(t, hubtest.SelfSigned(t, "dev1"))
	for name, text := range map[string]string{
		"nothing": "", "no PEM": "hello", "a device's certificate": string(leaf), "a key": string(key), "two": string(root.PEM()) + string(other.PEM()),
		"rubbish": "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
	} {
		if _, err := c.AddCA(t.Context(), "plant", []byte(text)); err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("%s was taken as a CA, or %v", name, err)
		}
	}
	for range 2 { // the same again is fine
		if _, err := c.AddCA(t.Context(), "plant", root.PEM()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.AddCA(t.Context(), "plant", other.PEM()); err == nil || !strings.Contains(err.Error(), "stands for another CA") {
		t.Errorf("another CA under the same name: %v", err)
	}
	list, err := c.CAs(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "plant" || list[0].Subject != "CN=root" || list[0].Certificate != string(root.PEM()) {
		t.Errorf("list %+v, %v", list, err)
	}
	if err := c.RemoveCA(t.Context(), "plant"); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveCA(t.Context(), "plant"); err == nil {
		t.Error("removed twice")
	}
	if _, err := newClient(t, h, "service").AddCA(t.Context(), "plant", root.PEM()); err == nil {
		t.Error("the policy service may register a CA")
	}

	short, colons := strings.Repeat("a", 39), strings.Repeat("aa:", 20)
	for name, auth := range map[string]api.Authentication{
		"no thumbprint": {Type: api.AuthSelfSigned}, "another type": {Type: "password"},
		"a short one":   {Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{PrimaryThumbprint: &short}},
		"one of colons": {Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{PrimaryThumbprint: &colons}},
	} {
		_, err := h.CreateDevice(api.Device{DeviceID: "dev1", Authentication: auth})
		if err == nil {
			t.Errorf("%s was taken", name)
			continue
		}
		wantCode(t, err, api.CodeArgumentInvalid)
	}
	// An update of something else leaves the thumbprint; one of the type gives the keys up.
	sha1, empty := strings.Repeat("ab", 20), ""
	addX509(t, h, "dev1", api.Authentication{Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{PrimaryThumbprint: &sha1, SecondaryThumbprint: &empty}})
	d, err := h.UpdateDevice(api.Device{DeviceID: "dev1", Status: api.Disabled})
	if err != nil || d.Authentication.X509Thumbprint.PrimaryThumbprint == nil || *d.Authentication.X509Thumbprint.PrimaryThumbprint != sha1 || d.Authentication.SymmetricKey.PrimaryKey != "" {
		t.Errorf("updated %+v, %v", d.Authentication, err)
	}
	if d, err = h.UpdateDevice(api.Device{DeviceID: "dev1", Authentication: api.Authentication{Type: api.AuthSAS}}); err != nil || d.Authentication.SymmetricKey.PrimaryKey == "" || d.Authentication.X509Thumbprint.PrimaryThumbprint != nil {
		t.Errorf("updated %+v, %v", d.Authentication, err)
	}
}

// Old devices may offer what has not been safe for years.
func TestOldTLSIsRefused(t *testing.T) {
	h := hubtest.Start(t)
	for version, ok := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		d := tls.Dialer{Config: &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost", MinVersion: version, MaxVersion: version}} //nolint:gosec // what is refused
		nc, err := d.DialContext(t.Context(), "tcp", h.MQTTAddr().String())
		if (err == nil) != ok {
			t.Errorf("TLS %#x: %v", version, err)
		}
		if err == nil {
			_ = nc.Close()
		}
	}
	limited := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) { c.Unsettled.MaxTLS = tls.VersionTLS12 }))
	d := tls.Dialer{Config: &tls.Config{RootCAs: limited.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}}
	nc, err := d.DialContext(t.Context(), "tcp", limited.MQTTAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	if v := nc.(*tls.Conn).ConnectionState().Version; v != tls.VersionTLS12 {
		t.Errorf("TLS %#x", v)
	}
	_ = nc.Close()
}
