package blob

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Version of meta.json that this package writes.
const Version = 1

// ErrNewer is a blob that a later version of this program wrote.
var ErrNewer = errors.New("blob: written by a newer version")

// Key names a blob.
type Key struct {
	Container string
	Name      string
}

// dir is the name of the blob's directory: a blob's name may be longer than a
// file's, and may hold anything.
func (k Key) dir() string {
	sum := sha256.Sum256([]byte(k.Container + "\x00" + k.Name))
	return hex.EncodeToString(sum[:])
}

// Properties are what a client says of a blob, and gets back.
type Properties struct {
	ContentType        string            `json:"contentType,omitempty"`
	ContentEncoding    string            `json:"contentEncoding,omitempty"`
	ContentLanguage    string            `json:"contentLanguage,omitempty"`
	ContentDisposition string            `json:"contentDisposition,omitempty"`
	CacheControl       string            `json:"cacheControl,omitempty"`
	MD5                []byte            `json:"md5,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"` // names in lower case
}

// Blob is a committed blob. It is not changed once it is there.
type Blob struct {
	Key        Key
	Size       int64
	ETag       string // with its quotes
	Created    time.Time
	Modified   time.Time
	Properties Properties
	segments   []block
}

// block is a segment, and a part of a blob.
type block struct {
	ID   []byte `json:"id,omitempty"` // before base64; empty for a blob that was put at once
	File string `json:"file"`
	Size int64  `json:"size"`
}

// meta is a committed blob on disk.
type meta struct {
	Version    int        `json:"version"`
	Container  string     `json:"container"`
	Name       string     `json:"name"`
	Size       int64      `json:"size"`
	ETag       string     `json:"etag"`
	Created    time.Time  `json:"created"`
	Modified   time.Time  `json:"modified"`
	Properties Properties `json:"properties"`
	// Sequence is that of the commit, or of the deletion: a segment with a lower
	// one that does not stand in Segments is garbage, one with a higher one waits
	// for a commit.
	Sequence uint64  `json:"sequence"`
	Segments []block `json:"segments,omitempty"`
	Deleted  bool    `json:"deleted,omitempty"`
}

// entry is everything about one blob. blob is nil when there are only blocks
// that wait for a commit.
type entry struct {
	blob        *Blob
	uncommitted map[string]block // by id
	idLength    int              // of those that are uncommitted: they have one
	lastPut     time.Time        // of a block
	readers     int
	garbage     []string // files to remove when no one reads
}

// Store keeps blobs.
type Store struct {
	medium medium
	key    []byte
	log    *slog.Logger

	mu       sync.Mutex
	entries  map[string]*entry // by Key.dir
	sequence uint64            // the last that was used
	swept    time.Time
}

// Open opens the blobs below dir, or an empty store in memory, of at most 256
// MiB, when dir is empty. One process at a time may have the directory.
func Open(dir string, log *slog.Logger) (*Store, error) {
	s := &Store{log: log, entries: map[string]*entry{}}
	if dir == "" {
		s.medium = newMemory(memoryLimit)
		s.key = newKey()
		return s, nil
	}
	dir = filepath.Join(dir, "blobs")
	var err error
	if s.medium, err = newDisk(dir); err != nil {
		return nil, err
	}
	if s.key, err = loadKey(dir); err != nil {
		return nil, err
	}
	if err := s.medium.load(s.load); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(time.Now())
	return s, nil
}

func (s *Store) load(dir string, text []byte, files []file) error {
	e := &entry{uncommitted: map[string]block{}}
	var m meta
	if text != nil {
		if err := json.Unmarshal(text, &m); err != nil {
			return fmt.Errorf("read %s (without this directory the hub starts, and the blob is gone): %w", metaFile, err)
		}
		if m.Version > Version {
			return fmt.Errorf("%w: version %d, this program knows %d; use the newer program, or another directory", ErrNewer, m.Version, Version)
		}
		if !m.Deleted {
			e.blob = &Blob{Key{m.Container, m.Name}, m.Size, m.ETag, m.Created, m.Modified, m.Properties, m.Segments}
		}
		s.sequence = max(s.sequence, m.Sequence)
	}
	inBlob := make(map[string]bool, len(m.Segments))
	for _, b := range m.Segments {
		inBlob[b.File] = true
	}
	newest := map[string]uint64{}
	for _, f := range files {
		id, sequence, err := parseFileName(f.name)
		if err != nil {
			s.log.Warn("a file among the blobs that is none of the hub's", "dir", dir, "file", f.name)
			continue
		}
		s.sequence = max(s.sequence, sequence)
		if inBlob[f.name] {
			continue
		}
		if text != nil && sequence <= m.Sequence || id == "" || sequence < newest[id] {
			e.garbage = append(e.garbage, f.name)
			continue
		}
		if old, twice := e.uncommitted[id]; twice {
			e.garbage = append(e.garbage, old.File)
		}
		newest[id] = sequence
		e.uncommitted[id], e.idLength = block{[]byte(id), f.name, f.size}, len(id)
		if f.modified.After(e.lastPut) {
			e.lastPut = f.modified
		}
	}
	s.entries[dir] = e
	s.tidy(dir, e)
	return nil
}

