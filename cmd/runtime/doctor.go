package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/internal/clock"
	"github.com/fairlead-iot/fairlead/internal/control"
	"github.com/fairlead-iot/fairlead/internal/doctor"
	"github.com/fairlead-iot/fairlead/store"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

const (
	// doctorLimit is above what the slowest route takes by the bounds of its dialer, but for a proxy that is slow as well.
	doctorLimit = 30 * time.Second
	// sessionLimit is how long a running runtime may take to say how it is.
	sessionLimit = 3 * time.Second
)

func newDoctorCommand() *cobra.Command {
	var flags configFlags
	var asJSON bool
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Walk the real way to the hub layer by layer, and say what to do",
		Long: `Walk the way to the hub as the runtime would, layer by layer and by every route:
configuration, clock, storage, credential; DNS, TCP, proxy, TLS, WebSocket, HTTPS.
Each finding has a code that docs/doctor.md lists, a cause and a fix.

A running device is not disturbed: no session is opened, no message taken, nothing
sent. Run it as the user that runs fairlead, on the same machine and network.

Exit codes: 0 the device gets through by at least one route, and nothing that was
found keeps it from working (warnings may be there); 1 a problem was found; 2 the
configuration is wrong, and nothing else was looked at.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit <= 0 {
				return usagef("--timeout %v: it must be more than 0", limit)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			report, err := examine(ctx, &flags)
			if report != nil && asJSON {
				err = errors.Join(err, printJSON(cmd.OutOrStdout(), report))
			}
			if err != nil {
				return err
			}
			if !asJSON {
				if err := report.WriteText(cmd.OutOrStdout()); err != nil {
					return err
				}
			}
			if !report.Healthy {
				return &exitError{exitFailed, nil}
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().DurationVar(&limit, "timeout", doctorLimit, "how long to look at most")
	return cmd
}

// examine looks at everything. A wrong configuration is an error, beside a report that says the same.
func examine(ctx context.Context, flags *configFlags) (*doctor.Report, error) {
	c, err := flags.load()
	if err != nil {
		return wrongConfig(err), err
	}
	if problems := doctorProblems(c); len(problems) > 0 {
		err := usageError(&config.Error{Problems: problems})
		return wrongConfig(err), err
	}
	cfg, err := doctorConfig(c)
	if err != nil {
		return wrongConfig(err), err
	}
	return doctor.Run(ctx, cfg), nil
}

// wrongConfig is the report of a configuration that cannot be used; nil where err is of another kind.
func wrongConfig(err error) *doctor.Report {
	e, ok := errors.AsType[*config.Error](err)
	if !ok {
		return nil
	}
	r := &doctor.Report{Version: doctor.ReportVersion, Time: time.Now().UTC().Round(0), Ways: []doctor.Way{}}
	for _, p := range e.Problems {
		r.Checks = append(r.Checks, doctor.Find("config-wrong", doctor.Problem, p.String()))
	}
	return r
}

// doctorProblems is checkFiles but for the state directory's state, which the doctor says in more words.
func doctorProblems(c *config.Config) []config.Problem {
	var out []config.Problem
	isLong := control.CheckDir(c.StateDir) != nil
	for _, p := range checkFiles(c) {
		if p.Key != "state_dir" || isLong {
			out = append(out, p)
		}
	}
	return out
}

// doctorEdge says who a module is, and by which authority it knows its Edge hub.
func doctorEdge(c *config.Config, now func() time.Time) (id core.Identity, source core.CredentialSource, ca []byte, err error) {
	e, source, err := readEdge(c, now)
	if err != nil {
		return id, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), trustBundleLimit) // before anything that an operator could end
	defer cancel()
	ca, err = e.TrustBundle(ctx)
	return e.Identity, source, ca, err
}

// doctorConfig puts together what the doctor looks at, as assemble does what runs.
func doctorConfig(c *config.Config) (doctor.Config, error) {
	cfg := doctor.Config{StateDir: c.StateDir, UserAgent: userAgent(), Session: sessionOf(c), Before: configChecks(c)}
	if c.Outbox.Mode == "disk" {
		cfg.OutboxBytes = c.Outbox.MaxBytes
	}
	cfg.Clock, _ = newClock(c.StateDir, realTime()) // usable beside its error; a kept time that cannot be read proves nothing
	log := slog.New(slog.DiscardHandler)
	var edgeCA []byte
	var err error
	switch d := &c.Device; {
	case d.Provisioning != nil:
		cfg.Renewed = d.Provisioning.X509 == nil
		err = doctorProvisioning(c, &cfg, cfg.Clock, log)
	case d.EdgeEnvironment:
		cfg.Renewed = true
		cfg.Identity, cfg.Credentials, edgeCA, err = doctorEdge(c, cfg.Clock.Now)
	default:
		cfg.Renewed = d.X509 == nil && d.SASToken.IsZero()
		cfg.Identity, cfg.Credentials, err = credential(c, cfg.Clock.Now, log)
	}
	if err != nil || cfg.Identity.DeviceID == "" {
		return cfg, err
	}
	routes, err := routeConfigs(c, cfg.Identity, edgeCA, cfg.Clock.Now, log)
	if err != nil {
		return cfg, err
	}
	for i, name := range routeNames(c.Transports) {
		cfg.Routes = append(cfg.Routes, doctor.Route{Name: name, Use: doctor.Use(c.Transports[i].Use), ToHub: true, Dial: routes[i]})
	}
	https, err := httpsWay(c, routes[0])
	cfg.Routes = append(cfg.Routes, https)
	return cfg, err
}

// httpsWay is that of uploads to the hub.
func httpsWay(c *config.Config, like mqtt.Config) (doctor.Route, error) {
	like.Port, like.Address = httpsEndpoint(c)
	like.Renegotiate = true
	var err error
	like.Proxy, err = uploadsProxy(c)
	return doctor.Route{Name: "https", Use: doctor.UseHTTPS, ToHub: true, Dial: like}, err
}

// doctorProvisioning fills in the ways to the provisioning service, and who the device is if that is known already.
func doctorProvisioning(c *config.Config, cfg *doctor.Config, now *clock.Clock, log *slog.Logger) error {
	p := c.Device.Provisioning
	_, atHub, err := registrationProof(c, now.Now, log)
	if err != nil {
		return err
	}
	trust := netdial.TLSConfig{}
	if !c.TLS.ExtraCA.IsZero() {
		if trust.ExtraCA, err = c.TLS.ExtraCA.Read(); err != nil {
			return configProblem(c, "tls.extra_ca", err)
		}
	}
	for i, name := range routeNames(c.Transports) {
		use := c.Transports[i].Use
		r := mqtt.RegistrarConfig{
			Host: p.Host, Address: p.Address, IDScope: p.IDScope, RegistrationID: p.RegistrationID, UserAgent: userAgent(), TLS: trust, Now: now.Now, Logger: log,
		}
		if use == c.Transports[0].Use {
			r.Port = p.Port // as makeRegistrar has it
		}
		if r.Proxy, err = routeProxy(c, i); err != nil {
			return err
		}
		cfg.Routes = append(cfg.Routes, doctor.Route{Name: "provisioning " + name, Use: doctor.Use(use), Dial: r.Transport()})
	}
	kept := store.Assignments{
		Path: filepath.Join(c.StateDir, assignmentFile), For: store.Request{Host: p.Host, IDScope: p.IDScope, RegistrationID: p.RegistrationID},
	}
	assignment, err := kept.Load()
	if err != nil {
		return nil //nolint:nilerr // there is none, or the start will replace it
	}
	id := core.Identity{Hostname: assignment.Hostname, DeviceID: assignment.DeviceID, Gateway: c.Device.GatewayHostname}
	if cfg.Credentials, err = atHub(id); err != nil {
		return configProblem(c, "device.provisioning", err)
	}
	cfg.Identity = id
	return nil
}

// configChecks says what is right and wrong with a configuration that can be used.
func configChecks(c *config.Config) []doctor.Check {
	out := []doctor.Check{{Layer: doctor.LayerConfig, Severity: doctor.OK, Detail: checked(c)}}
	for _, p := range c.Unsupported() {
		out = append(out, doctor.Find("config-unsupported", doctor.Problem, p.String()))
	}
	for _, p := range cautions(c) {
		out = append(out, doctor.Find("config-unwise", doctor.Warning, p.String()))
	}
	return out
}

// sessionOf asks the runtime that uses the state directory.
func sessionOf(c *config.Config) func(context.Context) (doctor.Session, bool, error) {
	client := control.NewClient(filepath.Join(c.StateDir, control.SocketName))
	return func(ctx context.Context) (doctor.Session, bool, error) {
		ctx, cancel := context.WithTimeout(ctx, sessionLimit)
		defer cancel()
		s, err := client.Status(ctx)
		if errors.Is(err, control.ErrNotRunning) {
			return doctor.Session{}, false, nil
		}
		if err != nil {
			return doctor.Session{}, false, err
		}
		since := time.Duration(s.Connection.Since * float64(time.Second)).Round(time.Second)
		text := fmt.Sprintf("the running runtime is %s for %s by %s: %s", s.Connection.State, since, s.Connection.Transport, s.Connection.Reason)
		if next := s.Connection.NextAttempt; next > 0 {
			text += fmt.Sprintf("; it tries again in %s", time.Duration(next*float64(time.Second)).Round(time.Second))
		}
		return doctor.Session{Connected: s.Connection.State == core.StateConnected.String(), Text: text}, true, nil
	}
}
