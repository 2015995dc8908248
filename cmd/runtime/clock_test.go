//go:build unix

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/internal/control"
)

// clockWorld is a runtime whose clock the test sets.
type clockWorld struct {
	t     *testing.T
	rt    *running
	shift atomic.Int64
}

// startClockWorld starts a runtime that was built long before its hub's certificate, and whose clock says at first that it
// is off by so much.
func startClockWorld(t *testing.T, h *hubtest.Hub, at time.Duration) *clockWorld {
	t.Helper()
	dir, err := os.MkdirTemp("", "clock-") //nolint:usetesting // the test's own would be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("ca.pem", string(h.CAPEM()))
	file("device.cs", h.AddDevice("dev1"))
	c, err := config.Load(file("fairlead.yaml", fmt.Sprintf(`version: 1
device: {connection_string: {file: device.cs}}
tls: {server_verification_cert: {file: ca.pem}}
transports: [{use: mqtt, port: %d, address: 127.0.0.1}]
state_dir: %s
`, h.MQTTPort(), filepath.Join(dir, "state"))), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &clockWorld{t: t}
	w.set(at)
	from := timeSource{
		system: func() time.Time { return time.Now().Add(time.Duration(w.shift.Load())).Round(0) },
		built:  time.Now().Add(-400 * 24 * time.Hour), port: h.HTTPSPort(), look: 100 * time.Millisecond,
	}
	w.rt, err = assembleWith(c, slog.New(slog.NewTextHandler(t.Output(), nil)), from)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- w.rt.serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return w
}

// set sets the clock so much off the true time.
func (w *clockWorld) set(off time.Duration) { w.shift.Store(int64(off)) }

func (w *clockWorld) status() control.Status {
	w.t.Helper()
	s, err := w.rt.Status(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// until polls the status until it is as is wanted.
func (w *clockWorld) until(what string, ok func(s control.Status) bool) control.Status {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(30 * time.Second); ; {
		s := w.status()
		if ok(s) {
			return s
		}
		select {
		case <-tick.C:
		case <-limit:
			w.t.Fatalf("%s: not within 30 s; at last %+v", what, s)
		}
	}
}

func connected(s control.Status) bool { return s.Connection.State == core.StateConnected.String() }

const year = 365 * 24 * time.Hour

// A device without a clock asks its hub, whose certificate is younger than the program; later its clock is set to and fro.
func TestADeviceOf1970ConnectsByItsHubsTime(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t)
	day := func() string { return "and the hub's " + time.Now().UTC().Format("2006-01-02T") }
	before := day()
	w := startClockWorld(t, h, time.Until(time.Unix(60, 0)))
	s := w.until("a session in 1970", connected)
	if !strings.Contains(s.Clock, "this device's clock says 1970-01-01T00:") ||
		!strings.Contains(s.Clock, before) && !strings.Contains(s.Clock, day()) { // a day may have ended meanwhile
		t.Errorf("status says of the clock: %q", s.Clock)
	}
	for i, step := range []struct {
		name  string
		off   time.Duration
		doubt bool
	}{
		{"set right", 0, false},
		{"two hours back", -2 * time.Hour, true},
		{"set right again", 0, false},
		{"a year ahead", year, true},
		{"set right at last", 0, false},
	} {
		w.set(step.off)
		s := w.until("a renewal after the clock was "+step.name, func(s control.Status) bool {
			return connected(s) && s.Counters.Renewals == uint64(i+1) && (s.Clock != "") == step.doubt
		})
		if s.Counters.Losses != 0 {
			t.Errorf("%s: %d losses: %s", step.name, s.Counters.Losses, s.Connection.Reason)
		}
		if err := w.rt.client.Send(t.Context(), &core.Message{Payload: []byte(step.name)}); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
	}
	h.WaitCount("dev1", 5)
}

// A clock that is far ahead is not to be told from the truth before anybody is trusted: what the device says is why, and
// it connects when the clock is set.
func TestAClockOfTheFutureIsSaidAndMendsItself(t *testing.T) {
	t.Parallel()
	w := startClockWorld(t, hubtest.Start(t), 50*year)
	s := w.until("a reason", func(s control.Status) bool { return strings.Contains(s.Connection.Reason, "set the clock") })
	if connected(s) {
		t.Errorf("there is a session: %+v", s.Connection)
	}
	w.set(0)
	began := time.Now()
	w.until("a session", connected)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("connected %v after the clock was set", took)
	}
}
