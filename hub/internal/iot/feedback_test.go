package iot

import (
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// The queue of feedback is bounded in number and in time, and a lock ends.
func TestFeedbackIsBounded(t *testing.T) {
	s, err := Open(Config{Hostnames: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // it is in memory
	ident := newIdentity(api.ID{Device: "dev1"})
	s.mu.Lock()
	for range maxFeedback + 5 {
		if err := s.tell(ident, &c2d{Message: api.C2D{Ack: "full"}}, api.FeedbackSuccess); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Unlock()
	if len(s.feedback) != maxFeedback || s.feedback[0].Number != 6 {
		t.Fatalf("%d records from %d on, want %d from 6 on", len(s.feedback), s.feedback[0].Number, maxFeedback)
	}
	now := time.Now()
	first := s.ReceiveFeedback(now)
	if len(first.Records) != feedbackBatch || len(s.feedback) != maxFeedback {
		t.Errorf("a batch of %d, %d remain", len(first.Records), len(s.feedback))
	}
	later := now.Add(feedbackLock + time.Second)
	if err := s.SettleFeedback(first.Lock, Complete, later); err == nil {
		t.Error("a lock that is over was taken")
	}
	for i := range maxDeliveries {
		b := s.ReceiveFeedback(later)
		if err := s.SettleFeedback(b.Lock, Abandon, later); err != nil {
			t.Fatalf("abandon %d: %v", i, err)
		}
	}
	if want := maxFeedback - feedbackBatch; len(s.feedback) != want {
		t.Errorf("%d records after %d abandonments, want %d", len(s.feedback), maxDeliveries, want)
	}
	if b := s.ReceiveFeedback(now.Add(feedbackTTL + time.Minute)); b != nil || len(s.feedback) != 0 {
		t.Errorf("%d records outlived their time", len(s.feedback))
	}
}
