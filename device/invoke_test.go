package device_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// edgeClient is a module of IoT Edge, gw/filter, whose Edge hub the hub stands for.
func edgeClient(t *testing.T, h *hubtest.Hub) *device.Client {
	t.Helper()
	cs, err := credentials.ParseConnectionString(h.AddDevice("gw/filter"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"IOTEDGE_IOTHUBHOSTNAME": "hub.test", "IOTEDGE_DEVICEID": "gw", "IOTEDGE_MODULEID": "filter", "IOTEDGE_GATEWAYHOSTNAME": "localhost",
		"IOTEDGE_MODULEGENERATIONID": "7", "IOTEDGE_WORKLOADURI": startWorkload(t, h, cs.Key), "IOTEDGE_APIVERSION": "2018-06-28",
	} {
		t.Setenv(name, value)
	}
	c, err := device.FromEdgeEnvironment(t.Context(), func(o *device.Options) { o.Port, o.HTTPSPort = h.MQTTPort(), h.HTTPSPort() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return c
}

// called is a device or module of the hub that answers the method double.
func called(t *testing.T, h *hubtest.Hub, connectionString string) {
	t.Helper()
	c, err := device.FromConnectionString(connectionString, func(o *device.Options) {
		o.Port, o.Address, o.ServerVerificationCert = h.MQTTPort(), "localhost", h.CAPEM()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Shutdown(context.WithoutCancel(t.Context())) })
	c.HandleMethod("double", func(_ context.Context, payload json.RawMessage) (int, any, error) {
		var n float64
		if err := json.Unmarshal(payload, &n); err != nil {
			return 0, nil, err
		}
		return 201, map[string]any{"twice": 2 * n, "by": c.Identity().ClientID()}, nil
	})
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAModuleOfIoTEdgeInvokesMethods(t *testing.T) {
	h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) { c.Hostnames = []string{"hub.test"} }))
	const scope = "ms-azure-iot-edge://gw-1"
	for id, scope := range map[string]string{"gw": scope, "leaf": scope, "stranger": ""} {
		if _, err := h.CreateDevice(api.Device{DeviceID: id, DeviceScope: scope}); err != nil {
			t.Fatal(err)
		}
	}
	called(t, h, h.AddDevice("gw/press"))
	leaf, err := h.ConnectionString("leaf")
	if err != nil {
		t.Fatal(err)
	}
	called(t, h, leaf)
	c := edgeClient(t, h)

	for _, target := range []struct{ device, module string }{{"gw", "press"}, {"leaf", ""}} {
		got, err := c.InvokeMethod(t.Context(), target.device, target.module, device.MethodCall{Name: "double", Payload: 21, ConnectTimeout: 30 * time.Second})
		by := device.Identity{DeviceID: target.device, ModuleID: target.module}.ClientID()
		if err != nil || got.Status != 201 || string(got.Payload) != `{"by":"`+by+`","twice":42}` {
			t.Errorf("%s answered %d %s, %v", by, got.Status, got.Payload, err)
		}
	}

	call := device.MethodCall{Name: "double", Payload: 1}
	for _, refused := range []struct {
		name, device, module string
		call                 device.MethodCall
		status               int
		is                   error
		says                 string
	}{
		{"one that is not connected", "gw", "", call, 404, device.ErrService, "isn't online"},
		{"one that does not exist", "gw", "nobody", call, 404, device.ErrService, ""},
		{"a device below another gateway", "stranger", "", call, 401, device.ErrCredential, "Unauthorized"},
		{"a method without a name", "gw", "press", device.MethodCall{}, 0, device.ErrInvalid, "no name"},
		{"no target", "", "", call, 0, device.ErrInvalid, "no device is named"},
		{"a payload that is no JSON", "gw", "press", device.MethodCall{Name: "double", Payload: func() {}}, 0, device.ErrInvalid, "payload"},
		{"a timeout that the hub does not take", "gw", "press", device.MethodCall{Name: "double", ResponseTimeout: time.Second}, 0, device.ErrInvalid, "5s to 5m0s"},
		{"a wait that the hub does not take", "gw", "press", device.MethodCall{Name: "double", ConnectTimeout: time.Hour}, 0, device.ErrInvalid, "0 to 5m0s"},
	} {
		_, err := c.InvokeMethod(t.Context(), refused.device, refused.module, refused.call)
		var e *device.Error
		if !errors.Is(err, refused.is) || !strings.Contains(err.Error(), refused.says) || refused.status != 0 && (!errors.As(err, &e) || e.Status != refused.status || e.TrackingID == "") {
			t.Errorf("%s: %v", refused.name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.InvokeMethod(ctx, "gw", "press", call); err == nil {
		t.Error("a context that has ended changes nothing")
	}
}

func TestOnlyAModuleOfIoTEdgeInvokesMethods(t *testing.T) {
	c, err := device.FromConnectionString("HostName=hub.test;DeviceId=d;ModuleId=m;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Shutdown(t.Context()) }()
	if _, err := c.InvokeMethod(t.Context(), "d", "n", device.MethodCall{Name: "x"}); !errors.Is(err, device.ErrUnsupported) {
		t.Errorf("got %v, want ErrUnsupported", err)
	}
}
