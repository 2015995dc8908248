package iot

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// Match is the precondition of a change: an If-Match header. The zero value
// means none.
type Match string

// fits reports whether an entity tag meets the precondition.
func (m Match) fits(etag string) bool {
	text := strings.Trim(strings.TrimPrefix(string(m), "W/"), `"`)
	return text == "" || text == "*" || text == etag
}

// PutDevice creates or updates an identity. Without a precondition it creates
// only; with one ("*" or an entity tag) it updates only. Empty keys mean: make
// them, or leave them as they are.
func (s *Service) PutDevice(d api.Device, match Match) (api.Device, error) {
	id := d.ID()
	if err := checkID(id); err != nil {
		return api.Device{}, err
	}
	if err := checkKeys(d.Authentication.SymmetricKey); err != nil {
		return api.Device{}, err
	}
	if err := checkThumbprints(d.Authentication.X509Thumbprint); err != nil {
		return api.Device{}, err
	}
	switch d.Status {
	case "", api.Enabled, api.Disabled:
	default:
		return api.Device{}, api.Refuse(api.CodeArgumentInvalid, "status must be enabled or disabled, not %q", d.Status)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UTC()
	ident, exists := s.identities[id]
	switch {
	case exists && match == "":
		if id.Module != "" {
			return api.Device{}, api.Refuse(api.CodeModuleExists, "A module with ID '%s' on device '%s' is already registered.", id.Module, id.Device)
		}
		return api.Device{}, api.Refuse(api.CodeDeviceExists, "A device with ID '%s' is already registered.", id.Device)
	case !exists && match != "":
		return api.Device{}, notFound(id)
	case exists && !match.fits(ident.device.ETag):
		return api.Device{}, api.Refuse(api.CodePreconditionFailed, "PreconditionFailed, ETag may be invalid.")
	}
	if !exists {
		if id.Module != "" {
			if _, err := s.find(api.ID{Device: id.Device}); err != nil {
				return api.Device{}, err
			}
		}
		ident = newIdentity(id)
		ident.device = api.Device{
			DeviceID: id.Device, ModuleID: id.Module, GenerationID: fmt.Sprint(now.UnixNano() / 100),
			ConnectionState: api.Disconnected, Status: api.Enabled,
		}
		ident.twin.ETag = s.newETag()
	}
	old := ident.device
	auth, err := mergeAuthentication(old.Authentication, d.Authentication)
	if err != nil {
		return api.Device{}, err
	}
	merged := &ident.device
	merged.Capabilities, merged.ManagedBy = d.Capabilities, d.ManagedBy
	merged.StatusReason, merged.DeviceScope, merged.ParentScopes = d.StatusReason, d.DeviceScope, d.ParentScopes
	if d.Status != "" && d.Status != merged.Status {
		merged.Status, merged.StatusUpdatedTime = d.Status, now
	}
	merged.Authentication = auth
	merged.ETag = s.newETag()
	if err := s.putIdentity(ident); err != nil {
		ident.device = old
		return api.Device{}, err
	}
	if !exists {
		if err := s.putTwin(ident); err != nil {
			return api.Device{}, err
		}
		s.identities[id] = ident
		s.emitLifecycle(ident, "create")
	}
	if s.disabled(ident) {
		s.dropAll(id, "the device is disabled")
	}
	return s.view(ident), nil
}

// dropAll drops the sessions of an identity and, for a device, of its modules.
func (s *Service) dropAll(id api.ID, reason string) {
	for other, ident := range s.identities {
		if ident.live != nil && (other == id || id.Module == "" && other.Device == id.Device) {
			ident.live.link.Drop(reason)
		}
	}
}

// DeleteDevice removes an identity, with a device its modules.
func (s *Service) DeleteDevice(id api.ID, match Match) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(id)
	if err != nil {
		return err
	}
	if !match.fits(ident.device.ETag) {
		return api.Refuse(api.CodePreconditionFailed, "PreconditionFailed, ETag may be invalid.")
	}
	s.dropAll(id, "the identity was deleted")
	for other, ident := range s.identities {
		if other != id && (id.Module != "" || other.Device != id.Device) {
			continue
		}
		for _, m := range ident.queue {
			if err := s.journal.Delete(c2dKey(other, m.Number)); err != nil {
				return err
			}
		}
		if err := s.forgetUploads(ident); err != nil {
			return err
		}
		for _, prefix := range []string{"session/", "twin/", "identity/"} {
			if err := s.journal.Delete(prefix + other.String()); err != nil {
				return err
			}
		}
		s.emitLifecycle(ident, "delete")
		if ident.sweepTimer != nil {
			ident.sweepTimer.Stop()
		}
		ident.live, ident.queue = nil, nil
		ident.signal()
		delete(s.identities, other)
	}
	return nil
}

