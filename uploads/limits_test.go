package uploads_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/uploads"
)

func TestQueueKeepsOrderAndLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *uploads.Config) { c.Parallel = 1 })
		r.stop()
		var all []core.Upload
		for i := range 12 {
			all = append(all, r.add(r.file(fmt.Sprint(i), contentOf(i)), fmt.Sprint("b", i)))
		}
		r.start()
		for i, u := range all {
			r.done(u, contentOf(i))
		}
		notes := r.h.FileNotifications(device)
		for i, n := range notes {
			if want := fmt.Sprint(device, "/b", i); n.BlobName != want {
				t.Errorf("notification %d is of %s, want %s", i, n.BlobName, want)
			}
		}
		if len(notes) != 12 {
			t.Errorf("%d notifications, want 12", len(notes))
		}
	})
}

// counted counts what the hub is asked for, and has under way at most.
type counted struct {
	core.FileService
	open          func() int
	mu            sync.Mutex
	peak, tooMany int
}

func (c *counted) StorageInfo(ctx context.Context, blob string) (core.StorageInfo, error) {
	info, err := c.FileService.StorageInfo(ctx, blob)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peak = max(c.peak, c.open())
	if err != nil {
		c.tooMany++
	}
	return info, err
}

// TestNoMoreAreUnderWayThanTheHubAllows: ten at once and the rest in turn; where others of the device took some of the
// hub's places, those that get none wait for one.
func TestNoMoreAreUnderWayThanTheHubAllows(t *testing.T) {
	for _, others := range []int{0, 3, uploads.MaxParallel} {
		t.Run(fmt.Sprint(others, " by others"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var files counted
				r := newRig(t, func(c *uploads.Config) {
					files.FileService, c.Files, c.Parallel = c.Files, &files, uploads.MaxParallel
				})
				files.open = func() int {
					c := r.h.WaitCounters(device, func(api.Counters) bool { return true })
					return int(c.UploadsStarted - c.UploadsSucceeded - c.UploadsFailed)
				}
				r.h.Fault(api.Fault{Name: api.FaultStorageDelay, Delay: api.Duration(20 * time.Second)})
				var places []string
				for i := range others {
					info, err := files.FileService.StorageInfo(t.Context(), fmt.Sprint("other", i))
					if err != nil {
						t.Fatal(err)
					}
					places = append(places, info.CorrelationID)
				}
				content := contentOf(100)
				var all []core.Upload
				for i := range 2*uploads.MaxParallel + 3 {
					all = append(all, r.add(r.file(fmt.Sprint(i), content), fmt.Sprint("b", i)))
				}
				time.Sleep(10 * time.Minute) // longer than any wait between two attempts
				for _, id := range places {
					if err := files.NotifyUpload(t.Context(), core.UploadOutcome{CorrelationID: id}); err != nil {
						t.Fatal(err)
					}
				}
				for _, u := range all {
					r.done(u, content)
				}
				r.none()
				files.mu.Lock()
				defer files.mu.Unlock()
				if files.peak != uploads.MaxParallel {
					t.Errorf("the hub had %d under way at most, want %d", files.peak, uploads.MaxParallel)
				}
				if (files.tooMany > 0) != (others > 0) {
					t.Errorf("the hub refused %d for being too many, with %d by others", files.tooMany, others)
				}
			})
		})
	}
}

func TestTwoUploadsToOneBlobFollowOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first, second := contentOf(2*block), contentOf(block)
		a := r.add(r.file("1", first), "b")
		b := r.add(r.file("2", second), "b")
		if _, err := r.q.Wait(t.Context(), a.ID, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := r.q.Wait(t.Context(), b.ID, nil); err != nil {
			t.Fatal(err)
		}
		if got := r.h.ReadFile(device, "b"); !bytes.Equal(got, second) {
			t.Errorf("the hub has %d bytes, want the second file's %d", len(got), len(second))
		}
	})
}

