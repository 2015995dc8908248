//go:build interop && linux

package interop_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// The built program in a network that has one cable, to the plant's proxies, and no name server: each proxy that people
// have, and each way in which one fails.
func TestTheDeviceGetsOutThroughEveryProxy(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may put a device into a network of its own behind another")
	}
	for _, tool := range []string{"ip", "nsenter"} {
		findProgram(t, tool, "iproute2 util-linux")
	}
	t.Parallel() // beside the site: both wait most of the time, each in a network of its own
	runInNamespace(t, "TestProxiesInsideTheNamespace", builtProgram+"="+build(t, "../../cmd/runtime"))
}

// column is a way to the hub that every proxy has to carry.
type column struct {
	name, route string // route is that of the configuration, without the proxy
	port        int    // that the proxy is asked for
	kind        string // of a failure, in the log
	// uploads: it goes by HTTPS, and without a session; signed is by a certificate.
	uploads, signed bool
	// provisions: the device learns from the provisioning service who it is, by the same way. only are the rows for which
	// that is tried; nil is all.
	provisions bool
	only       []string
}

var columns = []column{
	{name: "mqtt", route: "use: mqtt", port: 8883, kind: "blocked"},
	{name: "mqttws", route: "use: mqttws", port: 443, kind: "blocked"},
	{name: "provisioning", route: "use: mqtt", port: 8883, kind: "transient", provisions: true, only: []string{"squid Basic", "TLS", "microsocks with a password", "wrong password", "down", "garbage"}},
	{name: "https", port: 443, kind: "blocked", uploads: true},
	{name: "https with a certificate", port: 443, kind: "blocked", uploads: true, signed: true, only: []string{
		"direct", "squid", "squid Basic", "squid Digest", "squid NTLM", "tinyproxy", "tinyproxy Basic", "TLS", "microsocks", "microsocks with a password", "dante",
		"the environment's", "wrong password", "down", "garbage", "a bare 407",
	}},
}

// id is the device's name at the hub.
func (c column) id() string { return strings.ReplaceAll(c.name, " ", "-") }

// identity registers the column's device, and returns what the configuration says of it, and the files that this names.
func (c column) identity(t *testing.T, h *hubtest.Hub) (device string, files map[string]string) {
	t.Helper()
	switch {
	case c.provisions:
		key := h.AddEnrollment(api.Enrollment{RegistrationID: c.id()}).Attestation.SymmetricKey.PrimaryKey
		return fmt.Sprintf("provisioning: {id_scope: %s, registration_id: %s, symmetric_key: {file: secret}}", h.IDScope(), c.id()), map[string]string{"secret": key + "\n"}
	case c.signed:
		cert := hubtest.SelfSigned(t, c.id())
		thumbprint := hubtest.Thumbprint(cert)
		if _, err := h.CreateDevice(api.Device{DeviceID: c.id(), Authentication: api.Authentication{Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{PrimaryThumbprint: &thumbprint}}}); err != nil {
			t.Fatal(err)
		}
		text, key := hubtest.CertificatePEM(t, cert)
		return fmt.Sprintf("x509: {hostname: %s, device_id: %s, cert_file: cert.pem, key_file: key.pem}", hubName, c.id()), map[string]string{"cert.pem": string(text), "key.pem": string(key)}
	default:
		return "connection_string: {file: secret}", map[string]string{"secret": h.AddDevice(c.id()) + "\n"}
	}
}

// network is what the configuration says of the way out, with a row's options.
func (c column) network(options string) string {
	if c.uploads {
		return "connection: {auto_connect: false}\nuploads: {" + options + "}"
	}
	return "transports: [{" + c.route + ", " + options + "}]"
}

// fieldConfig is the configuration of a device that has a plugin of its own: who it is, and its way out.
const fieldConfig = `version: 1
device: {%s}
tls: {extra_ca: {file: ca.pem}}
%s
outbox: {mode: memory}
state_dir: state
plugins: {hostmetrics: {builtin: hostmetrics, settings: {interval: 1h}}}
log: {level: debug}
`

