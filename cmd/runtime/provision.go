package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/internal/control"
	"github.com/fairlead-iot/fairlead/store"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/mqttws"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// assignmentFile is where the provisioning service's last answer is kept, in the state directory.
const assignmentFile = "provisioning.json"

// identify fills in who the device is, how it proves that, and the routes to its hub; or how it learns all three.
func (rt *running) identify(cfg *device.Config) (err error) {
	c, now := rt.cfg, rt.clock.Now
	var edgeCA []byte
	switch {
	case c.Device.Provisioning != nil:
		if cfg.Provisioning, err = rt.provisioning(); err != nil {
			return err
		}
		trust, err := hubTrust(c, nil)
		if err != nil {
			return err
		}
		return rt.uploads(cfg, trust)
	case c.Device.EdgeEnvironment:
		edgeCA, err = rt.edge(cfg)
	default:
		cfg.Identity, cfg.Credentials, err = credential(c, now, rt.log)
	}
	if err != nil {
		return err
	}
	if given, ok := cfg.Credentials.(*credentials.GivenToken); ok {
		rt.token = given.Token()
	}
	cfg.Credentials = rt.doubting(rt.proof.noting(cfg.Credentials))
	trust, err := hubTrust(c, edgeCA)
	if err != nil {
		return err
	}
	if rt.date, err = rt.newDateAsker(cfg.Identity.ConnectHost(), trust, func(t config.Transport) (string, int) {
		return t.Address, cmp.Or(t.Port, defaultPort(t))
	}); err != nil {
		return err
	}
	if cfg.Transports == nil {
		if cfg.Transports, err = makeTransports(c, cfg.Identity, nil, now, rt.log); err != nil {
			return err
		}
	}
	return rt.uploads(cfg, trust)
}

func defaultPort(t config.Transport) int {
	if t.Use == config.UseWebSocket {
		return mqttws.DefaultPort
	}
	return mqtt.DefaultPort
}

// whoStarts says for the log who the device is, as far as that is known.
func whoStarts(c *config.Config, cfg *device.Config) string {
	if p := c.Device.Provisioning; p != nil {
		return fmt.Sprintf("registration %s of %s at %s", p.RegistrationID, p.IDScope, p.Host)
	}
	return cfg.Identity.ClientID() + " at " + cfg.Identity.Hostname
}

// provisioning makes what a device needs to learn who it is.
func (rt *running) provisioning() (*device.Provisioning, error) {
	const key = "device.provisioning"
	c, log, now := rt.cfg, rt.log, rt.clock.Now
	p := c.Device.Provisioning
	proof, atHub, err := registrationProof(c, now, log)
	if err != nil {
		return nil, err
	}
	cfg := mqtt.RegistrarConfig{
		Host: p.Host, Port: p.Port, Address: p.Address, IDScope: p.IDScope, RegistrationID: p.RegistrationID, UserAgent: userAgent(), Now: now, Logger: log,
	}
	if v := p.Payload.Value; v != nil {
		if cfg.Payload, err = json.Marshal(v); err != nil {
			return nil, configProblem(c, key+".payload", err)
		}
	}
	// server_verification_cert is for the hub and a gateway, as in the seed client; a proxy's authority is for everything.
	if !c.TLS.ExtraCA.IsZero() {
		text, err := c.TLS.ExtraCA.Read()
		if err != nil {
			return nil, configProblem(c, "tls.extra_ca", err)
		}
		cfg.TLS = netdial.TLSConfig{ExtraCA: text}
	}
	if rt.date, err = rt.newDateAsker(p.Host, cfg.TLS, func(t config.Transport) (string, int) {
		port := p.Port
		if t.Use != c.Transports[0].Use {
			port = 0 // one that is given is of the first's kind
		}
		return p.Address, cmp.Or(port, defaultPort(t))
	}); err != nil {
		return nil, configProblem(c, key, err)
	}
	registrar, err := makeRegistrar(c, key, cfg)
	if err != nil {
		return nil, err
	}
	out := &device.Provisioning{
		Registrar: registrar, Proof: rt.doubting(rt.proof.noting(proof)), Gateway: c.Device.GatewayHostname, Logger: log,
		Credentials: func(id core.Identity) (core.CredentialSource, error) {
			source, err := atHub(id)
			if err != nil {
				return nil, err
			}
			return rt.doubting(rt.proof.noting(source)), nil
		},
		Transports: func(id core.Identity) ([]core.Transport, error) { return makeTransports(c, id, nil, now, log) },
		Keep: store.Assignments{
			Path: filepath.Join(c.StateDir, assignmentFile),
			For:  store.Request{Host: p.Host, IDScope: p.IDScope, RegistrationID: p.RegistrationID},
		},
		Reprovision: map[string]device.Reprovision{
			config.ReprovisionAtStart: device.ReprovisionAtStart, config.ReprovisionNever: device.ReprovisionNever,
		}[p.Reprovision],
	}
	// Whatever hub it will be: what is wrong with the routes shows now.
	trial, err := makeTransports(c, core.Identity{Hostname: p.Host, DeviceID: p.RegistrationID, Gateway: c.Device.GatewayHostname}, nil, now, log)
	if err != nil {
		return nil, err
	}
	for _, t := range trial {
		out.Routes = append(out.Routes, t.Name())
	}
	return out, nil
}

