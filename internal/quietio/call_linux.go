//go:build !race

package quietio

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// read and write make a system call that cannot block; p is not empty.
func read(fd uintptr, p []byte) (int, syscall.Errno)  { return call(unix.SYS_READ, fd, p) }
func write(fd uintptr, p []byte) (int, syscall.Errno) { return call(unix.SYS_WRITE, fd, p) }

func call(trap, fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p))) //nolint:gosec // as package syscall does
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
