package dps

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // a name for a certificate, as the service has it; nothing is secured by it
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// parseCertificate reads PEM, or PEM or DER in base64: clients send either.
func parseCertificate(text string) (*x509.Certificate, error) {
	data := []byte(strings.TrimSpace(text))
	if !bytes.HasPrefix(data, []byte("-----")) {
		raw, err := base64.StdEncoding.DecodeString(string(data))
		if err != nil {
			return nil, errors.New("the certificate is neither PEM nor base64")
		}
		data = raw
	}
	if block, _ := pem.Decode(data); block != nil {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("the PEM is a %s, not a CERTIFICATE", block.Type)
		}
		data = block.Bytes
	}
	cert, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("the certificate cannot be read: %w", err)
	}
	return cert, nil
}

// cleanCertificate reads a certificate of an enrollment and describes it; nil
// stays nil. Who updates an enrollment gives back what it got, the description
// alone: then the known certificate stays. In place of a device's own certificate
// its thumbprint will do.
func cleanCertificate(kind Kind, c *api.X509Certificate, known []*api.X509Certificate) (*api.X509Certificate, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // there need be no second certificate
	}
	if c.Certificate == "" {
		if c.Info == nil {
			return nil, errors.New("certificate is missing")
		}
		for _, old := range known {
			if old.Info.SHA256Thumbprint != "" && old.Info.SHA256Thumbprint == c.Info.SHA256Thumbprint {
				return old, nil
			}
		}
		if kind == Group {
			return nil, errors.New("certificate is missing")
		}
		return byThumbprint(c.Info)
	}
	cert, err := parseCertificate(c.Certificate)
	if err != nil {
		return nil, err
	}
	if kind == Group && !cert.IsCA {
		return nil, errors.New("the certificate is no authority's (its basic constraints do not say CA)")
	}
	return &api.X509Certificate{Certificate: base64.StdEncoding.EncodeToString(cert.Raw), Info: describe(cert)}, nil
}

func byThumbprint(given *api.CertificateInfo) (*api.X509Certificate, error) {
	info := api.CertificateInfo{SHA1Thumbprint: cleanThumbprint(given.SHA1Thumbprint), SHA256Thumbprint: cleanThumbprint(given.SHA256Thumbprint)}
	bad := func(text string, size int) bool { return text != "" && !isHex(text, size) }
	if info == (api.CertificateInfo{}) || bad(info.SHA1Thumbprint, sha1.Size) || bad(info.SHA256Thumbprint, sha256.Size) {
		return nil, errors.New("without a certificate info.sha256Thumbprint must be 64 hex digits, or info.sha1Thumbprint 40")
	}
	return &api.X509Certificate{Info: &info}, nil
}

// cleanThumbprint takes the forms that tools print: with colons, in lower case.
func cleanThumbprint(text string) string {
	return strings.ToUpper(strings.NewReplacer(":", "", " ", "").Replace(text))
}

func isHex(text string, size int) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == size
}

func sha1Of(cert *x509.Certificate) string {
	sum := sha1.Sum(cert.Raw) //nolint:gosec // as above
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

func sha256Of(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

func describe(cert *x509.Certificate) *api.CertificateInfo {
	return &api.CertificateInfo{
		SubjectName: cert.Subject.String(), IssuerName: cert.Issuer.String(),
		SHA1Thumbprint: sha1Of(cert), SHA256Thumbprint: sha256Of(cert),
		NotBeforeUTC: cert.NotBefore.UTC(), NotAfterUTC: cert.NotAfter.UTC(),
		SerialNumber: strings.ToUpper(cert.SerialNumber.Text(16)), Version: cert.Version,
	}
}

// is reports whether a certificate is the one of the enrollment.
func is(c *api.X509Certificate, cert *x509.Certificate) bool {
	return c != nil && c.Info != nil &&
		(c.Info.SHA256Thumbprint != "" && c.Info.SHA256Thumbprint == sha256Of(cert) ||
			c.Info.SHA256Thumbprint == "" && c.Info.SHA1Thumbprint == sha1Of(cert))
}
