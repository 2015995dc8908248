package iot

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/msglog"
)

// errStale is given to a session that another one has replaced. Its front closes
// the connection anyway.
var errStale = errors.New("iot: the session was taken over")

// Feature is something that a device can subscribe to.
type Feature string

// The features.
const (
	FeatureC2D           Feature = "c2d"
	FeatureMethods       Feature = "methods"
	FeatureTwinResponses Feature = "twin-responses"
	FeatureDesired       Feature = "desired"
	FeatureInputs        Feature = "inputs" // a module's
)

// Link is a front's end of a live connection. Every method queues and returns;
// none may call the Service or the Session.
type Link interface {
	// Accept tells the device that the session begins, and whether a persistent one
	// was found. It comes before anything else.
	Accept(present bool)
	// Method sends a direct method call.
	Method(rid, name string, payload []byte)
	// Desired sends a desired-property patch, $version included.
	Desired(version int64, patch []byte)
	// Deliver sends a cloud-to-device message. id is the number that Complete
	// takes, 0 when nothing has to come back; again says that it was sent before.
	Deliver(m *Delivery, id uint16, again bool)
	// Drop closes the connection without a word, as the hub does.
	Drop(reason string)
	// Silence leaves the connection open without reading or writing, and drops it
	// after d, or with the hub when d is 0.
	Silence(d time.Duration)
}

// storedSession is what outlives a connection of CleanSession=0: "all
// subscriptions survive", not those of cloud-to-device messages alone.
type storedSession struct {
	Subscriptions map[string]byte `json:"subscriptions"` // topic filter to granted QoS
}

// Session is one live connection of an identity.
type Session struct {
	svc      *Service
	ident    *identity
	link     Link
	clean    bool
	cred     Credential
	model    string
	authGen  string
	subs     map[string]byte
	features map[Feature]bool
	qos      map[Feature]byte
	parse    func(filter string) (Feature, bool)
}

// Attach makes link the connection of the identity; an older one is dropped, as
// the hub does with "ConnectionForcefullyClosedOnNewConnection" (400027).
// feature says what a topic filter means. Deliveries and waiting method calls
// follow Link.Accept at once: there is no moment in which the device counts as
// connected and what is sent to it gets lost.
func (s *Service) Attach(id api.ID, link Link, clean bool, cred Credential, model string, feature func(filter string) (Feature, bool)) (*Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("iot: the hub stops")
	}
	ident, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if s.disabled(ident) { // since it was authenticated
		return nil, api.Refuse(api.CodeDeviceDisabled, "device %s is disabled", id.Device)
	}
	if old := ident.live; old != nil {
		ident.counters.TakeOvers++
		s.detach(old)
		old.link.Drop("another connection of the same identity")
	}
	if _, lost := s.strike(api.FaultLoseSession, id); lost || clean {
		// "Connecting with CleanSession=1 discards the enqueued messages".
		if err := s.forgetSession(ident, clean && !lost); err != nil {
			return nil, err
		}
	}
	se := &Session{
		svc: s, ident: ident, link: link, clean: clean, cred: cred, model: model, authGen: ident.device.GenerationID,
		subs: map[string]byte{}, features: map[Feature]bool{}, qos: map[Feature]byte{}, parse: feature,
	}
	present := !clean && ident.session != nil
	if present {
		for filter, qos := range ident.session.Subscriptions {
			se.add(filter, qos)
		}
	} else if !clean {
		s.releaseQueue(ident)
		if err := se.store(); err != nil {
			return nil, err
		}
	}
	if model != "" && ident.twin.ModelID != model {
		next := ident.twin
		next.ModelID = model
		if err := s.setTwin(ident, next); err != nil {
			return nil, err
		}
	}
	now := time.Now().UTC()
	ident.live = se // nothing fails from here on: the front ends only a session that it was given
	ident.device.ConnectionState, ident.device.ConnectionStateUpdatedTime, ident.device.LastActivityTime = api.Connected, now, now
	ident.counters.Connects++
	link.Accept(present)
	s.emitConnection(ident, api.Connected)
	if present {
		s.saw(id, api.SawConnected, "session present")
	} else {
		s.saw(id, api.SawConnected, "new session")
	}
	ident.signal()
	s.deliver(ident, true)
	return se, nil
}

