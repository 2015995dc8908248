package core

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

type pluginState uint8

const (
	pluginStopped pluginState = iota
	pluginStarting
	pluginReady
	pluginWaiting // for the next start
	pluginFailed  // until somebody mends it
	pluginStopping
)

var pluginStateNames = [...]string{"stopped", "starting", "ready", "waiting", "failed", "stopping"}

// plugin is the need of one plugin, and what its last start said of itself.
type plugin struct {
	cfg   PluginConfig
	state pluginState
	start Start

	registered        bool // at least once; what follows is remembered over restarts
	registeredMethods []string
	messages, desired bool

	readySince Instant
	notBefore  Instant
	crashes    int       // in a row, without a sound start between
	crashTimes []Instant // those within Limits.CrashLoopWithin
	restarts   int
	reason     string // of its present state
	lastExit   string // why the last start ended

	givenChange uint64 // the desired state that this start was given
	isSetUp     bool   // its first hand-over of the desired properties is over
	desiredCall Call   // the hand-over under way
	messageCall Call   // the message it has; one at a time keeps their order
	// messageNotBefore is when an abandoned message is handed out again.
	messageNotBefore Instant
}

// methods returns the names routed to the plugin.
func (p *plugin) methods() []string {
	if p.cfg.Methods != nil {
		return p.cfg.Methods
	}
	return p.registeredMethods
}

// handlesMessages reports whether messages may be routed to the plugin as far as is known.
func (p *plugin) handlesMessages() bool {
	if p.registered {
		return p.messages
	}
	return p.cfg.Match != nil
}

// isUnknown reports whether the plugin may yet register something.
func (p *plugin) isUnknown() bool {
	return !p.registered && p.state != pluginFailed && p.state != pluginStopping
}

func (p *plugin) matches(properties map[string]string) bool {
	for k, v := range p.cfg.Match {
		if got, ok := properties[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// mustWait reports whether a call must wait because its plugin's start is busy with the desired properties that it was
// given first. It does not wait for ever: a handler that takes its time would cost the calls their limit.
func (m *Machine) mustWait(now Instant, p *plugin, c *call) bool {
	if p.desiredCall == 0 || p.isSetUp {
		return false
	}
	over := p.readySince.Add(m.lim.SetUp)
	if now < over && over < c.deadline {
		m.at(over) // else the call's own limit comes first
	}
	return now < over
}

func (m *Machine) anyPlugin(f func(*plugin) bool) bool {
	for i := range m.plugins {
		if f(&m.plugins[i]) {
			return true
		}
	}
	return false
}

// plugin returns the plugin if start is its present one.
func (m *Machine) plugin(i PluginIndex, s Start) *plugin {
	if i < 0 || int(i) >= len(m.plugins) || m.plugins[i].start != s {
		return nil
	}
	return &m.plugins[i]
}

func (m *Machine) planPlugins(now Instant) {
	for i := range m.plugins {
		p := &m.plugins[i]
		switch p.state {
		case pluginStarting, pluginReady:
			if m.stopping {
				p.state = pluginStopping
				m.emit(StopPlugin{PluginIndex(i), p.start})
			}
		case pluginStopped:
			if !m.stopping {
				m.startPlugin(PluginIndex(i))
			}
		case pluginWaiting:
			if m.stopping {
				p.state = pluginStopped
			} else if m.due(now, p.notBefore) {
				p.restarts++
				m.startPlugin(PluginIndex(i))
			}
		case pluginFailed, pluginStopping:
		}
	}
}

func (m *Machine) startPlugin(i PluginIndex) {
	p := &m.plugins[i]
	p.start++
	p.state = pluginStarting
	p.givenChange, p.desiredCall, p.messageCall, p.messageNotBefore, p.isSetUp = 0, 0, 0, 0, false
	m.emit(StartPlugin{i, p.start})
}

func (m *Machine) pluginReady(now Instant, ev PluginReady) {
	p := m.plugin(ev.Plugin, ev.Start)
	if p == nil || p.state != pluginStarting && p.state != pluginReady {
		return
	}
	if p.state == pluginStarting { // else it only registers anew
		p.state, p.readySince = pluginReady, now
	}
	p.registered, p.reason = true, ""
	p.registeredMethods, p.messages, p.desired = ev.Methods, ev.Messages, ev.Desired
	if name, other := m.clash(ev.Plugin); other != nil {
		names := []string{p.cfg.Name, other.cfg.Name}
		sort.Strings(names)
		p.registeredMethods, p.messages, p.desired = nil, false, false
		m.emit(StopPlugin{ev.Plugin, ev.Start})
		m.pluginGone(now, ev.Plugin)
		m.failPlugin(ev.Plugin, fmt.Sprintf("plugins %q and %q both handle the method %q: give one of them a methods list without it", names[0], names[1], name))
	}
}

// clash finds a method that the plugin and another one both handle.
func (m *Machine) clash(i PluginIndex) (string, *plugin) {
	for j := range m.plugins {
		other := &m.plugins[j]
		if PluginIndex(j) == i || other.state == pluginFailed || !other.registered && other.cfg.Methods == nil {
			continue
		}
		for _, name := range m.plugins[i].methods() {
			if slices.Contains(other.methods(), name) {
				return name, other
			}
		}
	}
	return "", nil
}

func (m *Machine) failPlugin(i PluginIndex, reason string) {
	p := &m.plugins[i]
	p.state, p.reason = pluginFailed, reason
	m.emit(FailPlugin{i, reason})
}

func (m *Machine) pluginExited(now Instant, ev PluginExited) {
	p := m.plugin(ev.Plugin, ev.Start)
	if p == nil || p.state == pluginFailed || p.state == pluginStopped || p.state == pluginWaiting {
		return
	}
	m.pluginGone(now, ev.Plugin)
	if m.stopping {
		p.state = pluginStopped
		return
	}
	p.reason, p.lastExit = ev.Fault.Reason, ev.Fault.Reason
	if ev.Fault.Kind == Fatal {
		m.failPlugin(ev.Plugin, ev.Fault.Reason)
		return
	}
	m.emit(Warn{Fault{Kind: ev.Fault.Kind, Reason: fmt.Sprintf("plugin %s: %s", p.cfg.Name, ev.Fault.Reason)}})
	p.notBefore = now.Add(m.restartWait(now, p))
	p.state = pluginWaiting
	m.counters.PluginExits++
}

// restartWait: the first restart is immediate, then the wait doubles; a crash loop is tried rarely but for ever, since
// the device must stay reachable meanwhile, and a later desired change may mend it.
func (m *Machine) restartWait(now Instant, p *plugin) time.Duration {
	if p.state == pluginReady && now.Sub(p.readySince) >= m.lim.PluginStable {
		p.crashes = 0
	}
	kept := p.crashTimes[:0]
	for _, t := range p.crashTimes {
		if now.Sub(t) < m.lim.CrashLoopWithin {
			kept = append(kept, t)
		}
	}
	p.crashTimes = append(kept, now)
	p.crashes++
	switch {
	case len(p.crashTimes) > m.lim.CrashLoop:
		return m.jitter(m.lim.CrashLoopRetry)
	case p.crashes == 1:
		return 0
	default:
		return m.jitter(doubling(m.lim.PluginRetryFirst, p.crashes-2, m.lim.PluginRetryMax))
	}
}
