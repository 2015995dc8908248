package dps

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// Answer is what a device is told.
type Answer struct {
	// Status is that of HTTP, in MQTT too.
	Status int
	// RetryAfter is when to ask again, 0 for no word of it; in whole seconds.
	RetryAfter time.Duration
	// Operation is the id of the operation that the answer is about, if any.
	Operation string
	// Body is JSON.
	Body []byte
}

// Register lets a device in and assigns it to the hub. body is its request,
// {"registrationId":…,"payload":…}, both members optional. force makes it anew
// what an enrollment that never re-provisions would leave.
func (s *Service) Register(c Credential, body []byte, force bool, now time.Time) Answer {
	return s.answer("register", c, func() (Answer, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		a, err := s.attest(c, now)
		if err != nil {
			return Answer{}, err
		}
		request, err := decodeRequest(body, c.RegistrationID)
		if err != nil {
			return Answer{}, err
		}
		id, err := s.register(a, c.RegistrationID, request, force, now)
		if err != nil {
			return Answer{}, err
		}
		return s.assigning(api.OperationStatus{OperationID: id, Status: api.RegistrationAssigning})
	})
}

// Status tells how an operation that Register began stands.
func (s *Service) Status(c Credential, operationID string, now time.Time) Answer {
	return s.answer("operation status", c, func() (Answer, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		a, err := s.attest(c, now)
		if err != nil {
			return Answer{}, err
		}
		r, ok := s.registrations[fold(c.RegistrationID)]
		if !ok || !slices.Contains(r.Operations, operationID) {
			return Answer{}, api.RefuseProvisioning(api.CodeRegistrationNotFound, "Operation %.100q not found.", operationID)
		}
		state := r.forDevice(a)
		if state.Status != api.RegistrationDisabled && (s.slow(c) || state.Status == api.RegistrationAssigning) {
			return s.assigning(api.OperationStatus{
				OperationID: operationID, Status: api.RegistrationAssigning,
				RegistrationState: &api.RegistrationState{RegistrationID: r.State.RegistrationID, Status: api.RegistrationAssigning},
			})
		}
		return ok200(api.OperationStatus{OperationID: operationID, Status: state.Status, RegistrationState: &state})
	})
}

func (s *Service) slow(c Credential) bool {
	_, hit := s.hub.Strike(api.FaultSlowAssignment, api.ID{Device: c.RegistrationID})
	return hit
}

// Lookup tells a device what became of its registration.
func (s *Service) Lookup(c Credential, now time.Time) Answer {
	return s.answer("lookup", c, func() (Answer, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		a, err := s.attest(c, now)
		if err != nil {
			return Answer{}, err
		}
		r, ok := s.registrations[fold(c.RegistrationID)]
		if !ok {
			return Answer{}, registrationNotFound(c.RegistrationID)
		}
		return ok200(r.forDevice(a))
	})
}

// answer carries out a request, unless a fault does, and makes an answer of its
// error.
func (s *Service) answer(what string, c Credential, do func() (Answer, error)) Answer {
	if fault, hit := s.hub.Strike(api.FaultProvisioningStatus, api.ID{Device: c.RegistrationID}); hit {
		text := "fault: provisioning-status"
		if fault.Code == 429 {
			text = "Operations are being throttled for this tenant."
		}
		a := refuse(&api.Error{HTTPStatus: fault.Code, Code: fault.Code*1000 + 1, Message: text})
		a.RetryAfter = max(cmp.Or(time.Duration(fault.Delay), s.retry), time.Second)
		return a
	}
	a, err := do()
	if err == nil {
		return a
	}
	told := iot.AsError(err)
	if told.Code == api.CodeServerError {
		s.log.Error("provisioning: "+what, "registration", c.RegistrationID, "err", err)
	} else {
		s.log.Info("provisioning refused: "+what, "registration", c.RegistrationID, "code", told.Code, "reason", err.Error())
	}
	return refuse(told)
}

func refuse(e *api.Error) Answer {
	return Answer{Status: e.HTTPStatus, Body: iot.NewErrorBody(e).JSON()}
}

