package doctor_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/internal/clock"
	"github.com/fairlead-iot/fairlead/internal/doctor"
	"github.com/fairlead-iot/fairlead/store"
)

// signed lets the device sign its tokens with a key and a clock.
func signed(t *testing.T, cfg doctor.Config, key core.Secret, now func() time.Time) doctor.Config {
	t.Helper()
	source, err := credentials.NewSharedKey(cfg.Identity, key, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Credentials = source
	return cfg
}

func keyOf(t *testing.T, h *hubtest.Hub, id string) core.Secret {
	t.Helper()
	d, err := h.Device(id)
	if err != nil {
		t.Fatal(err)
	}
	return core.Secret(d.Authentication.SymmetricKey.PrimaryKey)
}

func TestAtAHubThatIsWellNothingIsFound(t *testing.T) {
	h := hubtest.Start(t)
	cfg := atHub(t, h, "dev1")
	cfg.StateDir = t.TempDir()
	chmod(t, cfg.StateDir, 0o700)
	r := run(t, cfg)
	wantNone(t, r)
	if !r.Healthy || len(r.Ways) != 3 {
		t.Errorf("not healthy:\n%s", text(t, r))
	}
	layers := map[string]bool{}
	for _, c := range r.Checks {
		layers[c.Route+" "+c.Layer] = c.Severity == doctor.OK
	}
	for _, want := range []string{" clock", " storage", " credential", "mqtt tcp", "mqtt tls", "mqttws tcp", "mqttws tls", "mqttws websocket", "https tcp", "https tls", "https https"} {
		if !layers[want] {
			t.Errorf("%s is not ok:\n%s", want, text(t, r))
		}
	}
}

// The hub would throw out the device's own session for a CONNECT, and hand its messages to whoever asks for them.
func TestALiveSessionAndItsMessagesStayWhatTheyAre(t *testing.T) {
	h := hubtest.Start(t)
	cfg := atHub(t, h, "dev1")
	cs, err := h.ConnectionString("dev1")
	if err != nil {
		t.Fatal(err)
	}
	lost := make(chan string, 16)
	c, err := device.FromConnectionString(cs, func(o *device.Options) {
		o.ServerVerificationCert, o.Port, o.Address = h.CAPEM(), h.MQTTPort(), "127.0.0.1"
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Shutdown(context.Background()) })
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop := c.OnConnection(func(c core.Connection) {
		if !c.Connected() {
			lost <- c.Reason
		}
	})
	defer stop()
	// Nobody handles messages, so that this one waits in the device's queue.
	if err := h.SendC2D("dev1", api.C2D{Body: []byte("for the device")}); err != nil {
		t.Fatal(err)
	}
	before, err := h.Counters("dev1")
	if err != nil {
		t.Fatal(err)
	}
	seen := h.Record()
	for range 3 {
		r := run(t, cfg)
		wantNone(t, r)
		if !r.Healthy {
			t.Errorf("not healthy:\n%s", text(t, r))
		}
	}
	after, err := h.Counters("dev1")
	if err != nil {
		t.Fatal(err)
	}
	if before != after || before.Connects != 1 || before.C2DEnqueued != 1 {
		t.Errorf("the hub counted %+v before and %+v after", before, after)
	}
	if lines := seen.Lines("dev1"); len(lines) > 0 {
		t.Errorf("the hub saw %q of the device", lines)
	}
	if err := c.Send(t.Context(), &device.Message{Payload: []byte("still here")}); err != nil {
		t.Errorf("send by the session: %v", err)
	}
	select {
	case reason := <-lost:
		t.Errorf("the session was lost: %s", reason)
	default:
	}
	// Its message is still there for it.
	c.HandleMessages(func(context.Context, *device.Message) error { return nil })
	h.WaitCounters("dev1", func(n api.Counters) bool { return n.C2DCompleted == 1 })
}

func TestWhatTheHubThinksOfTheCredential(t *testing.T) {
	h := hubtest.Start(t)
	for _, c := range []struct {
		name, id string
		change   func(t *testing.T, cfg *doctor.Config)
		code     string
		severity doctor.Severity
		texts    []string
	}{
		{"a wrong key", "wrong", func(t *testing.T, cfg *doctor.Config) {
			*cfg = signed(t, *cfg, "d3Jvbmc=", time.Now)
		}, "credential-refused", doctor.Problem, []string{"401", "az iot hub device-identity"}},
		{"a disabled device", "disabled", func(t *testing.T, _ *doctor.Config) {
			d, err := h.Device("disabled")
			if err != nil {
				t.Fatal(err)
			}
			d.Status = api.Disabled
			if _, err := h.UpdateDevice(d); err != nil {
				t.Fatal(err)
			}
		}, "device-disabled", doctor.Problem, []string{"DeviceDisabled"}},
		{"a device that was deleted", "deleted", func(t *testing.T, _ *doctor.Config) {
			if err := h.DeleteDevice("deleted"); err != nil {
				t.Fatal(err)
			}
		}, "credential-refused", doctor.Problem, nil},
		{"a token that has ended", "ended", func(t *testing.T, cfg *doctor.Config) {
			sign, err := credentials.KeySigner(keyOf(t, h, "ended"))
			if err != nil {
				t.Fatal(err)
			}
			text, err := credentials.Sign(t.Context(), sign, credentials.Resource(cfg.Identity), "", time.Now().Add(-time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Credentials, err = credentials.NewGivenToken(text, time.Now); err != nil {
				t.Fatal(err)
			}
			cfg.Renewed = false
		}, "credential-ended", doctor.Problem, []string{"fairlead token update", "401"}},
		{"a token that ends soon", "soon", func(t *testing.T, cfg *doctor.Config) {
			sign, err := credentials.KeySigner(keyOf(t, h, "soon"))
			if err != nil {
				t.Fatal(err)
			}
			text, err := credentials.Sign(t.Context(), sign, credentials.Resource(cfg.Identity), "", time.Now().Add(10*time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Credentials, err = credentials.NewGivenToken(text, time.Now); err != nil {
				t.Fatal(err)
			}
			cfg.Renewed = false
		}, "credential-ends-soon", doctor.Warning, nil},
		{"a certificate of tomorrow", "early", func(t *testing.T, cfg *doctor.Config) {
			*cfg = withCertificate(t, *cfg, time.Now().Add(time.Hour), time.Now().Add(1000*time.Hour))
		}, "credential-early", doctor.Problem, nil},
		{"a certificate that nobody knows", "stranger", func(t *testing.T, cfg *doctor.Config) {
			*cfg = withCertificate(t, *cfg, time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour))
		}, "credential-refused", doctor.Problem, nil},
		{"no credential at all", "none", func(_ *testing.T, cfg *doctor.Config) {
			cfg.Credentials = sourceFunc(func() (core.Credential, error) { return core.Credential{}, errors.New("the TPM is locked") })
		}, "credential-unusable", doctor.Problem, []string{"the TPM is locked"}},
		{"HTTPS is closed", "closed", func(_ *testing.T, cfg *doctor.Config) {
			cfg.Routes = []doctor.Route{cfg.Routes[0], cfg.Routes[2]}
			cfg.Routes[1].Dial.Port = 1
		}, "credential-unproven", doctor.Warning, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := atHub(t, h, c.id)
			c.change(t, &cfg)
			r := run(t, cfg)
			wantFinding(t, r, c.code, c.severity, c.texts...)
			if healthy := c.severity == doctor.Warning; r.Healthy != healthy {
				t.Errorf("healthy is %v:\n%s", r.Healthy, text(t, r))
			}
			if !r.Ways[0].Through {
				t.Errorf("the route does not get through:\n%s", text(t, r))
			}
		})
	}
}

// A way of uploads that is closed does not keep the doctor from asking: WebSocket leads to the same host.
func TestTheHubIsAskedByTheWayOfWebSocketToo(t *testing.T) {
	h := hubtest.Start(t)
	cfg := atHub(t, h, "dev1")
	cfg.Routes[2].Dial.Port = 1
	r := run(t, cfg)
	wantFinding(t, r, "tcp-refused", doctor.Warning)
	wantNone(t, r, "credential-unproven")
	cfg = signed(t, cfg, "d3Jvbmc=", time.Now)
	wantFinding(t, run(t, cfg), "credential-refused", doctor.Problem)
}

// A module has no request that changes nothing, and is not asked about.
func TestAModuleIsNotAskedAbout(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	cfg := signed(t, atHub(t, h, "dev1/mod"), "d3Jvbmc=", time.Now)
	r := run(t, cfg)
	wantNone(t, r)
	if !r.Healthy {
		t.Errorf("not healthy:\n%s", text(t, r))
	}
}

// A running runtime is asked in the hub's place: the wrong key does not matter to a session that stands.
func TestARunningRuntimeIsAskedFirst(t *testing.T) {
	h := hubtest.Start(t)
	cfg := signed(t, atHub(t, h, "dev1"), "d3Jvbmc=", time.Now)
	session := func(s doctor.Session, running bool, err error) func(context.Context) (doctor.Session, bool, error) {
		return func(context.Context) (doctor.Session, bool, error) { return s, running, err }
	}
	cfg.Session = session(doctor.Session{Connected: true, Text: "connected for 3h by mqtt"}, true, nil)
	r := run(t, cfg)
	wantNone(t, r)
	if !r.Healthy {
		t.Errorf("not healthy:\n%s", text(t, r))
	}
	// Its session proves that there is a way, whatever is seen from here.
	for i := range cfg.Routes {
		cfg.Routes[i].Dial.Port = 1
	}
	r = run(t, cfg)
	wantFinding(t, r, "tcp-refused", doctor.Warning)
	if !r.Healthy {
		t.Errorf("not healthy:\n%s", text(t, r))
	}
	cfg = signed(t, atHub(t, h, "dev2"), keyOf(t, h, "dev2"), time.Now)
	cfg.Session = session(doctor.Session{Text: "waiting: connection refused"}, true, nil)
	r = run(t, cfg)
	wantFinding(t, r, "session-down", doctor.Problem, "waiting: connection refused")
	cfg.Session = session(doctor.Session{}, false, errors.New("timed out"))
	wantFinding(t, run(t, cfg), "runtime-silent", doctor.Warning, "timed out")
	cfg.Session = session(doctor.Session{}, false, nil)
	wantNone(t, run(t, cfg))
}

// A device that boots in 1970 signs by the time at which the program was made, and the hub refuses that.
func TestAWrongClockIsFoundAndExplainsTheRest(t *testing.T) {
	h := hubtest.Start(t)
	built := time.Now().Add(-48 * time.Hour)
	at := func(t *testing.T, begin time.Time, id string) doctor.Config {
		t.Helper()
		began := time.Now()
		system := func() time.Time { return begin.Add(time.Since(began)).Round(0) }
		c, err := clock.New(clock.Config{Built: built, Kept: store.Time{Path: filepath.Join(t.TempDir(), "clock.json")}, System: system})
		if err != nil {
			t.Fatal(err)
		}
		cfg := atHub(t, h, id)
		cfg = signed(t, cfg, keyOf(t, h, id), c.Now)
		cfg.Clock, cfg.System = c, system
		return cfg
	}
	const middle = 30 * time.Second // of a minute: the hub's date has whole seconds, and its way takes time

	t.Run("1970", func(t *testing.T) { // the device goes by the hub's time meanwhile
		r := run(t, at(t, time.Unix(60, 0), "dev1"))
		wantFinding(t, r, "clock-behind", doctor.Warning, "1970-01-01T00:0", "days behind", "NTP")
		wantNone(t, r, "credential-refused")
		if !r.Healthy {
			t.Errorf("not healthy:\n%s", text(t, r))
		}
	})
	t.Run("1970, and a program older than the hub's certificate", func(t *testing.T) {
		built = time.Now().Add(-10 * 365 * 24 * time.Hour)
		defer func() { built = time.Now().Add(-48 * time.Hour) }()
		r := run(t, at(t, time.Unix(60, 0), "dev6"))
		wantFinding(t, r, "clock-behind", doctor.Warning, "days behind")
		if !r.Healthy {
			t.Errorf("not healthy:\n%s", text(t, r))
		}
	})
	t.Run("two hours behind", func(t *testing.T) { // nothing says that it is lost, and the token has ended when it is made
		r := run(t, at(t, time.Now().Add(-2*time.Hour-middle), "dev5"))
		wantFinding(t, r, "clock-behind", doctor.Problem, "2h0m", "s behind")
		wantFinding(t, r, "credential-refused", doctor.Problem)
		findings := r.Findings()
		if findings[0].Code != "clock-behind" || findings[1].BecauseOf != "clock-behind" || !strings.Contains(text(t, r), "→ follows from clock-behind") {
			t.Errorf("the clock does not come first:\n%s", text(t, r))
		}
	})
	t.Run("1970 and no hub", func(t *testing.T) {
		cfg := at(t, time.Unix(60, 0), "dev2")
		for i := range cfg.Routes {
			cfg.Routes[i].Dial.Port = 1
		}
		wantFinding(t, run(t, cfg), "clock-behind", doctor.Problem, "before this program was made")
	})
	t.Run("ten minutes behind", func(t *testing.T) { // the hub takes the token: it lives for an hour
		wantFinding(t, run(t, at(t, time.Now().Add(-10*time.Minute-middle), "dev3")), "clock-behind", doctor.Warning, "10m")
	})
	t.Run("ahead", func(t *testing.T) {
		r := run(t, at(t, time.Now().Add(3*time.Hour), "dev4"))
		wantFinding(t, r, "clock-ahead", doctor.Warning, "ahead")
		if !r.Healthy {
			t.Errorf("not healthy:\n%s", text(t, r))
		}
	})
}
