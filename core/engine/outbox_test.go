package engine

import (
	"testing"

	"github.com/fairlead-iot/fairlead/core"
)

// told records what a submitter was told.
type told struct{ from, to []uint64 }

func (s *told) Settled(from, to uint64, _ error) {
	s.from, s.to = append(s.from, from), append(s.to, to)
}

func messages(n, size int) []*core.Message {
	var out []*core.Message
	for range n {
		out = append(out, &core.Message{Payload: make([]byte, size)})
	}
	return out
}

func TestTheOutboxIsEmptyWhenAllIsTaken(t *testing.T) {
	o := newOutbox(100, 10_000, "x")
	by := &told{}
	submitted := func(core.Seq, int) {}
	for lane := range core.Lane(2) {
		for first := uint64(1); first < 20; first += 10 {
			if err := o.append(t.Context(), lane, by, first, messages(10, 7), submitted); err != nil {
				t.Fatal(err)
			}
		}
	}
	if count, bytes := o.load(); count != 40 || bytes != 280 {
		t.Errorf("%d messages, %d bytes wait, want 40 and 280", count, bytes)
	}
	for lane := range core.Lane(2) {
		runs, live := o.take(lane, 0, 20)
		if live != 20 || len(runs) != 1 || runs[0].from != 1 || runs[0].to != 20 {
			t.Errorf("lane %d: took %d messages in runs %+v", lane, live, runs)
		}
		o.forget(lane, 20)
	}
	if count, bytes := o.load(); count != 0 || bytes != 0 {
		t.Errorf("%d messages, %d bytes are left of nothing", count, bytes)
	}
}

func TestAWithdrawnMessageLeavesAnEmptyNumber(t *testing.T) {
	o := newOutbox(100, 10_000, "x")
	by := &told{}
	if err := o.append(t.Context(), 0, by, 1, messages(5, 1), func(core.Seq, int) {}); err != nil {
		t.Fatal(err)
	}
	seq := o.find(0, by, 3)
	if seq != 3 {
		t.Fatalf("found tag 3 at %d", seq)
	}
	o.take(0, seq, seq)
	batch := o.collect(0, 1, 5)
	var got []core.Seq
	for _, out := range batch {
		got = append(got, out.Seq)
	}
	if len(got) != 4 || got[2] != 4 {
		t.Errorf("to be sent: %v", got)
	}
	if o.find(0, by, 3) != 0 {
		t.Error("a withdrawn message is found again")
	}
}