func ok200(v any) (Answer, error) {
	text, err := json.Marshal(v)
	return Answer{Status: 200, Body: text}, err
}

func (s *Service) assigning(v api.OperationStatus) (Answer, error) {
	text, err := json.Marshal(v)
	return Answer{Status: 202, RetryAfter: s.retry, Operation: v.OperationID, Body: text}, err
}

// request is what a device sends.
// https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/register-device
type request struct {
	RegistrationID string          `json:"registrationId"`
	Payload        json.RawMessage `json:"payload"`
}

// decodeRequest reads a request; an empty body says nothing of its own.
func decodeRequest(body []byte, registrationID string) (request, error) {
	var r request
	body = bytes.TrimSpace(body)
	if len(body) > maxRequest {
		return r, api.RefuseProvisioning(api.CodeMessageTooLarge, "The request has more than %d bytes.", maxRequest)
	}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &r); err != nil {
			return r, api.RefuseProvisioning(api.CodeArgumentInvalid, `The request must be a JSON object such as {"registrationId":%q}.`, registrationID)
		}
	}
	if r.RegistrationID != "" && !strings.EqualFold(r.RegistrationID, registrationID) {
		return r, api.RefuseProvisioning(api.CodeArgumentInvalid, "The request is for registration id %.140q, the address for %q.", r.RegistrationID, registrationID)
	}
	if string(r.Payload) == "null" {
		r.Payload = nil
	}
	return r, nil
}

// register carries out an attested request and returns its operation's id.
func (s *Service) register(a attested, registrationID string, in request, force bool, now time.Time) (string, error) {
	now = utc(now)
	key := fold(registrationID)
	old := s.registrations[key]
	if old == nil {
		old = &registration{State: api.RegistrationState{RegistrationID: registrationID, CreatedDateTimeUTC: now, Status: api.RegistrationUnassigned}}
	}
	next := *old
	operation := s.newOperation()
	next.Operations = append(slices.Clone(old.Operations), operation)
	if over := len(next.Operations) - maxOperations; over > 0 {
		next.Operations = slices.Delete(next.Operations, 0, over)
	}
	st := &next.State
	st.LastUpdatedDateTimeUTC, st.ETag = now, newRegistrationETag()
	st.DevicePayload, st.EnrollmentGroupID = in.Payload, ""
	if a.kind == Group {
		st.EnrollmentGroupID = a.entry.ID
	}
	if a.entry.disabled() {
		return operation, s.keep(key, next)
	}
	// The record first: whoever finds a device half made makes it whole.
	begin := st.AssignedHub == "" || st.Status == api.RegistrationAssigning
	before := *st
	st.Status, st.ErrorCode, st.ErrorMessage = api.RegistrationAssigning, 0, ""
	if begin {
		if err := s.keep(key, next); err != nil {
			return "", err
		}
	}
	substatus, err := s.assign(a, registrationID, begin, force)
	if e := iot.AsError(err); err != nil && e.Code != api.CodeServerError {
		// The hub's word is the end of the operation, not of the request.
		st.Status, st.ErrorCode, st.ErrorMessage = api.RegistrationFailed, e.Code, e.Message
		return operation, s.keep(key, next)
	}
	if err != nil {
		return "", err
	}
	st.Status, st.AssignedHub = api.RegistrationAssigned, s.hub.Hostname()
	st.DeviceID = a.deviceID(registrationID)
	st.Substatus = cmp.Or(substatus, before.Substatus)
	st.Payload = a.entry.Settings.ReturnPayload
	if err := s.keep(key, next); err != nil {
		return "", err
	}
	s.log.Info("device provisioned", "registration", registrationID, "device", st.DeviceID, "group", st.EnrollmentGroupID, "substatus", st.Substatus)
	return operation, nil
}

func (a attested) deviceID(registrationID string) string {
	if a.kind == Group {
		return registrationID
	}
	return cmp.Or(a.entry.DeviceID, a.entry.ID)
}