// makeRegistrar makes the ways to the provisioning service, which are those to the hub, with their proxies. A port that is
// given is of the first's kind.
func makeRegistrar(c *config.Config, key string, cfg mqtt.RegistrarConfig) (core.Registrar, error) {
	var ways []*mqtt.Registrar
	port := cfg.Port
	for i, t := range c.Transports {
		var err error
		if cfg.Proxy, err = routeProxy(c, i); err != nil {
			return nil, err
		}
		newRegistrar := mqtt.NewRegistrar
		if t.Use == config.UseWebSocket {
			newRegistrar = mqttws.NewRegistrar
		}
		if cfg.Port = port; t.Use != c.Transports[0].Use {
			cfg.Port = 0
		}
		way, err := newRegistrar(cfg)
		if err != nil {
			return nil, configProblem(c, key, err)
		}
		ways = append(ways, way)
	}
	return mqtt.NewRegistrars(ways[0], ways[1:]...), nil
}

// provisioned is what the status says of the assignment; nil where there is none to be had.
func (rt *running) provisioned() *control.Provisioning {
	p, ok := rt.client.Provisioning()
	if !ok {
		return nil
	}
	c := rt.cfg.Device.Provisioning
	out := &control.Provisioning{
		Host: c.Host, IDScope: c.IDScope, RegistrationID: c.RegistrationID, AssignedHub: p.Hostname, DeviceID: p.DeviceID, Kept: p.Kept,
	}
	if !p.At.IsZero() {
		out.Since = p.At.UTC().Format(time.RFC3339)
	}
	if p.Err != nil {
		out.LastError = p.Err.Error()
	}
	return out
}

// registrationProof makes the source of what proves the identity to the provisioning service, and what makes such a
// source for a hub: the same key, or the same certificate.
func registrationProof(c *config.Config, now func() time.Time, log *slog.Logger) (proof core.CredentialSource, atHub func(core.Identity) (core.CredentialSource, error), err error) {
	p, ttl := c.Device.Provisioning, c.Device.SASTokenTTL
	if x := p.X509; x != nil {
		if proof, err = credentials.NewX509(certificateOf(x.CertFile, x.KeyFile, x.PassPhrase), now); err != nil {
			return nil, nil, configProblem(c, "device.provisioning.x509", err)
		}
		return proof, func(core.Identity) (core.CredentialSource, error) { return proof, nil }, nil
	}
	position, read := registrationKey(p)
	proof, err = newRereadKey(log, read, func(key core.Secret) (core.CredentialSource, error) {
		return credentials.NewRegistrationKey(p.IDScope, p.RegistrationID, key, ttl, now)
	})
	if err != nil {
		return nil, nil, configProblem(c, position, err)
	}
	return proof, func(id core.Identity) (core.CredentialSource, error) {
		return newRereadKey(log, read, func(key core.Secret) (core.CredentialSource, error) {
			return credentials.NewSharedKey(id, key, ttl, now)
		})
	}, nil
}

// checkRegistration refuses names that the provisioning service cannot have.
func checkRegistration(c *config.Config) []config.Problem {
	p := c.Device.Provisioning
	if p == nil {
		return nil
	}
	if err := mqtt.CheckRegistration(p.IDScope, p.RegistrationID); err != nil {
		return []config.Problem{c.Problem("device.provisioning", "%v", err)}
	}
	return nil
}
