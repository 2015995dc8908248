// Package trim gives a process's memory back to the system when the process has fallen quiet.
//
// # Usage
//
//	go trim.Watch(ctx)
//
// # Why
//
// A burst leaves the heap at the height that it had under load. What is free of it goes back only as collections run, and
// a process at rest allocates nothing and so collects nothing for minutes. Devices rest most of the time, and share their
// memory.
//
// # Expected behaviour
//
// Every interval Watch looks at how much was allocated. Once an interval in which little was allocated follows on ones in
// which much was, it collects and gives back everything that is free, once (debug.FreeOSMemory). A process that is always
// busy, and one that is always at rest, are left alone.
//
// # Concurrency
//
// One Watch per process is enough; it needs a goroutine of its own.
package trim

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// interval is how often Watch looks.
	interval = 10 * time.Second
	// quiet is how many bytes may be allocated in an interval of rest.
	quiet = 256 << 10
	// worth is how many bytes must have been allocated since the last time: less leaves nothing to give back.
	worth = 4 << 20
)

// Watch runs until ctx ends.
func Watch(ctx context.Context) {
	t := time.NewTicker(interval)
	defer t.Stop()
	w := watcher{trimmed: allocated()}
	w.last = w.trimmed
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if w.isDue(allocated()) {
			debug.FreeOSMemory()
			w.done(allocated())
		}
	}
}

// watcher decides, by the bytes that the process has allocated in all its life.
type watcher struct {
	last    uint64 // at the last look
	trimmed uint64 // at the last time that memory was given back
}

// isDue reports whether memory is to be given back, now that so much has been allocated.
func (w *watcher) isDue(allocated uint64) bool {
	isQuiet := allocated-w.last <= quiet
	w.last = allocated
	return isQuiet && allocated-w.trimmed >= worth
}

// done notes that memory was given back.
func (w *watcher) done(allocated uint64) { w.last, w.trimmed = allocated, allocated }

// allocated returns the bytes that were ever allocated on the heap. Reading it stops nobody.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
