package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/engine"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/internal/clock"
	"github.com/fairlead-iot/fairlead/internal/control"
	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/mqttws"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// running is one device put together from its configuration.
type running struct {
	cfg    *config.Config
	log    *slog.Logger
	client *device.Client
	// unlock gives the state directory and the identity up.
	unlock func()
	// metrics are those of the plugins.
	metrics *metrics
	clock   *clock.Clock
	time    timeSource
	// date asks the hub for the time.
	date *dateAsker
	// proof are the files by which the device proves who it is.
	proof *proofFiles
	// token is the SAS token that the device was started with, where it has one.
	token core.Secret
	// history is what outlives the process of the connection's past.
	history *keeper
	// failed gets the first plugin that cannot be started at all.
	failed chan config.Problem
	// assembled is closed when client is set.
	assembled chan struct{}
}

// assemble puts a device together and starts it: credentials, transports, plugins, client, in this order. What the user
// can mend is a usage error.
func assemble(c *config.Config, log *slog.Logger) (*running, error) {
	return assembleWith(c, log, realTime())
}

// assembleWith is assemble with the time from elsewhere.
func assembleWith(c *config.Config, log *slog.Logger, from timeSource) (_ *running, err error) {
	if problems := append(checkFiles(c), c.Unsupported()...); len(problems) > 0 {
		return nil, usageError(&config.Error{Problems: problems})
	}
	for _, p := range cautions(c) {
		log.Warn("configuration", "problem", p.String())
	}
	for _, text := range host.Limitations() {
		log.Debug("plugins on this system", "limitation", text)
	}
	rt := &running{
		cfg: c, log: log, time: from, metrics: newMetrics(), proof: filesOf(&c.Device), failed: make(chan config.Problem, 1), assembled: make(chan struct{}),
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return nil, configProblem(c, "state_dir", fmt.Errorf("make the state directory: %w", err))
	}
	if rt.unlock, err = lockStateDir(c.StateDir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			rt.unlock()
		}
	}()
	rt.history = newKeeper(c.StateDir, log)
	defer func() {
		if err != nil {
			rt.history.close()
		}
	}()
	if rt.clock, err = newClock(c.StateDir, from); err != nil {
		log.Warn("the time of the last run is not known", "error", err)
	}
	plugins, err := rt.plugins()
	if err != nil {
		return nil, err
	}
	cfg := device.Config{
		Plugins: plugins, Logger: log, Route: rt.history.lastRoute(), OnRoute: rt.history.keepRoute, OnHappening: rt.history.keepHappening,
		AutoConnect: c.Connection.AutoConnect, ConnectAtStart: c.Connection.AutoConnect, ConnectionRetry: c.Connection.Retry,
		ConnectionRetryInterval: c.Connection.RetryInterval, ConnectionRetryMax: c.Connection.RetryMax,
		EnsureDesiredProperties: c.Connection.EnsureDesiredProperties,
		OutboxMessages:          c.Outbox.MaxMessages, OutboxBytes: int(c.Outbox.MaxBytes),
		OnPluginFailed: func(name string, start core.Start, reason string) {
			if start > 1 {
				return // it has run: the device stays up without it, and status says why
			}
			select {
			case rt.failed <- c.Problem("plugins."+name, "%s", reason):
			default:
			}
		},
	}
	if err := rt.identify(&cfg); err != nil {
		return nil, err
	}
	who := whoStarts(c, &cfg)
	release, err := lockIdentity(identityLock(c, cfg.Identity), who, log)
	if err != nil {
		return nil, err
	}
	unlock := rt.unlock
	rt.unlock = func() { release(); unlock() }
	log.Info("starting", "version", readVersion().Version, "device", who, "plugins", len(plugins), "outbox", c.Outbox.Mode)
	if rt.client, err = device.New(cfg); err != nil {
		return nil, err
	}
	close(rt.assembled)
	return rt, nil
}

