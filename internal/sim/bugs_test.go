package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// bug is a planted one: a mutation at the machine's boundary, which makes the machine behave as if it had it.
type bug struct {
	name string
	// finds are the oracles that may find it: the first promise that breaks depends on the seed.
	finds []Oracle
	// event changes what the machine is told; nil leaves it. effect changes what it orders.
	event  func(m *mutant, ev core.Event) []core.Event
	effect func(m *mutant, e core.Effect) []core.Effect
	// isAwake: it wants to be woken at once, always.
	isAwake bool
}

// mutant is a machine with a bug.
type mutant struct {
	bug   bug
	inner Stepper
	now   core.Instant
	out   []core.Effect
	more  []core.Event // that the bug makes up
	held  []core.Effect
	until core.Instant

	// What a bug may want to know.
	connecting, up core.Epoch
	submitted      [plugins]core.Seq
	sent           [plugins]core.Seq
	missing        [plugins]core.Seq
	messages       map[core.Call]bool
	twin           core.Replied // the last answer to the machine's get
	failures       int
	closing        core.Epoch
	opened         core.Opened // to be told when closing has closed
	routes         map[core.Epoch]int
	answered       map[core.Call]bool
}

func (m *mutant) Step(now core.Instant, ev core.Event) []core.Effect {
	m.now, m.out = now, m.out[:0]
	if len(m.held) > 0 && now >= m.until {
		m.out = append(m.out, m.held...)
		m.held = nil
	}
	m.more = []core.Event{ev}
	if m.bug.event != nil {
		m.more = m.bug.event(m, ev)
	}
	for len(m.more) > 0 {
		ev := m.more[0]
		m.more = m.more[1:]
		m.learn(ev)
		for _, e := range slices.Clone(m.inner.Step(now, ev)) {
			effects := []core.Effect{e}
			if m.bug.effect != nil {
				effects = m.bug.effect(m, e)
			}
			m.note(e)
			m.out = append(m.out, effects...)
		}
	}
	return m.out
}

func (m *mutant) Deadline() (core.Instant, bool) {
	if m.bug.isAwake {
		return m.now, true
	}
	at, ok := m.inner.Deadline()
	if len(m.held) > 0 && (!ok || m.until < at) {
		return m.until, true
	}
	return at, ok
}

func (m *mutant) learn(ev core.Event) {
	switch ev := ev.(type) {
	case core.Connected:
		if ev.Epoch == m.connecting {
			m.connecting, m.up = 0, ev.Epoch
		}
	case core.ConnectFailed:
		if ev.Epoch == m.connecting {
			m.connecting = 0
		}
	case core.Lost:
		if ev.Epoch == m.up {
			m.up, m.sent = 0, [plugins]core.Seq{}
		}
	case core.Closed:
		if ev.Epoch == m.connecting {
			m.connecting = 0
		}
		if ev.Epoch == m.up {
			m.up, m.sent = 0, [plugins]core.Seq{}
		}
	case core.Submitted:
		m.submitted[ev.Lane] = ev.Upto
	case core.MessageReceived:
		m.messages[ev.Call] = true
	case core.Replied:
		if ev.Op < core.CallerOp && ev.Status == 200 {
			m.twin = ev
		}
	}
}

func (m *mutant) note(e core.Effect) {
	switch e := e.(type) {
	case core.Open:
		m.routes[e.Epoch] = e.Route
	case core.Connect:
		m.connecting = e.Epoch
	case core.Send:
		m.sent[e.Lane] = e.To
	case core.MergeDesired:
		m.twin.Version = e.Version
	}
}

