//go:build interop

package interop_test

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/http"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// apacheConfig asks for a client's certificate in the first handshake at one host, and below /devices only at the other,
// which is possible by a renegotiation alone once the request is known.
const apacheConfig = `
ServerRoot %[1]s
ServerName localhost
PidFile %[1]s/pid
DefaultRuntimeDir %[1]s
ErrorLog %[1]s/error.log
LogLevel info
Listen 127.0.0.1:%[2]d
%[4]s
SSLSessionCache none
SSLEngine on
SSLCertificateFile %[1]s/cert.pem
SSLCertificateKeyFile %[1]s/key.pem
SSLCACertificateFile %[1]s/client-ca.pem
SSLProtocol %[5]s
SSLVerifyClient none
SSLProxyEngine off
ProxyPass / %[3]s/
<Location /devices>
  SSLVerifyClient require
  SSLVerifyDepth 3
  RequestHeader set X-Seen-Name "%%{SSL_CLIENT_S_DN_CN}s"
</Location>
`

// startApache starts an httpd in front of a backend, and returns its port.
func startApache(t *testing.T, backend, protocols string, clientCA []byte) (port int, ca []byte) {
	t.Helper()
	program, err := exec.LookPath("apache2")
	if err != nil {
		if program = "/usr/sbin/apache2"; !isFile(program) {
			t.Skip("Apache httpd is not installed here: apt-get install apache2-bin")
		}
	}
	dir := t.TempDir()
	ca = writeCertificate(t, dir)
	var modules strings.Builder
	for _, m := range []string{"mpm_event", "authz_core", "socache_shmcb", "ssl", "headers", "proxy", "proxy_http"} {
		fmt.Fprintf(&modules, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", m, m)
	}
	if os.Getuid() == 0 {
		modules.WriteString("User www-data\nGroup www-data\n")
	}
	port = freePorts(t, 1)[0]
	for name, text := range map[string]string{
		"client-ca.pem": string(clientCA), "httpd.conf": fmt.Sprintf(apacheConfig, dir, port, backend, modules.String(), protocols),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "-D", "FOREGROUND", "-f", filepath.Join(dir, "httpd.conf"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("httpd: %s\n%s", out.String(), log)
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // between two looks
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
			return port, ca
		}
		if time.Now().After(deadline) {
			t.Fatalf("httpd does not answer: %v\n%s", err, out.String())
		}
	}
}

// fixed is a source of one credential.
type fixed core.Credential

func (f fixed) Credential(context.Context) (core.Credential, error) { return core.Credential(f), nil }

func TestAHubThatAsksForTheCertificateLateGetsIt(t *testing.T) {
	backend := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("X-Seen-Name") != "dev1" || len(body) == 0 {
			w.WriteHeader(nethttp.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"correlationId":"c","hostName":"s.test","containerName":"u","blobName":"dev1/b","sasToken":"?sig=x"}`)
	}))
	defer backend.Close()
	authority := transporttest.NewAuthority(t, "devices")
	certificate := authority.Issue(t, nil, "dev1")
	for _, protocols := range []string{"-all +TLSv1.2", "-all +TLSv1.2 +TLSv1.3"} {
		t.Run(protocols, func(t *testing.T) {
			port, ca := startApache(t, backend.URL, protocols, authority.PEM)
			for _, c := range []struct {
				name       string
				credential core.Credential
				ok         bool
			}{
				{"with a certificate", core.Credential{Certificate: certificate.Certificate, Signer: certificate.PrivateKey.(crypto.Signer)}, true},
				{"without one", core.Credential{Token: "SharedAccessSignature sr=x"}, false},
			} {
				files, err := http.New(http.Config{
					Identity: core.Identity{Hostname: "localhost", DeviceID: "dev1"}, Credentials: fixed(c.credential), Port: port, Address: "127.0.0.1",
					TLS: netdial.TLSConfig{ServerVerificationCert: ca},
				})
				if err != nil {
					t.Fatal(err)
				}
				info, err := files.StorageInfo(t.Context(), strings.Repeat("b", 1000))
				if (err == nil) != c.ok || c.ok && info.CorrelationID != "c" {
					t.Errorf("%s: %+v, %v", c.name, info, err)
				}
				if err = files.NotifyUpload(t.Context(), core.UploadOutcome{CorrelationID: "c", Success: true}); (err == nil) != c.ok {
					t.Errorf("%s: notify: %v", c.name, err)
				}
			}
		})
	}
}
