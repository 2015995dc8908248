package sdktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/fairlead-iot/fairlead/core"
)

// Files is a storage account without a network, and without rules: it keeps what a plugin uploads in memory, takes any
// file that it can read, and tells progress twice. It does not model: obstacles, directories that are not allowed, the
// hub's limit of 10. The zero value is ready; its methods may be called from any goroutine.
type Files struct {
	// Hold, if set, is waited for before an upload ends.
	Hold <-chan struct{}

	mu       sync.Mutex
	blobs    map[string][]byte
	outcomes []core.UploadOutcome
	asked    int
}

var _ core.PluginFiles = (*Files)(nil)

// Blob returns what was uploaded under a name; nil if nothing was.
func (f *Files) Blob(name string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.blobs[name])
}

// Names returns the names of all blobs, sorted.
func (f *Files) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.blobs))
}

// Outcomes returns what the hub was told by NotifyUpload, in order.
func (f *Files) Outcomes() []core.UploadOutcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.outcomes)
}

// StorageInfo implements core.FileService.
func (f *Files) StorageInfo(_ context.Context, blobName string) (core.StorageInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return core.StorageInfo{
		CorrelationID: fmt.Sprintf("correlation-%d", f.asked), HostName: "storage.test", ContainerName: "uploads", BlobName: "device-1/" + blobName,
		SASToken: "?sv=2024&sig=test",
	}, nil
}

// NotifyUpload implements core.FileService.
func (f *Files) NotifyUpload(_ context.Context, o core.UploadOutcome) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.outcomes = append(f.outcomes, o)
	return nil
}

// Upload implements core.PluginFiles.
func (f *Files) Upload(ctx context.Context, blobName, path string, progress func(core.Upload)) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("upload: %w: %w", core.ErrInvalid, err)
	}
	return f.finish(ctx, blobName, content, progress)
}

// UploadStream implements core.PluginFiles.
func (f *Files) UploadStream(ctx context.Context, blobName string, next func(context.Context) ([]byte, error), progress func(core.Upload)) error {
	var content []byte
	for {
		p, err := next(ctx)
		content = append(content, p...)
		if errors.Is(err, io.EOF) {
			return f.finish(ctx, blobName, content, progress)
		}
		if err != nil {
			return err
		}
	}
}

func (f *Files) finish(ctx context.Context, name string, content []byte, progress func(core.Upload)) error {
	u := core.Upload{ID: "upload-" + name, BlobName: name, State: core.UploadRunning, Size: int64(len(content))}
	progress(u)
	if f.Hold != nil {
		select {
		case <-f.Hold:
		case <-ctx.Done():
			return fmt.Errorf("upload: %w", context.Cause(ctx))
		}
	}
	f.mu.Lock()
	if f.blobs == nil {
		f.blobs = map[string][]byte{}
	}
	f.blobs[name] = content
	f.mu.Unlock()
	u.State, u.Sent = core.UploadDone, u.Size
	progress(u)
	return nil
}
