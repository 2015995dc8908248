package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
)

// uploadFile does over HTTPS what a device does.
func uploadFile(t *testing.T, r hubReady, connectionString, name, content string) {
	t.Helper()
	ca, err := os.ReadFile(r.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	token, err := hub.DeviceToken(connectionString, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	do := func(method, address, body string, want int) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("x-ms-blob-type", "BlockBlob")
		if method == http.MethodPost {
			req.Header.Set("Authorization", token)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want {
			t.Fatalf("%s %s: %d %s, %v", method, req.URL.Path, resp.StatusCode, text, err)
		}
		return text
	}
	files := "https://" + r.HTTPS + "/devices/dev1/files"
	body, err := json.Marshal(map[string]string{"blobName": name})
	if err != nil {
		t.Fatal(err)
	}
	var a api.UploadAddress
	if err := json.Unmarshal(do("POST", files, string(body), 200), &a); err != nil {
		t.Fatal(err)
	}
	do("PUT", "https://"+a.HostName+(&url.URL{Path: "/" + a.ContainerName + "/" + a.BlobName}).EscapedPath()+a.SASToken, content, 201)
	do("POST", files+"/notifications/"+url.PathEscape(a.CorrelationID), `{"isSuccess":true}`, 204)
}

func TestHubFilesCommands(t *testing.T) {
	dir := t.TempDir()
	r, stop := serveHub(t, dir)
	defer stop()
	hubFiles := func(want int, args ...string) string {
		t.Helper()
		stdout, stderr, code := runHub(t.Context(), append(append([]string{"files"}, args...), "--dir", dir)...)
		if code != want {
			t.Errorf("%q: exit %d, want %d: %s", args, code, want, stderr)
		}
		if code != 0 {
			return stderr
		}
		return stdout
	}
	text, stderr, code := runHub(t.Context(), "device", "add", "dev1", "--dir", dir)
	if code != 0 {
		t.Fatal(stderr)
	}
	if text := hubFiles(0, "list", "dev1", "--json"); text != "[]\n" {
		t.Errorf("files before an upload: %q", text)
	}
	cs := strings.TrimSpace(text)
	uploadFile(t, r, cs, "logs/a b.txt", "hello\n")
	uploadFile(t, r, cs, "esc\u2028ape.txt", "other")
	if text := hubFiles(0, "list", "dev1"); !strings.HasPrefix(text, "FILE ") || !strings.Contains(text, "\nlogs/a b.txt ") || !strings.Contains(text, "  6  ") {
		t.Errorf("files list: %q", text)
	}
	var files []api.File
	if err := json.Unmarshal([]byte(hubFiles(0, "list", "dev1", "--json")), &files); err != nil || len(files) != 2 || files[1].Name != "logs/a b.txt" || files[1].BlobName != "dev1/logs/a b.txt" {
		t.Errorf("files list --json: %+v, %v", files, err)
	}
	if text := hubFiles(0, "get", "dev1", "logs/a b.txt"); text != "hello\n" {
		t.Errorf("files get: %q", text)
	}
	out := filepath.Join(t.TempDir(), "out")
	hubFiles(0, "get", "dev1", "logs/a b.txt", "--out", out)
	if text, err := os.ReadFile(out); err != nil || string(text) != "hello\n" {
		t.Errorf("--out holds %q, %v", text, err)
	}
	if text := hubFiles(exitFailed, "get", "dev1", "none", "--out", out+"2"); !strings.Contains(text, "files list dev1") {
		t.Errorf("a file that is not there: %s", text)
	}
	if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	hubFiles(exitFailed, "list", "nobody")

	if text := hubFiles(0, "notifications"); !strings.Contains(text, "  dev1  dev1/logs/a b.txt  6 bytes\n") || strings.Count(text, "\n") != 2 {
		t.Errorf("notifications: %q", text)
	}
	line := hubFiles(0, "notifications", "--follow", "--count", "1", "--json", "--device", "dev1")
	var n map[string]any
	if err := json.Unmarshal([]byte(line), &n); err != nil || n["deviceId"] != "dev1" || n["blobName"] != "dev1/logs/a b.txt" || n["blobSizeInBytes"] != 6.0 || n["lastUpdatedTime"] == nil || n["enqueuedTimeUtc"] == nil ||
		n["blobUri"] != "https://"+r.HTTPS+"/devstoreaccount1/uploads/dev1/logs/a%20b.txt" {
		t.Errorf("notifications --json: %q, %v", line, err)
	}
	if text := hubFiles(0, "notifications", "--device", "other"); text != "" {
		t.Errorf("notifications of another: %q", text)
	}
}

func TestHubUploadFlagsAreChecked(t *testing.T) {
	write := func(text string) string {
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const secret = "c2VjcmV0"
	tests := map[string]struct {
		args []string
		want string
	}{
		"text":      {[]string{"--storage-connection-string", "AccountName=a;AccountKey=" + secret}, "must be @FILE"},
		"no file":   {[]string{"--storage-connection-string", "@" + filepath.Join(t.TempDir(), "none")}, "no such file"},
		"empty":     {[]string{"--storage-connection-string", "@" + write(" \n")}, "is empty"},
		"no name":   {[]string{"--storage-connection-string", "@" + write("AccountKey="+secret)}, "needs AccountName"},
		"http":      {[]string{"--storage-connection-string", "@" + write("AccountName=a;AccountKey="+secret+";BlobEndpoint=http://127.0.0.1:10000/a\n")}, "https"},
		"ca":        {[]string{"--storage-ca", write("x")}, "without a storage account"},
		"no ca":     {[]string{"--storage-ca", filepath.Join(t.TempDir(), "none")}, "no such file"},
		"life":      {[]string{"--upload-life", "0"}, "--upload-life"},
		"long life": {[]string{"--upload-life", "48h"}, "at most 24h"},
		"container": {[]string{"--upload-container", "A"}, "lower-case letters"},
	}
	for name, tt := range tests {
		_, stderr, code := runHub(t.Context(), append([]string{"serve", "--dir", t.TempDir(), "--mqtt-port", "0", "--https-port", "0"}, tt.args...)...)
		if code != exitUsage || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, secret) {
			t.Errorf("%s: %d %s, want %d with %q", name, code, stderr, exitUsage, tt.want)
		}
	}
	for _, args := range [][]string{{"files", "list", "dev1"}, {"files", "get", "dev1", "x"}, {"files", "notifications"}} {
		_, stderr, code := runHub(t.Context(), append(args, "--connection-string", "HostName=x;SharedAccessKeyName=s;SharedAccessKey="+secret)...)
		if code != exitUsage || !strings.Contains(stderr, "a real hub") || strings.Contains(stderr, secret) {
			t.Errorf("%q: %d %s", args, code, stderr)
		}
	}
}
