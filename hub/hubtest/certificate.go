package hubtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// Authority issues certificates to devices in a test.
type Authority struct {
	t     testing.TB
	chain [][]byte // DER, its own first
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
}

// NewAuthority makes an authority that trusts nobody above it.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	return newAuthority(t, name, nil)
}

// Intermediate makes an authority below a.
func (a *Authority) Intermediate(name string) *Authority {
	a.t.Helper()
	return newAuthority(a.t, name, a)
}

func newAuthority(t testing.TB, name string, parent *Authority) *Authority {
	t.Helper()
	template := certificateTemplate(name, time.Now().Add(24*time.Hour))
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	c := issue(t, template, parent)
	key, ok := c.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("the authority's key is a %T", c.PrivateKey)
	}
	return &Authority{t, c.Certificate, c.Leaf, key}
}

// PEM is the authority's own certificate.
func (a *Authority) PEM() string { return certificatePEM(a.chain[0]) }

// Issue makes a certificate for a device that is good for a day, with the chain up
// to, but without, the topmost authority.
func (a *Authority) Issue(commonName string) tls.Certificate {
	a.t.Helper()
	return issue(a.t, certificateTemplate(commonName, time.Now().Add(24*time.Hour)), a)
}

// IssueUntil makes a certificate that ends then, which may be past.
func (a *Authority) IssueUntil(commonName string, end time.Time) tls.Certificate {
	a.t.Helper()
	return issue(a.t, certificateTemplate(commonName, end), a)
}

// SelfSigned makes a certificate for a device that nobody else signed.
func SelfSigned(t testing.TB, commonName string) tls.Certificate {
	t.Helper()
	return issue(t, certificateTemplate(commonName, time.Now().Add(24*time.Hour)), nil)
}

// CertificatePEM is the device's own certificate, or with chain all of them.
func CertificatePEM(c tls.Certificate, chain bool) string {
	if !chain {
		return certificatePEM(c.Certificate[0])
	}
	var text strings.Builder
	for _, der := range c.Certificate {
		text.WriteString(certificatePEM(der))
	}
	return text.String()
}

// KeyPEM is the device's private key.
func KeyPEM(t testing.TB, c tls.Certificate) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatalf("encode key: %v", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func certificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func certificateTemplate(name string, end time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: end.Add(-48 * time.Hour), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func issue(t testing.TB, template *x509.Certificate, parent *Authority) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("make key: %v", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		t.Fatalf("make serial number: %v", err)
	}
	issuer, signer := template, key
	var above [][]byte
	if parent != nil {
		issuer, signer = parent.cert, parent.key
		if parent.cert.Issuer.CommonName != parent.cert.Subject.CommonName { // whoever checks has the topmost
			above = parent.chain
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		t.Fatalf("make certificate: %v", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("read certificate: %v", err)
	}
	return tls.Certificate{Certificate: append([][]byte{der}, above...), PrivateKey: key, Leaf: leaf}
}