var bugs = append(routeBugs, []bug{
	{
		name: "a stale Lost is accepted", finds: []Oracle{OneSession, DeadEpoch, StateTrue},
		event: func(m *mutant, ev core.Event) []core.Event {
			if l, ok := ev.(core.Lost); ok && m.up != 0 && l.Epoch < m.up {
				l.Epoch = m.up
				return []core.Event{l}
			}
			return []core.Event{ev}
		},
	},
	{
		name: "a stale Connected is accepted", finds: []Oracle{DeadEpoch},
		event: func(m *mutant, ev core.Event) []core.Event {
			if c, ok := ev.(core.Connected); ok && c.Epoch < m.connecting {
				c.Epoch = m.connecting
				return []core.Event{c}
			}
			return []core.Event{ev}
		},
	},
	{
		name: "what is in flight is not taken back at a loss", finds: []Oracle{Settled},
		event: func(m *mutant, ev core.Event) []core.Event {
			l, ok := ev.(core.Lost)
			if !ok || l.Epoch != m.up {
				return []core.Event{ev}
			}
			var events []core.Event
			for n, upto := range m.sent {
				if upto > 0 {
					events = append(events, core.Acked{Epoch: l.Epoch, Lane: core.Lane(n), Upto: upto})
				}
			}
			return append(events, ev)
		},
	},
	{
		name: "what was in flight at a loss is never sent again", finds: []Oracle{LaneOrder, StateTrue},
		event: func(m *mutant, ev core.Event) []core.Event {
			if l, ok := ev.(core.Lost); ok && l.Epoch == m.up {
				for n, upto := range m.sent {
					m.missing[n] = max(m.missing[n], upto)
				}
			}
			return []core.Event{ev}
		},
		effect: func(m *mutant, e core.Effect) []core.Effect {
			if s, ok := e.(core.Send); ok && s.From <= m.missing[s.Lane] {
				if s.From = m.missing[s.Lane] + 1; s.From > s.To {
					return nil
				}
				return []core.Effect{s}
			}
			return []core.Effect{e}
		},
	},
	{
		name: "the twin is not asked for again in a new session", finds: []Oracle{UpToDate, Drained, DesiredRises},
		effect: func(m *mutant, e core.Effect) []core.Effect {
			if a, ok := e.(core.Ask); ok && a.Op < core.CallerOp && m.twin.Status != 0 && a.Epoch > m.twin.Epoch {
				m.more = append(m.more, core.Replied{Epoch: a.Epoch, Op: a.Op, Status: 200, Version: m.twin.Version})
				return nil
			}
			return []core.Effect{e}
		},
	},
	{
		name: "a token is never renewed", finds: []Oracle{Token},
		event: func(_ *mutant, ev core.Event) []core.Event {
			if c, ok := ev.(core.CredentialFetched); ok {
				c.Life = 0
				return []core.Event{c}
			}
			return []core.Event{ev}
		},
	},
	{
		name: "a renewal counts as a loss", finds: []Oracle{StateTrue},
		event: func(m *mutant, ev core.Event) []core.Event {
			switch ev := ev.(type) {
			case core.Opened:
				if m.up != 0 && ev.Epoch > m.up && !m.isSwap(ev.Epoch, m.routes[ev.Epoch]) {
					m.out = append(m.out, core.Close{Epoch: m.up})
					m.closing, m.opened = m.up, ev
					return []core.Event{core.Lost{Epoch: m.up, Fault: core.Fault{Reason: "renewal"}}}
				}
			case core.Closed:
				if ev.Epoch == m.closing {
					return []core.Event{m.opened}
				}
			}
			return []core.Event{ev}
		},
	},
	{
		name: "the back-off is not applied", finds: []Oracle{Dials},
		event: func(_ *mutant, ev core.Event) []core.Event {
			switch ev.(type) {
			case core.CredentialFailed, core.OpenFailed, core.ConnectFailed:
				return []core.Event{ev, core.CredentialChanged{}}
			}
			return []core.Event{ev}
		},
	},
	{
		name: "the back-off begins anew in the midst of an outage", finds: []Oracle{Dials},
		event: func(m *mutant, ev core.Event) []core.Event {
			switch ev.(type) {
			case core.CredentialFailed, core.OpenFailed, core.ConnectFailed:
				if m.failures++; m.failures%8 == 0 {
					return []core.Event{ev, core.CredentialChanged{}}
				}
			}
			return []core.Event{ev}
		},
	},
	{
		name: "the back-off is not reset after a stable session", finds: []Oracle{AtOnce},
		event: func(m *mutant, ev core.Event) []core.Event {
			switch ev.(type) {
			case core.CredentialFailed, core.OpenFailed, core.ConnectFailed, core.Lost:
				m.failures++
			}
			return []core.Event{ev}
		},
		effect: func(m *mutant, e core.Effect) []core.Effect {
			switch e := e.(type) {
			case core.FetchCredential:
				if m.up == 0 && m.failures > 0 {
					m.held = []core.Effect{e}
					m.until = m.now.Add(min(time.Second<<min(m.failures, 10), time.Minute))
					return nil
				}
			case core.Close:
				if len(m.held) > 0 && m.held[0] == (core.FetchCredential{Epoch: e.Epoch}) {
					m.held = nil
					m.more = append(m.more, core.Closed{Epoch: e.Epoch})
					return nil
				}
			}
			return []core.Effect{e}
		},
	},
	{
		name: "a method is answered twice", finds: []Oracle{Methods},
		effect: func(_ *mutant, e core.Effect) []core.Effect {
			if _, ok := e.(core.Respond); ok {
				return []core.Effect{e, e}
			}
			return []core.Effect{e}
		},
	},
	{
		name: "a method is not answered when its plugin dies", finds: []Oracle{Methods},
		effect: func(m *mutant, e core.Effect) []core.Effect {
			if r, ok := e.(core.Respond); ok && r.Status == 503 {
				m.more = append(m.more, core.Responded{Epoch: r.Epoch, Call: r.Call})
				return nil
			}
			return []core.Effect{e}
		},
	},
	{
		name: "an acknowledgement reaches beyond the prefix", finds: []Oracle{Settled, LaneOrder, Window},
		event: func(m *mutant, ev core.Event) []core.Event {
			if a, ok := ev.(core.Acked); ok && a.Epoch == m.up && a.Upto < m.sent[a.Lane] {
				a.Upto++
				return []core.Event{a}
			}
			return []core.Event{ev}
		},
	},
	{
		name: "subscriptions are not asked for again in a new session", finds: []Oracle{Drained, Operations, DesiredRises},
		effect: func(m *mutant, e core.Effect) []core.Effect {
			if s, ok := e.(core.Subscribe); ok && s.Epoch > 1 {
				m.more = append(m.more, core.Subscribed(s))
				return nil
			}
			return []core.Effect{e}
		},
	},
	{
		name: "a message is acknowledged as it is handed out", finds: []Oracle{Messages},
		effect: func(m *mutant, e core.Effect) []core.Effect {
			if d, ok := e.(core.Deliver); ok && m.messages[d.Call] && m.up != 0 {
				return []core.Effect{e, core.Acknowledge{Epoch: m.up, Call: d.Call}}
			}
			return []core.Effect{e}
		},
	},
	{
		name: "the next session is asked for while the last one still closes", finds: []Oracle{OneSession, DeadEpoch},
		effect: func(m *mutant, e core.Effect) []core.Effect {
			if c, ok := e.(core.Close); ok && c.Epoch == m.up && len(m.held) == 0 {
				m.held, m.until = []core.Effect{e}, m.now.Add(2*time.Second)
				m.more = append(m.more, core.Closed{Epoch: c.Epoch})
				return nil
			}
			return []core.Effect{e}
		},
	},
	{
		name: "the window is not kept", finds: []Oracle{Window},
		effect: func(m *mutant, e core.Effect) []core.Effect {
			if s, ok := e.(core.Send); ok {
				s.To = m.submitted[s.Lane]
				return []core.Effect{s}
			}
			return []core.Effect{e}
		},
	},
	{
		name: "a lane resumes behind what was in flight", finds: []Oracle{LaneOrder},
		effect: func(_ *mutant, e core.Effect) []core.Effect {
			if s, ok := e.(core.Send); ok && s.To > s.From {
				s.From++
				return []core.Effect{s}
			}
			return []core.Effect{e}
		},
	},
	{
		name: "an answer that is given again is another one", finds: []Oracle{Methods},
		effect: func(m *mutant, e core.Effect) []core.Effect {
			if r, ok := e.(core.Respond); ok {
				if m.answered[r.Call] {
					r.Status = 504
				}
				m.answered[r.Call] = true
				return []core.Effect{r}
			}
			return []core.Effect{e}
		},
	},
	{
		name: "a twin that was created anew is ignored while its version is lower", finds: []Oracle{UpToDate, Drained, DesiredRises},
		event: func(m *mutant, ev core.Event) []core.Event {
			if r, ok := ev.(core.Replied); ok && r.Op < core.CallerOp && r.Status == 200 && r.Version < m.twin.Version {
				r.Version, r.Changed = m.twin.Version, false
				return []core.Event{r}
			}
			return []core.Event{ev}
		},
	},
	{
		name: "a plugin is given the next state while it applies one", finds: []Oracle{DesiredRises},
		effect: func(m *mutant, e core.Effect) []core.Effect {
			if d, ok := e.(core.DeliverDesired); ok {
				m.more = append(m.more, core.Returned{Plugin: d.Plugin, Start: d.Start, Call: d.Call})
			}
			return []core.Effect{e}
		},
	},
	{
		name: "a call goes to the start before", finds: []Oracle{Plugins},
		effect: func(_ *mutant, e core.Effect) []core.Effect {
			if d, ok := e.(core.Deliver); ok && d.Start > 1 {
				d.Start--
				return []core.Effect{d}
			}
			return []core.Effect{e}
		},
	},
	{
		name: "a caller is not told that its operation ended", finds: []Oracle{Drained},
		effect: drop(func(e core.Effect) bool { f, ok := e.(core.Finish); return ok && f.Op%7 == 0 }),
	},
	{
		name: "a caller is told twice", finds: []Oracle{Operations},
		effect: func(_ *mutant, e core.Effect) []core.Effect {
			if _, ok := e.(core.Finish); ok {
				return []core.Effect{e, e}
			}
			return []core.Effect{e}
		},
	},
	{name: "the deadline is always now", finds: []Oracle{Spin}, isAwake: true},
	{
		name: "what the hub has stays in the store", finds: []Oracle{Kept},
		effect: drop(func(e core.Effect) bool { _, ok := e.(core.Forget); return ok }),
	},
	{
		name: "a call that is over is kept", finds: []Oracle{Kept},
		effect: drop(func(e core.Effect) bool { _, ok := e.(core.Discard); return ok }),
	},
	{
		name: "a shutdown does not end", finds: []Oracle{Shutdown},
		effect: drop(func(e core.Effect) bool { _, ok := e.(core.Stop); return ok }),
	},
}...)

