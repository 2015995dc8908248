//go:build interop && linux

package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// The names by which the clients reach storage within the namespace.
const (
	ownAccount  = "acme.blob.core.windows.net"
	azuriteName = "devstoreaccount1"
	azuriteKey  = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==" // well known: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
)

// Microsoft's clients upload at port 443 only, and build addresses of names.
func TestMicrosoftsClientsUpload(t *testing.T) {
	nodePackages(t)
	runInNamespace(t, "TestInsideTheUploadNamespace")
}

// TestInsideTheUploadNamespace is the process of the test above.
func TestInsideTheUploadNamespace(t *testing.T) {
	if os.Getenv(insideNamespace) != t.Name() {
		t.Skip("runs only as a process of TestMicrosoftsClientsUpload")
	}
	raiseLoopback(t)
	nameLoopback(t, hubName, ownAccount)
	files := writeFiles(t)

	t.Run("to the hub by its account's name", func(t *testing.T) {
		h := startUploadHub(t, hub.Uploads{}, hubName, ownAccount)
		checkUploads(t, h, files, h.CAPEM(), "https://"+ownAccount+"/uploads/", true)
	})
	t.Run("to the hub by a path", func(t *testing.T) {
		h := startUploadHub(t, hub.Uploads{}, hubName)
		some := append(slices.Clone(files[:4]), files[5:9]...) // the sizes have had their turn
		checkUploads(t, h, some, h.CAPEM(), "https://127.0.0.1/devstoreaccount1/uploads/", true)
	})
	t.Run("to Azurite", func(t *testing.T) {
		at, ca := startAzurite(t)
		h := startUploadHub(t, hub.Uploads{
			StorageConnectionString: fmt.Sprintf("AccountName=%s;AccountKey=%s;BlobEndpoint=https://%s/%[1]s;", azuriteName, azuriteKey, at),
			StorageCAPEM:            ca,
		}, hubName)
		checkUploads(t, h, files, append(h.CAPEM(), ca...), "https://"+at+"/"+azuriteName+"/uploads/", false)
	})
}

func startUploadHub(t *testing.T, u hub.Uploads, names ...string) *hubtest.Hub {
	t.Helper()
	return hubtest.Start(t, hubtest.WithDir(t.TempDir()), hubtest.WithConfig(func(c *hub.Config) {
		c.MQTTPort, c.HTTPSPort, c.Hostnames, c.Uploads = 8883, 443, names, u
	}))
}

// upload is a file of the plan that node/upload.js follows.
type upload struct {
	Path string `json:"path"`
	Name string `json:"name"`
	How  string `json:"how"`
}

// writeFiles writes one of each kind. The device SDK refuses an empty stream, and sends a request that is too short when a
// name has letters outside ASCII; so those are for others.
func writeFiles(t *testing.T) []upload {
	t.Helper()
	dir := t.TempDir()
	const block = 4 << 20
	random := rand.NewChaCha8([32]byte{1})
	var files []upload
	for i, f := range []struct {
		how, name string
		size      int64
	}{
		{"sdk", "one byte.txt", 1},
		{"sdk", "logs/2026/11/below a block", block - 1},
		{"sdk", "logs/2026/11/a block", block},
		{"sdk", "logs/2026/11/above a block", block + 1},
		{"sdk", "large.bin", 33 << 20},
		{"storage", "storage/empty", 0},
		{"storage", "storage/one byte (1)+&=,;'$.txt", 1},
		{"storage", "storage/a#b?c%20d", 17},
		{"storage", "storage/below", block - 1},
		{"storage", "storage/block", block},
		{"storage", "storage/above", block + 1},
		{"storage", "storage/large.bin", 65 << 20},
	} {
		path := filepath.Join(dir, fmt.Sprint(i))
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(file, random, f.size); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		files = append(files, upload{path, f.name, f.how})
	}
	return files
}

// checkUploads has the clients upload, and looks at what the hub has and says. isOwn is whether the blob endpoint is the
// hub's own.
func checkUploads(t *testing.T, h *hubtest.Hub, files []upload, trust []byte, uri string, isOwn bool) {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, trust, 0o600); err != nil {
		t.Fatal(err)
	}
	device := h.AddDevice("node")
	run := func(plan map[string]any) {
		t.Helper()
		text, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		out, err := nodeCommand(ctx, t, "upload.js", "NODE_EXTRA_CA_CERTS="+ca, "CONNECTION_STRING="+device, "PLAN="+string(text)).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "all of it held") {
			t.Fatalf("upload.js: %v\n%s", err, out)
		}
	}
	if isOwn {
		h.Fault(api.Fault{Name: api.FaultStorageStatus, Code: 503, Count: 1}) // the clients try again
	}
	run(map[string]any{"files": files, "refusals": isOwn})
	for _, f := range files {
		want, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		n := h.WaitUpload("node", func(n api.FileNotification) bool { return n.BlobName == "node/"+f.Name })
		if n.BlobSizeInBytes != int64(len(want)) || !strings.HasPrefix(n.BlobURI, uri+"node/") || time.Since(n.LastUpdatedTime) > 5*time.Minute {
			t.Errorf("%s: notification %+v, want %d bytes at %s", f.Name, n, len(want), uri)
		}
		if !bytes.Equal(h.ReadFile("node", f.Name), want) {
			t.Errorf("%s: the hub reads another content", f.Name)
		}
	}
	listed, err := h.Files(t.Context(), "node")
	wantFiles := len(files)
	if isOwn {
		wantFiles++ // that of the refusals
	}
	if err != nil || len(listed) != wantFiles {
		t.Errorf("%d files are listed, want %d, %v", len(listed), wantFiles, err)
	}

	// # an address that ends early: the upload fails, and the device says so
	before, err := h.Counters("node")
	if err != nil {
		t.Fatal(err)
	}
	h.Fault(api.Fault{Name: api.FaultShortSAS, Delay: 1, Count: 1})
	run(map[string]any{"files": []upload{}, "fails": upload{files[0].Path, "late", "sdk"}})
	h.WaitCounters("node", func(c api.Counters) bool { return c.UploadsFailed == before.UploadsFailed+1 })
}

// startAzurite runs Azure's emulator of storage, and gives its address and its authority.
func startAzurite(t *testing.T) (at string, ca []byte) {
	t.Helper()
	dir := t.TempDir()
	ca = writeCertificate(t, dir)
	port := strconv.Itoa(freePorts(t, 1)[0]) // its own one may be another's
	at = net.JoinHostPort("127.0.0.1", port)
	// --loose: the storage client that the device SDK brings along sends a header that Azurite refuses otherwise.
	cmd := exec.Command("node", filepath.Join(nodePackages(t), "node_modules", "azurite", "dist", "src", "blob", "main.js"),
		"--loose", "--disableTelemetry", "--skipApiVersionCheck", "--inMemoryPersistence", "--silent", "--blobHost", "127.0.0.1", "--blobPort", port,
		"--cert", filepath.Join(dir, "cert.pem"), "--key", filepath.Join(dir, "key.pem"))
	cmd.Dir, cmd.Stderr = dir, t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	until(t, "Azurite listens", func() bool {
		c, err := net.Dial("tcp", at)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return at, ca
}
