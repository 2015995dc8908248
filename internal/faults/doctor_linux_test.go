//go:build faults && linux

package faults

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// diagnosis is what `fairlead doctor --json` says, as far as the tests look.
type diagnosis struct {
	Healthy bool `json:"healthy"`
	Checks  []struct {
		Route    string `json:"route"`
		Severity string `json:"severity"`
		Code     string `json:"code"`
		Detail   string `json:"detail"`
	} `json:"checks"`
}

// findings lists "severity code route", in order.
func (d diagnosis) findings() []string {
	var out []string
	for _, c := range d.Checks {
		if c.Code != "" {
			out = append(out, strings.TrimSpace(c.Severity+" "+c.Code+" "+c.Route))
		}
	}
	return out
}

// doctor runs the doctor, by a command before it where there is one, and wants an exit code within a limit.
func (w *world) doctor(want int, limit time.Duration, env []string, before ...string) diagnosis {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	argv := append(before, w.argv([]string{"doctor", "--json", "-c", w.path("fairlead.yaml")})...)
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.Env = &out, &errs, w.dir, append(environ(w.dir), env...)
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		w.t.Fatalf("run %q: %v", argv, err)
	}
	var d diagnosis
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		w.t.Fatalf("the doctor says %q: %v\n%s", out.String(), err, errs.String())
	}
	if code := cmd.ProcessState.ExitCode(); code != want || d.Healthy != (want == 0) {
		w.t.Errorf("exit code %d, want %d\n%s", code, want, out.String())
	}
	if took > limit {
		w.t.Errorf("it took %v, want at most %v\n%s", took, limit, out.String())
	}
	w.t.Logf("%v: %q", took.Round(10*time.Millisecond), d.findings())
	return d
}

// wantFindings wants each of the findings, and none of a worse kind than a warning besides if there is none among them.
func (d diagnosis) want(t *testing.T, findings ...string) {
	t.Helper()
	got := "\n" + strings.Join(d.findings(), "\n") + "\n"
	for _, f := range findings {
		if !strings.Contains(got, "\n"+f+"\n") {
			t.Errorf("%s was not found:%s", f, got)
		}
	}
	if len(findings) == 0 && got != "\n\n" {
		t.Errorf("something was found:%s", got)
	}
}

// bothRoutes finds the hub by its name, by each route and with those proxy options.
func (w *linkWorld) bothRoutes(proxy string) {
	w.t.Helper()
	w.configure("", "")
	edit(w.t, w.path("fairlead.yaml"), func(s string) string {
		routes := "transports:\n  - {use: mqtt" + proxy + "}\n  - {use: mqttws" + proxy + "}"
		return regexp.MustCompile(`(?m)^transports: .*$`).ReplaceAllString(s, routes)
	})
}

func TestTheDoctorFindsWhatLinksDo(t *testing.T) {
	needLinkTools(t)
	t.Parallel()
	const quick = 15 * time.Second // where the network answers, be it by silence
	w := newLinkWorld(t)
	w.bothRoutes("")
	w.doctor(0, quick, nil).want(t)
	for _, c := range []struct {
		name       string
		begin, end func()
		exit       int
		limit      time.Duration
		want       []string
	}{
		{"DNS gone", func() { w.dns.silence(true) }, func() { w.dns.silence(false) }, 1, quick, []string{"problem dns-silent mqtt", "problem dns-silent mqttws"}},
		{"all dropped", func() { w.filter("drop", "") }, w.clear, 1, quick, []string{"problem tcp-silent mqtt", "problem tcp-silent mqttws"}},
		{"8883 dropped", func() { w.filter("tcp dport 8883 drop", "") }, w.clear, 0, quick, []string{"warning tcp-silent mqtt"}},
		{"443 dropped", func() { w.filter("tcp dport 443 drop", "") }, w.clear, 0, quick, []string{"warning tcp-silent mqttws", "warning tcp-silent https", "warning credential-unproven"}},
		{"reset", func() { w.filter("meta l4proto tcp reject with tcp reset", "") }, w.clear, 1, quick, []string{"problem tcp-refused mqtt", "problem tcp-refused mqttws"}},
		{"reset in TLS", func() {
			w.filter("tcp dport { 443, 8883 } tcp flags & (syn | psh) == psh reject with tcp reset", "")
		}, w.clear, 1, quick, []string{"problem tls-cut mqtt", "problem tls-cut mqttws"}},
		{"large packets swallowed", func() { w.filter("tcp dport { 443, 8883 } meta length > 1400 drop", "") }, w.clear, 0, quick, []string{"warning tls-large-hello-stalled mqtt", "warning tls-large-hello-stalled mqttws"}},
		{"link down", func() { w.plug("down") }, func() { w.plug("up") }, 1, quick, []string{"problem tcp-unreachable mqtt", "problem tcp-unreachable mqttws"}},
		{"hub stopped", func() { w.hub.signal(t, syscall.SIGSTOP) }, func() { w.hub.signal(t, syscall.SIGCONT) }, 1, 20 * time.Second, []string{"problem tls-silent mqtt", "problem tls-silent mqttws"}},
		{"hub down", func() { w.hub.kill(t) }, w.restart, 1, quick, []string{"problem tcp-refused mqtt", "problem tcp-refused mqttws"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.begin()
			defer c.end()
			w.doctor(c.exit, c.limit, nil).want(t, c.want...)
		})
	}
	w.doctor(0, quick, nil).want(t)
}

