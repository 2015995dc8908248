package credentials_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/youmark/pkcs8"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
)

// noon is when the certificates of the tests are valid: an hour before and after.
var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return noon }

func certificate(t *testing.T, key crypto.Signer, end time.Time) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dev1"}, NotBefore: noon.Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestParseCertificateReadsEveryKindOfKey(t *testing.T) {
	r := must(rsa.GenerateKey(rand.Reader, 2048))
	e := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old := must(x509.EncryptPEMBlock(rand.Reader, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(r), []byte("geheim"), x509.PEMCipherAES256)) //nolint:staticcheck // what old keys look like
	params := block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7})                                                             // which openssl ecparam -genkey writes before the key
	tests := []struct {
		name string
		key  crypto.Signer
		pem  []byte
		pass core.Secret
	}{
		{"RSA in PKCS#8", r, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(r))), ""},
		{"RSA in PKCS#1", r, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(r)), ""},
		{"ECDSA in PKCS#8", e, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(e))), ""},
		{"ECDSA in SEC 1, after its parameters", e, append(params, block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(e)))...), ""},
		{"Ed25519", ed, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ed))), ""},
		{"DEK-Info", r, pem.EncodeToMemory(old), "geheim"},
		{"RSA in encrypted PKCS#8", r, block("ENCRYPTED PRIVATE KEY", must(pkcs8.MarshalPrivateKey(r, []byte("geheim"), nil))), "geheim"},
		{"ECDSA in encrypted PKCS#8", e, block("ENCRYPTED PRIVATE KEY", must(pkcs8.MarshalPrivateKey(e, []byte("geheim"), nil))), "geheim"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cert := certificate(t, tt.key, noon.Add(time.Hour))
			for name, text := range map[string][2][]byte{"apart": {cert, tt.pem}, "in one": {append(tt.pem, cert...), append(tt.pem, cert...)}} {
				c, err := credentials.ParseCertificate(text[0], text[1], tt.pass)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if len(c.Chain) != 1 || c.Leaf.Subject.CommonName != "dev1" || !c.NotAfter.Equal(noon.Add(time.Hour)) {
					t.Errorf("%s: chain of %d, %v, ends %v", name, len(c.Chain), c.Leaf.Subject, c.NotAfter)
				}
			}
		})
	}
}

func TestParseCertificateSaysWhatIsWrong(t *testing.T) {
	e := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	cert := certificate(t, e, noon.Add(time.Hour))
	key := block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(e)))
	old := pem.EncodeToMemory(must(x509.EncryptPEMBlock(rand.Reader, "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(e)), []byte("geheim"), x509.PEMCipherAES256))) //nolint:staticcheck // as above
	locked := block("ENCRYPTED PRIVATE KEY", must(pkcs8.MarshalPrivateKey(e, []byte("geheim"), nil)))
	tests := []struct {
		name      string
		cert, key []byte
		pass      core.Secret
		want      string
	}{
		{"no certificate", key, key, "", "no certificate in it"},
		{"no key", cert, cert, "", "private key: none in it"},
		{"not PEM", []byte("hello"), key, "", "no certificate in it"},
		{"a damaged certificate", block("CERTIFICATE", []byte("x")), key, "", "certificate 1: "},
		{"a damaged key", cert, block("PRIVATE KEY", []byte("geheim")), "", "the PRIVATE KEY in it is damaged"},
		{"another's key", cert, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(other))), "", "does not belong to the first certificate (CN=dev1): was only one of the two replaced"},
		{"a chain the wrong way round", append(certificate(t, other, noon.Add(time.Hour)), cert...), key, "", "does the chain not begin with the device's own?"},
		{"no pass phrase for DEK-Info", cert, old, "", "it is encrypted, and no pass phrase was given: set pass_phrase"},
		{"no pass phrase for PKCS#8", cert, locked, "", "it is encrypted, and no pass phrase was given: set pass_phrase"},
		{"a wrong one for DEK-Info", cert, old, "falsch", "is the pass phrase right?"},
		{"a wrong one for PKCS#8", cert, locked, "falsch", "is the pass phrase right?"},
		{"one too many", cert, key, "falsch", "the key is not encrypted: leave pass_phrase out"},
		{"a damaged encrypted key", cert, block("ENCRYPTED PRIVATE KEY", []byte{0x30, 0}), "falsch", "is the pass phrase right?"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := credentials.ParseCertificate(tt.cert, tt.key, tt.pass)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, core.ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), "falsch") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestACertificateLivesUntilTheFirstOfItsChainEnds(t *testing.T) {
	e := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	above := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	chain := append(certificate(t, e, noon.Add(time.Hour)), certificate(t, above, noon.Add(20*time.Minute))...)
	c, err := credentials.ParseCertificate(chain, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(e))), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		now   time.Time
		life  time.Duration
		doubt string
	}{
		{noon, 20 * time.Minute, ""},
		{noon.Add(20 * time.Minute), time.Second, ""},
		{noon.Add(21 * time.Minute), 0, "the device's certificate ended at 2026-05-01T12:20:00Z, and this device's clock says 2026-05-01T12:21:00Z"},
		{time.Unix(60, 0), 0, "the device's certificate is valid from 2026-05-01T11:00:00Z, and this device's clock says 1970-01-01T00:01:00Z"},
	} {
		s, err := credentials.NewX509Signer(c.Chain, c.Signer, func() time.Time { return tt.now })
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Credential(t.Context())
		if err != nil || got.Life != tt.life || got.Doubt != tt.doubt || len(got.Certificate) != 2 || got.Token != "" || got.Given {
			t.Errorf("at %v: %+v, %v; want life %v, doubt %q", tt.now, got, err, tt.life, tt.doubt)
		}
	}
}

