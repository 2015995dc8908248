package mqtt

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fairlead-iot/fairlead/core"
)

// A hub acknowledges in any order, withholds what it likes, says things twice, and makes up ids. Each lane reports what has
// no gap, in order and once; and no id is given out while it is in use.
func TestALaneReportsWhatHasNoGap(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		f := newFlight()
		f.last = uint16(rng.IntN(ownCount)) // the ids begin again somewhere
		type message struct {
			lane  core.Lane
			seq   core.Seq
			id    uint16
			acked bool
		}
		var sent []*message // not reported
		open := map[uint16]*message{}
		reported, last := map[core.Lane]core.Seq{}, map[core.Lane]core.Seq{}
		// want is what the first messages of a lane without a gap come to.
		want := func(l core.Lane) core.Seq {
			upto := reported[l]
			for _, m := range sent {
				if m.lane == l {
					if !m.acked {
						break
					}
					upto = m.seq
				}
			}
			return upto
		}
		acknowledge := func(ids []uint16) {
			for _, id := range ids {
				if m := open[id]; m != nil {
					m.acked = true
					delete(open, id)
				}
			}
			seen := map[core.Lane]bool{}
			for _, r := range f.acknowledge(ids) {
				if seen[r.lane] || r.upto <= reported[r.lane] || r.upto != want(r.lane) {
					t.Fatalf("seed %d: lane %d reports %d after %d, want %d", seed, r.lane, r.upto, reported[r.lane], want(r.lane))
				}
				seen[r.lane] = true
				reported[r.lane] = r.upto
			}
			for l := range last {
				if w := want(l); w != reported[l] {
					t.Fatalf("seed %d: lane %d has reported %d, want %d", seed, l, reported[l], w)
				}
			}
			sent = slices.DeleteFunc(sent, func(m *message) bool { return m.seq <= reported[m.lane] })
			if f.count != len(sent) {
				t.Fatalf("seed %d: %d are counted, want %d", seed, f.count, len(sent))
			}
		}
		for range 300 {
			for range rng.IntN(20) {
				l := core.Lane(1 + rng.IntN(3))
				last[l] += core.Seq(1 + rng.IntN(2))
				isSent := rng.IntN(20) > 0
				m := &message{lane: l, seq: last[l], acked: !isSent}
				if m.id = f.message(l, m.seq, isSent); isSent {
					if m.id < ownIDs || open[m.id] != nil {
						t.Fatalf("seed %d: id %#x is given out again, or is paho's", seed, m.id)
					}
					open[m.id] = m
				}
				sent = append(sent, m)
			}
			var ids []uint16
			for id := range open {
				if rng.IntN(3) == 0 {
					ids = append(ids, id, id)
				}
			}
			ids = append(ids, 0, 1, ownIDs-1, uint16(rng.IntN(1<<16)))
			rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			acknowledge(ids)
		}
		var rest []uint16
		for id := range open {
			rest = append(rest, id)
		}
		acknowledge(rest)
		if len(sent) != 0 || f.count != 0 || f.open != [ownCount / 64]uint64{} {
			t.Fatalf("seed %d: %d messages are left, %d are counted", seed, len(sent), f.count)
		}
	}
}

// An id that was acknowledged behind a gap may be in use again by the time that the gap closes. That delays the report of
// what is not open any more, and changes nothing else.
func TestAGapOutlivesTheIDsBehindIt(t *testing.T) {
	f := newFlight()
	first, second := f.message(1, 1, true), f.message(1, 2, true)
	f.acknowledge([]uint16{second})
	for n := range core.Seq(3 * ownCount) { // round and round
		id := f.message(2, n+1, true)
		if id == first {
			t.Fatalf("the id of a message in flight is given out again")
		}
		if r := f.acknowledge([]uint16{id}); len(r) != 1 || r[0] != (ackReport{2, n + 1}) {
			t.Fatalf("message %d of the other lane: %v", n+1, r)
		}
	}
	if r := f.acknowledge([]uint16{first}); len(r) != 1 || r[0] != (ackReport{1, 2}) {
		t.Errorf("the gap closed: %v", r)
	}
}

// What a lane holds on to is bounded by what it has in flight, not by what it has sent.
func TestALanesMemoryIsBounded(t *testing.T) {
	f := newFlight()
	var window []uint16
	for n := range core.Seq(100_000) {
		window = append(window, f.message(1, n+1, true))
		if len(window) > 100 { // it is never empty
			f.acknowledge(window[:1])
			window = window[1:]
		}
	}
	if n := cap(f.lanes[0].waiting); n > 1000 {
		t.Errorf("room for %d messages is held for 100 in flight", n)
	}
}
