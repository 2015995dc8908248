package quietio

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"
)

var noDeadline time.Time

// Pipe is one end of a pair of pipes: what it reads, the other end writes. Its reads and writes are quiet. It is a
// connection without addresses.
//
// A pair of pipes wakes a process only for what it is about to read; of a pair of sockets, each side is also woken whenever
// the other has read, to be told that it may write.
type Pipe struct {
	reader, writer *os.File
	in, out        *transfer // nil where calls cannot be made quiet
	closed         atomic.Bool
}

// NewPipe takes two files over, of which one is read and the other written.
func NewPipe(reader, writer *os.File) *Pipe {
	p := &Pipe{reader: reader, writer: writer}
	p.quieten()
	return p
}

// Read implements io.Reader.
func (p *Pipe) Read(b []byte) (int, error) {
	if p.in == nil {
		return p.reader.Read(b)
	}
	n, err := p.in.read(b)
	return n, p.ended(err)
}

// Write implements io.Writer.
func (p *Pipe) Write(b []byte) (int, error) {
	if p.out == nil {
		return p.writer.Write(b)
	}
	n, err := p.out.write(b)
	return n, p.ended(err)
}

// ended gives the error of a call that Close has ended a name: a raw call's has none that could be compared.
func (p *Pipe) ended(err error) error {
	if err != nil && !errors.Is(err, io.EOF) && p.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// CanTry reports whether TryWrite may be used.
func (p *Pipe) CanTry() bool { return p.out != nil }

// TryWrite writes as much of b as the pipe takes now, and does not wait for it to take more.
func (p *Pipe) TryWrite(b []byte) (int, error) {
	n, err := p.out.try(b)
	return n, p.ended(err)
}

// SetWriteDeadline bounds writes, as that of net.Conn does.
func (p *Pipe) SetWriteDeadline(t time.Time) error { return p.writer.SetWriteDeadline(t) }

// CloseWrite ends what the other end reads.
func (p *Pipe) CloseWrite() error { return p.writer.Close() }

// Close ends both directions. It may be called more than once.
func (p *Pipe) Close() error {
	p.closed.Store(true)
	err := errors.Join(p.writer.Close(), p.reader.Close())
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