// fileName names a segment: the id in hexadecimal, empty for a blob that was put
// at once, and a number that grows.
func fileName(id string, sequence uint64) string {
	return fmt.Sprintf("%s.%016x", hex.EncodeToString([]byte(id)), sequence)
}

func parseFileName(name string) (id string, sequence uint64, err error) {
	first, last, _ := strings.Cut(name, ".")
	raw, err := hex.DecodeString(first)
	if err != nil {
		return "", 0, err
	}
	if _, err := fmt.Sscanf(last, "%016x", &sequence); err != nil {
		return "", 0, err
	}
	if fileName(string(raw), sequence) != name {
		return "", 0, errors.New("blob: not a segment's name")
	}
	return string(raw), sequence, nil
}

// at returns the entry of a blob, a new one where there is none.
func (s *Store) at(dir string) *entry {
	e := s.entries[dir]
	if e == nil {
		e = &entry{uncommitted: map[string]block{}}
		s.entries[dir] = e
	}
	return e
}

// tidy removes what no one needs any more.
func (s *Store) tidy(dir string, e *entry) {
	if e.readers > 0 {
		return
	}
	var err error
	if e.blob == nil && len(e.uncommitted) == 0 {
		delete(s.entries, dir)
		err = s.medium.removeAll(dir)
	} else if len(e.garbage) > 0 {
		err = s.medium.remove(dir, e.garbage...)
		e.garbage = nil
	}
	if err != nil { // the next start tries again
		s.log.Warn("remove what a blob needs no more", "dir", dir, "err", err)
	}
}

// sweep drops blocks that nobody committed.
func (s *Store) sweep(now time.Time) {
	s.swept = now
	for dir, e := range s.entries {
		if len(e.uncommitted) == 0 || now.Sub(e.lastPut) < uncommittedLife {
			continue
		}
		for _, b := range e.uncommitted {
			e.garbage = append(e.garbage, b.File)
		}
		clear(e.uncommitted)
		s.tidy(dir, e)
	}
}

// putBlock makes a sealed segment a block that waits for a commit.
func (s *Store) putBlock(key Key, id string, in *received) error {
	dir, now := key.dir(), time.Now()
	err := func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if now.Sub(s.swept) >= sweepInterval {
			s.sweep(now)
		}
		e := s.at(dir)
		defer s.tidy(dir, e)
		if len(e.uncommitted) > 0 && len(id) != e.idLength {
			return refuse(http.StatusBadRequest, codeInvalidBlobBlock, "The specified blob or block content is invalid: the IDs of a blob's blocks must have one length.")
		}
		old, again := e.uncommitted[id]
		if !again && len(e.uncommitted) >= maxUncommitted {
			return refuse(http.StatusConflict, codeBlockCount, "The uncommitted block count cannot exceed the maximum limit of %d blocks.", maxUncommitted)
		}
		s.sequence++
		b := block{[]byte(id), fileName(id, s.sequence), in.size}
		if err := in.segment.keep(dir, b.File); err != nil {
			return fmt.Errorf("keep block: %w", err)
		}
		in.kept = true
		if again {
			e.garbage = append(e.garbage, old.File)
		}
		e.uncommitted[id], e.idLength, e.lastPut = b, len(id), now
		return nil
	}()
	if err != nil {
		return err
	}
	return in.segment.settle()
}

// putBlob makes a sealed segment the whole blob. check may refuse with a look at
// the blob that is there, nil for none.
func (s *Store) putBlob(key Key, in *received, p Properties, check func(*Blob) error) (*Blob, error) {
	dir := key.dir()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.at(dir)
	defer s.tidy(dir, e)
	if err := check(e.blob); err != nil {
		return nil, err
	}
	s.sequence++
	b := block{nil, fileName("", s.sequence), in.size}
	if err := in.segment.keep(dir, b.File); err != nil {
		return nil, fmt.Errorf("keep blob: %w", err)
	}
	in.kept = true
	blob, err := s.commit(key, dir, e, []block{b}, p)
	if blob == nil {
		e.garbage = append(e.garbage, b.File)
	}
	return blob, err
}

