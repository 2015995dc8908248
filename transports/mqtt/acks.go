package mqtt

import (
	"sync"
	"sync/atomic"

	"github.com/fairlead-iot/fairlead/core"
)

// Packet ids. Those from ownIDs up are the session's, for what it publishes past paho; those below are paho's, which
// counts its SUBSCRIBEs from 1.
const (
	ownIDs   = 1 << 15
	ownCount = 1<<16 - ownIDs
	// maxFlight is how many of its own may be open before messages wait, so that an id comes again long after it was
	// acknowledged, and what is no message always finds one. The machine's window is far below for a lane; a dozen and a
	// half of full lanes come up to it.
	maxFlight = 1 << 14
)

// flight is what has been published and awaits its PUBACK.
type flight struct {
	mu      sync.Mutex
	changed sync.Cond // ids became free, room was nudged, or the end came
	ended   bool
	last    uint16                // the index of the id given last
	open    [ownCount / 64]uint64 // a bit for each own id in use
	count   int                   // of the open ones, and of the entries of lanes
	lanes   []*lane
	waiters map[uint16]chan<- struct{} // who waits for an id's PUBACK

	// reporting is held from working out a report to its delivery, so that reports are in order.
	reporting sync.Mutex
	reports   []ackReport
}

// lane is a lane's messages that await their acknowledgement, in order, from waiting[head] on.
type lane struct {
	id      core.Lane
	waiting []sent
	head    int
}

// sent is a message in flight. One without a packet id counts as acknowledged in its turn.
type sent struct {
	seq    core.Seq
	packet uint16
}

type ackReport struct {
	lane core.Lane
	upto core.Seq
}

func newFlight() *flight {
	f := &flight{waiters: make(map[uint16]chan<- struct{})}
	f.changed.L = &f.mu
	return f
}

// room waits until ids are free for messages, or until urgent, and reports whether the session still lives. Whoever sets
// urgent calls nudge.
func (f *flight) room(urgent *atomic.Bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.ended && f.count >= maxFlight && !urgent.Load() {
		f.changed.Wait()
	}
	return !f.ended
}

// nudge has room look again.
func (f *flight) nudge() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changed.Broadcast()
}

// isFull reports whether messages have to wait.
func (f *flight) isFull() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count >= maxFlight
}

// end lets nobody wait any more.
func (f *flight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.changed.Broadcast()
}

// take gives out an id, of which one must be free. f.mu is held.
func (f *flight) take() uint16 {
	for {
		f.last = (f.last + 1) % ownCount
		if bit := uint64(1) << (f.last % 64); f.open[f.last/64]&bit == 0 {
			f.open[f.last/64] |= bit
			return ownIDs + f.last
		}
	}
}

func (f *flight) isOpen(id uint16) bool {
	i := id - ownIDs
	return f.open[i/64]&(1<<(i%64)) != 0
}

// message gives a message its id. Without one it was not sent, and counts as acknowledged in its turn.
func (f *flight) message(l core.Lane, seq core.Seq, isSent bool) (id uint16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if isSent {
		id = f.take()
	}
	f.count++
	at := f.lane(l)
	if at.head > len(at.waiting)/2 && len(at.waiting) == cap(at.waiting) {
		at.waiting = at.waiting[:copy(at.waiting, at.waiting[at.head:])]
		at.head = 0
	}
	at.waiting = append(at.waiting, sent{seq, id})
	return id
}

func (f *flight) lane(id core.Lane) *lane {
	for _, l := range f.lanes {
		if l.id == id {
			return l
		}
	}
	l := &lane{id: id}
	f.lanes = append(f.lanes, l)
	return l
}

// other gives an id to something that is no message, if there is one. acked, if not nil, is sent to at its PUBACK; it must
// have room.
func (f *flight) other(acked chan<- struct{}) (id uint16, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count >= ownCount {
		return 0, false
	}
	id = f.take()
	f.count++
	f.waiters[id] = acked
	return id, true
}

// acknowledge notes PUBACKs and returns what each lane can report. A PUBACK for nothing is ignored. f.reporting is held;
// the slice is valid as long as it is.
func (f *flight) acknowledge(ids []uint16) []ackReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if id < ownIDs || !f.isOpen(id) {
			continue
		}
		i := id - ownIDs
		f.open[i/64] &^= 1 << (i % 64)
		if acked, ok := f.waiters[id]; ok {
			delete(f.waiters, id)
			f.count--
			if acked != nil {
				acked <- struct{}{}
			}
		}
	}
	f.reports = f.reports[:0]
	for _, l := range f.lanes {
		from := l.head
		for l.head < len(l.waiting) && (l.waiting[l.head].packet == 0 || !f.isOpen(l.waiting[l.head].packet)) {
			l.head++
		}
		if l.head == from {
			continue
		}
		f.count -= l.head - from
		f.reports = append(f.reports, ackReport{l.id, l.waiting[l.head-1].seq})
		if l.head == len(l.waiting) {
			l.waiting, l.head = l.waiting[:0], 0
		}
	}
	f.changed.Broadcast()
	return f.reports
}

// acked reports what PUBACKs mean for the lanes. MQTT has the hub acknowledge in the order of sending (MQTT-4.6.0-2); from
// one that does not, each lane reports what has no gap.
func (s *session) acked(ids []uint16) {
	s.flight.reporting.Lock()
	defer s.flight.reporting.Unlock()
	for _, r := range s.flight.acknowledge(ids) {
		s.deliver(func(h *core.Handler) {
			if h.Acked != nil {
				h.Acked(r.lane, r.upto)
			}
		})
	}
}
