package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub"
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
	uploads    hubUploadFlags
	verbose    bool
}

func newHubServeCommand() *cobra.Command {
	var f hubServeFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the embedded hub until it is told to stop",
		Long: `Run the embedded hub: MQTT over TLS, and REST, file uploads and MQTT over WebSocket on the HTTPS port. Its
state survives a restart in --dir; its own certificate authority is DIR/ca.pem, which devices have to trust.`,
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
	flags.DurationVar(&f.tokenGrace, "token-grace", 0, "how long a token is good after its end")
	f.uploads.add(cmd)
	flags.BoolVar(&f.verbose, "verbose", false, "log every request")
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
	cfg := hub.Config{
		Dir: dir, Hostnames: f.hostnames, Bind: f.bind, MQTTPort: f.mqttPort, HTTPSPort: f.httpsPort, TokenGrace: f.tokenGrace, Logger: log,
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
		err = h.Wait(ctx)
		log.Info("hub stopped")
	} else {
		err = errors.Join(err, h.Close(ctx))
	}
	return errors.Join(err, removeFiles(f.announcements(dir)))
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
