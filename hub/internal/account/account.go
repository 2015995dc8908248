package account

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/blobsas"
)

const (
	version    = "2019-12-12" // of the service, which Azurite knows as well
	ownLife    = 10 * time.Minute
	skew       = 15 * time.Minute // how far back an address is dated, for clocks that differ
	maxListing = 16 << 20         // bytes of one page of a list
	timeout    = 30 * time.Second // of a request, content left out
)

// Config of an Account.
type Config struct {
	// ConnectionString of the storage account, with its key; a secret.
	ConnectionString string
	// Container for uploads; it is made if it is missing.
	Container string
	// CAPEM is trusted beside the system's roots; nil for those alone.
	CAPEM []byte
}

// Account is a storage account.
type Account struct {
	name      string
	key       []byte
	endpoint  *url.URL // without a slash at its end
	container string
	http      *http.Client
	prepared  atomic.Bool
}

// New reads the connection string. It does not connect. Errors never contain the
// key.
func New(cfg Config) (*Account, error) {
	a, err := parse(cfg.ConnectionString)
	if err != nil {
		return nil, err
	}
	a.container = cfg.Container
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAPEM != nil {
		if tlsConfig.RootCAs, err = x509.SystemCertPool(); err != nil {
			tlsConfig.RootCAs = x509.NewCertPool()
		}
		if !tlsConfig.RootCAs.AppendCertsFromPEM(cfg.CAPEM) {
			return nil, errors.New("account: the CA file of the storage account holds no certificate")
		}
	}
	a.http = &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: timeout,
		IdleConnTimeout:       30 * time.Second,
	}}
	return a, nil
}

// parse reads a connection string,
// https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string.
func parse(text string) (*Account, error) {
	fields := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimSpace(text), ";") {
		name, value, _ := strings.Cut(part, "=")
		fields[strings.ToLower(name)] = value
	}
	if strings.EqualFold(fields["usedevelopmentstorage"], "true") {
		return nil, errors.New("account: UseDevelopmentStorage means HTTP, and devices upload over HTTPS only: start Azurite with --cert and --key, and give a connection string with its AccountName, AccountKey and BlobEndpoint=https://…")
	}
	a := &Account{name: fields["accountname"]}
	if a.name == "" || fields["accountkey"] == "" {
		return nil, errors.New("account: the storage connection string needs AccountName and AccountKey")
	}
	var err error
	if a.key, err = base64.StdEncoding.DecodeString(fields["accountkey"]); err != nil {
		return nil, errors.New("account: AccountKey is not base64")
	}
	endpoint := fields["blobendpoint"]
	if endpoint == "" {
		suffix := fields["endpointsuffix"]
		if suffix == "" {
			suffix = "core.windows.net"
		}
		endpoint = "https://" + a.name + ".blob." + suffix
	}
	a.endpoint, err = url.Parse(strings.TrimSuffix(endpoint, "/"))
	if err != nil || a.endpoint.Host == "" {
		return nil, errors.New("account: BlobEndpoint is not an address such as https://127.0.0.1:10000/devstoreaccount1")
	}
	if a.endpoint.Scheme != "https" || strings.EqualFold(fields["defaultendpointsprotocol"], "http") && fields["blobendpoint"] == "" {
		return nil, errors.New("account: the storage account must be reached over https: devices build such addresses and no others (Azurite: --cert and --key)")
	}
	return a, nil
}

// Close lets go of idle connections.
func (a *Account) Close() { a.http.CloseIdleConnections() }

// Address grants reading and writing a blob until the expiry.
func (a *Account) Address(_, blob string, now, expiry time.Time) api.UploadAddress {
	r := blobsas.Resource{Account: a.name, Container: a.container, Blob: blob}
	return api.UploadAddress{
		HostName: a.endpoint.Host + a.endpoint.Path, ContainerName: a.container, BlobName: blob,
		SASToken: "?" + blobsas.Sign(r, blobsas.Grant{Permissions: "rw", Start: now.Add(-skew), Expiry: expiry}, a.key),
	}
}

// IsOwn reports that someone else answers here.
func (a *Account) IsOwn() bool { return false }

// Prepare makes the container unless it is there. Once it has been, it returns
// at once.
func (a *Account) Prepare(ctx context.Context) error {
	if a.prepared.Load() {
		return nil
	}
	resp, err := a.do(ctx, http.MethodPut, "", "c", url.Values{"restype": {"container"}})
	if refusal, ok := errors.AsType[*refusal](err); ok && refusal.code == "ContainerAlreadyExists" {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("make container %s: %w", a.container, err)
	}
	if resp != nil {
		_ = resp.Body.Close() // it is empty
	}
	a.prepared.Store(true)
	return nil
}

