//go:build unix

package sdk

import (
	"os"

	"golang.org/x/sys/unix"
)

// adopt makes a file of an inherited descriptor, on which nothing blocks and which nobody inherits any more. It returns
// nil if there is none.
func adopt(fd uintptr) *os.File {
	if err := unix.SetNonblock(int(fd), true); err != nil {
		return nil
	}
	unix.CloseOnExec(int(fd))
	return os.NewFile(fd, "host")
}
