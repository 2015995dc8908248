package uploads

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"github.com/fairlead-iot/fairlead/core"
)

// Limits and defaults.
const (
	// DefaultBlocks is how many blocks of an upload are under way at once, DefaultParallel how many uploads.
	DefaultBlocks   = 4
	DefaultParallel = 2
	// MaxParallel is what the hub allows a device.
	// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-quotas-throttling
	MaxParallel = 10
	// MaxBlocks keeps the connections few; more gain nothing.
	MaxBlocks = 32
	// MaxQueued is how many uploads may wait.
	MaxQueued = 1000
	// MinBandwidth is the least limit of bandwidth, in bytes per second.
	MinBandwidth = 1 << 10
	// leastMaxBlock is the least for Config.MaxBlock: smaller ones would be more round trips than bytes.
	leastMaxBlock = 256 << 10
	// keptEnded is how many that have ended are remembered.
	keptEnded = 50
	// maxBlobName is how long a blob's name may be, in characters, the device's id included.
	maxBlobName = 1024
)

// Config says what a queue works with. Files and Storage are required.
type Config struct {
	Files core.FileService
	// Storage carries requests to https addresses of any storage account.
	Storage http.RoundTripper
	// Keep holds the queue over restarts; nil means that it ends with the process.
	Keep core.UploadKeeper
	// Spool is a directory for what is streamed; "" means the system's temporary directory. SpoolMax is how many bytes may
	// lie there, 1 GiB if 0.
	Spool    string
	SpoolMax int64
	// Blocks of an upload and Parallel uploads are under way at once.
	Blocks, Parallel int
	// MaxBlock is the most that a block has on a good link, 4 MiB if 0, at least 256 KiB: what may have to be sent again.
	MaxBlock int64
	// Bandwidth limits what is sent of files, in bytes per second; 0 is no limit.
	Bandwidth int64
	// Logger gets what happens; nil is none. Event, if set, is told each change of state in a line. It must not block.
	Logger *slog.Logger
	Event  func(text string)
}

// Queue carries out uploads. Make it with New, and let Run run.
type Queue struct {
	cfg   Config
	log   *slog.Logger
	limit *rate.Limiter // nil without a limit

	saving sync.Mutex // held while a record is written; before mu

	mu      sync.Mutex
	jobs    []*job // in the order in which they were added
	last    uint64
	spooled int64
	changed chan struct{} // closed at the next change
	wake    chan struct{} // closed when waits are to end
}

// New checks the configuration and takes up what was left. Its error wraps core.ErrInvalid where the configuration is
// wrong.
func New(cfg Config) (*Queue, error) {
	if cfg.Blocks == 0 {
		cfg.Blocks = DefaultBlocks
	}
	if cfg.Parallel == 0 {
		cfg.Parallel = DefaultParallel
	}
	if cfg.MaxBlock == 0 {
		cfg.MaxBlock = blockMax
	}
	if cfg.SpoolMax == 0 {
		cfg.SpoolMax = 1 << 30
	}
	switch {
	case cfg.Files == nil || cfg.Storage == nil:
		return nil, fmt.Errorf("make upload queue: files and storage are needed: %w", core.ErrInvalid)
	case cfg.Blocks < 1 || cfg.Blocks > MaxBlocks:
		return nil, fmt.Errorf("make upload queue: %d blocks at once: %w: 1 to %d", cfg.Blocks, core.ErrInvalid, MaxBlocks)
	case cfg.Parallel < 1 || cfg.Parallel > MaxParallel:
		return nil, fmt.Errorf("make upload queue: %d uploads at once: %w: 1 to %d", cfg.Parallel, core.ErrInvalid, MaxParallel)
	case cfg.MaxBlock < leastMaxBlock || cfg.MaxBlock > blockMost:
		return nil, fmt.Errorf("make upload queue: blocks of %d bytes: %w: %d to %d", cfg.MaxBlock, core.ErrInvalid, leastMaxBlock, blockMost)
	case cfg.Bandwidth != 0 && cfg.Bandwidth < MinBandwidth:
		return nil, fmt.Errorf("make upload queue: a bandwidth of %d bytes per second: %w: at least %d", cfg.Bandwidth, core.ErrInvalid, MinBandwidth)
	}
	q := &Queue{cfg: cfg, log: cfg.Logger, changed: make(chan struct{}), wake: make(chan struct{})}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Bandwidth > 0 {
		q.limit = rate.NewLimiter(rate.Limit(cfg.Bandwidth), int(min(max(cfg.Bandwidth/10, MinBandwidth), readSize)))
	}
	if cfg.Keep != nil {
		if err := q.load(); err != nil {
			return nil, err
		}
	}
	return q, nil
}