func TestCancelling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		remove := r.h.Fault(api.Fault{Name: api.FaultStorageDelay, Delay: api.Duration(20 * time.Second)})
		u := r.add(r.file("f", contentOf(8*block)), "b")
		time.Sleep(5 * time.Second)
		if err := r.q.Cancel(u.ID, "no longer wanted"); err != nil {
			t.Fatal(err)
		}
		if got, err := r.q.Wait(t.Context(), u.ID, nil); !errors.Is(err, core.ErrCancelled) || got.Reason != "no longer wanted" {
			t.Errorf("after cancel: %+v, %v", got, err)
		}
		time.Sleep(time.Minute)
		r.none()
		if err := r.q.Cancel(u.ID, ""); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("cancelled twice: %v", err)
		}
		if err := r.q.Cancel("nothing", ""); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("cancelled an unknown one: %v", err)
		}
		if n := len(r.h.FileNotifications(device)); n != 0 {
			t.Errorf("%d notifications of a file that is not there", n)
		}
		remove()
		content := contentOf(3)
		r.done(r.add(r.file("g", content), "b"), content)
	})
}

func TestBandwidthIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *uploads.Config) { c.Bandwidth = 64 << 10 })
		content := contentOf(30 * 64 << 10)
		began := time.Now()
		var rates []float64
		u := r.add(r.file("f", content), "b")
		_, err := r.q.Wait(t.Context(), u.ID, func(u core.Upload) {
			if u.Sent > u.Size/2 && u.State == core.UploadRunning && u.Sent < u.Size {
				rates = append(rates, u.Rate)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began).Seconds(); took < 29 || took > 33 {
			t.Errorf("1920 KiB at 64 KiB/s took %.1f s", took)
		}
		for _, rate := range rates {
			if rate < 32e3 || rate > 128e3 {
				t.Errorf("the rate is told as %.0f bytes/s, want about 64 KiB/s", rate)
			}
		}
		if len(rates) == 0 {
			t.Error("no progress was told")
		}
	})
}

func TestStreamsAreSpooled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *uploads.Config) { c.SpoolMax = 1 << 20 })
		content := contentOf(1000)
		source := bytes.NewReader(content)
		next := func(context.Context) ([]byte, error) {
			p := make([]byte, 7)
			n, err := source.Read(p)
			return p[:n], err
		}
		u, err := r.q.AddStream(t.Context(), "s", "p", next)
		if err != nil {
			t.Fatal(err)
		}
		if u.Path != "" || u.Owner != "p" || u.Size != 1000 {
			t.Errorf("upload %+v", u)
		}
		r.done(u, content)
		// # too much, and one that breaks off
		if _, err := r.q.AddStream(t.Context(), "s", "p", func(context.Context) ([]byte, error) { return content, nil }); !errors.Is(err, core.ErrTooLarge) {
			t.Errorf("without an end: %v", err)
		}
		if _, err := r.q.AddStream(t.Context(), "s", "p", func(context.Context) ([]byte, error) { return content, errCut }); !errors.Is(err, errCut) {
			t.Errorf("broken off: %v", err)
		}
		synctest.Wait()
		if left, _ := filepath.Glob(filepath.Join(r.dir, "*.spool")); len(left) != 0 {
			t.Errorf("left on disk: %v", left)
		}
	})
}

func TestAddRefusesWhatCannotBeUploaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		path := r.file("f", nil)
		for _, c := range []struct{ path, blob, want string }{
			{path, "", "no name"},
			{path, strings.Repeat("x", 1025), "at most 1024"},
			{path, "a\nb", "control"},
			{path, "a\xff", "UTF-8"},
			{path + "x", "b", "no such file"},
			{r.dir, "b", "not a regular file"},
			{"f", "b", "not absolute"},
			{"/dev/null", "b", "not a regular file"},
		} {
			if _, err := r.q.Add(t.Context(), core.UploadRequest{Path: c.path, BlobName: c.blob}); !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s as %.20q: %v, want %q", c.path, c.blob, err, c.want)
			}
		}
		if n := len(r.q.List()); n != 0 {
			t.Errorf("%d are queued", n)
		}
	})
}