// forgetSession forgets the persistent session, and the queue if told to.
func (s *Service) forgetSession(ident *identity, queue bool) error {
	ident.session = nil
	if err := s.journal.Delete("session/" + ident.id.String()); err != nil {
		return err
	}
	if !queue {
		s.releaseQueue(ident)
		return nil
	}
	for _, m := range slices.Clone(ident.queue) {
		if err := s.bury(ident, m, api.FeedbackPurged); err != nil {
			return err
		}
	}
	return nil
}

// Refused counts a CONNECT that was answered with a refusal, or with nothing.
func (s *Service) Refused(id api.ID, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ident, ok := s.identities[id]; ok {
		ident.counters.ConnectsRefused++
	}
	s.saw(id, api.SawRefused, why)
}

// End closes the session. The front calls it once, whatever ended it.
func (se *Session) End() {
	s := se.svc
	s.mu.Lock()
	defer s.mu.Unlock()
	if se.isLive() {
		s.detach(se)
	}
}

// detach makes a live session a former one.
func (s *Service) detach(se *Session) {
	ident := se.ident
	ident.live = nil
	ident.counters.Disconnects++
	ident.device.ConnectionState, ident.device.ConnectionStateUpdatedTime = api.Disconnected, time.Now().UTC()
	s.emitConnection(ident, api.Disconnected)
	s.saw(ident.id, api.SawDisconnected)
	if se.clean {
		s.releaseQueue(ident)
	}
	ident.signal()
}

func (se *Session) isLive() bool { return se.ident.live == se }

func (se *Session) touch() { se.ident.device.LastActivityTime = time.Now().UTC() }

// Subscribed reports whether the device asked for a feature.
func (se *Session) Subscribed(f Feature) bool {
	se.svc.mu.Lock()
	defer se.svc.mu.Unlock()
	return se.features[f]
}

// Subscribe adds filters with their granted QoS. Deliveries begin with
// Subscribed, after SUBACK.
func (se *Session) Subscribe(filters map[string]byte) error {
	se.svc.mu.Lock()
	defer se.svc.mu.Unlock()
	if !se.isLive() {
		return errStale
	}
	for _, filter := range slices.Sorted(maps.Keys(filters)) {
		se.add(filter, filters[filter])
		se.svc.saw(se.ident.id, api.SawSubscribed, filter)
	}
	se.touch()
	return se.store()
}

func (se *Session) add(filter string, qos byte) {
	if f, ok := se.parse(filter); ok {
		se.subs[filter], se.features[f], se.qos[f] = qos, true, qos
	}
}

// Unsubscribe removes filters; unknown ones are fine.
func (se *Session) Unsubscribe(filters []string) error {
	se.svc.mu.Lock()
	defer se.svc.mu.Unlock()
	if !se.isLive() {
		return errStale
	}
	for _, filter := range filters {
		delete(se.subs, filter)
		se.svc.saw(se.ident.id, api.SawUnsubscribed, filter)
	}
	clear(se.features)
	for filter, qos := range se.subs {
		se.add(filter, qos)
	}
	return se.store()
}

// store keeps the subscriptions of a CleanSession=0 session.
func (se *Session) store() error {
	if se.clean {
		return nil
	}
	stored := &storedSession{Subscriptions: maps.Clone(se.subs)}
	if err := se.svc.put("session/"+se.ident.id.String(), stored); err != nil {
		return err
	}
	se.ident.session = stored
	return nil
}

// Telemetry appends records to the message log, stamped with who sent them. When
// it returns nil they survive the end of the process, and PUBACK may leave. It
// works for a session that was taken over too: the bytes had arrived.
func (se *Session) Telemetry(records []msglog.Record) error {
	return se.svc.keep(se.ident, se.cred, se.authGen, se.model, records)
}

// Acked counts PUBACKs of telemetry.
func (se *Session) Acked(n int) {
	se.svc.mu.Lock()
	defer se.svc.mu.Unlock()
	se.ident.counters.TelemetryAcked += int64(n)
}
