package dps

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// Kind tells single enrollments from groups.
type Kind int

// The kinds.
const (
	Individual Kind = iota
	Group
)

func (k Kind) prefix() string {
	if k == Group {
		return "enrollmentGroup/"
	}
	return "enrollment/"
}

func (k Kind) idName() string {
	if k == Group {
		return "enrollmentGroupId"
	}
	return "registrationId"
}

// Entry is an enrollment of either kind: what both have in common. Certificates
// in it are DER in base64.
type Entry struct {
	ID          string                 `json:"id"` // registration id or group id, as it was written
	DeviceID    string                 `json:"deviceId,omitempty"`
	Attestation api.Attestation        `json:"attestation"`
	Settings    api.EnrollmentSettings `json:"settings"`
}

// EntryOf takes what the caller may set of a single enrollment.
func EntryOf(e api.Enrollment) Entry {
	return Entry{e.RegistrationID, e.DeviceID, e.Attestation, e.EnrollmentSettings}
}

// EntryOfGroup takes what the caller may set of a group.
func EntryOfGroup(g api.EnrollmentGroup) Entry {
	return Entry{g.EnrollmentGroupID, "", g.Attestation, g.EnrollmentSettings}
}

// Enrollment is the entry as a single enrollment.
func (e Entry) Enrollment() api.Enrollment {
	return api.Enrollment{RegistrationID: e.ID, DeviceID: e.DeviceID, Attestation: e.Attestation, EnrollmentSettings: e.Settings}
}

// EnrollmentGroup is the entry as a group.
func (e Entry) EnrollmentGroup() api.EnrollmentGroup {
	return api.EnrollmentGroup{EnrollmentGroupID: e.ID, Attestation: e.Attestation, EnrollmentSettings: e.Settings}
}

// copy gives an entry that shares nothing with e, which was checked.
func (e *Entry) copy() (Entry, error) {
	var out Entry
	text, err := json.Marshal(e)
	if err == nil {
		err = unmarshalNumbers(text, &out)
	}
	return out, err
}

// view is the entry as the service shows it: certificates never, keys if told to.
func (e *Entry) view(keys bool) (Entry, error) {
	v, err := e.copy()
	if !keys {
		v.Attestation.SymmetricKey = nil
	}
	for _, c := range certificates(&v.Attestation) {
		c.Certificate = ""
	}
	return v, err
}

func (e *Entry) disabled() bool { return e.Settings.ProvisioningStatus == api.Disabled }

