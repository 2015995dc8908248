package account_test

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-iot/fairlead/hub/internal/account"
	"github.com/fairlead-iot/fairlead/hub/internal/blobsas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "c2VjcmV0LWtleQ==" // of the tests

// standIn answers like a storage account for what the hub asks. It models the
// statuses and error codes, two pages of a list, and blobs without paths; it does
// not check signatures: Azurite does.
type standIn struct {
	*testing.T
	made  atomic.Int32
	blobs map[string]string
	fails atomic.Int32 // the status of every answer; 0 for none
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	refuse := func(status int, code string) {
		w.Header().Set("x-ms-error-code", code)
		w.WriteHeader(status)
	}
	if q.Get("sig") == "" || q.Get("ss") != "b" || q.Get("srt") != "co" || r.Header.Get("x-ms-version") == "" {
		s.Errorf("request without a signature: %s", r.URL.Path)
	}
	name, isBlob := strings.CutPrefix(r.URL.Path, "/acc/uploads/")
	switch {
	case s.fails.Load() != 0:
		refuse(int(s.fails.Load()), "OnOrder")
	case r.Method == http.MethodPut && r.URL.Path == "/acc/uploads" && q.Get("restype") == "container":
		if s.made.Add(1) > 1 {
			refuse(409, "ContainerAlreadyExists")
			return
		}
		w.WriteHeader(201)
	case r.Method == http.MethodGet && r.URL.Path == "/acc/uploads" && q.Get("comp") == "list" && q.Get("prefix") == "dev1/":
		if s.made.Load() == 0 {
			refuse(404, "ContainerNotFound")
			return
		}
		page := `<Blob><Name>dev1/a</Name><Properties><Last-Modified>Wed, 25 Nov 2026 12:00:00 GMT</Last-Modified><Etag>0x1</Etag><Content-Length>3</Content-Length><Content-Type>text/plain</Content-Type></Properties></Blob>`
		next := "more"
		if q.Get("marker") == next {
			page, next = strings.Replace(page, "dev1/a", "dev1/ü &amp; b", 1), ""
		}
		fmt.Fprintf(w, "\ufeff"+`<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>%s</Blobs><NextMarker>%s</NextMarker></EnumerationResults>`, page, next)
	case isBlob && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		text, ok := s.blobs[name]
		if !ok {
			refuse(404, "BlobNotFound")
			return
		}
		w.Header().Set("Last-Modified", "Wed, 25 Nov 2026 12:00:00 GMT")
		w.Header().Set("ETag", `"0x1"`)
		_, _ = io.WriteString(w, text)
	default:
		s.Errorf("%s %s was not expected", r.Method, r.URL)
	}
}

