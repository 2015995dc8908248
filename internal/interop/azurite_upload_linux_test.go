//go:build interop

package interop_test

import (
	"bytes"
	"context"
	"fmt"
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
	defer c.Shutdown(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing was sent
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
