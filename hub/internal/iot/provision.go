package iot

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/journal"
)

// Rights on the provisioning service's enrollments and registrations, of the
// policies that manage them.
// https://learn.microsoft.com/azure/iot-dps/how-to-control-access#device-provisioning-service-permissions
const (
	EnrollmentRead Right = 1 << (iota + 8)
	EnrollmentWrite
)

// Journal is where the hub keeps what must survive it; a service beside the hub
// keeps its own there, under keys of its own.
func (s *Service) Journal() *journal.Journal { return s.journal }

// Fits reports whether an entity tag, in quotes or not, meets the precondition.
func (m Match) Fits(etag string) bool { return m.fits(strings.Trim(etag, `"`)) }

// CheckDevice refuses, with an *api.Error, an identity that the registry would
// not take: its id, its keys.
func CheckDevice(d api.Device) error {
	if err := checkID(d.ID()); err != nil {
		return err
	}
	return checkKeys(d.Authentication.SymmetricKey)
}

// CheckTwin refuses, with an *api.Error, what could not stand in a new device's
// twin. It gives the patch back as twins want it: with numbers as they are
// written.
func CheckTwin(p api.TwinPatch) (api.TwinPatch, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return api.TwinPatch{}, api.Refuse(api.CodeArgumentInvalid, "the twin is no JSON: %v", err)
	}
	if p, err = decodeTwinPatch(text, true); err != nil {
		return api.TwinPatch{}, err
	}
	if err := checkTree("tags", p.Tags); err != nil {
		return api.TwinPatch{}, err
	}
	if err := checkGrowth("tags", nil, p.Tags, maxTags); err != nil {
		return api.TwinPatch{}, err
	}
	if p.Properties == nil {
		return p, nil
	}
	if err := checkTree("properties.desired", p.Properties.Desired); err != nil {
		return api.TwinPatch{}, err
	}
	return p, checkGrowth("properties.desired", nil, p.Properties.Desired, maxProperties)
}

// Provisioning is what the provisioning service wants of the hub for a device.
type Provisioning struct {
	// Device holds id, authentication and capabilities.
	Device api.Device
	// Twin is what the twin begins with.
	Twin api.TwinPatch
	// Begin gives Twin to a device that is there already, too: the first
	// registration, of which no part may be missing.
	Begin bool
	// Reset removes a device that is there, with all that the hub has of it.
	Reset bool
}

// Provision makes the device, or brings its authentication up to date. Of a
// device that is there its twin, its status and its queue stay, unless told
// otherwise.
func (s *Service) Provision(p Provisioning) error {
	id := p.Device.ID()
	old, err := s.Device(id)
	exists := err == nil
	if exists && p.Reset {
		if err := s.DeleteDevice(id, "*"); err != nil {
			return err
		}
		exists = false
	}
	next, match := p.Device, Match("")
	if exists {
		match = "*"
		next = old
		next.Authentication, next.Capabilities = p.Device.Authentication, p.Device.Capabilities
	}
	if _, err := s.PutDevice(next, match); err != nil {
		return err
	}
	if exists && !p.Begin || p.Twin.Tags == nil && p.Twin.Properties == nil {
		return nil
	}
	_, err = s.ReplaceTwin(id, p.Twin, "*")
	return err
}

// Expired reports whether a token that ends then is over, the hub's grace
// included.
func (s *Service) Expired(end, now time.Time) bool { return !now.Before(end.Add(s.cfg.Grace)) }
