package hubtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// CA is a certificate authority for a test's devices; register its PEM with
// Hub.AddCA.
type CA struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a certificate authority.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	cert, key := issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	return &CA{t, cert, key}
}

// PEM is the authority's certificate.
func (a *CA) PEM() []byte { return certificatePEM(a.cert.Raw) }

// Intermediate makes an authority below this one.
func (a *CA) Intermediate(name string) *CA {
	a.t.Helper()
	cert, key := issue(a.t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, a)
	return &CA{a.t, cert, key}
}

// Issue makes a certificate with a common name: the id of a device, or
// "device/module". The authorities above go with it, as far as they are named.
func (a *CA) Issue(commonName string, above ...*CA) tls.Certificate {
	a.t.Helper()
	cert, key := issue(a.t, deviceTemplate(commonName), a)
	out := tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	for _, ca := range above {
		out.Certificate = append(out.Certificate, ca.cert.Raw)
	}
	return out
}

// SelfSigned makes a certificate that only its thumbprint vouches for; see
// Thumbprint.
func SelfSigned(t testing.TB, commonName string) tls.Certificate {
	t.Helper()
	cert, key := issue(t, deviceTemplate(commonName), nil)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// Thumbprint is the SHA-256 thumbprint of a certificate, as an identity of the
// type api.AuthSelfSigned wants it.
func Thumbprint(cert tls.Certificate) string {
	sum := sha256.Sum256(cert.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// CertificatePEM is a certificate with what goes with it, and its key, in PEM.
func CertificatePEM(t testing.TB, cert tls.Certificate) (certificate, key []byte) {
	t.Helper()
	for _, der := range cert.Certificate {
		certificate = append(certificate, certificatePEM(der)...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatalf("encode key: %v", err)
	}
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func deviceTemplate(commonName string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: commonName}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// issue signs template with parent, or with itself. It is good for a day.
func issue(t testing.TB, template *x509.Certificate, parent *CA) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("make key: %v", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		t.Fatalf("make serial number: %v", err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	issuer, signer := template, key
	if parent != nil {
		issuer, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		t.Fatalf("make certificate %s: %v", template.Subject, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("read certificate %s: %v", template.Subject, err)
	}
	return cert, key
}
