package netdial

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/fairlead-iot/fairlead/core"
)

// TLSConfig says whom to trust. The zero value trusts the system's roots, and the embedded ones where the system has
// none. Verification cannot be switched off.
type TLSConfig struct {
	// ServerVerificationCert, PEM, replaces all roots.
	ServerVerificationCert []byte
	// ExtraCA, PEM, is trusted beside the roots.
	ExtraCA []byte
	// Ciphers limits the suites and versions; the zero value is Go's choice.
	Ciphers Ciphers
	// NextProtos is what to offer by ALPN; nil offers nothing.
	NextProtos []string
}

// trusting is a tls.Config without its roots, which are put together for the first handshake: reading the system's takes
// longer than all the rest of a start, and a device that knows its hub by server_verification_cert may never need them.
type trusting struct {
	*tls.Config
	roots func() *x509.CertPool
}

// config returns a copy that is fit for a handshake.
func (t *trusting) config() *tls.Config {
	cfg := t.Clone()
	cfg.RootCAs = t.roots()
	return cfg
}

// build makes the part of a tls.Config that does not depend on the credential. Its error wraps core.ErrInvalid.
func (c TLSConfig) build() (*trusting, error) {
	cfg := &tls.Config{
		RootCAs: x509.NewCertPool(), // whoever takes it as it is trusts nobody
		// "TLS 1.0 and 1.1 support ended": https://learn.microsoft.com/azure/iot-hub/iot-hub-tls-support
		MinVersion:   tls.VersionTLS12,
		MaxVersion:   c.Ciphers.maxVersion(),
		CipherSuites: c.Ciphers.Suites,
		NextProtos:   c.NextProtos,
		// What is written here is coalesced already; small first records would only cost calls.
		DynamicRecordSizingDisabled: true,
	}
	if c.Ciphers.NoTLS12 {
		cfg.MinVersion = tls.VersionTLS13
	}
	given := x509.NewCertPool() // besides the system's, or alone
	isAlone := len(c.ServerVerificationCert) > 0
	if isAlone {
		if err := addPEM(given, "server_verification_cert", c.ServerVerificationCert); err != nil {
			return nil, err
		}
	}
	if len(c.ExtraCA) > 0 {
		if err := addPEM(given, "extra_ca", c.ExtraCA); err != nil {
			return nil, err
		}
	}
	return &trusting{cfg, sync.OnceValue(func() *x509.CertPool {
		if isAlone {
			return given
		}
		pool := roots()
		if len(c.ExtraCA) > 0 {
			_ = addPEM(pool, "extra_ca", c.ExtraCA) // it went well above
		}
		return pool
	})}, nil
}

// HasSystemRoots reports whether the system has roots to trust; where it has none, the embedded ones are used.
func HasSystemRoots() bool {
	pool, err := x509.SystemCertPool()
	return err == nil && (runtime.GOOS != "linux" || !pool.Equal(x509.NewCertPool()))
}

// roots returns the system's, or those of Mozilla's programme on a system that has none (a container from scratch, a
// stripped image). x509.SetFallbackRoots is not for a library, and costs every start what only such a system needs.
func roots() *x509.CertPool {
	pool, err := x509.SystemCertPool()
	if runtime.GOOS == "linux" && (err != nil || pool.Equal(x509.NewCertPool())) {
		return embeddedRoots().Clone()
	}
	if err != nil {
		return x509.NewCertPool() // trusts nobody
	}
	return pool
}

var embeddedRoots = sync.OnceValue(func() *x509.CertPool {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		certificate, err := x509.ParseCertificate(root.Certificate)
		switch {
		case err != nil: // none, in any version of the bundle
		case root.Constraint != nil:
			pool.AddCertWithConstraint(certificate, root.Constraint)
		default:
			pool.AddCert(certificate)
		}
	}
	return pool
})

// addPEM adds every certificate of text, and is strict where AppendCertsFromPEM skips what it does not understand.
func addPEM(pool *x509.CertPool, name string, text []byte) error {
	n := 0
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if strings.Contains(block.Type, "PRIVATE KEY") {
			return fmt.Errorf("%s: it contains a private key; give the certificate of the authority alone: %w", name, core.ErrInvalid)
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("%s: it contains a %s; only CERTIFICATE blocks belong there: %w", name, block.Type, core.ErrInvalid)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("%s: certificate %d of it cannot be parsed: %w: %w", name, n+1, err, core.ErrInvalid)
		}
		pool.AddCert(certificate)
		n++
	}
	if n == 0 {
		return fmt.Errorf("%s: it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----); give the text, not a path: %w", name, core.ErrInvalid)
	}
	return nil
}