// credential makes the identity and the source of its credentials.
func credential(c *config.Config, now func() time.Time, log *slog.Logger) (core.Identity, core.CredentialSource, error) {
	switch {
	case c.Device.X509 != nil:
		return x509Credential(c, now)
	case !c.Device.SASToken.IsZero():
		return tokenCredential(c, now)
	}
	var identity core.Identity
	var read func() (core.Secret, error)
	var position string
	if sk := c.Device.SymmetricKey; sk != nil {
		position = "device.symmetric_key.key"
		identity = core.Identity{Hostname: sk.Hostname, DeviceID: sk.DeviceID, ModuleID: sk.ModuleID}
		read = sk.Key.Resolve
	} else {
		position = "device.connection_string"
		text, err := c.Device.ConnectionString.Resolve()
		if err != nil {
			return identity, nil, configProblem(c, position, err)
		}
		cs, err := credentials.ParseConnectionString(text.Reveal())
		if err != nil {
			return identity, nil, configProblem(c, position, err)
		}
		identity, read = cs.Identity, rereadConnectionString(c.Device.ConnectionString, cs.Identity)
	}
	if c.Device.GatewayHostname != "" {
		identity.Gateway = c.Device.GatewayHostname
	}
	source, err := newRereadKey(log, read, func(key core.Secret) (core.CredentialSource, error) {
		return credentials.NewSharedKey(identity, key, c.Device.SASTokenTTL, now)
	})
	if err != nil {
		return identity, nil, configProblem(c, position, err)
	}
	return identity, source, nil
}

func configProblem(c *config.Config, key string, err error) error {
	return usageError(&config.Error{Problems: []config.Problem{c.Problem(key, "%v", err)}})
}

// problemsOf returns the problems of the configuration that an error holds.
func problemsOf(err error) []config.Problem {
	if e, ok := errors.AsType[*config.Error](err); ok {
		return e.Problems
	}
	return nil
}

// userAgent is what the hub is told of this program.
func userAgent() string {
	v := readVersion()
	return fmt.Sprintf("fairlead/%s (%s)", v.Version, v.Platform)
}

// hubTrust says by which authorities the hub, or its gateway, is known. edgeCA, if given, takes the place of
// server_verification_cert.
func hubTrust(c *config.Config, edgeCA []byte) (netdial.TLSConfig, error) {
	trust := netdial.TLSConfig{ServerVerificationCert: edgeCA}
	for _, p := range []struct {
		key string
		pem config.PEM
		to  *[]byte
	}{
		{"tls.server_verification_cert", c.TLS.ServerVerificationCert, &trust.ServerVerificationCert},
		{"tls.extra_ca", c.TLS.ExtraCA, &trust.ExtraCA},
	} {
		if p.pem.IsZero() {
			continue
		}
		text, err := p.pem.Read()
		if err != nil {
			return trust, configProblem(c, p.key, err)
		}
		*p.to = text
	}
	ciphers, err := netdial.ParseCiphers(c.TLS.Cipher)
	if err != nil {
		return trust, configProblem(c, "tls.cipher", err)
	}
	trust.Ciphers = ciphers
	return trust, nil
}

// makeTransports makes the routes to an identity's hub.
func makeTransports(c *config.Config, identity core.Identity, edgeCA []byte, now func() time.Time, log *slog.Logger) ([]core.Transport, error) {
	routes, err := routeConfigs(c, identity, edgeCA, now, log)
	if err != nil {
		return nil, err
	}
	var out []core.Transport
	for i, t := range c.Transports {
		newTransport := mqtt.New
		if t.Use == config.UseWebSocket {
			newTransport = mqttws.New
		}
		m, err := newTransport(routes[i])
		if err != nil {
			return nil, configProblem(c, fmt.Sprintf("transports[%d]", i), err)
		}
		out = append(out, m)
	}
	return out, nil
}