// proxyRow is a row of the matrix: a proxy, how the device is to use it, and what comes of it.
type proxyRow struct {
	name     string
	start    func(t *testing.T)
	options  string // of the route, after its first key
	password string
	env      []string
	want     string // the state's reason; "" is through
	isDirect bool   // nobody but the device resolves names
}

// TestProxiesInsideTheNamespace is the process of the test above.
func TestProxiesInsideTheNamespace(t *testing.T) {
	if os.Getenv(insideNamespace) != t.Name() {
		t.Skip("runs only as a process of TestTheDeviceGetsOutThroughEveryProxy")
	}
	raiseLoopback(t)
	nameLoopback(t, hubName, provisioningName, accountName)
	s := newSite(t)
	h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) {
		c.Hostnames, c.Bind, c.MQTTPort, c.HTTPSPort = []string{hubName, provisioningName, accountName}, "0.0.0.0", 8883, 443
	}))
	authority := transporttest.NewAuthority(t, "plant")
	ca := append(h.CAPEM(), authority.PEM...)
	type identity struct {
		device string
		files  map[string]string
	}
	identities := map[string]identity{}
	for _, c := range columns {
		device, files := c.identity(t, h)
		files["ca.pem"] = string(ca)
		identities[c.name] = identity{device, files}
	}
	for i, row := range proxyRows(columns[0], authority) {
		t.Run(row.name, func(t *testing.T) {
			row.start(t)
			if row.isDirect {
				s.name(t, plantAddr, accountName)
			}
			for _, c := range columns {
				if c.only != nil && !slices.Contains(c.only, row.name) {
					continue
				}
				row, who := proxyRows(c, authority)[i], identities[c.name]
				t.Run(c.name, func(t *testing.T) {
					t.Parallel() // the proxy carries them side by side
					files := maps.Clone(who.files)
					files["pw"] = row.password + "\n"
					files["fairlead.yaml"] = fmt.Sprintf(fieldConfig, who.device, c.network(row.options))
					d := newFieldDevice(t, files)
					d.start(s, row.env...)
					defer d.stop()
					switch {
					case c.uploads && row.want != "":
						d.wantUploadRefused(row.want, c.kind)
					case c.uploads:
						d.wantUploaded(h, c.id(), row.name)
					case row.want != "":
						d.wantRefusal(row.want, c.kind)
					default:
						d.wantThrough(h, c.id(), c.name+" through "+row.name)
					}
				})
			}
		})
	}
}

