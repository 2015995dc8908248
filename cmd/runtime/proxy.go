package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// routeProxy makes the proxy of a route. What the user can mend is a usage error with its place.
func routeProxy(c *config.Config, i int) (netdial.Proxy, error) {
	return makeProxy(c, routeProxyKey(i), c.Transports[i].Proxy)
}

func routeProxyKey(i int) string { return fmt.Sprintf("transports[%d].proxy_options", i) }

// makeProxy reads what the configuration says of a proxy, its password and the environment included: once, at the start.
func makeProxy(c *config.Config, key string, p config.Proxy) (netdial.Proxy, error) {
	out := netdial.Proxy{}
	if !p.Password.IsZero() {
		var err error
		if out.Password, err = p.Password.Resolve(); err != nil {
			return out, configProblem(c, key+".proxy_password", err)
		}
	}
	var err error
	switch p.Mode {
	case config.ProxyEnvironment:
		out, err = netdial.ProxyFromEnvironment(os.Getenv)
	case config.ProxyFixed:
		out.Type, out.Addr, out.Port, out.Username = netdial.ProxyType(p.Type), p.Addr, p.Port, p.Username
		out.NoProxy = p.NoProxy
		err = out.Check()
	}
	if err != nil {
		return out, configProblem(c, key, err)
	}
	return out, nil
}

// checkProxies finds proxies that cannot work. A password that cannot be read is found with the other secrets.
func checkProxies(c *config.Config) []config.Problem {
	var out []config.Problem
	look := func(key string, p config.Proxy) {
		if !p.Password.IsZero() {
			if _, err := p.Password.Resolve(); err != nil {
				return
			}
		}
		_, err := makeProxy(c, key, p)
		for _, problem := range problemsOf(err) {
			// One anchor may stand for several.
			if !slices.ContainsFunc(out, func(q config.Problem) bool { return q.Pos == problem.Pos && q.Text == problem.Text }) {
				out = append(out, problem)
			}
		}
	}
	for i, t := range c.Transports {
		look(routeProxyKey(i), t.Proxy)
	}
	look("uploads.proxy_options", c.Uploads.Proxy)
	return out
}
