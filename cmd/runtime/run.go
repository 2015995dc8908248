package main

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/engine"
	"github.com/fairlead-iot/fairlead/internal/control"
	"github.com/fairlead-iot/fairlead/internal/trim"
	"github.com/fairlead-iot/fairlead/plugins/host"
)

// startWithin is how long a start makes use of all CPUs.
const startWithin = 2 * time.Second

func newRunCommand() *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the device",
		Long: `Run the device: connect it to its hub, keep it connected, and run its plugins.

SIGTERM or SIGINT drains what waits within 10 s and exits 0, or 1 if something
had to be left; a second one exits at once.

A hub lets one client of an identity in at a time. A second runtime with the same
identity on this host (on Linux), or with the same state directory, exits 3 and
names the process that has it, as far as it can be seen.

The runtime and each plugin written in Go use one CPU at a time, which is more
than a hub takes from a device, and the cheapest. The environment variable
GOMAXPROCS changes it for the runtime, plugins.NAME.env for a plugin.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := flags.load()
			if err != nil {
				return err
			}
			if os.Getenv(host.MaxProcsKey) == "" {
				// With more, each message wakes further threads to look for work that is done before they look. Only the
				// start has work for several.
				defer time.AfterFunc(startWithin, func() { runtime.GOMAXPROCS(1) }).Stop()
			}
			go trim.Watch(cmd.Context())
			rt, err := assemble(c, newLogger(cmd.ErrOrStderr(), c.Log))
			if err != nil {
				return err
			}
			return rt.serve(cmd.Context())
		},
	}
	flags.add(cmd)
	return cmd
}

// newLogger makes the one logger of the process.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // the configuration has checked it
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

var _ control.Backend = (*running)(nil)

// Status implements control.Backend.
func (rt *running) Status(ctx context.Context) (control.Status, error) {
	e, err := rt.client.Engine().Status(ctx)
	if err != nil {
		return control.Status{}, err
	}
	n := e.Machine.Counters
	s := control.Status{
		Version: readVersion().Version, PID: os.Getpid(), Hostname: e.Identity.Hostname, DeviceID: e.Identity.DeviceID, ModuleID: e.Identity.ModuleID,
		Uptime: control.Seconds(e.Uptime), Desired: e.Machine.DesiredVersion, StateDir: rt.cfg.StateDir,
		Connection: control.Connection{
			State: e.Connection.State.String(), Reason: e.Connection.Reason, Since: control.Seconds(e.Connection.Since),
			Epoch: uint64(e.Machine.Epoch), Transport: e.Transport, NextAttempt: control.Seconds(e.Connection.NextAttempt),
			Transports: e.Routes, Chosen: e.Chosen,
		},
		Outbox: control.Outbox{
			Mode: rt.cfg.Outbox.Mode, Messages: e.OutboxMessages, Bytes: e.OutboxBytes,
			MaxMessages: e.OutboxMaxMessages, MaxBytes: e.OutboxMaxBytes,
		},
		Counters: control.Counters{
			Attempts: n.Attempts, Sessions: n.Sessions, Losses: n.Losses, Renewals: n.Renewals, Swaps: n.Swaps, ProbesFailed: n.ProbesFailed,
			Submitted: n.Submitted, Acknowledged: n.Acknowledged, MethodsCalled: n.MethodsCalled, MethodsAnswered: n.MethodsAnswered,
			MessagesReceived: n.MessagesReceived, MessagesCompleted: n.MessagesCompleted, DeadLetters: n.DeadLetters, PluginExits: n.PluginExits,
		},
		DeadLetters: len(e.DeadLetters), Uploads: rt.uploadList(),
	}
	addRoutes(&s.Connection, e)
	s.Clock = rt.clock.Doubt()
	s.Provisioning = rt.provisioned()
	s.Connection.CredentialDoubt, s.Connection.CredentialGiven = e.Doubt, e.Machine.Given
	if e.Machine.HasEnd {
		s.Connection.CredentialLife = control.Seconds(e.CredentialLeft())
	}
	if n := len(e.DeadLetters); n > 0 {
		d := e.DeadLetters[n-1]
		s.LastDeadLetter = cmp.Or(d.Message.ID, "a message without an id") + ": " + d.Reason
	}
	for i, p := range e.Machine.Plugins {
		if i == 0 {
			continue // this process itself
		}
		s.Plugins = append(s.Plugins, control.Plugin{
			Name: p.Name, State: p.State, PID: e.Plugins[i].PID, Start: uint64(p.Start), Restarts: p.Restarts, Reason: p.Reason, LastExit: p.LastExit,
			Degraded: p.Degraded, Methods: append([]string{}, p.Methods...), Metrics: rt.metrics.of(p.Name),
		})
	}
	return s, nil
}

// Trace implements control.Backend.
func (rt *running) Trace(from uint64) ([]engine.Line, <-chan struct{}) {
	return rt.client.Engine().Trace(from)
}

// Connect implements control.Backend.
func (rt *running) Connect(ctx context.Context) error { return rt.client.Connect(ctx) }

// Disconnect implements control.Backend: the operator's word holds until the next connect.
func (rt *running) Disconnect(ctx context.Context) error {
	return rt.client.Engine().Disconnect(ctx, true)
}

// Send implements control.Backend.
func (rt *running) Send(ctx context.Context, m *core.Message) error { return rt.client.Send(ctx, m) }

// UpdateToken implements control.Backend.
func (rt *running) UpdateToken(ctx context.Context, token core.Secret) error {
	return rt.client.UpdateSASToken(ctx, token.Reveal())
}

// Twin implements control.Backend.
func (rt *running) Twin(ctx context.Context) (json.RawMessage, error) {
	return rt.client.Engine().Device(0).Twin(ctx)
}

// Report implements control.Backend.
func (rt *running) Report(ctx context.Context, patch json.RawMessage) (int64, error) {
	return rt.client.PatchReported(ctx, patch)
}
