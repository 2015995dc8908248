package credentials

import (
	"context"
	"crypto"
	"fmt"
	"os"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// LoadFunc gives the certificate to use now. It is called for each credential, from one goroutine at a time, so that what
// was replaced in the meantime counts from the next connection on.
type LoadFunc func(ctx context.Context) (Certificate, error)

// x509Source shows a certificate. It is immutable; what it shows is not.
type x509Source struct {
	load LoadFunc
	now  func() time.Time
}

// NewX509 returns a source of what load gives, judged by now, the wall clock. A certificate that is out of date is handed
// on all the same, with the Doubt said, since the clock may be wrong. A failure of load is transient: files are
// replaced one after the other.
func NewX509(load LoadFunc, now func() time.Time) (core.CredentialSource, error) {
	if load == nil || now == nil {
		return nil, fmt.Errorf("make X.509 credential: no certificate or no clock: %w", core.ErrInvalid)
	}
	return &x509Source{load: load, now: now}, nil
}

// NewX509Files returns a source that reads the files, PEM, anew for each credential. They are read once to be checked;
// the error of that wraps core.ErrInvalid, or is that of os.ReadFile. Who may read the key's file is for the caller to see to.
func NewX509Files(certFile, keyFile string, passPhrase core.Secret, now func() time.Time) (core.CredentialSource, error) {
	load := func(context.Context) (Certificate, error) {
		cert, err := os.ReadFile(certFile)
		if err != nil {
			return Certificate{}, err
		}
		key, err := os.ReadFile(keyFile)
		if err != nil {
			return Certificate{}, err
		}
		return ParseCertificate(cert, key, passPhrase)
	}
	if _, err := load(context.Background()); err != nil {
		return nil, fmt.Errorf("make X.509 credential: %w", err)
	}
	return NewX509(load, now)
}

// NewX509Signer returns a source of one chain in DER, leaf first, whose key signer holds: in a TPM or a PKCS#11 token,
// say. Its error wraps core.ErrInvalid.
func NewX509Signer(chain [][]byte, signer crypto.Signer, now func() time.Time) (core.CredentialSource, error) {
	c, err := NewCertificate(chain, signer)
	if err != nil {
		return nil, fmt.Errorf("make X.509 credential: %w", err)
	}
	return NewX509(func(context.Context) (Certificate, error) { return c, nil }, now)
}

// Credential loads the certificate.
func (s *x509Source) Credential(ctx context.Context) (core.Credential, error) {
	c, err := s.load(ctx)
	if err != nil {
		return core.Credential{}, &core.Error{Op: "load certificate", Kind: core.Transient, Err: err}
	}
	now := s.now()
	out := core.Credential{Certificate: c.Chain, Signer: c.Signer, Doubt: c.Doubt(now)}
	if out.Doubt == "" {
		out.Life = max(c.NotAfter.Sub(now), time.Second) // 0 would be without end
	}
	return out, nil
}
