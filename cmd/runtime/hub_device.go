package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
)

func newHubDeviceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "device", Short: "Register, list and delete devices"}
	cmd.AddCommand(newHubDeviceAddCommand(), newHubDeviceListCommand(), newHubDeviceDeleteCommand())
	return cmd
}

func newHubDeviceAddCommand() *cobra.Command {
	var target hubTarget
	var out string
	cmd := &cobra.Command{
		Use:   "add ID",
		Short: "Register a device (or a module, as DEVICE/MODULE) and print its connection string",
		Long: `Register a device, or a module as DEVICE/MODULE, and print its connection string, or write it to a file
with mode 0600. For the embedded hub the lines of configuration that go with it are written to stderr, since
a connection string carries neither port nor CA.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return target.withHub(cmd, func(c *service.Client) error {
				id := api.ParseID(args[0])
				d, err := c.CreateDevice(cmd.Context(), api.Device{DeviceID: id.Device, ModuleID: id.Module})
				if err != nil {
					return err
				}
				text := hub.DeviceConnectionString(c.HostName(), d) + "\n"
				file := "FILE"
				if out == "" {
					_, err = io.WriteString(cmd.OutOrStdout(), text)
				} else if err = writeSecret(out, []byte(text)); err == nil {
					file, err = filepath.Abs(out)
				}
				if err != nil || target.isRemote(cmd) {
					return err
				}
				return target.explain(cmd.ErrOrStderr(), file)
			})
		},
	}
	target.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "file to write the connection string to, with mode 0600")
	return cmd
}

// explain writes the configuration that a runtime on this machine needs beside its connection string.
func (t *hubTarget) explain(w io.Writer, file string) error {
	r, err := t.ready()
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(r.MQTT)
	if err != nil {
		return fmt.Errorf("read the hub's address: %w", err)
	}
	_, err = fmt.Fprintf(w, `# configuration for a runtime on this machine:
version: 1
device: {connection_string: {file: %s}}
transports:
  - {use: mqtt, port: %s, address: %q}
tls: {server_verification_cert: {file: %s}}
`, file, port, host, r.CAFile)
	return err
}

func newHubDeviceListCommand() *cobra.Command {
	var target hubTarget
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the devices",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return target.withHub(cmd, func(c *service.Client) error {
				devices, err := c.Devices(cmd.Context())
				if err != nil {
					return err
				}
				// A listing is no place for keys.
				for i := range devices {
					devices[i].Authentication.SymmetricKey = api.SymmetricKey{}
				}
				if asJSON {
					text, err := json.Marshal(devices)
					if err != nil {
						return fmt.Errorf("encode devices: %w", err)
					}
					return printIndented(cmd, text)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "DEVICE\tSTATUS\tCONNECTION\tQUEUED") // Flush reports
				for _, d := range devices {
					_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", d.DeviceID, d.Status, d.ConnectionState, d.CloudToDeviceMessageCount) // as above
				}
				return w.Flush()
			})
		},
	}
	target.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, without the keys")
	return cmd
}

func newHubDeviceDeleteCommand() *cobra.Command {
	var target hubTarget
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "Remove a device and its modules, or a module",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return target.withHub(cmd, func(c *service.Client) error { return c.DeleteDevice(cmd.Context(), args[0]) })
		},
	}
	target.add(cmd)
	return cmd
}
