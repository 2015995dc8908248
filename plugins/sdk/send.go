package sdk

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

const (
	// queueMessages is how many messages wait for credit before Send blocks instead of queueing.
	queueMessages = 2 * wire.FrameMessages
	// dropBeyond is how many control frames may wait before log lines and metrics are dropped.
	dropBeyond = 1024
	// Messages closer than burstGap to those before, or as many as burst at once, are left to the writer's goroutine,
	// which sends all that have gathered as one. A call of SendAsync takes a few microseconds.
	burst    = 8
	burstGap = 50 * time.Microsecond
)

// settler is told, once, what became of the message with that index.
type settler interface{ settled(index int, err error) }

// ticket is one message on its way. Its fields are guarded by writer.mu.
type ticket struct {
	m     *Message // nil once it was sent
	to    settler
	index int
	tag   uint64 // 0 while it is queued
	size  int
	over  bool // it was settled, or given up before it was sent
}

// writer is the only sender on the stream. Messages queue while it is busy and leave together in its next frame; when it
// is idle a single one leaves at once. Control frames go before messages and need no credit.
//
// The invariant: tickets[i] has the tag base+i, or is nil because it was settled.
type writer struct {
	mu       sync.Mutex
	frames   []*pluginv1.SessionResponse
	dropped  int
	queue    []*ticket
	messages uint64 // credit left
	bytes    uint64
	next     uint64 // the next tag
	base     uint64
	tickets  []*ticket
	open     int           // tickets queued or sent that are not over
	idle     chan struct{} // closed and renewed when open becomes 0; nil if nobody waits
	room     chan struct{} // closed and renewed when the queue got shorter; nil if nobody waits
	err      error         // set when the stream is over: everything fails with it
	starved  bool          // the queue's head waits for credit
	left     time.Time     // when messages left last
	linger   time.Duration
	arrived  time.Time   // when the last patient message was queued
	hasty    time.Time   // until then nothing lingers
	timer    *time.Timer // of a wait
	waiting  bool        // the timer runs
	due      bool        // what is queued does not linger: who set this pushes it
	wake     chan struct{}

	// sending is held, without mu, by whoever sends on the stream.
	sending sync.Mutex
	stream  stream
	try     trier // the stream if it can be tried, else nil
	partly  bool  // try left something over: run has to flush; guarded by sending
	broken  error // try failed: run has to end; guarded by sending
}

// trier is a stream on which can be sent without waiting.
type trier interface {
	CanTry() bool
	TrySend(frames ...*pluginv1.SessionResponse) (isWhole bool, err error)
	Flush() error
}

func newWriter(s stream) *writer {
	w := &writer{next: 1, base: 1, wake: make(chan struct{}, 1), stream: s, linger: DefaultLinger}
	if t, ok := s.(trier); ok && t.CanTry() {
		w.try = t
	}
	return w
}

// push has what was queued leave. Where the stream is idle and takes it at once, the caller sends it, so that what comes
// alone pays for no other goroutine; else the writer's goroutine does, with what has gathered.
func (w *writer) push() {
	if w.try == nil || !w.isAlone() || !w.sending.TryLock() {
		w.signal()
		return
	}
	if w.partly || w.broken != nil {
		w.sending.Unlock()
		w.signal()
		return
	}
	if frames := w.take(); len(frames) > 0 {
		var isWhole bool
		isWhole, w.broken = w.try.TrySend(frames...)
		w.partly = !isWhole
	}
	more := w.partly || w.broken != nil || w.hasMore()
	w.sending.Unlock()
	if more {
		w.signal()
	}
}

// hasMore reports whether messages are due that may be sent: there were more than a frame holds.
func (w *writer) hasMore() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.due && !w.starved
}

// isAlone reports whether what is queued is one message or little more, and not one of a burst.
func (w *writer) isAlone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) == 0 || len(w.queue) < burst && time.Since(w.left) >= burstGap
}

func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// control queues a frame that waits for no credit.
func (w *writer) control(f *pluginv1.SessionResponse) {
	w.mu.Lock()
	if w.err == nil {
		w.frames = append(w.frames, f)
	}
	w.mu.Unlock()
	w.push()
}

// offer queues a frame that may be dropped when too many wait: a log line, a metric.
func (w *writer) offer(f *pluginv1.SessionResponse) {
	w.mu.Lock()
	if w.err != nil || len(w.frames) >= dropBeyond {
		w.dropped++
		w.mu.Unlock()
		return
	}
	w.frames = append(w.frames, f)
	w.mu.Unlock()
	w.signal()
}

