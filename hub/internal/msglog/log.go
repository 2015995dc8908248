package msglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"time"
)

// Version of the segment format that this package writes.
const Version = 1

// Errors that callers tell apart.
var (
	ErrNewer  = errors.New("msglog: written by a newer version")
	ErrClosed = errors.New("msglog: closed")
)

const (
	magic      = "FLHUBMSG"
	fileHeader = 16
)

// Limits bound a log. Zero fields take the defaults.
type Limits struct {
	Bytes        int64         // default 256 MiB
	Age          time.Duration // default 7 days, the longest that IoT Hub keeps
	SegmentBytes int64         // default an eighth of Bytes, at most 32 MiB
}

func (l Limits) withDefaults() Limits {
	if l.Bytes <= 0 {
		l.Bytes = 256 << 20
	}
	if l.Age <= 0 {
		l.Age = 7 * 24 * time.Hour
	}
	if l.SegmentBytes <= 0 {
		l.SegmentBytes = min(l.Bytes/8, 32<<20)
	}
	return l
}

// segment is a run of records. Exactly one of file and mem is used. Bytes below
// size never change, so readers need the lock only to learn size.
type segment struct {
	first int64 // sequence number of the first record
	size  int64
	last  time.Time // of the last record
	name  string
	file  *os.File
	mem   []byte
	refs  int // readers that hold it, and 1 for the log
}

// Log is the log. With directory "" it lives in memory.
type Log struct {
	dir    string
	limits Limits

	mu       sync.Mutex
	segments []*segment // oldest first
	next     int64      // sequence number of the next record
	total    int64
	buf      []byte
	grown    chan struct{} // closed at every Append, then replaced
	closed   bool
	failed   error // what stands in the last segment is not known
}

// Open reads the segments in dir and cuts off a torn end. The caller makes sure
// that one process at a time has the directory.
func Open(dir string, limits Limits) (*Log, error) {
	l := &Log{dir: dir, limits: limits.withDefaults(), next: 1, grown: make(chan struct{})}
	if dir == "" {
		return l, nil
	}
	names, err := filepath.Glob(filepath.Join(dir, "telemetry-*.log"))
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	sort.Strings(names)
	for _, name := range names {
		s, next, err := openSegment(name)
		if err != nil {
			l.closeFiles()
			return nil, fmt.Errorf("open segment %s: %w", name, err)
		}
		if s == nil {
			continue
		}
		l.segments = append(l.segments, s)
		l.total += s.size
		l.next = next
	}
	return l, nil
}

// openSegment scans one file and cuts off what is not a record. An empty
// segment is removed: nil without an error.
func openSegment(name string) (*segment, int64, error) {
	data, err := os.ReadFile(name) //nolint:gosec // the directory is the user's own
	if err != nil {
		return nil, 0, err
	}
	if len(data) >= fileHeader {
		if !bytes.HasPrefix(data, []byte(magic)) {
			return nil, 0, errors.New("not a message log of the hub")
		}
		if v := binary.LittleEndian.Uint32(data[len(magic):]); v > Version {
			return nil, 0, fmt.Errorf("%w: version %d, this program knows %d; use the newer program, or another directory", ErrNewer, v, Version)
		}
	}
	s := &segment{name: name, refs: 1}
	end, next := int64(fileHeader), int64(0)
	for end < int64(len(data)) {
		r, n, err := parseRecord(data[end:])
		if err != nil || n == 0 {
			break
		}
		if s.first == 0 {
			s.first = r.Seq
		}
		s.last, next = r.Time, r.Seq+1
		end += int64(n)
	}
	if s.first == 0 {
		return nil, 0, os.Remove(name)
	}
	if s.file, err = os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0o600); err != nil { //nolint:gosec // as above
		return nil, 0, err
	}
	if end < int64(len(data)) {
		if err := s.file.Truncate(end); err != nil {
			_ = s.file.Close()
			return nil, 0, err
		}
	}
	s.size = end
	return s, next, nil
}

