package sdk

import "time"

// DefaultLinger is how long a message of a stream waits for the next ones at most; see Device.SetLinger.
const DefaultLinger = 5 * time.Millisecond

const (
	// lingerMessages and lingerBytes are enough to leave at once. A wait of which the second half brought nothing is not
	// repeated for lingerPause: who sends so waits for the answers, and gains nothing.
	lingerMessages = 64
	lingerBytes    = 16 << 10
	lingerPause    = time.Second
)

// lingers reports whether a patient message that was just queued may wait for others: it came soon after the last
// departure, and waiting has brought company; or the others are about to leave, and it with them. w.mu is held.
func (w *writer) lingers(size int) bool {
	now := time.Now()
	w.arrived = now
	if w.due {
		return true
	}
	since := now.Sub(w.left)
	if since >= w.linger || now.Before(w.hasty) || len(w.queue) >= lingerMessages || len(w.queue)*size >= lingerBytes {
		return false
	}
	if !w.waiting {
		w.waiting = true
		if w.timer == nil {
			w.timer = time.AfterFunc(w.linger-since, w.lingered)
		} else {
			w.timer.Reset(w.linger - since)
		}
	}
	return true
}

// lingered ends a wait.
func (w *writer) lingered() {
	w.mu.Lock()
	w.waiting, w.due = false, len(w.queue) > 0
	if now := time.Now(); now.Sub(w.arrived) > w.linger/2 {
		w.hasty = now.Add(lingerPause)
	}
	w.mu.Unlock()
	w.push()
}

// setLinger sets how long patient messages wait.
func (w *writer) setLinger(d time.Duration) {
	w.mu.Lock()
	w.linger, w.due = d, len(w.queue) > 0
	w.mu.Unlock()
	w.push()
}

// hurry ends a wait of what is queued.
func (w *writer) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = len(w.queue) > 0
}
