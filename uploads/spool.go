package uploads

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fairlead-iot/fairlead/core"
)

// spoolPattern is the name of a spool file.
const spoolPattern = "fairlead-upload-*.spool"

// AddStream writes what next returns to a file of the queue's own, up to io.EOF, and takes that on as an upload. next's
// bytes are its own again at its next call. The error wraps core.ErrTooLarge where the spool would be too full.
func (q *Queue) AddStream(ctx context.Context, blobName, owner string, next func(context.Context) ([]byte, error)) (_ core.Upload, err error) {
	if err := CheckBlobName(blobName); err != nil {
		return core.Upload{}, fmt.Errorf("upload a stream: %w", err)
	}
	dir := q.cfg.Spool
	if dir == "" {
		dir = os.TempDir()
	}
	f, err := os.CreateTemp(dir, spoolPattern) // mode 0600
	if err != nil {
		return core.Upload{}, fmt.Errorf("upload a stream: %w", err)
	}
	var size int64
	defer func() {
		if err != nil {
			_ = f.Close() // closed already, perhaps
			_ = os.Remove(f.Name())
			q.mu.Lock()
			q.spooled -= size
			q.mu.Unlock()
		}
	}()
	for {
		p, readErr := next(ctx)
		if len(p) > 0 {
			q.mu.Lock()
			isFull := q.spooled+int64(len(p)) > q.cfg.SpoolMax
			if !isFull {
				q.spooled += int64(len(p))
				size += int64(len(p))
			}
			q.mu.Unlock()
			if isFull {
				return core.Upload{}, fmt.Errorf("upload a stream: %w: at most %d bytes of streams are kept on disk", core.ErrTooLarge, q.cfg.SpoolMax)
			}
			if _, err := f.Write(p); err != nil {
				return core.Upload{}, fmt.Errorf("upload a stream: %w", err)
			}
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			return core.Upload{}, fmt.Errorf("upload a stream: %w", readErr)
		}
	}
	if err := errors.Join(f.Sync(), f.Close(), syncDir(dir)); err != nil {
		return core.Upload{}, fmt.Errorf("upload a stream: %w", err)
	}
	path, err := filepath.Abs(f.Name())
	if err != nil {
		return core.Upload{}, fmt.Errorf("upload a stream: %w", err)
	}
	return q.add(ctx, core.UploadRequest{Path: path, BlobName: blobName, Owner: owner}, true, nil)
}

// dropSpool removes the file of an upload that has ended, if it is the queue's own.
func (j *job) dropSpool() {
	if !j.rec.Spooled {
		return
	}
	if err := os.Remove(j.rec.Path); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			j.q.log.Warn("the spool file of an ended upload stays on disk", "file", j.rec.Path, "error", err)
		}
		return
	}
	j.q.mu.Lock()
	j.q.spooled -= j.rec.Size
	j.q.mu.Unlock()
}

// sweepSpool removes what streams left that were not taken on before a crash. A shared directory is left alone.
func (q *Queue) sweepSpool(used map[string]bool) {
	if q.cfg.Spool == "" {
		return
	}
	found, err := filepath.Glob(filepath.Join(q.cfg.Spool, spoolPattern))
	if err != nil {
		return // the pattern is constant
	}
	for _, path := range found {
		if !used[filepath.Base(path)] {
			_ = os.Remove(path) // tried again at the next start
		}
	}
}
