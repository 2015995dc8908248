package hub_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

const success = `{"isSuccess":true,"statusCode":201,"statusDescription":""}`

func TestUploadToTheHubsOwnEndpoint(t *testing.T) {
	h := hubtest.Start(t)
	d := newUploader(t, h, "dev1")
	const name = "logs/a b/ü?#.txt"
	a := d.begin(name)
	if a.HostName != h.HTTPSAddr().String()+"/devstoreaccount1" || a.ContainerName != "uploads" || a.BlobName != "dev1/"+name || !strings.HasPrefix(a.SASToken, "?") {
		t.Errorf("address %+v", a)
	}
	d.put(a, "hello")
	if left := h.FileNotifications(""); len(left) != 0 {
		t.Errorf("notifications before the device completed: %v", left)
	}
	// The correlation id in the address, as azure-iot-device for Node has it.
	if status, code, text := d.post("/files/notifications/"+url.PathEscape(a.CorrelationID), success); status != 204 {
		t.Fatalf("complete: %d %s %s", status, code, text)
	}
	got := h.WaitUpload("dev1", func(n api.FileNotification) bool { return n.BlobSizeInBytes == 5 })
	want := api.FileNotification{
		DeviceID: "dev1", BlobName: "dev1/" + name, BlobSizeInBytes: 5, LastUpdatedTime: got.LastUpdatedTime, EnqueuedTimeUTC: got.EnqueuedTimeUTC,
		BlobURI: "https://" + a.HostName + "/uploads/dev1/logs/a%20b/%C3%BC%3F%23.txt",
	}
	if diff := cmp.Diff(want, got); diff != "" || time.Since(got.LastUpdatedTime) > time.Minute || got.EnqueuedTimeUTC.Before(got.LastUpdatedTime) {
		t.Errorf("notification (-want +got):\n%s", diff)
	}
	if text := string(h.ReadFile("dev1", name)); text != "hello" {
		t.Errorf("the file holds %q", text)
	}
	d.upload("second.txt", "another")
	d.refused("/files/notifications/"+url.PathEscape(a.CorrelationID), success, 400, "InvalidFileUploadCorrelationId") // completed
	b := d.begin("failed")
	if status, code, _ := d.post("/files/notifications/"+url.PathEscape(b.CorrelationID), `{"isSuccess":false,"statusCode":500,"statusDescription":"no"}`); status != 204 {
		t.Errorf("report a failure: %d %s", status, code)
	}
	if all := h.FileNotifications("dev1"); len(all) != 2 || len(h.FileNotifications("other")) != 0 {
		t.Errorf("notifications %v", all)
	}
	c, err := h.Counters("dev1")
	if err != nil || c.UploadsStarted != 3 || c.UploadsSucceeded != 2 || c.UploadsFailed != 1 {
		t.Errorf("counters %+v, %v", c, err)
	}

	// A module has files of its own.
	m := newUploader(t, h, "dev1/mod")
	m.upload("second.txt", "of the module")
	if text := string(h.ReadFile("dev1/mod", "second.txt")); text != "of the module" {
		t.Errorf("the module's file holds %q", text)
	}

	// What a service sees over HTTPS.
	s := newClient(t, h, "service")
	files, err := s.Files(t.Context(), "dev1")
	if err != nil || len(files) != 3 || files[0].Name != name || files[1].Name != "mod/second.txt" || files[2].Name != "second.txt" || files[2].Size != 7 || files[2].ContentType != "text/plain" {
		t.Errorf("files %+v, %v", files, err)
	}
	in, size, err := s.OpenFile(t.Context(), "dev1", name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(in)
	if err != nil || string(text) != "hello" || size != 5 || in.Close() != nil {
		t.Errorf("read %q of %d bytes, %v", text, size, err)
	}
	_, _, err = s.OpenFile(t.Context(), "dev1", "none")
	if e, ok := errors.AsType[*api.Error](err); !ok || e.HTTPStatus != 404 || e.Name != "BlobNotFound" {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := s.Files(t.Context(), "nobody"); err == nil {
		t.Error("files of nobody")
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen, ended := make(chan string, 10), make(chan error)
	go func() {
		ended <- s.WatchFileNotifications(ctx, "dev1", true, func(n api.FileNotification) error {
			seen <- n.BlobName
			return nil
		})
	}()
	for _, want := range []string{"dev1/" + name, "dev1/second.txt", "dev1/mod/second.txt", "dev1/mod/late"} {
		if want == "dev1/mod/late" {
			m.upload("late", "comes while one watches")
		}
		select {
		case got := <-seen:
			if got != want {
				t.Errorf("watched %s, want %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s is not seen", want)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("watching ended with %v", err)
	}
}

func TestUploadsAreRefused(t *testing.T) {
	h := hubtest.Start(t)
	d, other := newUploader(t, h, "dev1"), newUploader(t, h, "dev2")
	d.refused("/files", `{"blobName":""}`, 400, "ArgumentInvalid")
	d.refused("/files", `{}`, 400, "ArgumentInvalid")
	d.refused("/files", `not JSON`, 400, "ArgumentInvalid")
	d.refused("/files", `{"blobName":"a\u0000b"}`, 400, "ArgumentInvalid")
	d.refused("/files", `{"blobName":"`+strings.Repeat("x", 1020)+`"}`, 400, "ArgumentInvalid")
	d.refused("/files/notifications", success, 400, "ArgumentInvalid")
	d.refused("/files/notifications/unknown", success, 400, "InvalidFileUploadCorrelationId")
	a := d.begin("b")
	d.refused("/files/notifications/other", `{"correlationId":"`+a.CorrelationID+`","isSuccess":true}`, 400, "ArgumentInvalid")
	other.refused("/files/notifications/"+url.PathEscape(a.CorrelationID), success, 400, "InvalidFileUploadCorrelationId")
	d.refused("/files/notifications/"+url.PathEscape(a.CorrelationID), success, 400, "InvalidStorageEndpointOrBlob") // nothing was uploaded
	d.put(a, "x")
	d.complete(a) // the refusal has not used it up

	// # more than 10 at a time, of this device
	pending := make([]api.UploadAddress, 10)
	for i := range pending {
		pending[i] = d.begin("b")
	}
	d.refused("/files", `{"blobName":"b"}`, 403, "DeviceMaximumActiveFileUploadLimitExceeded")
	other.begin("b")
	d.complete(pending[3])
	d.begin("b")
	d.refused("/files", `{"blobName":"b"}`, 403, "DeviceMaximumActiveFileUploadLimitExceeded")

	// # somebody else's token, none, a disabled device
	d.token, other.token = other.token, "SharedAccessSignature sr=x&sig=eA%3D%3D&se=1"
	d.refused("/files", `{"blobName":"b"}`, 401, "IotHubUnauthorizedAccess")
	other.refused("/files", `{"blobName":"b"}`, 401, "IotHubUnauthorizedAccess")
	other.refused("/files/notifications", success, 401, "IotHubUnauthorizedAccess")
	nobody := &uploader{t, "nobody", d.token, d.at, d.client}
	nobody.refused("/files", `{"blobName":"b"}`, 401, "IotHubUnauthorizedAccess")
	third := newUploader(t, h, "dev3")
	if _, err := h.UpdateDevice(api.Device{DeviceID: "dev3", Status: api.Disabled}); err != nil {
		t.Fatal(err)
	}
	third.refused("/files", `{"blobName":"b"}`, 403, "DeviceDisabled")

	// # a device that comes again under its name has nothing of the old one's
	if err := h.DeleteDevice("dev1"); err != nil {
		t.Fatal(err)
	}
	d = newUploader(t, h, "dev1")
	d.refused("/files/notifications/"+url.PathEscape(pending[0].CorrelationID), success, 400, "InvalidFileUploadCorrelationId")
	for range 10 {
		d.begin("b")
	}
}

func TestUploadsAndNotificationsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t, hubtest.WithConfig(func(c *hub.Config) { c.Uploads.Life = 10 * time.Minute }))
		d := newUploader(t, h, "dev1")
		a := d.begin("b")
		if a.HostName != "localhost/devstoreaccount1" {
			t.Errorf("host %s", a.HostName)
		}
		d.put(a, "x")
		for range 9 {
			d.begin("b")
		}
		time.Sleep(10 * time.Minute)
		if status, code, _ := d.do("PUT", addressOf(a), "late", "x-ms-blob-type: BlockBlob"); status != 403 || code != "AuthenticationFailed" {
			t.Errorf("an address after its end: %d %s", status, code)
		}
		d.refused("/files/notifications/"+url.PathEscape(a.CorrelationID), success, 400, "ExpiredFileUploadCorrelationId")
		d.upload("c", "those whose time is over do not count")

		// # a notification is received by one at a time, for a minute
		s := newClient(t, h, "service")
		receive := func() (api.FileNotification, string, bool) {
			t.Helper()
			n, lock, ok, err := s.ReceiveFileNotification(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return n, lock, ok
		}
		n, lock, ok := receive()
		if !ok || n.BlobName != "dev1/c" {
			t.Errorf("received %+v, %v", n, ok)
		}
		if n, _, ok := receive(); ok {
			t.Errorf("received %+v while another has it", n)
		}
		if err := s.AbandonFileNotification(t.Context(), lock); err != nil {
			t.Error(err)
		}
		_, lost, _ := receive()
		time.Sleep(time.Minute)
		if err := s.CompleteFileNotification(t.Context(), lost); err == nil {
			t.Error("a lock was good for more than a minute")
		}
		_, lock, _ = receive()
		if err := s.CompleteFileNotification(t.Context(), lock); err != nil {
			t.Error(err)
		}
		if all := h.FileNotifications(""); len(all) != 0 {
			t.Errorf("after its completion wait %v", all)
		}

		// # too often, or too long
		d.upload("often", "x")
		for range 10 {
			if _, lock, ok := receive(); !ok || s.AbandonFileNotification(t.Context(), lock) != nil {
				t.Fatal("it does not come back")
			}
		}
		d.upload("long", "x")
		time.Sleep(time.Hour - time.Minute)
		if all := h.FileNotifications(""); len(all) != 1 || all[0].BlobName != "dev1/long" {
			t.Errorf("after 10 attempts wait %v", all)
		}
		time.Sleep(time.Minute)
		if all := h.FileNotifications(""); len(all) != 0 {
			t.Errorf("after an hour wait %v", all)
		}
	})
}

func TestStorageFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		d, other := newUploader(t, h, "dev1"), newUploader(t, h, "dev2")
		put := func(u *uploader, a api.UploadAddress) (int, string) {
			status, code, _ := u.do("PUT", addressOf(a), "x", "x-ms-blob-type: BlockBlob")
			return status, code
		}
		a, b := d.begin("b"), other.begin("b")
		h.Fault(api.Fault{Name: api.FaultStorageStatus, Device: "dev1", Count: 2})
		for range 2 {
			if status, code := put(d, a); status != 503 || code != "ServerBusy" {
				t.Errorf("%d %s, want 503", status, code)
			}
			other.put(b, "untouched")
		}
		d.put(a, "well again")
		h.Fault(api.Fault{Name: api.FaultStorageStatus, Code: 403, Duration: api.Duration(time.Minute)})
		if status, code := put(other, b); status != 403 || code != "AuthenticationFailed" {
			t.Errorf("%d %s, want 403", status, code)
		}
		time.Sleep(time.Minute)
		remove := h.Fault(api.Fault{Name: api.FaultStorageDelay, Delay: api.Duration(3 * time.Minute)})
		began := time.Now()
		other.put(b, "late")
		if took := time.Since(began); took != 3*time.Minute {
			t.Errorf("it took %v", took)
		}
		remove()
		h.Fault(api.Fault{Name: api.FaultShortSAS, Device: "dev1", Delay: api.Duration(time.Second), Count: 1})
		short, long := d.begin("short"), d.begin("long")
		d.put(short, "in time")
		time.Sleep(time.Second)
		if status, code := put(d, short); status != 403 || code != "AuthenticationFailed" {
			t.Errorf("%d %s, want 403: the address has ended", status, code)
		}
		d.put(long, "x")
		d.complete(short) // the upload itself is still open
		if left := h.Faults(); len(left) != 0 {
			t.Errorf("faults left: %+v", left)
		}
		for _, bad := range []api.Fault{
			{Name: api.FaultStorageStatus, Code: 200}, {Name: api.FaultStorageDelay}, {Name: api.FaultShortSAS},
		} {
			if _, err := h.AddFault(bad); err == nil {
				t.Errorf("fault %+v was taken", bad)
			}
		}
	})
}

