package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
)

// newHubCommand returns the embedded hub: running it, and the service side of it or of a real one.
func newHubCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Run an embedded IoT Hub, and act as its service side",
		Long: `Run an embedded IoT Hub without an Azure account, and do what a service does: register devices, change
twins, call methods, send and watch messages, see uploaded files, and make things go wrong on purpose.

Every command but serve finds the running hub by its --dir. With --connection-string (the text, or @FILE)
or IOTHUB_CONNECTION_STRING in the environment it talks to a real hub, as far as that can be done over HTTPS.`,
	}
	cmd.AddCommand(
		newHubServeCommand(),
		newHubDeviceCommand(),
		newHubCACommand(),
		newHubTwinCommand(),
		newHubMethodCommand(),
		newHubC2DCommand(),
		newHubFeedbackCommand(),
		newHubMonitorCommand(),
		newHubFilesCommand(),
		newHubFaultCommand(),
		newHubEnrollmentCommand(),
	)
	return cmd
}

// hubFile is where a running hub says, below its directory, how to reach it.
const hubFile = "hub.json"

// hubReady is what --ready-file receives, and hubFile.
type hubReady struct {
	Hostname                string `json:"hostname"`
	MQTT                    string `json:"mqtt"`  // host:port
	HTTPS                   string `json:"https"` // host:port
	CAFile                  string `json:"ca_file"`
	ServiceConnectionString string `json:"service_connection_string"`
}

// defaultHubDir is where the hub keeps its state unless told otherwise.
func defaultHubDir() string {
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "fairlead-hub")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "fairlead-hub"
	}
	return filepath.Join(home, ".local", "state", "fairlead-hub")
}

// hubTarget chooses the hub that a command acts on.
type hubTarget struct {
	dir              string
	connectionString string
}

func (t *hubTarget) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.dir, "dir", defaultHubDir(), "directory of the running embedded hub")
	cmd.Flags().StringVar(&t.connectionString, "connection-string", "", "service connection string of a real hub, or @FILE that holds it (better: the text would be visible to other users)")
	_ = cmd.MarkFlagDirname("dir") // the flag exists: it was added above
}

// isRemote reports whether the command acts on a real hub. --dir on the command line beats the environment.
func (t *hubTarget) isRemote(cmd *cobra.Command) bool {
	if t.connectionString == "" && !cmd.Flags().Changed("dir") {
		t.connectionString = os.Getenv("IOTHUB_CONNECTION_STRING")
	}
	return t.connectionString != ""
}

// ready reads how to reach the running embedded hub.
func (t *hubTarget) ready() (hubReady, error) {
	var r hubReady
	data, err := os.ReadFile(filepath.Join(t.dir, hubFile)) //nolint:gosec // the user's own directory
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("no hub runs in %s: start one with fairlead hub serve --dir %s", t.dir, t.dir)
	}
	if err != nil {
		return r, fmt.Errorf("find the running hub: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", filepath.Join(t.dir, hubFile), err)
	}
	return r, nil
}

// client makes a client of the chosen hub.
func (t *hubTarget) client(cmd *cobra.Command) (*service.Client, error) {
	if t.isRemote(cmd) {
		text := t.connectionString
		if name, ok := strings.CutPrefix(text, "@"); ok {
			data, err := os.ReadFile(name) //nolint:gosec // the user names it
			if err != nil {
				return nil, usagef("read --connection-string: %w", err)
			}
			text = string(data)
		}
		c, err := service.New(text, service.Options{})
		if err != nil {
			return nil, usageError(err)
		}
		return c, nil
	}
	r, err := t.ready()
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(r.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the hub's CA: %w", err)
	}
	return service.New(r.ServiceConnectionString, service.Options{CAPEM: ca, Address: r.HTTPS})
}

// needsEmbedded refuses what a real hub has over AMQP only, and names what does it there.
func (t *hubTarget) needsEmbedded(cmd *cobra.Command, what, az string) error {
	if t.isRemote(cmd) {
		return usagef("%s needs AMQP on a real hub, which this program does not speak; use: %s", what, az)
	}
	return nil
}

// hubError gives a hub's refusal the exit code that it deserves.
func hubError(err error) error {
	if e, ok := errors.AsType[*api.Error](err); ok && e.HTTPStatus == 400 {
		return usageError(err)
	}
	return err
}

// withHub runs f with a client of the chosen hub.
func (t *hubTarget) withHub(cmd *cobra.Command, f func(c *service.Client) error) error {
	c, err := t.client(cmd)
	if err != nil {
		return err
	}
	defer c.Close()
	return hubError(f(c))
}

// printLine writes a value on one line of stdout.
func printLine(cmd *cobra.Command, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
	return err
}

// printIndented writes JSON for people, and for programs.
func printIndented(cmd *cobra.Command, text json.RawMessage) error {
	var v any
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return fmt.Errorf("decode result: %w", err)
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", out)
	return err
}
