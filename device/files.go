package device

import (
	"context"
	"fmt"

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
