package blob

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairlead-iot/fairlead/hub/internal/blobsas"
)

// PathAccount is the account of addresses that begin with it, as in Azure's
// emulators: https://127.0.0.1:8443/devstoreaccount1/uploads/dev1/log.txt.
const PathAccount = "devstoreaccount1"

// Trouble is what a fault does to a request: an answer Delay later, and with
// Status instead of its own unless that is 0.
type Trouble struct {
	Status int
	Delay  time.Duration
}

// Config of an Endpoint.
type Config struct {
	Store *Store
	// Hostnames are all names that the listener has; those of the form NAME.blob.…
	// are accounts.
	Hostnames []string
	// Strike says what goes wrong with a request for the blob; the zero Trouble is
	// nothing.
	Strike func(blob string) Trouble
	// Done ends delays.
	Done   <-chan struct{}
	Logger *slog.Logger
}

// Endpoint answers requests for blobs.
type Endpoint struct {
	cfg     Config
	hosts   []string // NAME.blob.…, in lower case
	buffers buffers
}

var _ http.Handler = (*Endpoint)(nil)

// New makes an endpoint.
func New(cfg Config) *Endpoint {
	e := &Endpoint{cfg: cfg}
	for _, name := range cfg.Hostnames {
		if _, rest, _ := strings.Cut(strings.ToLower(name), "."); strings.HasPrefix(rest, "blob.") {
			e.hosts = append(e.hosts, strings.ToLower(name))
		}
	}
	return e
}

// Serves reports whether a request is for a blob.
func (e *Endpoint) Serves(r *http.Request) bool {
	_, ok := e.resource(r)
	return ok
}

// resource is what a request is for. Names are those after percent-decoding.
func (e *Endpoint) resource(r *http.Request) (blobsas.Resource, bool) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	var account string
	if host := strings.ToLower(hostOnly(r.Host)); slices.Contains(e.hosts, host) {
		account, _, _ = strings.Cut(host, ".")
	}
	if rest, ok := strings.CutPrefix(path, PathAccount+"/"); ok && account == "" {
		account, path = PathAccount, rest
	}
	container, name, _ := strings.Cut(path, "/")
	return blobsas.Resource{Account: account, Container: container, Blob: name}, account != ""
}

func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}

// Sign gives the host part of a blob's address, and the query that grants
// reading and writing it for a while, as the hub hands them to a device. fallback
// is the host and port at which the device has reached the hub; a NAME.blob.…
// goes before it.
func (e *Endpoint) Sign(fallback, container, name string, now, expiry time.Time) (host, query string) {
	r := blobsas.Resource{Account: PathAccount, Container: container, Blob: name}
	host = standardPort(fallback)
	if len(e.hosts) > 0 {
		r.Account, _, _ = strings.Cut(e.hosts[0], ".")
		if _, port, err := net.SplitHostPort(fallback); err == nil {
			host = standardPort(net.JoinHostPort(e.hosts[0], port))
		} else {
			host = e.hosts[0]
		}
	} else {
		host += "/" + PathAccount
	}
	return host, blobsas.Sign(r, blobsas.Grant{Permissions: "rw", Start: now.Add(-skew), Expiry: expiry}, e.cfg.Store.key)
}

func standardPort(hostport string) string { return strings.TrimSuffix(hostport, ":443") }

// call is one request.
type call struct {
	*Endpoint
	w        http.ResponseWriter
	r        *http.Request
	control  *http.ResponseController
	resource blobsas.Resource
	sas      blobsas.SAS
	version  string // of the service, that the client speaks
	id       string // x-ms-request-id

	sumHeader string // the checksum of what came, for a success
	sum       []byte
}

