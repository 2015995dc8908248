//go:build interop

package interop_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/internal/bench/figure"
)

// The queue of uploads against Azure's own emulator of storage.
func TestOurUploadsToAzurite(t *testing.T) {
	h, c := azuriteDevice(t)
	const block = 4 << 20
	for i, name := range []string{"plain", "a b/c+d%20&=?#.txt", "ü/日本/😀", "dots/x..y//slashes", "five"} {
		size := []int{0, 1, block - 1, block, block + 1}[i]
		content := contentOf(size)
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := c.UploadFile(ctx, name, path, nil)
		cancel()
		if err != nil {
			t.Errorf("%q of %d bytes: %v", name, size, err)
			continue
		}
		if got := h.ReadFile("dev1", name); !bytes.Equal(got, content) {
			t.Errorf("%q of %d bytes: Azurite has %d others", name, size, len(got))
		}
	}
	// # a second upload of the same name, over blocks that were committed before
	path := filepath.Join(t.TempDir(), "f")
	again := append(contentOf(block), 1)
	if err := os.WriteFile(path, again, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.UploadFile(t.Context(), "five", path, nil); err != nil || !bytes.Equal(h.ReadFile("dev1", "five"), again) {
		t.Errorf("again: %v", err)
	}
}

// anonymousMax is how much anonymous memory the runtime may have resident, however large the file is.
const anonymousMax = 48 << 20

// A gibibyte arrives as it was, in little memory: by the program as a user has it. It is compared by its sum, since two of
// them in memory are many for a test.
func TestAGibibyteToAzurite(t *testing.T) {
	h, ca := azuriteHub(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	want, piece := sha256.New(), contentOf(1<<20)
	for i := range 1 << 10 {
		binary.BigEndian.PutUint64(piece, uint64(i)) // no two alike
		if _, err := io.MultiWriter(f, want).Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"device.cs": h.AddDevice("dev1"),
		"ca.pem":    string(append(h.CAPEM(), ca...)),
		"fairlead.yaml": fmt.Sprintf(`version: 1
device: {connection_string: {file: device.cs}}
tls: {extra_ca: {file: ca.pem}}
transports: [{use: mqtt, port: %d, address: 127.0.0.1}]
uploads: {port: %d, address: 127.0.0.1}
state_dir: %q
`, h.MQTTPort(), h.HTTPSPort(), filepath.Join(dir, "state")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program, config := build(t, "../../cmd/runtime"), filepath.Join(dir, "fairlead.yaml")
	run := exec.CommandContext(t.Context(), program, "run", "-c", config)
	var log bytes.Buffer
	run.Stderr = &log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = run.Process.Kill()
		if _ = run.Wait(); t.Failed() { // it was killed
			t.Logf("%s", log.String())
		}
	}()
	until(t, "the runtime answers", func() bool { return exec.CommandContext(t.Context(), program, "status", "-c", config).Run() == nil })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	began := time.Now()
	uploaded := make(chan error, 1)
	go func() {
		out, err := exec.CommandContext(ctx, program, "upload", path, "--name", "large", "--wait", "-c", config).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		uploaded <- err
	}()
	most, looks := int64(0), 0
	for tick := time.Tick(100 * time.Millisecond); ; looks++ {
		select {
		case <-tick:
			m, err := figure.Memory(run.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			most = max(most, int64(m.Anonymous))
			continue
		case err = <-uploaded:
		}
		break
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("uploaded in %v, at most %d MiB anonymous resident in %d looks", time.Since(began).Round(time.Second), most>>20, looks)
	if most >= anonymousMax || looks == 0 {
		t.Errorf("%d MiB anonymous resident in %d looks, want less than %d", most>>20, looks, anonymousMax>>20)
	}
	blob, _, err := h.OpenFile(ctx, "dev1", "large")
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close() //nolint:errcheck // it was read
	got := sha256.New()
	if n, err := io.Copy(got, blob); err != nil || n != 1<<30 || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("Azurite has %d bytes (%v), and not those that were uploaded", n, err)
	}
}

// azuriteHub starts Azurite, and a hub that has devices upload there; ca is Azurite's.
func azuriteHub(t *testing.T) (_ *hubtest.Hub, ca []byte) {
	t.Helper()
	at, ca := startAzurite(t)
	return hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) {
		c.Uploads = hub.Uploads{
			StorageConnectionString: fmt.Sprintf("AccountName=%s;AccountKey=%s;BlobEndpoint=https://%s/%[1]s;", azuriteName, azuriteKey, at),
			StorageCAPEM:            ca,
		}
	})), ca
}

// azuriteDevice is azuriteHub and a device.
func azuriteDevice(t *testing.T) (*hubtest.Hub, *device.Client) {
	t.Helper()
	h, ca := azuriteHub(t)
	c, err := device.FromConnectionString(h.AddDevice("dev1"), func(o *device.Options) {
		o.ExtraCA, o.HTTPSPort = append(h.CAPEM(), ca...), h.HTTPSPort()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Shutdown(context.WithoutCancel(t.Context())) }) // nothing was sent
	return h, c
}
