package iot

import (
	"crypto/sha1" //nolint:gosec // IoT Hub's thumbprints are SHA-1 as well as SHA-256; what is compared was registered beforehand
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// authority is a CA whose devices the hub believes.
type authority struct {
	Name string `json:"name"`
	DER  []byte `json:"der"`
	cert *x509.Certificate
}

const caPrefix = "ca/"

func (s *Service) loadAuthorities() error {
	return s.journal.Each(caPrefix, func(key string, value json.RawMessage) error {
		a := &authority{}
		if err := json.Unmarshal(value, a); err != nil {
			return err
		}
		cert, err := x509.ParseCertificate(a.DER)
		if err != nil {
			return fmt.Errorf("parse certificate of %s: %w", key, err)
		}
		a.cert = cert
		s.authorities[a.Name] = a
		return nil
	})
}

// AddCA registers a certificate authority in PEM: devices of the type
// certificateAuthority may connect with certificates that lead to it. The real
// hub asks for a proof of possession first; whoever may call this here has it.
// Errors are *api.Error: 400004 for what is no CA certificate, 409 for a name
// that stands for another one.
// https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-x509
func (s *Service) AddCA(name string, text []byte, now time.Time) (api.CA, error) {
	if err := checkID(api.ID{Device: name}); err != nil {
		return api.CA{}, api.Refuse(api.CodeArgumentInvalid, "the name %q of a CA must be 1 to %d letters, digits and -.%%_*?!(),:=@$'", name, maxIDLength)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return api.CA{}, api.Refuse(api.CodeArgumentInvalid, "the text holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return api.CA{}, api.Refuse(api.CodeArgumentInvalid, "the text holds more than one PEM block; register one CA at a time, without its key")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return api.CA{}, api.Refuse(api.CodeArgumentInvalid, "the certificate cannot be read: %v", err)
	}
	if !cert.BasicConstraintsValid || !cert.IsCA {
		return api.CA{}, api.Refuse(api.CodeArgumentInvalid, "%s is no CA certificate; a device's own certificate is registered by its thumbprint", cert.Subject)
	}
	if !now.Before(cert.NotAfter) {
		return api.CA{}, api.Refuse(api.CodeArgumentInvalid, "the certificate ended at %s", cert.NotAfter.UTC().Format(time.RFC3339))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &authority{Name: name, DER: cert.Raw, cert: cert}
	if old, exists := s.authorities[name]; exists && !old.cert.Equal(cert) {
		return api.CA{}, api.Refuse(api.CodeCAExists, "the name %s stands for another CA, %s; remove that one first", name, old.cert.Subject)
	}
	if err := s.put(caPrefix+name, a); err != nil {
		return api.CA{}, err
	}
	s.authorities[name] = a
	return a.view(), nil
}

// CAs lists the certificate authorities in the order of their names.
func (s *Service) CAs() []api.CA {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]api.CA, 0, len(s.authorities))
	for _, a := range s.authorities {
		all = append(all, a.view())
	}
	slices.SortFunc(all, func(a, b api.CA) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// RemoveCA forgets a certificate authority. Sessions that began with it go on.
func (s *Service) RemoveCA(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.authorities[name]; !ok {
		return api.Refuse(api.CodeCANotFound, "no CA has the name %s", name)
	}
	if err := s.journal.Delete(caPrefix + name); err != nil {
		return err
	}
	delete(s.authorities, name)
	return nil
}

func (a *authority) view() api.CA {
	return api.CA{
		Name: a.Name, Subject: a.cert.Subject.String(), Thumbprint: thumbprint256(a.cert), NotAfter: a.cert.NotAfter.UTC(),
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.DER})),
	}
}

