package device_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// fileClient makes a client as a program does, on a hub within the bubble.
func fileClient(t *testing.T, hub *hubtest.Hub, connectionString string) *device.Client {
	t.Helper()
	c, err := device.FromConnectionString(connectionString, func(o *device.Options) {
		o.ExtraCA, o.DialContext = hub.CAPEM(), hub.DialContext
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Shutdown(t.Context()) })
	return c
}

func TestStorageInfoIsGivenAndTheEndOfAnUploadTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		c := fileClient(t, hub, hub.AddDevice("dev1"))
		// # what passes by itself is not the caller's concern, and Retry-After or not, there is a wait
		hub.Fault(api.Fault{Name: api.FaultHTTPStatus, Code: 503, Count: 2})
		began := time.Now()
		info, err := c.GetStorageInfoForBlob(t.Context(), "a b")
		if err != nil {
			t.Fatal(err)
		}
		if info.BlobName != "dev1/a b" || info.CorrelationID == "" || info.SASToken.Reveal()[0] != '?' {
			t.Errorf("storage info %+v", info)
		}
		if waited := time.Since(began); waited < time.Second || waited > 4*time.Second {
			t.Errorf("two tries more took %v", waited)
		}
		if c.Connected() {
			t.Error("a session was made for it")
		}
		if err := c.NotifyBlobUploadStatus(t.Context(), info.CorrelationID, false, 500, "disk full"); err != nil {
			t.Fatal(err)
		}
		hub.WaitCounters("dev1", func(n api.Counters) bool { return n.UploadsFailed == 1 })
		// # a refusal is the caller's at once
		began = time.Now()
		err = c.NotifyBlobUploadStatus(t.Context(), info.CorrelationID, true, 201, "")
		if e, ok := errors.AsType[*core.Error](err); !ok || !errors.Is(err, device.ErrService) || e.Status != 400 || time.Since(began) > time.Second {
			t.Errorf("told twice: %v", err)
		}
		// # and a hub that stays away ends it after five tries
		hub.Fault(api.Fault{Name: api.FaultHTTPStatus, Code: 500})
		if _, err = c.GetStorageInfoForBlob(t.Context(), "b"); !errors.Is(err, device.ErrService) {
			t.Errorf("a hub that fails: %v", err)
		}
	})
}

func TestAFileAndAReaderAreUploaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		c := fileClient(t, hub, hub.AddDevice("dev1"))
		path := filepath.Join(t.TempDir(), "f")
		content := bytes.Repeat([]byte("content "), 700_000)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		var states []string
		sent := int64(-1)
		err := c.UploadFile(t.Context(), "a b/ü", path, func(u device.Upload) {
			if s := u.State.String(); len(states) == 0 || states[len(states)-1] != s {
				states = append(states, s)
			}
			if u.Sent < sent || u.Size != int64(len(content)) {
				t.Errorf("%d of %d after %d", u.Sent, u.Size, sent)
			}
			sent = u.Sent
		})
		if err != nil {
			t.Fatal(err)
		}
		if last := states[len(states)-1]; last != "done" || sent != int64(len(content)) {
			t.Errorf("states %v, %d bytes", states, sent)
		}
		if !bytes.Equal(hub.ReadFile("dev1", "a b/ü"), content) {
			t.Error("the hub has something else")
		}
		if err := c.UploadFrom(t.Context(), "r", bytes.NewReader(content[:99]), nil); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(hub.ReadFile("dev1", "r"), content[:99]) {
			t.Error("the hub has something else of the reader")
		}
		// # whoever does not wait any more calls it off, and the hub is told
		hub.Fault(api.Fault{Name: api.FaultStorageStatus, Code: 503})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.UploadFile(ctx, "x", path, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a storage that fails: %v", err)
		}
		hub.WaitCounters("dev1", func(n api.Counters) bool { return n.UploadsFailed == 1 })
		if err := c.UploadFile(t.Context(), "x", path+"x", nil); !errors.Is(err, device.ErrInvalid) {
			t.Errorf("no file: %v", err)
		}
	})
}
