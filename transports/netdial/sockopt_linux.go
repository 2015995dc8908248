package netdial

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// unsentBytes is how much the kernel takes beyond what it has sent (TCP_NOTSENT_LOWAT). By itself it would take megabytes,
	// minutes on a slow link, and what is urgent would wait behind them.
	unsentBytes = 16 << 10
	// resendMax is the longest wait before the kernel sends unacknowledged bytes again (TCP_RTO_MAX_MS, since Linux 6.15). By
	// itself it waits twice as long each time, up to two minutes, and a link that is back is found as late.
	resendMax = 3 * time.Second
)

// setOptions sets what the kernel does for a connection. userTimeout is TCP_USER_TIMEOUT, 0 for the system's: without it
// Linux retransmits into a black hole for about 15 minutes.
// https://man7.org/linux/man-pages/man7/tcp.7.html
func setOptions(c syscall.RawConn, userTimeout time.Duration) error {
	var set error
	if err := c.Control(func(fd uintptr) {
		option := func(name string, number, value int) {
			if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, number, value); err != nil {
				set = errors.Join(set, fmt.Errorf("set %s: %w", name, err))
			}
		}
		if userTimeout > 0 {
			option("TCP_USER_TIMEOUT", unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		}
		option("TCP_NOTSENT_LOWAT", unix.TCP_NOTSENT_LOWAT, unsentBytes)
		// An older kernel does not know it, and does without.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, int(resendMax.Milliseconds()))
	}); err != nil {
		return fmt.Errorf("set socket options: %w", err)
	}
	return set
}
