package iot

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// feedback is a record of the queue at /messages/serviceBound/feedback, kept in
// the journal at feedback/NUMBER.
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d#message-feedback
type feedback struct {
	Number    int64        `json:"number"`
	Record    api.Feedback `json:"record"`
	Expires   time.Time    `json:"expires"`
	Abandoned int          `json:"abandoned,omitempty"`

	// Locks end with the process: the records wait again.
	lock   string
	locked time.Time
}

func feedbackKey(number int64) string { return fmt.Sprintf("feedback/%020d", number) }

func (s *Service) loadFeedback() error {
	return s.journal.Each("feedback/", func(_ string, value json.RawMessage) error {
		f := &feedback{}
		if err := json.Unmarshal(value, f); err != nil {
			return err
		}
		s.feedback = append(s.feedback, f)
		s.nextFeedback = max(s.nextFeedback, f.Number)
		return nil
	})
}

// tell queues feedback for a message if its sender asked for it: positive of a
// message that was completed, negative of one that is dead, or full.
func (s *Service) tell(ident *identity, m *c2d, status string) error {
	wanted := m.Message.Ack == "full" || (status == api.FeedbackSuccess) == (m.Message.Ack == "positive") && m.Message.Ack != "" && m.Message.Ack != "none"
	if !wanted {
		return nil
	}
	now := time.Now().UTC()
	s.dropOldFeedback(now, maxFeedback-1) // and room for one
	s.nextFeedback++
	f := &feedback{Number: s.nextFeedback, Expires: now.Add(feedbackTTL), Record: api.Feedback{
		OriginalMessageID: m.Message.MessageID, DeviceID: ident.id.Device, DeviceGenerationID: ident.device.GenerationID,
		EnqueuedTimeUTC: now, StatusCode: status, Description: status,
	}}
	if err := s.put(feedbackKey(f.Number), f); err != nil {
		return err
	}
	s.feedback = append(s.feedback, f)
	return nil
}

// dropOldFeedback forgets what nobody fetched in time, and the oldest beyond most.
func (s *Service) dropOldFeedback(now time.Time, most int) {
	over := len(s.feedback) - most
	s.feedback = slices.DeleteFunc(s.feedback, func(f *feedback) bool {
		if over--; over < 0 && f.Expires.After(now) {
			return false
		}
		if err := s.journal.Delete(feedbackKey(f.Number)); err != nil {
			s.log.Error("remove feedback", "err", err)
		}
		return true
	})
}

// ReceiveFeedback locks the records that wait, for feedbackLock, and gives them
// as one batch; nil when there are none.
func (s *Service) ReceiveFeedback(now time.Time) *api.FeedbackBatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropOldFeedback(now, maxFeedback)
	batch := &api.FeedbackBatch{Lock: TrackingID()}
	for _, f := range s.feedback {
		if f.locked.After(now) || len(batch.Records) == feedbackBatch {
			continue
		}
		f.lock, f.locked = batch.Lock, now.Add(feedbackLock)
		batch.Records = append(batch.Records, f.Record)
	}
	if len(batch.Records) == 0 {
		return nil
	}
	return batch
}

// SettleFeedback ends what ReceiveFeedback began: with Abandon the records wait
// again, up to maxDeliveries times; with anything else they are gone. A lock that
// is over is 412002.
func (s *Service) SettleFeedback(lock string, verdict Verdict, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	found := false
	s.feedback = slices.DeleteFunc(s.feedback, func(f *feedback) bool {
		if lock == "" || f.lock != lock || !f.locked.After(now) || err != nil {
			return false
		}
		found = true
		if verdict == Abandon && f.Abandoned+1 < maxDeliveries {
			f.lock, f.locked = "", time.Time{}
			f.Abandoned++
			err = s.put(feedbackKey(f.Number), f)
			return false
		}
		err = s.journal.Delete(feedbackKey(f.Number))
		return err == nil
	})
	if err == nil && !found {
		err = api.Refuse(api.CodeLockLost, "no feedback has the lock %q; a lock ends after %v", lock, feedbackLock)
	}
	return err
}
