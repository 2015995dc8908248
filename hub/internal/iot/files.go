package iot

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// Storage is where devices upload to. Names of blobs begin with the device's id.
// What is not there is an fs.ErrNotExist, what is not allowed an fs.ErrPermission,
// what the storage does not understand an fs.ErrInvalid.
type Storage interface {
	// Prepare makes what uploads need, such as the container; it is called before
	// each upload begins and returns at once when all is there.
	Prepare(ctx context.Context) error
	// Address grants reading and writing the blob until the expiry. reachedAt is
	// the host and port at which the device has reached the hub.
	Address(reachedAt, blob string, now, expiry time.Time) api.UploadAddress
	// Stat, List and Open look at what is there. Open's caller closes.
	Stat(ctx context.Context, blob string) (api.File, error)
	List(ctx context.Context, prefix string) ([]api.File, error)
	Open(ctx context.Context, blob string) (io.ReadCloser, api.File, error)
	// IsOwn reports whether the hub itself answers for it, and can make it fail.
	IsOwn() bool
}

// UseStorage names where devices upload to. Call it before the first request.
func (s *Service) UseStorage(storage Storage) { s.storage = storage }

// upload is one that has begun and has not been completed.
type upload struct {
	CorrelationID string    `json:"correlationId"`
	Identity      string    `json:"identity"`
	BlobName      string    `json:"blobName"`
	BlobURI       string    `json:"blobUri"`
	Expires       time.Time `json:"expires"`
}

func uploadKey(correlationID string) string { return "upload/" + correlationID }

func (s *Service) loadUpload(_ string, value json.RawMessage) error {
	u := &upload{}
	if err := json.Unmarshal(value, u); err != nil {
		return err
	}
	if ident, ok := s.identities[api.ParseID(u.Identity)]; ok {
		ident.uploads = append(ident.uploads, u)
		slices.SortFunc(ident.uploads, func(a, b *upload) int { return a.Expires.Compare(b.Expires) })
	}
	return nil
}

