package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Limits of the workload API, ours.
const (
	// workloadTimeout bounds a request. The seed client has none.
	workloadTimeout = 10 * time.Second
	// workloadBytes bounds an answer: a trust bundle is some certificates.
	workloadBytes = 1 << 20
	// workloadVersion is the API's version where the environment names none: the oldest.
	workloadVersion = "2018-06-28"
)

// Workload is the IoT Edge runtime's workload API, which keeps a module's key and signs with it. It may be used from any
// goroutine.
//
// https://github.com/Azure/iotedge/blob/main/edgelet/api/workload.yaml
type Workload struct {
	base    string // "http://host/", what follows is relative to it
	shown   string // as the environment names it, for errors
	version string
	module  string
	genID   string
	client  *http.Client
}

// NewWorkload makes a client of the workload API at uri, "unix:///path" of a socket or "http://host:port". Its error
// wraps core.ErrInvalid. It does not touch the network.
func NewWorkload(uri, apiVersion, moduleID, generationID string) (*Workload, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, fmt.Errorf("workload URI: %w: %w", err, core.ErrInvalid)
	}
	w := &Workload{shown: uri, version: apiVersion, module: moduleID, genID: generationID}
	if w.version == "" {
		w.version = workloadVersion
	}
	transport := &http.Transport{Proxy: nil, DisableKeepAlives: true} // a request an hour, to this machine
	switch {
	case u.Scheme == "unix" && u.Path != "":
		path := u.Path
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
		w.base = "http://workload/"
	case u.Scheme == "http" && u.Host != "":
		w.base = "http://" + u.Host + strings.TrimSuffix(u.Path, "/") + "/"
	default:
		return nil, fmt.Errorf("workload URI %.200q: %w: it must be unix:///path or http://host:port", uri, core.ErrInvalid)
	}
	w.client = &http.Client{Transport: transport, Timeout: workloadTimeout}
	return w, nil
}

// TrustBundle returns the authorities, PEM, by which the module knows its Edge hub.
func (w *Workload) TrustBundle(ctx context.Context) ([]byte, error) {
	var answer struct {
		Certificate string `json:"certificate"`
	}
	if err := w.ask(ctx, http.MethodGet, "trust-bundle", nil, &answer); err != nil {
		return nil, err
	}
	if answer.Certificate == "" {
		return nil, &core.Error{Op: "ask " + w.shown, Kind: core.Transient, Err: errors.New("the trust bundle is empty")}
	}
	return []byte(answer.Certificate), nil
}

// Sign signs with the module's key, HMAC-SHA256. It is a SignFunc.
func (w *Workload) Sign(ctx context.Context, text []byte) ([]byte, error) {
	question := struct {
		KeyID string `json:"keyId"`
		Algo  string `json:"algo"`
		Data  []byte `json:"data"` // base64
	}{"primary", "HMACSHA256", text}
	var answer struct {
		Digest string `json:"digest"`
	}
	path := "modules/" + escape(w.module) + "/genid/" + escape(w.genID) + "/sign"
	if err := w.ask(ctx, http.MethodPost, path, question, &answer); err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.DecodeString(answer.Digest)
	if err != nil || len(raw) == 0 {
		return nil, &core.Error{Op: "ask " + w.shown + " to sign", Kind: core.Transient, Err: errors.New("the digest is not base64")}
	}
	return raw, nil
}

func (w *Workload) ask(ctx context.Context, method, path string, question, answer any) error {
	fail := func(status int, err error) error {
		return &core.Error{Op: "ask the IoT Edge runtime at " + w.shown, Kind: core.Transient, Status: status, Err: err}
	}
	var body io.Reader
	if question != nil {
		text, err := json.Marshal(question)
		if err != nil {
			return fail(0, err)
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, w.base+path+"?api-version="+escape(w.version), body)
	if err != nil {
		return fail(0, err)
	}
	if question != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := w.client.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // the URL of a socket says nothing
		}
		return fail(0, fmt.Errorf("%s: %w", path, err))
	}
	defer func() { _ = resp.Body.Close() }() // it has been read
	text, err := io.ReadAll(io.LimitReader(resp.Body, workloadBytes+1))
	switch {
	case err != nil:
		return fail(resp.StatusCode, fmt.Errorf("%s: read answer: %w", path, err))
	case len(text) > workloadBytes:
		return fail(resp.StatusCode, fmt.Errorf("%s: an answer of more than %d bytes", path, workloadBytes))
	case resp.StatusCode != http.StatusOK:
		var e struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(text, &e) // what is not JSON has no more to say than its status
		return fail(resp.StatusCode, fmt.Errorf("%s: status %d: %.200s", path, resp.StatusCode, e.Message))
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fail(resp.StatusCode, fmt.Errorf("%s: parse answer: %w", path, err))
	}
	return nil
}

// TrustBundle returns the authorities, PEM, by which the module knows its Edge hub: the workload API's, or the developer's
// file.
func (e EdgeEnvironment) TrustBundle(ctx context.Context) ([]byte, error) {
	if e.Workload == nil {
		return e.caFile()
	}
	return e.Workload.TrustBundle(ctx)
}
