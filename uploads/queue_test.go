package uploads_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	nethttp "net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/store"
	"github.com/fairlead-iot/fairlead/transports/http"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/uploads"
)

const device = "dev1"

// rig is a queue on a hub, within a bubble.
type rig struct {
	*testing.T
	h       *hubtest.Hub
	cfg     uploads.Config
	storage *spy
	dir     string
	q       *uploads.Queue
	stop    func()
}

func newRig(t *testing.T, change ...func(*uploads.Config)) *rig {
	t.Helper()
	h := hubtest.StartPipe(t)
	return newRigOn(t, h, h.AddDevice(device), change...)
}

func newRigOn(t *testing.T, h *hubtest.Hub, connectionString string, change ...func(*uploads.Config)) *rig {
	t.Helper()
	files, err := http.New(http.Config{
		Identity: core.Identity{Hostname: "localhost", DeviceID: device}, Credentials: tokens(connectionString),
		TLS: netdial.TLSConfig{ServerVerificationCert: h.CAPEM()}, DialContext: h.DialContext,
	})
	if err != nil {
		t.Fatal(err)
	}
	storage, err := http.NewStorage(http.StorageConfig{TLS: netdial.TLSConfig{ExtraCA: h.CAPEM()}, DialContext: h.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(storage.CloseIdleConnections)
	r := &rig{T: t, h: h, dir: t.TempDir(), storage: &spy{RoundTripper: storage, staged: map[string]int{}}}
	r.cfg = uploads.Config{Files: files, Storage: r.storage, Keep: store.Uploads{Dir: filepath.Join(r.dir, "state")}, Spool: r.dir, MaxBlock: block}
	for _, f := range change {
		f(&r.cfg)
	}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

// start starts a queue, as after a restart.
func (r *rig) start() {
	r.Helper()
	q, err := uploads.New(r.cfg)
	if err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	done := make(chan struct{})
	go func() { defer close(done); q.Run(ctx) }()
	r.q, r.stop = q, func() { cancel(); <-done }
}

// tokens signs by the connection string.
type tokens string

func (s tokens) Credential(context.Context) (core.Credential, error) {
	text, err := hub.DeviceToken(string(s), time.Hour)
	return core.Credential{Token: core.Secret(text)}, err
}

// spy counts how often each block was sent, and lets a test interfere.
type spy struct {
	nethttp.RoundTripper
	mu     sync.Mutex
	staged map[string]int
	before func(r *nethttp.Request) error
}

func (s *spy) RoundTrip(r *nethttp.Request) (*nethttp.Response, error) {
	s.mu.Lock()
	before := s.before
	if id := r.URL.Query().Get("blockid"); id != "" {
		s.staged[id]++
	}
	s.mu.Unlock()
	if before != nil {
		if err := before(r); err != nil {
			return nil, err
		}
	}
	return s.RoundTripper.RoundTrip(r)
}

func (s *spy) interfere(f func(r *nethttp.Request) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// most returns how many blocks there were, and how often the most frequent one was sent.
func (s *spy) most() (blocks, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.staged {
		times = max(times, n)
	}
	return len(s.staged), times
}

func contentOf(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
	return data
}

func (r *rig) file(name string, content []byte) string {
	r.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		r.Fatal(err)
	}
	return path
}

func (r *rig) add(path, blob string) core.Upload {
	r.Helper()
	u, err := r.q.Add(r.Context(), core.UploadRequest{Path: path, BlobName: blob})
	if err != nil {
		r.Fatal(err)
	}
	return u
}

// done waits for an upload that must succeed, and compares what the hub has.
func (r *rig) done(u core.Upload, content []byte) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
	defer cancel()
	if got, err := r.q.Wait(ctx, u.ID, nil); err != nil {
		r.Fatalf("upload of %s: %v (%+v)", u.BlobName, err, got)
	}
	n := r.h.WaitUpload(device, func(n api.FileNotification) bool { return n.BlobName == device+"/"+u.BlobName })
	if got := r.h.ReadFile(device, u.BlobName); !bytes.Equal(got, content) || n.BlobSizeInBytes != int64(len(content)) {
		r.Errorf("%s: the hub has %d other bytes, and told of %d; want %d", u.BlobName, len(got), n.BlobSizeInBytes, len(content))
	}
}

func (r *rig) fails(u core.Upload, text string) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
	defer cancel()
	if got, err := r.q.Wait(ctx, u.ID, nil); !errors.Is(err, uploads.ErrFailed) || !strings.Contains(got.Reason, text) {
		r.Fatalf("upload of %s: %v (%+v), want a failure that says %q", u.BlobName, err, got, text)
	}
}

// none wants the hub to count no upload as under way: ten more may begin.
func (r *rig) none() {
	r.Helper()
	synctest.Wait()
	c := r.h.WaitCounters(device, func(api.Counters) bool { return true })
	if open := c.UploadsStarted - c.UploadsSucceeded - c.UploadsFailed; open != 0 {
		r.Errorf("the hub still counts %d uploads: %+v", open, c)
	}
}

// block is small, so that the tests need not send much.
const block = 256 << 10

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
