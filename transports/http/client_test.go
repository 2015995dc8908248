package http_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/transports/http"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// given is a source with a fixed answer, which counts how often it is asked.
type given struct {
	credential core.Credential
	err        error
	asked      int
}

func (g *given) Credential(context.Context) (core.Credential, error) {
	g.asked++
	return g.credential, g.err
}

func tokenOf(t *testing.T, connectionString string) core.Credential {
	t.Helper()
	token, err := hub.DeviceToken(connectionString, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return core.Credential{Token: core.Secret(token)}
}

func certificateOf(d *hubtest.Device) core.Credential {
	c := d.TLSConfig().Certificates[0]
	return core.Credential{Certificate: c.Certificate, Signer: c.PrivateKey.(crypto.Signer)}
}

func clientOf(t *testing.T, h *hubtest.Hub, id core.Identity, source core.CredentialSource) *http.Client {
	t.Helper()
	id.Hostname = "localhost"
	c, err := http.New(http.Config{
		Identity: id, Credentials: source, ProductInfo: "test/1", TLS: netdial.TLSConfig{ServerVerificationCert: h.CAPEM()}, DialContext: h.DialContext,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func addressOf(i core.StorageInfo) string {
	return "https://" + i.HostName + (&url.URL{Path: "/" + i.ContainerName + "/" + i.BlobName}).EscapedPath() + i.SASToken.Reveal()
}

// put writes a blob by way of the storage transport.
func put(t *testing.T, h *hubtest.Hub, i core.StorageInfo, content string) {
	t.Helper()
	s, err := http.NewStorage(http.StorageConfig{TLS: netdial.TLSConfig{ExtraCA: h.CAPEM()}, DialContext: h.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	defer s.CloseIdleConnections()
	req, err := nethttp.NewRequestWithContext(t.Context(), nethttp.MethodPut, addressOf(i), strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("x-ms-blob-type", "BlockBlob")
	resp, err := s.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != nethttp.StatusCreated {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("put: %s %s", resp.Status, text)
	}
}

func TestAnUploadIsBegunAndReported(t *testing.T) {
	h := hubtest.StartPipe(t)
	key := &given{credential: tokenOf(t, h.AddDevice("dev1"))}
	h.AddDevice("dev1/mod")
	certificate := h.NewCertificateDevice("dev2", nil)
	for _, c := range []struct {
		name   string
		id     core.Identity
		source *given
	}{
		{"a key", core.Identity{DeviceID: "dev1"}, key},
		{"a certificate", core.Identity{DeviceID: "dev2"}, &given{credential: certificateOf(certificate)}},
		{"a strange id", core.Identity{DeviceID: "a%b*?"}, &given{credential: tokenOf(t, h.AddDevice("a%b*?"))}},
		{"who it is turns out late", core.Identity{}, &given{credential: core.Credential{
			Token: key.credential.Token, Identity: core.Identity{Hostname: "localhost", DeviceID: "dev1"},
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := clientOf(t, h, c.id, c.source)
			const name = "a b/ü+#?%20.txt"
			info, err := f.StorageInfo(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(info.BlobName, "/"+name) || !strings.HasPrefix(info.SASToken.Reveal(), "?") || info.CorrelationID == "" {
				t.Errorf("storage info %+v", info)
			}
			put(t, h, info, c.name)
			if err := f.NotifyUpload(t.Context(), core.UploadOutcome{CorrelationID: info.CorrelationID, Success: true, StatusCode: 201}); err != nil {
				t.Fatal(err)
			}
			device := strings.TrimSuffix(info.BlobName, "/"+name)
			if n := h.WaitUpload(device, nil); n.BlobName != info.BlobName || string(h.ReadFile(device, name)) != c.name {
				t.Errorf("notification %+v", n)
			}
			// # a failure is told as well
			if info, err = f.StorageInfo(t.Context(), "b"); err != nil {
				t.Fatal(err)
			}
			before := h.WaitCounters(device, func(api.Counters) bool { return true }).UploadsFailed
			if err := f.NotifyUpload(t.Context(), core.UploadOutcome{CorrelationID: info.CorrelationID, StatusCode: 500, Description: "no"}); err != nil {
				t.Fatal(err)
			}
			h.WaitCounters(device, func(n api.Counters) bool { return n.UploadsFailed == before+1 })
			if c.source.asked < 4 {
				t.Errorf("%d credentials for 4 requests, want a fresh one for each", c.source.asked)
			}
		})
	}
}

func TestRefusalsHaveKindStatusAndTrackingID(t *testing.T) {
	h := hubtest.StartPipe(t)
	good := &given{credential: tokenOf(t, h.AddDevice("dev1"))}
	f := clientOf(t, h, core.Identity{DeviceID: "dev1"}, good)
	check := func(what string, err error, kind core.Kind, status int, sentinel error, text string) {
		t.Helper()
		e, ok := errors.AsType[*core.Error](err)
		if !ok || e.Kind != kind || e.Status != status || !errors.Is(err, sentinel) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v (%+v), want %s, status %d and %q", what, err, e, kind, status, text)
		}
		if err != nil && strings.Contains(err.Error(), "sig=") {
			t.Errorf("%s: the error shows a signature: %v", what, err)
		}
	}
	_, err := clientOf(t, h, core.Identity{DeviceID: "dev1"}, &given{credential: core.Credential{Token: good.credential.Token + "x"}}).StorageInfo(t.Context(), "b")
	check("a wrong token", err, core.Unauthorized, 401, core.ErrCredential, "401")
	check("an unknown number", f.NotifyUpload(t.Context(), core.UploadOutcome{CorrelationID: "none"}), core.Refused, 400, core.ErrService, "correlation id")
	var begun []core.StorageInfo
	for range 10 {
		i, err := f.StorageInfo(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		begun = append(begun, i)
	}
	_, err = f.StorageInfo(t.Context(), "b")
	check("too many", err, core.Throttled, 403, core.ErrService, "10 uploads")
	if e, _ := errors.AsType[*core.Error](err); e.TrackingID == "" {
		t.Errorf("no tracking id: %+v", e)
	}
	if err := f.NotifyUpload(t.Context(), core.UploadOutcome{CorrelationID: begun[0].CorrelationID}); err != nil {
		t.Error(err)
	}
	for status, kind := range map[int]core.Kind{429: core.Throttled, 500: core.Transient, 503: core.Transient, 404: core.Refused, 408: core.Transient} {
		remove := h.Fault(api.Fault{Name: api.FaultHTTPStatus, Code: status, Count: 1})
		_, err := f.StorageInfo(t.Context(), "b")
		check(nethttp.StatusText(status), err, kind, status, core.ErrService, "")
		remove()
	}
	if _, err := f.StorageInfo(t.Context(), ""); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("no name: %v", err)
	}
	want := &core.Error{Op: "sign", Kind: core.Unauthorized, Err: errors.New("no key")}
	if _, err := clientOf(t, h, core.Identity{DeviceID: "dev1"}, &given{err: want}).StorageInfo(t.Context(), "b"); !errors.Is(err, want) {
		t.Errorf("no credential: %v", err)
	}
}

// scripted is a hub that answers as the test says, with an authority of its own.
func scripted(t *testing.T, handle nethttp.HandlerFunc) *http.Client {
	t.Helper()
	s := httptest.NewUnstartedServer(handle)
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	c, err := http.New(http.Config{
		Identity:    core.Identity{Hostname: "example.com", DeviceID: "d 1", Gateway: "gw.example.com"},
		Credentials: &given{credential: core.Credential{Token: "SharedAccessSignature sr=x&sig=secret"}},
		UserAgent:   "fairlead/1 (test)", ProductInfo: "acme/2", TLS: netdial.TLSConfig{ServerVerificationCert: ca},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRequestsAreAsTheSeedClients(t *testing.T) {
	seen := make(chan *nethttp.Request, 2)
	bodies := make(chan string, 2)
	c := scripted(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		b, _ := io.ReadAll(r.Body)
		seen <- r
		bodies <- string(b)
		_, _ = io.WriteString(w, `{"correlationId":"c/1","hostName":"s.test","containerName":"u","blobName":"d 1/b","sasToken":"sv=1&sig=x"}`)
	})
	info, err := c.StorageInfo(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if info.SASToken.Reveal() != "?sv=1&sig=x" {
		t.Errorf("token %q: it begins with ?", info.SASToken.Reveal())
	}
	if err := c.NotifyUpload(t.Context(), core.UploadOutcome{CorrelationID: "c/1", Success: true, StatusCode: 201, Description: "ok"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ path, contentType, body string }{
		{"/devices/d%201/files", "application/json", `{"blobName":"b"}`},
		{"/devices/d%201/files/notifications", "application/json; charset=utf-8", `{"correlationId":"c/1","isSuccess":true,"statusCode":201,"statusDescription":"ok"}`},
	} {
		r := <-seen
		if r.URL.EscapedPath() != want.path || r.URL.Query().Get("api-version") == "" || r.Header.Get("Content-Type") != want.contentType || r.Method != "POST" ||
			r.Host != "example.com" || r.Header.Get("User-Agent") != "fairlead%2F1%20%28test%29%20acme%2F2" || !strings.HasPrefix(r.Header.Get("Authorization"), "SharedAccessSignature ") {
			t.Errorf("request %s %s, host %s, header %v", r.Method, r.URL, r.Host, r.Header)
		}
		if got := <-bodies; got != want.body {
			t.Errorf("body %s, want %s", got, want.body)
		}
	}
}

func TestStrangeAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer nethttp.HandlerFunc
		kind   core.Kind
		text   string
		after  time.Duration
	}{
		{"no JSON", func(w nethttp.ResponseWriter, _ *nethttp.Request) { _, _ = io.WriteString(w, "<html>") }, core.Transient, "not the JSON", 0},
		{"half an address", func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			_, _ = io.WriteString(w, `{"correlationId":"c"}`)
		}, core.Transient, "lacks a part", 0},
		{"endless", func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			for range 100 {
				_, _ = w.Write(bytes.Repeat([]byte(" "), 1024))
			}
		}, core.Transient, "not the JSON", 0},
		{"a proxy's page", func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(502)
			_, _ = io.WriteString(w, "<html>bad gateway</html>")
		}, core.Transient, "502 Bad Gateway", 7 * time.Second},
		{"an error within an error", func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.WriteHeader(404)
			inner, _ := json.Marshal(map[string]any{"errorCode": 404001, "trackingId": "T1", "message": "no such device"})
			_ = json.NewEncoder(w).Encode(map[string]string{"Message": string(inner), "ExceptionMessage": ""})
		}, core.Unauthorized, "(404001): no such device", 0},
		{"the service's form", func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.Header().Set("Retry-After", time.Now().Add(time.Hour).UTC().Format(nethttp.TimeFormat))
			w.WriteHeader(429)
			_, _ = io.WriteString(w, `{"Message":"ErrorCode:ThrottlingException;slow down","ExceptionMessage":"Tracking ID:T2-G:0-TimeStamp:01/01/2026"}`)
		}, core.Throttled, "429 Too Many Requests ThrottlingException: slow down", 59 * time.Minute},
		{"cut off", func(nethttp.ResponseWriter, *nethttp.Request) { panic(nethttp.ErrAbortHandler) }, core.Transient, "EOF", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := scripted(t, c.answer).StorageInfo(t.Context(), "b")
			e, ok := errors.AsType[*core.Error](err)
			if !ok || e.Kind != c.kind || !strings.Contains(err.Error(), c.text) || e.RetryAfter < c.after || c.after == 0 && e.RetryAfter != 0 {
				t.Errorf("error %v (%+v), want %s and %q", err, e, c.kind, c.text)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
}

func TestARequestEndsWithItsContext(t *testing.T) {
	begun := make(chan struct{})
	c := scripted(t, func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		_, _ = io.ReadAll(r.Body) // only then is the client's end seen
		close(begun)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if _, err := c.StorageInfo(ctx, "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the caller's end", err)
	}
}

// leaving calls left once with what is read after it was armed, before the reader has it.
type leaving struct {
	net.Conn
	armed atomic.Bool
	left  func()
}

func (l *leaving) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if l.armed.CompareAndSwap(true, false) {
		l.left()
	}
	return n, err
}

// TestWhatIsSaidToACallerWhoLeftIsNotItsError: a server, or a proxy, that sees the client go may answer, and be read before
// the connection is closed. Here the caller leaves while the end of the answer is on its way to it.
func TestWhatIsSaidToACallerWhoLeftIsNotItsError(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	s.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for _, status := range []string{"200 OK", "401 Unauthorized", "502 Bad Gateway"} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			near, far := net.Pipe()
			conn := &leaving{Conn: near, left: cancel}
			go func() {
				defer far.Close() //nolint:errcheck // it is the end
				server := tls.Server(far, &tls.Config{Certificates: s.TLS.Certificates})
				if req, err := nethttp.ReadRequest(bufio.NewReader(server)); err != nil {
					t.Error(err)
				} else if _, err := io.ReadAll(req.Body); err != nil {
					t.Error(err)
				}
				if _, err := io.WriteString(server, "HTTP/1.1 "+status+"\r\nContent-Length: 6\r\n\r\n"); err != nil {
					t.Error(err)
				}
				synctest.Wait() // until the client reads on
				conn.armed.Store(true)
				if _, err := io.WriteString(server, "<html>"); err != nil {
					t.Error(err)
				}
				_, _ = io.Copy(io.Discard, far)
			}()
			c, err := http.New(http.Config{
				Identity: core.Identity{Hostname: "example.com", DeviceID: "dev1"}, Credentials: &given{credential: core.Credential{Token: "secret"}},
				TLS: netdial.TLSConfig{ServerVerificationCert: ca}, DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.StorageInfo(ctx, "b"); !errors.Is(err, context.Canceled) || core.KindOf(err) != core.Transient {
				t.Errorf("%s is told to the caller as %v, want the caller's end", status, err)
			}
		})
	}
}

func TestTheHubsCertificateIsChecked(t *testing.T) {
	h := hubtest.StartPipe(t)
	source := &given{credential: tokenOf(t, h.AddDevice("dev1"))}
	c, err := http.New(http.Config{Identity: core.Identity{Hostname: "localhost", DeviceID: "dev1"}, Credentials: source, DialContext: h.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.StorageInfo(t.Context(), "b")
	if e, ok := errors.AsType[*core.Error](err); !ok || e.Phase != netdial.PhaseTLS || e.Kind != core.Fatal {
		t.Errorf("a stranger's certificate: %v", err)
	}
	s, err := http.NewStorage(http.StorageConfig{DialContext: h.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"https://localhost/b?sig=secret", "http://localhost/b?sig=secret"} {
		req, _ := nethttp.NewRequestWithContext(t.Context(), nethttp.MethodGet, address, nil)
		resp, err := s.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		if e, ok := errors.AsType[*core.Error](err); !ok || e.Kind != core.Fatal || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestACertificateGoesToTheHubByTLS12AndNeverToStorage(t *testing.T) {
	h := hubtest.StartPipe(t)
	d := h.NewCertificateDevice("dev1", nil)
	versions := make(chan uint16, 1)
	f, err := http.New(http.Config{
		Identity: core.Identity{Hostname: "localhost", DeviceID: "dev1"}, Credentials: &given{credential: certificateOf(d)},
		TLS: netdial.TLSConfig{ServerVerificationCert: h.CAPEM()}, DialContext: spied(h, versions),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.StorageInfo(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if got := <-versions; got != tls.VersionTLS12 {
		t.Errorf("version %s, want TLS 1.2: later ones cannot renegotiate", tls.VersionName(got))
	}
}

// spied tells the version that the server's hello names.
func spied(h *hubtest.Hub, versions chan<- uint16) netdial.ContextDialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := h.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &spy{Conn: conn, versions: versions}, nil
	}
}

type spy struct {
	net.Conn
	seen     []byte
	versions chan<- uint16
}

// The server's first record is its hello: after 5 bytes of record and 4 of message come the version, 32 random bytes, the
// session's id and the suite. TLS 1.3 says 1.2 there, and has suites of its own. RFC 8446, 4.1.3.
func (s *spy) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if s.versions == nil {
		return n, err
	}
	if s.seen = append(s.seen, p[:n]...); len(s.seen) > 44 {
		at := 44 + int(s.seen[43])
		if len(s.seen) > at+1 {
			version := uint16(tls.VersionTLS12)
			if s.seen[at] == 0x13 {
				version = tls.VersionTLS13
			}
			s.versions <- version
			s.versions = nil
		}
	}
	return n, err
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	if _, err := http.New(http.Config{}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("no credentials: %v", err)
	}
	if _, err := http.New(http.Config{Credentials: &given{}, Port: 70000}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("a wrong port: %v", err)
	}
	if _, err := http.NewStorage(http.StorageConfig{TLS: netdial.TLSConfig{ExtraCA: []byte("x")}}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("a wrong authority: %v", err)
	}
}
