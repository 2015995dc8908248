package dps

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/sas"
)

// Credential is what a device presented.
type Credential struct {
	IDScope        string
	RegistrationID string
	// Token is a shared access signature for {idScope}/registrations/{registrationId},
	// the password of MQTT or the Authorization header.
	Token string
	// Certificates are those of the TLS handshake, the device's own first. TLS has
	// proved that the device has its key, and nothing else.
	Certificates []*x509.Certificate
}

// DeriveKey makes a device's key from its group's: base64 of HMAC-SHA256 over
// the registration id.
// https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation#group-enrollments
func DeriveKey(groupKey, registrationID string) (string, error) {
	raw, err := base64.StdEncoding.DecodeString(groupKey)
	if err != nil || len(raw) == 0 {
		return "", errors.New("dps: the group's key is not base64")
	}
	mac := hmac.New(sha256.New, raw)
	mac.Write([]byte(registrationID))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
}

// Acceptable refuses a credential that no request could be answered with: of
// another id scope, no registration id, no proof at all. MQTT refuses its
// CONNECT; all else is judged with the request.
func (s *Service) Acceptable(c Credential) error {
	if !strings.EqualFold(c.IDScope, s.scope) {
		return api.RefuseProvisioning(api.CodeScopeNotFound, "No provisioning service has the id scope %.40q.", c.IDScope)
	}
	if err := checkID("registrationId", c.RegistrationID); err != nil {
		return err
	}
	if c.Token == "" && len(c.Certificates) == 0 {
		return unauthorized("neither a token nor a certificate was presented")
	}
	return nil
}

// refusal is what a device is told, with a reason for the log alone.
type refusal struct {
	told   *api.Error
	reason string
}

func (r *refusal) Error() string { return r.reason }
func (r *refusal) Unwrap() error { return r.told }

func unauthorized(format string, args ...any) error {
	return &refusal{api.RefuseProvisioning(api.CodeProvisioningUnauthorized, "Unauthorized"), fmt.Sprintf(format, args...)}
}

func invalidCertificate(format string, args ...any) error {
	return &refusal{api.RefuseProvisioning(api.CodeProvisioningUnauthorized, "Invalid certificate."), fmt.Sprintf(format, args...)}
}

// attested is what a credential was good for.
type attested struct {
	entry *Entry
	kind  Kind
	// auth is how the device proves itself to the hub.
	auth api.Authentication
}

// attest finds the enrollment that the credential proves, disabled or not. A
// single enrollment goes before any group, also if its proof fails:
// https://learn.microsoft.com/azure/iot-dps/concepts-service#enrollment
func (s *Service) attest(c Credential, now time.Time) (attested, error) {
	if err := s.Acceptable(c); err != nil {
		return attested{}, err
	}
	if c.Token != "" {
		return s.attestToken(c, now)
	}
	return s.attestCertificate(c, now)
}

func (s *Service) attestToken(c Credential, now time.Time) (attested, error) {
	token, err := sas.Parse(c.Token)
	if err != nil {
		return attested{}, unauthorized("%v", err)
	}
	if want := fold(c.IDScope + "/registrations/" + c.RegistrationID); token.Scope != want {
		return attested{}, unauthorized("the token is for %q, not for %q", token.Scope, want)
	}
	if token.Policy != "" && token.Policy != "registration" {
		return attested{}, unauthorized("the token names policy %q, not registration", token.Policy)
	}
	if s.hub.Expired(token.Expiry, now) {
		return attested{}, unauthorized("the token expired at %s", token.Expiry.UTC().Format(time.RFC3339))
	}
	if e, ok := s.entries[Individual][fold(c.RegistrationID)]; ok {
		keys := e.Attestation.SymmetricKey
		if keys == nil {
			return attested{}, unauthorized("a token was presented, the enrollment wants a certificate")
		}
		if !signedBy(token, *keys) {
			return attested{}, unauthorized("the token is not signed by a key of the enrollment")
		}
		return attested{e, Individual, sasAuth(*keys)}, nil
	}
	for _, e := range s.sorted(Group) {
		keys := e.Attestation.SymmetricKey
		if keys == nil {
			continue
		}
		derived, err := deriveKeys(*keys, c.RegistrationID)
		if err != nil {
			return attested{}, err
		}
		if signedBy(token, derived) {
			return attested{e, Group, sasAuth(derived)}, nil
		}
	}
	return attested{}, unauthorized("there is no such enrollment, and no group from whose key the token's is derived")
}

