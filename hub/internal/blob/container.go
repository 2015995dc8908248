package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// Container is one container of an endpoint, as the hub's own side sees it:
// without signatures and HTTP. It needs no making.
type Container struct {
	endpoint *Endpoint
	name     string
}

// Container returns the container of the name.
func (e *Endpoint) Container(name string) *Container { return &Container{e, name} }

// Prepare has nothing to do.
func (c *Container) Prepare(context.Context) error { return nil }

// Address grants reading and writing a blob until the expiry, at the host at
// which a device has reached the hub.
func (c *Container) Address(reachedAt, blob string, now, expiry time.Time) api.UploadAddress {
	host, query := c.endpoint.Sign(reachedAt, c.name, blob, now, expiry)
	return api.UploadAddress{HostName: host, ContainerName: c.name, BlobName: blob, SASToken: "?" + query}
}

// Stat looks at a blob; one that is not there is an fs.ErrNotExist.
func (c *Container) Stat(_ context.Context, blob string) (api.File, error) {
	b, err := c.endpoint.cfg.Store.Stat(Key{c.name, blob})
	if err != nil {
		return api.File{}, asNotExist(err)
	}
	return fileOf(b), nil
}

// List lists the blobs whose names begin with prefix.
func (c *Container) List(_ context.Context, prefix string) ([]api.File, error) {
	files := []api.File{}
	for _, b := range c.endpoint.cfg.Store.List(c.name, prefix) {
		files = append(files, fileOf(b))
	}
	return files, nil
}

// Open opens a blob; one that is not there is an fs.ErrNotExist. A blob that is
// replaced meanwhile is read as it was.
func (c *Container) Open(_ context.Context, blob string) (io.ReadCloser, api.File, error) {
	r, err := c.endpoint.cfg.Store.Open(Key{c.name, blob})
	if err != nil {
		return nil, api.File{}, asNotExist(err)
	}
	return &content{Reader: r}, fileOf(r.Blob()), nil
}

// IsOwn reports that the hub itself answers here.
func (c *Container) IsOwn() bool { return true }

func asNotExist(err error) error {
	if refusal, ok := errors.AsType[*Error](err); ok && refusal.Status == http.StatusNotFound {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

func fileOf(b *Blob) api.File {
	return api.File{BlobName: b.Key.Name, Size: b.Size, ContentType: b.Properties.ContentType, ETag: b.ETag, LastModified: b.Modified}
}

// content reads a blob from its begin to its end.
type content struct {
	*Reader
	offset int64
	part   io.ReadSeekCloser // the segment that is being read
	index  int
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	for c.index < len(c.blob.segments) {
		if c.part == nil {
			part, err := c.store.medium.open(c.dir, c.blob.segments[c.index].File)
			if err != nil {
				return 0, err
			}
			c.part = part
		}
		n, err := c.part.Read(p)
		c.offset += int64(n)
		if errors.Is(err, io.EOF) {
			err = c.part.Close()
			c.part = nil
			c.index++
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	if c.offset != c.blob.Size {
		return 0, io.ErrUnexpectedEOF
	}
	return 0, io.EOF
}

// Close implements io.Closer.
func (c *content) Close() error {
	var err error
	if c.part != nil {
		err = c.part.Close()
	}
	return errors.Join(err, c.Reader.Close())
}