// drop forgets orders.
func drop(which func(core.Effect) bool) func(*mutant, core.Effect) []core.Effect {
	return func(_ *mutant, e core.Effect) []core.Effect {
		if which(e) {
			return nil
		}
		return []core.Effect{e}
	}
}

// within is how many seeds a planted bug may take.
const within = 60

func (b bug) wrap(inner Stepper) Stepper {
	return &mutant{bug: b, inner: inner, messages: map[core.Call]bool{}, answered: map[core.Call]bool{}, routes: map[core.Epoch]int{}}
}

// hunt returns the first seed that finds the bug, 0 if none does within the bound.
func (b bug) hunt(without ...Oracle) (uint64, *Violation) {
	for seed := range uint64(within) {
		o := Draw(seed + 1)
		o.Wrap, o.Without = b.wrap, without
		if r := Run(o); r.Violation != nil {
			return seed + 1, r.Violation
		}
	}
	return 0, nil
}

// TestPlantedBugs: a simulator that finds nothing may be blind. Each of these bugs has to be found, by the promise that it
// breaks.
func TestPlantedBugs(t *testing.T) {
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			seed, v := b.hunt()
			switch {
			case v == nil:
				t.Errorf("not found within %d seeds", within)
			case !slices.Contains(b.finds, v.Oracle):
				t.Errorf("seed %d finds it by another promise than %q: %v", seed, b.finds, v)
			default:
				t.Logf("seed %d: %v", seed, v)
			}
		})
	}
}