// BeginUpload gives a device an address to upload to, and a number to report by.
// More than 10 uploads at a time are a 403006.
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-file-upload
func (s *Service) BeginUpload(ctx context.Context, id api.ID, name, reachedAt string) (api.UploadAddress, error) {
	blob := id.String() + "/" + name
	if err := checkBlobName(name, blob); err != nil {
		return api.UploadAddress{}, err
	}
	ready, cancel := context.WithTimeout(ctx, storagePreparation)
	defer cancel()
	if err := s.storage.Prepare(ready); err != nil {
		return api.UploadAddress{}, s.storageError("prepare storage for an upload", blob, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(id)
	if err != nil {
		return api.UploadAddress{}, err
	}
	now := time.Now().UTC()
	if err := s.sweepUploads(ident, now); err != nil {
		return api.UploadAddress{}, err
	}
	active := 0
	for _, u := range ident.uploads {
		if now.Before(u.Expires) {
			active++
		}
	}
	if active >= maxActiveUploads {
		return api.UploadAddress{}, api.Refuse(api.CodeTooManyUploads, "device %s has %d uploads that it has not completed", id, active)
	}
	expires := now.Add(s.cfg.UploadLife)
	addressEnds := expires
	if f, struck := s.strike(api.FaultShortSAS, id); struck {
		addressEnds = now.Add(time.Duration(f.Delay))
	}
	address := s.storage.Address(reachedAt, blob, now, addressEnds)
	address.CorrelationID = newCorrelationID(now)
	u := &upload{
		CorrelationID: address.CorrelationID, Identity: id.String(), BlobName: blob, Expires: expires,
		BlobURI: "https://" + address.HostName + (&url.URL{Path: "/" + address.ContainerName + "/" + blob}).EscapedPath(),
	}
	if err := s.put(uploadKey(u.CorrelationID), u); err != nil {
		return api.UploadAddress{}, err
	}
	ident.uploads = append(ident.uploads, u)
	ident.counters.UploadsStarted++
	s.saw(id, api.SawUpload, blob)
	return address, nil
}

// storageError is what a device is told of trouble with the storage account: that
// it is set up wrongly, a 400020, which trying again does not mend, or that it does
// not work now, a 500001.
func (s *Service) storageError(what, blob string, err error) error {
	s.log.Error(what, "blob", blob, "err", err)
	for _, refused := range []error{fs.ErrNotExist, fs.ErrPermission, fs.ErrInvalid} {
		if errors.Is(err, refused) {
			return api.Refuse(api.CodeStorage, "the storage account for uploads refuses the hub; the hub's log says why")
		}
	}
	return api.Refuse(api.CodeServerError, "the storage account for uploads does not answer; the hub's log says why")
}

// newCorrelationID makes a number like those of the real hub: base64, so that a
// client that forgets to encode it is found out.
func newCorrelationID(now time.Time) string {
	return base64.StdEncoding.EncodeToString([]byte(now.Format("200601021504") + "_" + TrackingID() + "_ver2.0"))
}

func checkBlobName(name, blob string) error {
	switch {
	case name == "":
		return api.Refuse(api.CodeArgumentInvalid, "blobName is missing")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return api.Refuse(api.CodeArgumentInvalid, "blobName holds control characters, or is not UTF-8")
	case utf8.RuneCountInString(blob) > maxBlobName:
		return api.Refuse(api.CodeArgumentInvalid, "blobName has more than %d characters together with the device's id", maxBlobName)
	}
	return nil
}

// sweepUploads forgets uploads that ended long ago. The latest few stay, so that
// a completion that comes too late is told so.
func (s *Service) sweepUploads(ident *identity, now time.Time) error {
	expired := 0
	for _, u := range ident.uploads {
		if !now.Before(u.Expires) {
			expired++
		}
	}
	for _, u := range slices.Clone(ident.uploads) {
		if expired <= maxExpiredUploads {
			break
		}
		if now.Before(u.Expires) {
			continue
		}
		if err := s.forgetUpload(ident, u); err != nil {
			return err
		}
		expired--
	}
	return nil
}

func (s *Service) forgetUpload(ident *identity, u *upload) error {
	ident.uploads = slices.DeleteFunc(ident.uploads, func(other *upload) bool { return other == u })
	return s.journal.Delete(uploadKey(u.CorrelationID))
}

func (s *Service) forgetUploads(ident *identity) error {
	for _, u := range ident.uploads {
		if err := s.journal.Delete(uploadKey(u.CorrelationID)); err != nil {
			return err
		}
	}
	ident.uploads = nil
	return nil
}

// CompleteUpload takes a device's word that it has uploaded, or has given up,
// and tells the services of a success. A number that is not known is a 400015,
// one whose time is over a 400016, a success without a blob a 400020; that one
// may be reported again.
func (s *Service) CompleteUpload(ctx context.Context, id api.ID, c api.UploadCompletion) error {
	s.mu.Lock()
	u, err := s.findUpload(id, c.CorrelationID, time.Now())
	s.mu.Unlock()
	if err != nil {
		return err
	}
	var file api.File
	if c.IsSuccess {
		if file, err = s.storage.Stat(ctx, u.BlobName); errors.Is(err, fs.ErrNotExist) {
			return api.Refuse(api.CodeStorage, "the upload was reported as a success, and there is no blob %s", u.BlobName)
		}
		if err != nil {
			return s.storageError("look for an uploaded blob", u.BlobName, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UTC()
	if u, err = s.findUpload(id, c.CorrelationID, now); err != nil {
		return err // completed in the meantime
	}
	ident := s.identities[id]
	if c.IsSuccess {
		// The notification first: who is killed in between reports once more.
		if err := s.notify(api.FileNotification{
			DeviceID: id.Device, BlobURI: u.BlobURI, BlobName: u.BlobName, LastUpdatedTime: file.LastModified, BlobSizeInBytes: file.Size, EnqueuedTimeUTC: now,
		}); err != nil {
			return err
		}
		ident.counters.UploadsSucceeded++
		s.saw(id, api.SawUploaded, u.BlobName)
	} else {
		ident.counters.UploadsFailed++
		s.saw(id, api.SawUploadFailed, u.BlobName)
		s.log.Info("a device gave up an upload", "device", id.String(), "blob", u.BlobName, "status", c.StatusCode)
	}
	return s.forgetUpload(ident, u)
}

func (s *Service) findUpload(id api.ID, correlationID string, now time.Time) (*upload, error) {
	ident, err := s.find(id)
	if err != nil {
		return nil, err
	}
	for _, u := range ident.uploads {
		if u.CorrelationID != correlationID {
			continue
		}
		if !now.Before(u.Expires) {
			return nil, api.Refuse(api.CodeExpiredUpload, "the upload's time was over at %s; begin another one", u.Expires.Format(time.RFC3339))
		}
		return u, nil
	}
	return nil, api.Refuse(api.CodeUnknownUpload, "device %s has no upload with this correlation id", id)
}

// Files lists what a device, or a module, has uploaded, in the order of the
// names.
func (s *Service) Files(ctx context.Context, id api.ID) ([]api.File, error) {
	if _, err := s.Device(id); err != nil {
		return nil, err
	}
	prefix := id.String() + "/"
	files, err := s.storage.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("list files of %s: %w", id, err)
	}
	for i := range files {
		files[i].Name = strings.TrimPrefix(files[i].BlobName, prefix)
	}
	slices.SortFunc(files, func(a, b api.File) int { return cmp.Compare(a.Name, b.Name) })
	return files, nil
}

// OpenFile gives what a device, or a module, has uploaded under the name. The
// caller closes it.
func (s *Service) OpenFile(ctx context.Context, id api.ID, name string) (io.ReadCloser, api.File, error) {
	if _, err := s.Device(id); err != nil {
		return nil, api.File{}, err
	}
	content, file, err := s.storage.Open(ctx, id.String()+"/"+name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.File{}, api.Refuse(api.CodeFileNotFound, "%s has no file %q", id, name)
	}
	if err != nil {
		return nil, api.File{}, fmt.Errorf("open file %q of %s: %w", name, id, err)
	}
	file.Name = name
	return content, file, nil
}
