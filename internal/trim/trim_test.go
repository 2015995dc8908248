package trim

import "testing"

func TestMemoryIsGivenBackOnceAfterABurst(t *testing.T) {
	const mib = 1 << 20
	var w watcher
	for i, step := range []struct {
		allocates uint64
		want      bool
		why       string
	}{
		{1000, false, "a process at rest has nothing to give back"},
		{100 * mib, false, "it is busy"},
		{100 * mib, false, "it is still busy"},
		{1000, true, "the burst is over"},
		{1000, false, "it was given back"},
		{1 * mib, false, "it works a little"},
		{1000, false, "a little is not worth it"},
		{4 * mib, false, "it is busy"},
		{0, true, "that adds up"},
	} {
		total := w.last + step.allocates
		got := w.isDue(total)
		if got != step.want {
			t.Errorf("step %d: %v, want %v: %s", i, got, step.want, step.why)
		}
		if got {
			w.done(total)
		}
	}
}

func TestAllocatedCounts(t *testing.T) {
	before := allocated()
	kept := make([][]byte, 100)
	for i := range kept {
		kept[i] = make([]byte, 64<<10)
	}
	if n := allocated() - before; n < 100*64<<10 {
		t.Errorf("%d bytes of 6.4 MB were counted", n)
	}
}
