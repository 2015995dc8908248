//go:build faults && unix

package faults

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/youmark/pkcs8"
)

// secretKinds are the identities by the secrets that they have. prepare makes the hub know the device and returns the
// section "device", the secrets (asked for at the end, since some are made on the way), and some trouble of the kind's own.
var secretKinds = []struct {
	name    string
	prepare func(w *world) (device string, secrets func() canaries, trouble func())
}{
	{"a key", prepareKey},
	{"a ready token", prepareToken},
	{"a certificate with a pass phrase", prepareCertificate},
	{"a certificate that is provisioned", prepareProvisionedCertificate},
	{"a group's key", prepareGroupKey},
	{"an enrollment's own key", prepareEnrollmentKey},
	{"a proxy's password", prepareProxy},
	{"a module of IoT Edge", prepareEdge},
}

func prepareKey(w *world) (string, func() canaries, func()) {
	text, err := os.ReadFile(w.path("device.cs"))
	if err != nil {
		w.t.Fatal(err)
	}
	secrets := canariesOf(w.t, string(text))
	// A key that was damaged on its way: neither the old one nor what came of it may be said.
	trouble := func() {
		_, key, _ := strings.Cut(strings.TrimSpace(string(text)), "SharedAccessKey=")
		w.replace("device.cs", "HostName="+hostname+";DeviceId="+device+";SharedAccessKey="+key[:len(key)-3])
	}
	return "device: {connection_string: {file: device.cs}, sastoken_ttl: 10s}", func() canaries { return secrets }, trouble
}

func prepareToken(w *world) (string, func() canaries, func()) {
	w.secrets = append(w.secrets, "token")
	secrets := tokens()
	give := func() {
		sign := w.signer("device.cs")
		token := sign(40 * time.Second)
		_, sig, _ := strings.Cut(token, "sig=")
		sig, _, _ = strings.Cut(sig, "&")
		secrets.add("a token's signature "+sig[:4], []byte(sig))
		w.replace("token", token)
	}
	give()
	return "device: {sastoken: {file: token}}", func() canaries { return secrets }, func() {
		w.replace("token", "SharedAccessSignature sr=elsewhere&sig=c2VjcmV0&se=1")
		w.replace("token", "not a token")
		give()
	}
}

