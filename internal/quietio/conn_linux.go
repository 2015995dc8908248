package quietio

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Wrap returns conn with quiet reads and writes, or conn itself where it offers no socket.
func Wrap(conn net.Conn) net.Conn {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn: // of which is known that they do not block
	default:
		return conn
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return conn
	}
	return &quiet{Conn: conn, in: newTransfer(raw), out: newTransfer(raw)}
}

// quiet is a connection of package net.
type quiet struct {
	net.Conn
	in, out *transfer
}

// NetConn returns the connection below, as that of tls.Conn does.
func (c *quiet) NetConn() net.Conn { return c.Conn }

// Read implements net.Conn.
func (c *quiet) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.opError("read", err)
}

// Write implements net.Conn.
func (c *quiet) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.opError("write", err)
}

// opError makes the error one of the operation, as those of package net are.
func (c *quiet) opError(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// quieten makes the pipe's reads and writes quiet, where its files do not block.
func (p *Pipe) quieten() {
	if raw, err := pollable(p.reader); err == nil {
		p.in = newTransfer(raw)
	}
	if raw, err := pollable(p.writer); err == nil {
		p.out = newTransfer(raw)
	}
}

// pollable returns the raw form of a file for which the network poller waits.
func pollable(f *os.File) (syscall.RawConn, error) {
	if err := f.SetDeadline(noDeadline); err != nil {
		return nil, err // os.ErrNoDeadline: a call on it blocks
	}
	return f.SyscallConn()
}

// transfer makes the calls of one direction.
type transfer struct {
	mu  sync.Mutex
	raw syscall.RawConn
	// The functions that raw calls, made once: a function literal for each call would be an allocation for each.
	readSome, writeAll, writeSome func(fd uintptr) bool

	// The call under way.
	p     []byte
	n     int
	errno syscall.Errno
}

func newTransfer(raw syscall.RawConn) *transfer {
	t := &transfer{raw: raw}
	t.readSome, t.writeAll = t.tryRead, t.tryWrite
	t.writeSome = func(fd uintptr) bool {
		t.tryWrite(fd)
		return true
	}
	return t
}

func (t *transfer) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := t.do("read", p, t.raw.Read, t.readSome)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func (t *transfer) write(p []byte) (int, error) { return t.do("write", p, t.raw.Write, t.writeAll) }

func (t *transfer) try(p []byte) (int, error) { return t.do("write", p, t.raw.Write, t.writeSome) }

// do has wait call f until it returns true, waiting for the descriptor in between.
func (t *transfer) do(name string, p []byte, wait func(func(uintptr) bool) error, f func(uintptr) bool) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p, t.n, t.errno = p, 0, 0
	err := wait(f)
	t.p = nil
	if err != nil {
		if e, ok := errors.AsType[*net.OpError](err); ok {
			err = e.Err // without the operation, which is raw-read or raw-write there
		}
		return t.n, err
	}
	if t.errno != 0 {
		return t.n, os.NewSyscallError(name, t.errno)
	}
	return t.n, nil
}

// tryRead reads once what is there; false says that nothing is, so that the poller waits.
func (t *transfer) tryRead(fd uintptr) bool {
	for {
		n, errno := read(fd, t.p)
		switch errno {
		case 0:
			t.n = n
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			t.errno = errno
			return true
		}
	}
}

// tryWrite writes what is left of p; false says that the descriptor takes no more for now.
func (t *transfer) tryWrite(fd uintptr) bool {
	for t.n < len(t.p) {
		n, errno := write(fd, t.p[t.n:])
		switch errno {
		case 0:
			t.n += n
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			t.errno = errno
			return true
		}
	}
	return true
}
