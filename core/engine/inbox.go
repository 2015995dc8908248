package engine

import (
	"sync"

	"github.com/fairlead-iot/fairlead/core"
)

// item is one entry of the inbox: an event, or a function that runs on the engine's goroutine and may return one.
type item struct {
	event core.Event
	do    func() core.Event
}

// inbox is the only way into the engine's goroutine. Posting never blocks: each source is bounded by itself (windows,
// open calls, the hub's own queue), and the frequent events are merged while they wait, so that batches grow under load
// by themselves.
type inbox struct {
	mu     sync.Mutex
	items  []item
	spare  []item
	closed bool
	signal chan struct{} // holds one token while items wait
}

func newInbox() *inbox { return &inbox{signal: make(chan struct{}, 1)} }

// post adds an event. After close it does nothing.
func (b *inbox) post(ev core.Event) { b.add(item{event: ev}) }

// run adds a function. After close it does nothing and reports false.
func (b *inbox) run(do func() core.Event) bool { return b.add(item{do: do}) }

func (b *inbox) add(it item) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	if n := len(b.items); n == 0 || !merge(&b.items[n-1], it) {
		b.items = append(b.items, it)
	}
	select {
	case b.signal <- struct{}{}:
	default:
	}
	return true
}

// merge adds it to the item before it where the two mean the same as one.
func merge(last *item, it item) bool {
	switch ev := it.event.(type) {
	case core.Acked:
		if l, ok := last.event.(core.Acked); ok && l.Epoch == ev.Epoch && l.Lane == ev.Lane && ev.Upto > l.Upto {
			last.event = ev
			return true
		}
	case core.Submitted:
		if l, ok := last.event.(core.Submitted); ok && l.Lane == ev.Lane && ev.Upto > l.Upto {
			ev.Bytes += l.Bytes
			last.event = ev
			return true
		}
	}
	return false
}

// take returns what has come in, in order. The slice is valid until the next take.
func (b *inbox) take() []item {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items, b.spare = b.spare[:0], items
	return items
}

func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.items = true, nil
}
