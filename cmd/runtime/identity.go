package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
)

// x509Credential makes the identity with a certificate, whose files are read anew for each connection.
func x509Credential(c *config.Config, now func() time.Time) (core.Identity, core.CredentialSource, error) {
	x := c.Device.X509
	identity := core.Identity{Hostname: x.Hostname, DeviceID: x.DeviceID, ModuleID: x.ModuleID}
	position := "device.x509"
	if s := c.Device.ConnectionString; !s.IsZero() {
		position = "device.connection_string"
		text, err := s.Resolve()
		if err != nil {
			return identity, nil, configProblem(c, position, err)
		}
		cs, err := credentials.ParseConnectionString(text.Reveal())
		if err != nil {
			return identity, nil, configProblem(c, position, err)
		}
		identity = cs.Identity
	}
	identity = throughGateway(c, identity)
	if err := credentials.CheckIdentity(identity); err != nil {
		return identity, nil, configProblem(c, position, err)
	}
	source, err := credentials.NewX509(certificateOf(x.CertFile, x.KeyFile, x.PassPhrase), now)
	if err != nil {
		return identity, nil, configProblem(c, position, err)
	}
	return identity, source, nil
}

// certificateOf reads a certificate and its key as the configuration names them.
func certificateOf(certFile, keyFile string, passPhrase config.Source) credentials.LoadFunc {
	return func(context.Context) (credentials.Certificate, error) {
		key, err := config.ReadKeyFile(keyFile)
		if err != nil {
			return credentials.Certificate{}, err
		}
		cert := key
		if certFile != keyFile {
			if cert, err = (config.PEM{File: certFile}).Read(); err != nil {
				return credentials.Certificate{}, err
			}
		}
		var phrase core.Secret
		if !passPhrase.IsZero() {
			if phrase, err = passPhrase.Resolve(); err != nil {
				return credentials.Certificate{}, fmt.Errorf("pass phrase: %w", err)
			}
		}
		return credentials.ParseCertificate(cert, key, phrase)
	}
}

// tokenCredential makes the identity that a ready SAS token names.
func tokenCredential(c *config.Config, now func() time.Time) (core.Identity, core.CredentialSource, error) {
	const position = "device.sastoken"
	text, err := c.Device.SASToken.Resolve()
	if err != nil {
		return core.Identity{}, nil, configProblem(c, position, err)
	}
	source, err := credentials.NewGivenToken(text, now)
	if err != nil {
		return core.Identity{}, nil, configProblem(c, position, err)
	}
	return throughGateway(c, source.Identity()), source, nil
}

func throughGateway(c *config.Config, identity core.Identity) core.Identity {
	if c.Device.GatewayHostname != "" {
		identity.Gateway = c.Device.GatewayHostname
	}
	return identity
}

// doubts lists what is right and will probably be refused: a certificate or a token that is out of date by this
// machine's clock, a certificate of another name than the registration's, an IoT Edge module outside of its environment,
// which getenv (os.Getenv) knows.
func doubts(c *config.Config, now time.Time, getenv func(string) string) []config.Problem {
	var out []config.Problem
	certificate := func(key, certFile, keyFile string, pass config.Source) (commonName string, ok bool) {
		cert, err := certificateOf(certFile, keyFile, pass)(context.Background())
		if err != nil {
			return "", false // a problem, and said as one
		}
		if doubt := cert.Doubt(now); doubt != "" {
			out = append(out, c.Problem(key, "%s", doubt))
		}
		return cert.Leaf.Subject.CommonName, true
	}
	d := &c.Device
	if d.X509 != nil {
		certificate("device.x509.cert_file", d.X509.CertFile, d.X509.KeyFile, d.X509.PassPhrase)
	}
	if p := d.Provisioning; p != nil && p.X509 != nil {
		// https://learn.microsoft.com/azure/iot-dps/concepts-service#registration-id
		cn, ok := certificate("device.provisioning.x509.cert_file", p.X509.CertFile, p.X509.KeyFile, p.X509.PassPhrase)
		if ok && !strings.EqualFold(cn, p.RegistrationID) {
			out = append(out, c.Problem("device.provisioning.registration_id", "%q is not the certificate's common name (%q): the provisioning service takes a certificate for the registration of its name only", p.RegistrationID, cn))
		}
	}
	if d.EdgeEnvironment {
		if _, err := credentials.ReadEdgeEnvironment(getenv); err != nil {
			out = append(out, c.Problem("device.edge_environment", "%v", err))
		}
	}
	if !d.SASToken.IsZero() {
		if text, err := d.SASToken.Resolve(); err == nil {
			if t, err := credentials.ReadToken(text.Reveal()); err == nil && t.Expiry.Before(now) {
				out = append(out, c.Problem("device.sastoken", "the token ended at %s, and this machine's clock says %s", t.Expiry.Format(time.RFC3339), now.UTC().Format(time.RFC3339)))
			}
		}
	}
	return out
}
