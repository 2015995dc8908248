package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-iot/fairlead/config"
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
