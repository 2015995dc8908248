package iot

import (
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/msglog"
)

// Verdict is what a device says of a cloud-to-device message. MQTT knows Complete
// only: "you cannot reject or abandon messages over MQTT".
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d
type Verdict int

// The verdicts.
const (
	Complete Verdict = iota
	Reject
	Abandon
)

// Received is a cloud-to-device message in the hands of a device that asked for
// it. Lock is the token by which it is settled.
type Received struct {
	Lock          string
	Sequence      int64
	Enqueued      time.Time
	Expires       time.Time
	DeliveryCount int // how often it was abandoned
	Message       api.C2D
}

// Receive locks the oldest message that waits for the device, for c2dLock, and
// gives it; nil when there is none. It is for devices that ask, over HTTPS.
func (s *Service) Receive(device string, now time.Time) (*Received, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(api.ID{Device: device})
	if err != nil {
		return nil, err
	}
	ident.device.LastActivityTime = now.UTC()
	s.sweep(ident)
	for _, m := range ident.queue {
		if m.isInHand(now) {
			continue
		}
		m.PacketID, m.LockToken, m.Locked = 0, TrackingID(), now.UTC().Add(c2dLock)
		m.Attempts++
		if err := s.put(c2dKey(ident.id, m.Number), m); err != nil {
			return nil, err
		}
		ident.counters.C2DSent++
		s.saw(ident.id, api.SawC2DSent, m.Message.Body)
		s.arm(ident)
		return &Received{m.LockToken, m.Number, m.Enqueued, m.Expires, m.Abandoned, m.Message}, nil
	}
	return nil, nil
}

// Settle ends what Receive began. A message that was abandoned waits again, at
// its place; after maxDeliveries it is dead. A lock that is over, or never was,
// is 412002, "the lock token is invalid or the lock has expired".
// https://learn.microsoft.com/azure/iot-hub/troubleshoot-error-codes
func (s *Service) Settle(device, lock string, verdict Verdict, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(api.ID{Device: device})
	if err != nil {
		return err
	}
	ident.device.LastActivityTime = now.UTC()
	for _, m := range ident.queue {
		if lock == "" || m.LockToken != lock || !m.isInHand(now) {
			continue
		}
		switch verdict {
		case Complete:
			return s.complete(ident, m)
		case Reject:
			return s.bury(ident, m, api.FeedbackRejected)
		default:
			return s.abandon(ident, m)
		}
	}
	return api.Refuse(api.CodeLockLost, "no message of device %s has the lock %q; a lock ends after %v", device, lock, c2dLock)
}

func (s *Service) abandon(ident *identity, m *c2d) error {
	m.LockToken, m.Locked = "", time.Time{}
	if m.Abandoned++; m.Abandoned >= maxDeliveries {
		return s.bury(ident, m, api.FeedbackDeliveries)
	}
	if err := s.put(c2dKey(ident.id, m.Number), m); err != nil {
		return err
	}
	s.deliver(ident, false)
	return nil
}

// isInHand reports whether the device has the message and may still settle it.
func (m *c2d) isInHand(now time.Time) bool {
	return (m.PacketID != 0 || m.LockToken != "") && m.Locked.After(now)
}

// SendTelemetry is Session.Telemetry for a device that has no session: it came
// over HTTPS.
func (s *Service) SendTelemetry(id api.ID, cred Credential, records []msglog.Record) error {
	s.mu.Lock()
	ident, err := s.find(id)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	authGen := ident.device.GenerationID
	s.mu.Unlock()
	return s.keep(ident, cred, authGen, "", records)
}

// keep appends records to the message log, stamped with who sent them.
func (s *Service) keep(ident *identity, cred Credential, authGen, model string, records []msglog.Record) error {
	now, bytes := time.Now().UTC(), int64(0)
	for i := range records {
		r := &records[i]
		r.Time, r.Device, r.Module = now, ident.id.Device, ident.id.Module
		r.AuthGen, r.AuthInfo, r.Model = authGen, cred.method, model
		bytes += int64(len(r.Body))
	}
	if err := s.msgs.Append(records); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.observers) > 0 {
		for _, r := range records {
			s.saw(ident.id, api.SawTelemetry, r.Body)
		}
	}
	ident.counters.TelemetryReceived += int64(len(records))
	ident.counters.TelemetryBytes += bytes
	ident.device.LastActivityTime = now
	return nil
}
