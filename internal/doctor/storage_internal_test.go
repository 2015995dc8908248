package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"
)

func TestEachErrorOfTheDiskHasItsCode(t *testing.T) {
	for want, err := range map[string]error{
		"disk-full":              syscall.ENOSPC,
		"state-dir-read-only":    syscall.EROFS,
		"state-dir-not-writable": fs.ErrPermission,
		"state-dir-failing":      syscall.EIO,
	} {
		if got := diagnoseStorage(fmt.Errorf("write: %w", &os.PathError{Op: "write", Path: "x", Err: err})); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}
