package iot

import (
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// observer is somebody who wants to know what the hub sees.
type observer struct{ see func(api.Sighting) }

// Observe has see called for everything that the hub sees of devices from now on,
// in order, until the returned function is called. see runs under the hub's
// lock: it must return at once, and call nothing of the hub.
func (s *Service) Observe(see func(api.Sighting)) (stop func()) {
	o := &observer{see}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observers = append(s.observers, o)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.observers = slices.DeleteFunc(s.observers, func(other *observer) bool { return other == o })
	}
}

// saw tells the observers; the lock is held. The details are made only if there
// is one.
func (s *Service) saw(id api.ID, what string, detail ...any) {
	if len(s.observers) == 0 {
		return
	}
	sighting := api.Sighting{Time: time.Now().UTC(), ID: id.String(), What: what}
	for i, part := range detail {
		if i > 0 {
			sighting.Detail += " "
		}
		if text, ok := part.([]byte); ok {
			part = string(text)
		}
		sighting.Detail += fmt.Sprint(part)
	}
	for _, o := range s.observers {
		o.see(sighting)
	}
}