// putBlockList makes a blob of blocks.
func (s *Store) putBlockList(key Key, list []reference, p Properties, check func(*Blob) error) (*Blob, error) {
	dir := key.dir()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.at(dir)
	defer s.tidy(dir, e)
	if err := check(e.blob); err != nil {
		return nil, err
	}
	old := map[string]block{}
	if e.blob != nil {
		for _, b := range e.blob.segments {
			if len(b.ID) > 0 {
				old[string(b.ID)] = b
			}
		}
	}
	segments := make([]block, 0, len(list))
	for _, ref := range list {
		b, found := block{}, false
		if ref.from != committed {
			b, found = e.uncommitted[ref.id]
		}
		if !found && ref.from != uncommitted {
			b, found = old[ref.id]
		}
		if !found {
			return nil, refuse(http.StatusBadRequest, codeInvalidBlockList, "The specified block list is invalid: it names a block that is not there.")
		}
		segments = append(segments, b)
	}
	return s.commit(key, dir, e, segments, p)
}

// commit puts a blob in the place of what is there, blocks that wait included:
// those that are not in the list are garbage. An error beside a blob says that
// it is there, and may not outlive a power cut.
func (s *Store) commit(key Key, dir string, e *entry, segments []block, p Properties) (*Blob, error) {
	now := time.Now().UTC()
	s.sequence++
	b := &Blob{
		Key: key, ETag: fmt.Sprintf(`"0x8D%013X%X"`, now.UnixMicro(), s.sequence), Created: now, Modified: now, Properties: p, segments: segments,
	}
	for _, part := range segments {
		b.Size += part.Size
	}
	if e.blob != nil {
		b.Created = e.blob.Created
	}
	text, err := json.Marshal(meta{
		Version: Version, Container: key.Container, Name: key.Name, Size: b.Size, ETag: b.ETag, Created: b.Created, Modified: b.Modified,
		Properties: p, Sequence: s.sequence, Segments: segments,
	})
	if err != nil {
		return nil, fmt.Errorf("encode blob: %w", err)
	}
	err = s.medium.writeMeta(dir, text)
	if err != nil && !errors.Is(err, errUnsettled) {
		return nil, fmt.Errorf("keep blob: %w", err)
	}
	used := make(map[string]bool, len(segments))
	for _, part := range segments {
		used[part.File] = true
	}
	drop := func(part block) {
		if !used[part.File] {
			used[part.File] = true
			e.garbage = append(e.garbage, part.File)
		}
	}
	for _, part := range e.uncommitted {
		drop(part)
	}
	if e.blob != nil {
		for _, part := range e.blob.segments {
			drop(part)
		}
	}
	clear(e.uncommitted)
	e.blob = b
	return b, err
}

// blocks lists the blocks of a blob in their order, and those that wait for a
// commit by their ids. blob is nil for one that has only those.
func (s *Store) blocks(key Key) (blob *Blob, inBlob, waiting []block, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key.dir()]
	if e == nil {
		return nil, nil, nil, notFound()
	}
	if e.blob != nil {
		for _, b := range e.blob.segments {
			if len(b.ID) > 0 {
				inBlob = append(inBlob, b)
			}
		}
	}
	for _, b := range e.uncommitted {
		waiting = append(waiting, b)
	}
	slices.SortFunc(waiting, func(a, b block) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return e.blob, inBlob, waiting, nil
}

// remove removes a blob and the blocks that wait for a commit. Whoever reads it
// reads on.
func (s *Store) remove(key Key, check func(*Blob) error) error {
	dir := key.dir()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[dir]
	if e == nil || e.blob == nil {
		return notFound()
	}
	if err := check(e.blob); err != nil {
		return err
	}
	s.sequence++
	// A mark, not a missing file: what ends half removed must not come back as
	// blocks that wait for a commit.
	text, err := json.Marshal(meta{Version: Version, Container: key.Container, Name: key.Name, Sequence: s.sequence, Deleted: true})
	if err != nil {
		return fmt.Errorf("encode blob: %w", err)
	}
	if err := s.medium.writeMeta(dir, text); err != nil && !errors.Is(err, errUnsettled) {
		return fmt.Errorf("remove blob: %w", err)
	}
	for _, b := range e.blob.segments { // one may be there twice, as the block list had it
		e.garbage = append(e.garbage, b.File)
	}
	for _, b := range e.uncommitted {
		e.garbage = append(e.garbage, b.File)
	}
	e.blob = nil
	clear(e.uncommitted)
	s.tidy(dir, e)
	return nil
}

// Stat returns a committed blob; one that is not there is a BlobNotFound *Error.
func (s *Store) Stat(key Key) (*Blob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key.dir()]; e != nil && e.blob != nil {
		return e.blob, nil
	}
	return nil, notFound()
}

// List returns the committed blobs whose names begin with prefix, in the order
// of their names.
func (s *Store) List(container, prefix string) []*Blob {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Blob
	for _, e := range s.entries {
		if e.blob != nil && e.blob.Key.Container == container && strings.HasPrefix(e.blob.Key.Name, prefix) {
			all = append(all, e.blob)
		}
	}
	slices.SortFunc(all, func(a, b *Blob) int { return cmp.Compare(a.Key.Name, b.Key.Name) })
	return all
}