// A delay must not hold up the hub's end.
func TestASlowStorageEndsWithTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		d := newUploader(t, h, "dev1")
		a := d.begin("b")
		h.Fault(api.Fault{Name: api.FaultStorageDelay, Delay: api.Duration(24 * time.Hour)})
		answered := make(chan int)
		go func() {
			status, _, _ := d.do("PUT", addressOf(a), "x", "x-ms-blob-type: BlockBlob")
			answered <- status
		}()
		synctest.Wait()
		began := time.Now()
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if status := <-answered; status != 503 || time.Since(began) > time.Second {
			t.Errorf("answered %d after %v", status, time.Since(began))
		}
	})
}

// A device that has a certificate and no key, and what a recorder notes of uploads.
func TestUploadByCertificate(t *testing.T) {
	h := hubtest.Start(t)
	rec := h.Record()
	root := hubtest.NewCA(t, "plant")
	for id, ca := range map[string]*hubtest.CA{"own": nil, "signed": root} {
		d := newUploaderWith(t, h, h.NewCertificateDevice(id, ca))
		d.upload("a.txt", "hello")
		if text := string(h.ReadFile(id, "a.txt")); text != "hello" {
			t.Errorf("the file of %s holds %q", id, text)
		}
		b := d.begin("b.txt")
		if status, code, _ := d.post("/files/notifications/"+url.PathEscape(b.CorrelationID), `{"isSuccess":false,"statusCode":500}`); status != 204 {
			t.Errorf("report a failure: %d %s", status, code)
		}
		want := []string{
			"upload begun " + id + "/a.txt", "upload done " + id + "/a.txt", "upload begun " + id + "/b.txt", "upload failed " + id + "/b.txt",
		}
		if diff := cmp.Diff(want, rec.Lines(id)); diff != "" {
			t.Errorf("recorded of %s (-want +got):\n%s", id, diff)
		}
		d.id = "with-a-key-beside-" + id
		h.AddDevice(d.id)
		d.refused("/files", `{"blobName":"b"}`, 401, "IotHubUnauthorizedAccess") // another's name
	}
}

