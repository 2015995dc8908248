//go:build unix

package uploads

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openAtOnce keeps the opening of a pipe, which may have been put in the place of a file just now, from waiting for its
// other end. It has no effect on files.
const openAtOnce = syscall.O_NONBLOCK

// fileID tells files apart that have the same path one after the other.
func fileID(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	}
	return ""
}

// syncDir makes the name of a new file outlive a crash of the system.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
