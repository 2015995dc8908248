package iot

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// notifications is the queue of file notifications: those who consume take one
// under a lock and complete it, those who only look see each as long as it is
// there. Guarded by Service.mu.
type notifications struct {
	queue   []*fileNote // oldest first
	next    int64       // number of the last one
	changed chan struct{}
}

// fileNote is a file notification that waits. Locks and attempts are not kept
// over a restart: then each is there anew.
type fileNote struct {
	Number       int64                `json:"number"`
	Notification api.FileNotification `json:"notification"`
	lock         string
	locked       time.Time // until when
	attempts     int
}

func fileNoteKey(number int64) string { return fmt.Sprintf("filenote/%020d", number) }

func (s *Service) loadFileNote(_ string, value json.RawMessage) error {
	n := &fileNote{}
	if err := json.Unmarshal(value, n); err != nil {
		return err
	}
	s.notes.queue = append(s.notes.queue, n) // keys come in the order of their numbers
	s.notes.next = max(s.notes.next, n.Number)
	return nil
}

// notify queues a notification and wakes those who wait for one.
func (s *Service) notify(f api.FileNotification) error {
	s.sweepNotifications(time.Now())
	n := &fileNote{Number: s.notes.next + 1, Notification: f}
	if err := s.put(fileNoteKey(n.Number), n); err != nil {
		return err
	}
	s.notes.next = n.Number
	s.notes.queue = append(s.notes.queue, n)
	if len(s.notes.queue) > maxNotifications {
		oldest := s.notes.queue[0]
		s.log.Warn("too many file notifications wait; the oldest is dropped", "limit", maxNotifications, "blob", oldest.Notification.BlobName)
		s.dropNotification(oldest)
	}
	close(s.notes.changed)
	s.notes.changed = make(chan struct{})
	return nil
}

// sweepNotifications drops those that nobody has taken for an hour, or that were
// taken too often.
func (s *Service) sweepNotifications(now time.Time) {
	for _, n := range slices.Clone(s.notes.queue) {
		isLocked := n.lock != "" && now.Before(n.locked)
		if !isLocked && (!now.Before(n.Notification.EnqueuedTimeUTC.Add(notificationTTL)) || n.attempts >= maxNotificationTry) {
			s.dropNotification(n)
		}
	}
}

func (s *Service) dropNotification(n *fileNote) {
	s.notes.queue = slices.DeleteFunc(s.notes.queue, func(other *fileNote) bool { return other == n })
	if err := s.journal.Delete(fileNoteKey(n.Number)); err != nil {
		s.log.Error("remove file notification", "blob", n.Notification.BlobName, "err", err) // it comes again after a restart
	}
}

// ReceiveFileNotification takes the oldest notification and locks it for a
// minute; without one, ok is false.
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-file-upload
func (s *Service) ReceiveFileNotification() (f api.FileNotification, lock string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.sweepNotifications(now)
	for _, n := range s.notes.queue {
		if n.lock != "" && now.Before(n.locked) {
			continue
		}
		n.lock, n.locked = TrackingID(), now.Add(notificationLock)
		n.attempts++
		return n.Notification, n.lock, true
	}
	return api.FileNotification{}, "", false
}

// SettleFileNotification removes the notification that was received under the
// lock, or puts it back.
func (s *Service) SettleFileNotification(lock string, remove bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, n := range s.notes.queue {
		if n.lock != lock || !now.Before(n.locked) {
			continue
		}
		n.lock, n.locked = "", time.Time{}
		if remove {
			s.dropNotification(n)
		} else {
			s.sweepNotifications(now)
		}
		return nil
	}
	return api.Refuse(api.CodeLockLost, "the lock of the file notification is unknown or was lost after %v", notificationLock)
}

// ReadFileNotifications calls f for every notification that waits, without
// taking it, in order. With follow it goes on with those that come until the
// context ends, f returns an error, or the hub closes (nil); idle, if not nil, is
// called when there is none at the moment. device "" means all.
func (s *Service) ReadFileNotifications(ctx context.Context, device string, follow bool, f func(api.FileNotification) error, idle func() error) error {
	last := int64(0)
	for {
		var found []api.FileNotification
		s.mu.Lock()
		s.sweepNotifications(time.Now())
		for _, n := range s.notes.queue {
			if n.Number > last && (device == "" || n.Notification.DeviceID == device) {
				found = append(found, n.Notification)
			}
		}
		last = s.notes.next
		changed := s.notes.changed
		s.mu.Unlock()
		for _, n := range found {
			if err := f(n); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		if idle != nil {
			if err := idle(); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-s.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
