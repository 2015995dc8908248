package iot

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/sas"
)

// Right is a permission of a shared access policy,
// https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-sas.
type Right uint

// The rights.
const (
	RegistryRead Right = 1 << iota
	RegistryWrite
	ServiceConnect
	DeviceConnect
)

type policy struct {
	Rights Right            `json:"rights"`
	Key    api.SymmetricKey `json:"key"`
}

// defaultPolicies are those that every new IoT Hub has.
func defaultPolicies() map[string]Right {
	return map[string]Right{
		"iothubowner":       RegistryRead | RegistryWrite | ServiceConnect | DeviceConnect | EnrollmentRead | EnrollmentWrite,
		"service":           ServiceConnect,
		"device":            DeviceConnect,
		"registryRead":      RegistryRead,
		"registryReadWrite": RegistryRead | RegistryWrite,
		// That of every new provisioning service.
		"provisioningserviceowner": EnrollmentRead | EnrollmentWrite,
	}
}

func (s *Service) loadPolicies() error {
	const prefix = "policy/"
	if err := s.journal.Each(prefix, func(key string, value json.RawMessage) error {
		p := &policy{}
		s.policies[strings.TrimPrefix(key, prefix)] = p
		return json.Unmarshal(value, p)
	}); err != nil {
		return err
	}
	for name, rights := range defaultPolicies() {
		if p := s.policies[name]; p != nil {
			p.Rights |= rights // an older program may not have known all of them
			continue
		}
		p := &policy{rights, api.SymmetricKey{PrimaryKey: randomKey(), SecondaryKey: randomKey()}}
		if err := s.put(prefix+name, p); err != nil {
			return err
		}
		s.policies[name] = p
	}
	return nil
}

// PolicyKey returns the primary key of a shared access policy.
func (s *Service) PolicyKey(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.policies[name]
	if !ok {
		return "", fmt.Errorf("iot: no policy %q", name)
	}
	return p.Key.PrimaryKey, nil
}

// Credential is what an authentication established.
type Credential struct {
	Expiry time.Time // of the token; the hub's grace comes on top. Zero: none, as with a certificate
	method string    // iothub-connection-auth-method
	token  string    // digest of the token, "" for a certificate
}

// AuthenticateDevice checks a password against the identity's own keys, or those
// of a policy with DeviceConnect. The error says why, for the hub's log only.
func (s *Service) AuthenticateDevice(id api.ID, password string, now time.Time) (Credential, error) {
	token, err := sas.Parse(password)
	if err != nil {
		return Credential{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(id)
	if err != nil {
		return Credential{}, err
	}
	path := "devices/" + id.Device
	if id.Module != "" {
		path += "/modules/" + id.Module
	}
	if !s.covers(token, path) {
		return Credential{}, fmt.Errorf("iot: the token is for %q, not for %s/%s", token.Scope, s.Hostname(), path)
	}
	if !now.Before(token.Expiry.Add(s.cfg.Grace)) {
		return Credential{}, fmt.Errorf("iot: the token expired at %s", token.Expiry.UTC().Format(time.RFC3339))
	}
	scope := ownScope(id)
	if token.Policy != "" {
		p, ok := s.policies[token.Policy]
		if !ok || p.Rights&DeviceConnect == 0 {
			return Credential{}, fmt.Errorf("iot: policy %q may not connect devices", token.Policy)
		}
		if !signedBy(token, p.Key) {
			return Credential{}, fmt.Errorf("iot: the token is not signed by policy %q", token.Policy)
		}
		scope = "hub"
	} else {
		if token.HostOnly() {
			return Credential{}, fmt.Errorf("iot: the token names no device and no policy")
		}
		if !signedBy(token, ident.device.Authentication.SymmetricKey) {
			return Credential{}, fmt.Errorf("iot: the token is not signed by a key of %s", id)
		}
	}
	if _, hit := s.strike(api.FaultExpireTokens, id); hit || slices.Contains(ident.expired, token.Digest()) {
		return Credential{}, fmt.Errorf("iot: fault: the token expired")
	}
	if s.disabled(ident) {
		return Credential{}, api.Refuse(api.CodeDeviceDisabled, "device %s is disabled", id.Device)
	}
	return Credential{Expiry: token.Expiry, method: authMethod(scope, "sas"), token: token.Digest()}, nil
}

// disabled also holds for the modules of a disabled device.
func (s *Service) disabled(ident *identity) bool {
	parent := s.identities[api.ID{Device: ident.id.Device}]
	return ident.device.Status == api.Disabled || parent != nil && parent.device.Status == api.Disabled
}

// AuthenticateService checks an Authorization header for a right on a path.
func (s *Service) AuthenticateService(header, path string, right Right, now time.Time) error {
	refused := api.Refuse(api.CodeUnauthorized, "Unauthorized")
	token, err := sas.Parse(header)
	if err != nil {
		return refused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.policies[token.Policy]
	if !ok || p.Rights&right != right || !signedBy(token, p.Key) || !s.covers(token, path) || !now.Before(token.Expiry.Add(s.cfg.Grace)) {
		return refused
	}
	return nil
}

func (s *Service) covers(token sas.Token, path string) bool {
	return slices.ContainsFunc(s.cfg.Hostnames, func(host string) bool { return token.Covers(host, path) })
}

func signedBy(token sas.Token, key api.SymmetricKey) bool {
	return key.PrimaryKey != "" && token.SignedBy(key.PrimaryKey) || key.SecondaryKey != "" && token.SignedBy(key.SecondaryKey)
}