func (q *Queue) load() error {
	records, err := q.cfg.Keep.Load()
	if err != nil {
		return fmt.Errorf("make upload queue: %w", err)
	}
	slices.SortFunc(records, func(a, b core.UploadRecord) int { return int(a.Number) - int(b.Number) })
	spooled := map[string]bool{}
	for _, r := range records {
		if !r.State.Ended() {
			r.State = core.UploadQueued
		}
		q.last = max(q.last, r.Number)
		if r.Spooled && !r.State.Ended() {
			spooled[filepath.Base(r.Path)] = true
			q.spooled += r.Size
		}
		q.jobs = append(q.jobs, &job{q: q, rec: r, resumed: true})
	}
	q.sweepSpool(spooled)
	return nil
}

// Run carries out uploads until ctx ends; what is not done then stays in the queue.
func (q *Queue) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		q.mu.Lock()
		changed := q.changed
		for _, j := range q.startable() {
			j.begin(ctx)
			all.Go(func() {
				j.run()
				q.mu.Lock()
				j.stop()
				j.stop = nil
				q.tellLocked()
				q.mu.Unlock()
				q.prune()
			})
		}
		q.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// startable returns the uploads whose turn it is; q.mu is held.
func (q *Queue) startable() []*job {
	active, blobs := 0, map[string]bool{}
	for _, j := range q.jobs {
		if j.stop != nil {
			active++
			blobs[j.rec.BlobName] = true
		}
	}
	var out []*job
	for _, j := range q.jobs {
		if active >= q.cfg.Parallel {
			break
		}
		// Two uploads to one blob would mix their blocks.
		if j.stop != nil || j.settled() || blobs[j.rec.BlobName] {
			continue
		}
		active++
		blobs[j.rec.BlobName] = true
		out = append(out, j)
	}
	return out
}

// Add takes an upload on. When it returns, the upload outlives a crash, if the queue has a Keep. The error wraps
// core.ErrInvalid where the file cannot be uploaded.
func (q *Queue) Add(ctx context.Context, r core.UploadRequest) (core.Upload, error) {
	return q.add(ctx, r, false, nil)
}

// add is Add; the file must be the one that want says, if that is given.
func (q *Queue) add(ctx context.Context, r core.UploadRequest, isSpooled bool, want *facts) (core.Upload, error) {
	if err := CheckBlobName(r.BlobName); err != nil {
		return core.Upload{}, fmt.Errorf("upload %s: %w", r.Path, err)
	}
	if !filepath.IsAbs(r.Path) {
		return core.Upload{}, fmt.Errorf("upload %s: %w: the path is not absolute", r.Path, core.ErrInvalid)
	}
	f, facts, err := open(r.Path)
	if err != nil {
		return core.Upload{}, fmt.Errorf("upload %s: %w: %w", r.Path, core.ErrInvalid, err)
	}
	_ = f.Close() // it was looked at
	if want != nil {
		if text := facts.differs(*want); text != "" {
			return core.Upload{}, fmt.Errorf("upload %s: %w: %s", r.Path, core.ErrInvalid, text)
		}
	}
	if err := ctx.Err(); err != nil {
		return core.Upload{}, fmt.Errorf("upload %s: %w", r.Path, context.Cause(ctx))
	}
	id := make([]byte, idBytes)
	_, _ = rand.Read(id) // never fails, by its contract
	j := &job{q: q, rec: core.UploadRecord{
		ID: hex.EncodeToString(id), BlobName: r.BlobName, Path: r.Path, Owner: r.Owner, Spooled: isSpooled,
		Size: facts.size, ModTime: facts.modified, File: facts.id,
	}}
	q.mu.Lock()
	waiting := 0
	for _, other := range q.jobs {
		if !other.rec.State.Ended() {
			waiting++
		}
	}
	if waiting >= MaxQueued {
		q.mu.Unlock()
		return core.Upload{}, fmt.Errorf("upload %s: %d uploads are waiting already: %w", r.Path, waiting, errFull)
	}
	q.last++
	j.rec.Number = q.last
	q.jobs = append(q.jobs, j)
	j.held = true // until it is written down
	q.mu.Unlock()
	err = q.save(j)
	q.mu.Lock()
	j.held = false
	if err != nil {
		q.jobs = slices.DeleteFunc(q.jobs, func(other *job) bool { return other == j })
		q.mu.Unlock()
		return core.Upload{}, fmt.Errorf("upload %s: write it down: %w", r.Path, err)
	}
	u := j.view(time.Now())
	q.tellLocked()
	q.mu.Unlock()
	j.say(slog.LevelInfo, "queued", "size", facts.size)
	return u, nil
}

var errFull = errors.New("wait until some have ended, or cancel some")

// CheckBlobName refuses names that a storage account does not take. The error wraps core.ErrInvalid.
//
// https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
func CheckBlobName(name string) error {
	switch n := utf8.RuneCountInString(name); {
	case name == "":
		return fmt.Errorf("the blob has no name: %w", core.ErrInvalid)
	case n >= maxBlobName:
		return fmt.Errorf("the blob's name has %d characters: %w: at most %d together with the device's id", n, core.ErrInvalid, maxBlobName)
	case !utf8.ValidString(name), slices.ContainsFunc([]rune(name), unicode.IsControl):
		return fmt.Errorf("the blob's name %q: %w: it has control characters, or is not UTF-8", name, core.ErrInvalid)
	}
	return nil
}

