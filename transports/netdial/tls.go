package netdial

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	// The roots of Mozilla's programme, for a system that has none (a container from scratch, a stripped image).
	_ "golang.org/x/crypto/x509roots/fallback"

	"github.com/fairlead-iot/fairlead/core"
)

// TLSConfig says whom to trust. The zero value trusts the system's roots, and the embedded ones where the system has
// none. Verification cannot be switched off.
type TLSConfig struct {
	// ServerVerificationCert, PEM, replaces all roots.
	ServerVerificationCert []byte
	// ExtraCA, PEM, is trusted beside the roots.
	ExtraCA []byte
	// CipherSuites limits the suites of TLS 1.2; nil is Go's choice. TLS 1.3's cannot be chosen.
	CipherSuites []uint16
	// NextProtos is what to offer by ALPN; nil offers nothing.
	NextProtos []string
}

// build makes the part of a tls.Config that does not depend on the credential. Its error wraps core.ErrInvalid.
func (c TLSConfig) build() (*tls.Config, error) {
	cfg := &tls.Config{
		// "TLS 1.0 and 1.1 support ended": https://learn.microsoft.com/azure/iot-hub/iot-hub-tls-support
		MinVersion:   tls.VersionTLS12,
		CipherSuites: c.CipherSuites,
		NextProtos:   c.NextProtos,
		// What is written here is coalesced already; small first records would only cost calls.
		DynamicRecordSizingDisabled: true,
	}
	if len(c.ServerVerificationCert) > 0 {
		cfg.RootCAs = x509.NewCertPool()
		if err := addPEM(cfg.RootCAs, "server_verification_cert", c.ServerVerificationCert); err != nil {
			return nil, err
		}
	}
	if len(c.ExtraCA) > 0 {
		if cfg.RootCAs == nil {
			roots, err := x509.SystemCertPool()
			if err != nil {
				return nil, fmt.Errorf("load the system's roots: %w", err)
			}
			cfg.RootCAs = roots
		}
		if err := addPEM(cfg.RootCAs, "extra_ca", c.ExtraCA); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

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

// opensslNames are OpenSSL's names of the suites of TLS 1.2 that Go offers without being asked to be insecure.
var opensslNames = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
}

// ParseCiphers reads a list of OpenSSL's names of TLS 1.2 suites, separated by colons or commas; case does not matter and
// _ stands for -. "" gives nil. Its error wraps core.ErrInvalid.
func ParseCiphers(list string) ([]uint16, error) {
	var suites []uint16
	for _, name := range strings.FieldsFunc(list, func(r rune) bool { return r == ':' || r == ',' || r == ' ' }) {
		suite, ok := opensslNames[strings.ReplaceAll(strings.ToUpper(name), "_", "-")]
		if !ok {
			return nil, fmt.Errorf("cipher %q: not one that is spoken here (ECDHE with AES-GCM, ChaCha20-Poly1305 or AES-CBC-SHA, by OpenSSL's names): %w", name, core.ErrInvalid)
		}
		suites = append(suites, suite)
	}
	return suites, nil
}
