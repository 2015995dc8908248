//go:build !linux

package netdial

import (
	"net"
	"syscall"
	"time"
)

// setOptions does nothing: only Linux has these options. The session's own watchdog bounds what they would.
func setOptions(syscall.RawConn, time.Duration) error { return nil }

// ackPromptly returns conn: only Linux has TCP_QUICKACK.
func ackPromptly(conn net.Conn) net.Conn { return conn }
