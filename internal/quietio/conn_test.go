package quietio_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/internal/quietio"
)

// pair returns the two ends of a connection over a kind of network.
func pair(t *testing.T, network string) (a, b net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // one connection is enough
	if a, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return quietio.Wrap(a), b
}

func both(t *testing.T, f func(t *testing.T, a, b net.Conn)) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			a, b := pair(t, network)
			f(t, a, b)
		})
	}
}

func TestEverythingArrives(t *testing.T) {
	both(t, func(t *testing.T, a, b net.Conn) {
		data := make([]byte, 8<<20) // more than any socket buffer: both sides have to wait
		for i := range data {
			data[i] = byte(i * 7)
		}
		echoed := make(chan error, 1)
		go func() {
			_, err := io.Copy(b, io.LimitReader(b, int64(len(data))))
			echoed <- err
		}()
		written := make(chan error, 1)
		go func() {
			n, err := a.Write(data)
			if err == nil && n != len(data) {
				err = io.ErrShortWrite
			}
			written <- err
		}()
		got := make([]byte, len(data))
		if _, err := io.ReadFull(a, got); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(<-written, <-echoed); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, data) {
			t.Error("what came back is something else")
		}
	})
}

func TestTheEndIsEOF(t *testing.T) {
	both(t, func(t *testing.T, a, b net.Conn) {
		if _, err := b.Write([]byte("last")); err != nil {
			t.Fatal(err)
		}
		_ = b.Close()
		got, err := io.ReadAll(a)
		if err != nil || string(got) != "last" {
			t.Errorf("read %q, %v", got, err)
		}
		if n, err := a.Read(nil); n != 0 || err != nil {
			t.Errorf("an empty read after the end: %d, %v", n, err)
		}
	})
}

func TestAWriteToNobodyFails(t *testing.T) {
	both(t, func(t *testing.T, a, b net.Conn) {
		_ = b.Close()
		var err error
		for err == nil {
			_, err = a.Write([]byte("x"))
		}
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("error %v", err)
		}
		if e, ok := errors.AsType[*net.OpError](err); !ok || e.Op != "write" {
			t.Errorf("error %#v is not one of a write", err)
		}
	})
}

func TestDeadlinesEndWaits(t *testing.T) {
	both(t, func(t *testing.T, a, _ net.Conn) {
		if err := a.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := a.Read(make([]byte, 1))
		if e, ok := errors.AsType[net.Error](err); !errors.Is(err, os.ErrDeadlineExceeded) || !ok || !e.Timeout() {
			t.Errorf("read: %v", err)
		}
		_, err = a.Write(make([]byte, 64<<20)) // more than the socket takes
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v", err)
		}
	})
}

func TestCloseEndsWaits(t *testing.T) {
	both(t, func(t *testing.T, a, _ net.Conn) {
		ended := make(chan error, 1)
		go func() {
			_, err := a.Read(make([]byte, 1))
			ended <- err
		}()
		_ = a.Close() // before the read or during it: the same
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
	})
}

// What one end did before it wrote has happened when the other end has read. The race detector is to know that, as it does
// of package net.
func TestWhatWasReadWasWrittenBefore(t *testing.T) {
	both(t, func(t *testing.T, a, b net.Conn) {
		b = quietio.Wrap(b)
		var shared int
		ended := make(chan error, 1)
		go func() {
			shared = 1
			_, err := a.Write([]byte("x"))
			ended <- err
		}()
		if _, err := b.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if shared != 1 {
			t.Error("it has not happened")
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestWhatHasNoSocketStaysAsItIs(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close() //nolint:errcheck // nothing is lost
	defer b.Close() //nolint:errcheck // the same
	if quietio.Wrap(a) != a {
		t.Error("a connection without a descriptor was wrapped")
	}
}
