package device_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// startWorkload is an IoT Edge runtime on a socket: it signs with the module's key and vouches for the hub, which stands
// for the Edge hub too. It returns the socket's URI.
func startWorkload(t *testing.T, h *hubtest.Hub, key core.Secret) string {
	t.Helper()
	sign, err := credentials.KeySigner(key)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /trust-bundle", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"certificate": string(h.CAPEM())})
	})
	mux.HandleFunc("POST /modules/filter/genid/7/sign", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Data []byte }
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &q)
		}
		if err != nil {
			t.Error(err)
		}
		digest, err := sign(r.Context(), q.Data)
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(map[string][]byte{"digest": digest})
	})
	socket := filepath.Join(t.TempDir(), "w.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}}
	server.Start()
	t.Cleanup(server.Close)
	return "unix://" + socket
}

func TestAModuleOfIoTEdge(t *testing.T) {
	for _, how := range []string{"by the runtime", "by the developer's variables"} {
		t.Run(how, func(t *testing.T) {
			// The hub has a name that only its certificate and its tokens know; the gateway is at localhost.
			h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) { c.Hostnames = []string{"hub.test"} }))
			h.AddDevice("gw")
			text := h.AddDevice("gw/filter")
			cs, err := credentials.ParseConnectionString(text)
			if err != nil {
				t.Fatal(err)
			}
			if how == "by the runtime" {
				for name, value := range map[string]string{
					"IOTEDGE_IOTHUBHOSTNAME": "hub.test", "IOTEDGE_DEVICEID": "gw", "IOTEDGE_MODULEID": "filter", "IOTEDGE_GATEWAYHOSTNAME": "localhost",
					"IOTEDGE_MODULEGENERATIONID": "7", "IOTEDGE_WORKLOADURI": startWorkload(t, h, cs.Key), "IOTEDGE_APIVERSION": "2018-06-28",
				} {
					t.Setenv(name, value)
				}
			} else {
				ca := filepath.Join(t.TempDir(), "ca.pem")
				if err := os.WriteFile(ca, h.CAPEM(), 0o600); err != nil {
					t.Fatal(err)
				}
				t.Setenv("EdgeHubConnectionString", text+";GatewayHostName=localhost")
				t.Setenv("EdgeModuleCACertificateFile", ca)
			}
			c, err := device.FromEdgeEnvironment(t.Context(), func(o *device.Options) { o.Port = h.MQTTPort() })
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := c.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			}()
			if err := c.Send(t.Context(), &device.Message{Payload: []byte("x"), Output: "alerts"}); err != nil {
				t.Fatal(err)
			}
			m := h.WaitTelemetry("gw", func(m api.Message) bool { return string(m.Body) == "x" })
			if text, err := json.Marshal(m); err != nil || !strings.Contains(string(text), "alerts") {
				t.Errorf("the hub got %s: no word of the output", text)
			}
		})
	}
}

func TestTheEdgeEnvironmentIsChecked(t *testing.T) {
	if _, err := device.FromEdgeEnvironment(t.Context()); !errors.Is(err, device.ErrInvalid) || !strings.Contains(err.Error(), "not started by the IoT Edge runtime") {
		t.Errorf("no environment: %v", err)
	}
	for name, change := range map[string]func(*device.Options){
		"a certificate": func(o *device.Options) { o.ServerVerificationCert = []byte("x") },
		"a gateway":     func(o *device.Options) { o.GatewayHostname = "gw" },
	} {
		if _, err := device.FromEdgeEnvironment(t.Context(), change); !errors.Is(err, device.ErrInvalid) || !strings.Contains(err.Error(), "do not go with") {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	t.Setenv("EdgeHubConnectionString", "HostName=hub.test;DeviceId=d;ModuleId=m;GatewayHostName=gw;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==")
	t.Setenv("EdgeModuleCACertificateFile", filepath.Join(t.TempDir(), "missing.pem"))
	if _, err := device.FromEdgeEnvironment(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v, want ErrNotExist", err)
	}
}