// proxyRows are the proxies that people have, and the ways in which they fail.
func proxyRows(c column, authority *transporttest.Authority) []proxyRow {
	at := func(port int) string { return fmt.Sprintf("%s:%d", plantAddr, port) }
	proxy := func(kind string, port int, rest string) string {
		return fmt.Sprintf("proxy_options: {proxy_type: %s, proxy_addr: %s, proxy_port: %d%s}", kind, proxyName, port, rest)
	}
	const user = ", proxy_username: " + proxyUser + ", proxy_password: {file: pw}"
	const wrong = "wrong-4711"
	squid := func(rules func(*testing.T, string) string) func(t *testing.T) {
		return func(t *testing.T) { startSquid(t, at(3128), rules) }
	}
	none := func(*testing.T) {}
	hub := fmt.Sprintf("%s:%d", hubName, c.port)
	if c.provisions {
		hub = fmt.Sprintf("%s:%d", provisioningName, c.port)
	}
	forbidden := "403 Forbidden: it forbids CONNECT to " + hub + ": many proxies let port 443 through only"
	if c.port == 443 {
		forbidden = ""
	}
	const noNames = "a proxy without SOCKS 4a, such as dante, reaches addresses only, no names (code 91)"
	nameless := ""
	if c.uploads {
		nameless = noNames // the hub has an address, but the storage has a name
	}
	return []proxyRow{
		{name: "direct", start: none, options: "address: " + plantAddr, isDirect: true},
		{name: "squid", start: squid(squidOpen), options: proxy("HTTP", 3128, "")},
		{name: "squid by IPv6", start: func(t *testing.T) { startSquid(t, "["+plantAddr6+"]:3128", squidOpen) }, options: proxy("HTTP", 3128, "")},
		{name: "squid Basic", start: squid(squidBasic), options: proxy("HTTP", 3128, user), password: proxyPassword},
		{name: "squid Digest", start: func(t *testing.T) { startSquid(t, at(3128), squidDigest) }, options: proxy("HTTP", 3128, user), password: proxyPassword},
		{name: "squid NTLM", start: func(t *testing.T) { startSquid(t, at(3128), squidNTLM) }, options: proxy("HTTP", 3128, `, proxy_username: 'PLANT\gw', proxy_password: {file: pw}`), password: plainPassword},
		{name: "tinyproxy", start: func(t *testing.T) { startTinyproxy(t, at(8888), "") }, options: proxy("HTTP", 8888, "")},
		{name: "tinyproxy Basic", start: func(t *testing.T) { startTinyproxy(t, at(8888), "BasicAuth gw "+plainPassword) }, options: proxy("HTTP", 8888, user), password: plainPassword},
		{name: "TLS", start: func(t *testing.T) {
			startSquid(t, at(3128), squidBasic)
			startStunnel(t, at(3129), at(3128), authority)
		}, options: proxy("HTTPS", 3129, user), password: proxyPassword},
		{name: "microsocks", start: func(t *testing.T) { startMicrosocks(t, at(1080)) }, options: proxy("SOCKS5", 1080, "")},
		{name: "microsocks with a password", start: func(t *testing.T) { startMicrosocks(t, at(1080), "-u", proxyUser, "-P", proxyPassword) }, options: proxy("SOCKS5", 1080, user), password: proxyPassword},
		{name: "dante", start: func(t *testing.T) { startDante(t, at(1081)) }, options: proxy("SOCKS5", 1081, "")},
		{name: "dante SOCKS4, to an address", start: func(t *testing.T) { startDante(t, at(1081)) }, options: "address: 127.0.0.1, " + proxy("SOCKS4", 1081, ""), want: nameless},
		{name: "the environment's", start: squid(squidBasic), options: "proxy_options: environment", env: []string{"HTTPS_PROXY=http://gw:p%3Aw%20%C3%A4%25%22x@" + proxyName + ":3128", "NO_PROXY=other.example"}},
		{name: "the environment's, not for this one", start: none, options: "proxy_options: environment, address: " + plantAddr, env: []string{"https_proxy=http://" + proxyName + ":1", "no_proxy=10.77.0.0/24,.blob.core.windows.net"}, isDirect: true},

		{name: "no password", start: squid(squidBasic), options: proxy("HTTP", 3128, ""), want: "407 Proxy Authentication Required: offers Basic; set proxy_username"},
		{name: "wrong password", start: squid(squidBasic), options: proxy("HTTP", 3128, user), password: wrong, want: "407 Proxy Authentication Required: offers Basic; it refuses the user name or the password: check proxy_username and proxy_password"},
		{name: "wrong password, Digest", start: func(t *testing.T) { startSquid(t, at(3128), squidDigest) }, options: proxy("HTTP", 3128, user), password: wrong, want: "407 Proxy Authentication Required: offers Digest; it refuses the user name or the password: check proxy_username and proxy_password"},
		{name: "wrong password, tinyproxy", start: func(t *testing.T) { startTinyproxy(t, at(8888), "BasicAuth gw "+plainPassword) }, options: proxy("HTTP", 8888, user), password: wrong, want: "401 Unauthorized: it refuses the user name or the password"},
		{name: "wrong password, SOCKS5", start: func(t *testing.T) { startMicrosocks(t, at(1080), "-u", proxyUser, "-P", proxyPassword) }, options: proxy("SOCKS5", 1080, user), password: wrong, want: "it refuses the user name or the password"},
		{name: "no password, SOCKS5", start: func(t *testing.T) { startMicrosocks(t, at(1080), "-u", proxyUser, "-P", proxyPassword) }, options: proxy("SOCKS5", 1080, ""), want: "set proxy_username and proxy_password"},
		{name: "no names, SOCKS4", start: func(t *testing.T) { startDante(t, at(1081)) }, options: proxy("SOCKS4", 1081, ""), want: noNames},
		{name: "port 443 only", start: squid(squid443), options: proxy("HTTP", 3128, ""), want: forbidden},
		{name: "down", start: none, options: proxy("HTTP", 3128, ""), want: "connection refused"},
		{name: "no such name", start: none, options: "proxy_options: {proxy_type: HTTP, proxy_addr: nowhere.plant, proxy_port: 3128}", want: "proxy nowhere.plant:3128: dns: lookup nowhere.plant"},
		{name: "silent", start: func(t *testing.T) { startBabbler(t, at(3128), "") }, options: proxy("HTTP", 3128, ""), want: "no answer within 10s: it does not reach " + hub},
		{name: "a bare 407", start: func(t *testing.T) { startBabbler(t, at(3128), "HTTP/1.1 407\r\n\r\n") }, options: proxy("HTTP", 3128, ""), want: "407 Proxy Authentication Required: offers no way to say who asks; set proxy_username"},
		{name: "half a 407", start: func(t *testing.T) { startBabbler(t, at(3128), "HTTP/1.1 407") }, options: proxy("HTTP", 3128, ""), want: "it ended the connection without an answer"},
		{name: "garbage", start: func(t *testing.T) { startBabbler(t, at(3128), "\x00\xff\x16garbage") }, options: proxy("HTTP", 3128, ""), want: "it does not speak HTTP"},
		{name: "HTTP at SOCKS5", start: squid(squidOpen), options: proxy("SOCKS5", 3128, ""), want: "it says nothing to a greeting of SOCKS5: is proxy_type right?"},
		{name: "no TLS at HTTPS", start: squid(squidOpen), options: proxy("HTTPS", 3128, ""), want: "tls: "},
		{name: "a certificate of nobody's", start: func(t *testing.T) {
			startSquid(t, at(3128), squidOpen)
			startStunnel(t, at(3129), at(3128), transporttest.NewAuthority(t, "stranger"))
		}, options: proxy("HTTPS", 3129, ""), want: `tls: the certificate of proxy.plant was issued by "CN=stranger", which is not trusted`},
	}
}