// prepareCertificate makes a certificate whose key is encrypted.
func prepareCertificate(w *world) (string, func() canaries, func()) {
	const phrase = "correct horse battery/staple+42="
	w.secrets = append(w.secrets, "key.pem", "phrase")
	secrets := canaries{}
	secrets.add("the pass phrase", []byte(phrase))
	ca := w.newAuthority()
	w.hubDo("device", "delete", device)
	w.hubDo("device", "add", device, "--ca-signed")
	issue := func(life time.Duration) {
		ca.issue(life)
		text, err := os.ReadFile(w.path("key.pem"))
		if err != nil {
			w.t.Fatal(err)
		}
		key := secrets.addPrivateKey(w.t, text)
		encrypted, err := pkcs8.MarshalPrivateKey(key, []byte(phrase), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		w.replace("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: encrypted})))
	}
	w.replace("phrase", phrase)
	issue(40 * time.Second) // it is in trouble until the next one comes, which must be before 80 % of it
	return "device: {x509: {hostname: " + hostname + ", device_id: " + device + ", cert_file: cert.pem, key_file: key.pem, pass_phrase: {file: phrase}}}",
		func() canaries { return secrets }, func() {
			w.replace("phrase", "wrong")
			w.hubDo("fault", "add", "cut", "--device", w.id, "--count", "1")
			eventually(w.t, 30*time.Second, "a key that cannot be read", func() bool { return w.runtime.logged(w.t, "is the pass phrase right?") })
			w.replace("phrase", phrase)
			eventually(w.t, 30*time.Second, "a session", func() bool { return w.mustStatus().Connection.State == "connected" })
			issue(40 * time.Second) // it is renewed with
		}
}

// addPrivateKey adds a private key that stands in PEM, and returns it.
func (c canaries) addPrivateKey(t *testing.T, text []byte) any {
	t.Helper()
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	private, err := key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	c.add("the private number", private)
	c.add("the private key", block.Bytes)
	return key
}

// prepareProvisionedCertificate makes a certificate that is shown to the provisioning service, and then to the hub.
func prepareProvisionedCertificate(w *world) (string, func() canaries, func()) {
	w.secrets = append(w.secrets, "key.pem")
	secrets := canaries{}
	ca := w.newAuthority()
	p := w.enroll("--group", "--ca", w.path("ca.pem"))
	issue := func(life time.Duration) {
		ca.issue(life)
		text, err := os.ReadFile(w.path("key.pem"))
		if err != nil {
			w.t.Fatal(err)
		}
		secrets.addPrivateKey(w.t, text)
	}
	issue(90 * time.Second)
	return p.configuration("x509: {cert_file: cert.pem, key_file: key.pem}"), func() canaries { return secrets }, func() {
		losses := w.mustStatus().Counters.Losses
		w.hubDo("fault", "add", "cut", "--device", device, "--count", "1")
		eventually(w.t, 60*time.Second, "a session after a loss", func() bool {
			s := w.mustStatus()
			return s.Counters.Losses > losses && s.Connection.State == "connected"
		})
		issue(5 * time.Minute) // it is registered, and renewed with
	}
}

// prepareEnrollmentKey makes a key of an enrollment that is the device's alone.
func prepareEnrollmentKey(w *world) (string, func() canaries, func()) {
	w.secrets = append(w.secrets, "enrollment.key")
	p := w.enroll()
	w.replace("enrollment.key", p.Key)
	secrets := tokens()
	secrets.addKey(w.t, "the enrollment's key", p.Key)
	return p.configuration("symmetric_key: {file: enrollment.key}"), func() canaries { return secrets }, func() {
		w.hubDo("fault", "add", "provisioning-status", "500", "--device", device, "--count", "1")
		w.hubDo("fault", "add", "cut", "--device", device, "--count", "1")
		// Neither the damaged key nor what came of it may be said.
		w.replace("enrollment.key", p.Key[:len(p.Key)-3])
		eventually(w.t, 30*time.Second, "a key that is of no use", func() bool { return w.runtime.logged(w.t, "the key is not base64") })
		w.replace("enrollment.key", p.Key)
	}
}

// prepareProxy puts a proxy that wants a password between the device and its hub.
func prepareProxy(w *world) (string, func() canaries, func()) {
	const user, password = "gateway", "pw-7f3a9d+e1/c0&b2=5"
	text, err := os.ReadFile(w.path("device.cs"))
	if err != nil {
		w.t.Fatal(err)
	}
	secrets := canariesOf(w.t, string(text))
	secrets.add("the proxy's password", []byte(password))
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	secrets.add("the proxy's credentials", []byte(basic))
	wants := "Basic " + basic
	p := newCuttingProxy(w.t)
	p.wants.Store(&wants)
	w.secrets = append(w.secrets, "proxy.pw")
	w.replace("proxy.pw", password)
	port, _ := w.ports()
	return "device: {connection_string: {file: device.cs}, sastoken_ttl: 10s}\n" +
			"transports: [{use: mqtt, port: " + port + ", proxy_options: {proxy_type: HTTP, proxy_addr: 127.0.0.1, proxy_port: " + strconv.Itoa(p.port) +
			", proxy_username: " + user + ", proxy_password: {file: proxy.pw}}}]",
		func() canaries { return secrets }, func() {
			another := "Basic bm9ib2R5OnB3"
			p.wants.Store(&another)
			p.cut()
			eventually(w.t, 30*time.Second, "a proxy that refuses the password", func() bool { return w.runtime.logged(w.t, "it refuses the user name or the password") })
			p.wants.Store(&wants)
		}
}

func prepareGroupKey(w *world) (string, func() canaries, func()) {
	w.secrets = append(w.secrets, "enrollment.key")
	p := w.enroll("--group")
	w.replace("enrollment.key", p.Key)
	secrets := tokens()
	secrets.addKey(w.t, "the group's key", p.Key)
	group, err := base64.StdEncoding.DecodeString(p.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	mac := hmac.New(sha256.New, group)
	_, _ = mac.Write([]byte(device)) // a hash takes all
	secrets.addKey(w.t, "the device's key", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return p.configuration("group_symmetric_key: {file: enrollment.key}"), func() canaries { return secrets }, func() {
		w.hubDo("fault", "add", "provisioning-status", "500", "--device", device, "--count", "1")
		w.hubDo("fault", "add", "connack", "5", "--device", device, "--count", "2")
		w.hubDo("fault", "add", "cut", "--device", device, "--count", "1")
	}
}

func prepareEdge(w *world) (string, func() canaries, func()) {
	w.secrets = append(w.secrets, "module.cs")
	e := w.startWorkload()
	secrets := tokens()
	secrets.addKey(w.t, "the module's key", base64.StdEncoding.EncodeToString(e.key))
	all := func() canaries {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, digest := range e.digests {
			text := base64.StdEncoding.EncodeToString(digest)
			secrets.add("the signature "+text[:4], []byte(text))
			secrets.add("the signature "+text[:4]+"'s bytes", digest)
		}
		return secrets
	}
	return "device: {edge_environment: true, sastoken_ttl: 10s}", all, func() {
		e.refuse.Store(true)
		w.hubDo("fault", "add", "cut", "--device", w.id, "--count", "1")
		eventually(w.t, 30*time.Second, "a workload API that refuses", func() bool { return w.runtime.logged(w.t, "the identity service is starting") })
		e.refuse.Store(false)
	}
}
