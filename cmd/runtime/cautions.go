package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// cautions are what is allowed, and may not be meant: run, check and doctor say the same of it.
func cautions(c *config.Config) []config.Problem {
	return slices.Concat(c.Warnings(), proxyCautions(c), budgetCautions(c))
}

// proxyCautions finds routes whose proxy the environment was to name, and does not: an exported variable that a service
// does not get, mostly.
func proxyCautions(c *config.Config) []config.Problem {
	var out []config.Problem
	look := func(key string, p config.Proxy) {
		if p.Mode != config.ProxyEnvironment {
			return
		}
		if named, err := netdial.ProxyFromEnvironment(os.Getenv); err != nil || !named.IsZero() {
			return
		}
		problem := c.Problem(key, "environment names no proxy: going direct; set HTTPS_PROXY or ALL_PROXY where fairlead is started (a service has an environment of its own), or write none")
		if !slices.ContainsFunc(out, func(q config.Problem) bool { return q.Pos == problem.Pos }) {
			out = append(out, problem)
		}
	}
	for i, t := range c.Transports {
		look(routeProxyKey(i), t.Proxy)
	}
	look("uploads.proxy_options", c.Uploads.Proxy)
	return out
}

// budgetCautions counts what an outage costs others.
func budgetCautions(c *config.Config) []config.Problem {
	dials := core.DialsInADay(core.Config{
		ConnectionRetry: c.Connection.Retry, RetryInterval: c.Connection.RetryInterval, RetryMax: c.Connection.RetryMax,
		Routes: len(c.Transports), Limits: core.DefaultLimits(),
	})
	if dials <= core.DialBudget {
		return nil
	}
	key := "connection.connection_retry_interval"
	if c.IsSet("connection.connection_retry_max") {
		key = "connection.connection_retry_max"
	}
	return []config.Problem{c.Problem(key, "a day without the hub costs some %s dials, and more than %d may pass for a flood: the defaults, connection_retry_interval: 10s and connection_retry_max: 10m, keep to that", about(dials), core.DialBudget)}
}

// about rounds a count to two digits.
func about(n int) string {
	unit := 1
	for n/unit >= 100 {
		unit *= 10
	}
	return fmt.Sprint((n + unit/2) / unit * unit)
}
