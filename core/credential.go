package core

import (
	"fmt"
	"time"
)

// credentialChanged makes the next attempt due now, and renews a session that uses the old credential.
func (m *Machine) credentialChanged(now Instant) {
	m.backoff = backoff{route: m.backoff.route} // a route that works is no worse for it
	m.retryAt, m.renewAt = now, now
	m.wantAt, m.isWanted = never, false
	if m.cur.phase > fetching && m.cur.phase < closing {
		m.renewForced = true
	}
	if m.next.phase > fetching && m.next.phase < closing {
		m.renewForced = true
		if m.next.phase != opened { // else the session is closed for it already: it takes its turn, and is renewed in turn
			m.hangUp(&m.next, "") // it has the old one too
		}
	}
}

// isBetter reports whether a renewal's credential is worth a new session. A source that reads a file, or that was given a
// token, may have the same one still.
func (m *Machine) isBetter(now Instant, ev CredentialFetched) bool {
	cur := &m.cur
	switch {
	case m.next.forced, !ev.Given && !ev.Fixed:
		return true // one that was made just now is newer by nature
	case ev.Doubtful:
		return false
	case ev.Life == 0 || cur.until == never:
		return true
	}
	return now.Add(ev.Life) > cur.until.Add(m.slew(now))
}

// slew is by how much the same end differs, seen twice by a clock that is slewed.
func (m *Machine) slew(now Instant) time.Duration {
	return 100*time.Millisecond + max(0, m.cur.until.Sub(now))/50
}

// keepCredential ends a renewal that would change nothing, and goes on with the session: beyond the credential's end if
// there is no other credential to be had.
func (m *Machine) keepCredential(now Instant, ev CredentialFetched) {
	m.hangUp(&m.next, "")
	rest := m.cur.until.Sub(now)
	m.renewAt = now.Add(max(time.Second, m.lim.RenewMin, min(rest/8, m.lim.RecheckMax)))
	if m.cur.stale || !ev.Doubtful && now.Add(ev.Life) < m.cur.until.Add(-m.slew(now)) {
		return // said before; or another one, which ends sooner
	}
	m.cur.stale = true
	text := "the credential has ended"
	if rest > 0 {
		text = fmt.Sprintf("the credential ends in %v", rest.Round(time.Second))
	}
	m.emit(Warn{Fault{Kind: Transient, Reason: text + ", and there is no newer one yet"}})
}

// noteGiven plans when to ask for a credential in place of one that was given.
func (m *Machine) noteGiven(now Instant, ev CredentialFetched) {
	switch {
	case !ev.Given:
		m.wantAt = never
	case ev.Life > 0:
		m.wantAt = now.Add(ev.Life - m.lim.CredentialAhead)
	case ev.Doubtful:
		m.wantAt = now.Add(-m.lim.CredentialAhead)
	}
}

// planCredential asks for a new credential where the present one was given, once.
func (m *Machine) planCredential(now Instant) {
	if m.wantAt == never || m.isWanted || m.stopping || !m.due(now, m.wantAt) {
		return
	}
	m.isWanted = true
	m.emit(WantCredential{max(0, m.wantAt.Add(m.lim.CredentialAhead).Sub(now))})
}
