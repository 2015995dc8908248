package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core/engine"
	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
)

const (
	demoDevice = "demo"
	demoPlugin = "hostmetrics"
	// demoMin leaves room for each step, the cut link among them.
	demoMin = 8 * time.Second
	demoCut = 2 * time.Second
)

func newDemoCommand() *cobra.Command {
	var length time.Duration
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show everything once: a hub, a device and a plugin, on this machine alone",
		Long: `Start an embedded IoT hub, a device connected to it and the hostmetrics plugin in a
process of its own, and show what flows: telemetry, a method call, a message to
the device, a change of the desired properties and its confirmation, a file that
is uploaded, and a cut link. Exits 0 only if each happened and both sides count
the same.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if length < demoMin {
				return usagef("--for %v: the demo needs at least %v to show everything", length, demoMin)
			}
			level := "error"
			if verbose {
				level = "debug"
			}
			d := &demo{out: cmd.OutOrStdout(), began: time.Now(), length: length, log: newLogger(cmd.ErrOrStderr(), config.Log{Level: level, Format: "text"})}
			s, err := d.run(cmd.Context())
			if asJSON {
				b, jsonErr := json.Marshal(s)
				if jsonErr != nil {
					return fmt.Errorf("write summary: %w", jsonErr)
				}
				_, _ = fmt.Fprintf(d.out, "%s\n", b) // an unwritable stdout shows in the exit code of who reads it
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&length, "for", 20*time.Second, "how long to run")
	cmd.Flags().BoolVar(&asJSON, "json", false, "end with a summary as one JSON object on a line")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log what hub and device do to stderr")
	return cmd
}

// demoSummary is what both sides counted; the runtime's numbers stand first.
type demoSummary struct {
	OK                    bool     `json:"ok"`
	TelemetryAcknowledged uint64   `json:"telemetry_acknowledged"`
	MethodsAnswered       uint64   `json:"methods_answered"`
	C2DCompleted          uint64   `json:"c2d_completed"`
	DesiredVersion        int64    `json:"desired_version"`
	ReportedVersion       int64    `json:"reported_version"`
	PluginPID             int      `json:"plugin_pid"`
	Reconnects            uint64   `json:"reconnects"`
	FilesUploaded         uint64   `json:"files_uploaded"`
	Hub                   demoHub  `json:"hub"`
	Missing               []string `json:"missing,omitempty"`
	Seconds               float64  `json:"seconds"`
}

// demoHub is the hub's view of the same.
type demoHub struct {
	TelemetryReceived uint64 `json:"telemetry_received"` // distinct message ids
	MethodsAnswered   uint64 `json:"methods_answered"`
	C2DCompleted      uint64 `json:"c2d_completed"`
	DesiredVersion    int64  `json:"desired_version"`
	ReportedVersion   int64  `json:"reported_version"`
	Reconnects        uint64 `json:"reconnects"`
	FilesUploaded     uint64 `json:"files_uploaded"` // whose notifications wait for a service
}

// demo is one run of the demo.
type demo struct {
	out    io.Writer
	log    *slog.Logger
	began  time.Time
	length time.Duration
	hub    *hub.Hub
	device *running

	mu      sync.Mutex
	missing []string
}

// say adds a line to the timeline.
func (d *demo) say(who, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _ = fmt.Fprintf(d.out, "%6.2fs  %-7s %s\n", time.Since(d.began).Seconds(), who, fmt.Sprintf(format, args...))
}

func (d *demo) miss(what string, err error) {
	d.say("MISSING", "%s: %v", what, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.missing = append(d.missing, what)
}

func (d *demo) run(ctx context.Context) (s demoSummary, err error) {
	dir, err := os.MkdirTemp("", "fairlead-demo-")
	if err != nil {
		return s, fmt.Errorf("make the demo's directory: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	if d.hub, err = hub.New(hub.Config{Logger: d.log.With("side", "hub")}); err != nil {
		return s, fmt.Errorf("make the hub: %w", err)
	}
	if err := d.hub.Start(); err != nil {
		return s, fmt.Errorf("start the hub: %w", err)
	}
	defer d.hub.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing of it is kept
	d.say("hub", "an embedded IoT Hub accepts MQTT over TLS at %s", d.hub.MQTTAddr())
	c, err := d.configure(dir)
	if err != nil {
		return s, err
	}
	if d.device, err = assemble(c, d.log.With("side", "device")); err != nil {
		return s, err
	}
	defer d.device.unlock()
	status, err := d.show(ctx)
	if shutdownErr := d.device.shutdown(); shutdownErr != nil {
		d.miss("a clean end", shutdownErr)
	}
	if err != nil {
		return s, err
	}
	return d.summary(status)
}

// configure registers the device and writes the configuration that a user would.
func (d *demo) configure(dir string) (*config.Config, error) {
	if _, err := d.hub.CreateDevice(api.Device{DeviceID: demoDevice}); err != nil {
		return nil, fmt.Errorf("register the device: %w", err)
	}
	secret, err := d.hub.ConnectionString(demoDevice)
	if err != nil {
		return nil, fmt.Errorf("get the connection string: %w", err)
	}
	var ports [2]string
	for i, addr := range []net.Addr{d.hub.MQTTAddr(), d.hub.HTTPSAddr()} {
		if _, ports[i], err = net.SplitHostPort(addr.String()); err != nil {
			return nil, fmt.Errorf("read the hub's address: %w", err)
		}
	}
	ca := strconv.Quote(filepath.Join(dir, "ca.pem"))
	files := map[string]string{
		"device.cs": secret,
		"ca.pem":    string(d.hub.CAPEM()),
		"fairlead.yaml": `version: 1
device:
  connection_string: {file: ` + strconv.Quote(filepath.Join(dir, "device.cs")) + `}
tls:
  server_verification_cert: {file: ` + ca + `}
  extra_ca: {file: ` + ca + `} # of the storage
transports:
  - {use: mqtt, port: ` + ports[0] + `, address: 127.0.0.1}
uploads: {port: ` + ports[1] + `, address: 127.0.0.1}
plugins:
  ` + demoPlugin + `:
    builtin: hostmetrics
    settings: {interval: 2s}
state_dir: ` + strconv.Quote(dir) + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("write the demo's configuration: %w", err)
		}
	}
	return config.Load(filepath.Join(dir, "fairlead.yaml"), config.Options{Environ: []string{}})
}

// show walks through the flows while a watcher shows telemetry, and returns the device's status at the end.
func (d *demo) show(ctx context.Context) (engine.Status, error) {
	e := d.device.client.Engine()
	stop := e.Device(0).Watch(d.showConnection())
	defer stop()
	ctx, cancel := context.WithDeadline(ctx, d.began.Add(d.length))
	defer cancel()
	watching, stopWatching := context.WithCancel(ctx)
	telemetry := make(chan api.Message, 1024)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		d.watchTelemetry(watching, telemetry)
	}()
	defer func() {
		stopWatching()
		<-watched
	}()

	if err := d.await(ctx, "a session and a running plugin", func() bool {
		s, err := e.Status(ctx)
		return err == nil && s.Connection.Connected() && len(s.Plugins) == 2 && s.Plugins[1].PID != 0
	}); err != nil {
		return engine.Status{}, d.failed(ctx)
	}
	if s, err := e.Status(ctx); err == nil {
		d.say("device", "plugin %s runs in its own process, pid %d", demoPlugin, s.Plugins[1].PID)
	}
	d.awaitTelemetry(ctx, telemetry, "telemetry")
	d.showMethod(ctx)
	d.showMessage(ctx)
	d.showDesired(ctx)
	d.showUpload(ctx)
	d.showCut(ctx, e, telemetry)
	<-ctx.Done()
	// What the last moment has begun is let come to its end: the counts of both sides are compared.
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	s, err := e.Status(ctx)
	if err != nil {
		return s, fmt.Errorf("ask for the status: %w", err)
	}
	if err := d.device.client.Shutdown(ctx); err != nil {
		d.miss("a clean end", err)
	}
	final, err := e.Status(ctx)
	final.Plugins = s.Plugins
	return final, err
}

// failed says why the device did not start.
func (d *demo) failed(ctx context.Context) error {
	select {
	case p := <-d.device.failed:
		return errors.New(p.String())
	default:
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return errors.New("the demo was stopped")
	}
	return errors.New("the device did not come up")
}

// await polls a condition on the hub, which tells nobody of it.
func (d *demo) await(ctx context.Context, what string, ok func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			err := errors.New("it did not happen in time")
			d.miss(what, err)
			return err
		}
	}
	return nil
}
