package main

import (
	"context"
	"os"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
)

// trustBundleLimit is how long a start waits for the IoT Edge runtime to say whom to trust.
const trustBundleLimit = 30 * time.Second

// edge says who an IoT Edge module is, who signs for it, and by which authority it knows its Edge hub. The IoT Edge
// runtime is on this machine: where it does not answer the start fails, and is tried again by whoever started the module.
func edge(c *config.Config, now func() time.Time) (id core.Identity, source core.CredentialSource, ca []byte, err error) {
	const key = "device.edge_environment"
	e, err := credentials.ReadEdgeEnvironment(os.Getenv)
	if err == nil {
		source, err = e.Source(c.Device.SASTokenTTL, now)
	}
	if err != nil {
		return id, nil, nil, configProblem(c, key, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), trustBundleLimit) // nothing runs yet that a signal would have to end
	defer cancel()
	ca, err = e.TrustBundle(ctx)
	return e.Identity, source, ca, err
}
