package doctor_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/internal/doctor"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

const (
	azure   = "myhub.azure-devices.net"
	private = "hub.plant.lan"
)

// one is a device with one route, made of dial.
func one(use doctor.Use, host string, dial mqtt.Config) doctor.Config {
	id := core.Identity{Hostname: host, DeviceID: "gw"}
	dial.Identity = id
	return doctor.Config{
		Identity: id, Credentials: token, Renewed: true,
		Routes: []doctor.Route{{Name: string(use), Use: use, ToHub: true, Dial: dial}},
	}
}

// byProxy is a route through a proxy that does as it is told.
func byProxy(kind netdial.ProxyType, dial netdial.ContextDialer) doctor.Config {
	return one(doctor.UseMQTT, azure, mqtt.Config{DialContext: dial, Proxy: netdial.Proxy{Type: kind, Addr: "proxy.plant.lan", Port: 3128}})
}

// answering is a peer that answers whatever it is sent with the same text, and hangs up.
func answering(text string) netdial.ContextDialer {
	return peer(func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, text)
	})
}

// serving is a peer that speaks TLS, and hangs up once the client does.
func serving(t *testing.T, cfg *tls.Config) netdial.ContextDialer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, tls.Server(c, cfg))
				_ = c.Close()
			}()
		}
	}()
	return at(l.Addr())
}

// at is a dialer to one address, whatever is asked for.
func at(addr net.Addr) netdial.ContextDialer {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr.String())
	}
}

// servingPipe is serving in memory, which holds nothing: tickets would wait to be read.
func servingPipe(cfg *tls.Config) netdial.ContextDialer {
	cfg.SessionTicketsDisabled = true
	return peer(func(c net.Conn) { _, _ = io.Copy(io.Discard, tls.Server(c, cfg)) })
}

// silent is a peer that says nothing.
func silent(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// issued is a server's configuration with a certificate that adjust may change.
func issued(t *testing.T, a *transporttest.Authority, adjust func(*x509.Certificate), names ...string) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{a.Issue(t, adjust, names...)}}
}

// web is a server of HTTPS for the private name.
func web(t *testing.T, a *transporttest.Authority, handle http.HandlerFunc) netdial.ContextDialer {
	t.Helper()
	s := httptest.NewUnstartedServer(handle)
	s.TLS = issued(t, a, nil, private)
	s.StartTLS()
	t.Cleanup(s.Close)
	return at(s.Listener.Addr())
}