// Append adds the records with one write and sets their Seq. When it returns nil
// they survive the end of the process. On an error none of them is there, and a
// later Append may succeed: disks fill and empty.
func (l *Log) Append(records []Record) error {
	if len(records) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if l.failed != nil {
		return l.failed
	}
	now := records[len(records)-1].Time
	s, err := l.current()
	if err != nil {
		return err
	}
	l.buf = l.buf[:0]
	for i := range records {
		records[i].Seq = l.next + int64(i)
		l.buf = appendRecord(l.buf, &records[i])
	}
	if s.file == nil {
		s.mem = append(s.mem, l.buf...)
	} else if _, err := s.file.Write(l.buf); err != nil {
		err = fmt.Errorf("append to message log: %w", err)
		// Half a record may stand there now; a further one would be glued to it.
		if cutErr := s.file.Truncate(s.size); cutErr != nil {
			l.failed = errors.Join(err, cutErr)
		}
		return err
	}
	l.next += int64(len(records))
	s.size += int64(len(l.buf))
	l.total += int64(len(l.buf))
	s.last = now
	if cap(l.buf) > 4<<20 {
		l.buf = nil
	}
	l.trim(now)
	close(l.grown)
	l.grown = make(chan struct{})
	return nil
}

// current returns the segment to write to.
func (l *Log) current() (*segment, error) {
	if n := len(l.segments); n > 0 && l.segments[n-1].size < l.limits.SegmentBytes {
		return l.segments[n-1], nil
	}
	s := &segment{first: l.next, refs: 1, size: fileHeader}
	header := make([]byte, fileHeader)
	copy(header, magic)
	binary.LittleEndian.PutUint32(header[len(magic):], Version)
	if l.dir == "" {
		s.mem = header
	} else {
		s.name = filepath.Join(l.dir, fmt.Sprintf("telemetry-%020d.log", s.first))
		file, err := os.OpenFile(s.name, os.O_RDWR|os.O_CREATE|os.O_APPEND|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("create segment: %w", err)
		}
		if _, err := file.Write(header); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("create segment: %w", errors.Join(err, os.Remove(s.name)))
		}
		s.file = file
	}
	l.segments = append(l.segments, s)
	l.total += s.size
	return s, nil
}

// trim drops whole segments from the old end; the newest one always stays.
func (l *Log) trim(now time.Time) {
	for len(l.segments) > 1 {
		s := l.segments[0]
		if l.total <= l.limits.Bytes && now.Sub(s.last) <= l.limits.Age {
			return
		}
		l.segments = l.segments[1:]
		l.total -= s.size
		if s.name != "" {
			_ = os.Remove(s.name) // tried again at no time: at worst the file stays until the next Open
		}
		l.release(s)
	}
}

// release gives up one reference; the last one closes the file.
func (l *Log) release(s *segment) {
	s.refs--
	if s.refs == 0 && s.file != nil {
		_ = s.file.Close()
	}
}

// Next returns the sequence number that the next record will get.
func (l *Log) Next() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// Close ends the log; waiting readers return ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.grown)
	l.closeFiles()
	return nil
}

func (l *Log) closeFiles() {
	for _, s := range l.segments {
		l.release(s)
	}
	l.segments = nil
}

// at returns the segment that holds seq, or the oldest one when seq is gone.
// l.mu is held.
func (l *Log) at(seq int64) *segment {
	i, _ := slices.BinarySearchFunc(l.segments, seq, func(s *segment, seq int64) int {
		if s.first <= seq {
			return -1
		}
		return 1
	})
	return l.segments[max(i-1, 0)]
}

func (s *segment) readAt(buf []byte, from, size int64) (int, error) {
	n := min(int64(len(buf)), size-from)
	if s.file == nil {
		return copy(buf[:n], s.mem[from:size]), nil
	}
	got, err := s.file.ReadAt(buf[:n], from)
	if errors.Is(err, io.EOF) && int64(got) == n {
		err = nil
	}
	return got, err
}
