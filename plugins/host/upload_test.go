//go:build unix

package host_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

// TestAPluginUploadsAFileAndAStream: its progress is told, and whatever carries them the bytes are the same.
func TestAPluginUploadsAFileAndAStream(t *testing.T) { carriers(t, uploadsAFileAndAStream) }

func uploadsAFileAndAStream(t *testing.T, role string) {
	hold := make(chan struct{})
	files := &sdktest.Files{Hold: hold}
	p, dev := mustLaunch(t, role, func(c *host.Config) { c.Files = files })
	content := bytes.Repeat([]byte("0123456789"), 3*wire.UploadWindow/10) // more than the credit
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 1)
	go func() {
		defer close(hold)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		sent, err := dev.WaitSent(ctx, 1)
		if err != nil {
			told <- err.Error()
			return
		}
		told <- string(sent[0].Payload)
	}()
	payload, err := json.Marshal(path)
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := method(t, p, "upload", string(payload)); status != 200 {
		t.Errorf("the plugin was answered %d %s", status, answer)
	}
	if got, want := <-told, fmt.Sprint(core.UploadRunning, " 0 of ", len(content)); got != want {
		t.Errorf("the plugin was told %q as the upload ran, want %q", got, want)
	}
	for _, name := range []string{"file", "stream"} {
		if got := files.Blob(name); !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes arrived, and not the %d that were sent", name, len(got), len(content))
		}
	}
}