func TestEachFaultOnTheWayIsFound(t *testing.T) {
	authority := transporttest.NewAuthority(t, "ACME interception")
	trusted := netdial.TLSConfig{ServerVerificationCert: authority.PEM}
	added := netdial.TLSConfig{ExtraCA: authority.PEM}
	mqttTo := func(host string, trust netdial.TLSConfig, dial netdial.ContextDialer) doctor.Config {
		return one(doctor.UseMQTT, host, mqtt.Config{DialContext: dial, TLS: trust})
	}
	webTo := func(use doctor.Use, handle http.HandlerFunc) doctor.Config {
		return one(use, private, mqtt.Config{DialContext: web(t, authority, handle), TLS: trusted})
	}
	status := func(code int, headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(code)
		}
	}
	hijacked := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(c, text)
				_ = c.Close()
			}
		}
	}
	dns := func(e net.DNSError) error { return &net.OpError{Op: "dial", Err: &e} }
	dialing := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	const connect = "HTTP/1.1 "
	for _, c := range []struct {
		name     string
		cfg      doctor.Config
		code     string
		severity doctor.Severity
		texts    []string
	}{
		{"no such name", mqttTo(azure, netdial.TLSConfig{}, failing(dns(net.DNSError{Err: "no such host", Name: azure, IsNotFound: true}))), "dns-not-found", doctor.Problem, []string{azure}},
		{"name servers are silent", mqttTo(azure, netdial.TLSConfig{}, failing(dns(net.DNSError{Err: "i/o timeout", Name: azure, IsTimeout: true}))), "dns-silent", doctor.Problem, []string{"resolv.conf"}},
		{"name servers fail", mqttTo(azure, netdial.TLSConfig{}, failing(dns(net.DNSError{Err: "server misbehaving", Name: azure, IsTemporary: true}))), "dns-failed", doctor.Problem, nil},

		{"refused", mqttTo(azure, netdial.TLSConfig{}, failing(dialing(syscall.ECONNREFUSED))), "tcp-refused", doctor.Problem, []string{azure + ":8883", "mqttws"}},
		{"no way", mqttTo(azure, netdial.TLSConfig{}, failing(dialing(syscall.ENETUNREACH))), "tcp-unreachable", doctor.Problem, []string{"ip route"}},
		{"no descriptors", mqttTo(azure, netdial.TLSConfig{}, failing(dialing(syscall.EMFILE))), "tcp-failed", doctor.Problem, nil},

		{"the proxy's name", byProxy(netdial.ProxyHTTP, failing(dns(net.DNSError{Err: "no such host", Name: "proxy.plant.lan", IsNotFound: true}))), "proxy-not-found", doctor.Problem, []string{"proxy_addr"}},
		{"nobody is the proxy", byProxy(netdial.ProxyHTTP, failing(dialing(syscall.ECONNREFUSED))), "proxy-refused", doctor.Problem, []string{"proxy.plant.lan:3128"}},
		{"the proxy asks who", byProxy(netdial.ProxyHTTP, answering(connect+"407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM\r\n\r\n")), "proxy-auth-required", doctor.Problem, []string{"offers NTLM", "proxy_username"}},
		{"the proxy asks who, as a server does", byProxy(netdial.ProxyHTTP, answering(connect+"401 Unauthorized\r\n\r\n")), "proxy-auth-required", doctor.Problem, []string{"proxy_username"}},
		{"the proxy wants Kerberos", byProxy(netdial.ProxyHTTP, answering(connect+"407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: Bearer\r\n\r\n")), "proxy-auth-unspoken", doctor.Problem, []string{"offers Negotiate, Bearer", "No user name helps"}},
		{"the proxy asks for less", byProxy(netdial.ProxyHTTP, answering(connect+"429 Too Many Requests\r\nRetry-After: 60\r\n\r\n")), "proxy-busy", doctor.Problem, []string{"429 Too Many Requests: it asks for less"}},
		{"the proxy is busy", byProxy(netdial.ProxyHTTP, answering(connect+"503 Service Unavailable\r\nRetry-After: 60\r\n\r\n")), "proxy-hub-unreached", doctor.Problem, nil},
		{"the proxy forbids", byProxy(netdial.ProxyHTTP, answering(connect+"403 Forbidden\r\n\r\n")), "proxy-forbids", doctor.Problem, []string{"CONNECT to " + azure + ":8883"}},
		{"the proxy does not reach it", byProxy(netdial.ProxyHTTP, answering(connect+"502 Bad Gateway\r\n\r\n")), "proxy-hub-unreached", doctor.Problem, nil},
		{"the proxy has no TLS", byProxy(netdial.ProxyHTTPS, answering(connect+"400 Bad Request\r\n\r\n")), "proxy-tls-failed", doctor.Problem, []string{"proxy_type"}},
		{"the proxy is a mail server", byProxy(netdial.ProxyHTTP, answering("220 mail ESMTP\r\n")), "proxy-failed", doctor.Problem, nil},
		{"a proxy of SOCKS asks who", byProxy(netdial.ProxySOCKS5, answering("\x05\xff")), "proxy-auth-required", doctor.Problem, nil},

		{"cut", mqttTo(azure, netdial.TLSConfig{}, peer(func(c net.Conn) { _, _ = c.Read(make([]byte, 100)) })), "tls-cut", doctor.Problem, nil},
		{"not TLS", mqttTo(azure, netdial.TLSConfig{}, answering("220 mail.example ESMTP\r\n")), "tls-not-tls", doctor.Problem, []string{"captive portal"}},
		{"opened by somebody unknown", mqttTo(azure, netdial.TLSConfig{}, serving(t, issued(t, authority, nil, azure))), "tls-intercepted", doctor.Problem, []string{`"CN=ACME interception"`, "tls.extra_ca", azure}},
		{"opened by somebody who is trusted", mqttTo(azure, added, serving(t, issued(t, authority, nil, azure))), "tls-intercepted", doctor.Warning, []string{`"CN=ACME interception"`}},
		{"a hub of one's own", mqttTo(private, netdial.TLSConfig{}, serving(t, issued(t, authority, nil, private))), "tls-untrusted", doctor.Problem, []string{`"CN=ACME interception"`, "tls.server_verification_cert"}},
		{"a root is missing", mqttTo(azure, netdial.TLSConfig{}, serving(t, microsofts(t))), "tls-roots-missing", doctor.Problem, []string{"ca-certificates"}},
		{"another's certificate", mqttTo(private, trusted, serving(t, issued(t, authority, nil, "www.plant.lan"))), "tls-wrong-name", doctor.Problem, nil},
		{"an old certificate", mqttTo(private, trusted, serving(t, issued(t, authority, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }, private))), "tls-expired", doctor.Problem, []string{private}},
		{"a certificate of tomorrow", mqttTo(private, trusted, serving(t, issued(t, authority, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, private))), "tls-not-valid-yet", doctor.Problem, nil},
		{"old TLS", mqttTo(private, trusted, serving(t, &tls.Config{Certificates: issued(t, authority, nil, private).Certificates, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})), "tls-no-common", doctor.Problem, []string{"tls.cipher"}},
		{"the device's certificate", withCertificate(t, mqttTo(private, trusted, serving(t, &tls.Config{Certificates: issued(t, authority, nil, private).Certificates, MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()})), time.Now().Add(-time.Hour), time.Now().Add(100*24*time.Hour)), "tls-certificate-refused", doctor.Problem, nil},
		{"a server that fails", mqttTo(private, trusted, serving(t, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }})), "tls-failed", doctor.Problem, nil},

		{"WebSocket is forbidden", webTo(doctor.UseWebSocket, status(403)), "ws-refused", doctor.Problem, []string{"403", private}},
		{"WebSocket is taken apart", webTo(doctor.UseWebSocket, status(200)), "ws-refused", doctor.Problem, nil},
		{"WebSocket is not there", webTo(doctor.UseWebSocket, status(404)), "ws-not-found", doctor.Problem, nil},
		{"WebSocket is busy", webTo(doctor.UseWebSocket, status(429)), "ws-busy", doctor.Problem, nil},
		{"WebSocket wants to know who asks", webTo(doctor.UseWebSocket, status(407)), "proxy-auth-required", doctor.Problem, nil},
		{"WebSocket is garbage", webTo(doctor.UseWebSocket, hijacked("220 mail\r\n")), "ws-failed", doctor.Problem, nil},

		{"HTTPS is garbage", webTo(doctor.UseHTTPS, hijacked("220 mail\r\n")), "https-failed", doctor.Warning, nil},
		{"HTTPS is cut", webTo(doctor.UseHTTPS, hijacked("")), "https-failed", doctor.Warning, nil},
		{"the hub is busy", webTo(doctor.UseHTTPS, status(503)), "hub-busy", doctor.Warning, nil},
		{"the hub fails", webTo(doctor.UseHTTPS, status(500)), "hub-failed", doctor.Warning, nil},
		{"no such device", webTo(doctor.UseHTTPS, status(404, "iothub-errorcode", "DeviceNotFound")), "device-unknown", doctor.Problem, []string{"DeviceNotFound"}},
		{"not from here", webTo(doctor.UseHTTPS, status(403, "iothub-errorcode", "IpNotAllowed")), "hub-refused", doctor.Problem, []string{"IpNotAllowed"}},
		{"nobody to ask", webTo(doctor.UseHTTPS, status(500)), "credential-unproven", doctor.Warning, nil},

		{"a proxy of no kind", one(doctor.UseMQTT, azure, mqtt.Config{Proxy: netdial.Proxy{Type: "GOPHER", Addr: "p", Port: 1}}), "route-unusable", doctor.Problem, []string{"GOPHER"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, c.cfg)
			wantFinding(t, r, c.code, c.severity, c.texts...)
			if all := text(t, r); strings.Contains(all, "secret") {
				t.Errorf("the report shows the token:\n%s", all)
			}
			// The intercepted route gets through; no route of HTTPS is the session's.
			if want := c.name == "opened by somebody who is trusted"; r.Healthy != want {
				t.Errorf("healthy is %v", r.Healthy)
			}
		})
	}
}

