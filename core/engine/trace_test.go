package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/coretest"
)

// closedRoute opens nothing.
type closedRoute struct{ name string }

func (r closedRoute) Open(context.Context, core.Credential) (core.Link, error) {
	return nil, &core.Error{Op: "dial", Kind: core.Blocked, Phase: "tcp", Err: errors.New(r.name + " is shut")}
}

func (r closedRoute) Name() string { return r.name }

// What the machine says of a state numbers the routes, the first one not even that. The line says the rest beside it: all
// that a watcher of the connection is told.
func TestALineOfTheTraceSaysWhatAStateOfTheConnectionIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, coretest.NewHub(), func(cfg *Config) {
			cfg.Transports = []core.Transport{closedRoute{"mqtt"}, closedRoute{"mqttws"}}
		})
		run(t, e)
		began := time.Now()
		go func() { _ = e.Device(0).Connect(t.Context()) }() // it waits for a session, in vain
		synctest.Wait()
		now := e.Connection()
		var announced []Line
		for lines, _ := e.Trace(0); len(lines) > 0; lines = lines[1:] {
			if lines[0].Connection != nil {
				announced = append(announced, lines[0])
			}
		}
		if len(announced) != 3 || now.State != core.StateWaiting {
			t.Fatalf("announced %+v, want a try by each route and a wait; it is %v", announced, now.State)
		}
		first, second, last := announced[0], announced[1], announced[2]
		if c := first.Connection; first.Text != `announce state=connecting reason="first attempt"` || c.Route != "mqtt" || c.State != "connecting" || len(c.Causes) != 0 || !c.NextAttempt.IsZero() {
			t.Errorf("%q: %+v", first.Text, *c)
		}
		if c := second.Connection; c.Route != "mqttws" || len(c.Causes) != 1 || c.Causes[0] != (LineCause{"mqtt", "blocked", "tcp", "dial: mqtt is shut", 1}) {
			t.Errorf("%q: %+v", second.Text, *c)
		}
		c := last.Connection
		if c.State != "waiting" || c.Route != now.Route || c.Reason != now.Reason || c.Epoch != now.Epoch || len(c.Causes) != 2 ||
			c.Causes[1] != (LineCause{"mqttws", "blocked", "tcp", "dial: mqttws is shut", 1}) {
			t.Errorf("%q: %+v, want what watchers are told: %+v", last.Text, *c, now)
		}
		if !c.Since.Equal(began) || now.NextAttempt <= 0 || !c.NextAttempt.Equal(began.Add(now.NextAttempt)) {
			t.Errorf("%q: since %v, next attempt at %v: want %v and %v later", last.Text, c.Since, c.NextAttempt, began, now.NextAttempt)
		}
	})
}
