package main

import (
	"testing"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
)

func TestAnIdentityHasOneNameHoweverItIsReached(t *testing.T) {
	t.Parallel()
	base := func() (config.Config, core.Identity) {
		return config.Config{Transports: []config.Transport{{Use: config.UseMQTT}}}, core.Identity{Hostname: "hub.test", DeviceID: "gw-1"}
	}
	provisioned := func(p config.Provisioning) func(c *config.Config, id *core.Identity) {
		return func(c *config.Config, id *core.Identity) {
			p.Host = "dps.test"
			c.Device.Provisioning, *id = &p, core.Identity{}
		}
	}
	for _, c := range []struct {
		name string
		same bool
		a, b func(c *config.Config, id *core.Identity)
	}{
		{"the host's letters", true, nil, func(_ *config.Config, id *core.Identity) { id.Hostname = "HUB.test" }},
		{"a gateway", true, nil, func(_ *config.Config, id *core.Identity) { id.Gateway = "edge.lan" }},
		{"another usual route", true, nil, func(c *config.Config, _ *core.Identity) {
			c.Transports = append(c.Transports, config.Transport{Use: config.UseWebSocket, Port: 443})
		}},
		{"a proxy", true, nil, func(c *config.Config, _ *core.Identity) { c.Transports[0].Proxy.Mode = config.ProxyEnvironment }},
		{"another state directory", true, nil, func(c *config.Config, _ *core.Identity) { c.StateDir = "/elsewhere" }},
		{"another device", false, nil, func(_ *config.Config, id *core.Identity) { id.DeviceID = "gw-2" }},
		{"the device's letters", false, nil, func(_ *config.Config, id *core.Identity) { id.DeviceID = "GW-1" }},
		{"a module of it", false, nil, func(_ *config.Config, id *core.Identity) { id.ModuleID = "m" }},
		{"another hub", false, nil, func(_ *config.Config, id *core.Identity) { id.Hostname = "other.test" }},
		{"another port", false, nil, func(c *config.Config, _ *core.Identity) { c.Transports[0].Port = 18883 }},
		{"another address", false, nil, func(c *config.Config, _ *core.Identity) { c.Transports[0].Address = "10.0.0.1" }},
		{
			"how a registration proves itself", true, provisioned(config.Provisioning{IDScope: "s", RegistrationID: "r"}),
			provisioned(config.Provisioning{IDScope: "s", RegistrationID: "r", Port: 8883, X509: &config.CertificateFile{}}),
		},
		{
			"another scope", false, provisioned(config.Provisioning{IDScope: "s", RegistrationID: "r"}),
			provisioned(config.Provisioning{IDScope: "t", RegistrationID: "r"}),
		},
		{
			"another registration", false, provisioned(config.Provisioning{IDScope: "s", RegistrationID: "r"}),
			provisioned(config.Provisioning{IDScope: "s", RegistrationID: "q"}),
		},
		{
			"another service of that name", false, provisioned(config.Provisioning{IDScope: "s", RegistrationID: "r"}),
			provisioned(config.Provisioning{IDScope: "s", RegistrationID: "r", Address: "127.0.0.1"}),
		},
	} {
		name := func(change func(c *config.Config, id *core.Identity)) string {
			cfg, id := base()
			if change != nil {
				change(&cfg, &id)
			}
			return identityLock(&cfg, id)
		}
		if a, b := name(c.a), name(c.b); (a == b) != c.same {
			t.Errorf("%s: the same identity: %v, want %v", c.name, a == b, c.same)
		}
	}
}
