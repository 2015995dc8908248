package credentials_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
)

// workload is an IoT Edge runtime that signs with key. It models the two requests that a client makes, and is as strict
// as the real one about their form.
func workload(t *testing.T) http.Handler {
	sign, err := credentials.KeySigner(key)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /trust-bundle", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"certificate":"PEM for %s"}`, r.URL.Query().Get("api-version"))
	})
	mux.HandleFunc("POST /modules/{module}/genid/{gen}/sign", func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			KeyID, Algo string
			Data        []byte
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &q)
		}
		if err != nil || q.KeyID != "primary" || q.Algo != "HMACSHA256" || r.PathValue("module") != "m/1" || r.PathValue("gen") != "g 1" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"module not found"}`)
			return
		}
		digest, err := sign(r.Context(), q.Data)
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(map[string][]byte{"digest": digest})
	})
	return mux
}

func TestTheWorkloadAPISigns(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "w.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	onSocket := &httptest.Server{Listener: l, Config: &http.Server{Handler: workload(t), ReadHeaderTimeout: time.Minute}}
	onSocket.Start()
	defer onSocket.Close()
	onTCP := httptest.NewServer(workload(t))
	defer onTCP.Close()
	for _, uri := range []string{"unix://" + socket, onTCP.URL, onTCP.URL + "/"} {
		w, err := credentials.NewWorkload(uri, "2019-01-30", "m/1", "g 1")
		if err != nil {
			t.Fatal(err)
		}
		bundle, err := w.TrustBundle(t.Context())
		if err != nil || string(bundle) != "PEM for 2019-01-30" {
			t.Errorf("%s: trust bundle %q, %v", uri, bundle, err)
		}
		// The same token as with the key itself.
		id := core.Identity{Hostname: "hub.test", DeviceID: "d", ModuleID: "m", Gateway: "gw.lan"}
		source, err := credentials.EdgeEnvironment{Identity: id, Workload: w}.Source(time.Hour, at(1_700_000_000))
		if err != nil {
			t.Fatal(err)
		}
		own, err := credentials.NewSharedKey(id, key, time.Hour, at(1_700_000_000))
		if err != nil {
			t.Fatal(err)
		}
		got, err := source.Credential(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want, err := own.Credential(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.Token != want.Token || got.Life != time.Hour {
			t.Errorf("%s: token %s, want %s", uri, got.Token.Reveal(), want.Token.Reveal())
		}
	}
	// # What it refuses is said, and tried again.
	w, err := credentials.NewWorkload(onTCP.URL, "", "other", "g 1")
	if err != nil {
		t.Fatal(err)
	}
	source, err := credentials.EdgeEnvironment{Identity: core.Identity{Hostname: "h", DeviceID: "d", ModuleID: "other"}, Workload: w}.Source(time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source.Credential(t.Context()); err == nil || core.KindOf(err) != core.Transient || !strings.Contains(err.Error(), "module not found") {
		t.Errorf("refused: %v", err)
	}
}

func TestAWorkloadAPIThatMisbehavesIsAnError(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"garbage":     func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00{")) },
		"empty":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) },
		"not base64":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"digest":"!"}`)) },
		"endless":     func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 2<<20)) },
		"status":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"hung up":     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"an empty 30": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			defer server.Close()
			w, err := credentials.NewWorkload(server.URL, "", "m", "g")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.TrustBundle(t.Context()); err == nil || core.KindOf(err) != core.Transient {
				t.Errorf("trust bundle: %v, want a transient error", err)
			}
			if _, err := w.Sign(t.Context(), []byte("x")); err == nil || core.KindOf(err) != core.Transient {
				t.Errorf("sign: %v, want a transient error", err)
			}
		})
	}
	w, err := credentials.NewWorkload("unix:///nowhere/w.sock", "", "m", "g")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.TrustBundle(t.Context()); err == nil || !strings.Contains(err.Error(), "unix:///nowhere/w.sock") {
		t.Errorf("no socket: %v, want its name", err)
	}
	for _, uri := range []string{"", "w.sock", "unix://", "https://h/", "http://", "http://a b/"} {
		if _, err := credentials.NewWorkload(uri, "", "m", "g"); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", uri, err)
		}
	}
}

func TestReadEdgeEnvironment(t *testing.T) {
	whole := map[string]string{
		"IOTEDGE_IOTHUBHOSTNAME": "hub.test", "IOTEDGE_DEVICEID": "d", "IOTEDGE_MODULEID": "m", "IOTEDGE_GATEWAYHOSTNAME": "gw",
		"IOTEDGE_MODULEGENERATIONID": "g", "IOTEDGE_WORKLOADURI": "unix:///w.sock", "IOTEDGE_APIVERSION": "2019-01-30",
	}
	debug := map[string]string{
		"EdgeHubConnectionString":     "HostName=hub.test;DeviceId=d;ModuleId=m;GatewayHostName=gw;SharedAccessKey=" + key,
		"EdgeModuleCACertificateFile": "ca.pem",
	}
	with := func(m map[string]string, name, value string) map[string]string {
		m = maps.Clone(m)
		m[name] = value
		return m
	}
	module := core.Identity{Hostname: "hub.test", DeviceID: "d", ModuleID: "m", Gateway: "gw"}
	for _, c := range []struct {
		name string
		env  map[string]string
		want string // of the error; "" for module
	}{
		{"whole", whole, ""},
		{"without a version", with(whole, "IOTEDGE_APIVERSION", ""), ""},
		{"a developer's", debug, ""},
		{"nothing", nil, "not started by the IoT Edge runtime"},
		{"one missing", with(whole, "IOTEDGE_WORKLOADURI", ""), "IOTEDGE_WORKLOADURI is missing"},
		{"a bad id", with(whole, "IOTEDGE_MODULEID", "a/b"), "ModuleId contains"},
		{"a bad URI", with(whole, "IOTEDGE_WORKLOADURI", "ftp://x"), "workload URI"},
		{"no file", with(debug, "EdgeModuleCACertificateFile", ""), "belong together"},
		{"a device's string", with(debug, "EdgeHubConnectionString", "HostName=h;DeviceId=d;SharedAccessKey="+key), "must name ModuleId"},
		{"a bad string", with(debug, "EdgeHubConnectionString", "x"), "EdgeHubConnectionString: parse connection string"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := credentials.ReadEdgeEnvironment(func(name string) string { return c.env[name] })
			if c.want == "" {
				if err != nil || e.Identity != module || (e.Workload == nil) == (e.Key == "") {
					t.Errorf("%+v, %v", e.Identity, err)
				}
				return
			}
			if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), key) {
				t.Errorf("error %v, want ErrInvalid with %q and no key", err, c.want)
			}
		})
	}
}
