package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/uploads"
)

// StorageInfo is where the hub lets a device upload a blob.
type StorageInfo = core.StorageInfo

// GetStorageInfoForBlob asks the hub where a blob may be uploaded: PUT it to
// https://{HostName}/{ContainerName}/{BlobName}{SASToken}, then tell the hub by NotifyBlobUploadStatus. UploadFile does all of
// that. It goes over HTTPS and needs no session; what passes by itself is tried up to 5 times, as long as ctx allows. A
// refusal by the hub is ErrService, with its status and tracking id in the *Error.
//
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-file-upload
func (c *Client) GetStorageInfoForBlob(ctx context.Context, blobName string) (StorageInfo, error) {
	var info StorageInfo
	if c.files == nil {
		return info, errNoFiles
	}
	err := uploads.Ask(ctx, func(ctx context.Context) (err error) {
		info, err = c.files.StorageInfo(ctx, blobName)
		return err
	})
	return info, err
}

// NotifyBlobUploadStatus tells the hub how an upload ended; the correlation id is that of its StorageInfo. A failure has to
// be told too: the hub allows a device 10 uploads at a time. Errors are as for GetStorageInfoForBlob.
func (c *Client) NotifyBlobUploadStatus(ctx context.Context, correlationID string, isSuccess bool, statusCode int, statusDescription string) error {
	if c.files == nil {
		return errNoFiles
	}
	return uploads.Ask(ctx, func(ctx context.Context) error {
		return c.files.NotifyUpload(ctx, core.UploadOutcome{
			CorrelationID: correlationID, Success: isSuccess, StatusCode: statusCode, Description: statusDescription,
		})
	})
}

var errNoFiles = fmt.Errorf("device: the client was made without a way to upload files (Config.Files): %w", core.ErrUnsupported)

// Upload is how an upload stands.
type Upload = core.Upload

// UploadFile uploads the file at path as a blob, in blocks, and returns when the hub has been told of it. What fails is
// tried again until ctx ends, from where it stopped; then the upload is called off, and the hub is told that. progress,
// which may be nil, is told how it stands, from this goroutine. The error wraps ErrInvalid where the file or the name
// cannot be, uploads.ErrFailed where nothing that was tried helped: the file was changed meanwhile, the storage refuses it.
func (c *Client) UploadFile(ctx context.Context, blobName, path string, progress func(Upload)) error {
	if c.uploads == nil {
		return errNoFiles
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("upload %s: %w", path, err)
	}
	u, err := c.uploads.Add(ctx, core.UploadRequest{Path: abs, BlobName: blobName})
	if err != nil {
		return err
	}
	return c.waitUpload(ctx, u, progress)
}

// UploadFrom does what UploadFile does with all that r has. It is written to a temporary file first: r is read once, and
// what is sent may have to be sent again.
func (c *Client) UploadFrom(ctx context.Context, blobName string, r io.Reader, progress func(Upload)) error {
	if c.uploads == nil {
		return errNoFiles
	}
	buffer := make([]byte, 64<<10)
	u, err := c.uploads.AddStream(ctx, blobName, "", func(ctx context.Context) ([]byte, error) {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		n, err := r.Read(buffer)
		return buffer[:n], err
	})
	if err != nil {
		return err
	}
	return c.waitUpload(ctx, u, progress)
}

func (c *Client) waitUpload(ctx context.Context, u Upload, progress func(Upload)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-c.ended:
			cancel(core.ErrClosed)
		case <-ctx.Done():
		}
	}()
	_, err := c.uploads.Wait(ctx, u.ID, progress)
	if ctx.Err() != nil && !errors.Is(err, core.ErrClosed) {
		_ = c.uploads.Cancel(u.ID, "whoever asked for it does not wait any more") // it may have ended by now
	}
	return err
}

// Uploads gives the queue of uploads, to add to it without waiting, or to look at it; nil where there is none.
func (c *Client) Uploads() *uploads.Queue { return c.uploads }

// makeUploads makes the queue.
func (c *Client) makeUploads(cfg Config) error {
	if cfg.Uploads == nil || c.files == nil {
		return nil
	}
	u := *cfg.Uploads
	u.Files = c.files
	if u.Logger == nil {
		u.Logger = cfg.Logger
	}
	if u.Event == nil {
		u.Event = c.engine.Note
	}
	q, err := uploads.New(u)
	if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	c.uploads = q
	return nil
}

// runUploads runs the queue until ctx ends, and returns a channel that is closed when it has ended.
func (c *Client) runUploads(ctx context.Context) <-chan struct{} {
	ended := make(chan struct{})
	if c.uploads == nil {
		close(ended)
		return ended
	}
	// A session is a sign that the network is back.
	stop := c.own.Watch(func(now Connection) {
		if now.Connected() {
			c.uploads.Wake()
		}
	})
	go func() {
		defer close(ended)
		defer stop()
		c.uploads.Run(ctx)
	}()
	return ended
}

// serialize lets a source be called from any goroutine.
func serialize(source core.CredentialSource) core.CredentialSource {
	s := &serialSource{source: source, turn: make(chan struct{}, 1)}
	if holder, ok := source.(core.TokenHolder); ok {
		return &serialHolder{s, holder}
	}
	return s
}

type serialSource struct {
	source core.CredentialSource
	turn   chan struct{} // holds one value while the source is asked
}

// Credential implements core.CredentialSource.
func (s *serialSource) Credential(ctx context.Context) (core.Credential, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return core.Credential{}, &core.Error{Op: "make credential", Kind: core.Transient, Err: context.Cause(ctx)}
	}
	defer func() { <-s.turn }()
	return s.source.Credential(ctx)
}

type serialHolder struct {
	*serialSource
	holder core.TokenHolder
}

// Replace implements core.TokenHolder.
func (s *serialHolder) Replace(token core.Secret) error { return s.holder.Replace(token) }
