package uploads_test

import (
	"context"
	"errors"
	nethttp "net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/uploads"
)

func TestAProxysRefusalIsNotTheStorages(t *testing.T) {
	for _, status := range []int{401, 403, 404, 407} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			failures := 0
			r.storage.interfere(func(*nethttp.Request) error {
				if failures++; failures <= 12 {
					return &core.Error{Op: "proxy 10.0.0.1:3128", Kind: core.Blocked, Phase: "proxy", Status: status, Err: errCut}
				}
				return nil
			})
			content := contentOf(100)
			r.done(r.add(r.file("f", content), "b"), content)
			c := r.h.WaitCounters(device, func(api.Counters) bool { return true })
			if c.UploadsStarted != 1 || c.UploadsFailed != 0 {
				t.Errorf("a proxy's %d cost the address: %+v", status, c)
			}
		})
	}
}

func TestAFileThatChangesBetweenTwoAttemptsIsRefused(t *testing.T) {
	for name, hides := range map[string]bool{"seen by its time": false, "seen by its content": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				path := r.file("f", contentOf(100))
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				at := info.ModTime()
				if !hides {
					at = at.Add(time.Hour)
				}
				var once sync.Once
				r.storage.interfere(func(*nethttp.Request) (err error) {
					once.Do(func() {
						err = errors.Join(errCut, os.WriteFile(path, make([]byte, 100), 0o600), os.Chtimes(path, time.Time{}, at))
					})
					return err
				})
				r.fails(r.add(path, "b"), "changed meanwhile")
				time.Sleep(time.Minute)
				r.none()
			})
		})
	}
}

// busy fails at giving addresses and at taking the news, by turns.
type busy struct {
	core.FileService
	mu              sync.Mutex
	infos, failures int
}

func (b *busy) StorageInfo(ctx context.Context, blob string) (core.StorageInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.infos++; b.infos > 1 && b.infos <= 1+b.failures {
		return core.StorageInfo{}, &core.Error{Op: "ask", Kind: core.Throttled, Status: 403, Err: core.ErrService}
	}
	return b.FileService.StorageInfo(ctx, blob)
}

func (b *busy) NotifyUpload(ctx context.Context, o core.UploadOutcome) error {
	b.mu.Lock()
	isFirst := b.infos <= 1+b.failures
	b.mu.Unlock()
	if isFirst {
		return &core.Error{Op: "tell", Kind: core.Refused, Status: 400, Err: core.ErrService}
	}
	return b.FileService.NotifyUpload(ctx, o)
}

func TestABusyHubHearsOfASuccessInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *uploads.Config) { c.Files = &busy{FileService: c.Files, failures: 20} })
		content := contentOf(100)
		r.done(r.add(r.file("f", content), "b"), content)
	})
}

func TestCancelledUploadsAreForgottenToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.stop() // as where all that may run wait for the network
		path := r.file("f", nil)
		for range 60 {
			u := r.add(path, "b")
			if err := r.q.Cancel(u.ID, "not wanted"); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(r.q.List()); n != 50 {
			t.Errorf("%d uploads that have ended are kept, want 50", n)
		}
		kept, err := r.cfg.Keep.Load()
		if err != nil || len(kept) != 50 {
			t.Errorf("%d records are on disk, want 50 (%v)", len(kept), err)
		}
	})
}

func TestOneThatIsCancelledAsItBeginsToWaitIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *rig
		var once sync.Once
		added := make(chan string, 1)
		r = newRig(t, func(c *uploads.Config) {
			c.Event = func(text string) {
				if strings.HasPrefix(text, "upload waiting") {
					once.Do(func() {
						if err := r.q.Cancel(<-added, "no longer wanted"); err != nil {
							t.Error(err)
						}
					})
				}
			}
		})
		r.storage.interfere(func(*nethttp.Request) error {
			return &core.Error{Op: "dial", Kind: core.Blocked, RetryAfter: time.Hour, Err: errCut}
		})
		added <- r.add(r.file("f", contentOf(100)), "b").ID
		time.Sleep(time.Minute)
		r.none()
	})
}
