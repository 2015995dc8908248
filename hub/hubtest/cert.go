package hubtest

import (
	"crypto"
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

// validFor is how long certificates are good.
const validFor = 24 * time.Hour

// CA is a certificate authority for a test's devices. Register its PEM with
// Hub.AddCA, or let an enrollment group have it.
type CA struct {
	t     testing.TB
	cert  *x509.Certificate
	key   crypto.Signer
	above [][]byte // DER: itself and those above, without the topmost, which whoever checks has
}

// NewCA makes a certificate authority that trusts nobody above it.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	return newCA(t, name, nil)
}

// Intermediate makes an authority below this one.
func (a *CA) Intermediate(name string) *CA {
	a.t.Helper()
	return newCA(a.t, name, a)
}

func newCA(t testing.TB, name string, parent *CA) *CA {
	t.Helper()
	cert, key := issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, time.Now().Add(validFor), parent)
	ca := &CA{t: t, cert: cert, key: key}
	if parent != nil {
		ca.above = append([][]byte{cert.Raw}, parent.above...)
	}
	return ca
}

// PEM is the authority's own certificate.
func (a *CA) PEM() []byte { return certificatePEM(a.cert.Raw) }

// Issue makes a certificate that is good for a day, with a common name: the id of
// a device or of a registration, or "device/module". The authorities up to, but
// without, the topmost go with it.
func (a *CA) Issue(commonName string) tls.Certificate {
	a.t.Helper()
	return a.IssueUntil(commonName, time.Now().Add(validFor))
}

// IssueUntil is Issue with the certificate's end, which may be past. It begins two
// days before.
func (a *CA) IssueUntil(commonName string, end time.Time) tls.Certificate {
	a.t.Helper()
	cert, key := issue(a.t, deviceTemplate(commonName), end, a)
	return tls.Certificate{Certificate: append([][]byte{cert.Raw}, a.above...), PrivateKey: key, Leaf: cert}
}

// SelfSigned makes a certificate that nobody else signed: its thumbprint vouches
// for it, or an enrollment that has it. See Thumbprint.
func SelfSigned(t testing.TB, commonName string) tls.Certificate {
	t.Helper()
	cert, key := issue(t, deviceTemplate(commonName), time.Now().Add(validFor), nil)
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

// issue signs template with parent, or with itself.
func issue(t testing.TB, template *x509.Certificate, end time.Time, parent *CA) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("make key: %v", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		t.Fatalf("make serial number: %v", err)
	}
	template.NotBefore, template.NotAfter = end.Add(-2*validFor), end
	issuer, signer := template, crypto.Signer(key)
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
