package sim

import "github.com/fairlead-iot/fairlead/core"

// isSwap reports whether this attempt is to lead the session to another route.
func (m *mutant) isSwap(e core.Epoch, route int) bool {
	return m.up != 0 && e > m.up && route != m.routes[m.up]
}

// routeBugs are those of the choice of a route.
var routeBugs = []bug{
	{
		name: "a better route is never tried again", finds: []Oracle{Preferred},
		effect: func(m *mutant, e core.Effect) []core.Effect {
			if o, ok := e.(core.Open); ok && m.isSwap(o.Epoch, o.Route) {
				m.more = append(m.more, core.OpenFailed{Epoch: o.Epoch, Fault: core.Fault{Kind: core.Blocked}})
				return nil
			}
			return []core.Effect{e}
		},
	},
	{
		name: "a swap takes what is in flight for acknowledged", finds: []Oracle{Settled},
		event: func(m *mutant, ev core.Event) []core.Event {
			o, ok := ev.(core.Opened)
			if !ok || !m.isSwap(o.Epoch, m.routes[o.Epoch]) {
				return []core.Event{ev}
			}
			var events []core.Event
			for n, upto := range m.sent {
				if upto > 0 {
					events = append(events, core.Acked{Epoch: m.up, Lane: core.Lane(n), Upto: upto})
				}
			}
			return append(events, ev)
		},
	},
	{
		name: "a try of a better route that fails counts as a loss", finds: []Oracle{StateTrue, DeadEpoch, OneSession},
		event: func(m *mutant, ev core.Event) []core.Event {
			if o, ok := ev.(core.OpenFailed); ok && m.isSwap(o.Epoch, m.routes[o.Epoch]) {
				return []core.Event{ev, core.Lost{Epoch: m.up, Fault: o.Fault}}
			}
			return []core.Event{ev}
		},
	},
	{
		name: "each link-up is answered by an attempt", finds: []Oracle{Dials},
		event: func(_ *mutant, ev core.Event) []core.Event {
			if _, ok := ev.(core.NetworkChanged); ok {
				return []core.Event{core.CredentialChanged{}}
			}
			return []core.Event{ev}
		},
	},
	{
		name: "a chosen route is left for the preferred one", finds: []Oracle{Preferred},
		event: func(_ *mutant, ev core.Event) []core.Event {
			if r, ok := ev.(core.RouteRequested); ok && !r.Auto {
				return []core.Event{core.RouteRequested{Op: r.Op, Auto: true}}
			}
			return []core.Event{ev}
		},
	},
}
