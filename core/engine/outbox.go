package engine

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/fairlead-iot/fairlead/core"
)

// outbox keeps what has been submitted until the hub has acknowledged it. It lives in memory: a message is lost with
// the process, which is why Submit's settler is told nothing good before the hub has it.
type outbox struct {
	mu       sync.Mutex
	lanes    []laneBox
	count    int // live messages
	slots    int // numbers that are kept, the empty ones among them: they take room as well
	bytes    int
	maxCount int
	maxBytes int
	closed   bool
	space    chan struct{} // closed when there is room again; nil while nobody waits
	idPrefix string
}

// laneBox holds the entries head, head+1, … of a lane.
type laneBox struct {
	head    core.Seq // number of entries[first]
	first   int
	entries []entry
}

// entry is one message. An empty one (message nil) was given up; its number remains.
type entry struct {
	message *core.Message
	by      core.Settler
	tag     uint64
	size    int
}

func newOutbox(maxCount, maxBytes int, idPrefix string) *outbox {
	return &outbox{maxCount: maxCount, maxBytes: maxBytes, idPrefix: idPrefix}
}

func (o *outbox) lane(l core.Lane) *laneBox {
	for int(l) >= len(o.lanes) {
		o.lanes = append(o.lanes, laneBox{head: 1})
	}
	return &o.lanes[l]
}

func (b *laneBox) last() core.Seq { return b.head + core.Seq(len(b.entries)-b.first) - 1 }

func (b *laneBox) at(s core.Seq) *entry { return &b.entries[b.first+int(s-b.head)] }

// append takes a batch, or blocks until there is room. submitted is called, in the order of the numbers, before others
// can append to the lane.
func (o *outbox) append(ctx context.Context, l core.Lane, by core.Settler, first uint64, batch []*core.Message, submitted func(upto core.Seq, bytes int)) error {
	total := 0
	for _, m := range batch {
		total += m.Size()
	}
	if len(batch) > o.maxCount || total > o.maxBytes {
		return fmt.Errorf("submit %d messages of %d bytes: %w: the outbox holds at most %d messages and %d bytes", len(batch), total, core.ErrTooLarge, o.maxCount, o.maxBytes)
	}
	for {
		o.mu.Lock()
		if o.closed {
			o.mu.Unlock()
			return core.ErrClosed
		}
		if o.slots+len(batch) <= o.maxCount && o.bytes+total <= o.maxBytes {
			break
		}
		if o.space == nil {
			o.space = make(chan struct{})
		}
		space := o.space
		o.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return fmt.Errorf("wait for room in the outbox: %w", ctxError(ctx))
		}
	}
	defer o.mu.Unlock()
	b := o.lane(l)
	for i, m := range batch {
		size := m.Size() // as counted above, without an id that is made up here
		if m.ID == "" {
			// One of the largest size goes without: an id of ours is no reason to refuse it.
			if id := o.messageID(l, b.last()+1); size+len(id) <= core.MaxMessageSize {
				m.ID = id
			}
		}
		b.entries = append(b.entries, entry{message: m, by: by, tag: first + uint64(i), size: size})
	}
	o.count += len(batch)
	o.slots += len(batch)
	o.bytes += total
	submitted(b.last(), total)
	return nil
}

// messageID stays the same when the message is sent again. Numbers that were only in memory come again after a restart,
// hence the random part.
func (o *outbox) messageID(l core.Lane, s core.Seq) string {
	buf := make([]byte, 0, 40)
	buf = append(buf, o.idPrefix...)
	buf = append(buf, '-')
	buf = strconv.AppendUint(buf, uint64(l), 10)
	buf = append(buf, '-')
	return string(strconv.AppendUint(buf, uint64(s), 10))
}

// collect returns the messages from..to that have not been given up.
func (o *outbox) collect(l core.Lane, from, to core.Seq) []core.Outbound {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.lane(l)
	out := make([]core.Outbound, 0, to-from+1)
	for s := from; s <= to; s++ {
		if e := b.at(s); e.message != nil {
			out = append(out, core.Outbound{Seq: s, Message: e.message})
		}
	}
	return out
}

// find returns the number of a message by its submitter's tag; 0 if it is not here any more.
func (o *outbox) find(l core.Lane, by core.Settler, tag uint64) core.Seq {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.lane(l)
	for i := b.first; i < len(b.entries); i++ {
		if e := &b.entries[i]; e.tag == tag && e.by == by && e.message != nil {
			return b.head + core.Seq(i-b.first)
		}
	}
	return 0
}

// settlement is a run of messages of one submitter.
type settlement struct {
	by       core.Settler
	from, to uint64
}

// take empties from..to (as far as present) and returns whom to tell. live is how many messages those were.
func (o *outbox) take(l core.Lane, from, to core.Seq) (runs []settlement, live int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.lane(l)
	for s := max(from, b.head); s <= min(to, b.last()); s++ {
		e := b.at(s)
		if e.message == nil {
			continue
		}
		live++
		o.count--
		o.bytes -= e.size
		if n := len(runs); n > 0 && runs[n-1].by == e.by && runs[n-1].to+1 == e.tag {
			runs[n-1].to = e.tag
		} else {
			runs = append(runs, settlement{e.by, e.tag, e.tag})
		}
		*e = entry{}
	}
	if live > 0 {
		o.signalSpace()
	}
	return runs, live
}

// signalSpace wakes who waits for room.
func (o *outbox) signalSpace() {
	if o.space != nil {
		close(o.space)
		o.space = nil
	}
}

// forget drops the entries up to upto.
func (o *outbox) forget(l core.Lane, upto core.Seq) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.lane(l)
	n := int(min(upto, b.last()) + 1 - b.head)
	if n <= 0 {
		return
	}
	b.first += n
	b.head += core.Seq(n)
	o.slots -= n
	o.signalSpace()
	if b.first == len(b.entries) {
		b.entries, b.first = b.entries[:0], 0
	} else if b.first > 1024 && b.first > len(b.entries)/2 {
		rest := copy(b.entries, b.entries[b.first:])
		clear(b.entries[rest:])
		b.entries, b.first = b.entries[:rest], 0
	}
}

// load returns how many messages and bytes wait.
func (o *outbox) load() (count, bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count, o.bytes
}

// close takes nothing more and returns how many lanes there are.
func (o *outbox) close() (lanes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.signalSpace()
	return len(o.lanes)
}
