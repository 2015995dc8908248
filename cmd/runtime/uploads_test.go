package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/internal/doctor"
)

// TestUploadsDoNotGoPastTheProxiesOfTheRoutes unless the configuration says so.
func TestUploadsDoNotGoPastTheProxiesOfTheRoutes(t *testing.T) {
	const (
		one = "{proxy_type: SOCKS5, proxy_addr: one, proxy_port: 1080}"
		two = "{proxy_type: HTTP, proxy_addr: two, proxy_port: 3128}"
	)
	for _, c := range []struct{ name, text, want string }{
		{"none anywhere", "", ""},
		{"the first route's", "transports: [{use: mqtt, proxy_options: " + one + "}]", "one"},
		{"the first route's by WebSocket", "transports: [{use: mqtt}, {use: mqttws, proxy_options: " + two + "}]", "two"},
		{"its own", "transports: [{use: mqtt, proxy_options: " + one + "}]\nuploads: {proxy_options: " + two + "}", "two"},
		{"none, said so", "transports: [{use: mqttws, proxy_options: " + one + "}]\nuploads: {proxy_options: none}", ""},
		{"none by a reference", "transports: [{use: mqttws, proxy_options: &p " + one + "}]\nuploads: {proxy_options: *p}", "one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "fairlead.yaml")
			if err := os.WriteFile(path, []byte("device: {connection_string: {env: NOT_READ}}\n"+c.text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := config.Load(path, config.Options{})
			if err != nil {
				t.Fatal(err)
			}
			p, err := uploadsProxy(cfg)
			if err != nil || p.Addr != c.want {
				t.Errorf("proxy %q, %v; want %q", p.Addr, err, c.want)
			}
		})
	}
}

// What run and check say of the environment says the doctor, too; and no_proxy gets where it counts.
func TestProxiesOfTheConfiguration(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, "")
	}
	path := filepath.Join(t.TempDir(), "fairlead.yaml")
	text := `device: {connection_string: {env: NOT_READ}}
transports:
  - use: mqtt
    proxy_options: environment
  - use: mqttws
    proxy_options: {proxy_type: HTTP, proxy_addr: proxy, proxy_port: 3128, no_proxy: "plant.lan,10.0.0.0/8"}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := routeProxy(cfg, 1); err != nil || p.NoProxy != "plant.lan,10.0.0.0/8" {
		t.Errorf("%+v, %v: want its no_proxy", p, err)
	}
	unwise := func() (out []string) {
		for _, c := range configChecks(cfg) {
			if c.Code == "config-unwise" && c.Severity == doctor.Warning {
				out = append(out, c.Detail)
			}
		}
		return out
	}
	if got := unwise(); len(got) != 1 || !strings.Contains(got[0], "transports[0].proxy_options: environment names no proxy: going direct") {
		t.Errorf("the doctor finds %q", got)
	}
	t.Setenv("ALL_PROXY", "socks5://proxy:1080")
	if got := unwise(); len(got) != 0 {
		t.Errorf("with a proxy the doctor finds %q", got)
	}
}
