//go:build faults && unix

package faults

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// replace puts a file in another's place in one step, as whoever rotates secrets does.
func (w *world) replace(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name+".new"), []byte(text), 0o600); err != nil {
		w.t.Error(err)
	}
	if err := os.Rename(w.path(name+".new"), w.path(name)); err != nil {
		w.t.Error(err)
	}
}

// signer returns a function that signs SAS tokens of so long a life with the key of a connection string.
func (w *world) signer(file string) func(life time.Duration) string {
	w.t.Helper()
	text, err := os.ReadFile(w.path(file))
	if err != nil {
		w.t.Fatal(err)
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ";") {
		name, value, _ := strings.Cut(part, "=")
		fields[name] = value
	}
	key, err := base64.StdEncoding.DecodeString(fields["SharedAccessKey"])
	if err != nil {
		w.t.Fatal(err)
	}
	return func(life time.Duration) string {
		resource := url.QueryEscape(fields["HostName"] + "/devices/" + fields["DeviceId"])
		end := fmt.Sprint(time.Now().Add(life).Unix())
		mac := hmac.New(sha256.New, key)
		_, _ = mac.Write([]byte(resource + "\n" + end)) // a hash takes all
		return "SharedAccessSignature sr=" + resource + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) + "&se=" + end
	}
}

// authority signs the certificates of the device.
type authority struct {
	w      *world
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

// newAuthority makes an authority that the hub trusts.
func (w *world) newAuthority() *authority {
	w.t.Helper()
	a := &authority{w: w, key: newKey(w.t), serial: 1}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plant"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.replace("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	w.hubDo("ca", "add", w.path("ca.pem"))
	return a
}

// issue puts a new key and a certificate of so long a life in place of the device's, one file after the other.
func (a *authority) issue(life time.Duration) {
	a.serial++
	key := newKey(a.w.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: device}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.w.t.Error(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.w.t.Error(err)
	}
	a.w.replace("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	a.w.replace("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// An operator disables a device, or revokes what it proves itself by: it is shown, tried rarely, and mends itself.
func TestARefusedDeviceTriesSlowlySaysSoAndComesBack(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		take func(w *world)
		give func(w *world)
		// reason is what the status says; slow is more than connection_retry_interval, which bounds the waits of other outages.
		reason string
		slow   float64
	}{
		{
			name:   "disabled",
			take:   func(w *world) { w.hubDo("device", "disable", device) },
			give:   func(w *world) { w.hubDo("device", "enable", device) },
			reason: "the device is disabled there (CONNACK 3)", slow: 5,
		},
		{
			name: "deleted, and made anew with another key",
			take: func(w *world) { w.hubDo("device", "delete", device) },
			give: func(w *world) {
				// The file is replaced under the device's eyes, which does not wait for its next attempt then.
				w.hubDo("device", "add", device, "--out", w.path("new.cs"))
				if err := os.Rename(w.path("new.cs"), w.path("device.cs")); err != nil {
					w.t.Fatal(err)
				}
			},
			reason: "is the key the device's own, the device known and enabled", slow: 10,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.configure(numbers("{rate: 20}"), "connection: {connection_retry_interval: 2s}")
			w.run()
			w.awaitAccepted(20, 30*time.Second)
			began := time.Now()
			attempts := w.mustStatus().Counters.Attempts
			tt.take(w)
			var s status
			eventually(t, 60*time.Second, "a refusal that is shown, and a long wait", func() bool {
				s = w.mustStatus()
				return s.Connection.State == "waiting" && strings.Contains(s.Connection.Reason, tt.reason) && s.Connection.NextAttempt > tt.slow
			})
			if !w.runtime.logged(t, tt.reason) {
				t.Error("the log does not say it")
			}
			t.Logf("after %v and %d attempts, next in %v s: %s", time.Since(began).Round(time.Millisecond), s.Counters.Attempts-attempts, s.Connection.NextAttempt, s.Connection.Reason)
			if n := s.Counters.Attempts - attempts; n > 8 {
				t.Errorf("%d attempts within %v", n, time.Since(began))
			}
			tt.give(w)
			took := eventually(t, 60*time.Second, "a session again", func() bool { return w.mustStatus().Connection.State == "connected" })
			t.Logf("back after %v", took.Round(time.Millisecond))
			if tt.slow == 10 && took.Seconds() >= s.Connection.NextAttempt {
				t.Errorf("the replaced file did not end the wait of %v s", s.Connection.NextAttempt)
			}
			w.awaitAccepted(20, 30*time.Second)
			w.terminate(0)
			w.checkNumbers(began)
		})
	}
}
