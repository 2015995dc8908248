//go:build interop && linux

package interop_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

const (
	numbersProgram = "FAIRLEAD_TEST_NUMBERS"
	// siteProxy is the proxy's name in config/example.yaml.
	siteProxy = "proxy.plant.lan"
	// siteRate is how many numbers the plugin sends in a second, siteWindow how many it leaves unsettled: few enough that
	// the moment is always a quiet one.
	siteRate, siteWindow = 20, 10
)

// How long things may take in a site: from the start of the program to telemetry and an answered method, where nothing is
// remembered and where the route is; and from the session on, until the better route, which works again, is taken. The
// machine's ProbeFirst is a minute.
const (
	coldLimit   = 35 * time.Second
	warmLimit   = 2 * time.Second
	returnLimit = 80 * time.Second
)

// A plant's network as it is found: nobody answers questions for names, what goes out directly vanishes without a word, and
// a proxy lets those through to port 443 who know the password. The device has the configuration that we recommend.
func TestASiteThatLetsOutByItsProxyAlone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may put a device into a network of its own behind another")
	}
	for _, tool := range []string{"ip", "nsenter", "nft", "squid"} {
		findProgram(t, tool, "iproute2 util-linux nftables squid")
	}
	t.Parallel() // beside the proxies
	runInNamespace(t, "TestInsideTheSite", builtProgram+"="+build(t, "../../cmd/runtime"), numbersProgram+"="+build(t, "../faults/numbers"))
}

// squidSite lets those who know the password through to port 443.
func squidSite(t *testing.T, dir string) string {
	t.Helper()
	return squidPasswords(t, dir) + "\nacl users proxy_auth REQUIRED\nacl https port 443\nhttp_access allow CONNECT https users"
}

// TestInsideTheSite is the process of the test above.
func TestInsideTheSite(t *testing.T) {
	if os.Getenv(insideNamespace) != t.Name() {
		t.Skip("runs only as a process of TestASiteThatLetsOutByItsProxyAlone")
	}
	raiseLoopback(t)
	nameLoopback(t, hubName)
	s := newSite(t)
	s.name(t, plantAddr, siteProxy)
	s.silence(t)
	s.closeTo(t, "")
	h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) {
		c.Bind, c.MQTTPort, c.HTTPSPort, c.Hostnames = "0.0.0.0", 8883, 443, []string{hubName}
	}))
	startSquid(t, net.JoinHostPort(plantAddr, "3128"), squidSite)
	d := &siteDevice{h: h, id: "gw", fieldDevice: newFieldDevice(t, map[string]string{
		"secret": h.AddDevice("gw") + "\n", "ca.pem": string(h.CAPEM()), "pw": proxyPassword + "\n", "fairlead.yaml": exampleConfig(t),
	})}

	d.must("check")

	// # nothing is known, and no name server answers
	took := d.through(s)
	t.Logf("%stelemetry and a method %v after a cold start without an answer to names (limit %v)", measured, took, coldLimit)
	if took > coldLimit {
		t.Errorf("through %v after a cold start, want within %v", took, coldLimit)
	}
	d.wantRoute("mqttws")
	d.stop()

	// # the route is remembered
	took = d.through(s)
	t.Logf("%sthe same %v after the next start (limit %v)", measured, took, warmLimit)
	if took > warmLimit {
		t.Errorf("through %v after the next start, want within %v", took, warmLimit)
	}
	d.wantRoute("mqttws")
	d.stop()

	// # nothing is known, and the name has an address to which packets vanish
	s.name(t, plantAddr, hubName)
	if err := os.Remove(d.path("state", "route.json")); err != nil {
		t.Fatal(err)
	}
	took = d.through(s)
	t.Logf("%stelemetry and a method %v after a cold start whose packets vanish (limit %v)", measured, took, coldLimit)
	if took > coldLimit {
		t.Errorf("through %v after a cold start, want within %v", took, coldLimit)
	}
	d.wantRoute("mqttws")
	since := time.Now()

	// # the firewall opens: back to mqtt, by itself
	s.closeTo(t, "tcp dport 8883 accept; ")
	d.awaitRoute("mqtt", returnLimit)
	t.Logf("%sback by mqtt %v after the session by mqttws began (limit %v)", measured, time.Since(since).Round(100*time.Millisecond), returnLimit)
	d.wantCarried()

	// # by hand, there and back
	d.must("transport", "use", "mqttws")
	d.wantRoute("mqttws")
	d.wantCarried()
	began := time.Now()
	d.must("transport", "use", "auto")
	d.awaitRoute("mqtt", 30*time.Second)
	t.Logf("%sback by mqtt %v after transport use auto", measured, time.Since(began).Round(100*time.Millisecond))
	d.wantCarried()
	if c := d.status().Counters; c.Losses != 0 || c.Swaps < 3 {
		t.Errorf("%d losses and %d swaps were counted, want none and 3", c.Losses, c.Swaps)
	}
	d.stop()
	d.checkNumbers(3)
}