// enqueue queues tickets in order, waiting for room. It returns how many it took; with an error the rest was not taken.
// Nobody waits for patient ones, so that they may linger.
func (w *writer) enqueue(ctx context.Context, ts []*ticket, patient bool) (int, error) {
	taken := 0
	for {
		w.mu.Lock()
		if w.err != nil {
			err := w.err
			w.mu.Unlock()
			return taken, fmt.Errorf("%w; it was not sent", err)
		}
		if n := min(queueMessages-len(w.queue), len(ts)-taken); n > 0 {
			w.queue = append(w.queue, ts[taken:taken+n]...)
			w.open += n
			taken += n
		}
		if taken == len(ts) {
			lingers := patient && w.lingers(ts[0].size)
			w.due = w.due || !lingers
			w.mu.Unlock()
			if !lingers {
				w.push()
			}
			return taken, nil
		}
		if w.room == nil {
			w.room = make(chan struct{})
		}
		room := w.room
		w.due = true
		w.mu.Unlock()
		w.signal()
		select {
		case <-room:
		case <-ctx.Done():
			return taken, fmt.Errorf("%w; it was not sent", context.Cause(ctx))
		}
	}
}

// withdraw gives up tickets: at once where they are still queued, else by asking the host, who settles them.
func (w *writer) withdraw(ts []*ticket, cause error) {
	var gone []*ticket
	w.mu.Lock()
	queued := false
	for _, t := range ts {
		switch {
		case t.over || w.err != nil:
		case t.tag == 0:
			t.over, t.m, queued = true, nil, true
			gone = append(gone, t)
		default:
			w.frames = append(w.frames, &pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Withdraw{
				Withdraw: &pluginv1.Withdraw{Tag: t.tag},
			}})
		}
	}
	if queued {
		kept := w.queue[:0]
		for _, t := range w.queue {
			if !t.over {
				kept = append(kept, t)
			}
		}
		clear(w.queue[len(kept):])
		w.queue = kept
		w.due = w.due && len(kept) > 0
		w.made()
		w.closed(len(gone))
	}
	w.mu.Unlock()
	w.signal()
	for _, t := range gone {
		t.to.settled(t.index, fmt.Errorf("%w; it was not sent", cause))
	}
}

// credit adds to what may be sent.
func (w *writer) credit(messages, bytes uint64) {
	w.mu.Lock()
	w.messages += messages
	w.bytes += bytes
	starved := w.starved
	w.starved = false
	w.mu.Unlock()
	if starved {
		w.signal()
	}
}

// settle resolves the tickets with the tags from..to.
func (w *writer) settle(from, to uint64, err error) {
	w.mu.Lock()
	var done []*ticket
	from, to = max(from, w.base), min(to, w.base+uint64(len(w.tickets))-1)
	if len(w.tickets) > 0 && from <= to {
		part := w.tickets[from-w.base : to-w.base+1]
		done = make([]*ticket, 0, len(part))
		for i, t := range part {
			if t != nil {
				t.over = true
				done = append(done, t)
				part[i] = nil
			}
		}
		head := 0
		for head < len(w.tickets) && w.tickets[head] == nil {
			head++
		}
		w.tickets = w.tickets[head:]
		w.base += uint64(head)
		w.closed(len(done))
	}
	w.mu.Unlock()
	for _, t := range done {
		t.to.settled(t.index, err)
	}
}

// closed counts tickets that are over; w.mu is held.
func (w *writer) closed(n int) {
	w.open -= n
	if w.open == 0 && w.idle != nil {
		close(w.idle)
		w.idle = nil
	}
}

// made tells those who wait for room in the queue; w.mu is held.
func (w *writer) made() {
	if w.room != nil && len(w.queue) < queueMessages {
		close(w.room)
		w.room = nil
	}
}

