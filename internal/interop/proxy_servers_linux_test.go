//go:build interop && linux

package interop_test

import (
	"crypto/md5" //nolint:gosec // what digest_file_auth reads
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// The plant's network: the device has one cable to it, and nothing else. plantAddr is where the proxies are.
const (
	plantAddr  = "10.77.0.1"
	deviceAddr = "10.77.0.2"
	plantAddr6 = "fd77::1"
	proxyName  = "proxy.plant"
)

// proxyUser and proxyPassword have what is easily got wrong; squid's helpers are told them escaped.
const (
	proxyUser            = "gw"
	proxyPassword        = `p:w ä%"x`
	proxyPasswordEscaped = "p:w%20%C3%A4%25%22x" //nolint:gosec // of a test
	plainPassword        = "secret-4711"         // for those who allow no others
)

// findProgram returns the path of a program that may be where only root looks, and skips the test where there is none.
func findProgram(t *testing.T, name, pkg string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name, "/sbin/" + name, "/usr/lib/squid/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	t.Skipf("%s is not installed here: apt-get install %s", name, pkg)
	return ""
}

// publicDir is a directory that servers may use after they have given up being root.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "plant") //nolint:usetesting // what t.TempDir stands in is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // see above
		t.Fatal(err)
	}
	return dir
}

func writeFile(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	return name
}

