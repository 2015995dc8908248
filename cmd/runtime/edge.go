package main

import (
	"context"
	"os"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
)

// trustBundleLimit is how long a start waits for the IoT Edge runtime to say whom to trust.
const trustBundleLimit = 30 * time.Second

// edge says who an IoT Edge module is, who signs for it, by which authority it knows its Edge hub, and by which routes it
// gets there. The IoT Edge runtime is on this machine: where it does not answer the start fails, and is tried again by
// whoever started the module.
func (rt *running) edge(cfg *device.Config) (ca []byte, err error) {
	const key = "device.edge_environment"
	c, now := rt.cfg, rt.clock.Now
	e, err := credentials.ReadEdgeEnvironment(os.Getenv)
	if err == nil {
		cfg.Credentials, err = e.Source(c.Device.SASTokenTTL, now)
	}
	if err != nil {
		return nil, configProblem(c, key, err)
	}
	cfg.Identity = e.Identity
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