// assign gives the device its place in the hub, by the enrollment's
// re-provisioning policy, and returns the substatus, "" for no change.
func (s *Service) assign(a attested, registrationID string, begin, force bool) (string, error) {
	settings := a.entry.Settings
	p := iot.Provisioning{
		Device: api.Device{DeviceID: a.deviceID(registrationID), Authentication: a.auth, Capabilities: *settings.Capabilities},
		Begin:  begin,
	}
	if settings.InitialTwin != nil {
		p.Twin = *settings.InitialTwin
	}
	if begin {
		return api.SubstatusInitial, s.hub.Provision(p)
	}
	policy := settings.ReprovisionPolicy
	if !policy.UpdateHubAssignment && !force {
		if _, err := s.hub.Device(p.Device.ID()); err == nil {
			return "", nil
		}
	}
	substatus := api.SubstatusReprovisioned
	if policy.UpdateHubAssignment && !policy.MigrateDeviceData {
		p.Reset, substatus = true, api.SubstatusReset
	}
	return substatus, s.hub.Provision(p)
}

// newOperation makes an operation's id in the form of Azure's:
// 4.<16 hex digits>.<UUID>.
func (s *Service) newOperation() string { return fmt.Sprintf("4.%s.%s", randomHex(8), newUUID()) }

// newRegistrationETag makes an entity tag in the form of Azure's, which has the
// quotes within the base64.
func newRegistrationETag() string { return base64.StdEncoding.EncodeToString([]byte(newETag())) }

// forDevice is the state as the device sees it: without what is the service's.
func (r *registration) forDevice(a attested) api.RegistrationState {
	if a.entry.disabled() {
		return api.RegistrationState{RegistrationID: r.State.RegistrationID, Status: api.RegistrationDisabled}
	}
	st := r.State
	proof := &api.RegistrationProof{EnrollmentGroupID: st.EnrollmentGroupID}
	if a.entry.Attestation.Type == api.AttestationX509 {
		st.X509 = proof
	} else {
		st.SymmetricKey = proof
	}
	st.DevicePayload, st.EnrollmentGroupID = nil, ""
	return st
}

// keep writes a registration.
func (s *Service) keep(key string, r registration) error {
	if err := s.put(registrationPrefix+key, r); err != nil {
		return err
	}
	s.registrations[key] = &r
	return nil
}

func registrationNotFound(id string) error {
	return api.RefuseProvisioning(api.CodeRegistrationNotFound, "Registration %.140q not found.", id)
}

// Registration returns the state of a registration, for the service.
func (s *Service) Registration(id string) (api.RegistrationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.registrations[fold(id)]
	if !ok {
		return api.RegistrationState{}, registrationNotFound(id)
	}
	return r.State, nil
}

// Registrations returns the registrations that a group let in, in the order of
// their ids.
func (s *Service) Registrations(group string) ([]api.RegistrationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.entries[Group][fold(group)]; !ok {
		return nil, notFound(Group, group)
	}
	all := []api.RegistrationState{}
	for _, r := range s.registrations {
		if r.State.EnrollmentGroupID != "" && fold(r.State.EnrollmentGroupID) == fold(group) {
			all = append(all, r.State)
		}
	}
	slices.SortFunc(all, func(a, b api.RegistrationState) int {
		return strings.Compare(fold(a.RegistrationID), fold(b.RegistrationID))
	})
	return all, nil
}

// DeleteRegistration forgets a registration: the device's next one is its first.
// The device stays in the hub.
func (s *Service) DeleteRegistration(id string, match iot.Match) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.registrations[fold(id)]
	if !ok {
		return registrationNotFound(id)
	}
	if !match.Fits(r.State.ETag) {
		return api.RefuseProvisioning(api.CodeEnrollmentETagInvalid, "The ETag does not match that of registration %s.", id)
	}
	return s.deleteRegistration(fold(id))
}

func (s *Service) deleteRegistration(key string) error {
	if err := s.hub.Journal().Delete(registrationPrefix + key); err != nil {
		return err
	}
	delete(s.registrations, key)
	return nil
}
