//go:build !linux

package netdial

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing: only Linux has TCP_USER_TIMEOUT. The session's own watchdog bounds what it would.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }
