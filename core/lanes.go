package core

import (
	"cmp"
	"slices"
	"sort"
)

// lane is the machine's view of one plugin's stream: numbers, never messages. acked ≤ sent ≤ last, and only the head
// (acked) and the tail (last) move for good; sent falls back to acked when a session ends, which is all there is to
// resending.
type lane struct {
	last     Seq // submitted
	sent     Seq // sent in the present session
	acked    Seq // acknowledged, or given up
	everSent Seq // sent in any session
	doomed   Seq // cancelled at the next close (see doomPending)
	// gone are the numbers after acked that were given up one by one, rising.
	gone []gone
	// progressed is when the hub last acknowledged something of the lane, or when it first had something to.
	progressed Instant
	// marks gives the bytes submitted up to some of the numbers: one mark for each Submitted that is not yet acknowledged.
	marks []mark
}

// gone is a given-up number. owed: it was sent in the present session before, so that the hub will acknowledge it.
type gone struct {
	seq  Seq
	owed bool
}

// findGone returns the place of s among the given-up numbers, or where it would stand.
func (l *lane) findGone(s Seq) (int, bool) {
	return slices.BinarySearchFunc(l.gone, s, func(g gone, s Seq) int { return cmp.Compare(g.seq, s) })
}

// mark: all messages up to seq have bytes in total, counted since the lane began.
type mark struct {
	seq   Seq
	bytes uint64
}

func (m *Machine) lane(l Lane) *lane {
	for int(l) >= len(m.lanes) {
		m.lanes = append(m.lanes, lane{marks: []mark{{}}})
	}
	return &m.lanes[l]
}

func (m *Machine) submitted(now Instant, ev Submitted) {
	l := m.lane(ev.Lane)
	if ev.Upto <= l.last {
		return
	}
	l.marks = append(l.marks, mark{ev.Upto, l.marks[len(l.marks)-1].bytes + uint64(max(0, ev.Bytes))})
	m.counters.Submitted += uint64(ev.Upto - l.last)
	from := l.last + 1
	l.last = ev.Upto
	if l.sent == l.acked {
		l.progressed = now
	}
	if m.wantByOperation() {
		return
	}
	// What was submitted earlier may wait for a connect, or for its acknowledgement: it is not touched.
	if from == l.acked+1 {
		m.giveUpLane(ev.Lane, ev.Upto, NotConnected)
		return
	}
	for s := from; s <= ev.Upto; s++ {
		l.gone = append(l.gone, gone{seq: s})
	}
	m.emit(GiveUp{Lane: ev.Lane, From: from, To: ev.Upto, Why: NotConnected})
}

// withdrawn lets a message go that nobody waits for any more. Its number stays in the lane, empty, as long as something
// before it waits: numbers have no gaps. That it will not be sent (again) is the point; that it may have been sent is
// told.
func (m *Machine) withdrawn(ev Withdrawn) {
	l := m.lane(ev.Lane)
	if ev.Seq <= l.acked || ev.Seq > l.last {
		return
	}
	i, isGone := l.findGone(ev.Seq)
	if isGone {
		return
	}
	l.gone = slices.Insert(l.gone, i, gone{ev.Seq, ev.Seq <= l.sent})
	m.emit(GiveUp{Lane: ev.Lane, From: ev.Seq, To: ev.Seq, Sent: ev.Seq <= l.everSent, Why: Cancelled})
	m.skipGone(ev.Lane)
}

// skipGone moves a lane's head over given-up numbers: a shutdown is not to wait for them, and while the hub is away they
// are not to pile up. What is in flight is left to its acknowledgement: a hub that owes one and stays silent must still
// be found out.
func (m *Machine) skipGone(n Lane) {
	l := m.lane(n)
	upto := l.afterGone(l.acked)
	if l.sent > l.acked || upto == l.acked {
		return
	}
	m.emit(Forget{n, upto})
	l.moveHead(upto)
}

// afterGone returns the last of the given-up numbers that follow s without a gap, as far as the hub owes nothing for
// them; s if none does.
func (l *lane) afterGone(s Seq) Seq {
	i, _ := l.findGone(s + 1)
	for ; i < len(l.gone) && l.gone[i] == (gone{seq: s + 1}); i++ {
		s++
	}
	return s
}

