package hub_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// uploader is a device that uploads, as plain HTTPS requests.
type uploader struct {
	*testing.T
	id     string // "device" or "device/module"
	token  string // "" with a certificate
	at     string // host and port of the hub
	client *http.Client
}

func newUploader(t *testing.T, h *hubtest.Hub, id string) *uploader {
	t.Helper()
	return newUploaderAt(t, h.AddDevice(id), id, h.HTTPSAddr().String(), h.CAPEM(), h.DialContext)
}

func newUploaderAt(t *testing.T, connectionString, id, at string, ca []byte, dial func(context.Context, string, string) (net.Conn, error)) *uploader {
	t.Helper()
	token, err := hub.DeviceToken(connectionString, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return &uploader{t, id, token, at, &http.Client{Transport: transport}}
}

// newUploaderWith is newUploader for a device that has a certificate.
func newUploaderWith(t *testing.T, h *hubtest.Hub, d *hubtest.Device) *uploader {
	t.Helper()
	transport := &http.Transport{DialContext: h.DialContext, TLSClientConfig: d.TLSConfig()}
	t.Cleanup(transport.CloseIdleConnections)
	return &uploader{t, d.ID, "", h.HTTPSAddr().String(), &http.Client{Transport: transport}}
}

func (u *uploader) do(method, address, body string, header ...string) (status int, code, text string) {
	u.Helper()
	req, err := http.NewRequestWithContext(u.Context(), method, address, strings.NewReader(body))
	if err != nil {
		u.Fatal(err)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := u.client.Do(req)
	if err != nil {
		u.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		u.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("iothub-errorcode") + resp.Header.Get("x-ms-error-code"), string(data)
}

// post sends a request to the hub about the device.
func (u *uploader) post(path, body string) (status int, code, text string) {
	u.Helper()
	device, module, isModule := strings.Cut(u.id, "/")
	address := "https://" + u.at + "/devices/" + device
	if isModule {
		address += "/modules/" + module
	}
	if u.token == "" {
		return u.do("POST", address+path+"?api-version=2021-04-12", body)
	}
	return u.do("POST", address+path+"?api-version=2021-04-12", body, "Authorization: "+u.token)
}

func (u *uploader) refused(path, body string, wantStatus int, wantCode string) {
	u.Helper()
	if status, code, text := u.post(path, body); status != wantStatus || code != wantCode {
		u.Errorf("POST %s %s was answered %d %s, want %d %s\n%s", path, body, status, code, wantStatus, wantCode, text)
	}
}

func (u *uploader) begin(name string) api.UploadAddress {
	u.Helper()
	body, err := json.Marshal(map[string]string{"blobName": name})
	if err != nil {
		u.Fatal(err)
	}
	status, code, text := u.post("/files", string(body))
	var a api.UploadAddress
	if err := json.Unmarshal([]byte(text), &a); status != 200 || err != nil {
		u.Fatalf("begin an upload of %s: %d %s %s, %v", name, status, code, text, err)
	}
	return a
}

func addressOf(a api.UploadAddress) string {
	return "https://" + a.HostName + (&url.URL{Path: "/" + a.ContainerName + "/" + a.BlobName}).EscapedPath() + a.SASToken
}

func (u *uploader) put(a api.UploadAddress, content string) {
	u.Helper()
	if status, code, text := u.do("PUT", addressOf(a), content, "x-ms-blob-type: BlockBlob", "Content-Type: text/plain"); status != 201 {
		u.Fatalf("put %s: %d %s\n%s", a.BlobName, status, code, text)
	}
}

// complete reports a success with the correlation id in the body.
func (u *uploader) complete(a api.UploadAddress) {
	u.Helper()
	body, err := json.Marshal(api.UploadCompletion{CorrelationID: a.CorrelationID, IsSuccess: true, StatusCode: 201})
	if err != nil {
		u.Fatal(err)
	}
	if status, code, text := u.post("/files/notifications", string(body)); status != 204 || text != "" {
		u.Fatalf("complete: %d %s %s", status, code, text)
	}
}

func (u *uploader) upload(name, content string) {
	u.Helper()
	a := u.begin(name)
	u.put(a, content)
	u.complete(a)
}