// silence gives the site a name server and a way out into the world. Nothing comes back from either once closeTo was called.
func (s *site) silence(t *testing.T) {
	t.Helper()
	run(t, s.enter()+findProgram(t, "ip", "iproute2")+" route add default via "+plantAddr)
	run(t, s.enter()+"mount --bind "+writeFile(t, filepath.Join(publicDir(t), "resolv.conf"), "nameserver 192.0.2.53\n", 0o644)+" /etc/resolv.conf")
}

// closeTo lets packets of the site's in as far as the proxy, and where open says; all others vanish.
func (s *site) closeTo(t *testing.T, open string) {
	t.Helper()
	nft := exec.CommandContext(t.Context(), findProgram(t, "nft", "nftables"), "-f", "-")
	// Without neighbours, which IPv6 finds by ICMP, not even the proxy is there.
	nft.Stdin = strings.NewReader(`table inet site {}
delete table inet site
table inet site {
	chain in { type filter hook input priority 0; iifname != "plant0" accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; tcp dport 3128 accept; ` + open + `drop; }
	chain through { type filter hook forward priority 0; policy drop; }
}
`)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

// exampleConfig is config/example.yaml, changed in what a test can only have otherwise: files, the plugin, an outbox in
// memory.
func exampleConfig(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../config/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, r := range []struct{ old, new string }{
		{`\{file: /etc/fairlead/device\.cs\}`, "{file: secret}"},
		{`# extra_ca: \{file: \S+\}`, "extra_ca: {file: ca.pem}"},
		{`\{file: /etc/fairlead/proxy\.pw\}`, "{file: pw}"},
		{`(?s)\noutbox:\n.*\n(plugins:)`, "\noutbox: {mode: memory, on_full: block}\n$1"},
		{`(?s)\nplugins:\n.*\n(state_dir: )\S+`, fmt.Sprintf("\nplugins: {numbers: {command: [%q], settings: {rate: %d, window: %d}}}\n${1}state", os.Getenv(numbersProgram), siteRate, siteWindow)},
		{`level: info`, "level: debug"},
	} {
		old := regexp.MustCompile(r.old)
		if n := len(old.FindAllString(text, -1)); n != 1 {
			t.Fatalf("%s stands %d times in config/example.yaml", r.old, n)
		}
		text = old.ReplaceAllString(text, r.new)
	}
	if !strings.Contains(text, "proxy_addr: "+siteProxy+",") {
		t.Fatalf("config/example.yaml names another proxy than %s", siteProxy)
	}
	return text
}

// siteDevice is a device that sends numbers.
type siteDevice struct {
	*fieldDevice
	h  *hubtest.Hub
	id string
}

// through starts it, and returns how long it takes until a new number is at the hub and a method is answered.
func (d *siteDevice) through(s *site) time.Duration {
	d.t.Helper()
	before := len(d.atHub())
	began := time.Now()
	d.start(s)
	poll(d.t, 2*coldLimit, "telemetry of a new start", func() bool { return len(d.atHub()) > before })
	poll(d.t, 2*coldLimit, "an answered method", d.answers)
	return time.Since(began).Round(10 * time.Millisecond)
}

func (d *siteDevice) answers() bool {
	r, err := d.h.InvokeMethod(d.t.Context(), d.id, "echo", json.RawMessage(`"here"`))
	return err == nil && r.Status == 200 && string(r.Payload) == `"here"`
}

func (d *siteDevice) wantRoute(name string) {
	d.t.Helper()
	if s := d.status(); s.Connection.State != "connected" || s.Connection.Transport != name || s.Counters.Losses != 0 {
		d.t.Fatalf("%+v, want connected by %s without a loss", s, name)
	}
}

func (d *siteDevice) awaitRoute(name string, limit time.Duration) {
	d.t.Helper()
	poll(d.t, limit, "a session by "+name, func() bool {
		c := d.status().Connection
		return c.State == "connected" && c.Transport == name
	})
}

// wantCarried wants more numbers and a method through.
func (d *siteDevice) wantCarried() {
	d.t.Helper()
	before := len(d.atHub())
	poll(d.t, 30*time.Second, "more numbers", func() bool { return len(d.atHub()) > before+siteRate })
	poll(d.t, 30*time.Second, "an answered method", d.answers)
}

// atHub are the numbers that the hub has, as they came.
func (d *siteDevice) atHub() []int {
	d.t.Helper()
	messages, err := d.h.Telemetry(api.MessageFilter{Device: d.id})
	if err != nil {
		d.t.Fatal(err)
	}
	var out []int
	for _, m := range messages {
		n, err := strconv.Atoi(string(m.Body))
		if err != nil {
			d.t.Fatalf("telemetry %q is no number", m.Body)
		}
		out = append(out, n)
	}
	return out
}

// perStart is how far apart the numbers of two starts begin, as internal/faults/numbers counts.
const perStart = 1_000_000

// countNumbers says how many numbers of each start came, and how many came again: when a session gives way to another they
// may. Of each start they must come in order, from its first on, without a gap.
func countNumbers(hub []int, starts int) (each []int, again int, err error) {
	each = make([]int, starts)
	for _, n := range hub {
		start, n := n/perStart, n%perStart
		switch {
		case start >= starts || n > each[start]:
			return each, again, fmt.Errorf("number %d of start %d came to the hub after %v", n, start, each)
		case n < each[start]:
			again++
		default:
			each[start]++
		}
	}
	return each, again, nil
}

// checkNumbers wants those of each start at the hub without a gap, and with them each that was accepted.
func (d *siteDevice) checkNumbers(starts int) {
	d.t.Helper()
	all := d.atHub()
	next, again, err := countNumbers(all, starts)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Logf("%s%v numbers of %d starts without a gap, %d came again", measured, next, starts, again)
	data, err := os.ReadFile(d.path("state", "plugins", "numbers", "accepted"))
	if err != nil {
		d.t.Fatal(err)
	}
	accepted := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range accepted {
		var n, at int
		if _, err := fmt.Sscan(line, &n, &at); err != nil {
			d.t.Fatalf("%q: %v", line, err)
		}
		if n%perStart >= next[n/perStart] {
			d.t.Errorf("%d was accepted and is not at the hub", n)
		}
	}
	if most := siteWindow * 3; again > most || len(accepted) < len(all)-again-siteWindow*starts || slices.ContainsFunc(next, func(n int) bool { return n == 0 }) {
		d.t.Errorf("%d numbers came again (want at most %d), %d were accepted of %v", again, most, len(accepted), next)
	}
	refused, err := os.ReadFile(d.path("state", "plugins", "numbers", "refused"))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(refused)) {
		if !strings.Contains(line, "stop") { // those in flight at the end of a start
			d.t.Errorf("a number was refused: %s", line)
		}
	}
}

func TestGapsAreSeen(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hub   []int
		each  string
		again int
		isBad bool
	}{
		{"all is well", []int{0, 1, perStart, perStart + 1, perStart + 2}, "[2 3]", 0, false},
		{"some came again", []int{0, 1, 2, 1, 2, 3}, "[4 0]", 2, false},
		{"a gap", []int{0, 2}, "[1 0]", 0, true},
		{"no first one", []int{perStart + 1}, "[0 0]", 0, true},
		{"a start too many", []int{2 * perStart}, "[0 0]", 0, true},
	} {
		each, again, err := countNumbers(tt.hub, 2)
		if fmt.Sprint(each) != tt.each || again != tt.again || (err != nil) != tt.isBad {
			t.Errorf("%s: %v, %d again, %v", tt.name, each, again, err)
		}
	}
}

// poll looks until something holds.
func poll(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) { // between two looks
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}