// Clients that stop in the middle of what they send, one that may write and one that nobody knows: both are given up.
func TestUploadsThatStallAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		d := newUploader(t, h, "dev1")
		good, err := url.Parse(addressOf(d.begin("b")))
		if err != nil {
			t.Fatal(err)
		}
		const soon = 5 * time.Second // what is left of a refused request may take
		for address, want := range map[string]struct {
			status string
			after  time.Duration
		}{
			good.RequestURI():  {"500 Internal Server Error", time.Minute + soon},
			good.EscapedPath(): {"401 Unauthorized", 10*time.Second + soon}, // ten for a client that reads the answer only then
		} {
			nc, err := h.DialContext(t.Context(), "tcp", "localhost:443")
			if err != nil {
				t.Fatal(err)
			}
			c := tls.Client(nc, &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS12})
			if _, err := io.WriteString(c, "PUT "+address+" HTTP/1.1\r\nHost: localhost\r\nx-ms-blob-type: BlockBlob\r\nContent-Length: 10\r\n\r\nhalf"); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			answer, err := io.ReadAll(c) // to the end of the connection
			if took := time.Since(began); !strings.HasPrefix(string(answer), "HTTP/1.1 "+want.status) || took < want.after || took > want.after+2*time.Second {
				t.Errorf("after %v: %.60q, %v; want %s after %v", took, answer, err, want.status, want.after)
			}
			_ = nc.Close()
		}
		if files, err := h.Files(t.Context(), "dev1"); err != nil || len(files) != 0 {
			t.Errorf("files %v, %v", files, err)
		}
	})
}

