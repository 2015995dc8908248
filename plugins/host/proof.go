package host

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// proof is the host's half of what go-plugin calls AutoMTLS: a certificate for one start of one plugin, whose public
// half the plugin gets in its environment, and which nobody else can show. The plugin's half comes with its handshake.
//
// go-plugin makes one as well, with a key on P-521, which takes longer than all the rest of the host's start. A plugin
// that speaks over pipes never looks at it.
type proof struct {
	config *tls.Config
	env    []string
}

// proofEnv is where go-plugin's servers look for the certificate.
// https://github.com/hashicorp/go-plugin/blob/v1.8.0/server.go
const proofEnv = "PLUGIN_CLIENT_CERT"

// proofLife is longer than any plugin lives, since the certificate of a start is never replaced.
const proofLife = 30 * 365 * 24 * time.Hour

func newProof() (proof, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return proof{}, fmt.Errorf("make the key of a plugin's start: %w", err)
	}
	const name = "localhost" // what go-plugin's certificates are for
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		// A device's clock may go back.
		NotBefore: time.Now().Add(-proofLife), NotAfter: time.Now().Add(proofLife),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return proof{}, fmt.Errorf("make the certificate of a plugin's start: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return proof{
		config: &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
			MinVersion:   tls.VersionTLS12, ServerName: name,
		},
		env: []string{proofEnv + "=" + string(text)},
	}, nil
}
