package main

import (
	"context"
	"os"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
)

// trustBundleLimit is how long a start waits for the IoT Edge runtime to say whom to trust.
const trustBundleLimit = 30 * time.Second

// readEdge says who an IoT Edge module is, and who signs for it.
func readEdge(c *config.Config, now func() time.Time) (e credentials.EdgeEnvironment, source core.CredentialSource, err error) {
	e, err = credentials.ReadEdgeEnvironment(os.Getenv)
	if err == nil {
		source, err = e.Source(c.Device.SASTokenTTL, now)
	}
	if err != nil {
		return e, nil, configProblem(c, "device.edge_environment", err)
	}
	return e, source, nil
}

// edge says who an IoT Edge module is, who signs for it, by which authority it knows its Edge hub, and by which routes it
// gets there. The IoT Edge runtime is on this machine: where it does not answer the start fails, and is tried again by
// whoever started the module.
func (rt *running) edge(cfg *device.Config) (ca []byte, err error) {
	c, now := rt.cfg, rt.clock.Now
	e, source, err := readEdge(c, now)
	if err != nil {
		return nil, err
	}
	cfg.Identity, cfg.Credentials = e.Identity, source
	ctx, cancel := context.WithTimeout(context.Background(), trustBundleLimit) // nothing runs yet that a signal would have to end
	defer cancel()
	cfg.Transports, err = device.EdgeTrust{Bundle: e.TrustBundle, Transports: func(authorities []byte) ([]core.Transport, error) {
		if ca != nil {
			rt.log.Info("the IoT Edge runtime names other authorities than before")
		}
		ca = authorities
		return makeTransports(c, e.Identity, authorities, now, rt.log)
	}}.Routes(ctx)
	return ca, err
}