func TestUploadsSurviveKill(t *testing.T) {
	dir := t.TempDir()
	h := hubtest.Start(t, hubtest.WithDir(dir))
	cs, ca := h.AddDevice("dev1"), h.CAPEM()
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	k := startKilledHub(t, dir)
	d := newUploaderAt(t, cs, "dev1", k.https, ca, (&net.Dialer{}).DialContext)
	d.upload("done", "safe")
	half, whole := d.begin("half"), d.begin("whole")
	block := addressOf(half) + "&comp=block&blockid=YQ%3D%3D"
	if status, code, _ := d.do("PUT", block, "first part, "); status != 201 {
		t.Fatalf("put block: %d %s", status, code)
	}
	d.put(whole, "not completed yet")
	k.kill()

	h = hubtest.Start(t, hubtest.WithDir(dir))
	d.at = h.HTTPSAddr().String()
	if all := h.FileNotifications("dev1"); len(all) != 1 || all[0].BlobName != "dev1/done" || string(h.ReadFile("dev1", "done")) != "safe" {
		t.Errorf("notifications %v", all)
	}
	// The addresses are still good, at the new port.
	half.HostName, whole.HostName = d.at+"/devstoreaccount1", d.at+"/devstoreaccount1"
	if status, code, _ := d.do("PUT", addressOf(half)+"&comp=block&blockid=Yg%3D%3D", "second part"); status != 201 {
		t.Errorf("put block: %d %s", status, code)
	}
	if status, code, _ := d.do("PUT", addressOf(half)+"&comp=blocklist", "<BlockList><Latest>YQ==</Latest><Latest>Yg==</Latest></BlockList>"); status != 201 {
		t.Errorf("put block list: %d %s", status, code)
	}
	d.complete(half)
	d.complete(whole)
	if text := string(h.ReadFile("dev1", "half")) + "; " + string(h.ReadFile("dev1", "whole")); text != "first part, second part; not completed yet" {
		t.Errorf("the files hold %s", text)
	}
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Completed uploads do not come back.
	h = hubtest.Start(t, hubtest.WithDir(dir))
	d.at = h.HTTPSAddr().String()
	if all := h.FileNotifications("dev1"); len(all) != 3 {
		t.Errorf("notifications %v", all)
	}
	d.refused("/files/notifications/"+url.PathEscape(whole.CorrelationID), success, 400, "InvalidFileUploadCorrelationId")
}

