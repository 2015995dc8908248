package netdial_test

import (
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// httpsServer answers with what it was shown: the name that was asked for, and the client's certificate.
func httpsServer(t *testing.T, authority *transporttest.Authority, name string) (port int) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			shown = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		fmt.Fprintf(w, "%s %s %s", r.TLS.ServerName, shown, r.Proto)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, nil, name)}, ClientAuth: tls.RequestClientCert}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

func get(t *testing.T, client *http.Client, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// The hub and a storage account are reached by the same proxy; the certificate and the hub's own roots are for the hub alone.
func TestHTTPSGoesTheSameWay(t *testing.T) {
	gateway, public := transporttest.NewAuthority(t, "gateway"), transporttest.NewAuthority(t, "public")
	const storage = "account.blob.example.net"
	ports := map[string]int{
		host + ":443": httpsServer(t, gateway, host), storage + ":443": httpsServer(t, public, storage), "stranger.example.net:443": httpsServer(t, gateway, "stranger.example.net"),
	}
	var asked []string
	p := startProxy(t, nil, func(_ int, conn net.Conn) {
		req, err := readRequest(conn)
		if err != nil {
			return
		}
		asked = append(asked, req)
		hub, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[req]))
		if err != nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 503 Service Unavailable\r\n\r\n")
			return
		}
		_, _ = io.WriteString(conn, established)
		carry(conn, hub)
	})
	device := transporttest.NewAuthority(t, "self-signed").Issue(t, nil, "dev")
	credential := core.Credential{Certificate: device.Certificate, Signer: device.PrivateKey.(crypto.Signer)}
	d := proxied(t, p.config(netdial.ProxyHTTP, "", ""), netdial.TLSConfig{ServerVerificationCert: gateway.PEM, ExtraCA: public.PEM})
	transport := d.HTTPTransport(func() core.Credential { return credential })
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for url, want := range map[string]string{"https://" + host + "/x": host + " dev HTTP/1.1", "https://" + storage: storage + " nobody HTTP/1.1"} {
		for range 2 {
			if got, err := get(t, client, url); err != nil || got != want {
				t.Errorf("%s: %q, %v; want %q", url, got, err, want)
			}
		}
	}
	if len(asked) != 2 {
		t.Errorf("the proxy was asked for %q, want each once: connections are kept", asked)
	}
	for url, want := range map[string]struct {
		phase string
		kind  core.Kind
		text  string
	}{
		"https://stranger.example.net": {netdial.PhaseTLS, core.Fatal, `dial tls stranger.example.net:443 through HTTP proxy 127.0.0.1`},
		"https://nowhere.example.net":  {netdial.PhaseProxy, core.Blocked, "it does not reach nowhere.example.net:443"},
		"http://" + storage:            {netdial.PhaseTLS, core.Fatal, "plain HTTP is not spoken"},
	} {
		_, err := get(t, client, url)
		e, ok := errors.AsType[*core.Error](err)
		if !ok || e.Phase != want.phase || e.Kind != want.kind || !strings.Contains(e.Error(), want.text) {
			t.Errorf("%s: %v, want %s %s with %q", url, err, want.phase, want.kind, want.text)
		}
	}
}

// Without a proxy the hub's address stands in for its name at any port, and nobody else's does.
func TestHTTPSHonoursTheHubsAddress(t *testing.T) {
	authority := transporttest.NewAuthority(t, "hub")
	port := httpsServer(t, authority, host)
	d := dialer(t, netdial.Config{Port: 8883, TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM}})
	transport := d.HTTPTransport(nil)
	defer transport.CloseIdleConnections()
	if got, err := get(t, &http.Client{Transport: transport}, fmt.Sprintf("https://HUB.example.net:%d/", port)); err != nil || !strings.HasSuffix(got, " nobody HTTP/1.1") {
		t.Errorf("%q, %v", got, err)
	}
	_, err := get(t, &http.Client{Transport: transport}, fmt.Sprintf("https://localhost:%d/", port))
	if e, ok := errors.AsType[*core.Error](err); !ok || e.Kind != core.Fatal || e.Phase != netdial.PhaseTLS {
		t.Errorf("localhost: %v, want a certificate that is not trusted: the hub's roots are the hub's", err)
	}
}

// readRequest reads a CONNECT and returns what it asks for.
func readRequest(conn net.Conn) (string, error) {
	var b []byte
	for !strings.HasSuffix(string(b), "\r\n\r\n") {
		c := make([]byte, 1)
		if _, err := conn.Read(c); err != nil {
			return "", err
		}
		b = append(b, c...)
	}
	return strings.Fields(string(b))[1], nil
}