func TestTheDoctorFindsAProxyThatAsks(t *testing.T) {
	needLinkTools(t)
	t.Parallel()
	w := newLinkWorld(t)
	var l net.Listener
	if err := within(w.netns.runtime, func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:3128") //nolint:noctx // it is bound, or it is not
		return err
	}); err != nil {
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
				defer c.Close() //nolint:errcheck // nobody is left to tell
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"plant\"\r\nConnection: close\r\n\r\n")
				}
			}()
		}
	}()
	w.bothRoutes(", proxy_options: {proxy_type: HTTP, proxy_addr: 127.0.0.1, proxy_port: 3128}")
	w.doctor(1, 15*time.Second, nil).want(t, "problem proxy-auth-required mqtt", "problem proxy-auth-required mqttws")
}

// A device that is connected stays so, and its message is still there for it; also where the doctor knows of no runtime.
func TestTheDoctorDisturbsNoSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure("", "")
	w.run()
	w.hubDo("c2d", device, "for the device")
	own := w.path("fairlead.yaml")
	w.doctor(0, 15*time.Second, nil)
	_, https := w.ports()
	edit(t, own, func(s string) string {
		s = strings.Replace(s, w.path("state"), w.path("elsewhere"), 1)
		return strings.Replace(s, "transports: [", "transports: [{use: mqttws, port: "+https+", address: 127.0.0.1}, ", 1)
	})
	d := w.doctor(0, 15*time.Second, nil)
	d.want(t)
	accepted := false
	for _, c := range d.Checks {
		accepted = accepted || strings.HasSuffix(c.Detail, "the hub accepts it")
	}
	if !accepted {
		t.Errorf("the hub was not asked: %+v", d.Checks)
	}
	edit(t, own, func(s string) string { return strings.Replace(s, w.path("elsewhere"), w.path("state"), 1) })
	if s := w.mustStatus(); s.Connection.State != "connected" || s.Counters.Sessions != 1 || s.Counters.Losses != 0 {
		t.Errorf("after the doctor: %+v", s)
	}
	w.terminate(0)
}

func TestTheDoctorNamesWhoOpensTLS(t *testing.T) {
	t.Parallel()
	w := emptyWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Plant Inspection CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"myhub.azure-devices.net"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
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
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	write := func(name, text string) {
		if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("device.cs", "HostName=myhub.azure-devices.net;DeviceId=dev1;SharedAccessKey=c2VjcmV0\n")
	write("fairlead.yaml", fmt.Sprintf("version: 1\ndevice: {connection_string: {file: device.cs}}\ntransports: [{use: mqttws, address: 127.0.0.1, port: %d}]\nstate_dir: state\n", l.Addr().(*net.TCPAddr).Port))
	d := w.doctor(1, 15*time.Second, nil)
	d.want(t, "problem tls-intercepted mqttws", "warning tls-intercepted https")
	if text := fmt.Sprintf("%+v", d); !strings.Contains(text, "Plant Inspection CA") || strings.Contains(text, "c2VjcmV0") {
		t.Errorf("the issuer is not named, or the key is: %s", text)
	}
}

func TestTheDoctorFindsASystemWithoutRoots(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure("", "")
	edit(t, w.path("fairlead.yaml"), func(s string) string {
		return strings.Replace(s, "server_verification_cert", "extra_ca", 1)
	})
	none := w.path("none")
	w.doctor(0, 15*time.Second, []string{"SSL_CERT_FILE=" + none, "SSL_CERT_DIR=" + none}).want(t, "warning tls-roots-missing mqtt")
}

// A file system of its own, in a mount namespace that nobody else sees.
func TestTheDoctorFindsADiskThatIsFullOrReadOnly(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"unshare", "setpriv", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed here (Debian: util-linux, mount)", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("only root mounts file systems")
	}
	w := newWorld(t)
	w.configure("", "")
	if err := os.Mkdir(w.path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	mounted := func(options, then string) []string {
		script := "mount -t tmpfs -o mode=700," + options + " none " + w.path("state") + " || exit 99\n" + then + "\nexec \"$@\""
		return []string{"unshare", "--mount", "sh", "-c", script, "sh"}
	}
	full := "head -c 1M /dev/zero > " + w.path("state", "ballast") + " 2>/dev/null; chmod 600 " + w.path("state", "ballast")
	w.doctor(1, 15*time.Second, nil, mounted("size=256k", full)...).want(t, "problem disk-full")
	w.doctor(1, 15*time.Second, nil, mounted("size=8M,ro", "")...).want(t, "problem state-dir-read-only")
	w.doctor(0, 15*time.Second, nil, mounted("size=8M", "")...).want(t, "warning disk-low")
	const nobody = 65534
	for _, name := range []string{"device.cs", "fairlead.yaml"} {
		if err := os.Chown(w.path(name), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(w.dir, 0o755); err != nil { //nolint:gosec // so that nobody gets in
		t.Fatal(err)
	}
	ca, err := os.ReadFile(w.ready.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("ca.pem"), ca, 0o644); err != nil { //nolint:gosec // as above
		t.Fatal(err)
	}
	edit(t, w.path("fairlead.yaml"), func(s string) string { return strings.Replace(s, w.ready.CAFile, w.path("ca.pem"), 1) })
	as := []string{"setpriv", "--reuid", fmt.Sprint(nobody), "--regid", fmt.Sprint(nobody), "--clear-groups"}
	if err := os.Chmod(w.path("state"), 0o755); err != nil { //nolint:gosec // as above
		t.Fatal(err)
	}
	w.doctor(1, 15*time.Second, nil, as...).want(t, "problem state-dir-not-writable")
}
