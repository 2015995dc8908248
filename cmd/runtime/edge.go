package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
)

// trustBundleLimit is how long a start waits for the IoT Edge runtime to say whom to trust.
const trustBundleLimit = 30 * time.Second

// edge fills in who an IoT Edge module is, who signs for it, and the way to its Edge hub. The IoT Edge runtime is on
// this machine: where it does not answer the start fails, and is tried again by whoever started the module.
func edge(c *config.Config, cfg *device.Config, log *slog.Logger) error {
	const key = "device.edge_environment"
	e, err := credentials.ReadEdgeEnvironment(os.Getenv)
	if err != nil {
		return configProblem(c, key, err)
	}
	cfg.Identity = e.Identity
	if cfg.Credentials, err = e.Source(c.Device.SASTokenTTL, time.Now); err != nil {
		return configProblem(c, key, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), trustBundleLimit) // nothing runs yet that a signal would have to end
	defer cancel()
	ca, err := e.TrustBundle(ctx)
	if err != nil {
		return err
	}
	cfg.Transports, err = makeTransports(c, cfg.Identity, ca, log)
	return err
}
