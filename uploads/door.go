package uploads

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairlead-iot/fairlead/core"
)

// Door is the way of one plugin to the queue. It implements core.PluginFiles.
type Door struct {
	// Owner is the plugin's name.
	Owner string
	// Dirs are the directories, absolute, from which it may have files uploaded.
	Dirs []string
	// Open gives the queue and the hub; it may wait for them.
	Open func(ctx context.Context) (*Queue, error)
}

var _ core.PluginFiles = (*Door)(nil)

// StorageInfo implements core.FileService; it tries up to 5 times.
func (d *Door) StorageInfo(ctx context.Context, blobName string) (info core.StorageInfo, err error) {
	q, err := d.Open(ctx)
	if err != nil {
		return info, err
	}
	err = Ask(ctx, func(ctx context.Context) error {
		info, err = q.cfg.Files.StorageInfo(ctx, blobName)
		return err
	})
	return info, err
}

// NotifyUpload implements core.FileService; it tries up to 5 times.
func (d *Door) NotifyUpload(ctx context.Context, o core.UploadOutcome) error {
	q, err := d.Open(ctx)
	if err != nil {
		return err
	}
	return Ask(ctx, func(ctx context.Context) error { return q.cfg.Files.NotifyUpload(ctx, o) })
}

// Upload implements core.PluginFiles.
func (d *Door) Upload(ctx context.Context, blobName, path string, progress func(core.Upload)) error {
	q, err := d.Open(ctx)
	if err != nil {
		return err
	}
	want, err := d.look(path)
	if err != nil {
		return fmt.Errorf("upload %s: %w: %w", path, core.ErrInvalid, err)
	}
	u, err := q.add(ctx, core.UploadRequest{Path: filepath.Clean(path), BlobName: blobName, Owner: d.Owner}, false, want)
	if err != nil {
		return err
	}
	return q.wait(ctx, u, progress)
}

// UploadStream implements core.PluginFiles.
func (d *Door) UploadStream(ctx context.Context, blobName string, next func(context.Context) ([]byte, error), progress func(core.Upload)) error {
	q, err := d.Open(ctx)
	if err != nil {
		return err
	}
	u, err := q.AddStream(ctx, blobName, d.Owner, next)
	if err != nil {
		return err
	}
	return q.wait(ctx, u, progress)
}

// wait waits for an upload, and calls it off when ctx ends, unless its cause is core.ErrClosed.
func (q *Queue) wait(ctx context.Context, u core.Upload, progress func(core.Upload)) error {
	_, err := q.Wait(ctx, u.ID, progress)
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), core.ErrClosed) {
		_ = q.Cancel(u.ID, "whoever asked for it does not wait any more") // it may have ended by now
	}
	return err
}

// look finds a file within the plugin's directories, and says what it is. The file that is uploaded later must be the
// same one: so a link that is moved in between leads nowhere else.
func (d *Door) look(path string) (*facts, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("the path is not absolute")
	}
	path = filepath.Clean(path)
	err := fmt.Errorf("it is not in a directory from which this plugin may upload (%s); see plugins.%s.uploads", strings.Join(d.Dirs, ", "), d.Owner)
	if len(d.Dirs) == 0 {
		err = fmt.Errorf("this plugin may not upload files: name their directories in plugins.%s.uploads", d.Owner)
	}
	for _, dir := range d.Dirs {
		rel, relErr := filepath.Rel(dir, path)
		if relErr != nil || !filepath.IsLocal(rel) {
			continue
		}
		var f facts
		if f, err = lookWithin(dir, rel); err == nil {
			return &f, nil
		}
	}
	return nil, err
}

// lookWithin looks at a file of a directory; links lead no further than that.
func lookWithin(dir, rel string) (facts, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return facts{}, err
	}
	defer root.Close() //nolint:errcheck // it was read
	info, err := root.Stat(rel)
	if err != nil {
		return facts{}, reason(err)
	}
	if !info.Mode().IsRegular() {
		return facts{}, errors.New("it is not a regular file")
	}
	return facts{info.Size(), info.ModTime().UTC(), fileID(info)}, nil
}