func TestUploadsByTheHostsName(t *testing.T) {
	h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) {
		c.Hostnames = []string{"myhub.azure-devices.net", "acme.blob.core.windows.net"}
		c.Uploads.Container = "from-devices"
	}))
	// Every name leads to the hub, as hosts files and DNS do it.
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return h.DialContext(ctx, network, h.HTTPSAddr().String())
	}
	d := newUploaderAt(t, h.AddDevice("dev1"), "dev1", "myhub.azure-devices.net", h.CAPEM(), dial)
	a := d.begin("b")
	_, port, _ := net.SplitHostPort(h.HTTPSAddr().String())
	if a.HostName != "acme.blob.core.windows.net:"+port || a.ContainerName != "from-devices" {
		t.Errorf("address %+v", a)
	}
	d.put(a, "x")
	d.complete(a)
	if n := h.WaitUpload("dev1", nil); n.BlobURI != "https://acme.blob.core.windows.net:"+port+"/from-devices/dev1/b" {
		t.Errorf("notification %+v", n)
	}
}

func TestUploadSettingsAreChecked(t *testing.T) {
	tests := map[string]struct {
		u    hub.Uploads
		want string
	}{
		"life":      {hub.Uploads{Life: 25 * time.Hour}, "at most 24h"},
		"negative":  {hub.Uploads{Life: -1}, "more than 0"},
		"container": {hub.Uploads{Container: "Up"}, "3 to 63 lower-case letters"},
		"hyphens":   {hub.Uploads{Container: "a--b"}, "single hyphens"},
		"account":   {hub.Uploads{StorageConnectionString: "AccountName=x"}, "AccountName and AccountKey"},
		"ca":        {hub.Uploads{StorageCAPEM: []byte("x")}, "without a storage account"},
	}
	for name, tt := range tests {
		if _, err := hub.New(hub.Config{Uploads: tt.u}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// With a storage account elsewhere that refuses the hub, or does not work: devices
// are told which, and the hub's own faults of storage are refused.
func TestAnotherStorageAccount(t *testing.T) {
	var status atomic.Int32
	status.Store(http.StatusForbidden)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	defer server.Close()
	h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) {
		c.Uploads.StorageConnectionString = "AccountName=acc;AccountKey=a2V5;BlobEndpoint=" + server.URL + "/acc"
		c.Uploads.StorageCAPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	}))
	d := newUploader(t, h, "dev1")
	d.refused("/files", `{"blobName":"b"}`, 400, "InvalidStorageEndpointOrBlob")
	status.Store(http.StatusServiceUnavailable)
	d.refused("/files", `{"blobName":"b"}`, 500, "ServerError")
	status.Store(http.StatusCreated)
	a := d.begin("b")
	if want := strings.TrimPrefix(server.URL, "https://") + "/acc"; a.HostName != want {
		t.Errorf("host %s, want %s", a.HostName, want)
	}
	status.Store(http.StatusNotFound)
	d.refused("/files/notifications/"+url.PathEscape(a.CorrelationID), success, 400, "InvalidStorageEndpointOrBlob")
	status.Store(http.StatusInternalServerError)
	d.refused("/files/notifications/"+url.PathEscape(a.CorrelationID), success, 500, "ServerError")
	_, _, err := newClient(t, h, "service").OpenFile(t.Context(), "dev1", "b")
	if e, ok := errors.AsType[*api.Error](err); !ok || e.HTTPStatus != 500 || strings.Contains(e.Message, "sig=") {
		t.Errorf("read a file: %v", err)
	}
	for _, f := range []api.Fault{{Name: api.FaultStorageStatus}, {Name: api.FaultStorageDelay, Delay: 1}} {
		if _, err := h.AddFault(f); err == nil || !strings.Contains(err.Error(), "another storage account") {
			t.Errorf("fault %s: %v", f.Name, err)
		}
	}
	if got, _, _ := d.do("GET", "https://"+d.at+"/devstoreaccount1/uploads/dev1/b", ""); got != 404 {
		t.Errorf("the hub's own endpoint answers %d", got)
	}
}
