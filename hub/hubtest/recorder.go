package hubtest

import (
	"slices"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// Recorder keeps what the hub sees of devices, in order. It may be used by
// several goroutines.
type Recorder struct {
	h    *Hub
	stop func()

	mu      sync.Mutex
	all     []api.Sighting
	dropped int           // how many Reset has forgotten
	changed chan struct{} // closed and replaced when all grows
}

// Record records from now on, until the test ends.
func (h *Hub) Record() *Recorder {
	h.t.Helper()
	r := &Recorder{h: h, changed: make(chan struct{})}
	r.stop = h.Observe(func(s api.Sighting) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all = append(r.all, s)
		close(r.changed)
		r.changed = make(chan struct{})
	})
	h.t.Cleanup(r.stop)
	return r
}

// All is everything so far.
func (r *Recorder) All() []api.Sighting {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// Lines is what was seen of one identity so far, as text without times: for a
// comparison with what should have been.
func (r *Recorder) Lines(id string) []string {
	var lines []string
	for _, s := range r.All() {
		if s.ID == id {
			lines = append(lines, s.String())
		}
	}
	return lines
}

// Reset forgets what was seen so far.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped += len(r.all)
	r.all = nil
}

// Wait returns the first sighting of the identity, of all that are recorded, that
// is of the kind what: api.SawConnected and its kin. The test fails if there is
// none within 30 seconds.
func (r *Recorder) Wait(id, what string) api.Sighting {
	r.h.t.Helper()
	return r.WaitFor(func(s api.Sighting) bool { return s.ID == id && s.What == what })
}

// WaitFor is Wait for any condition.
func (r *Recorder) WaitFor(ok func(api.Sighting) bool) api.Sighting {
	r.h.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	looked := 0 // counting from the first that was ever recorded
	for {
		r.mu.Lock()
		fresh, changed := r.all[max(looked-r.dropped, 0):], r.changed
		looked = r.dropped + len(r.all)
		r.mu.Unlock()
		if i := slices.IndexFunc(fresh, ok); i >= 0 {
			return fresh[i]
		}
		select {
		case <-changed:
		case <-late.C:
			r.h.t.Fatalf("the hub did not see what was waited for within %v; it saw %v", patience, r.All())
		}
	}
}
