//go:build !linux

package netdial

import (
	"syscall"
	"time"
)

// setOptions does nothing: only Linux has these options. The session's own watchdog bounds what they would.
func setOptions(syscall.RawConn, time.Duration) error { return nil }
