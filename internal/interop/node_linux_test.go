//go:build interop && linux

package interop_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// Microsoft's clients know port 443 only for WebSocket and REST. So the test runs once more, in a network of its own.
func TestMicrosoftsClientsAtTheirOwnPorts(t *testing.T) {
	nodePackages(t)
	runInNamespace(t, "TestInsideTheNamespace")
}

// TestInsideTheNamespace is the process of the test above.
func TestInsideTheNamespace(t *testing.T) {
	if os.Getenv(insideNamespace) != t.Name() {
		t.Skip("runs only as a process of TestMicrosoftsClientsAtTheirOwnPorts")
	}
	raiseLoopback(t)
	h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) { c.MQTTPort, c.HTTPSPort = 8883, 443 }))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, h.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	trust := "NODE_EXTRA_CA_CERTS=" + ca
	device := h.AddDevice("node")

	// # the device over WebSocket
	d := startNode(t, "device.js", trust)
	d.must("connect", map[string]any{"connectionString": device, "protocol": "mqttws"})
	checkNodeDevice(t, h, d)

	// # the service, while a device at the standard port answers it
	d = startNode(t, "device.js", trust)
	d.must("connect", map[string]any{"connectionString": device, "protocol": "mqtt"})
	d.must("method", map[string]any{"name": "read", "status": 207})
	until(t, "the device takes methods", func() bool {
		answer, err := h.InvokeMethod(t.Context(), "node", "read", nil)
		return err == nil && answer.Status == 207
	})
	text, err := h.ServiceConnectionString("iothubowner")
	if err != nil {
		t.Fatal(err)
	}
	s := startNode(t, "service.js", trust, "CONNECTION_STRING="+text)
	checkNodeRegistry(t, h, s)
	checkNodeTwins(t, h, s)
	checkNodeMethods(t, h, s)
	d.must("close", nil)

	// # a device that has HTTPS only
	checkNodeOverHTTPS(t, h, trust)
}
