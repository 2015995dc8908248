package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// AutoRoute is the name that stands for the order of preference in UseRoute. No transport may bear it.
const AutoRoute = "auto"

// UseRoute moves the session to the route of this name, without a loss, and keeps to it until AutoRoute: as a preference
// before all others, so that a route that stops to get through still gives way. It returns when there is a session by the
// route; where none is wanted now, at once. Its error wraps core.ErrInvalid where there is no such route, and
// core.ErrConnectionFailed where the route does not get through: then the session stays where it is, and nothing is chosen.
func (e *Engine) UseRoute(ctx context.Context, name string) error {
	route := 0
	if name != AutoRoute {
		if route = e.findRoute(name); route < 0 {
			return fmt.Errorf("use route %q: %w: there is no such route; there are %s, and %s for the order of preference", name, core.ErrInvalid, strings.Join(e.Routes(), ", "), AutoRoute)
		}
	}
	_, err := e.operate(ctx, &operation{name: "use route " + name, isRoute: true, begin: func(op core.Op) core.Event {
		return core.RouteRequested{Op: op, Route: route, Auto: name == AutoRoute}
	}})
	return err
}

// Routes names the routes to the hub, in order of preference.
func (e *Engine) Routes() []string {
	var names []string
	for _, t := range e.cfg.Transports {
		names = append(names, t.Name())
	}
	return names
}

// noRoute is the route of an attempt that has none yet.
const noRoute = -1

func (e *Engine) findRoute(name string) int {
	for i, t := range e.cfg.Transports {
		if t.Name() == name {
			return i
		}
	}
	return noRoute
}

func (e *Engine) routeName(route int) string { return e.cfg.Transports[route].Name() }

// NetworkChanged tells the engine that a link or an address came up: what waits for the network is tried now, within a
// bound that a flapping link does not exceed.
func (e *Engine) NetworkChanged() { e.inbox.post(core.NetworkChanged{}) }

// HappeningKind says what a Happening is.
type HappeningKind string

// The kinds of happenings.
const (
	// SessionBegan: the hub took a session.
	SessionBegan HappeningKind = "connected"
	// SessionLost: a session ended by itself; Fault says of what.
	SessionLost HappeningKind = "lost"
	// SessionClosed: the device ended a session; Reason says why.
	SessionClosed HappeningKind = "closed"
	// AttemptFailed: an attempt came to nothing; Fault says of what.
	AttemptFailed HappeningKind = "failed"
)

// Happening is an entry in the history of the connection.
type Happening struct {
	Kind  HappeningKind
	Epoch core.Epoch
	Route string // "" where the attempt had not come to one: its credential was not to be had
	// Lasted is how long the session was up.
	Lasted time.Duration
	Reason string     // of SessionClosed
	Fault  core.Fault // of SessionLost and AttemptFailed
}

// happened tells of an attempt. It runs on the engine's goroutine.
func (e *Engine) happened(a *attempt, kind HappeningKind, f core.Fault, reason string) {
	if e.cfg.OnHappening == nil {
		return
	}
	h := Happening{Kind: kind, Epoch: a.epoch, Fault: f, Reason: reason}
	if a.route != noRoute {
		h.Route = e.routeName(a.route)
	}
	if !a.connectedAt.IsZero() {
		h.Lasted = time.Since(a.connectedAt)
	}
	e.cfg.OnHappening(h)
}

// causes gives the machine's causes the names of their routes.
func (e *Engine) causes(s core.Status) []core.ConnectionCause {
	var out []core.ConnectionCause
	for _, c := range s.Causes {
		out = append(out, core.ConnectionCause{
			Route: e.routeName(c.Route), Kind: c.Fault.Kind, Phase: c.Fault.Phase, Reason: c.Fault.Reason, Count: c.Count,
		})
	}
	return out
}
