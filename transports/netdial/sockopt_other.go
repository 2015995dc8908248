//go:build !linux

package netdial

import (
	"net"
	"syscall"
	"time"
)

// setUserTimeout does nothing: only Linux has TCP_USER_TIMEOUT. The session's own watchdog bounds what it would.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }

// ackPromptly returns conn: only Linux has TCP_QUICKACK.
func ackPromptly(conn net.Conn) net.Conn { return conn }
