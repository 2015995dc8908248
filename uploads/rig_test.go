package uploads_test

import (
	"bytes"
	"context"
	"errors"
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
