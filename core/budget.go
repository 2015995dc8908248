package core

import (
	"math/rand/v2"
	"time"
)

// DialBudget is how many dials a day without the hub may cost, over all routes: what a firewall, a proxy and the hub's own
// limits bear of a whole fleet.
const DialBudget = 300

// DialsInADay plays a day in which no route opens, and returns the number of dials that a machine of this configuration
// makes.
func DialsInADay(cfg Config) int {
	cfg.ConnectAtStart, cfg.Plugins = true, nil
	m := New(cfg, rand.New(rand.NewPCG(1, 1))) //nolint:gosec // any world is as good as another
	dials := 0
	const end = Instant(24 * time.Hour)
	for now, next := Instant(0), []Event{Started{}}; now < end; {
		var ev Event = Ticked{}
		if len(next) > 0 {
			ev, next = next[0], next[1:]
		}
		for _, effect := range m.Step(now, ev) {
			switch f := effect.(type) {
			case FetchCredential:
				next = append(next, CredentialFetched{Epoch: f.Epoch})
			case Open:
				dials++
				next = append(next, OpenFailed{Epoch: f.Epoch, Fault: Fault{Kind: Blocked, Reason: "no answer"}})
			default:
			}
		}
		if len(next) == 0 {
			at, ok := m.Deadline()
			if !ok {
				break
			}
			now = max(now, at)
		}
	}
	return dials
}
