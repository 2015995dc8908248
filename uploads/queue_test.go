package uploads_test

import (
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/uploads"
)

func TestFilesOfAllSizesArriveWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *uploads.Config) { c.MaxBlock = 0 })
		const block = 4 << 20
		for i, name := range []string{"plain", "a b/c+d%20&=?#.txt", "ü/日本/😀", "dots/../and//slashes", strings.Repeat("x", 1000), "six"} {
			size := []int{0, 1, block - 1, block, block + 1, 5*block + 7}[i]
			content := contentOf(size)
			r.done(r.add(r.file(fmt.Sprint(i), content), name), content)
		}
		if _, most := r.storage.most(); most != 1 {
			t.Errorf("a block was sent %d times, want once", most)
		}
		r.none()
	})
}

func TestTheStorageKeepsTheSumOfTheWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var sum string
		var crcs int
		r.storage.interfere(func(req *nethttp.Request) error {
			r.storage.mu.Lock()
			defer r.storage.mu.Unlock()
			if req.URL.Query().Get("comp") == "blocklist" && req.Method == nethttp.MethodPut {
				sum = header(req, "x-ms-blob-content-md5")
			}
			if header(req, "x-ms-content-crc64") != "" {
				crcs++
			}
			return nil
		})
		content := contentOf(2*block + 1)
		r.done(r.add(r.file("f", content), "b"), content)
		want := md5.Sum(content)
		if sum != base64Of(want[:]) || crcs != 3 {
			t.Errorf("MD5 %s, %d blocks with a CRC-64; want %s and 3", sum, crcs, base64Of(want[:]))
		}
	})
}

func TestWhatTheStorageFailsAtIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault api.Fault
	}{
		{"500", api.Fault{Name: api.FaultStorageStatus, Code: 500, Count: 3}},
		{"503", api.Fault{Name: api.FaultStorageStatus, Code: 503, Count: 5}},
		{"403", api.Fault{Name: api.FaultStorageStatus, Code: 403, Count: 2}},
		{"503 for a while", api.Fault{Name: api.FaultStorageStatus, Code: 503, Duration: api.Duration(10 * time.Minute)}},
		{"slow", api.Fault{Name: api.FaultStorageDelay, Delay: api.Duration(30 * time.Second)}},
		{"an address that ends soon", api.Fault{Name: api.FaultShortSAS, Delay: api.Duration(time.Second), Count: 1}},
		{"a hub that fails", api.Fault{Name: api.FaultHTTPStatus, Code: 500, Count: 3}},
		{"a hub that asks for less", api.Fault{Name: api.FaultThrottle, Count: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(c *uploads.Config) { c.Blocks = 2 })
				r.h.Fault(c.fault)
				if c.fault.Name == api.FaultShortSAS {
					r.h.Fault(api.Fault{Name: api.FaultStorageDelay, Delay: api.Duration(time.Second), Count: 2})
				}
				content := contentOf(4 * block)
				r.done(r.add(r.file("f", content), "b"), content)
				if _, most := r.storage.most(); most > 2 && c.fault.Count > 0 && c.fault.Count < 3 {
					t.Errorf("a block was sent %d times", most)
				}
				r.none()
			})
		})
	}
}

func TestAnUploadThatCannotBeIsGivenUpWithAReason(t *testing.T) {
	for _, c := range []struct {
		name, want string
		fault      api.Fault
	}{
		{"the storage refuses every address", "403", api.Fault{Name: api.FaultStorageStatus, Code: 403}},
		{"the storage does not understand", "400", api.Fault{Name: api.FaultStorageStatus, Code: 400}},
		{"the hub refuses", "413", api.Fault{Name: api.FaultHTTPStatus, Code: 413, Count: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.h.Fault(c.fault)
				r.fails(r.add(r.file("f", contentOf(block)), "b"), c.want)
				time.Sleep(time.Minute)
				r.none()
			})
		})
	}
}

func TestAFileThatChangesIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		path := r.file("f", contentOf(block+1))
		for _, c := range []struct {
			name, want string
			change     func() error
		}{
			{"longer", "had 262145 bytes, and has", func() error {
				f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				_, err = f.WriteString("more")
				return errors.Join(err, f.Close())
			}},
			{"touched", "is of 2001", func() error { return os.Chtimes(path, time.Time{}, time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)) }},
			{"shorter", "changed meanwhile", func() error { return os.Truncate(path, 5) }},
		} {
			var once sync.Once
			r.storage.interfere(func(*nethttp.Request) error {
				once.Do(func() {
					if err := c.change(); err != nil {
						t.Error(err)
					}
				})
				return nil
			})
			r.fails(r.add(path, "b"), c.want)
		}
		r.storage.interfere(nil)
		// # also one that changes while it waits
		r.stop()
		path = r.file("g", contentOf(10))
		u := r.add(path, "g")
		if err := os.WriteFile(path, contentOf(11), 0o600); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.fails(u, "had 10 bytes, and has 11")
		time.Sleep(time.Minute)
		r.none()
	})
}

var errCut = errors.New("connection reset by peer")

func TestARestartGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *uploads.Config) { c.Blocks = 2 })
		content := contentOf(10*block + 5)
		reached := make(chan struct{})
		n := 0
		r.storage.interfere(func(req *nethttp.Request) error {
			if req.URL.Query().Get("comp") != "block" {
				return nil
			}
			r.storage.mu.Lock()
			defer r.storage.mu.Unlock()
			if n++; n == 6 {
				close(reached)
			}
			if n >= 6 {
				return errCut
			}
			return nil
		})
		u := r.add(r.file("f", content), "b")
		<-reached
		r.stop() // the process ends; nothing more is written down
		r.storage.interfere(nil)
		r.start()
		r.done(u, content)
		if blocks, most := r.storage.most(); most > 2 || blocks > 16 {
			t.Errorf("%d blocks, one sent %d times", blocks, most)
		}
		total := 0
		for _, n := range r.storage.staged {
			total += n
		}
		if total > 11+2*2+2 {
			t.Errorf("%d blocks were sent for 11", total)
		}
		r.none()
	})
}

func TestARestartAfterTheCommitSendsNothingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		content := contentOf(2 * block)
		committed := make(chan struct{})
		var once sync.Once
		// The answer to the commit gets lost, and then the process ends.
		r.cfg.Storage = lost{r.storage, func() { once.Do(func() { close(committed) }) }}
		r.stop()
		r.start()
		u := r.add(r.file("f", content), "b")
		<-committed
		r.stop()
		r.cfg.Storage = r.storage
		r.start()
		r.done(u, content)
		if _, most := r.storage.most(); most != 1 {
			t.Errorf("a block was sent %d times", most)
		}
		r.none()
	})
}

// lost loses the answers to commits.
type lost struct {
	nethttp.RoundTripper
	tell func()
}

func (l lost) RoundTrip(r *nethttp.Request) (*nethttp.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil && r.Method == nethttp.MethodPut && r.URL.Query().Get("comp") == "blocklist" {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		l.tell()
		return nil, errCut
	}
	return resp, err
}

func TestTheHubIsToldAfterARestartToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		content := contentOf(100)
		committed := make(chan struct{})
		r.storage.interfere(func(req *nethttp.Request) error {
			if req.Method == nethttp.MethodPut && req.URL.Query().Get("comp") == "blocklist" {
				r.h.Fault(api.Fault{Name: api.FaultHTTPStatus, Code: 503, Device: device}) // does not strike the storage
				close(committed)
			}
			return nil
		})
		u := r.add(r.file("f", content), "b")
		<-committed
		time.Sleep(time.Minute)
		if got, _, _ := r.q.Get(u.ID); got.State != core.UploadWaiting || got.Sent != got.Size {
			t.Errorf("without the hub: %+v", got)
		}
		if err := r.q.Cancel(u.ID, "too late"); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("called off after the commit: %v", err)
		}
		r.stop()
		for _, f := range r.h.Faults() {
			if err := r.h.RemoveFault(f.ID); err != nil {
				t.Fatal(err)
			}
		}
		r.start()
		r.done(u, content)
		r.none()
	})
}

func TestASuccessWhoseNumberHasEndedIsToldByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t, hubtest.WithConfig(func(c *hub.Config) { c.Uploads.Life = time.Minute }))
		r := newRigOn(t, h, h.AddDevice(device))
		r.storage.interfere(func(req *nethttp.Request) error {
			if req.Method == nethttp.MethodPut && req.URL.Query().Get("comp") == "blocklist" {
				r.h.Fault(api.Fault{Name: api.FaultHTTPStatus, Code: 503, Device: device, Duration: api.Duration(10 * time.Minute)})
			}
			return nil
		})
		content := contentOf(100)
		r.done(r.add(r.file("f", content), "b"), content)
	})
}
