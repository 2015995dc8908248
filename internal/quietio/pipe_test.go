package quietio_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/internal/quietio"
)

// pipes returns the two ends of a pair of pipes.
func pipes(t *testing.T) (a, b *quietio.Pipe) {
	t.Helper()
	toB, fromA, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	toA, fromB, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	a, b = quietio.NewPipe(toA, fromA), quietio.NewPipe(toB, fromB)
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

func TestAPipeCarriesBothWays(t *testing.T) {
	a, b := pipes(t)
	data := bytes.Repeat([]byte("0123456789"), 1<<20) // more than a pipe holds
	echoed := make(chan error, 2)
	go func() {
		_, err := io.Copy(b, io.LimitReader(b, int64(len(data))))
		echoed <- err
	}()
	go func() {
		_, err := a.Write(data)
		echoed <- err
	}()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(a, got); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-echoed, <-echoed); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Error("what came back is something else")
	}
}

func TestOneDirectionOfAPipeEnds(t *testing.T) {
	a, b := pipes(t)
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the other end reads %v", err)
	}
	if _, err := b.Write([]byte("still")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(a, got); err != nil || string(got) != "still" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestTheEndOfAPipeEndsWaits(t *testing.T) {
	a, b := pipes(t)
	ended := make(chan error, 1)
	go func() {
		_, err := a.Read(make([]byte, 1))
		ended <- err
	}()
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to nobody: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read from nobody: %v", err)
	}
}

func TestAPipesDeadlineEndsAWrite(t *testing.T) {
	a, _ := pipes(t)
	if err := a.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(make([]byte, 1<<22)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
}

func TestATryDoesNotWait(t *testing.T) {
	a, b := pipes(t)
	if !a.CanTry() {
		t.Skip("no write can be tried on this system")
	}
	data := bytes.Repeat([]byte("0123456789"), 1<<20)
	n, err := a.TryWrite(data)
	if err != nil || n == 0 || n == len(data) {
		t.Fatalf("%d of %d bytes written, %v", n, len(data), err)
	}
	if again, err := a.TryWrite(data[n:]); err != nil || again != 0 {
		t.Fatalf("%d more went into a full pipe, %v", again, err)
	}
	_ = a.Close()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, data[:n]) {
		t.Errorf("%d bytes arrived, want the first %d: %v", len(got), n, err)
	}
}

// A file of which a read blocks is read all the same.
func TestAFileThatBlocks(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	p := quietio.NewPipe(file, file)
	defer p.Close() //nolint:errcheck // nothing is lost
	if p.CanTry() {
		t.Error("a write to a file can be tried")
	}
	if _, err := p.Write([]byte("text")); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(p); err != nil || string(got) != "text" {
		t.Errorf("read %q, %v", got, err)
	}
}
