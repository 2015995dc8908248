package main

import (
	"crypto/sha1" //nolint:gosec // for the length of a thumbprint
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
)

func newHubDeviceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "device", Short: "Register, list, disable and delete devices"}
	cmd.AddCommand(
		newHubDeviceAddCommand(),
		newHubDeviceListCommand(),
		newHubDeviceStatusCommand("disable", "Refuse a device, and throw it out if it is connected", api.Disabled),
		newHubDeviceStatusCommand("enable", "Let a disabled device connect again", api.Enabled),
		newHubDeviceDeleteCommand(),
	)
	return cmd
}

func newHubDeviceAddCommand() *cobra.Command {
	var target hubTarget
	var out string
	var x x509Flags
	cmd := &cobra.Command{
		Use:   "add ID",
		Short: "Register a device (or a module, as DEVICE/MODULE) and print its connection string",
		Long: `Register a device, or a module as DEVICE/MODULE, and print its connection string, or write it to a file
with mode 0600. For the embedded hub the lines of configuration that go with it are written to stderr, since
a connection string carries neither port nor CA.
It proves itself by a key that the hub makes, or by a certificate: one of its own, known by its thumbprint
(openssl x509 -in FILE -noout -fingerprint -sha256), or one that a CA registered by "hub ca add" has signed.`,
		Example: `  fairlead hub device add dev1 --out dev1.cs
  fairlead hub device add dev2 --x509-thumbprint "$(openssl x509 -in dev2.pem -noout -fingerprint -sha256)"
  fairlead hub device add dev3 --ca-signed`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			auth, err := x.authentication()
			if err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error {
				id := api.ParseID(args[0])
				d, err := c.CreateDevice(cmd.Context(), api.Device{DeviceID: id.Device, ModuleID: id.Module, Authentication: auth})
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
				return target.explain(cmd.ErrOrStderr(), file, d)
			})
		},
	}
	target.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "file to write the connection string to, with mode 0600")
	x.add(cmd)
	return cmd
}

// x509Flags choose a certificate in the place of a key.
type x509Flags struct {
	primary, secondary string
	caSigned           bool
}

func (x *x509Flags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&x.primary, "x509-thumbprint", "", "SHA-1 or SHA-256 thumbprint of the device's own certificate, as openssl prints it")
	flags.StringVar(&x.secondary, "x509-secondary-thumbprint", "", "a second one, to change certificates without a gap")
	flags.BoolVar(&x.caSigned, "ca-signed", false, "the device has a certificate of a registered CA, with its id as the common name")
}

// authentication is the zero value for a key.
func (x *x509Flags) authentication() (api.Authentication, error) {
	if x.caSigned {
		if x.primary != "" || x.secondary != "" {
			return api.Authentication{}, usagef("--ca-signed and a thumbprint exclude each other: a device has one kind of certificate")
		}
		return api.Authentication{Type: api.AuthCA}, nil
	}
	auth := api.Authentication{}
	for _, t := range []struct {
		text string
		into **string
	}{{x.primary, &auth.X509Thumbprint.PrimaryThumbprint}, {x.secondary, &auth.X509Thumbprint.SecondaryThumbprint}} {
		if t.text == "" {
			continue
		}
		// openssl writes "sha256 Fingerprint=AB:CD:…".
		digits := t.text[strings.LastIndexByte(t.text, '=')+1:]
		digits = strings.ReplaceAll(strings.TrimSpace(digits), ":", "")
		if raw, err := hex.DecodeString(digits); err != nil || len(raw) != sha1.Size && len(raw) != sha256.Size {
			return auth, usagef("thumbprint %q is not 40 (SHA-1) or 64 (SHA-256) hexadecimal digits", t.text)
		}
		auth.Type, *t.into = api.AuthSelfSigned, &digits
	}
	return auth, nil
}

// explain writes the configuration that a runtime on this machine needs beside its connection string.
func (t *hubTarget) explain(w io.Writer, file string, d api.Device) error {
	r, err := t.ready()
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(r.MQTT)
	if err != nil {
		return fmt.Errorf("read the hub's address: %w", err)
	}
	httpsHost, httpsPort, err := net.SplitHostPort(r.HTTPS)
	if err != nil {
		return fmt.Errorf("read the hub's address: %w", err)
	}
	identity := fmt.Sprintf("{connection_string: {file: %s}}", file)
	if t := d.Authentication.Type; t == api.AuthSelfSigned || t == api.AuthCA {
		identity = fmt.Sprintf("{x509: {hostname: %s, device_id: %s, cert_file: CERT.pem, key_file: CERT.key}}", r.Hostname, d.DeviceID)
	}
	_, err = fmt.Fprintf(w, `# configuration for a runtime on this machine:
version: 1
device: %s
transports:
  - {use: mqtt, port: %s, address: %q}
tls: {server_verification_cert: {file: %s}, extra_ca: {file: %s}}
uploads: {port: %s, address: %q}
`, identity, port, host, r.CAFile, r.CAFile, httpsPort, httpsHost)
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

func newHubDeviceStatusCommand(verb, short, status string) *cobra.Command {
	var target hubTarget
	cmd := &cobra.Command{
		Use:   verb + " ID",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return target.withHub(cmd, func(c *service.Client) error {
				d, err := c.Device(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				d.Status = status
				_, err = c.UpdateDevice(cmd.Context(), d)
				return err
			})
		},
	}
	target.add(cmd)
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
