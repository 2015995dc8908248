package blob

import (
	"errors"
	"io"
	"time"
)

// errUnsettled is something that is in place, and may not outlive a power cut.
var errUnsettled = errors.New("blob: the directory could not be synced")

// medium is where segments and the lists of them are kept: a directory, or
// memory. A blob's key is the name of its directory. Only create and what it
// gives are used without the Store's lock.
type medium interface {
	// create begins a segment that belongs to no blob yet.
	create() (segment, error)
	// open gives the contents of a segment.
	open(key, name string) (io.ReadSeekCloser, error)
	// writeMeta puts the blob's meta in place, at once and for good, or leaves what
	// was there; errUnsettled is in between.
	writeMeta(key string, text []byte) error
	// remove removes files of a blob; one that is not there is fine.
	remove(key string, names ...string) error
	// removeAll removes a blob.
	removeAll(key string) error
	// load calls f for every blob that is there, and removes what no Store can
	// know: segments that were not kept.
	load(f func(key string, meta []byte, files []file) error) error
}

// segment is a part of a blob that is being received. Each ends with keep or
// discard, once.
type segment interface {
	io.Writer
	// seal makes what was written safe; nothing may be written after it.
	seal() error
	// keep makes the segment a file of the blob's. It is safe when settle returned.
	keep(key, name string) error
	// settle makes keep safe.
	settle() error
	discard()
}

// file is a segment that a medium found at its start.
type file struct {
	name     string
	size     int64
	modified time.Time
}
