//go:build interop && linux

package interop_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

const insideNamespace = "FAIRLEAD_TEST_INSIDE_NAMESPACE"

// Microsoft's clients know port 443 only for WebSocket and REST. So the test runs once more, in a network of its own.
func TestMicrosoftsClientsAtTheirOwnPorts(t *testing.T) {
	nodePackages(t)
	runInNamespace(t, "TestInsideTheNamespace")
}

// TestInsideTheNamespace is the process of the test above.
func TestInsideTheNamespace(t *testing.T) {
	if os.Getenv(insideNamespace) == "" {
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
	d := startNodeDevice(t, trust)
	d.must("connect", map[string]any{"connectionString": device, "protocol": "mqttws"})
	checkNodeDevice(t, h, d)

	// # the service, while a device at the standard port answers it
	d = startNodeDevice(t, trust)
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
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := nodeCommand(ctx, t, "service.js", trust, "CONNECTION_STRING="+text).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all of it held") {
		t.Errorf("service.js: %v\n%s", err, out)
	}
	d.must("close", nil)
}

// raiseLoopback brings up the interface lo, which a new network has, but down.
func raiseLoopback(t *testing.T) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd) //nolint:errcheck // it served its purpose
	var request struct {    // struct ifreq of <net/if.h>
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatalf("bring up lo: %v", errno)
	}
}