// withCertificate lets the device have a certificate that is valid from one time to another.
func withCertificate(t *testing.T, cfg doctor.Config, from, to time.Time) doctor.Config {
	t.Helper()
	cert := hubtest.SelfSigned(t, "gw")
	leaf := selfSigned(t, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "gw"}, NotBefore: from, NotAfter: to}, cert.PrivateKey)
	source, err := credentials.NewX509Signer(leaf.Certificate, cert.PrivateKey.(crypto.Signer), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Credentials, cfg.Renewed = source, false
	return cfg
}

// selfSigned makes a certificate by its own key.
func selfSigned(t *testing.T, template *x509.Certificate, key crypto.PrivateKey) tls.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.(crypto.Signer).Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// microsofts is a server whose certificate was issued as Azure's are, by a root that nobody here has.
func microsofts(t *testing.T) *tls.Config {
	t.Helper()
	key := transporttest.NewAuthority(t, "unused").Issue(t, nil, azure).PrivateKey
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Microsoft Corporation"}, CommonName: azure}, DNSNames: []string{azure},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return &tls.Config{Certificates: []tls.Certificate{selfSigned(t, template, key)}}
}

// What is silent costs its bound, and no more.
func TestSilenceIsFoundWithinItsBounds(t *testing.T) {
	authority := transporttest.NewAuthority(t, "ACME")
	blocked := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, c := range []struct {
		name   string
		cfg    func() doctor.Config
		code   string
		within time.Duration
	}{
		{"TCP", func() doctor.Config { return one(doctor.UseMQTT, azure, mqtt.Config{DialContext: blocked}) }, "tcp-silent", 15 * time.Second},
		{"the proxy's TCP", func() doctor.Config { return byProxy(netdial.ProxyHTTP, blocked) }, "proxy-silent", 15 * time.Second},
		{"the proxy", func() doctor.Config { return byProxy(netdial.ProxyHTTP, peer(silent)) }, "proxy-silent", 10 * time.Second},
		{"a proxy of SOCKS", func() doctor.Config { return byProxy(netdial.ProxySOCKS5, peer(silent)) }, "proxy-silent", 10 * time.Second},
		{"TLS", func() doctor.Config { return one(doctor.UseMQTT, azure, mqtt.Config{DialContext: peer(silent)}) }, "tls-silent", 16 * time.Second},
		{"WebSocket", func() doctor.Config {
			return one(doctor.UseWebSocket, private, mqtt.Config{DialContext: servingPipe(issued(t, authority, nil, private)), TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM}})
		}, "ws-silent", 10 * time.Second},
		{"HTTPS", func() doctor.Config {
			return one(doctor.UseHTTPS, private, mqtt.Config{DialContext: servingPipe(issued(t, authority, nil, private)), TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM}})
		}, "https-failed", 8 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				r := doctor.Run(t.Context(), c.cfg())
				severity := doctor.Problem
				if c.code == "https-failed" {
					severity = doctor.Warning
				}
				wantFinding(t, r, c.code, severity)
				if took := time.Since(began); took > c.within {
					t.Errorf("it took %v, want at most %v", took, c.within)
				}
			})
		})
	}
}

