package iot

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

type fault struct {
	api.Fault
	timer *time.Timer // ends it; nil without a duration
}

func (f *fault) stop() {
	if f.timer != nil {
		f.timer.Stop()
	}
}

// AddFault begins a fault and returns it with its id. An unknown name or a bad
// value is an *api.Error that names what is known.
func (s *Service) AddFault(f api.Fault) (api.Fault, error) {
	if !slices.Contains(api.FaultNames(), f.Name) {
		return api.Fault{}, api.Refuse(api.CodeArgumentInvalid, "no fault %q; there are %s", f.Name, strings.Join(api.FaultNames(), ", "))
	}
	if err := checkFault(&f); err != nil {
		return api.Fault{}, err
	}
	if s.storage != nil && !s.storage.IsOwn() && (f.Name == api.FaultStorageStatus || f.Name == api.FaultStorageDelay) {
		return api.Fault{}, api.Refuse(api.CodeArgumentInvalid, "fault %s: uploads go to another storage account, where this hub can break nothing", f.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return api.Fault{}, api.Refuse(api.CodeServerError, "the hub stops")
	}
	s.nextFault++
	f.ID, f.Struck, f.Expires = strconv.Itoa(s.nextFault), 0, time.Time{}
	if f.Duration > 0 {
		f.Expires = time.Now().UTC().Add(time.Duration(f.Duration))
	}
	if f.Name == api.FaultCut {
		cut := 0
		for id, ident := range s.identities {
			if se := ident.live; se != nil && matches(f.Device, id) {
				if f.Mode == "black-hole" {
					se.link.Silence(time.Duration(f.Duration))
				} else {
					se.link.Drop("fault: cut")
				}
				s.detach(se)
				cut++
			}
		}
		if f.Count == 0 && f.Duration == 0 { // a single cut
			f.Struck = cut
			return f, nil
		}
	}
	added := &fault{Fault: f}
	if f.Duration > 0 {
		added.timer = time.AfterFunc(time.Duration(f.Duration), func() { _ = s.RemoveFault(f.ID) }) // gone already is fine
	}
	s.faults = append(s.faults, added)
	s.faulty.Store(true)
	return f, nil
}

func checkFault(f *api.Fault) error {
	bad := func(format string, args ...any) error {
		return api.Refuse(api.CodeArgumentInvalid, "fault %s: %s", f.Name, fmt.Sprintf(format, args...))
	}
	if f.Count < 0 || f.Duration < 0 || f.Delay < 0 {
		return bad("count, duration and delay must not be negative")
	}
	switch f.Name {
	case api.FaultCut:
		if f.Mode == "" {
			f.Mode = "close"
		}
		if f.Mode != "close" && f.Mode != "black-hole" {
			return bad("mode must be close or black-hole, not %q", f.Mode)
		}
	case api.FaultConnack:
		if f.Code == 0 {
			f.Code = 3
		}
		if f.Code < 1 || f.Code > 255 {
			return bad("code must be 1 to 255, not %d", f.Code)
		}
	case api.FaultTwinStatus:
		if f.Code == 0 {
			f.Code = 429
		}
		if f.Code < 100 || f.Code > 599 {
			return bad("code must be 100 to 599, not %d", f.Code)
		}
	case api.FaultStorageStatus:
		if f.Code == 0 {
			f.Code = 503
		}
		if f.Code < 400 || f.Code > 599 {
			return bad("code must be 400 to 599, not %d", f.Code)
		}
	case api.FaultDelayPuback, api.FaultStorageDelay, api.FaultShortSAS:
		if f.Delay == 0 {
			return bad("delay is missing")
		}
	}
	return nil
}

func matches(target string, id api.ID) bool { return target == "" || target == id.String() }

// Faults lists what is active.
func (s *Service) Faults() []api.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]api.Fault, 0, len(s.faults))
	for _, f := range s.faults {
		all = append(all, f.Fault)
	}
	return all
}

// RemoveFault ends a fault; id "all" ends every one.
func (s *Service) RemoveFault(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.faults)
	s.faults = slices.DeleteFunc(s.faults, func(f *fault) bool {
		if id != "all" && f.ID != id {
			return false
		}
		f.stop()
		return true
	})
	s.faulty.Store(len(s.faults) > 0)
	if len(s.faults) == before && id != "all" {
		return api.Refuse(api.CodeDeviceNotFound, "no fault %s is active", id)
	}
	return nil
}

// Strike reports whether a fault hits the identity now, and counts it.
func (s *Service) Strike(name string, id api.ID) (api.Fault, bool) {
	if !s.faulty.Load() {
		return api.Fault{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strike(name, id)
}

// StrikeAll is Strike for a connection whose identity is not known yet: only a
// fault for all devices hits it.
func (s *Service) StrikeAll(name string) (api.Fault, bool) {
	return s.Strike(name, api.ID{})
}

// StrikeBlob is Strike for a request to the blob endpoint, which knows no
// identity: a fault of a device hits what lies below its name.
func (s *Service) StrikeBlob(name, blob string) (api.Fault, bool) {
	if !s.faulty.Load() {
		return api.Fault{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strikeWhere(name, func(target string) bool { return target == "" || strings.HasPrefix(blob, target+"/") })
}

func (s *Service) strike(name string, id api.ID) (api.Fault, bool) {
	return s.strikeWhere(name, func(target string) bool { return matches(target, id) })
}

func (s *Service) strikeWhere(name string, hits func(target string) bool) (api.Fault, bool) {
	for i, f := range s.faults {
		if f.Name != name || !hits(f.Device) {
			continue
		}
		if !f.Expires.IsZero() && !time.Now().Before(f.Expires) {
			continue // over: its timer has yet to take it away
		}
		f.Struck++
		hit := f.Fault
		if f.Count > 0 && f.Struck >= f.Count {
			f.stop()
			s.faults = slices.Delete(s.faults, i, i+1)
			s.faulty.Store(len(s.faults) > 0)
		}
		return hit, true
	}
	return api.Fault{}, false
}