func (m *Machine) acked(now Instant, ev Acked) {
	l := m.lane(ev.Lane)
	if ev.Epoch != m.cur.epoch || m.cur.phase < up || ev.Upto <= l.acked {
		return
	}
	if ev.Upto > l.sent {
		// Nobody can acknowledge what has not been sent: the session counts wrongly, and is not to be believed.
		m.counters.Anomalies++
		m.recycle("an acknowledgement of something that was not sent")
		return
	}
	m.counters.Acknowledged += uint64(ev.Upto - l.acked)
	l.progressed = now
	// Nobody will acknowledge what was given up before its turn: an acknowledgement reaches to the next that is not.
	l.moveHead(min(l.afterGone(ev.Upto), l.sent))
	m.emit(Resolve{ev.Lane, ev.Upto})
	m.emit(Forget{ev.Lane, l.acked})
	m.skipGone(ev.Lane)
}

func (l *lane) moveHead(upto Seq) {
	l.acked = upto
	l.sent = max(l.sent, upto)
	passed, _ := l.findGone(upto + 1)
	l.gone = slices.Delete(l.gone, 0, passed)
	n := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].seq > upto })
	if n > 1 {
		// Keep the last mark at or before the head: bytes are counted from it.
		l.marks = append(l.marks[:0], l.marks[n-1:]...)
	}
}

func (m *Machine) giveUpLane(n Lane, upto Seq, why Outcome) {
	l := m.lane(n)
	if upto <= l.acked {
		return
	}
	m.emit(GiveUp{Lane: n, From: l.acked + 1, To: upto, Sent: l.everSent > l.acked, Why: why})
	m.emit(Forget{n, upto})
	l.moveHead(upto)
	m.skipGone(n)
}

// detach takes back what is in flight at a session's end: nobody will acknowledge it any more.
func (m *Machine) detach(n Lane) {
	l := m.lane(n)
	l.sent = l.acked
	for i := range l.gone {
		l.gone[i].owed = false
	}
	m.skipGone(n)
}

func (m *Machine) planLanes(now Instant) {
	if !m.isAlive() {
		return
	}
	for i := range m.lanes {
		l := &m.lanes[i]
		if m.isUp() {
			m.planSend(now, Lane(i), l)
		}
		if l.sent > l.acked && m.due(now, l.progressed.Add(m.lim.AckStall)) {
			m.recycle("no acknowledgement for " + m.lim.AckStall.String())
			return
		}
	}
}

func (m *Machine) planSend(now Instant, n Lane, l *lane) {
	to := min(l.last, l.acked+Seq(m.lim.Window))
	if to <= l.sent {
		return
	}
	if fits := l.fitting(uint64(m.lim.WindowBytes)); fits < to {
		to = fits
		if l.sent == l.acked {
			to = max(to, l.sent+1) // one message always goes, however large
		}
	}
	if to <= l.sent {
		return
	}
	if l.sent == l.acked {
		l.progressed = now
	}
	m.emit(Send{Epoch: m.cur.epoch, Lane: n, From: l.sent + 1, To: to})
	l.sent = to
	l.everSent = max(l.everSent, to)
}

// fitting returns the highest number such that what is unacknowledged up to it has at most limit bytes. Within one
// submitted batch all messages count alike.
func (l *lane) fitting(limit uint64) Seq {
	budget := l.bytesUpto(l.acked) + limit
	n := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].bytes > budget })
	if n == len(l.marks) {
		return l.last
	}
	if n == 0 {
		return l.acked
	}
	a, b := l.marks[n-1], l.marks[n]
	return a.seq + Seq(uint64(b.seq-a.seq)*(budget-a.bytes)/(b.bytes-a.bytes))
}

func (l *lane) bytesUpto(s Seq) uint64 {
	n := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].seq >= s })
	if n == len(l.marks) {
		return l.marks[n-1].bytes
	}
	if n == 0 || l.marks[n].seq == s {
		return l.marks[n].bytes
	}
	a, b := l.marks[n-1], l.marks[n]
	return a.bytes + (b.bytes-a.bytes)*uint64(s-a.seq)/uint64(b.seq-a.seq)
}

// hasInFlight reports whether a session should be waited for: something was sent on it whose answer is not back.
func (m *Machine) hasInFlight() bool {
	for i := range m.lanes {
		if m.lanes[i].sent > m.lanes[i].acked {
			return true
		}
	}
	for _, r := range m.requests {
		if r.asked {
			return true
		}
	}
	for _, c := range m.calls {
		if c.state == responding || c.state == owed {
			return true
		}
	}
	return false
}

// hasUnsent reports whether a lane holds anything that the hub has not acknowledged.
func (m *Machine) hasUnsent() bool {
	for i := range m.lanes {
		if m.lanes[i].last > m.lanes[i].acked {
			return true
		}
	}
	return false
}
