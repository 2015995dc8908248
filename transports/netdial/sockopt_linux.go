package netdial

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout sets TCP_USER_TIMEOUT: without it Linux retransmits into a black hole for about 15 minutes.
// https://man7.org/linux/man-pages/man7/tcp.7.html
func setUserTimeout(c syscall.RawConn, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	var opt error
	if err := c.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	}); err != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
	}
	if opt != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", opt)
	}
	return nil
}
