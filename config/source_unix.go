//go:build unix

package config

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openFile opens without waiting for the other end of a pipe.
func openFile(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
}

// checkPrivate looks at the opened file, not at its name, so that nobody can change it in between.
func checkPrivate(name string, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if uid := int(st.Uid); uid != 0 && uid != os.Geteuid() {
			return fmt.Errorf("read %s: it belongs to user %d, neither root nor the user that runs fairlead (%d): chown it", name, uid, os.Geteuid())
		}
	}
	if !isPrivate(info) {
		return fmt.Errorf("read %s: others may use it (mode %04o): chmod 600 %s", name, info.Mode().Perm(), name)
	}
	return nil
}

// mayWrite reports whether this process may make files in a directory.
func mayWrite(dir string) bool {
	const writeAndSearch = 2 | 1 // W_OK, X_OK of access(2)
	return syscall.Access(dir, writeAndSearch) == nil
}

func isPrivate(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 == 0 }