// Put creates an entry, or with a precondition updates one. It returns the entry
// with its keys. Errors are *api.Error, but for trouble with the disk.
func (s *Service) Put(kind Kind, e Entry, match iot.Match) (Entry, error) {
	if err := checkID(kind.idName(), e.ID); err != nil {
		return Entry{}, err
	}
	if err := s.checkSettings(&e.Settings); err != nil {
		return Entry{}, err
	}
	if err := iot.CheckDevice(api.Device{DeviceID: cmp.Or(e.DeviceID, e.ID)}); err != nil {
		return Entry{}, err
	}
	e, err := e.copy()
	if err != nil {
		return Entry{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fold(e.ID)
	old, exists := s.entries[kind][key]
	switch {
	case exists && match == "":
		return Entry{}, api.RefuseProvisioning(api.CodeEnrollmentExists, "%s %s exists already; an update needs If-Match", kind.idName(), e.ID)
	case !exists && match != "":
		return Entry{}, notFound(kind, e.ID)
	case exists && !match.Fits(old.Settings.ETag):
		return Entry{}, api.RefuseProvisioning(api.CodeEnrollmentETagInvalid, "The ETag does not match that of %s %s.", kind.idName(), e.ID)
	}
	now := utc(time.Now())
	e.Settings.CreatedDateTimeUTC, e.Settings.LastUpdatedDateTimeUTC, e.Settings.ETag = now, now, newETag()
	var kept *api.SymmetricKey
	var known []*api.X509Certificate
	if exists {
		e.ID = old.ID
		e.Settings.CreatedDateTimeUTC = old.Settings.CreatedDateTimeUTC
		kept, known = old.Attestation.SymmetricKey, certificates(&old.Attestation)
	}
	if err := checkAttestation(kind, &e.Attestation, known); err != nil {
		return Entry{}, err
	}
	if e.Attestation.Type == api.AttestationSymmetricKey {
		e.Attestation.SymmetricKey = fillKeys(e.Attestation.SymmetricKey, kept)
	}
	if err := s.put(kind.prefix()+key, e); err != nil {
		return Entry{}, err
	}
	s.entries[kind][key] = &e
	return e.view(true)
}

// fillKeys takes the keys that were given, else those that were there, else new
// ones.
func fillKeys(given, kept *api.SymmetricKey) *api.SymmetricKey {
	none := &api.SymmetricKey{}
	given, kept = cmp.Or(given, none), cmp.Or(kept, none)
	return &api.SymmetricKey{
		PrimaryKey:   cmp.Or(given.PrimaryKey, kept.PrimaryKey, newKey()),
		SecondaryKey: cmp.Or(given.SecondaryKey, kept.SecondaryKey, newKey()),
	}
}

// newKey makes a key of 64 bytes, as Azure's are.
func newKey() string {
	raw := make([]byte, 64)
	_, _ = rand.Read(raw) // never fails, by its contract
	return base64.StdEncoding.EncodeToString(raw)
}

func notFound(kind Kind, id string) error {
	what := "Enrollment"
	if kind == Group {
		what = "Enrollment group"
	}
	return api.RefuseProvisioning(api.CodeEnrollmentNotFound, "%s %s not found.", what, id)
}

// checkSettings checks, and fills in what was left out.
func (s *Service) checkSettings(e *api.EnrollmentSettings) error {
	bad := func(format string, args ...any) error {
		return api.RefuseProvisioning(api.CodeArgumentInvalid, format, args...)
	}
	e.ProvisioningStatus = cmp.Or(e.ProvisioningStatus, api.Enabled)
	if e.ProvisioningStatus != api.Enabled && e.ProvisioningStatus != api.Disabled {
		return bad("provisioningStatus must be enabled or disabled, not %q", e.ProvisioningStatus)
	}
	switch e.AllocationPolicy {
	case "", "hashed", "geoLatency", "static":
	default:
		return bad("allocationPolicy must be hashed, geoLatency or static, not %q: the embedded provisioning service calls no webhook", e.AllocationPolicy)
	}
	ours := func(host string) bool { return s.hub.AnswersTo(host) }
	if len(e.IoTHubs) > 0 && !slices.ContainsFunc(e.IoTHubs, ours) || e.IoTHubHostName != "" && !ours(e.IoTHubHostName) {
		return bad("iotHubs and iotHubHostName must name %s: no other hub is linked", s.hub.Hostname())
	}
	if e.ReprovisionPolicy == nil {
		e.ReprovisionPolicy = &api.ReprovisionPolicy{UpdateHubAssignment: true, MigrateDeviceData: true}
	}
	if e.Capabilities == nil {
		e.Capabilities = &api.Capabilities{}
	}
	if string(e.ReturnPayload) == "null" {
		e.ReturnPayload = nil
	}
	if e.ReturnPayload != nil && !json.Valid(e.ReturnPayload) {
		return bad("returnPayload is not JSON")
	}
	if e.InitialTwin == nil {
		return nil
	}
	twin, err := iot.CheckTwin(*e.InitialTwin)
	if err != nil {
		return err
	}
	e.InitialTwin = &twin
	return nil
}

// certificates lists those of an attestation.
func certificates(a *api.Attestation) []*api.X509Certificate {
	var all []*api.X509Certificate
	if x := a.X509; x != nil {
		for _, two := range []*api.X509Certificates{x.ClientCertificates, x.SigningCertificates} {
			if two != nil {
				all = append(all, two.Primary, two.Secondary)
			}
		}
	}
	return slices.DeleteFunc(all, func(c *api.X509Certificate) bool { return c == nil })
}

// checkAttestation checks, and gives certificates the form that they are kept
// in. known are those that the entry has had.
func checkAttestation(kind Kind, a *api.Attestation, known []*api.X509Certificate) error {
	bad := func(format string, args ...any) error {
		return api.RefuseProvisioning(api.CodeArgumentInvalid, "attestation: "+format, args...)
	}
	if a.Type == "" {
		a.Type = api.AttestationSymmetricKey
		if a.X509 != nil {
			a.Type = api.AttestationX509
		}
	}
	switch a.Type {
	case api.AttestationSymmetricKey:
		a.X509 = nil
		if a.SymmetricKey != nil {
			return iot.CheckDevice(api.Device{DeviceID: "any", Authentication: api.Authentication{SymmetricKey: *a.SymmetricKey}})
		}
		return nil
	case api.AttestationX509:
	default:
		return bad("type must be symmetricKey or x509, not %q: the embedded provisioning service has no TPM", a.Type)
	}
	a.SymmetricKey = nil
	x := a.X509
	switch {
	case x == nil:
		return bad("x509 is missing")
	case len(x.CAReferences) > 0 && string(x.CAReferences) != "null":
		return bad("x509.caReferences name certificates in Azure; give the certificate itself in x509.signingCertificates")
	case kind == Individual && (x.ClientCertificates == nil || x.SigningCertificates != nil):
		return bad("an individual enrollment needs x509.clientCertificates, and those alone")
	case kind == Group && (x.SigningCertificates == nil || x.ClientCertificates != nil):
		return bad("a group needs x509.signingCertificates, and those alone")
	}
	certs := x.ClientCertificates
	if kind == Group {
		certs = x.SigningCertificates
	}
	if certs.Primary == nil {
		return bad("the primary certificate is missing")
	}
	clean := &api.X509Certificates{}
	var err error
	if clean.Primary, err = cleanCertificate(kind, certs.Primary, known); err != nil {
		return bad("primary: %v", err)
	}
	if clean.Secondary, err = cleanCertificate(kind, certs.Secondary, known); err != nil {
		return bad("secondary: %v", err)
	}
	a.X509 = &api.X509Attestation{ClientCertificates: clean}
	if kind == Group {
		a.X509 = &api.X509Attestation{SigningCertificates: clean}
	}
	return nil
}

// Get returns an entry, without its keys unless told so.
func (s *Service) Get(kind Kind, id string, keys bool) (Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[kind][fold(id)]
	if !ok {
		return Entry{}, notFound(kind, id)
	}
	return e.view(keys)
}

// Enrollment returns a single enrollment with what became of it.
func (s *Service) Enrollment(id string, keys bool) (api.Enrollment, error) {
	e, err := s.Get(Individual, id, keys)
	if err != nil {
		return api.Enrollment{}, err
	}
	return s.WithState(e), nil
}

// WithState adds what became of a single enrollment.
func (s *Service) WithState(e Entry) api.Enrollment {
	out := e.Enrollment()
	if st, err := s.Registration(e.ID); err == nil && st.EnrollmentGroupID == "" {
		out.RegistrationState = &st
	}
	return out
}

// List returns every entry of a kind in the order of the ids, without keys.
func (s *Service) List(kind Kind) ([]Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Entry, 0, len(s.entries[kind]))
	for _, e := range s.sorted(kind) {
		shown, err := e.view(false)
		if err != nil {
			return nil, err
		}
		all = append(all, shown)
	}
	return all, nil
}

// sorted gives the entries in the order of their folded ids.
func (s *Service) sorted(kind Kind) []*Entry {
	all := make([]*Entry, 0, len(s.entries[kind]))
	for _, e := range s.entries[kind] {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *Entry) int { return strings.Compare(fold(a.ID), fold(b.ID)) })
	return all
}

// Delete removes an entry and the registrations that it let in. The devices stay
// in the hub.
func (s *Service) Delete(kind Kind, id string, match iot.Match) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fold(id)
	e, ok := s.entries[kind][key]
	if !ok {
		return notFound(kind, id)
	}
	if !match.Fits(e.Settings.ETag) {
		return api.RefuseProvisioning(api.CodeEnrollmentETagInvalid, "The ETag does not match that of %s %s.", kind.idName(), e.ID)
	}
	for reg, r := range s.registrations {
		if kind == Individual && reg == key && r.State.EnrollmentGroupID == "" || kind == Group && fold(r.State.EnrollmentGroupID) == key {
			if err := s.deleteRegistration(reg); err != nil {
				return err
			}
		}
	}
	if err := s.hub.Journal().Delete(kind.prefix() + key); err != nil {
		return err
	}
	delete(s.entries[kind], key)
	return nil
}
