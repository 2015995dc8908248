package mqtt

import (
	"slices"
	"sync"
)

// arrivals are the inbound QoS 1 packets that have not been acknowledged, in the order of arrival: the order in which
// MQTT wants their PUBACKs (MQTT-4.6.0-2), whoever completes them when.
type arrivals struct {
	mu    sync.Mutex
	last  uint64 // token
	queue []unacked
}

type unacked struct {
	token    uint64
	packetID uint16
	complete bool
}

// token returns a new token for something that needs no acknowledgement.
func (a *arrivals) token() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	return a.last
}

// add notes an arrival and sets its token. It reports false where there are too many.
func (a *arrivals) add(packetID uint16, complete bool, token *uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) >= maxArrivals {
		return false
	}
	a.last++
	*token = a.last
	a.queue = append(a.queue, unacked{a.last, packetID, complete})
	return true
}

// has reports whether the packet waits for its acknowledgement.
func (a *arrivals) has(packetID uint16) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.queue, func(u unacked) bool { return u.packetID == packetID })
}

// complete marks an arrival. Unknown tokens are ignored.
func (a *arrivals) complete(token uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.queue {
		if a.queue[i].token == token {
			a.queue[i].complete = true
			return
		}
	}
}

// ready reports whether take would return anything.
func (a *arrivals) ready() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.queue) > 0 && a.queue[0].complete
}

// take returns the packet ids that may be acknowledged now.
func (a *arrivals) take() []uint16 {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for n < len(a.queue) && a.queue[n].complete {
		n++
	}
	if n == 0 {
		return nil
	}
	ids := make([]uint16, n)
	for i, u := range a.queue[:n] {
		ids[i] = u.packetID
	}
	a.queue = append(a.queue[:0], a.queue[n:]...)
	return ids
}

// Complete implements core.Session.
func (s *session) Complete(token uint64) {
	s.unacked.complete(token)
	s.release()
}

// release has the publisher acknowledge what may be. The PUBACKs go past paho, straight to the guard: paho would pass
// them through three goroutines, in which a DISCONNECT could overtake them, and could block here.
func (s *session) release() {
	if !s.unacked.ready() {
		return
	}
	s.first(func() {
		for _, id := range s.unacked.take() {
			_, _ = s.g.Write([]byte{packetPuback << 4, 2, byte(id >> 8), byte(id)})
		}
	})
}
