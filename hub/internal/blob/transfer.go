package blob

import (
	"crypto/md5" //nolint:gosec // Azure's checksum of transport, not a protection
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"sync"
)

// crcPolynomial is the one of Azure Storage,
// https://learn.microsoft.com/rest/api/storageservices/put-block
// (x-ms-content-crc64); bits reversed, as hash/crc64 wants it.
const crcPolynomial = 0x9A6C9329AC4BC9B5

// buffers are shared by all transfers of an endpoint, so that their number, and
// not the size of blobs, is what they cost.
type buffers struct{ pool sync.Pool }

// copy copies up to the end of r.
func (b *buffers) copy(w io.Writer, r io.Reader) (int64, error) {
	buf, ok := b.pool.Get().(*[]byte)
	if !ok {
		made := make([]byte, copyBuffer)
		buf = &made
	}
	defer b.pool.Put(buf)
	// Not io.WriterTo and io.ReaderFrom: they would choose buffers of their own.
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, *buf)
}

// received is content that has come and belongs to no blob yet.
type received struct {
	segment segment
	size    int64
	md5     []byte // nil unless it was asked for
	crc64   uint64
	kept    bool
}

// end gives up what was not kept.
func (in *received) end() {
	if !in.kept {
		in.segment.discard()
	}
}

// receive reads content of the length that was announced and makes it safe.
func (s *Store) receive(body io.Reader, length int64, withMD5 bool, b *buffers) (*received, error) {
	seg, err := s.medium.create()
	if err != nil {
		return nil, err
	}
	in := &received{segment: seg}
	crc := crc64.New(crc64.MakeTable(crcPolynomial))
	writers := []io.Writer{seg, crc}
	var digest hash.Hash
	if withMD5 {
		digest = md5.New() //nolint:gosec // as above
		writers = append(writers, digest)
	}
	in.size, err = b.copy(io.MultiWriter(writers...), body)
	if err == nil && in.size != length {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = seg.seal()
	}
	if err != nil {
		in.end()
		return nil, fmt.Errorf("receive content: %w", err)
	}
	in.crc64 = crc.Sum64()
	if digest != nil {
		in.md5 = digest.Sum(nil)
	}
	return in, nil
}

// Reader reads a blob as it was when the Reader was opened.
type Reader struct {
	store *Store
	entry *entry
	dir   string
	blob  *Blob
	once  sync.Once
}

// Open opens a committed blob; one that is not there is a BlobNotFound *Error.
// Close the Reader.
func (s *Store) Open(key Key) (*Reader, error) {
	dir := key.dir()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[dir]
	if e == nil || e.blob == nil {
		return nil, notFound()
	}
	e.readers++
	return &Reader{store: s, entry: e, dir: dir, blob: e.blob}, nil
}

// Blob returns what is read.
func (r *Reader) Blob() *Blob { return r.blob }

// Close lets go of the blob.
func (r *Reader) Close() error {
	r.once.Do(func() {
		r.store.mu.Lock()
		defer r.store.mu.Unlock()
		r.entry.readers--
		r.store.tidy(r.dir, r.entry)
	})
	return nil
}

// copyTo writes length bytes from offset on, segment by segment.
func (r *Reader) copyTo(w io.Writer, offset, length int64, b *buffers) error {
	for _, part := range r.blob.segments {
		if length == 0 {
			return nil
		}
		if offset >= part.Size {
			offset -= part.Size
			continue
		}
		n := min(length, part.Size-offset)
		if err := r.copySegment(w, part, offset, n, b); err != nil {
			return err
		}
		offset, length = 0, length-n
	}
	if length > 0 {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (r *Reader) copySegment(w io.Writer, part block, offset, n int64, b *buffers) error {
	f, err := r.store.medium.open(r.dir, part.File)
	if err != nil {
		return err
	}
	_, err = f.Seek(offset, io.SeekStart)
	if err == nil {
		var copied int64
		if copied, err = b.copy(w, io.LimitReader(f, n)); err == nil && copied < n {
			err = io.ErrUnexpectedEOF
		}
	}
	return errors.Join(err, f.Close())
}