// ServeHTTP implements http.Handler.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Endpoint: e, w: w, r: r, control: http.NewResponseController(w), id: newRequestID()}
	c.resource, _ = e.resource(r)
	c.version = cmp.Or(r.Header.Get("x-ms-version"), r.URL.Query().Get("sv"))
	w.Header().Set("x-ms-request-id", c.id)
	if _, err := time.Parse(time.DateOnly, c.version); err == nil {
		w.Header().Set("x-ms-version", c.version)
	}
	if id := r.Header.Get("x-ms-client-request-id"); len(id) <= maxRequestID && id != "" {
		w.Header().Set("x-ms-client-request-id", id)
	}
	err := c.serve()
	if err == nil {
		c.drain()
		e.cfg.Logger.Debug("blob request", "method", r.Method, "blob", c.resource.Blob, "comp", r.URL.Query().Get("comp"), "block", r.URL.Query().Get("blockid"), "id", c.id)
		return
	}
	refusal := c.asRefusal(err)
	e.cfg.Logger.Debug("blob request refused", "method", r.Method, "blob", c.resource.Blob, "comp", r.URL.Query().Get("comp"), "block", r.URL.Query().Get("blockid"), "id", c.id, "err", refusal)
	if refusal.Code != codeTimedOut { // nothing is coming
		c.drain()
	}
	writeError(w, r.Method, c.id, refusal, time.Now())
}

// newRequestID makes an id as Azure's look like.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// asRefusal turns whatever went wrong into Azure's words.
func (c *call) asRefusal(err error) *Error {
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal
	}
	if errors.Is(err, errFull) {
		return refuse(http.StatusInsufficientStorage, codeSpace, "This hub keeps blobs in memory, %d bytes at most, and has no room left. Give it a directory.", int64(memoryLimit))
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return refuse(http.StatusInternalServerError, codeTimedOut, "The operation could not be completed within the permitted time: nothing came for %v.", idleLimit)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || c.r.Context().Err() != nil {
		return refuse(http.StatusBadRequest, codeInvalidInput, "The body ended before its announced length.")
	}
	c.cfg.Logger.Error("answer blob request", "method", c.r.Method, "blob", c.resource.Blob, "id", c.id, "err", err)
	return refuse(http.StatusInternalServerError, codeInternal, "The server encountered an internal error. Please retry the request.")
}

// drain reads what the client is still sending, up to a bound: many a client
// reads the answer only then, and takes a closed connection for a bad network.
func (c *call) drain() {
	if c.r.ContentLength == 0 {
		return
	}
	_ = c.control.SetReadDeadline(time.Now().Add(drainLimit)) // a connection without deadlines waits for ever
	n, err := c.buffers.copy(io.Discard, io.LimitReader(c.r.Body, maxDrained))
	if err == nil && n < maxDrained {
		_ = c.control.SetReadDeadline(time.Time{}) // all of it was read, and now the server reads by itself
	}
	// Otherwise the server tries to read the rest: until the deadline.
}

func (c *call) serve() error {
	if _, err := time.Parse(time.DateOnly, c.version); err != nil && c.r.Header.Get("x-ms-version") != "" {
		return refuse(http.StatusBadRequest, codeHeaderValue, "The value for one of the HTTP headers is not in the correct format: x-ms-version.")
	}
	if utf8.RuneCountInString(c.resource.Blob) > maxName {
		return refuse(http.StatusBadRequest, codeInvalidURI, "The blob's name has more than %d characters.", maxName)
	}
	if c.resource.Container == "" || c.resource.Blob == "" {
		return refuse(http.StatusBadRequest, codeInvalidURI, "The requested URI does not represent a blob on the server; operations on accounts and containers are not modelled.")
	}
	if err := c.authenticate(time.Now()); err != nil {
		return err
	}
	if trouble := c.cfg.Strike(c.resource.Blob); trouble != (Trouble{}) {
		if err := c.suffer(trouble); err != nil {
			return err
		}
	}
	q := c.r.URL.Query()
	if q.Has("snapshot") || q.Has("versionid") {
		return refuse(http.StatusBadRequest, codeQueryValue, "Snapshots and versions are not modelled.")
	}
	switch c.r.Method + " " + q.Get("comp") {
	case "PUT ":
		return c.putBlob()
	case "PUT block":
		return c.putBlock()
	case "PUT blocklist":
		return c.putBlockList()
	case "GET blocklist":
		return c.getBlockList()
	case "GET ", "HEAD ":
		return c.getBlob()
	case "DELETE ":
		return c.deleteBlob()
	}
	if q.Get("comp") != "" {
		return refuse(http.StatusBadRequest, codeQueryValue, "Value for one of the query parameters specified in the request URI is invalid: comp=%s with %s is not modelled.", q.Get("comp"), c.r.Method)
	}
	return refuse(http.StatusMethodNotAllowed, codeVerb, "The resource doesn't support the specified HTTP verb.")
}

