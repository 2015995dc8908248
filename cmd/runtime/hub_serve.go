package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
)

// The ports of IoT Hub, and where HTTPS goes without the right to bind 443.
const (
	hubMQTTPort      = 8883
	hubHTTPSPort     = 443
	hubHTTPSFallback = 8443
)

type hubServeFlags struct {
	dir        string
	hostnames  []string
	bind       string
	mqttPort   int
	httpsPort  int
	readyFile  string
	tokenGrace time.Duration
	events     []string
	unsettled  hub.Unsettled
	disabled   int
	maxTLS     string
	uploads    hubUploadFlags
	verbose    bool
}

// addUnsettled adds a flag for each question that Microsoft's documents leave open.
func (f *hubServeFlags) addUnsettled(cmd *cobra.Command) {
	flags, u := cmd.Flags(), &f.unsettled
	flags.DurationVar(&f.tokenGrace, "token-grace", 0, "how long a token is good after its end; a real hub is said to allow 10m")
	flags.IntVar(&f.disabled, "disabled-code", 3, "CONNACK code for a disabled device, 1 to 5")
	flags.StringVar(&f.maxTLS, "tls-max", "1.3", "newest version of TLS on offer, 1.2 or 1.3")
	flags.BoolVar(&u.KeepAliveOff, "keep-alive-off", false, "a client that asks for no keep-alive may stay silent for ever, not 1767 s")
	flags.StringVar(&u.RetainValue, "retain-value", "true", "value of the property mqtt-retain")
	flags.IntVar(&u.MethodsInFlight, "methods-in-flight", 100, "how many direct methods may wait for one device; more are 429")
	flags.BoolVar(&u.C2DNeedsSession, "c2d-needs-session", false, "refuse cloud-to-device messages for a device without a session")
	flags.BoolVar(&u.ReportedETag, "reported-etag", false, "reported properties change a twin's etag too")
	flags.BoolVar(&u.RefuseReported, "refuse-reported", false, "refuse a service's twin patch that touches reported properties, instead of leaving them out")
	flags.IntVar(&u.QueryPage, "query-page", 100, "results of a query that asks for no number")
}

func (f *hubServeFlags) checkUnsettled() error {
	u := &f.unsettled
	if f.disabled < 1 || f.disabled > 5 {
		return usagef("--disabled-code %d is not between 1 and 5", f.disabled)
	}
	u.DisabledCode = byte(f.disabled)
	switch f.maxTLS {
	case "1.2":
		u.MaxTLS = tls.VersionTLS12
	case "1.3":
		u.MaxTLS = tls.VersionTLS13
	default:
		return usagef("--tls-max %q is neither 1.2 nor 1.3", f.maxTLS)
	}
	if u.MethodsInFlight < 1 || u.QueryPage < 1 || u.QueryPage > 1000 {
		return usagef("--methods-in-flight must be at least 1, --query-page 1 to 1000")
	}
	return nil
}

