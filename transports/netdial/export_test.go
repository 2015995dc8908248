package netdial

import "time"

// WaitIsOver lets the time pass for which a proxy is not asked about its user.
func WaitIsOver(p Proxy) {
	u := userOf(p)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.until = time.Time{}
}

// ForgetUsers forgets what was known of a proxy's users: another one listens there by now.
func ForgetUsers(port int) {
	proxyUsers.mu.Lock()
	defer proxyUsers.mu.Unlock()
	for p := range proxyUsers.known {
		if p.Port == port {
			delete(proxyUsers.known, p)
		}
	}
}
