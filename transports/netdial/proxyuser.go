package netdial

import (
	"context"
	"sync"
	"time"
)

// proxyUsers are those that were named to a proxy in this process, by proxy, user and password: a handful, as the
// configuration has them. Routes, provisioning, uploads and whoever else goes by one proxy have a dialer each, and to the
// proxy they are one account.
var proxyUsers struct {
	mu    sync.Mutex
	known map[Proxy]*proxyUser
}

// proxyUser keeps the dialers that share a user from showing a wrong password more often than one of them would. Its
// methods are called from any goroutine.
type proxyUser struct {
	mu sync.Mutex
	// isTaken says that the proxy let this user through last.
	isTaken bool
	// refusals counts how often in a row it did not; then nobody asks before the time of until, and the answer is refusal.
	refusals int
	until    time.Time
	refusal  *proxyRefusalError
	// trying is closed when the one has its answer that asks first; nil where nobody does.
	trying chan struct{}
}

// userOf returns what is known of a proxy's user; nil where it is told none, since there is no account to lock.
func userOf(p Proxy) *proxyUser {
	if p.Username == "" {
		return nil
	}
	p.NoProxy = ""
	proxyUsers.mu.Lock()
	defer proxyUsers.mu.Unlock()
	u := proxyUsers.known[p]
	if u == nil {
		u = &proxyUser{}
		if proxyUsers.known == nil {
			proxyUsers.known = map[Proxy]*proxyUser{}
		}
		proxyUsers.known[p] = u
	}
	return u
}

// heldBackError is the answer of a proxy that is not asked again yet.
type heldBackError struct {
	*proxyRefusalError

	left time.Duration
}

func (e *heldBackError) Unwrap() error { return e.proxyRefusalError }

// ask has f ask the proxy. As long as it is not known what the proxy thinks of the user, one asks at a time, and the others
// learn from the answer: at a start all ask at once.
func (u *proxyUser) ask(ctx context.Context, f func() error) error {
	if u == nil {
		return f()
	}
	for isPatient := true; ; {
		u.mu.Lock()
		if left := time.Until(u.until); left > 0 {
			defer u.mu.Unlock()
			return &heldBackError{u.refusal, left}
		}
		trying := u.trying
		if u.isTaken || trying != nil && !isPatient {
			u.mu.Unlock()
			return f()
		}
		if trying == nil {
			u.trying = make(chan struct{})
			u.mu.Unlock()
			break
		}
		u.mu.Unlock()
		patience := time.NewTimer(askTimeout)
		select {
		case <-trying:
		case <-patience.C:
			isPatient = false // whatever that one waits for, it is not a no
		case <-ctx.Done():
			patience.Stop()
			return context.Cause(ctx)
		}
		patience.Stop()
	}
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		close(u.trying)
		u.trying = nil
	}()
	return f()
}

// taken: the proxy let the user through.
func (u *proxyUser) taken() {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.isTaken, u.refusals, u.until = true, 0, time.Time{}
}

// refused notes a no, and returns how long nobody asks again.
func (u *proxyUser) refused(e *proxyRefusalError) time.Duration {
	if u == nil {
		return refusedUserWait
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if left := time.Until(u.until); left > 0 {
		return left // two asked at once, and it is one no
	}
	wait := min(refusedUserWait<<min(u.refusals, 10), refusedUserMax)
	u.isTaken, u.until, u.refusal = false, time.Now().Add(wait), e
	u.refusals++
	return wait
}