// settledAll waits until no message is open.
func (w *writer) settledAll(ctx context.Context) error {
	w.mu.Lock()
	if w.open == 0 {
		w.mu.Unlock()
		return nil
	}
	if w.idle == nil {
		w.idle = make(chan struct{})
	}
	idle := w.idle
	w.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fail ends the writer: everything open fails with err, and so does what comes later. When it returns nobody sends on the
// stream, nor ever will.
func (w *writer) fail(err error) {
	w.sending.Lock()
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		w.sending.Unlock()
		return
	}
	w.err = err
	var sent, queued []*ticket
	for _, t := range w.tickets {
		if t != nil {
			t.over = true
			sent = append(sent, t)
		}
	}
	for _, t := range w.queue {
		t.over = true
		queued = append(queued, t)
	}
	w.tickets, w.queue, w.frames = nil, nil, nil
	if w.timer != nil {
		w.timer.Stop()
	}
	w.closed(len(sent) + len(queued))
	w.made()
	w.mu.Unlock()
	w.sending.Unlock()
	w.signal()
	for _, t := range sent {
		t.to.settled(t.index, fmt.Errorf("%w; the hub may have it", err))
	}
	for _, t := range queued {
		t.to.settled(t.index, fmt.Errorf("%w; it was not sent", err))
	}
}

// takeFrames returns the control frames to send now.
func (w *writer) takeFrames() (frames []*pluginv1.SessionResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	frames, w.frames = w.frames, nil
	if w.dropped > 0 && w.err == nil && len(frames) < dropBeyond {
		frames = append(frames, logFrame(pluginv1.Log_LEVEL_WARN, "log lines and metrics dropped: the host did not keep up",
			map[string]string{"dropped": fmt.Sprint(w.dropped)}))
		w.dropped = 0
	}
	return frames
}

// takeBatch returns the messages to send now, nil for none; those that linger go along where a frame leaves anyway. They
// share the authors' payloads and maps, which are theirs again when a Send gives up; so they are taken last, when nothing
// stands between them and the stream.
func (w *writer) takeBatch(leaves bool) *pluginv1.SessionResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.due && !leaves {
		return nil
	}
	n, size := 0, 0
	for n < len(w.queue) && n < wire.FrameMessages {
		t := w.queue[n]
		if w.messages == 0 || uint64(t.size) > w.bytes {
			w.starved = true
			break
		}
		if n > 0 && size+t.size > wire.FrameTarget {
			break
		}
		w.messages--
		w.bytes -= uint64(t.size)
		size += t.size
		n++
	}
	if n == 0 {
		w.due = len(w.queue) > 0
		return nil
	}
	ms := &pluginv1.Messages{First: w.next, Messages: make([]*pluginv1.Message, n)}
	for i, t := range w.queue[:n] {
		t.tag = w.next
		w.next++
		ms.Messages[i] = wire.FromMessage(t.m)
		t.m = nil
		w.tickets = append(w.tickets, t)
	}
	w.left = time.Now()
	rest := copy(w.queue, w.queue[n:])
	clear(w.queue[rest:])
	w.queue = w.queue[:rest]
	w.due = rest > 0
	w.made()
	return &pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Messages{Messages: ms}}
}

// take returns all that may be sent now.
func (w *writer) take() []*pluginv1.SessionResponse {
	frames := w.takeFrames()
	if batch := w.takeBatch(len(frames) > 0); batch != nil {
		frames = append(frames, batch)
	}
	return frames
}

// run sends until ctx ends or the stream does. When ctx ends it still sends what is queued and may be sent.
func (w *writer) run(ctx context.Context) error {
	for last := false; ; {
		sent, err := w.send()
		if err != nil || last {
			return err
		}
		if sent {
			continue
		}
		select {
		case <-w.wake:
			// Those who were woken together with us get to queue first: their messages join this frame.
			runtime.Gosched()
		case <-ctx.Done():
			last = true
			w.hurry()
		}
	}
}

// send sends what is queued, and reports whether there was anything.
func (w *writer) send() (bool, error) {
	w.sending.Lock()
	defer w.sending.Unlock()
	if w.broken != nil {
		return false, w.broken
	}
	if w.partly {
		w.partly = false
		if err := w.try.Flush(); err != nil {
			return false, err
		}
	}
	frames, sent := w.takeFrames(), false
	if w.try == nil && len(frames) > 0 {
		// Over gRPC each frame may wait before it is encoded, and what messages share with their authors must not.
		if err := w.stream.Send(frames...); err != nil {
			return false, err
		}
		frames, sent = nil, true
	}
	if batch := w.takeBatch(sent || len(frames) > 0); batch != nil {
		frames = append(frames, batch)
	}
	if len(frames) == 0 {
		return sent, nil
	}
	return true, w.stream.Send(frames...)
}
