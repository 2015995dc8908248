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
	"strings"
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
	{"a group's key", prepareGroupKey},
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
		block, _ := pem.Decode(text)
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			w.t.Fatal(err)
		}
		private, err := key.(*ecdsa.PrivateKey).Bytes()
		if err != nil {
			w.t.Fatal(err)
		}
		secrets.add("the private number", private)
		secrets.add("the private key", block.Bytes)
		encrypted, err := pkcs8.MarshalPrivateKey(key, []byte(phrase), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		w.replace("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: encrypted})))
	}
	w.replace("phrase", phrase)
	issue(25 * time.Second)
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
