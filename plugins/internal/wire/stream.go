package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Stream carries frames of one kind out and of another in. One goroutine at a time sends, one receives. An error of
// either says that the stream is over; a gRPC status says why where the other side did.
type Stream[Out, In any] interface {
	// Send sends frames in order. The frames are the caller's again when it returns.
	Send(frames ...Out) error
	// Recv returns the next frame, or io.EOF where the other side ended the stream in order.
	Recv() (In, error)
}

// rpc is what the two ends of a gRPC stream have in common.
type rpc[Out, In any] interface {
	Send(out Out) error
	Recv() (In, error)
}

// OverRPC makes a Stream of either end of a gRPC stream.
func OverRPC[Out, In any](s rpc[Out, In]) Stream[Out, In] { return overRPC[Out, In]{s} }

type overRPC[Out, In any] struct{ rpc[Out, In] }

func (s overRPC[Out, In]) Send(frames ...Out) error {
	for _, f := range frames {
		if err := s.rpc.Send(f); err != nil {
			return err
		}
	}
	return nil
}

const (
	// prefix is the length before each frame in a pipe, in bytes.
	prefix = 4
	// pipeBuffer is read from a pipe at once; what is larger takes a buffer of its own for as long as it is read.
	pipeBuffer = 96 << 10
	// pipeKeep is the largest buffer that a pipe keeps for the next frames.
	pipeKeep = 128 << 10
)

// Frame is a frame of one direction: a pointer to F.
type Frame[F any] interface {
	*F
	proto.Message
}

// Pipe carries frames over a connection of bytes: version 2 of the protocol. Out and In are the frames' types
// without their pointers.
type Pipe[Out, In any, O Frame[Out], I Frame[In]] struct {
	conn io.ReadWriteCloser
	try  trier // conn, where a write can be tried

	in      *bufio.Reader
	scratch []byte // what a frame larger than in was read into last

	out  []byte
	rest []byte // the part of out that TrySend could not write
}

// trier is a connection on which a write can be tried; see quietio.Pipe.
type trier interface {
	CanTry() bool
	TryWrite(p []byte) (int, error)
}

// NewPipe takes conn over: Close closes it.
func NewPipe[Out, In any, O Frame[Out], I Frame[In]](conn io.ReadWriteCloser) *Pipe[Out, In, O, I] {
	s := &Pipe[Out, In, O, I]{conn: conn, in: bufio.NewReaderSize(conn, pipeBuffer)}
	if t, ok := conn.(trier); ok && t.CanTry() {
		s.try = t
	}
	return s
}

// Close ends the stream for both sides. It may be called from any goroutine.
func (s *Pipe[Out, In, O, I]) Close() error { return s.conn.Close() }

// Send writes frames as one. It implements Stream.
func (s *Pipe[Out, In, O, I]) Send(frames ...O) error {
	if err := s.Flush(); err != nil {
		return err
	}
	out, err := s.encode(frames)
	if err != nil {
		return err
	}
	return s.write(out)
}

// CanTry reports whether TrySend may be used.
func (s *Pipe[Out, In, O, I]) CanTry() bool { return s.try != nil }

// TrySend is Send for whoever must not wait: it writes what the pipe takes now. isWhole says that this was all; else
// Flush must follow before anything else is sent.
func (s *Pipe[Out, In, O, I]) TrySend(frames ...O) (isWhole bool, err error) {
	out, err := s.encode(frames)
	if err != nil {
		return false, err
	}
	n, err := s.try.TryWrite(out)
	if err != nil {
		return false, broken(err)
	}
	s.rest = out[n:]
	return len(s.rest) == 0, nil
}

// Flush writes what TrySend left.
func (s *Pipe[Out, In, O, I]) Flush() error {
	if len(s.rest) == 0 {
		return nil
	}
	rest := s.rest
	s.rest = nil
	return s.write(rest)
}

func (s *Pipe[Out, In, O, I]) write(p []byte) error {
	if _, err := s.conn.Write(p); err != nil {
		return broken(err)
	}
	return nil
}

// encode appends the frames to a buffer that is valid until the next call.
func (s *Pipe[Out, In, O, I]) encode(frames []O) ([]byte, error) {
	if cap(s.out) > pipeKeep {
		s.out = nil
	}
	out := s.out[:0]
	for _, f := range frames {
		at := len(out)
		out = append(out, make([]byte, prefix)...)
		var err error
		if out, err = (proto.MarshalOptions{}).MarshalAppend(out, f); err != nil {
			return nil, fmt.Errorf("encode frame: %w", err)
		}
		n := len(out) - at - prefix
		if n > MaxReceive {
			return nil, fmt.Errorf("a frame of %d bytes: the other side takes at most %d", n, MaxReceive)
		}
		binary.BigEndian.PutUint32(out[at:], uint32(n)) //nolint:gosec // at most MaxReceive
	}
	s.out = out
	return out, nil
}

// Recv implements Stream. The end of the bytes is an error: a side that ends in order says so before.
func (s *Pipe[Out, In, O, I]) Recv() (I, error) {
	head, err := s.in.Peek(prefix)
	if err != nil {
		return nil, broken(err)
	}
	size := binary.BigEndian.Uint32(head)
	if size > MaxReceive {
		return nil, status.Errorf(codes.ResourceExhausted, "a frame of %d bytes; at most %d are taken", size, MaxReceive)
	}
	_, _ = s.in.Discard(prefix) // what was peeked is there
	n := int(size)
	body, err := s.body(n)
	if err != nil {
		return nil, broken(err)
	}
	f := I(new(In))
	if err := proto.Unmarshal(body, f); err != nil {
		return nil, status.Errorf(codes.Internal, "a frame of %d bytes cannot be read: %v", n, err)
	}
	return f, nil
}

// body returns the next n bytes, which are valid until the next call.
func (s *Pipe[Out, In, O, I]) body(n int) ([]byte, error) {
	if n <= s.in.Size() {
		body, err := s.in.Peek(n)
		if err == nil {
			_, _ = s.in.Discard(n)
		}
		return body, err
	}
	if cap(s.scratch) < n {
		s.scratch = make([]byte, n)
	}
	body := s.scratch[:n]
	_, err := io.ReadFull(s.in, body)
	if n > pipeKeep {
		s.scratch = nil
	}
	return body, err
}

// broken is the error of a pipe that ended without a word.
func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return status.Error(codes.Unavailable, "the pipe was closed")
	}
	return status.Error(codes.Unavailable, err.Error())
}
