package iot

import (
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// c2d is one queued cloud-to-device message.
type c2d struct {
	Number   int64     `json:"number"`
	Enqueued time.Time `json:"enqueued"`
	Expires  time.Time `json:"expires"`
	Message  api.C2D   `json:"message"`
	// PacketID is set while the device has it by MQTT and has not acknowledged it,
	// LockToken while it has it by HTTPS; never both.
	PacketID  uint16    `json:"packetId,omitempty"`
	LockToken string    `json:"lockToken,omitempty"`
	Locked    time.Time `json:"locked,omitzero"` // until when
	Attempts  int       `json:"attempts"`
	// Abandoned is the delivery count: "a lock that ends does not raise it".
	Abandoned int `json:"abandoned,omitempty"`
}

// Delivery is a cloud-to-device message on its way to a front.
type Delivery struct {
	Device  string
	Message api.C2D
	QoS     byte
}

func c2dKey(id api.ID, number int64) string { return fmt.Sprintf("c2d/%s/%020d", id.Device, number) }

// SendC2D queues a message for a device and delivers it if it can.
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d
func (s *Service) SendC2D(device string, m api.C2D) error {
	now := time.Now().UTC()
	expires, err := checkC2D(&m, now)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(api.ID{Device: device})
	if err != nil {
		return err
	}
	if s.cfg.Unsettled.C2DNeedsSession && ident.live == nil && ident.session == nil {
		return api.Refuse(api.CodeNotOnline, "device %s has no session; the message is not queued", device)
	}
	s.sweep(ident)
	if len(ident.queue) >= maxC2DQueue {
		return api.Refuse(api.CodeQueueFull, "device %s has %d messages queued already", device, maxC2DQueue)
	}
	ident.nextC2D++
	q := &c2d{Number: ident.nextC2D, Enqueued: now, Expires: expires, Message: m}
	if err := s.put(c2dKey(ident.id, q.Number), q); err != nil {
		return err
	}
	ident.queue = append(ident.queue, q)
	ident.counters.C2DEnqueued++
	s.deliver(ident, false)
	return nil
}

// checkC2D checks a message and says when it expires. Message.Expiry, which the
// device sees, is set only if the sender gave one.
func checkC2D(m *api.C2D, now time.Time) (time.Time, error) {
	if m.TTL != "" {
		ttl, err := time.ParseDuration(m.TTL)
		if err != nil || !m.Expiry.IsZero() || ttl <= 0 || ttl > maxC2DTTL {
			return time.Time{}, api.Refuse(api.CodeArgumentInvalid, "ttl %q is not a duration up to %v, or stands beside an expiry", m.TTL, maxC2DTTL)
		}
		m.Expiry, m.TTL = now.Add(ttl), ""
	}
	expires := m.Expiry
	if expires.IsZero() {
		expires = now.Add(c2dTTL)
	}
	if !expires.After(now) {
		return time.Time{}, api.Refuse(api.CodeArgumentInvalid, "the message has expired already, at %s", expires.UTC().Format(time.RFC3339))
	}
	switch m.Ack {
	case "", "none", "positive", "negative", "full":
	default:
		return time.Time{}, api.Refuse(api.CodeArgumentInvalid, "ack must be none, positive, negative or full, not %q", m.Ack)
	}
	if len(m.MessageID) > maxMessageID {
		return time.Time{}, api.Refuse(api.CodeArgumentInvalid, "the message id is longer than %d characters", maxMessageID)
	}
	size := len(m.MessageID) + len(m.CorrelationID) + len(m.UserID) + len(m.ContentType) + len(m.ContentEncoding)
	for key, value := range m.Properties {
		size += len(key)
		if value != nil {
			size += len(*value)
		}
	}
	if size > maxC2DProperties {
		return time.Time{}, api.Refuse(api.CodeMessageTooLarge, "the properties have %d bytes, at most %d", size, maxC2DProperties)
	}
	if size += len(m.Body); size > maxC2DBytes {
		return time.Time{}, api.Refuse(api.CodeMessageTooLarge, "the message has %d bytes, at most %d", size, maxC2DBytes)
	}
	return expires, nil
}

// deliver sends what may be sent to a device that is connected and subscribed.
// reconnected sends again what the last connection left unacknowledged, as MQTT
// demands of a persistent session.
func (s *Service) deliver(ident *identity, reconnected bool) {
	s.sweep(ident)
	se := ident.live
	if se == nil || !se.features[FeatureC2D] {
		return
	}
	now := time.Now().UTC()
	for _, m := range slices.Clone(ident.queue) {
		if m.isInHand(now) && (!reconnected || m.LockToken != "") {
			continue
		}
		m.LockToken = ""
		d := &Delivery{Device: ident.id.Device, Message: m.Message, QoS: se.qos[FeatureC2D]}
		again := m.PacketID != 0 && d.QoS > 0 // DUP is 0 with QoS 0, [MQTT-3.3.1-2]
		if d.QoS > 0 && !again {
			m.PacketID = ident.freePacketID()
		}
		m.Locked = now.Add(c2dLock)
		m.Attempts++
		times := 1
		if _, twice := s.strike(api.FaultDuplicateC2D, ident.id); twice {
			times = 2
		}
		for range times {
			se.link.Deliver(d, m.PacketID, again)
			ident.counters.C2DSent++
			s.saw(ident.id, api.SawC2DSent, m.Message.Body)
			again = d.QoS > 0
		}
		var err error
		if d.QoS == 0 { // nothing will come back
			err = s.complete(ident, m)
		} else {
			err = s.put(c2dKey(ident.id, m.Number), m)
		}
		if err != nil {
			s.log.Error("keep cloud-to-device message", "device", ident.id.String(), "err", err)
		}
	}
	s.arm(ident)
}

// freePacketID returns a number that no message of the queue has. The queue is
// short, so there is one. These numbers are the hub's and have nothing to do
// with those of the device's own packets.
func (i *identity) freePacketID() uint16 {
	for n := uint16(1); ; n++ {
		if !slices.ContainsFunc(i.queue, func(m *c2d) bool { return m.PacketID == n }) {
			return n
		}
	}
}

// Delivering tells the session that its SUBACK is queued: messages may follow.
func (se *Session) Delivering() {
	se.svc.mu.Lock()
	defer se.svc.mu.Unlock()
	if se.isLive() {
		se.ident.signal()
		se.svc.deliver(se.ident, false)
	}
}

// Complete takes the device's PUBACK; an unknown number is ignored.
func (se *Session) Complete(id uint16) error {
	se.svc.mu.Lock()
	defer se.svc.mu.Unlock()
	if !se.isLive() {
		return nil
	}
	for _, m := range se.ident.queue {
		if m.PacketID == id {
			se.touch()
			return se.svc.complete(se.ident, m)
		}
	}
	return nil
}

func (s *Service) complete(ident *identity, m *c2d) error {
	ident.counters.C2DCompleted++
	s.saw(ident.id, api.SawC2DCompleted, m.Message.Body)
	if err := s.tell(ident, m, api.FeedbackSuccess); err != nil {
		return err
	}
	return s.remove(ident, m)
}

func (s *Service) remove(ident *identity, m *c2d) error {
	ident.queue = slices.DeleteFunc(ident.queue, func(other *c2d) bool { return other == m })
	return s.journal.Delete(c2dKey(ident.id, m.Number))
}

// bury moves a message to the dead letters.
func (s *Service) bury(ident *identity, m *c2d, reason string) error {
	ident.counters.C2DDead++
	s.saw(ident.id, api.SawC2DDead, reason, m.Message.Body)
	ident.dead = append(ident.dead, api.DeadLetter{
		Message: m.Message, Reason: reason, Enqueued: m.Enqueued, Dead: time.Now().UTC(), Attempts: m.Attempts,
	})
	if over := len(ident.dead) - maxDeadLetters; over > 0 {
		ident.dead = slices.Delete(ident.dead, 0, over)
	}
	if err := s.tell(ident, m, reason); err != nil {
		return err
	}
	return s.remove(ident, m)
}

// releaseQueue forgets what the device had in hand: its session is gone.
func (s *Service) releaseQueue(ident *identity) {
	for _, m := range ident.queue {
		if m.PacketID != 0 {
			m.PacketID, m.Locked = 0, time.Time{}
			if err := s.put(c2dKey(ident.id, m.Number), m); err != nil {
				s.log.Error("keep cloud-to-device message", "device", ident.id.String(), "err", err)
			}
		}
	}
}

// sweep buries what has expired. A message that the device has in hand may
// still be completed until its lock ends.
func (s *Service) sweep(ident *identity) {
	now := time.Now()
	for _, m := range slices.Clone(ident.queue) {
		if m.Expires.After(now) || m.isInHand(now) {
			continue
		}
		if err := s.bury(ident, m, api.FeedbackExpired); err != nil {
			s.log.Error("remove cloud-to-device message", "device", ident.id.String(), "err", err)
		}
	}
	s.arm(ident)
}

// arm sets the timer for the next end of a lock or of a message.
func (s *Service) arm(ident *identity) {
	var next time.Time
	now := time.Now()
	for _, m := range ident.queue {
		at := m.Expires
		if m.isInHand(now) && (ident.live != nil || m.Locked.After(at)) {
			at = m.Locked // then it is sent again, or buried
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if ident.sweepTimer != nil {
		ident.sweepTimer.Stop()
	}
	if next.IsZero() || s.closed {
		return
	}
	ident.sweepTimer = time.AfterFunc(max(time.Until(next), time.Millisecond), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed && s.identities[ident.id] == ident {
			s.deliver(ident, false)
		}
	})
}

// PurgeC2D removes every queued message and returns how many.
func (s *Service) PurgeC2D(device string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(api.ID{Device: device})
	if err != nil {
		return 0, err
	}
	n := len(ident.queue)
	for _, m := range slices.Clone(ident.queue) {
		if err := s.bury(ident, m, api.FeedbackPurged); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// DeadLetters returns the newest messages that were not completed, oldest first.
// They are kept in memory only.
func (s *Service) DeadLetters(device string) ([]api.DeadLetter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(api.ID{Device: device})
	if err != nil {
		return nil, err
	}
	return slices.Clone(ident.dead), nil
}
