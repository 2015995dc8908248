package device

import (
	"crypto"
	"fmt"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
)

// X509 is a device's certificate and its private key: files, PEM texts, or a chain whose key somebody else holds. Exactly
// one of the three is set.
type X509 struct {
	// CertFile holds the certificate and, after it, the chain, KeyFile the key, both PEM; they may be one file. They are read
	// for each connection, so that replaced ones count from the next on.
	CertFile, KeyFile string
	// CertPEM and KeyPEM are the same as texts.
	CertPEM, KeyPEM []byte
	// PassPhrase decrypts the key; "" where it is not encrypted.
	PassPhrase string
	// Chain is DER, leaf first, and Signer signs with the leaf's key: a TPM or a PKCS#11 token, say.
	Chain  [][]byte
	Signer crypto.Signer
}

// source makes the source of the certificate.
func (x X509) source(now func() time.Time) (CredentialSource, error) {
	ways := 0
	for _, isSet := range []bool{x.CertFile != "" || x.KeyFile != "", x.CertPEM != nil || x.KeyPEM != nil, x.Chain != nil || x.Signer != nil} {
		if isSet {
			ways++
		}
	}
	switch {
	case ways != 1:
		return nil, fmt.Errorf("the certificate: %w: give files, PEM texts, or a chain with its signer, and only one of them", ErrInvalid)
	case x.CertFile != "" || x.KeyFile != "":
		return credentials.NewX509Files(x.CertFile, x.KeyFile, core.Secret(x.PassPhrase), now)
	case x.Signer != nil && x.PassPhrase != "":
		return nil, fmt.Errorf("the certificate: %w: a PassPhrase is for a key in PEM, not for a Signer", ErrInvalid)
	case x.Chain != nil || x.Signer != nil:
		return credentials.NewX509Signer(x.Chain, x.Signer, now)
	}
	c, err := credentials.ParseCertificate(x.CertPEM, x.KeyPEM, core.Secret(x.PassPhrase))
	if err != nil {
		return nil, err
	}
	return credentials.NewX509Signer(c.Chain, c.Signer, now)
}

// FromX509 makes a client of a certificate, the hub's name and the device's id; for a module the id is "device/module". A
// connection string that ends with x509=true says the last two. Errors wrap ErrInvalid where the certificate or its key
// are of no use, and contain nothing of the key; a file that cannot be read gives the error of os.ReadFile.
//
// https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-x509
func FromX509(x X509, hostname, deviceID string, change ...func(*Options)) (*Client, error) {
	o := newOptions(change)
	id := parseID(hostname, deviceID)
	if err := o.complete(&id); err != nil {
		return nil, err
	}
	if err := credentials.CheckIdentity(id); err != nil {
		return nil, fmt.Errorf("device: %w: %w", err, ErrInvalid)
	}
	source, err := x.source(time.Now)
	if err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	return o.client(id, source)
}

// FromSASToken makes a client of a SAS token that somebody else signed, for a device that must not hold its key; the token
// names the device, or the module, and the hub. It is replaced by UpdateSASToken, and asked for two minutes before its end
// (OnNewSASToken). SASTokenTTL has no meaning here, and is refused. Errors wrap ErrInvalid and do not contain the token.
//
// https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-sas
func FromSASToken(token string, change ...func(*Options)) (*Client, error) {
	o := newOptions(append([]func(*Options){func(o *Options) { o.SASTokenTTL = 0 }}, change...))
	if o.SASTokenTTL != 0 {
		return nil, fmt.Errorf("device: SASTokenTTL is %v: %w: the life of a ready token is what it says itself", o.SASTokenTTL, ErrInvalid)
	}
	source, err := credentials.NewGivenToken(core.Secret(token), time.Now)
	if err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	id := source.Identity()
	if err := o.complete(&id); err != nil {
		return nil, err
	}
	return o.client(id, source)
}