func newHubServeCommand() *cobra.Command {
	var f hubServeFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the embedded hub until it is told to stop",
		Long: `Run the embedded hub: MQTT over TLS, and REST, file uploads and MQTT over WebSocket on the HTTPS port; a
device provisioning service at both. Its state survives a restart in --dir; its own certificate authority is
DIR/ca.pem, which devices have to trust.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", defaultHubDir(), "directory for the hub's state")
	flags.StringArrayVar(&f.hostnames, "hostname", []string{"localhost"}, "name of the hub, in connection strings; further ones are names it answers to as well (repeatable)")
	flags.StringVar(&f.bind, "bind", "127.0.0.1", "address to listen on")
	flags.IntVar(&f.mqttPort, "mqtt-port", hubMQTTPort, "TCP port of MQTT over TLS, 0 for any free one")
	flags.IntVar(&f.httpsPort, "https-port", hubHTTPSPort, "TCP port of HTTPS and WebSocket, 0 for any free one; unless given, 8443 where 443 cannot be had")
	flags.StringVar(&f.readyFile, "ready-file", "", "file that receives a JSON object once connections are accepted: hostname, mqtt, https, ca_file, service_connection_string")
	flags.StringSliceVar(&f.events, "events", nil, "events to tell beside telemetry, as a hub with a route for them does: "+strings.Join(api.EventSources(), ", ")+"; or all")
	f.uploads.add(cmd)
	flags.BoolVar(&f.verbose, "verbose", false, "log every request")
	f.addUnsettled(cmd)
	return cmd
}

func (f *hubServeFlags) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return fmt.Errorf("find --dir: %w", err)
	}
	for _, port := range []int{f.mqttPort, f.httpsPort} {
		if port < 0 || port > 65535 {
			return usagef("port %d is not between 0 and 65535", port)
		}
	}
	if net.ParseIP(f.bind) == nil {
		return usagef("--bind %q is not an IP address", f.bind)
	}
	if err := f.checkUnsettled(); err != nil {
		return err
	}
	if slices.Equal(f.events, []string{api.SourceAll}) {
		f.events = api.EventSources()
	}
	for _, name := range f.events {
		if !slices.Contains(api.EventSources(), name) {
			return usagef("--events %q is none of %s, all", name, strings.Join(api.EventSources(), ", "))
		}
	}
	cfg := hub.Config{
		Dir: dir, Hostnames: f.hostnames, Bind: f.bind, MQTTPort: f.mqttPort, HTTPSPort: f.httpsPort, TokenGrace: f.tokenGrace, Events: f.events, Unsettled: f.unsettled, Logger: log,
	}
	if cfg.Uploads, err = f.uploads.settings(); err != nil {
		return err
	}
	if !cmd.Flags().Changed("https-port") {
		cfg.HTTPSFallbackPort = hubHTTPSFallback
	}
	// The directory before the ports: who runs two hubs on one is told so, whichever is in use as well.
	h, err := hub.New(cfg)
	if errors.Is(err, hub.ErrInUse) {
		return &exitError{exitInUse, err}
	}
	if err != nil {
		return err
	}
	// What a killed hub has left would pass for this one's word.
	if err = removeFiles(f.announcements(dir)); err == nil {
		err = h.Start()
	}
	if err != nil {
		return errors.Join(err, h.Close(ctx))
	}
	if err = f.announce(h, dir); err == nil {
		log.Info("hub accepts connections", "hostname", h.Hostname(), "mqtt", h.MQTTAddr().String(), "https", h.HTTPSAddr().String(), "dir", dir)
		f.explain(cmd.ErrOrStderr(), h, dir)
		err = h.Wait(ctx)
		log.Info("hub stopped")
	} else {
		err = errors.Join(err, h.Close(ctx))
	}
	return errors.Join(err, removeFiles(f.announcements(dir)))
}

// explain says how to reach the hub and what to try next. Nothing depends on it being read.
func (f *hubServeFlags) explain(w io.Writer, h *hub.Hub, dir string) {
	at := ""
	if dir != defaultHubDir() {
		at = " --dir " + dir
		if strings.ContainsAny(dir, " '\"$&;()") {
			at = " --dir " + strconv.Quote(dir)
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(left, right string) { _, _ = fmt.Fprintf(t, "  %s\t%s\n", left, right) } // nothing depends on it
	ca := filepath.Join(dir, hub.CAFile)
	_, _ = fmt.Fprintf(t, "\nThe hub %s is ready.\n", h.Hostname())
	line("MQTT over TLS", dialable(h.MQTTAddr()))
	line("REST, files, and MQTT over WebSocket", dialable(h.HTTPSAddr()))
	line("devices have to trust", ca)
	_, _ = fmt.Fprint(t, "Try, in another terminal:\n")
	for _, try := range [][2]string{
		{"device add dev1 --out dev1.cs", "register a device, and learn how to run it"},
		{"monitor", "watch what devices send"},
		{"method dev1 ping --payload '{\"a\":1}'", "call a direct method"},
		{"c2d dev1 hello", "send a cloud-to-device message"},
		{`twin patch dev1 '{"properties":{"desired":{"interval":10}}}'`, "change desired properties"},
		{"files notifications --follow", "watch what devices upload"},
		{"enrollment add press-7", "let a device provision itself"},
		{"fault add cut --device dev1 --duration 30s", "make something go wrong"},
	} {
		line("fairlead hub "+try[0]+at, "# "+try[1])
	}
	_, _ = fmt.Fprintf(t, "Microsoft's SDKs for Node trust it with NODE_EXTRA_CA_CERTS=%s\n\n", ca)
	_ = t.Flush()
}

// announcements are the files that say how to reach the hub.
func (f *hubServeFlags) announcements(dir string) []string {
	names := []string{filepath.Join(dir, hubFile)}
	if f.readyFile != "" {
		names = append(names, f.readyFile)
	}
	return names
}

// removeFiles removes files; one that is not there is fine, and so is one that is none, such as /dev/stdout.
func removeFiles(names []string) error {
	var err error
	for _, name := range names {
		if info, statErr := os.Lstat(name); statErr != nil || !info.Mode().IsRegular() {
			continue
		}
		if removeErr := os.Remove(name); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove the ready file: %w", removeErr))
		}
	}
	return err
}

// announce writes how to reach the hub to DIR/hub.json and to the ready file.
func (f *hubServeFlags) announce(h *hub.Hub, dir string) error {
	cs, err := h.ServiceConnectionString("iothubowner")
	if err != nil {
		return err
	}
	text, err := json.Marshal(hubReady{
		Hostname: h.Hostname(), MQTT: dialable(h.MQTTAddr()), HTTPS: dialable(h.HTTPSAddr()),
		CAFile: filepath.Join(dir, hub.CAFile), ServiceConnectionString: cs,
	})
	if err != nil {
		return fmt.Errorf("encode ready file: %w", err)
	}
	for _, name := range f.announcements(dir) {
		if err := writeSecret(name, append(text, '\n')); err != nil {
			return fmt.Errorf("write ready file: %w", err)
		}
	}
	return nil
}

// dialable is an address that a client on this machine can dial.
func dialable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// writeSecret puts a file in place at once, with mode 0600.
func writeSecret(name string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
