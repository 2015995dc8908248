//go:build race

package quietio

import "syscall"

// read and write are those of package syscall, which tell the race detector what they write to and that what is read was
// written before. Without that, two ends in one process, as in a test, would seem to race where the one waits for the other.
func read(fd uintptr, p []byte) (int, syscall.Errno)  { return outcome(syscall.Read(int(fd), p)) }
func write(fd uintptr, p []byte) (int, syscall.Errno) { return outcome(syscall.Write(int(fd), p)) }

func outcome(n int, err error) (int, syscall.Errno) {
	if errno, ok := err.(syscall.Errno); ok { //nolint:errorlint // package syscall returns nothing else
		return 0, errno
	}
	return n, 0
}
