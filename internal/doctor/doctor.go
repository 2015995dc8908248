package doctor

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/internal/clock"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/mqttws"
)

// Use says what is spoken over a route.
type Use string

// The uses of routes.
const (
	UseMQTT      Use = "mqtt"
	UseWebSocket Use = "mqttws"
	UseHTTPS     Use = "https"
)

// DefaultHTTPSPort is the hub's for HTTPS.
const DefaultHTTPSPort = 443

// Route is one way to walk.
type Route struct {
	// Name is unique: "mqtt", "mqttws-2".
	Name string
	Use  Use
	// Dial is what the runtime dials by.
	Dial mqtt.Config
	// ToHub says that the session, or the request about the credential, may go this way; a provisioning service is none.
	ToHub bool
}

func (r *Route) defaultPort() int {
	switch r.Use {
	case UseWebSocket:
		return mqttws.DefaultPort
	case UseHTTPS:
		return DefaultHTTPSPort
	default:
		return mqtt.DefaultPort
	}
}

// endpoint returns the host, and "host:port".
func (r *Route) endpoint() (host, to string) {
	host, port := r.Dial.Endpoint(r.defaultPort())
	return host, net.JoinHostPort(host, strconv.Itoa(port))
}

// Session is what a running runtime says.
type Session struct {
	Connected bool
	// Text says the rest in a few words: "connected for 3h by mqtt".
	Text string
}

// Config says what to look at.
type Config struct {
	// Before is what was found already, of the configuration.
	Before []Check
	// Identity and Credentials are the device's at its hub; zero where a provisioning service has not said it yet.
	Identity    core.Identity
	Credentials core.CredentialSource
	// Routes are the ways of the session, in order of preference; others (HTTPS, a provisioning service) follow.
	Routes []Route
	// Renewed says that the device makes new credentials by itself, so that their end is no concern.
	Renewed bool
	// Session asks a running runtime; running is false where there is none. Nil asks nobody.
	Session func(ctx context.Context) (s Session, running bool, err error)
	// StateDir is the state directory; OutboxBytes is how much of it the outbox may take, 0 where it is in memory.
	StateDir    string
	OutboxBytes int64
	// Clock is the device's clock, System the machine's; nil is time.Now.
	Clock  *clock.Clock
	System func() time.Time
	// UserAgent is what the hub is told over HTTPS.
	UserAgent string
}

// Run looks at everything. It ends when ctx does, and what had not ended then is reported as silent.
func Run(ctx context.Context, cfg Config) *Report {
	if cfg.System == nil {
		cfg.System = time.Now
	}
	began := time.Now() // for its monotonic reading
	d := &doctor{cfg: cfg, report: &Report{Version: ReportVersion, Time: cfg.System().UTC().Round(0), Checks: cfg.Before, Ways: []Way{}}}
	if cfg.Identity.DeviceID != "" {
		d.report.Device, d.report.Hub = cfg.Identity.ClientID(), cfg.Identity.Hostname
	}
	d.hearTime(ctx)
	credential, ofCredential := d.credential(ctx)
	ofRuntime, connected := d.askRuntime(ctx)
	asks := d.question(credential, connected)
	ways := d.walkAll(ctx, credential, asks)
	ask := d.askHub(ctx, ways, credential, asks)

	through, toHub := connected, false
	for _, w := range ways {
		through = through || w.way.Through && d.decides(w.route)
		toHub = toHub || w.way.Through && w.route.ToHub
	}
	accepted := connected || ask.accepted
	d.add(d.clock(ask, accepted))
	d.add(d.storage()...)
	d.add(d.judge(ofCredential, ask, connected, toHub)...)
	d.add(ofRuntime...)
	for _, w := range ways {
		d.report.Ways = append(d.report.Ways, w.way)
		for _, c := range w.checks {
			// Another way gets through, or this one is not the session's: the device connects all the same.
			if c.Severity == Problem && (through || !d.decides(w.route)) {
				c.Severity = Warning
			}
			d.add(c)
		}
	}
	d.explain()
	d.report.Healthy = through
	for _, c := range d.report.Checks {
		if c.Severity == Problem {
			d.report.Healthy = false
		}
	}
	d.report.Took = milliseconds(time.Since(began))
	return d.report
}

type doctor struct {
	cfg    Config
	report *Report
}

// decides reports whether the device connects by such a route: to its hub, or, as long as it has none, to the
// provisioning service.
func (d *doctor) decides(r *Route) bool {
	return r.Use != UseHTTPS && r.ToHub == (d.cfg.Identity.DeviceID != "")
}

func (d *doctor) add(checks ...Check) { d.report.Checks = append(d.report.Checks, checks...) }

// walkAll walks every route at the same time.
func (d *doctor) walkAll(ctx context.Context, credential core.Credential, asks *question) []*walk {
	ways := make([]*walk, len(d.cfg.Routes))
	var walking sync.WaitGroup
	for i := range d.cfg.Routes {
		w := newWalk(&d.cfg.Routes[i], d.now, d.cfg.System, asks)
		ways[i] = w
		walking.Go(func() { w.run(ctx, credential) })
	}
	walking.Wait()
	return ways
}

// now is the clock by which certificates are judged.
func (d *doctor) now() time.Time {
	if d.cfg.Clock != nil {
		return d.cfg.Clock.Now()
	}
	return d.cfg.System()
}

// askRuntime asks the runtime that has the identity, if one runs.
func (d *doctor) askRuntime(ctx context.Context) (checks []Check, connected bool) {
	if d.cfg.Session == nil {
		return nil, false
	}
	began := time.Now()
	s, running, err := d.cfg.Session(ctx)
	var c Check
	switch {
	case err != nil:
		c = find("", "runtime-silent", err.Error(), facts{})
		c.Severity = Warning
	case !running:
		c = Check{Layer: LayerRuntime, Severity: Skipped, Detail: "no runtime runs here"}
	case s.Connected:
		c = Check{Layer: LayerRuntime, Severity: OK, Detail: s.Text}
	default:
		c = find("", "session-down", s.Text, facts{})
	}
	c.Took = milliseconds(time.Since(began))
	return []Check{c}, running && s.Connected
}

// explain marks what a wrong clock explains.
func (d *doctor) explain() {
	c, ok := d.report.find("clock-behind", "clock-ahead")
	if !ok {
		return
	}
	explained := map[string]bool{"credential-refused": true, "credential-ended": c.Code == "clock-ahead", "credential-early": c.Code == "clock-behind", "tls-expired": c.Code == "clock-ahead", "tls-not-valid-yet": c.Code == "clock-behind"}
	for i := range d.report.Checks {
		if explained[d.report.Checks[i].Code] {
			d.report.Checks[i].BecauseOf = c.Code
		}
	}
}

// short is a duration for people.
func short(d time.Duration) string {
	switch {
	case d.Abs() >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d.Abs() >= time.Second:
		return d.Round(time.Second).String()
	default:
		return d.Round(time.Millisecond).String()
	}
}