func deriveKeys(keys api.SymmetricKey, registrationID string) (derived api.SymmetricKey, err error) {
	if derived.PrimaryKey, err = DeriveKey(keys.PrimaryKey, registrationID); err != nil {
		return derived, err
	}
	derived.SecondaryKey, err = DeriveKey(keys.SecondaryKey, registrationID)
	return derived, err
}

func signedBy(token sas.Token, keys api.SymmetricKey) bool {
	return token.SignedBy(keys.PrimaryKey) || token.SignedBy(keys.SecondaryKey)
}

func sasAuth(keys api.SymmetricKey) api.Authentication {
	return api.Authentication{Type: "sas", SymmetricKey: keys}
}

// attestCertificate: "the registration ID is provided by the subject common name
// (CN) of your device leaf (end-entity) certificate",
// https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-dps. Whether
// Azure looks at the dates of a certificate that an enrollment holds is not
// known; here one that is over is refused, as one of a chain is.
func (s *Service) attestCertificate(c Credential, now time.Time) (attested, error) {
	leaf := c.Certificates[0]
	if len(c.Certificates) > maxChain {
		return attested{}, invalidCertificate("%d certificates were presented, at most %d are looked at", len(c.Certificates), maxChain)
	}
	if !strings.EqualFold(leaf.Subject.CommonName, c.RegistrationID) {
		return attested{}, invalidCertificate("the certificate's common name is %.140q, not the registration id", leaf.Subject.CommonName)
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return attested{}, invalidCertificate("the certificate is good from %s to %s", leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))
	}
	if e, ok := s.entries[Individual][fold(c.RegistrationID)]; ok {
		x := e.Attestation.X509
		if x == nil {
			return attested{}, unauthorized("a certificate was presented, the enrollment wants a token")
		}
		certs := x.ClientCertificates
		if !is(certs.Primary, leaf) && !is(certs.Secondary, leaf) {
			return attested{}, invalidCertificate("the certificate is not that of the enrollment")
		}
		return attested{e, Individual, thumbprintAuth(thumbprint(certs.Primary), thumbprint(certs.Secondary))}, nil
	}
	e, err := s.groupOf(c.Certificates, now)
	if err != nil {
		return attested{}, err
	}
	own := sha256Of(leaf)
	return attested{e, Group, thumbprintAuth(&own, nil)}, nil
}

// groupOf finds the group whose authority is nearest to the device in its chain,
// so that a disabled intermediate is not passed over:
// https://learn.microsoft.com/azure/iot-dps/concepts-x509-attestation
func (s *Service) groupOf(chain []*x509.Certificate, now time.Time) (*Entry, error) {
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	var nearest *Entry
	var distance int
	reason := errors.New("there is no such enrollment, and no group with a certificate")
	for _, e := range s.sorted(Group) {
		x := e.Attestation.X509
		if x == nil {
			continue
		}
		roots := x509.NewCertPool()
		for _, c := range []*api.X509Certificate{x.SigningCertificates.Primary, x.SigningCertificates.Secondary} {
			if c == nil {
				continue
			}
			cert, err := parseCertificate(c.Certificate)
			if err != nil {
				return nil, fmt.Errorf("dps: certificate of group %s: %w", e.ID, err)
			}
			roots.AddCert(cert)
		}
		found, err := chain[0].Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if err != nil {
			reason = fmt.Errorf("group %s: %w", e.ID, err)
			continue
		}
		for _, path := range found {
			if nearest == nil || len(path) < distance {
				nearest, distance = e, len(path)
			}
		}
	}
	if nearest == nil {
		return nil, invalidCertificate("no group's authority signed the certificate: %v", reason)
	}
	return nearest, nil
}

func thumbprint(c *api.X509Certificate) *string {
	if c == nil {
		return nil
	}
	text := cmp.Or(c.Info.SHA256Thumbprint, c.Info.SHA1Thumbprint)
	return &text
}

// thumbprintAuth is how a device with a certificate proves itself to the hub, be
// the certificate self-signed or not: the provisioning service tells the hub its
// thumbprint.
func thumbprintAuth(primary, secondary *string) api.Authentication {
	return api.Authentication{Type: "selfSigned", X509Thumbprint: api.X509Thumbprint{PrimaryThumbprint: primary, SecondaryThumbprint: secondary}}
}
