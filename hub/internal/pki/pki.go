package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	caLifetime     = 10 * 365 * 24 * time.Hour
	serverLifetime = 397 * 24 * time.Hour // what clients commonly accept
	renewBefore    = 30 * 24 * time.Hour
	// skew dates certificates back, since a device's clock may be a little behind.
	skew = time.Hour
)

// era is when this program was written. A clock before it has not been set yet;
// what is made then must still be good when it is.
var era = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// end is when something that is made now ends.
func end(now time.Time, lifetime time.Duration) time.Time {
	if now.Before(era) {
		now = era
	}
	return now.Add(lifetime)
}

// CAFile is the name of the authority's certificate inside the directory.
const CAFile = "ca.pem"

// Identity is what the hub's listeners need.
type Identity struct {
	// Certificates for tls.Config, the ECDSA one first.
	Certificates []tls.Certificate
	// CA is the authority's certificate in PEM.
	CA []byte
}

// Load reads the authority and the server certificates for names from dir and
// makes what is missing, near its end (30 days) or made for other names. With
// dir "" everything lives in memory and only an ECDSA certificate is made; in a
// directory there is an RSA one too, as the real hub's is: some clients are
// configured with RSA cipher suites only.
func Load(dir string, names []string, now time.Time) (Identity, error) {
	ca, err := loadPair(dir, "ca", func(p *pair) bool { return now.Before(p.cert.NotAfter.Add(-renewBefore)) }, func() (*pair, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		template := &x509.Certificate{
			Subject:               pkix.Name{CommonName: "Fairlead hub CA"},
			NotBefore:             now.Add(-skew),
			NotAfter:              end(now, caLifetime),
			IsCA:                  true,
			BasicConstraintsValid: true,
			MaxPathLenZero:        true,
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		return issue(template, nil, key)
	})
	if err != nil {
		return Identity{}, fmt.Errorf("load CA: %w", err)
	}
	identity := Identity{CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})}
	kinds := []string{"server"}
	if dir != "" {
		kinds = append(kinds, "server-rsa")
	}
	for _, kind := range kinds {
		server, err := loadServer(dir, kind, ca, names, now)
		if err != nil {
			return Identity{}, fmt.Errorf("load %s certificate: %w", kind, err)
		}
		identity.Certificates = append(identity.Certificates, tls.Certificate{
			Certificate: [][]byte{server.cert.Raw, ca.cert.Raw}, PrivateKey: server.key, Leaf: server.cert,
		})
	}
	return identity, nil
}

func loadServer(dir, kind string, ca *pair, names []string, now time.Time) (*pair, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0]},
		NotBefore:   now.Add(-skew),
		NotAfter:    end(now, serverLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	fits := func(p *pair) bool {
		return now.Before(p.cert.NotAfter.Add(-renewBefore)) && !now.Before(p.cert.NotBefore) &&
			slices.Equal(p.cert.DNSNames, template.DNSNames) &&
			slices.EqualFunc(p.cert.IPAddresses, template.IPAddresses, net.IP.Equal) &&
			p.cert.CheckSignatureFrom(ca.cert) == nil
	}
	return loadPair(dir, kind, fits, func() (*pair, error) {
		var key crypto.Signer
		var err error
		if kind == "server-rsa" {
			template.KeyUsage |= x509.KeyUsageKeyEncipherment
			key, err = rsa.GenerateKey(rand.Reader, 2048)
		} else {
			key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}
		if err != nil {
			return nil, err
		}
		return issue(template, ca, key)
	})
}

type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue signs template with parent, or with itself.
func issue(template *x509.Certificate, parent *pair, key crypto.Signer) (*pair, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	issuer, signer := template, key
	if parent != nil {
		issuer, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &pair{cert, key}, nil
}

// loadPair reads kind.pem and kind.key from dir, or makes and writes them.
func loadPair(dir, kind string, fits func(*pair) bool, create func() (*pair, error)) (*pair, error) {
	if dir == "" {
		return create()
	}
	certFile, keyFile := filepath.Join(dir, kind+".pem"), filepath.Join(dir, kind+".key")
	old, err := readPair(certFile, keyFile)
	if err == nil && fits(old) {
		return old, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	p, err := create()
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, err
	}
	// The key first: a certificate without its key is seen as missing.
	if err := writeFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return nil, err
	}
	if err := writeFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}), 0o644); err != nil {
		return nil, err
	}
	return p, nil
}

func readPair(certFile, keyFile string) (*pair, error) {
	loaded, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		// An interrupted renewal leaves a key beside another's certificate: make both anew.
		if _, statErr := os.Stat(certFile); statErr == nil && !errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
		return nil, err
	}
	key, ok := loaded.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s holds no signing key", keyFile)
	}
	return &pair{loaded.Leaf, key}, nil
}

func writeFile(name string, data []byte, mode fs.FileMode) error {
	tmp := name + ".tmp"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
