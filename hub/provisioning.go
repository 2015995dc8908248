package hub

import (
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/dps"
)

// IDScope returns the id scope of the hub's provisioning service, which devices
// have to name. It is made once and stays with Config.Dir.
func (h *Hub) IDScope() string { return h.dps.Scope() }

// CreateEnrollment lets one device register and returns the enrollment with its
// keys; those not given are made. Errors are *api.Error.
func (h *Hub) CreateEnrollment(e api.Enrollment) (api.Enrollment, error) {
	out, err := h.dps.Put(dps.Individual, dps.EntryOf(e), "")
	return out.Enrollment(), err
}

// UpdateEnrollment replaces an enrollment, whatever its entity tag. Keys that are
// not given stay.
func (h *Hub) UpdateEnrollment(e api.Enrollment) (api.Enrollment, error) {
	out, err := h.dps.Put(dps.Individual, dps.EntryOf(e), "*")
	return out.Enrollment(), err
}

// Enrollment returns an enrollment with its keys and, if the device has
// registered, its registration.
func (h *Hub) Enrollment(registrationID string) (api.Enrollment, error) {
	return h.dps.Enrollment(registrationID, true)
}

// DeleteEnrollment removes an enrollment and its registration. The device stays
// in the registry.
func (h *Hub) DeleteEnrollment(registrationID string) error {
	return h.dps.Delete(dps.Individual, registrationID, "")
}

// CreateEnrollmentGroup lets many devices register and returns the group with
// its keys; see DeriveDeviceKey. Errors are *api.Error.
func (h *Hub) CreateEnrollmentGroup(g api.EnrollmentGroup) (api.EnrollmentGroup, error) {
	out, err := h.dps.Put(dps.Group, dps.EntryOfGroup(g), "")
	return out.EnrollmentGroup(), err
}

// UpdateEnrollmentGroup replaces a group, whatever its entity tag. Keys that are
// not given stay.
func (h *Hub) UpdateEnrollmentGroup(g api.EnrollmentGroup) (api.EnrollmentGroup, error) {
	out, err := h.dps.Put(dps.Group, dps.EntryOfGroup(g), "*")
	return out.EnrollmentGroup(), err
}

// EnrollmentGroup returns a group with its keys.
func (h *Hub) EnrollmentGroup(id string) (api.EnrollmentGroup, error) {
	e, err := h.dps.Get(dps.Group, id, true)
	return e.EnrollmentGroup(), err
}

// DeleteEnrollmentGroup removes a group and the registrations that it let in. The
// devices stay in the registry.
func (h *Hub) DeleteEnrollmentGroup(id string) error { return h.dps.Delete(dps.Group, id, "") }

// Registration returns what became of a device's registration, with what the
// device sent as its payload.
func (h *Hub) Registration(registrationID string) (api.RegistrationState, error) {
	return h.dps.Registration(registrationID)
}

// DeleteRegistration forgets a registration: the device's next one is its first.
func (h *Hub) DeleteRegistration(registrationID string) error {
	return h.dps.DeleteRegistration(registrationID, "")
}

// DeriveDeviceKey makes the key of a device from its group's, both in base64:
// the HMAC-SHA256 of the registration id.
// https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation#group-enrollments
func DeriveDeviceKey(groupKey, registrationID string) (string, error) {
	return dps.DeriveKey(groupKey, registrationID)
}
