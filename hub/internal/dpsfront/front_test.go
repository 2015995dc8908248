package dpsfront

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub/internal/dps"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
	"github.com/fairlead-iot/fairlead/hub/internal/sas"
)

// newFront is a front over services in memory; what it hands on is answered 418.
func newFront(t testing.TB) (f *Front, authorization string) {
	t.Helper()
	hub, err := iot.Open(iot.Config{Hostnames: []string{"hub.local"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hub.Close() })
	svc, err := dps.Open(dps.Config{Hub: hub})
	if err != nil {
		t.Fatal(err)
	}
	key, err := hub.PolicyKey("iothubowner")
	if err != nil {
		t.Fatal(err)
	}
	if authorization, err = sas.New("hub.local", "iothubowner", key, time.Now().Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	return New(Config{Provisioning: svc, Hub: hub, Next: next, Logger: slog.New(slog.DiscardHandler)}), authorization
}

func TestPathsAreToldApart(t *testing.T) {
	f, _ := newFront(t)
	for path, ours := range map[string]bool{
		"/enrollments/a": true, "/enrollmentGroups/a": true, "/enrollmentgroups/a/attestationmechanism": true, "/registrations/a": true,
		"/0ne00000000/registrations/a": true, "/0ne00000000/registrations/a/register": true, "/fairlead/provisioning": true,
		"/devices": false, "/devices/registrations/modules/m": false, "/twins/registrations/methods": false, "/devices/a": false,
		"/fairlead/devices/a/counters": false, "/fairlead/registrations": false, "/": false, "/$iothub/websocket": false,
	} {
		w := httptest.NewRecorder()
		f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if (w.Code != http.StatusTeapot) != ours {
			t.Errorf("%s: status %d, for the provisioning service: %v", path, w.Code, ours)
		}
	}
}

func FuzzRequests(f *testing.F) {
	front, authorization := newFront(f)
	f.Add("PUT", "/enrollments/a", []byte(`{"registrationId":"a","attestation":{"type":"symmetricKey"},"initialTwin":{"tags":{"n":1.5}}}`))
	f.Add("PUT", "/enrollments/a", []byte(`{"attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"certificate":"AAAA"}}}}}`))
	f.Add("PUT", "/enrollmentGroups/g", []byte(`{"attestation":{"x509":{"signingCertificates":{"primary":{"info":{}}},"caReferences":null}}}`))
	f.Add("POST", "/enrollments", []byte(`{"mode":"create","enrollments":[{},{"registrationId":"b"}]}`))
	f.Add("POST", "/enrollments/query", []byte(`{"query":"*"}`))
	f.Add("GET", "/registrations/a", []byte(nil))
	f.Add("PUT", "/0ne00000000/registrations/a/register", []byte(`{"payload":null}`))
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		where, err := url.ParseRequestURI(path)
		if err != nil || front.muxOf(where.Path) == nil {
			return
		}
		r, err := http.NewRequest(method, "https://hub.local", strings.NewReader(string(body)))
		if err != nil {
			return
		}
		r.URL.Path, r.RequestURI = where.Path, path
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		front.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Fatalf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%s %q: not JSON: %s", method, path, w.Body)
		}
	})
}