// Device returns an identity.
func (s *Service) Device(id api.ID) (api.Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(id)
	if err != nil {
		return api.Device{}, err
	}
	return s.view(ident), nil
}

// Devices lists the devices in the order of their ids, at most top of them.
func (s *Service) Devices(top int) []api.Device {
	return s.list(top, func(id api.ID) bool { return id.Module == "" })
}

// Modules lists the modules of a device.
func (s *Service) Modules(device string) ([]api.Device, error) {
	if _, err := s.Device(api.ID{Device: device}); err != nil {
		return nil, err
	}
	return s.list(0, func(id api.ID) bool { return id.Device == device && id.Module != "" }), nil
}

func (s *Service) list(top int, choose func(api.ID) bool) []api.Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []api.Device{}
	for _, id := range s.sortedIDs() {
		if top > 0 && len(all) == top {
			break
		}
		if choose(id) {
			all = append(all, s.view(s.identities[id]))
		}
	}
	return all
}

func (s *Service) sortedIDs() []api.ID {
	ids := make([]api.ID, 0, len(s.identities))
	for id := range s.identities {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b api.ID) int {
		return cmp.Or(strings.Compare(a.Device, b.Device), strings.Compare(a.Module, b.Module))
	})
	return ids
}

// view is the identity as the service sees it now.
func (s *Service) view(ident *identity) api.Device {
	d := ident.device
	d.CloudToDeviceMessageCount = len(ident.queue)
	d.ParentScopes = slices.Clone(d.ParentScopes)
	return d
}

// Statistics counts the devices; modules do not count.
func (s *Service) Statistics() api.Statistics {
	s.mu.Lock()
	defer s.mu.Unlock()
	var st api.Statistics
	for id, ident := range s.identities {
		if id.Module != "" {
			continue
		}
		st.TotalDeviceCount++
		if ident.device.Status == api.Disabled {
			st.DisabledDeviceCount++
		} else {
			st.EnabledDeviceCount++
		}
		if ident.live != nil {
			st.ConnectedDeviceCount++
		}
	}
	return st
}

// checkID holds the rule of
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-identity-registry:
// "A case-sensitive string (up to 128 characters long) of ASCII 7-bit
// alphanumeric characters plus certain special characters: - . % _ * ? ! ( ) , :
// = @ $ '".
func checkID(id api.ID) error {
	bad := func(part string) bool {
		return len(part) > maxIDLength || strings.ContainsFunc(part, func(r rune) bool {
			alphanumeric := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
			return !alphanumeric && !strings.ContainsRune("-.%_*?!(),:=@$'", r)
		})
	}
	if id.Device == "" || bad(id.Device) || bad(id.Module) {
		return api.Refuse(api.CodeArgumentInvalid, "the id %q is empty, longer than 128 characters, or has a character other than letters, digits and -.%%_*?!(),:=@$'", id)
	}
	return nil
}

func checkKeys(keys api.SymmetricKey) error {
	for _, key := range []string{keys.PrimaryKey, keys.SecondaryKey} {
		raw, err := base64.StdEncoding.DecodeString(key)
		if err != nil || key != "" && (len(raw) < 16 || len(raw) > 64) {
			return api.Refuse(api.CodeArgumentInvalid, "a symmetric key must be 16 to 64 bytes in base64")
		}
	}
	return nil
}
