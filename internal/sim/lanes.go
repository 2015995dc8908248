package sim

import "github.com/fairlead-iot/fairlead/core"

// fate is what a caller knows of a message.
type fate uint8

const (
	open fate = iota
	accepted
	givenUp
)

// storeHolds is how many numbers of a lane the store has room for. One that was given up takes its room until it is forgotten.
const storeHolds = 400

// lane is the memory store of one lane, and what its callers know.
type lane struct {
	fates     []fate // of number i+1
	sizes     []int
	withdrawn map[core.Seq]bool
	everSent  core.Seq
	resolved  core.Seq
	forgotten core.Seq
	told      int
}

// pending counts those that nobody has been told of.
func (l *lane) pending() int { return len(l.fates) - l.told }

// kept counts the numbers that take room.
func (l *lane) kept() int { return len(l.fates) - int(l.forgotten) }

func (w *world) submit(n, count int) {
	l := &w.lanes[n]
	if l.kept()+count > storeHolds {
		w.stats.Faults["store full"]++
		return // the caller waits
	}
	size := 50 + w.rng.IntN(400)
	for range count {
		l.fates, l.sizes = append(l.fates, open), append(l.sizes, size)
	}
	w.stats.Submitted += count
	w.feed(core.Submitted{Lane: core.Lane(n), Upto: core.Seq(len(l.fates)), Bytes: count * size})
}

func (w *world) withdraw(n int) {
	l := &w.lanes[n]
	if l.pending() == 0 {
		return
	}
	waiting := core.Seq(len(l.fates)) - l.forgotten
	seq := l.forgotten + 1 + core.Seq(w.rng.Int64N(int64(waiting)))
	if l.fates[seq-1] != open {
		return
	}
	if l.withdrawn == nil {
		l.withdrawn = map[core.Seq]bool{}
	}
	l.withdrawn[seq] = true
	w.stats.Faults["withdrawn"]++
	w.feed(core.Withdrawn{Lane: core.Lane(n), Seq: seq})
}

func (w *world) send(e core.Send) {
	k := w.sees(e.Epoch, e)
	if k == nil || k.session == nil {
		return
	}
	l, f := &w.lanes[e.Lane], &k.flight[e.Lane]
	if first := max(l.forgotten, l.resolved) + 1; e.From > e.To || e.From < first || int(e.To) > len(l.fates) {
		w.fail(LaneOrder, "%v: the lane begins at %d and ends at %d", e, first, len(l.fates))
		return
	}
	l.everSent = max(l.everSent, e.To)
	var batch []core.Seq
	for s := e.From; s <= e.To; s++ {
		if l.fates[s-1] == givenUp {
			continue
		}
		batch = append(batch, s)
		f.seqs, f.sizes = append(f.seqs, s), append(f.sizes, l.sizes[s-1])
		f.bytes += l.sizes[s-1]
	}
	lim := w.opts.Limits
	if n := len(f.seqs); n > lim.Window || f.bytes > lim.WindowBytes && n > 1 {
		w.fail(Window, "lane %d: %d messages of %d bytes under way, at most %d and %d", e.Lane, n, f.bytes, lim.Window, lim.WindowBytes)
	}
	// The network may break between two of them.
	for len(batch) > 0 {
		part := batch
		if len(batch) > 1 && w.rng.IntN(2) == 0 {
			part = batch[:1+w.rng.IntN(len(batch)-1)]
		}
		batch = batch[len(part):]
		w.up(k, func(s *session) { w.hub.receive(s, int(e.Lane), part) })
	}
}

// ackArrives tells the device; the session reports a run at once.
func (w *world) ackArrives(k *link, n int, upto core.Seq) {
	f := &k.flight[n]
	gone := 0
	for gone < len(f.seqs) && f.seqs[gone] <= upto {
		f.bytes -= f.sizes[gone]
		gone++
	}
	f.seqs, f.sizes = f.seqs[gone:], f.sizes[gone:]
	w.answer(core.Acked{Epoch: k.epoch, Lane: core.Lane(n), Upto: upto})
}

func (w *world) resolve(e core.Resolve) {
	l := &w.lanes[e.Lane]
	if e.Upto <= l.resolved || e.Upto > w.hub.acked[e.Lane] {
		w.fail(Settled, "%v: told up to %d, acknowledged by the hub up to %d", e, l.resolved, w.hub.acked[e.Lane])
		return
	}
	for s := l.resolved + 1; s <= e.Upto; s++ {
		if l.fates[s-1] == open {
			l.fates[s-1] = accepted
			l.told++
		}
	}
	l.resolved = e.Upto
}

func (w *world) forget(e core.Forget) {
	l := &w.lanes[e.Lane]
	if e.Upto <= l.forgotten || int(e.Upto) > len(l.fates) {
		w.fail(Settled, "%v: the store begins after %d and ends at %d", e, l.forgotten, len(l.fates))
		return
	}
	for s := l.forgotten + 1; s <= e.Upto; s++ {
		if l.fates[s-1] == open {
			w.fail(Settled, "%v: nobody was told of %d", e, s)
			return
		}
		delete(l.withdrawn, s)
	}
	l.forgotten = e.Upto
}

// giveUp tells callers. A range may hold numbers that were given up one by one before, but not those alone.
func (w *world) giveUp(e core.GiveUp) {
	l := &w.lanes[e.Lane]
	if e.From <= l.resolved || int(e.To) > len(l.fates) {
		w.fail(Settled, "%v: told up to %d, submitted up to %d", e, l.resolved, len(l.fates))
		return
	}
	told := l.told
	for s := e.From; s <= e.To; s++ {
		if l.fates[s-1] != open {
			continue
		}
		isMeant := e.Why == core.Cancelled && (l.withdrawn[s] || w.cancels) || e.Why == core.Stopped
		if !isMeant {
			w.fail(Settled, "%v: nobody gave up %d", e, s)
		}
		if s <= l.everSent && !e.Sent {
			w.fail(Settled, "%v: %d has left, and the hub may have it", e, s)
		}
		l.fates[s-1] = givenUp
		l.told++
	}
	if l.told == told {
		w.fail(Settled, "%v: told before", e)
	}
}
