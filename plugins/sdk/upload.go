package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// StorageInfo says where a blob may be uploaded, and with what token.
type StorageInfo struct {
	CorrelationID string
	HostName      string
	ContainerName string
	BlobName      string
	// SASToken is a secret: whoever has it can write there for a while. It begins with "?".
	SASToken string
}

// StorageInfo asks the hub where the blob may be uploaded.
func (d *Device) StorageInfo(ctx context.Context, blobName string) (*StorageInfo, error) {
	r, err := d.s.request(ctx, "storage info", &pluginv1.Request{Request: &pluginv1.Request_StorageInfo{
		StorageInfo: &pluginv1.StorageInfoRequest{BlobName: blobName},
	}})
	if err != nil {
		return nil, err
	}
	i := r.GetStorageInfo()
	return &StorageInfo{
		CorrelationID: i.GetCorrelationId(), HostName: i.GetHostName(), ContainerName: i.GetContainerName(),
		BlobName: i.GetBlobName(), SASToken: i.GetSasToken(),
	}, nil
}

// UploadResult is how an upload ended.
type UploadResult struct {
	CorrelationID string // of StorageInfo
	Success       bool
	StatusCode    int
	Description   string
}

// NotifyUpload tells the hub how an upload ended.
func (d *Device) NotifyUpload(ctx context.Context, r UploadResult) error {
	_, err := d.s.request(ctx, "notify upload", &pluginv1.Request{Request: &pluginv1.Request_NotifyUpload{
		NotifyUpload: &pluginv1.NotifyUploadRequest{
			CorrelationId: r.CorrelationID, Success: r.Success, StatusCode: int32(r.StatusCode), StatusDescription: r.Description,
		},
	}})
	return err
}

// UploadProgress is how an upload stands: ID, State, Size, Sent, Rate, Left, Reason, NextAttempt.
type UploadProgress = core.Upload

// Upload has the host upload the file at path (absolute), which must lie in a directory that the configuration allows
// this plugin (plugins.NAME.uploads), and returns when the hub has been told of it. A bad link only makes it take longer.
// progress, which may be nil, is told how it stands, one call at a time; it must not block, nor end by waiting for Upload.
// When ctx ends the upload is called off. The end of the plugin does not end it.
func (d *Device) Upload(ctx context.Context, blobName, path string, progress func(UploadProgress)) error {
	_, err := d.upload(ctx, &pluginv1.UploadRequest{BlobName: blobName, Path: path}, progress, nil)
	return err
}

// UploadFrom does what Upload does with all that r has. The host writes it to its disk first; from then on the upload goes
// on without the plugin. r is read as fast as the host takes it. If r fails, the upload is called off, and the error wraps
// r's. When ctx ends while r is being read, UploadFrom returns, and that Read is the last.
func (d *Device) UploadFrom(ctx context.Context, blobName string, r io.Reader, progress func(UploadProgress)) error {
	if !d.s.knowsUploads {
		return fmt.Errorf("upload: %w: this host takes no streams", ErrUnsupported)
	}
	out := &outflow{s: d.s, r: r, credited: make(chan struct{}, 1)}
	out.ctx, out.stop = context.WithCancel(ctx)
	defer out.stop()
	_, err := d.upload(ctx, &pluginv1.UploadRequest{BlobName: blobName, Stream: true}, progress, out)
	if failed := out.failed(); err != nil && failed != nil {
		return fmt.Errorf("upload: read what is to be uploaded: %w", failed)
	}
	return err
}

func (d *Device) upload(ctx context.Context, r *pluginv1.UploadRequest, progress func(UploadProgress), out *outflow) (*pluginv1.Reply, error) {
	watch := &uploadWatch{progress: progress, out: out}
	return d.s.requestWith(ctx, "upload", &pluginv1.Request{Request: &pluginv1.Request_Upload{Upload: r}}, watch)
}

// uploadWatch is what concerns one open upload.
type uploadWatch struct {
	progress func(UploadProgress)
	out      *outflow // nil for a file

	mu     sync.Mutex // one call of progress at a time
	closed bool
}

// close makes sure that progress is not called any more.
func (w *uploadWatch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

func (w *uploadWatch) tell(p *pluginv1.UploadProgress) {
	if w.progress == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.progress(wire.ToUpload(p))
}

// outflow sends what a reader has, as far as the host allows.
type outflow struct {
	s    *session
	r    io.Reader
	id   uint64          // of the request
	ctx  context.Context //nolint:containedctx // of the upload
	stop context.CancelFunc

	mu       sync.Mutex
	started  bool
	credit   uint64
	err      error // of the reader
	credited chan struct{}
}

// grant is told the host's credit; the first sets the reading going.
func (o *outflow) grant(n uint64) {
	o.mu.Lock()
	o.credit += n
	first := !o.started
	o.started = true
	o.mu.Unlock()
	select {
	case o.credited <- struct{}{}:
	default:
	}
	if first {
		go o.run()
	}
}

func (o *outflow) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

func (o *outflow) run() {
	for {
		o.mu.Lock()
		allowed := o.credit
		o.mu.Unlock()
		if allowed == 0 {
			select {
			case <-o.credited:
				continue
			case <-o.ctx.Done():
				return
			}
		}
		buffer := make([]byte, min(allowed, wire.UploadFrame)) // the frame's own: the writer may keep it for a while
		n, err := o.r.Read(buffer)
		if o.ctx.Err() != nil {
			return // nobody waits for it
		}
		o.mu.Lock()
		o.credit -= uint64(n) //nolint:gosec // a length
		o.mu.Unlock()
		data := &pluginv1.UploadData{Id: o.id, Data: buffer[:n], Last: errors.Is(err, io.EOF)}
		if err != nil && !data.GetLast() {
			o.mu.Lock()
			o.err = err
			o.mu.Unlock()
			data.Failure = valid(err.Error())
		}
		if n > 0 || err != nil {
			o.s.out.control(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_UploadData{UploadData: data}})
		}
		if err != nil {
			return
		}
	}
}
