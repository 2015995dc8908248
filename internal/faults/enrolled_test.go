//go:build faults && unix

package faults

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// enrollment is what a device is told of its provisioning.
type enrollment struct {
	w     *world
	Scope string `json:"id_scope"`
	Key   string `json:"key"`
}

// enroll lets the device provision itself, by an enrollment of its own, or with --group one of a group's. The hub does not
// know it yet.
func (w *world) enroll(flags ...string) enrollment {
	w.t.Helper()
	w.hubDo("device", "delete", device)
	e := enrollment{w: w}
	name := device
	if slices.Contains(flags, "--group") {
		name = "plant"
	}
	text := w.hubDo(append([]string{"enrollment", "add", name}, flags...)...)
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		w.t.Fatalf("enrollment %q: %v", text, err)
	}
	return e
}

// configuration is the section "device" with this proof of identity.
func (e enrollment) configuration(proof string) string {
	port, _ := e.w.ports()
	return "device: {sastoken_ttl: 20s, provisioning: {address: 127.0.0.1, port: " + port + ", id_scope: " + e.Scope + ", registration_id: " + device + ", " + proof + "}}"
}

// addModule makes the world's device a module, with a connection string in that file, and returns its key.
func (w *world) addModule(file string) (key string) {
	w.t.Helper()
	w.id = device + "/" + edgeModule
	w.hubDo("device", "add", w.id, "--out", w.path(file))
	text, err := os.ReadFile(w.path(file))
	if err != nil {
		w.t.Fatal(err)
	}
	_, key, _ = strings.Cut(strings.TrimSpace(string(text)), "SharedAccessKey=")
	return key
}

// workload is an IoT Edge runtime's workload API, on a socket.
type workload struct {
	key    []byte
	signed atomic.Int64
	// refuse makes it answer with an error.
	refuse atomic.Bool

	mu      sync.Mutex
	digests [][]byte // all that it gave
}

const (
	edgeModule     = "filter"
	edgeGeneration = "gen-7f3a"
)

// startWorkload makes the world's device a module: the hub knows it, the environment names it, and the workload API signs
// for it.
func (w *world) startWorkload() *workload {
	w.t.Helper()
	key := w.addModule("module.cs")
	e := &workload{}
	var err error
	if e.key, err = base64.StdEncoding.DecodeString(key); err != nil {
		w.t.Fatal(err)
	}
	ca, err := os.ReadFile(w.ready.CAFile)
	if err != nil {
		w.t.Fatal(err)
	}
	mux := http.NewServeMux()
	answer := func(pattern string, f func(r *http.Request) any) {
		mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
			switch {
			case e.refuse.Load():
				http.Error(rw, `{"message":"the identity service is starting"}`, http.StatusInternalServerError)
			case r.URL.Query().Get("api-version") != "2019-01-30":
				http.Error(rw, `{"message":"api-version"}`, http.StatusBadRequest)
			default:
				_ = json.NewEncoder(rw).Encode(f(r)) // whoever asked may be gone
			}
		})
	}
	answer("GET /trust-bundle", func(*http.Request) any { return map[string]string{"certificate": string(ca)} })
	answer("POST /modules/"+edgeModule+"/genid/"+edgeGeneration+"/sign", func(r *http.Request) any {
		var q struct {
			KeyID string `json:"keyId"`
			Algo  string `json:"algo"`
			Data  []byte `json:"data"`
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.KeyID != "primary" || q.Algo != "HMACSHA256" {
			w.t.Errorf("asked to sign %+v, %v", q, err)
		}
		mac := hmac.New(sha256.New, e.key)
		_, _ = mac.Write(q.Data) // a hash takes all
		e.signed.Add(1)
		digest := mac.Sum(nil)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.digests = append(e.digests, digest)
		return map[string][]byte{"digest": digest}
	})
	l, err := net.Listen("unix", w.path("workload.sock"))
	if err != nil {
		w.t.Fatal(err)
	}
	server := &http.Server{Handler: mux} //nolint:gosec // it has one client
	go func() { _ = server.Serve(l) }()
	w.t.Cleanup(func() { _ = server.Close() })
	w.env = []string{
		"IOTEDGE_IOTHUBHOSTNAME=" + hostname, "IOTEDGE_GATEWAYHOSTNAME=" + hostname, "IOTEDGE_DEVICEID=" + device, "IOTEDGE_MODULEID=" + edgeModule,
		"IOTEDGE_MODULEGENERATIONID=" + edgeGeneration, "IOTEDGE_WORKLOADURI=unix://" + w.path("workload.sock"), "IOTEDGE_APIVERSION=2019-01-30",
	}
	return e
}
