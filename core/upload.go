package core

import (
	"context"
	"errors"
	"time"
)

// StorageInfo is where the hub lets a device upload one blob, and the number by which the device tells how that ended.
//
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-file-upload
type StorageInfo struct {
	// CorrelationID names the upload to the hub, which counts at most 10 of a device until each is told to have ended.
	CorrelationID string
	// HostName, ContainerName and BlobName make up the address: https://{host}/{container}/{blob}{token}. HostName may have
	// a port and, with an emulator, a path; BlobName begins with the device's id.
	HostName      string
	ContainerName string
	BlobName      string
	// SASToken grants writing there for a while; it begins with "?".
	SASToken Secret
}

// UploadOutcome is how an upload ended, as the hub is told.
type UploadOutcome struct {
	CorrelationID string `json:"correlation_id"`
	Success       bool   `json:"success"`
	// StatusCode is the storage's HTTP status, as a rule.
	StatusCode  int    `json:"status_code"`
	Description string `json:"description"`
}

// FileService is the hub as far as files go: two requests over HTTPS. Each is tried once, and ends when its context does;
// errors are *Error. It may be used from any goroutine.
type FileService interface {
	// StorageInfo asks where a blob of this name, which goes without the device's id, may be uploaded.
	StorageInfo(ctx context.Context, blobName string) (StorageInfo, error)
	// NotifyUpload tells how an upload ended.
	NotifyUpload(ctx context.Context, o UploadOutcome) error
}

// UploadState is how far an upload is.
type UploadState uint8

const (
	// UploadQueued: others are before it.
	UploadQueued UploadState = iota
	// UploadRunning: it is being carried out.
	UploadRunning
	// UploadWaiting: it met an obstacle, and is tried again by itself.
	UploadWaiting
	// UploadDone: the storage has the file, and the hub has been told.
	UploadDone
	// UploadFailed: it was given up, and the hub has been told where it knew of it.
	UploadFailed
	// UploadCancelled: somebody called it off.
	UploadCancelled
)

var uploadStateNames = [...]string{"queued", "uploading", "waiting", "done", "failed", "cancelled"}

// String returns the state's stable name.
func (s UploadState) String() string {
	if int(s) < len(uploadStateNames) {
		return uploadStateNames[s]
	}
	return "upload(?)"
}

// MarshalText gives the state's name.
func (s UploadState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the state's name. Its error wraps ErrInvalid.
func (s *UploadState) UnmarshalText(text []byte) error {
	for i, name := range uploadStateNames {
		if name == string(text) {
			*s = UploadState(i)
			return nil
		}
	}
	return errors.Join(ErrInvalid, errors.New("no such state of an upload: "+string(text)))
}

// Ended reports whether nothing more will become of the upload.
func (s UploadState) Ended() bool { return s >= UploadDone }

// Upload is an upload as its owner sees it: a value.
type Upload struct {
	ID       string
	BlobName string // without the device's id
	Path     string // "" for what a plugin streamed
	Owner    string // the plugin's name; "" for the operator, or the program
	State    UploadState
	// Size and Sent are bytes. Sent are those that the storage has confirmed, and those that were written to the network of
	// parts that it has not; where such a part must be sent again Sent falls back.
	Size, Sent int64
	// Rate is the recent pace in bytes per second; Left what remains at this pace, 0 where that is not known.
	Rate float64
	Left time.Duration
	// Reason says why it waits, or failed.
	Reason string
	// NextAttempt is how long until it is tried again; 0 where it is not waiting for that.
	NextAttempt time.Duration
}

// UploadRecord is what must be known of an upload after a restart. It holds no secret: the address that the hub gave is
// asked for anew.
type UploadRecord struct {
	ID       string      `json:"id"`
	Number   uint64      `json:"number"` // the order of the queue
	BlobName string      `json:"blob_name"`
	Path     string      `json:"path"`
	Owner    string      `json:"owner,omitempty"`
	Spooled  bool        `json:"spooled,omitempty"` // Path is the queue's own file, removed at the end
	State    UploadState `json:"state"`
	Reason   string      `json:"reason,omitempty"`
	// Size, ModTime and File are what the file was when it was taken on.
	Size    int64     `json:"size"`
	ModTime time.Time `json:"mod_time"`
	File    string    `json:"file,omitempty"` // which file it is on its file system, where that can be told
	// CorrelationID is open at the hub; "" where none is.
	CorrelationID string `json:"correlation_id,omitempty"`
	// Committed: the storage has the whole file.
	Committed bool `json:"committed,omitempty"`
	// Owed are outcomes that the hub has not acknowledged.
	Owed []UploadOutcome `json:"owed,omitempty"`
	// EndedAt is when State became one of an end, by the wall clock.
	EndedAt time.Time `json:"ended_at,omitzero"`
}

// UploadKeeper keeps the records of uploads over restarts. One goroutine at a time uses it. What Save and Remove have
// returned for outlives a crash.
type UploadKeeper interface {
	Load() ([]UploadRecord, error)
	Save(r UploadRecord) error
	Remove(id string) error
}

// UploadRequest says what to upload.
type UploadRequest struct {
	// Path is the file's, absolute.
	Path string
	// BlobName is its name in the storage, without the device's id: up to 1024 characters together with that.
	BlobName string
	// Owner is the plugin that asks; "" for the operator, or the program.
	Owner string
}

// PluginFiles is what a plugin may do with files. Its functions may be called from any goroutine, and end when their
// contexts do.
type PluginFiles interface {
	FileService
	// Upload uploads a file that the plugin's configuration allows, and returns when the upload has ended. progress is told
	// how it stands, from one goroutine; it must not block. When ctx ends the upload is called off, unless its cause is
	// ErrClosed: then it goes on without the plugin.
	Upload(ctx context.Context, blobName, path string, progress func(Upload)) error
	// UploadStream does the same with what next returns, which is written to disk first: up to io.EOF. Any other error of
	// next calls the upload off. next's bytes are its own again at the next call.
	UploadStream(ctx context.Context, blobName string, next func(ctx context.Context) ([]byte, error), progress func(Upload)) error
}
