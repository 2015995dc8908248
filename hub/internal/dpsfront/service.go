package dpsfront

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/dps"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// Limits of the service API.
const (
	// "maximum of 10 enrollments",
	// https://learn.microsoft.com/rest/api/iot-dps/service/individual-enrollment/run-bulk-operation
	maxBulk = 10
	// ours: the documentation names no page size
	maxPage     = 1000
	defaultPage = 100
)

func (f *Front) serviceRoutes() {
	for _, kind := range []dps.Kind{dps.Individual, dps.Group} {
		for _, root := range rootsOf(kind) {
			f.route("POST "+root+"/query", iot.EnrollmentRead, f.query(kind))
			f.route("POST "+root+"/{$}", iot.EnrollmentWrite, f.bulk(kind))
			f.route("POST "+root, iot.EnrollmentWrite, f.bulk(kind))
			f.route("GET "+root+"/{id}", iot.EnrollmentRead, f.get(kind))
			f.route("PUT "+root+"/{id}", iot.EnrollmentWrite, f.put(kind))
			f.route("DELETE "+root+"/{id}", iot.EnrollmentWrite, func(r *http.Request) (any, error) {
				return nil, f.svc.Delete(kind, r.PathValue("id"), matchOf(r))
			})
			f.route("POST "+root+"/{id}/attestationmechanism", iot.EnrollmentWrite, f.attestation(kind))
		}
	}
	f.route("GET /registrations/{id}", iot.EnrollmentRead, func(r *http.Request) (any, error) {
		return f.svc.Registration(r.PathValue("id"))
	})
	f.route("DELETE /registrations/{id}", iot.EnrollmentWrite, func(r *http.Request) (any, error) {
		return nil, f.svc.DeleteRegistration(r.PathValue("id"), matchOf(r))
	})
	f.route("POST /registrations/{id}/query", iot.EnrollmentRead, f.queryRegistrations)
	// Not Azure's: what a device has to be told besides its registration id and key.
	f.route("GET "+ownPath, iot.EnrollmentRead, func(*http.Request) (any, error) {
		return map[string]string{"idScope": f.svc.Scope()}, nil
	})
}

// rootsOf are the paths of a kind; clients write one of them in two ways.
func rootsOf(kind dps.Kind) []string {
	if kind == dps.Group {
		return []string{"/enrollmentGroups", "/enrollmentgroups"}
	}
	return []string{"/enrollments"}
}

// route adds a handler behind the check of a right. What it returns is written
// as JSON with status 200; nil as 204.
func (f *Front) route(pattern string, right iot.Right, handle func(r *http.Request) (any, error)) {
	f.services.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if f.hub.AuthenticateService(r.Header.Get("Authorization"), r.URL.Path, right, time.Now()) != nil {
			f.writeError(w, r, api.RefuseProvisioning(api.CodeProvisioningUnauthorized, "Unauthorized"))
			return
		}
		result, err := handle(r)
		if err != nil {
			f.writeError(w, r, err)
			return
		}
		f.write(w, r, result)
	})
}

// page is a part of a query's result.
type page struct {
	items        any
	kind         string // x-ms-item-type
	continuation string
}

func (f *Front) write(w http.ResponseWriter, r *http.Request, result any) {
	switch v := result.(type) {
	case nil:
		w.WriteHeader(http.StatusNoContent)
		return
	case api.Enrollment:
		w.Header().Set("ETag", v.ETag)
	case api.EnrollmentGroup:
		w.Header().Set("ETag", v.ETag)
	case api.RegistrationState:
		w.Header().Set("ETag", strconv.Quote(v.ETag))
	case page:
		w.Header().Set("x-ms-item-type", v.kind)
		if v.continuation != "" {
			w.Header().Set("x-ms-continuation", v.continuation)
		}
		result = v.items
	}
	body, err := json.Marshal(result)
	if err != nil {
		f.writeError(w, r, err)
		return
	}
	f.writeJSON(w, http.StatusOK, body)
}

func matchOf(r *http.Request) iot.Match { return iot.Match(r.Header.Get("If-Match")) }

// present gives an entry the form of its kind.
func (f *Front) present(kind dps.Kind, e dps.Entry) any {
	if kind == dps.Group {
		return e.EnrollmentGroup()
	}
	return f.svc.WithState(e)
}

func (f *Front) get(kind dps.Kind) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		e, err := f.svc.Get(kind, r.PathValue("id"), false)
		if err != nil {
			return nil, err
		}
		return f.present(kind, e), nil
	}
}

func (f *Front) put(kind dps.Kind) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		data, err := readBody(r)
		if err != nil {
			return nil, err
		}
		e, err := decodeEntry(kind, data, r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		if e, err = f.svc.Put(kind, e, matchOf(r)); err != nil {
			return nil, err
		}
		return f.present(kind, e), nil
	}
}

func (f *Front) attestation(kind dps.Kind) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		e, err := f.svc.Get(kind, r.PathValue("id"), true)
		if err != nil {
			return nil, err
		}
		return e.Attestation, nil
	}
}

// decodeEntry reads an enrollment of a kind, for the id in the address.
func decodeEntry(kind dps.Kind, data []byte, id string) (dps.Entry, error) {
	var e dps.Entry
	if kind == dps.Group {
		var g api.EnrollmentGroup
		if err := decode(data, &g); err != nil {
			return e, err
		}
		e = dps.EntryOfGroup(g)
	} else {
		var in api.Enrollment
		if err := decode(data, &in); err != nil {
			return e, err
		}
		e = dps.EntryOf(in)
	}
	if e.ID != "" && !strings.EqualFold(e.ID, id) {
		return e, api.RefuseProvisioning(api.CodeArgumentInvalid, "The body is for %.140q, the address for %.140q.", e.ID, id)
	}
	if e.ID == "" {
		e.ID = id
	}
	return e, nil
}

