package doctor_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/internal/doctor"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// elsewhere are the codes that are brought about by tests of other packages.
var elsewhere = map[string]string{
	"config-wrong":           "cmd/runtime/testdata/script/doctor.txtar",
	"config-unsupported":     "cmd/runtime/testdata/script/doctor.txtar",
	"config-unwise":          "cmd/runtime/testdata/script/doctor.txtar",
	"disk-full":              "internal/faults.TestTheDoctorFindsADiskThatIsFullOrReadOnly",
	"state-dir-read-only":    "internal/faults.TestTheDoctorFindsADiskThatIsFullOrReadOnly",
	"state-dir-not-writable": "internal/faults.TestTheDoctorFindsADiskThatIsFullOrReadOnly",
	"state-dir-failing":      "TestEachErrorOfTheDiskHasItsCode",
}

var brought struct {
	sync.Mutex
	about map[string]bool
}

// TestMain fails where a code has no test that brings it about.
func TestMain(m *testing.M) {
	flag.Parse()
	brought.about = map[string]bool{}
	code := m.Run()
	all := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.list").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
	if code == 0 && all {
		for _, c := range doctor.Codes() {
			if !brought.about[c.Name] && elsewhere[c.Name] == "" {
				fmt.Fprintf(os.Stderr, "no test brings about %s\n", c.Name)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// wantFinding wants a finding, with what it must tell.
func wantFinding(t *testing.T, r *doctor.Report, code string, severity doctor.Severity, texts ...string) {
	t.Helper()
	brought.Lock()
	brought.about[code] = true
	brought.Unlock()
	for _, c := range r.Findings() {
		if c.Code != code {
			continue
		}
		if c.Severity != severity {
			t.Errorf("%s is a %s, want a %s: %s", code, c.Severity, severity, c.Detail)
		}
		for _, text := range texts {
			if !strings.Contains(c.Detail+"\n"+c.Fix, text) {
				t.Errorf("%s does not say %q: %s\n%s", code, text, c.Detail, c.Fix)
			}
		}
		if c.Detail == "" || c.Fix == "" || strings.ContainsAny(c.Fix, "{}") {
			t.Errorf("%s has no cause or no fix: %q %q", code, c.Detail, c.Fix)
		}
		return
	}
	t.Errorf("%s was not found:\n%s", code, text(t, r))
}

// wantNone wants no finding of these codes; without codes, none at all.
func wantNone(t *testing.T, r *doctor.Report, codes ...string) {
	t.Helper()
	for _, c := range r.Findings() {
		if len(codes) == 0 {
			t.Errorf("found %s: %s", c.Code, c.Detail)
		}
		for _, code := range codes {
			if c.Code == code {
				t.Errorf("found %s: %s", c.Code, c.Detail)
			}
		}
	}
}

func text(t *testing.T, r *doctor.Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// atHub is the configuration of a device at an embedded hub, with every kind of route.
func atHub(t *testing.T, h *hubtest.Hub, id string) doctor.Config {
	t.Helper()
	cs, err := credentials.ParseConnectionString(h.AddDevice(id))
	if err != nil {
		t.Fatal(err)
	}
	source, err := credentials.NewSharedKey(cs.Identity, cs.Key, time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	dial := mqtt.Config{Identity: cs.Identity, Port: h.MQTTPort(), Address: "127.0.0.1", TLS: netdial.TLSConfig{ServerVerificationCert: h.CAPEM()}}
	byHTTPS := dial
	byHTTPS.Port = h.HTTPSPort()
	return doctor.Config{
		Identity: cs.Identity, Credentials: source, Renewed: true, UserAgent: "fairlead/test",
		Routes: []doctor.Route{
			{Name: "mqtt", Use: doctor.UseMQTT, ToHub: true, Dial: dial},
			{Name: "mqttws", Use: doctor.UseWebSocket, ToHub: true, Dial: byHTTPS},
			{Name: "https", Use: doctor.UseHTTPS, ToHub: true, Dial: byHTTPS},
		},
	}
}

// run runs the doctor for as long as a test may take.
func run(t *testing.T, cfg doctor.Config) *doctor.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return doctor.Run(ctx, cfg)
}

// sourceFunc is a source of credentials.
type sourceFunc func() (core.Credential, error)

func (f sourceFunc) Credential(context.Context) (core.Credential, error) { return f() }

// token is a source of something that looks like a token.
var token = sourceFunc(func() (core.Credential, error) {
	return core.Credential{Token: "SharedAccessSignature sr=x&sig=secret&se=1", Life: time.Hour}, nil
})

// peer is a dialer to a scripted peer in memory: what it does not answer is not answered.
func peer(serve func(net.Conn)) netdial.ContextDialer {
	return func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close() //nolint:errcheck // nobody is left to tell
			serve(far)
		}()
		return near, nil
	}
}

// failing is a dialer that fails so.
func failing(err error) netdial.ContextDialer {
	return func(context.Context, string, string) (net.Conn, error) { return nil, err }
}
