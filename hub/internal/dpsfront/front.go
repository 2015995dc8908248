package dpsfront

import (
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/dps"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

const (
	maxBody = 1 << 20
	// ownPath is what Azure does not have: where the id scope stands.
	ownPath = "/fairlead/provisioning"
)

// Config of a Front.
type Config struct {
	Provisioning *dps.Service
	// Hub judges the tokens of services.
	Hub *iot.Service
	// Next gets every request that is not the provisioning service's.
	Next   http.Handler
	Logger *slog.Logger
}

// Front is the HTTPS front.
type Front struct {
	svc  *dps.Service
	hub  *iot.Service
	next http.Handler
	log  *slog.Logger
	// Two, since a pattern for any id scope would clash with those of services.
	devices  *http.ServeMux
	services *http.ServeMux
}

var _ http.Handler = (*Front)(nil)

// New makes a front.
func New(cfg Config) *Front {
	f := &Front{
		svc: cfg.Provisioning, hub: cfg.Hub, next: cfg.Next, log: cfg.Logger,
		devices: http.NewServeMux(), services: http.NewServeMux(),
	}
	f.devices.HandleFunc("PUT /{scope}/registrations/{id}/register", f.register)
	f.devices.HandleFunc("GET /{scope}/registrations/{id}/operations/{operation}", f.operation)
	f.devices.HandleFunc("GET /{scope}/registrations/{id}", f.lookup)
	f.devices.HandleFunc("POST /{scope}/registrations/{id}", f.lookup)
	f.serviceRoutes()
	return f
}

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := f.muxOf(r.URL.Path)
	if mux == nil {
		f.next.ServeHTTP(w, r)
		return
	}
	f.log.Debug("provisioning request", "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr)
	if err := known(mux, r); err != nil {
		f.writeError(w, r, err)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	mux.ServeHTTP(w, r)
}

// known refuses addresses and methods that no route has: what the mux would say
// is not JSON.
func known(mux *http.ServeMux, r *http.Request) error {
	if _, pattern := mux.Handler(r); pattern != "" {
		return nil
	}
	other := r.Clone(r.Context())
	for _, other.Method = range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
		if _, pattern := mux.Handler(other); pattern != "" {
			return api.RefuseProvisioning(api.CodeMethodNotAllowed, "The address does not know the method %.20q.", r.Method)
		}
	}
	return api.RefuseProvisioning(api.CodeScopeNotFound, "There is nothing at this address.")
}

// muxOf tells the provisioning service's paths from the hub's; nil is the hub's.
func (f *Front) muxOf(path string) *http.ServeMux {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	second, _, _ := strings.Cut(rest, "/")
	switch {
	case first == "enrollments", strings.EqualFold(first, "enrollmentGroups"), first == "registrations", path == ownPath:
		return f.services
	case second == "registrations" && !slices.Contains([]string{"devices", "twins", "fairlead"}, first):
		return f.devices // not a device of the hub that has this name
	default:
		return nil
	}
}

func credentialOf(r *http.Request) dps.Credential {
	var certs []*x509.Certificate
	if r.TLS != nil {
		certs = r.TLS.PeerCertificates
	}
	return dps.Credential{
		IDScope: r.PathValue("scope"), RegistrationID: r.PathValue("id"), Token: r.Header.Get("Authorization"), Certificates: certs,
	}
}

func (f *Front) register(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	if err != nil {
		f.writeError(w, r, err)
		return
	}
	c := credentialOf(r)
	force := strings.EqualFold(r.URL.Query().Get("forceRegistration"), "true")
	a := f.svc.Register(c, body, force, time.Now())
	if a.Operation != "" {
		w.Header().Set("Location", "https://"+r.Host+"/"+url.PathEscape(c.IDScope)+"/registrations/"+url.PathEscape(c.RegistrationID)+"/operations/"+a.Operation)
	}
	f.writeAnswer(w, a)
}

func (f *Front) operation(w http.ResponseWriter, r *http.Request) {
	f.writeAnswer(w, f.svc.Status(credentialOf(r), r.PathValue("operation"), time.Now()))
}

// lookup does not need the request's body, which repeats the registration id.
func (f *Front) lookup(w http.ResponseWriter, r *http.Request) {
	f.writeAnswer(w, f.svc.Lookup(credentialOf(r), time.Now()))
}

func (f *Front) writeAnswer(w http.ResponseWriter, a dps.Answer) {
	if a.RetryAfter > 0 {
		w.Header().Set("retry-after", strconv.Itoa(int(a.RetryAfter/time.Second)))
	}
	f.writeJSON(w, a.Status, a.Body)
}

func (f *Front) writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("x-ms-request-id", iot.TrackingID())
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

// writeError writes a refusal as the provisioning service does.
// https://learn.microsoft.com/rest/api/iot-dps/service/individual-enrollment/get#provisioningserviceerrordetails
func (f *Front) writeError(w http.ResponseWriter, r *http.Request, err error) {
	e := iot.AsError(err)
	// A context that has ended is no trouble of ours. Whoever stalled may still read the answer.
	if e.Code == api.CodeServerError && r.Context().Err() == nil {
		f.log.Error("answer provisioning request", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	w.Header().Set("x-ms-error-code", strconv.Itoa(e.Code))
	f.writeJSON(w, e.HTTPStatus, iot.NewErrorBody(e).JSON())
}

func readBody(r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(r.Body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, api.RefuseProvisioning(api.CodeMessageTooLarge, "The body has more than %d bytes.", tooLarge.Limit)
	}
	if err != nil {
		return nil, api.RefuseProvisioning(api.CodeArgumentInvalid, "read body: %v", err)
	}
	return data, nil
}
