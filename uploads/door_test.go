package uploads_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/uploads"
)

func (r *rig) door(dirs ...string) *uploads.Door {
	return &uploads.Door{Owner: "p", Dirs: dirs, Open: func(context.Context) (*uploads.Queue, error) { return r.q, nil }}
}

func TestAPluginUploadsFromItsDirectoriesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		allowed, other := filepath.Join(r.dir, "allowed"), filepath.Join(r.dir, "allowed-not")
		for _, dir := range []string{allowed, other, filepath.Join(allowed, "sub")} {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		r.file("allowed/sub/f", contentOf(5))
		r.file("allowed-not/f", contentOf(6))
		for link, to := range map[string]string{"out": "../allowed-not/f", "outdir": other, "in": "sub/f"} {
			if err := os.Symlink(to, filepath.Join(allowed, link)); err != nil {
				t.Fatal(err)
			}
		}
		d := r.door(allowed)
		for _, c := range []struct{ path, want string }{
			{allowed + "/sub/f", ""},
			{allowed + "/in", ""},
			{allowed + "/sub/../sub/f", ""},
			{other + "/f", "not in a directory"},
			{allowed + "/../allowed-not/f", "not in a directory"},
			{allowed + "/out", "escapes"},
			{allowed + "/outdir/f", "escapes"},
			{allowed + "/none", "no such file"},
			{allowed + "/sub", "not a regular file"},
			{"sub/f", "not absolute"},
		} {
			err := d.Upload(t.Context(), "b", c.path, nil)
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s: %v, want %q", c.path, err, c.want)
			}
		}
		if err := r.door().Upload(t.Context(), "b", allowed+"/in", nil); err == nil || !strings.Contains(err.Error(), "plugins.p.uploads") {
			t.Errorf("without a directory: %v", err)
		}
	})
}

func TestAPluginsUploadOutlivesItButNotItsCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		path := r.file("f", contentOf(9))
		remove := r.h.Fault(api.Fault{Name: api.FaultStorageStatus, Code: 503})
		d := r.door(r.dir)
		// # the plugin died
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(core.ErrClosed) })
		if err := d.Upload(ctx, "died", path, nil); !errors.Is(err, core.ErrClosed) {
			t.Errorf("the plugin died: %v", err)
		}
		// # the plugin changed its mind
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if err := d.Upload(ctx, "cancelled", path, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("called off: %v", err)
		}
		remove()
		for _, u := range r.q.List() {
			if u.Owner != "p" {
				t.Errorf("owner %q", u.Owner)
			}
			switch u.BlobName {
			case "died":
				r.done(u, contentOf(9))
			case "cancelled":
				if u.State != core.UploadCancelled {
					t.Errorf("state %s after the cancel", u.State)
				}
			}
		}
		// # and the two requests by themselves
		info, err := d.StorageInfo(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.NotifyUpload(t.Context(), core.UploadOutcome{CorrelationID: info.CorrelationID, StatusCode: 500}); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		r.none()
	})
}
