//go:build faults && unix

package faults

import (
	"syscall"
	"time"
)

// terminate asks the runtime to end, wants that exit code within 10 s, and returns how long it took.
func (w *world) terminate(want int) time.Duration {
	w.t.Helper()
	w.runtime.signal(w.t, syscall.SIGTERM)
	code, took := w.runtime.exit(w.t, 10*time.Second)
	if code != want {
		w.t.Errorf("the runtime exited %d, want %d", code, want)
	}
	return took
}
