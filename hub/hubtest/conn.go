package hubtest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// connBuffer is how much each direction of a pipe holds, as a kernel's socket buffers do. net.Pipe holds nothing: there
// a server that sends its TLS session tickets and a client that sends its first packet wait for each other for ever.
const connBuffer = 64 << 10

// newConnPair returns the two ends of a buffered connection in memory. It models TCP's buffering, its end of file after
// what was written, and deadlines; not resets, delay or half-closing.
func newConnPair(near, far net.Addr) (*conn, *conn) {
	up, down := newStream(), newStream()
	return &conn{in: down, out: up, local: near, remote: far}, &conn{in: up, out: down, local: far, remote: near}
}

type conn struct {
	in, out       *stream
	local, remote net.Addr
	readBy        deadline
	writeBy       deadline
}

var _ net.Conn = (*conn)(nil)

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) { return c.in.read(p, c.readBy.wait()) }

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p, c.writeBy.wait()) }

// Close implements net.Conn. What was written can still be read at the other end.
func (c *conn) Close() error {
	c.out.end(io.EOF, io.ErrClosedPipe)
	c.in.end(net.ErrClosed, io.ErrClosedPipe)
	return nil
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.readBy.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writeBy.set(t)
	return nil
}

// stream is one direction. Waiting is on channels, so that virtual time can pass.
type stream struct {
	mu       sync.Mutex
	buf      []byte
	readErr  error // once set: what a read of an empty buffer ends with
	writeErr error
	changed  chan struct{} // closed and replaced at each change
}

func newStream() *stream { return &stream{changed: make(chan struct{})} }

func (s *stream) noteLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stream) read(p []byte, timeout <-chan struct{}) (int, error) {
	for {
		if isDone(timeout) {
			return 0, os.ErrDeadlineExceeded
		}
		s.mu.Lock()
		if s.readErr == net.ErrClosed { //nolint:errorlint // it was set as such: this end is closed
			s.mu.Unlock()
			return 0, net.ErrClosed
		}
		if len(s.buf) > 0 {
			n := copy(p, s.buf)
			s.buf = append(s.buf[:0], s.buf[n:]...)
			s.noteLocked()
			s.mu.Unlock()
			return n, nil
		}
		err, changed := s.readErr, s.changed
		s.mu.Unlock()
		if err != nil {
			return 0, err
		}
		select {
		case <-changed:
		case <-timeout:
		}
	}
}

func (s *stream) write(p []byte, timeout <-chan struct{}) (n int, err error) {
	for {
		if isDone(timeout) {
			return n, os.ErrDeadlineExceeded
		}
		s.mu.Lock()
		if s.writeErr != nil {
			err := s.writeErr
			s.mu.Unlock()
			return n, err
		}
		if room := min(connBuffer-len(s.buf), len(p)-n); room > 0 {
			s.buf = append(s.buf, p[n:n+room]...)
			n += room
			s.noteLocked()
		}
		changed := s.changed
		s.mu.Unlock()
		if n == len(p) {
			return n, nil
		}
		select {
		case <-changed:
		case <-timeout:
		}
	}
}

func (s *stream) end(readErr, writeErr error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readErr == nil || readErr == net.ErrClosed { //nolint:errorlint // as above
		s.readErr = readErr
	}
	s.writeErr = writeErr
	s.noteLocked()
}

// deadline closes a channel at a moment that can be moved.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{}
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.done // the timer is closing it
	}
	d.timer = nil
	if d.done == nil || isDone(d.done) {
		d.done = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	done := d.done
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(done) })
		return
	}
	close(done)
}

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done == nil {
		d.done = make(chan struct{})
	}
	return d.done
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