// wantThrough wants a session that carries telemetry and a method.
func (d *fieldDevice) wantThrough(h *hubtest.Hub, id, body string) {
	d.t.Helper()
	until(d.t, "the device is connected", func() bool { return strings.HasPrefix(d.connection(), "connected") })
	if stdout, stderr, code := d.do("send", body); code != 0 {
		d.t.Fatalf("send: exit code %d\n%s%s", code, stdout, stderr)
	}
	h.WaitTelemetry(id, func(m api.Message) bool { return string(m.Body) == body })
	until(d.t, "a method comes through", func() bool {
		r, err := h.InvokeMethod(d.t.Context(), id, "ping", nil)
		return err == nil && r.Status == 200
	})
}

// wantRefusal wants the device to wait, to say why in every place, and not to doubt its own identity.
func (d *fieldDevice) wantRefusal(want, kind string) {
	d.t.Helper()
	until(d.t, "the state tells "+want, func() bool {
		got := d.connection()
		return strings.HasPrefix(got, "waiting") && strings.Contains(got, want)
	})
	if _, stderr, code := d.do("connect", "--timeout", "1s"); code != 1 || !strings.Contains(stderr, want) {
		d.t.Errorf("connect: exit code %d, %s; want 1 and the reason", code, stderr)
	}
	log := d.log.String()
	if !strings.Contains(log, "kind="+kind) || strings.Contains(log, "unauthorized") {
		d.t.Errorf("the failure is not of kind %s", kind)
	}
}