// List returns all uploads that have not ended, and the last ones that have, in the order in which they were added.
func (q *Queue) List() []core.Upload {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	out := make([]core.Upload, 0, len(q.jobs))
	for _, j := range q.jobs {
		out = append(out, j.view(now))
	}
	return out
}

// Get returns an upload, and a channel that is closed at the next change of any. The error wraps core.ErrInvalid.
func (q *Queue) Get(id string) (core.Upload, <-chan struct{}, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if j := q.find(id); j != nil {
		return j.view(time.Now()), q.changed, nil
	}
	return core.Upload{}, nil, unknown(id)
}

func unknown(id string) error {
	return fmt.Errorf("upload %s: %w: there is no such upload (any more): see the status", id, core.ErrInvalid)
}

func (q *Queue) find(id string) *job {
	for _, j := range q.jobs {
		if j.rec.ID == id {
			return j
		}
	}
	return nil
}

// Wait returns when an upload has ended, or ctx has. progress, which may be nil, is told each change meanwhile. The error
// is nil for an upload that is done; for one that is not, it gives the reason, and wraps core.ErrCancelled where it was
// called off.
func (q *Queue) Wait(ctx context.Context, id string, progress func(core.Upload)) (core.Upload, error) {
	q.mu.Lock()
	j := q.find(id) // it may be forgotten before a slow progress returns
	q.mu.Unlock()
	if j == nil {
		return core.Upload{}, unknown(id)
	}
	for {
		q.mu.Lock()
		u, changed := j.view(time.Now()), q.changed
		q.mu.Unlock()
		if progress != nil {
			progress(u)
		}
		switch u.State {
		case core.UploadDone:
			return u, nil
		case core.UploadFailed:
			return u, fmt.Errorf("upload %s: %w: %s", u.BlobName, ErrFailed, u.Reason)
		case core.UploadCancelled:
			return u, fmt.Errorf("upload %s: %w: %s", u.BlobName, core.ErrCancelled, u.Reason)
		case core.UploadQueued, core.UploadRunning, core.UploadWaiting:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return u, fmt.Errorf("wait for upload %s: %w", u.BlobName, context.Cause(ctx))
		}
	}
}

// ErrFailed is wrapped by errors of uploads that were given up.
var ErrFailed = errors.New("the upload failed")

// Cancel calls an upload off. What was sent of it is never committed; the hub is told. The error wraps core.ErrInvalid
// where it has ended already.
func (q *Queue) Cancel(id, reason string) error {
	q.mu.Lock()
	j := q.find(id)
	if j == nil {
		q.mu.Unlock()
		return unknown(id)
	}
	if j.rec.State.Ended() || j.rec.Committed {
		u := j.view(time.Now())
		q.mu.Unlock()
		if u.State.Ended() {
			return fmt.Errorf("cancel upload %s: %w: it is %s", id, core.ErrInvalid, u.State)
		}
		return fmt.Errorf("cancel upload %s: %w: the storage has the file already", id, core.ErrInvalid)
	}
	j.endLocked(core.UploadCancelled, reason)
	if j.interrupt != nil {
		j.interrupt()
	}
	q.tellLocked()
	q.mu.Unlock()
	j.say(slog.LevelInfo, "cancelled", "reason", reason)
	j.saved()
	j.dropSpool()
	q.prune() // no run ends as long as all wait
	return nil
}

// Wake ends waits between attempts: the network may be there again.
func (q *Queue) Wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	close(q.wake)
	q.wake = make(chan struct{})
}

// tellLocked announces a change; q.mu is held.
func (q *Queue) tellLocked() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// save writes an upload's record down.
func (q *Queue) save(j *job) error {
	if q.cfg.Keep == nil {
		return nil
	}
	q.saving.Lock()
	defer q.saving.Unlock()
	q.mu.Lock()
	r := j.rec
	r.Owed = slices.Clone(r.Owed)
	q.mu.Unlock()
	return q.cfg.Keep.Save(r)
}

// prune forgets the oldest of those that have ended.
func (q *Queue) prune() {
	q.saving.Lock()
	defer q.saving.Unlock()
	q.mu.Lock()
	var ended []*job
	for _, j := range q.jobs {
		if j.settled() && j.stop == nil {
			ended = append(ended, j)
		}
	}
	ended = ended[:max(0, len(ended)-keptEnded)]
	q.jobs = slices.DeleteFunc(q.jobs, func(j *job) bool { return slices.Contains(ended, j) })
	q.mu.Unlock()
	if q.cfg.Keep == nil {
		return
	}
	for _, j := range ended {
		if err := q.cfg.Keep.Remove(j.rec.ID); err != nil {
			q.log.Warn("the record of an ended upload stays on disk", "upload", j.rec.ID, "error", err)
		}
	}
}
