package device

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/mqttws"
)

// RegistrationResult is what the provisioning service answers a device that it has assigned to a hub.
type RegistrationResult = core.Registration

// RegistrationError is the provisioning service's refusal, with its error code and tracking id, for errors.As.
type RegistrationError = core.RegistrationError

// Enrollment is what a device knows of its enrollment with a provisioning service. IDScope, RegistrationID and exactly
// one of SymmetricKey and Proof are required.
type Enrollment struct {
	// Host is the provisioning service's; "" means global.azure-devices-provisioning.net.
	Host           string
	IDScope        string
	RegistrationID string
	// SymmetricKey is the enrollment's, base64; of a group, what credentials.DeriveKey makes of the group's.
	SymmetricKey string
	// Proof is any other proof, such as credentials.NewX509Files gives: a certificate whose common name is RegistrationID.
	Proof CredentialSource
	// Payload is handed to custom allocation: anything that marshals to JSON; nil for none.
	Payload any
}

// Provision registers a device with a provisioning service and returns which hub it belongs to, and by what name. It
// tries once, for at most 90 s or until ctx ends, and may be called again. From options it takes ServerVerificationCert,
// ExtraCA, Cipher, GatewayHostname, SASTokenTTL, Proxy, WebSockets, Port, Address, DialContext, UserAgent and Logger; with
// the result and the same key or certificate a client is made:
//
//	r, err := device.Provision(ctx, enrollment)
//	c, err := device.FromSymmetricKey(enrollment.SymmetricKey, r.State.AssignedHub, r.State.DeviceID)
//
// A client that is to follow its device to another hub has Config.Provisioning instead. Errors wrap ErrInvalid where the
// enrollment is malformed, ErrService where the service refuses (then a *RegistrationError is among them), and
// ErrCredential where it does not believe the proof.
//
// https://learn.microsoft.com/azure/iot-dps/about-iot-dps
func Provision(ctx context.Context, e Enrollment, change ...func(*Options)) (RegistrationResult, error) {
	o := newOptions(change)
	trust, err := o.tls()
	if err != nil {
		return RegistrationResult{}, err
	}
	cfg := mqtt.RegistrarConfig{
		Host: e.Host, IDScope: e.IDScope, RegistrationID: e.RegistrationID, UserAgent: o.UserAgent, Port: o.Port, Address: o.Address,
		TLS: trust, Proxy: o.Proxy, DialContext: o.DialContext, Logger: o.Logger,
	}
	if o.GatewayHostname != "" {
		cfg.Host = o.GatewayHostname // the user name says which service is meant, not the host
	}
	if e.Payload != nil {
		text, err := json.Marshal(e.Payload)
		if err != nil {
			return RegistrationResult{}, fmt.Errorf("device: payload: %w: %w", ErrInvalid, err)
		}
		cfg.Payload = text
	}
	proof := e.Proof
	switch {
	case (proof == nil) == (e.SymmetricKey == ""):
		return RegistrationResult{}, fmt.Errorf("device: %w: an enrollment has a SymmetricKey or a Proof, and not both", ErrInvalid)
	case proof == nil:
		if proof, err = credentials.NewRegistrationKey(e.IDScope, e.RegistrationID, core.Secret(e.SymmetricKey), o.SASTokenTTL, time.Now); err != nil {
			return RegistrationResult{}, fmt.Errorf("device: %w", err)
		}
	}
	newRegistrar := mqtt.NewRegistrar
	if o.WebSockets {
		newRegistrar = mqttws.NewRegistrar
	}
	registrar, err := newRegistrar(cfg)
	if err != nil {
		return RegistrationResult{}, fmt.Errorf("device: %w", err)
	}
	c, err := proof.Credential(ctx)
	if err != nil {
		return RegistrationResult{}, fmt.Errorf("device: prove the identity: %w", err)
	}
	r, err := registrar.Register(ctx, c)
	if err != nil {
		return RegistrationResult{}, fmt.Errorf("device: %w", err)
	}
	return r, nil
}
