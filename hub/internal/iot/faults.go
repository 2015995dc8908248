package iot

import (
	"fmt"
	"math"
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
	s.faulty.Store(true) // before anybody is cut: who comes back at once must meet the fault
	if struck, once, err := s.strikeNow(f); once || err != nil {
		s.faulty.Store(len(s.faults) > 0)
		f.Struck = struck
		return f, err
	}
	added := &fault{Fault: f}
	if f.Duration > 0 {
		added.timer = time.AfterFunc(time.Duration(f.Duration), func() { _ = s.RemoveFault(f.ID) }) // gone already is fine
	}
	s.faults = append(s.faults, added)
	return f, nil
}

// strikeNow does what of a fault happens at its beginning, and counts whom it
// hit. once says that this was all of it.
func (s *Service) strikeNow(f api.Fault) (struck int, once bool, err error) {
	var act func(ident *identity) (bool, error)
	switch f.Name {
	case api.FaultCut:
		act = func(ident *identity) (bool, error) { return s.cut(ident, f), nil }
	case api.FaultExpireTokens:
		act = func(ident *identity) (bool, error) { return s.expireToken(ident), nil }
	case api.FaultJumpVersion:
		act = func(ident *identity) (bool, error) { return true, s.jumpVersion(ident, int64(f.Code)) }
	default:
		return 0, false, nil
	}
	if f.Name == api.FaultJumpVersion && f.Device != "" {
		if _, err := s.find(api.ParseID(f.Device)); err != nil {
			return 0, true, err // nothing else would say so: it never comes
		}
	}
	for id, ident := range s.identities {
		if !matches(f.Device, id) {
			continue
		}
		hit, err := act(ident)
		if err != nil {
			return struck, true, err
		}
		if hit {
			struck++
			s.saw(id, api.SawFault, f.Name)
		}
	}
	return struck, f.Count == 0 && f.Duration == 0, nil
}

func (s *Service) cut(ident *identity, f api.Fault) bool {
	se := ident.live
	if se == nil {
		return false
	}
	if f.Mode == "black-hole" {
		se.link.Silence(time.Duration(f.Duration))
	} else {
		se.link.Drop("fault: cut")
	}
	s.detach(se)
	return true
}

// expireToken ends the token of a live session, if it began with one.
func (s *Service) expireToken(ident *identity) bool {
	se := ident.live
	if se == nil || se.cred.token == "" {
		return false
	}
	ident.expired = append(ident.expired, se.cred.token)
	if over := len(ident.expired) - maxExpired; over > 0 {
		ident.expired = slices.Delete(ident.expired, 0, over)
	}
	se.link.Drop("fault: the token expired")
	s.detach(se)
	return true
}

// jumpVersion moves the version of the desired properties, to 1 at least.
func (s *Service) jumpVersion(ident *identity, by int64) error {
	next := ident.twin
	next.Desired.Version = max(next.Desired.Version+by, 1)
	next.ETag = s.newETag()
	return s.setTwin(ident, next)
}

// codes are the codes that a fault takes.
type codes struct{ usual, least, most int }

// codedFaults are those that take a code, which stands for what it is in the
// protocol: a refusal, and no success. Return codes of MQTT 3.1.1 end with 5.
// https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html#_Toc398718035
var codedFaults = map[string]codes{
	api.FaultConnack:            {3, 1, 5},
	api.FaultTwinStatus:         {429, 400, 599},
	api.FaultHTTPStatus:         {503, 400, 599},
	api.FaultStorageStatus:      {503, 400, 599},
	api.FaultProvisioningStatus: {429, 400, 599},
	api.FaultJumpVersion:        {100, math.MinInt32, math.MaxInt32},
}

// delayedFaults are those that take a delay.
func delayedFaults() []string {
	return []string{api.FaultDelayPuback, api.FaultSlowReads, api.FaultProvisioningStatus, api.FaultStorageDelay, api.FaultShortSAS}
}

func checkFault(f *api.Fault) error {
	bad := func(format string, args ...any) error {
		return api.Refuse(api.CodeArgumentInvalid, "fault %s: %s", f.Name, fmt.Sprintf(format, args...))
	}
	if f.Count < 0 || f.Duration < 0 || f.Delay < 0 {
		return bad("count, duration and delay must not be negative")
	}
	c, isCoded := codedFaults[f.Name]
	switch {
	case f.Code == 0:
		f.Code = c.usual
	case !isCoded:
		return bad("it takes no code")
	case f.Code < c.least || f.Code > c.most:
		return bad("code must be %d to %d, not %d", c.least, c.most, f.Code)
	}
	if f.Delay != 0 && !slices.Contains(delayedFaults(), f.Name) {
		return bad("it takes no delay")
	}
	if f.Mode != "" && f.Name != api.FaultCut {
		return bad("it takes no mode")
	}
	switch f.Name {
	case api.FaultCut:
		if f.Mode == "" {
			f.Mode = "close"
		}
		if f.Mode != "close" && f.Mode != "black-hole" {
			return bad("mode must be close or black-hole, not %q", f.Mode)
		}
	case api.FaultJumpVersion:
		if f.Count != 0 || f.Duration != 0 {
			return bad("it happens at once, and has neither count nor duration")
		}
	case api.FaultDelayPuback, api.FaultSlowReads, api.FaultStorageDelay, api.FaultShortSAS:
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
	device, _, _ := strings.Cut(blob, "/")
	return s.strikeWhere(name, api.ID{Device: device}, func(target string) bool { return target == "" || strings.HasPrefix(blob, target+"/") })
}

func (s *Service) strike(name string, id api.ID) (api.Fault, bool) {
	return s.strikeWhere(name, id, func(target string) bool { return matches(target, id) })
}

// strikeWhere is strike for faults whose target fits; id is whom the observers are
// told of.
func (s *Service) strikeWhere(name string, id api.ID, hits func(target string) bool) (api.Fault, bool) {
	for i, f := range s.faults {
		if f.Name != name || !hits(f.Device) {
			continue
		}
		if !f.Expires.IsZero() && !time.Now().Before(f.Expires) {
			continue // over: its timer has yet to take it away
		}
		f.Struck++
		s.saw(id, api.SawFault, name)
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