// TestOraclesAreNeeded: without its oracle, a planted bug passes unseen, or shows by what it happens to do to some other
// promise much later: TestPlantedBugs would fail. So it is the oracle that finds it, not an accident of the world.
func TestOraclesAreNeeded(t *testing.T) {
	for _, tt := range []struct {
		bug    string
		oracle Oracle
	}{
		{"a method is answered twice", Methods},
		{"a token is never renewed", Token},
		{"a renewal counts as a loss", StateTrue},
	} {
		t.Run(string(tt.oracle), func(t *testing.T) {
			t.Parallel()
			i := slices.IndexFunc(bugs, func(b bug) bool { return b.name == tt.bug })
			if seed, v := bugs[i].hunt(tt.oracle); v != nil && slices.Contains(bugs[i].finds, v.Oracle) {
				t.Errorf("without %q, seed %d still finds that %s: %v", tt.oracle, seed, tt.bug, v)
			}
		})
	}
}

// TestEveryOracleHasABug: an oracle that no planted bug has to get past may be blind.
func TestEveryOracleHasABug(t *testing.T) {
	for _, o := range oracles {
		if !slices.ContainsFunc(bugs, func(b bug) bool { return slices.Contains(b.finds, o) }) {
			t.Errorf("no planted bug is found by %q", o)
		}
	}
}

// TestTheBoundaryChangesNothing: the wrapper without a bug is the machine.
func TestTheBoundaryChangesNothing(t *testing.T) {
	if seed, v := (bug{}).hunt(); v != nil {
		t.Errorf("seed %d: %v", seed, v)
	}
}