// AuthenticateCertificate checks the client certificate of a TLS connection,
// whose private key the handshake has proved; chain[0] is the client's own. A
// selfSigned identity wants one of its thumbprints, a certificateAuthority one a
// chain to a registered CA and its own name as the common name. The error says
// why, for the hub's log only.
// https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-x509
func (s *Service) AuthenticateCertificate(id api.ID, chain []*x509.Certificate, now time.Time) (Credential, error) {
	if len(chain) == 0 {
		return Credential{}, fmt.Errorf("iot: %s shows neither a token nor a certificate", id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(id)
	if err != nil {
		return Credential{}, err
	}
	leaf := chain[0]
	switch auth := ident.device.Authentication; auth.Type {
	case api.AuthSelfSigned:
		err = checkThumbprint(leaf, auth.X509Thumbprint)
	case api.AuthCA:
		err = s.checkChain(id, chain, now)
	default:
		err = fmt.Errorf("iot: %s has the authentication type %s, and no certificate", id, auth.Type)
	}
	if err != nil {
		return Credential{}, err
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return Credential{}, fmt.Errorf("iot: the certificate of %s is good from %s to %s only", id, leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if s.disabled(ident) {
		return Credential{}, api.Refuse(api.CodeDeviceDisabled, "device %s is disabled", id.Device)
	}
	return Credential{method: authMethod(ownScope(id), "x509")}, nil
}

func checkThumbprint(leaf *x509.Certificate, want api.X509Thumbprint) error {
	short, long := thumbprint1(leaf), thumbprint256(leaf)
	for _, p := range []*string{want.PrimaryThumbprint, want.SecondaryThumbprint} {
		if p != nil && (strings.EqualFold(*p, short) || strings.EqualFold(*p, long)) {
			return nil
		}
	}
	return fmt.Errorf("iot: neither thumbprint is that of the certificate, %s (SHA-1) or %s (SHA-256)", short, long)
}

func (s *Service) checkChain(id api.ID, chain []*x509.Certificate, now time.Time) error {
	if name := chain[0].Subject.CommonName; name != id.String() {
		return fmt.Errorf("iot: the certificate's common name is %q, not %q", name, id)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range s.authorities {
		roots.AddCert(a.cert)
	}
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // no document of IoT Hub asks for clientAuth
	})
	if err != nil {
		return fmt.Errorf("iot: the certificate of %s leads to none of the %d CAs: %w", id, len(s.authorities), err)
	}
	return nil
}

func thumbprint1(cert *x509.Certificate) string {
	sum := sha1.Sum(cert.Raw) //nolint:gosec // as above
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

func thumbprint256(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// mergeAuthentication makes an identity's authentication of what it has and what
// a request asks for. What is empty there is left as it is or, for keys, made.
func mergeAuthentication(old, asked api.Authentication) (api.Authentication, error) {
	next := api.Authentication{Type: asked.Type}
	if next.Type == "" {
		next.Type = old.Type
	}
	switch next.Type {
	case "", api.AuthSAS:
		next.Type = api.AuthSAS
		next.SymmetricKey = fillKeys(asked.SymmetricKey, old.SymmetricKey)
	case api.AuthSelfSigned:
		next.X509Thumbprint = fillThumbprints(asked.X509Thumbprint, old.X509Thumbprint)
		if next.X509Thumbprint.PrimaryThumbprint == nil && next.X509Thumbprint.SecondaryThumbprint == nil {
			return next, api.Refuse(api.CodeArgumentInvalid, "a selfSigned identity needs a thumbprint")
		}
	case api.AuthCA, api.AuthNone:
	default:
		return next, api.Refuse(api.CodeArgumentInvalid, "authentication.type must be %s, %s, %s or %s, not %q", api.AuthSAS, api.AuthSelfSigned, api.AuthCA, api.AuthNone, next.Type)
	}
	return next, nil
}

func fillKeys(asked, old api.SymmetricKey) api.SymmetricKey {
	fill := func(asked, old string) string {
		switch {
		case asked != "":
			return asked
		case old != "":
			return old
		default:
			return randomKey()
		}
	}
	return api.SymmetricKey{PrimaryKey: fill(asked.PrimaryKey, old.PrimaryKey), SecondaryKey: fill(asked.SecondaryKey, old.SecondaryKey)}
}

// fillThumbprints takes what was asked for if there is anything: who names one
// thumbprint gives up the other.
func fillThumbprints(asked, old api.X509Thumbprint) api.X509Thumbprint {
	isEmpty := func(p *string) bool { return p == nil || *p == "" }
	if isEmpty(asked.PrimaryThumbprint) && isEmpty(asked.SecondaryThumbprint) {
		return old
	}
	if isEmpty(asked.PrimaryThumbprint) {
		asked.PrimaryThumbprint = nil
	}
	if isEmpty(asked.SecondaryThumbprint) {
		asked.SecondaryThumbprint = nil
	}
	return asked
}

func checkThumbprints(t api.X509Thumbprint) error {
	for _, p := range []*string{t.PrimaryThumbprint, t.SecondaryThumbprint} {
		if p == nil || *p == "" {
			continue
		}
		if raw, err := hex.DecodeString(*p); err != nil || len(raw) != sha1.Size && len(raw) != sha256.Size {
			return api.Refuse(api.CodeArgumentInvalid, "a thumbprint is 40 (SHA-1) or 64 (SHA-256) hexadecimal digits without colons")
		}
	}
	return nil
}

// ownScope is the scope of an identity's own credential in
// iothub-connection-auth-method.
func ownScope(id api.ID) string {
	if id.Module != "" {
		return "module"
	}
	return "device"
}

// authMethod is the text of iothub-connection-auth-method,
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct.
func authMethod(scope, kind string) string {
	return fmt.Sprintf(`{"scope":%q,"type":%q,"issuer":"iothub","acceptingIpFilterRule":null}`, scope, kind)
}
