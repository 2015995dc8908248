package device

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
)

// FromEdgeEnvironment makes a client of the module that the process is, by what the IoT Edge runtime says in the
// environment: whose module, which gateway (its Edge hub), who signs for it. The Edge hub's authority is asked for at
// once, on this machine, until ctx ends, and again when the Edge hub turns out to have another one; there is no other
// way to know whom to trust, so that ServerVerificationCert and GatewayHostname are refused. Where the variables are
// not complete, EdgeHubConnectionString and EdgeModuleCACertificateFile are taken, for a developer's machine. Errors
// wrap ErrInvalid where the environment is wrong.
//
// https://learn.microsoft.com/azure/iot-edge/module-development
func FromEdgeEnvironment(ctx context.Context, change ...func(*Options)) (*Client, error) {
	o := newOptions(change)
	if o.ServerVerificationCert != nil || o.GatewayHostname != "" {
		return nil, fmt.Errorf("device: ServerVerificationCert and GatewayHostname do not go with the IoT Edge environment, which has its own: %w", ErrInvalid)
	}
	e, err := credentials.ReadEdgeEnvironment(os.Getenv)
	if err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	id := e.Identity
	if err := o.complete(&id); err != nil {
		return nil, err
	}
	source, err := e.Source(o.SASTokenTTL, time.Now)
	if err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	https, err := o.https(id, source)
	if err != nil {
		return nil, err
	}
	routes, err := EdgeTrust{Bundle: e.TrustBundle, Transports: func(authorities []byte) ([]core.Transport, error) {
		trusting := *o
		trusting.ServerVerificationCert = authorities
		trust, err := trusting.tls()
		if err == nil {
			err = https.Trust(trust)
		}
		if err != nil {
			return nil, err
		}
		return trusting.transports(id)
	}}.Routes(ctx)
	if err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	// The same client asks about files: whom it trusts changes too.
	c, err := o.clientBy(id, source, routes, func(Identity, CredentialSource) (core.FileService, error) { return https, nil })
	if err != nil {
		return nil, err
	}
	c.invoker = https
	return c, nil
}
