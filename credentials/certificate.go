package credentials

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/youmark/pkcs8"

	"github.com/fairlead-iot/fairlead/core"
)

// Certificate is an X.509 certificate of a device, the chain above it, and its private key. It is immutable.
type Certificate struct {
	// Leaf is the device's own; Chain is the DER of it and of what follows it, as it is shown to the hub.
	Leaf  *x509.Certificate
	Chain [][]byte
	// Signer holds the private key, or asks whoever does (a TPM, a PKCS#11 token).
	Signer crypto.Signer
	// NotBefore and NotAfter bound the time in which every certificate of the chain is valid.
	NotBefore, NotAfter time.Time
}

// ParseCertificate reads a chain, leaf first, and the leaf's private key from PEM text; both may stand in one text. Keys
// are RSA, ECDSA or Ed25519, in PKCS#8, PKCS#1 or SEC 1; an encrypted one (PKCS#8, or the older DEK-Info) needs its pass
// phrase. A certificate that is out of date is none the worse here: see Certificate.Doubt. Errors wrap core.ErrInvalid,
// say what to do, and contain nothing of the key.
func ParseCertificate(certPEM, keyPEM []byte, passPhrase core.Secret) (Certificate, error) {
	chain, err := parseChain(certPEM)
	if err != nil {
		return Certificate{}, fmt.Errorf("certificate: %w: %w", err, core.ErrInvalid)
	}
	signer, err := parseKey(keyPEM, passPhrase)
	if err != nil {
		return Certificate{}, fmt.Errorf("private key: %w: %w", err, core.ErrInvalid)
	}
	return NewCertificate(chain, signer)
}

// NewCertificate takes a chain in DER, leaf first, and whoever signs with the leaf's key: crypto/rsa, crypto/ecdsa and
// crypto/ed25519, or a key that never leaves its device. Its error wraps core.ErrInvalid.
func NewCertificate(chain [][]byte, signer crypto.Signer) (Certificate, error) {
	c := Certificate{Signer: signer}
	if len(chain) == 0 || signer == nil {
		return c, fmt.Errorf("certificate: a chain and its signer are needed: %w", core.ErrInvalid)
	}
	for i, der := range chain {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			return c, fmt.Errorf("certificate %d: %w: %w", i+1, err, core.ErrInvalid)
		}
		if i == 0 {
			c.Leaf, c.NotBefore, c.NotAfter = one, one.NotBefore, one.NotAfter
		}
		if one.NotBefore.After(c.NotBefore) {
			c.NotBefore = one.NotBefore
		}
		if one.NotAfter.Before(c.NotAfter) {
			c.NotAfter = one.NotAfter
		}
		c.Chain = append(c.Chain, bytes.Clone(der))
	}
	public, ok := c.Leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(signer.Public()) {
		return Certificate{}, fmt.Errorf("certificate: the private key does not belong to the first certificate (%s): was only one of the two replaced, "+
			"or does the chain not begin with the device's own? %w", c.Leaf.Subject, core.ErrInvalid)
	}
	return c, nil
}

// Doubt says in a few words why the hub may refuse the certificate at this time of the wall clock; "" if nothing speaks
// against it. It is no error: the clock may be wrong, and a hub that knows a certificate by its thumbprint may not care.
func (c Certificate) Doubt(now time.Time) string {
	at := now.UTC().Format(time.RFC3339)
	switch {
	case now.Before(c.NotBefore):
		return fmt.Sprintf("the device's certificate is valid from %s, and this device's clock says %s", c.NotBefore.UTC().Format(time.RFC3339), at)
	case now.After(c.NotAfter):
		return fmt.Sprintf("the device's certificate ended at %s, and this device's clock says %s", c.NotAfter.UTC().Format(time.RFC3339), at)
	default:
		return ""
	}
}

func parseChain(text []byte) ([][]byte, error) {
	var chain [][]byte
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			chain = append(chain, block.Bytes)
		}
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate in it: PEM text begins with -----BEGIN CERTIFICATE-----")
	}
	return chain, nil
}

// parseKey takes the first private key in the text.
func parseKey(text []byte, passPhrase core.Secret) (crypto.Signer, error) {
	var block *pem.Block
	for rest := text; ; {
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("none in it: PEM text begins with -----BEGIN PRIVATE KEY-----")
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			break
		}
	}
	der := block.Bytes
	isOld := x509.IsEncryptedPEMBlock(block) //nolint:staticcheck // it is what `openssl genrsa -aes256` wrote for twenty years
	isEncrypted := isOld || block.Type == "ENCRYPTED PRIVATE KEY"
	switch {
	case isEncrypted && passPhrase == "":
		return nil, errors.New("it is encrypted, and no pass phrase was given: set pass_phrase")
	case !isEncrypted && passPhrase != "":
		return nil, errors.New("a pass phrase was given, but the key is not encrypted: leave pass_phrase out, or encrypt the key")
	case isOld:
		var err error
		//nolint:staticcheck // as above
		if der, err = x509.DecryptPEMBlock(block, []byte(passPhrase.Reveal())); err != nil {
			return nil, fmt.Errorf("%w: is the pass phrase right?", err)
		}
	case isEncrypted:
		key, err := pkcs8.ParsePKCS8PrivateKey(der, []byte(passPhrase.Reveal()))
		if err != nil {
			// A pass phrase that is wrong decrypts to noise, which the library cannot tell from a damaged key.
			return nil, fmt.Errorf("it cannot be decrypted: is the pass phrase right? (%w)", err)
		}
		return asSigner(key)
	}
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return asSigner(key)
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	return nil, fmt.Errorf("the %s in it is damaged, or of a kind that is not spoken here (RSA, ECDSA on a NIST curve, Ed25519)", block.Type)
}

func asSigner(key any) (crypto.Signer, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign: RSA, ECDSA and Ed25519 can", key)
	}
	return signer, nil
}
