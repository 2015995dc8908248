//go:build unix

package uploads

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestAPipeInAFilesPlaceHoldsNobodyUp: one that is put there after open has looked.
func TestAPipeInAFilesPlaceHoldsNobodyUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_RDONLY|openAtOnce, 0)
		if err == nil {
			_, err = lookAt(f)
			_ = f.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		if err == nil {
			t.Error("a pipe was taken for a file")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the opening of a pipe waits for its other end")
	}
}