// Stat looks at a blob; one that is not there is an fs.ErrNotExist.
func (a *Account) Stat(ctx context.Context, blob string) (api.File, error) {
	resp, err := a.do(ctx, http.MethodHead, blob, "r", nil)
	if err != nil {
		return api.File{}, err
	}
	_ = resp.Body.Close() // it is empty
	return fileOf(blob, resp), nil
}

// Open reads a blob; one that is not there is an fs.ErrNotExist.
func (a *Account) Open(ctx context.Context, blob string) (io.ReadCloser, api.File, error) {
	resp, err := a.do(ctx, http.MethodGet, blob, "r", nil)
	if err != nil {
		return nil, api.File{}, err
	}
	return resp.Body, fileOf(blob, resp), nil
}

func fileOf(blob string, resp *http.Response) api.File {
	modified, _ := http.ParseTime(resp.Header.Get("Last-Modified")) // zero for none
	return api.File{
		BlobName: blob, Size: resp.ContentLength, ContentType: resp.Header.Get("Content-Type"), ETag: resp.Header.Get("ETag"), LastModified: modified,
	}
}

// listing is a page of List Blobs,
// https://learn.microsoft.com/rest/api/storageservices/list-blobs.
type listing struct {
	Blobs []struct {
		Name       string
		Properties struct {
			LastModified string `xml:"Last-Modified"`
			ETag         string `xml:"Etag"`
			Size         int64  `xml:"Content-Length"`
			ContentType  string `xml:"Content-Type"`
		}
	} `xml:"Blobs>Blob"`
	NextMarker string
}

// List lists the blobs whose names begin with prefix.
func (a *Account) List(ctx context.Context, prefix string) ([]api.File, error) {
	files, marker := []api.File{}, ""
	for {
		q := url.Values{"restype": {"container"}, "comp": {"list"}, "prefix": {prefix}}
		if marker != "" {
			q.Set("marker", marker)
		}
		resp, err := a.do(ctx, http.MethodGet, "", "l", q)
		if refusal, ok := errors.AsType[*refusal](err); ok && refusal.code == "ContainerNotFound" {
			return files, nil // nothing was uploaded yet
		}
		if err != nil {
			return nil, err
		}
		var page listing
		err = xml.NewDecoder(io.LimitReader(resp.Body, maxListing)).Decode(&page)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return nil, fmt.Errorf("list blobs of %s: %w", a.name, err)
		}
		for _, b := range page.Blobs {
			modified, _ := http.ParseTime(b.Properties.LastModified) // zero for none
			files = append(files, api.File{
				BlobName: b.Name, Size: b.Properties.Size, ContentType: b.Properties.ContentType, ETag: b.Properties.ETag, LastModified: modified,
			})
		}
		if page.NextMarker == "" || page.NextMarker == marker {
			return files, nil
		}
		marker = page.NextMarker
	}
}

// refusal is an answer other than 2xx.
type refusal struct {
	status int
	code   string // x-ms-error-code
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s", r.status, r.code) }

// Is sorts refusals into the errors of package fs, which the rest of the hub
// knows.
func (r *refusal) Is(target error) bool {
	switch r.status {
	case http.StatusNotFound:
		return target == fs.ErrNotExist //nolint:errorlint // this is what errors.Is asks
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == fs.ErrPermission //nolint:errorlint // as above
	case http.StatusBadRequest:
		return target == fs.ErrInvalid //nolint:errorlint // as above
	default:
		return false
	}
}

// do sends a request about the container, or a blob in it, and gives the answer
// of status 2xx; the caller closes its body.
func (a *Account) do(ctx context.Context, method, blob, permissions string, q url.Values) (*http.Response, error) {
	where := fmt.Sprintf("%s %s", method, a.endpoint.JoinPath(a.container, blob).Redacted())
	address := *a.endpoint
	address.Path += "/" + a.container
	if blob != "" {
		address.Path += "/" + blob // not JoinPath, which would take out what a name may hold: "..", "//"
	}
	address.RawQuery = blobsas.SignAccount(a.name, blobsas.Grant{Permissions: permissions, Expiry: time.Now().Add(ownLife)}, a.key)
	if len(q) > 0 {
		address.RawQuery = q.Encode() + "&" + address.RawQuery
	}
	req, err := http.NewRequestWithContext(ctx, method, address.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: make request: %w", where, withoutAddress(err))
	}
	req.Header.Set("x-ms-version", version)
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, withoutAddress(err))
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection can serve again
	_ = resp.Body.Close()                                        // given up
	return nil, fmt.Errorf("%s: %w", where, &refusal{resp.StatusCode, resp.Header.Get("x-ms-error-code")})
}

// withoutAddress takes the address out of an error of net/http: it holds the
// signature.
func withoutAddress(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
