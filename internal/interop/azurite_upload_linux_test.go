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
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
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

// A gibibyte arrives as it was. It is compared by its sum, since two of them in memory are many for a test.
func TestAGibibyteToAzurite(t *testing.T) {
	h, c := azuriteDevice(t)
	path := filepath.Join(t.TempDir(), "f")
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
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	began := time.Now()
	if err := c.UploadFile(ctx, "large", path, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("uploaded in %v", time.Since(began).Round(time.Second))
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

// azuriteDevice starts Azurite, a hub that has devices upload there, and a device.
func azuriteDevice(t *testing.T) (*hubtest.Hub, *device.Client) {
	t.Helper()
	at, ca := startAzurite(t)
	h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) {
		c.Uploads = hub.Uploads{
			StorageConnectionString: fmt.Sprintf("AccountName=%s;AccountKey=%s;BlobEndpoint=https://%s/%[1]s;", azuriteName, azuriteKey, at),
			StorageCAPEM:            ca,
		}
	}))
	c, err := device.FromConnectionString(h.AddDevice("dev1"), func(o *device.Options) {
		o.ExtraCA, o.HTTPSPort = append(h.CAPEM(), ca...), h.HTTPSPort()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Shutdown(context.WithoutCancel(t.Context())) }) // nothing was sent
	return h, c
}