func start(t *testing.T, s *standIn) *account.Account {
	t.Helper()
	s.T = t
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	a, err := account.New(account.Config{
		ConnectionString: "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=" + key + ";BlobEndpoint=" + server.URL + "/acc/;",
		Container:        "uploads",
		CAPEM:            pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func TestAccount(t *testing.T) {
	s := &standIn{blobs: map[string]string{"dev1/a": "one", "dev1//../ü?#": "odd"}}
	a := start(t, s)
	ctx := t.Context()
	if files, err := a.List(ctx, "dev1/"); err != nil || len(files) != 0 {
		t.Errorf("list before the container is there: %v, %v", files, err)
	}
	for status, want := range map[int]error{400: fs.ErrInvalid, 401: fs.ErrPermission, 403: fs.ErrPermission, 404: fs.ErrNotExist, 503: nil} {
		s.fails.Store(int32(status))
		err := a.Prepare(ctx)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint(status, " OnOrder")) {
			t.Errorf("prepare: %v", err)
		}
		for _, kind := range []error{fs.ErrInvalid, fs.ErrPermission, fs.ErrNotExist} {
			if errors.Is(err, kind) != errors.Is(want, kind) {
				t.Errorf("%d is %v: %v", status, kind, errors.Is(err, kind))
			}
		}
	}
	s.fails.Store(0)
	for range 3 {
		if err := a.Prepare(ctx); err != nil || s.made.Load() != 1 {
			t.Errorf("prepare: %v, asked %d times", err, s.made.Load())
		}
	}
	if err := start(t, s).Prepare(ctx); err != nil {
		t.Errorf("prepare with a container that is there: %v", err)
	}
	for name, want := range map[string]string{"dev1/a": "one", "dev1//../ü?#": "odd"} {
		f, err := a.Stat(ctx, name)
		if err != nil || f.BlobName != name || f.Size != 3 || f.LastModified.Year() != 2026 {
			t.Errorf("stat %s: %+v, %v", name, f, err)
		}
		in, f, err := a.Open(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil || string(text) != want || f.Size != 3 || in.Close() != nil {
			t.Errorf("%s holds %q, %v", name, text, err)
		}
	}
	if _, err := a.Stat(ctx, "dev1/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat of nothing: %v", err)
	}
	files, err := a.List(ctx, "dev1/")
	if err != nil || len(files) != 2 || files[0].BlobName != "dev1/a" || files[1].BlobName != "dev1/ü & b" || files[0].Size != 3 {
		t.Errorf("list %+v, %v", files, err)
	}
}

func TestAddressesAreSignedByTheAccount(t *testing.T) {
	a := start(t, &standIn{})
	now := time.Now()
	got := a.Address("127.0.0.1:8443", "dev1/a", now, now.Add(time.Hour))
	if !strings.HasPrefix(got.HostName, "127.0.0.1:") || !strings.HasSuffix(got.HostName, "/acc") || got.ContainerName != "uploads" || got.BlobName != "dev1/a" {
		t.Errorf("address %+v", got)
	}
	q, err := url.ParseQuery(strings.TrimPrefix(got.SASToken, "?"))
	if err != nil {
		t.Fatal(err)
	}
	sas, err := blobsas.Parse(q)
	raw, _ := base64.StdEncoding.DecodeString(key)
	if err != nil || !sas.SignedFor(blobsas.Resource{Account: "acc", Container: "uploads", Blob: "dev1/a"}, raw) || !sas.Allows("w") || sas.Expiry.Before(now.Add(59*time.Minute)) {
		t.Errorf("signature %+v, %v", sas, err)
	}
	azure, err := account.New(account.Config{ConnectionString: "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=" + key + ";EndpointSuffix=core.chinacloudapi.cn", Container: "c"})
	if err != nil {
		t.Fatal(err)
	}
	if host := azure.Address("", "b", now, now.Add(time.Hour)).HostName; host != "acme.blob.core.chinacloudapi.cn" {
		t.Errorf("host %s", host)
	}
}

func TestErrorsSayWhatToDoAndHoldNoSecret(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"empty":       {"", "needs AccountName and AccountKey"},
		"development": {"UseDevelopmentStorage=true", "start Azurite with --cert and --key"},
		"no key":      {"AccountName=a", "needs AccountName and AccountKey"},
		"bad key":     {"AccountName=a;AccountKey=secret!", "AccountKey is not base64"},
		"http":        {"AccountName=a;AccountKey=" + key + ";BlobEndpoint=http://127.0.0.1:10000/a", "must be reached over https"},
		"protocol":    {"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=" + key, "must be reached over https"},
		"no address":  {"AccountName=a;AccountKey=" + key + ";BlobEndpoint=here", "BlobEndpoint is not an address"},
	}
	for name, tt := range tests {
		_, err := account.New(account.Config{ConnectionString: tt.text, Container: "c"})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret!") || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := account.New(account.Config{ConnectionString: "AccountName=a;AccountKey=" + key, CAPEM: []byte("none")}); err == nil {
		t.Error("a CA without a certificate was taken")
	}
	a, err := account.New(account.Config{ConnectionString: "AccountName=a;AccountKey=" + key + ";BlobEndpoint=https://127.0.0.1:1/a", Container: "c"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Prepare(t.Context()); err == nil || strings.Contains(err.Error(), "sig=") {
		t.Errorf("nobody listens: %v", err)
	}
}
