package netdial

import (
	"errors"
	"fmt"
	"net"
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

// ackPromptly returns conn, whose reads are acknowledged at once; conn itself where there is no socket below.
//
// A proxy that leaves Nagle's algorithm on (tinyproxy) holds the next piece back until the last one is acknowledged, and
// Linux acknowledges up to 40 ms late what is answered by nothing. The option wears off, and is set again after each read.
// https://man7.org/linux/man-pages/man7/tcp.7.html
func ackPromptly(conn net.Conn) net.Conn {
	socket, ok := Innermost(conn).(syscall.Conn)
	if !ok {
		return conn
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return conn
	}
	return &prompt{Conn: conn, raw: raw, set: func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) // without it things are slow, no more
	}}
}

type prompt struct {
	net.Conn
	raw syscall.RawConn
	set func(fd uintptr)
}

// Read implements net.Conn.
func (c *prompt) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil {
		_ = c.raw.Control(c.set) // fails where the connection is closed
	}
	return n, err
}

// NetConn returns the connection below.
func (c *prompt) NetConn() net.Conn { return c.Conn }
