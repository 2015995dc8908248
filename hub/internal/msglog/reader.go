package msglog

import (
	"context"
	"fmt"
	"time"
)

// Reader reads a log in order. It belongs to one goroutine; Close it.
type Reader struct {
	log   *Log
	next  int64 // sequence number of the next record to give
	since time.Time

	seg *segment
	off int64 // in seg, of the first byte that is not in buf
	buf []byte
	pos int // in buf
}

// Read begins a reader with the first record whose sequence number is at least
// seq and whose time is not before since.
func (l *Log) Read(seq int64, since time.Time) *Reader {
	return &Reader{log: l, next: max(seq, 1), since: since}
}

// Close lets go of the segment.
func (r *Reader) Close() {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.drop()
}

// drop forgets the segment and its buffer; the log's lock is held.
func (r *Reader) drop() {
	if r.seg != nil {
		r.log.release(r.seg)
		r.seg = nil
	}
	r.buf, r.pos = r.buf[:0], 0
}

// TryNext returns the next record if there is one. The record's slices are valid
// until the next call.
func (r *Reader) TryNext() (Record, bool, error) {
	for {
		rec, n, err := parseRecord(r.buf[r.pos:])
		if err != nil {
			return Record{}, false, err
		}
		if n > 0 {
			r.pos += n
			if rec.Seq < r.next || rec.Time.Before(r.since) {
				continue
			}
			r.next = rec.Seq + 1
			return rec, true, nil
		}
		more, err := r.fill()
		if !more || err != nil {
			return Record{}, false, err
		}
	}
}

// Next waits for the next record.
func (r *Reader) Next(ctx context.Context) (Record, error) {
	for {
		r.log.mu.Lock()
		grown, closed := r.log.grown, r.log.closed
		r.log.mu.Unlock()
		rec, ok, err := r.TryNext()
		if err != nil || ok {
			return rec, err
		}
		if closed {
			return Record{}, ErrClosed
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return Record{}, fmt.Errorf("wait for message: %w", ctx.Err())
		}
	}
}

// fill reads more bytes; false when the reader is at the end.
func (r *Reader) fill() (bool, error) {
	const chunk = 64 << 10
	l := r.log
	l.mu.Lock()
	if l.closed && r.seg == nil {
		l.mu.Unlock()
		return false, ErrClosed
	}
	if r.seg != nil && r.off >= r.seg.size && len(l.segments) > 0 && l.segments[len(l.segments)-1] != r.seg {
		r.drop() // read to its end, and it no longer grows
	}
	if r.seg == nil {
		if len(l.segments) == 0 || r.next >= l.next {
			l.mu.Unlock()
			return false, nil
		}
		r.seg = l.at(r.next)
		r.seg.refs++
		r.off = fileHeader
	}
	seg, size := r.seg, r.seg.size
	mem := seg.mem
	l.mu.Unlock()
	if r.off >= size {
		return false, nil
	}
	rest := copy(r.buf, r.buf[r.pos:])
	want := rest + int(min(int64(chunk), size-r.off))
	if cap(r.buf) < want {
		r.buf = append(make([]byte, 0, max(want, 2*cap(r.buf))), r.buf[:rest]...)
	}
	r.buf, r.pos = r.buf[:want], 0
	view := segment{file: seg.file, mem: mem} // mem may move while others append
	got, err := view.readAt(r.buf[rest:], r.off, size)
	if err != nil {
		return false, fmt.Errorf("read message log: %w", err)
	}
	r.buf = r.buf[:rest+got]
	r.off += int64(got)
	return got > 0, nil
}
