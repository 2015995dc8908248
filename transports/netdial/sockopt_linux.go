package netdial

import (
	"fmt"
	"net"
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
