package sdk

import (
	"context"
	"sync"
)

// worker runs functions one at a time, in order, so that the stream's reader never waits for an author's code.
type worker struct {
	mu    sync.Mutex
	queue []func()
	wake  chan struct{}
}

func newWorker() *worker { return &worker{wake: make(chan struct{}, 1)} }

// add queues f; it never blocks. What is queued is bounded by the host's limit of open calls.
func (w *worker) add(f func()) {
	w.mu.Lock()
	w.queue = append(w.queue, f)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run ends with ctx; what is queued then is not run.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.mu.Lock()
		queue := w.queue
		w.queue = nil
		w.mu.Unlock()
		for _, f := range queue {
			if ctx.Err() != nil {
				return
			}
			f()
		}
		if len(queue) > 0 {
			continue
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
		}
	}
}