// startServer starts a program and waits until it listens.
func startServer(t *testing.T, dir, address, program string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, "output")) //nolint:gosec // in a test's own directory
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with its helpers
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			for _, name := range []string{"output", "cache.log", "access.log"} {
				if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil && len(text) > 0 {
					t.Logf("%s of %s:\n%s", name, filepath.Base(program), text)
				}
			}
		}
	})
	until(t, filepath.Base(program)+" listens at "+address, func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

// startSquid starts a squid that goes by rules: what stands between its settings and its last word, which is no.
func startSquid(t *testing.T, listen string, rules func(t *testing.T, dir string) string) {
	t.Helper()
	program := findProgram(t, "squid", "squid")
	dir := publicDir(t)
	conf := writeFile(t, filepath.Join(dir, "squid.conf"), fmt.Sprintf(`http_port %s
visible_hostname %s
pid_filename none
cache_log %[3]s/cache.log
access_log stdio:%[3]s/access.log
coredump_dir %[3]s
cache deny all
cache_mem 8 MB
pinger_enable off
netdb_filename none
shutdown_lifetime 0 seconds
dns_nameservers 127.0.0.1
acl secure port 443 8883
%[4]s
http_access deny all
`, listen, proxyName, dir, rules(t, dir)), 0o644)
	startServer(t, dir, listen, program, "-N", "-f", conf)
}

const squidUsers = `
acl users proxy_auth REQUIRED
http_access allow CONNECT secure users`

func squidOpen(*testing.T, string) string { return "http_access allow CONNECT secure" }

// squid443 is what squid's own configuration says, and most plants' does.
func squid443(*testing.T, string) string {
	return "acl https port 443\nhttp_access allow CONNECT https"
}

func squidBasic(t *testing.T, dir string) string {
	t.Helper()
	return squidPasswords(t, dir) + squidUsers
}

// squidPasswords has squid ask for user and password by Basic.
func squidPasswords(t *testing.T, dir string) string {
	t.Helper()
	helper := writeFile(t, filepath.Join(dir, "helper"), fmt.Sprintf("#!/bin/sh\nwhile read -r line; do if [ \"$line\" = '%s %s' ]; then echo OK; else echo ERR; fi; done\n", proxyUser, proxyPasswordEscaped), 0o755)
	return "auth_param basic program " + helper + "\nauth_param basic children 1\nauth_param basic realm the plant, hall 2"
}

func squidDigest(t *testing.T, dir string) string {
	t.Helper()
	helper := findProgram(t, "digest_file_auth", "squid")
	sum := md5.Sum([]byte(proxyUser + ":plant:" + proxyPassword)) //nolint:gosec // see its import
	users := writeFile(t, filepath.Join(dir, "users"), fmt.Sprintf("%s:plant:%x\n", proxyUser, sum), 0o644)
	return "auth_param digest program " + helper + " -c " + users + "\nauth_param digest children 1\nauth_param digest realm plant" + squidUsers
}

// squidNTLM holds the conversation of NTLM as squid does; its helper, in place of a domain controller, takes any answer to
// its one challenge, which is that of 4.2.4.3 in https://learn.microsoft.com/openspecs/windows_protocols/ms-nlmp without
// the exchange of keys. https://wiki.squid-cache.org/Features/NegotiateAuthentication says what a helper is told.
func squidNTLM(t *testing.T, dir string) string {
	t.Helper()
	helper := writeFile(t, filepath.Join(dir, "helper"), `#!/bin/sh
while read -r what message; do
  case "$what $message" in
    "YR TlRMTVNTUAAB"*) echo "TT TlRMTVNTUAACAAAADAAMADgAAAAzgooCASNFZ4mrze8AAAAAAAAAACQAJABEAAAABgBwFwAAAA9TAGUAcgB2AGUAcgACAAwARABvAG0AYQBpAG4AAQAMAFMAZQByAHYAZQByAAAAAAA=" ;;
    "KK TlRMTVNTUAAD"*) echo "AF gw" ;;
    *) echo "NA what is this" ;;
  esac
done
`, 0o755)
	return "auth_param ntlm program " + helper + "\nauth_param ntlm children 1\nauth_param ntlm keep_alive on" + squidUsers
}

// startStunnel puts TLS in front of a proxy, with a certificate for its name from authority.
func startStunnel(t *testing.T, listen, to string, authority *transporttest.Authority) {
	t.Helper()
	program := findProgram(t, "stunnel4", "stunnel4")
	dir := publicDir(t)
	cert := authority.Issue(t, nil, proxyName)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	for _, der := range cert.Certificate {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	both := writeFile(t, filepath.Join(dir, "cert.pem"), text.String(), 0o600)
	conf := writeFile(t, filepath.Join(dir, "stunnel.conf"), fmt.Sprintf("foreground = yes\npid =\n[proxy]\naccept = %s\nconnect = %s\ncert = %s\n", listen, to, both), 0o644)
	startServer(t, dir, listen, program, conf)
}

func startTinyproxy(t *testing.T, listen, rules string) {
	t.Helper()
	program := findProgram(t, "tinyproxy", "tinyproxy")
	host, port, _ := net.SplitHostPort(listen)
	dir := publicDir(t)
	conf := writeFile(t, filepath.Join(dir, "tinyproxy.conf"), fmt.Sprintf("Port %s\nListen %s\nTimeout 600\nMaxClients 20\nPidFile \"%s/pid\"\n%s\n", port, host, dir, rules), 0o644)
	startServer(t, dir, listen, program, "-d", "-c", conf)
}

func startMicrosocks(t *testing.T, listen string, args ...string) {
	t.Helper()
	program := findProgram(t, "microsocks", "microsocks")
	host, port, _ := net.SplitHostPort(listen)
	startServer(t, publicDir(t), listen, program, append([]string{"-i", host, "-p", port}, args...)...)
}

func startDante(t *testing.T, listen string) {
	t.Helper()
	program := findProgram(t, "danted", "dante-server")
	host, port, _ := net.SplitHostPort(listen)
	dir := publicDir(t)
	conf := writeFile(t, filepath.Join(dir, "danted.conf"), fmt.Sprintf(`logoutput: stderr
internal: %s port = %s
external: lo
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 log: error connect }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 log: error connect }
`, host, port), 0o644)
	startServer(t, dir, listen, program, "-f", conf, "-p", filepath.Join(dir, "pid"))
}

// startBabbler is a server that says one thing, whatever it is told, and hangs up; with "" it stays silent instead.
func startBabbler(t *testing.T, listen, text string) {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close() //nolint:errcheck // it has babbled
				b := make([]byte, 4096)
				for {
					if _, err := conn.Read(b); err != nil {
						return
					}
					if text != "" {
						_, _ = conn.Write([]byte(text))
						return
					}
				}
			}()
		}
	}()
}