func TestReplacedFilesCountFromTheNextCredentialOn(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := credentials.NewX509Files(certFile, keyFile, "", clock); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without files: %v", err)
	}
	first := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	second := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	write(certFile, certificate(t, first, noon.Add(time.Minute)))
	write(keyFile, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(first))))
	s, err := credentials.NewX509Files(certFile, keyFile, "", clock)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := s.Credential(t.Context()); err != nil || c.Life != time.Minute {
		t.Errorf("first: %v, %v", c.Life, err)
	}
	write(certFile, certificate(t, second, noon.Add(time.Hour)))
	if _, err := s.Credential(t.Context()); core.KindOf(err) != core.Transient || !strings.Contains(err.Error(), "was only one of the two replaced") {
		t.Errorf("half replaced: %v", err)
	}
	write(keyFile, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(second))))
	if c, err := s.Credential(t.Context()); err != nil || c.Life != time.Hour || !second.PublicKey.Equal(c.Signer.Public()) {
		t.Errorf("second: %v, %v", c.Life, err)
	}
	if _, err := credentials.NewX509(nil, clock); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("without a loader: %v", err)
	}
	if _, err := credentials.NewX509(func(context.Context) (credentials.Certificate, error) { return credentials.Certificate{}, nil }, nil); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("without a clock: %v", err)
	}
}

func FuzzParseCertificate(f *testing.F) {
	e := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	key := must(x509.MarshalPKCS8PrivateKey(e))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), block("PRIVATE KEY", key), "")
	f.Add([]byte(""), block("ENCRYPTED PRIVATE KEY", must(pkcs8.MarshalPrivateKey(e, []byte("geheim"), nil))), "geheim")
	f.Fuzz(func(t *testing.T, cert, key []byte, pass string) {
		c, err := credentials.ParseCertificate(cert, key, core.Secret(pass))
		switch {
		case err != nil && !errors.Is(err, core.ErrInvalid):
			t.Errorf("the error is not ErrInvalid: %v", err)
		case err == nil && (c.Leaf == nil || c.Signer == nil || len(c.Chain) == 0 || c.NotAfter.Before(c.NotBefore) && len(c.Chain) == 1 && c.Leaf.NotBefore.Before(c.Leaf.NotAfter)):
			t.Errorf("an impossible certificate: %+v", c)
		}
	})
}