// routeConfigs says how to reach an identity's hub by each of the routes.
func routeConfigs(c *config.Config, identity core.Identity, edgeCA []byte, now func() time.Time, log *slog.Logger) ([]mqtt.Config, error) {
	trust, err := hubTrust(c, edgeCA)
	if err != nil {
		return nil, err
	}
	var out []mqtt.Config
	names := routeNames(c.Transports)
	for i, t := range c.Transports {
		proxy, err := routeProxy(c, i)
		if err != nil {
			return nil, err
		}
		out = append(out, mqtt.Config{
			Name: names[i], Identity: identity, ProductInfo: c.Device.ProductInfo, UserAgent: userAgent(), KeepAlive: c.Connection.KeepAlive,
			Port: t.Port, Address: t.Address, TLS: trust, Proxy: proxy, Now: now, Logger: log,
		})
	}
	return out, nil
}

func (rt *running) plugins() ([]engine.Plugin, error) {
	var out []engine.Plugin
	for _, p := range rt.cfg.Plugins {
		settings, err := json.Marshal(p.Settings)
		if err != nil {
			return nil, configProblem(rt.cfg, "plugins."+p.Name+".settings", err)
		}
		if p.Settings == nil {
			settings = nil
		}
		dir := filepath.Join(rt.cfg.StateDir, "plugins", p.Name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the plugin's directory: %w", err)
		}
		hc := host.Config{
			Name: p.Name, Command: p.Command, Env: p.Env, Dir: dir, RuntimeDir: filepath.Join(rt.cfg.StateDir, "run"),
			Settings: settings, Logger: rt.log, Metric: rt.metrics.observe,
			Files: rt.door(p.Name, p.Uploads),
		}
		if p.Builtin != "" {
			hc.BuiltinArgs = []string{builtinCommand, p.Builtin}
		}
		ep := engine.Plugin{
			PluginConfig: core.PluginConfig{Name: p.Name, Methods: p.Methods, MethodTimeout: p.MethodTimeout},
			Launcher:     host.New(hc), TwinKeys: p.TwinKeys,
		}
		if p.Messages != nil {
			ep.Match = map[string]string(p.Messages.Match)
			if ep.Match == nil {
				ep.Match = map[string]string{}
			}
		}
		out = append(out, ep)
	}
	return out, os.MkdirAll(filepath.Join(rt.cfg.StateDir, "run"), 0o700)
}

// serve answers on the control socket until ctx ends, and then shuts the device down. ctx's end is the signal to stop.
func (rt *running) serve(ctx context.Context) error {
	defer rt.unlock()
	defer rt.history.close()
	l, err := control.Listen(rt.cfg.StateDir)
	if err != nil {
		return errors.Join(err, rt.shutdown())
	}
	// Operators may watch the shutdown: the socket closes last.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- control.Serve(serving, l, rt, rt.log) }()
	watching := rt.watchToken(serving)
	defer watching.Wait()
	watching.Go(func() { rt.clock.Watch(serving, func(by time.Duration) { rt.clockJumped(serving, by) }) })
	watching.Go(func() { rt.keepTime(serving) })
	watching.Go(func() { rt.watchProof(serving) })
	watching.Go(func() { rt.watchLinks(serving) })
	var cause error
	select {
	case <-ctx.Done():
		rt.log.Info("stopping", "limit", shutdownLimit.String())
	case p := <-rt.failed:
		cause = usageError(&config.Error{Problems: []config.Problem{p}})
	case err := <-served:
		cause = errors.Join(errors.New("the control socket failed"), err)
		served <- nil
	}
	err = rt.shutdown()
	stop()
	return errors.Join(cause, err, <-served)
}

// shutdownLimit is a little more than the machine takes at most.
const shutdownLimit = 10 * time.Second

func (rt *running) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit) // the signal's context has ended
	defer cancel()
	err := rt.client.Shutdown(ctx)
	if errors.Is(err, engine.ErrUnsent) {
		return fmt.Errorf("%w: the outbox is in memory, and they are lost", err)
	}
	return err
}