// authenticate checks the signature: who made it, for what, how long, from
// where. https://learn.microsoft.com/rest/api/storageservices/create-service-sas
func (c *call) authenticate(now time.Time) error {
	sas, err := blobsas.Parse(c.r.URL.Query())
	switch {
	case errors.Is(err, blobsas.ErrNone) && c.r.Header.Get("Authorization") != "":
		return unauthenticated("This endpoint takes shared access signatures in the address, not an Authorization header.")
	case errors.Is(err, blobsas.ErrNone):
		return refuse(http.StatusUnauthorized, codeNoAuthentication, "Server failed to authenticate the request. The address carries no shared access signature.")
	case err != nil:
		return unauthenticated(err.Error())
	case !sas.SignedFor(c.resource, c.cfg.Store.key):
		return unauthenticated("Signature did not match.")
	case now.Before(sas.Start):
		return unauthenticated(fmt.Sprintf("Signature not valid in the specified time frame: Start [%s] - Current [%s]", sas.Start.UTC().Format(http.TimeFormat), now.UTC().Format(http.TimeFormat)))
	case !now.Before(sas.Expiry):
		return unauthenticated(fmt.Sprintf("Signature not valid in the specified time frame: Expiry [%s] - Current [%s]", sas.Expiry.UTC().Format(http.TimeFormat), now.UTC().Format(http.TimeFormat)))
	}
	if from, err := netip.ParseAddr(hostOnly(c.r.RemoteAddr)); err == nil && !sas.AllowsFrom(from) {
		return refuse(http.StatusForbidden, codeSourceAddress, "This request is not authorized to perform this operation using this source IP %s.", from)
	}
	c.sas = sas
	return nil
}

func (c *call) need(permissions string) error {
	if !c.sas.Allows(permissions) {
		return refuse(http.StatusForbidden, codePermission, "This request is not authorized to perform this operation using this permission.")
	}
	return nil
}

// suffer carries out a fault.
func (c *call) suffer(t Trouble) error {
	if t.Delay > 0 {
		late := time.NewTimer(t.Delay)
		defer late.Stop()
		select {
		case <-late.C:
		case <-c.r.Context().Done():
			return refuse(http.StatusInternalServerError, codeTimedOut, "The client has gone.")
		case <-c.cfg.Done:
			return refuse(http.StatusServiceUnavailable, codeServerBusy, "The hub stops.")
		}
	}
	if t.Status != 0 {
		return onOrder(t.Status)
	}
	return nil
}

// body reads the request's body, and gives up on a client that sends nothing.
func (c *call) body() io.Reader { return &patientReader{c.r.Body, c.control} }

type patientReader struct {
	body    io.Reader
	control *http.ResponseController
}

// Read implements io.Reader.
func (p *patientReader) Read(buf []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(idleLimit)) // a connection without deadlines waits for ever
	n, err := p.body.Read(buf)
	if errors.Is(err, io.EOF) {
		// From here on the server itself reads, to see whether the client goes.
		_ = p.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// patientWriter gives up on a client that reads nothing.
type patientWriter struct {
	w       io.Writer
	control *http.ResponseController
}

// Write implements io.Writer.
func (p *patientWriter) Write(buf []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(idleLimit)) // as above
	n, err := p.w.Write(buf)
	return n, err
}