// A limit of the caller's ends what has not ended by itself, and says the same.
func TestTheCallersLimitEndsTheWalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		r := doctor.Run(ctx, one(doctor.UseMQTT, azure, mqtt.Config{DialContext: peer(silent)}))
		wantFinding(t, r, "tls-silent", doctor.Problem)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestASwallowedClientHelloIsFoundAlthoughTheDialerPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority := transporttest.NewAuthority(t, "ACME")
		server := issued(t, authority, nil, private)
		server.SessionTicketsDisabled = true
		swallowing := peer(func(c net.Conn) {
			hello := make([]byte, 4096)
			n, err := c.Read(hello)
			if err != nil {
				return
			}
			if n > 1400 {
				silent(c)
				return
			}
			_, _ = io.Copy(io.Discard, tls.Server(&prefixed{c, hello[:n]}, server))
		})
		r := doctor.Run(t.Context(), one(doctor.UseMQTT, private, mqtt.Config{DialContext: swallowing, TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM}}))
		wantFinding(t, r, "tls-large-hello-stalled", doctor.Warning, "MTU")
		if !r.Healthy || r.Took < 8000 || r.Took > 9000 {
			t.Errorf("healthy %v, it took %v ms", r.Healthy, r.Took)
		}
	})
}

// prefixed gives back what was read already.
type prefixed struct {
	net.Conn
	prefix []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.prefix) > 0 {
		n := copy(b, p.prefix)
		p.prefix = p.prefix[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// Where another route gets through, one that does not is no problem.
func TestAnotherRouteMakesAProblemAWarning(t *testing.T) {
	authority := transporttest.NewAuthority(t, "ACME")
	cfg := one(doctor.UseMQTT, private, mqtt.Config{DialContext: serving(t, issued(t, authority, nil, private)), TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM}})
	blocked := cfg.Routes[0]
	blocked.Name, blocked.Dial.DialContext = "mqtt-2", failing(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
	cfg.Routes = append(cfg.Routes, blocked)
	r := run(t, cfg)
	wantFinding(t, r, "tcp-refused", doctor.Warning)
	if !r.Healthy {
		t.Errorf("not healthy:\n%s", text(t, r))
	}
	if diff := r.Ways[1].Through || !r.Ways[0].Through; diff {
		t.Errorf("through: %+v", r.Ways)
	}
}

// Without an assignment the way to the provisioning service is what counts.
func TestBeforeItIsProvisionedTheServiceIsLookedFor(t *testing.T) {
	authority := transporttest.NewAuthority(t, "ACME")
	dial := mqtt.RegistrarConfig{Host: private, IDScope: "0ne1", RegistrationID: "gw", TLS: netdial.TLSConfig{ExtraCA: authority.PEM}, DialContext: serving(t, issued(t, authority, nil, private))}.Transport()
	cfg := doctor.Config{Routes: []doctor.Route{{Name: "provisioning mqtt", Use: doctor.UseMQTT, Dial: dial}}}
	r := run(t, cfg)
	wantFinding(t, r, "not-provisioned", doctor.Warning, "fairlead run")
	if !r.Healthy {
		t.Errorf("not healthy:\n%s", text(t, r))
	}
	cfg.Routes[0].Dial.DialContext = failing(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
	r = run(t, cfg)
	wantFinding(t, r, "tcp-refused", doctor.Problem)
	if r.Healthy {
		t.Error("healthy without a way to the service")
	}
}
