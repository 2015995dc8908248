package device_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func TestAClientIsMadeOfACertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		cert := hubtest.SelfSigned(t, "dev1")
		thumbprint := hubtest.Thumbprint(cert)
		for _, id := range []string{"dev1", "dev1/m"} {
			parsed := api.ParseID(id)
			auth := api.Authentication{Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{PrimaryThumbprint: &thumbprint}}
			if _, err := hub.CreateDevice(api.Device{DeviceID: parsed.Device, ModuleID: parsed.Module, Authentication: auth}); err != nil {
				t.Fatal(err)
			}
		}
		certPEM, keyPEM := hubtest.CertificatePEM(t, cert)
		certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
		for name, text := range map[string][]byte{certFile: certPEM, keyFile: keyPEM} {
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		parsed, err := credentials.ParseCertificate(certPEM, keyPEM, "")
		if err != nil {
			t.Fatal(err)
		}
		for name, x := range map[string]device.X509{
			"files": {CertFile: certFile, KeyFile: keyFile}, "texts": {CertPEM: certPEM, KeyPEM: keyPEM}, "a signer": {Chain: parsed.Chain, Signer: parsed.Signer},
		} {
			for _, id := range []string{"dev1", "dev1/m"} {
				c, err := device.FromX509(x, hub.Hostname(), id, onPipe(hub))
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if err := c.Send(t.Context(), text(name)); err != nil {
					t.Errorf("%s by %s: %v", id, name, err)
				}
				if err := c.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
		for name, bad := range map[string]struct {
			x    device.X509
			id   string
			says string
		}{
			"nothing":                  {device.X509{}, "dev1", "give files, PEM texts, or a chain"},
			"two ways":                 {device.X509{CertFile: certFile, KeyFile: keyFile, CertPEM: certPEM, KeyPEM: keyPEM}, "dev1", "only one of them"},
			"no key":                   {device.X509{CertPEM: certPEM}, "dev1", "private key"},
			"a phrase for nothing":     {device.X509{CertPEM: certPEM, KeyPEM: keyPEM, PassPhrase: "x"}, "dev1", "the key is not encrypted"},
			"a phrase for a signer":    {device.X509{Chain: parsed.Chain, Signer: parsed.Signer, PassPhrase: "x"}, "dev1", "not for a Signer"},
			"a chain without a signer": {device.X509{Chain: parsed.Chain}, "dev1", "signer"},
			"a bad id":                 {device.X509{CertPEM: certPEM, KeyPEM: keyPEM}, "a b", "DeviceId"},
		} {
			if _, err := device.FromX509(bad.x, hub.Hostname(), bad.id); !errors.Is(err, device.ErrInvalid) || !strings.Contains(err.Error(), bad.says) {
				t.Errorf("%s: %v, want ErrInvalid with %q", name, err, bad.says)
			}
		}
		if _, err := device.FromX509(device.X509{CertFile: "missing.pem", KeyFile: keyFile}, hub.Hostname(), "dev1"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a missing file: %v", err)
		}
	})
}

func TestAClientIsMadeOfAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		hub.AddDevice("dev1")
		cs, err := credentials.ParseConnectionString(hub.AddDevice("dev1/m"))
		if err != nil {
			t.Fatal(err)
		}
		sign, err := credentials.KeySigner(cs.Key)
		if err != nil {
			t.Fatal(err)
		}
		token := func(life time.Duration) string {
			text, err := credentials.Sign(t.Context(), sign, credentials.Resource(cs.Identity), "", time.Now().Add(life))
			if err != nil {
				t.Fatal(err)
			}
			return text.Reveal()
		}
		c, err := device.FromSASToken(token(10*time.Minute), onPipe(hub))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Shutdown(context.WithoutCancel(t.Context())) }()
		if c.Identity() != (core.Identity{Hostname: hub.Hostname(), DeviceID: "dev1", ModuleID: "m"}) {
			t.Errorf("identity %+v", c.Identity())
		}
		asked := make(chan struct{}, 1)
		defer c.OnNewSASToken(func() { asked <- struct{}{} })()
		if err := c.Send(t.Context(), text("1")); err != nil {
			t.Fatal(err)
		}
		<-asked
		if err := c.UpdateSASToken(t.Context(), token(time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute) // beyond the first token's end
		if n := counters(t, c); n.Losses != 0 || n.Renewals != 1 {
			t.Errorf("%d losses, %d renewals; want none and 1", n.Losses, n.Renewals)
		}
		if _, err := device.FromSASToken("SharedAccessSignature sr=x&sig=c2VjcmV0&se=1"); !errors.Is(err, device.ErrInvalid) || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("a token of nobody: %v", err)
		}
		if _, err := device.FromSASToken(token(time.Hour), func(o *device.Options) { o.SASTokenTTL = time.Hour }); !errors.Is(err, device.ErrInvalid) {
			t.Errorf("a life for a ready token: %v", err)
		}
	})
}

func TestCipherLimitsWhatIsNegotiated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		text := hub.AddDevice("dev1")
		for _, c := range []struct {
			cipher string
			says   string // "" connects
		}{
			{"", ""},
			{"ECDHE-ECDSA-AES128-GCM-SHA256", ""},
			{"ecdhe_ecdsa_aes128_gcm_sha256:!TLSv1.3", ""},
			{"ECDHE-RSA-AES128-GCM-SHA256:!TLSv1.3", "no version or cipher of TLS in common"}, // the hub's key is an elliptic one
		} {
			client, err := device.FromConnectionString(text, onPipe(hub), func(o *device.Options) { o.Cipher, o.ConnectionRetry = c.cipher, false })
			if err != nil {
				t.Fatal(err)
			}
			err = client.Connect(t.Context())
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q: %v, want %q", c.cipher, err, c.says)
			}
			_, err = client.GetStorageInfoForBlob(t.Context(), "f") // by HTTPS, where the same holds
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q: storage info: %v, want %q", c.cipher, err, c.says)
			}
			if err := client.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if _, err := device.FromConnectionString(text, func(o *device.Options) { o.Cipher = "RC4-MD5" }); !errors.Is(err, device.ErrInvalid) || !strings.Contains(err.Error(), "RC4-MD5") {
			t.Errorf("a suite that nobody should use: %v", err)
		}
	})
}