// decode reads a JSON object and keeps the numbers of twins as they are written.
func decode(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err := d.Decode(into)
	if err == nil && d.More() {
		return api.RefuseProvisioning(api.CodeArgumentInvalid, "The body has more than one JSON value.")
	}
	if err != nil {
		return api.RefuseProvisioning(api.CodeArgumentInvalid, "The body is not the JSON that is expected: %v", err)
	}
	return nil
}

// bulkRequest holds items of one of the kinds.
type bulkRequest struct {
	Mode             string            `json:"mode"`
	Enrollments      []json.RawMessage `json:"enrollments"`
	EnrollmentGroups []json.RawMessage `json:"enrollmentGroups"`
}

type bulkError struct {
	RegistrationID    string `json:"registrationId,omitempty"`
	EnrollmentGroupID string `json:"enrollmentGroupId,omitempty"`
	ErrorCode         int    `json:"errorCode"`
	ErrorStatus       string `json:"errorStatus"`
}

type bulkResult struct {
	IsSuccessful bool        `json:"isSuccessful"`
	Errors       []bulkError `json:"errors"`
}

func (f *Front) bulk(kind dps.Kind) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		data, err := readBody(r)
		if err != nil {
			return nil, err
		}
		var in bulkRequest
		if err := decode(data, &in); err != nil {
			return nil, err
		}
		items := in.Enrollments
		if kind == dps.Group {
			items = in.EnrollmentGroups
		}
		if len(items) == 0 || len(items) > maxBulk {
			return nil, api.RefuseProvisioning(api.CodeArgumentInvalid, "%d enrollments, must be 1 to %d", len(items), maxBulk)
		}
		out := bulkResult{IsSuccessful: true, Errors: []bulkError{}}
		for _, item := range items {
			id, err := f.bulkOne(kind, in.Mode, item)
			if err == nil {
				continue
			}
			e := iot.AsError(err)
			failed := bulkError{RegistrationID: id, ErrorCode: e.Code, ErrorStatus: e.Message}
			if kind == dps.Group {
				failed.RegistrationID, failed.EnrollmentGroupID = "", id
			}
			out.IsSuccessful = false
			out.Errors = append(out.Errors, failed)
		}
		return out, nil
	}
}

func (f *Front) bulkOne(kind dps.Kind, mode string, item json.RawMessage) (id string, err error) {
	var named struct {
		RegistrationID    string `json:"registrationId"`
		EnrollmentGroupID string `json:"enrollmentGroupId"`
	}
	if err := decode(item, &named); err != nil {
		return "", err
	}
	id = named.RegistrationID
	if kind == dps.Group {
		id = named.EnrollmentGroupID
	}
	e, err := decodeEntry(kind, item, id)
	if err != nil {
		return id, err
	}
	switch strings.ToLower(mode) {
	case "create":
		_, err = f.svc.Put(kind, e, "")
	case "update":
		_, err = f.svc.Put(kind, e, "*")
	case "updateifmatchetag":
		if e.Settings.ETag == "" {
			return id, api.RefuseProvisioning(api.CodeArgumentInvalid, "The enrollment has no etag.")
		}
		_, err = f.svc.Put(kind, e, iot.Match(e.Settings.ETag))
	case "delete":
		err = f.svc.Delete(kind, id, "")
	default:
		err = api.RefuseProvisioning(api.CodeArgumentInvalid, "mode must be create, update, updateIfMatchETag or delete, not %q", mode)
	}
	return id, err
}

// wholeQuery is what is understood of queries: everything.
var wholeQuery = regexp.MustCompile(`(?i)^\s*(\*|select\s+\*(\s+from\s+\w+)?)?\s*$`)

func (f *Front) query(kind dps.Kind) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		entries, err := f.svc.List(kind)
		if err != nil {
			return nil, err
		}
		var all []any
		for _, e := range entries {
			all = append(all, f.present(kind, e))
		}
		name := "enrollment"
		if kind == dps.Group {
			name = "enrollmentGroup"
		}
		return paged(r, all, name)
	}
}

func (f *Front) queryRegistrations(r *http.Request) (any, error) {
	states, err := f.svc.Registrations(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	all := make([]any, len(states))
	for i, st := range states {
		all[i] = st
	}
	return paged(r, all, "deviceRegistration")
}

// paged answers a query with a page of all.
func paged(r *http.Request, all []any, name string) (any, error) {
	data, err := readBody(r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Query string `json:"query"`
	}
	if len(bytes.TrimSpace(data)) > 0 {
		if err := decode(data, &in); err != nil {
			return nil, err
		}
	}
	if !wholeQuery.MatchString(in.Query) {
		return nil, api.RefuseProvisioning(api.CodeArgumentInvalid, `The embedded provisioning service understands the queries "*" and "SELECT * FROM …" only, without WHERE.`)
	}
	size, err := headerNumber(r, "x-ms-max-item-count", defaultPage)
	if err != nil {
		return nil, err
	}
	// The continuation token is the number of results that were given.
	start, err := headerNumber(r, "x-ms-continuation", 0)
	if err != nil {
		return nil, err
	}
	from := min(start, len(all))
	to := min(from+min(max(size, 1), maxPage), len(all))
	out := page{items: append([]any{}, all[from:to]...), kind: name}
	if to < len(all) {
		out.continuation = strconv.Itoa(to)
	}
	return out, nil
}

func headerNumber(r *http.Request, name string, otherwise int) (int, error) {
	text := r.Header.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, api.RefuseProvisioning(api.CodeArgumentInvalid, "%s is %.40q, must be a number", name, text)
	}
	return n, nil
}
