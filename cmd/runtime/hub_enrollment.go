package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
)

func newHubEnrollmentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enrollment",
		Short: "Let devices provision themselves",
		Long: `Let devices provision themselves: an enrollment names one device, a group all those whose key is derived
from the group's, or whose certificate its authority signed. The hub's provisioning service answers at the
hub's own ports, under any name that hub serve was given.`,
	}
	cmd.AddCommand(newHubEnrollmentAddCommand(), newHubEnrollmentListCommand(), newHubEnrollmentGetCommand(), newHubEnrollmentRemoveCommand(), newHubEnrollmentKeyCommand())
	return cmd
}

// needsProvisioning refuses a real hub, which has no enrollments: Azure's provisioning service has them.
func (t *hubTarget) needsProvisioning(cmd *cobra.Command, az string) error {
	if t.isRemote(cmd) {
		return usagef("enrollments are not the hub's but those of Azure's provisioning service; use: az iot dps %s", az)
	}
	return nil
}

// enrolled is what a device has to be told.
type enrolled struct {
	IDScope        string `json:"id_scope"`
	RegistrationID string `json:"registration_id,omitempty"`
	Group          string `json:"group,omitempty"`
	DeviceID       string `json:"device_id,omitempty"`
	Key            string `json:"key,omitempty"` // not with a certificate
}

type enrollmentFlags struct {
	group       bool
	thumbprint  string
	certFile    string
	caFile      string
	deviceID    string
	twin        string
	payload     string
	disabled    bool
	edge        bool
	reprovision string
	replace     bool
	out         string
}

func newHubEnrollmentAddCommand() *cobra.Command {
	var target hubTarget
	var f enrollmentFlags
	cmd := &cobra.Command{
		Use:   "add ID",
		Short: "Enroll a device (or with --group many) and print what it has to be told as JSON",
		Long: `Enroll the device with the registration id ID, or with --group a group of that name, and print a JSON object:
id_scope, registration_id (or group) and key. Without a certificate a symmetric key is made. How to reach the
provisioning service is written to stderr.`,
		Example: `  fairlead hub enrollment add press-7 --device-id press-7 --twin '{"tags":{"site":"north"}}'
  fairlead hub enrollment add plant --group --out plant.json
  fairlead hub enrollment add plant-ca --group --ca root.pem --reprovision reset`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := target.needsProvisioning(cmd, "enrollment create, or enrollment-group create"); err != nil {
				return err
			}
			settings, err := f.settings()
			if err != nil {
				return err
			}
			attestation, err := f.attestation()
			if err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error {
				result, err := f.enroll(cmd, c, args[0], attestation, settings)
				if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.CodeEnrollmentExists {
					return fmt.Errorf("%s is enrolled already; to change it give --replace too: %w", args[0], err)
				}
				if err != nil {
					return err
				}
				if f.out == "" {
					err = printLine(cmd, result)
				} else {
					err = writeSecretJSON(f.out, result)
				}
				if err != nil {
					return err
				}
				return target.explainProvisioning(cmd.ErrOrStderr())
			})
		},
	}
	target.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.group, "group", false, "a group, not a single device")
	flags.StringVar(&f.thumbprint, "x509-thumbprint", "", "SHA-256 or SHA-1 thumbprint of the device's certificate, in hex")
	flags.StringVar(&f.certFile, "cert", "", "the device's certificate, a PEM `file`")
	flags.StringVar(&f.caFile, "ca", "", "certificate of the authority that signs the group's devices, a PEM `file`")
	flags.StringVar(&f.deviceID, "device-id", "", "the device's id in the hub (default ID)")
	flags.StringVar(&f.twin, "twin", "", `what the device's twin begins with, as JSON: {"tags":{…},"properties":{"desired":{…}}}`)
	flags.StringVar(&f.payload, "payload", "", "what the device is given when it registers, any JSON")
	flags.BoolVar(&f.disabled, "disabled", false, "let nobody register yet")
	flags.BoolVar(&f.edge, "edge", false, "the device is an IoT Edge device")
	flags.StringVar(&f.reprovision, "reprovision", "migrate", "what a further registration does: migrate (keep the twin), reset (begin anew), never (change nothing)")
	flags.BoolVar(&f.replace, "replace", false, "replace the enrollment that is there; its keys stay")
	flags.StringVar(&f.out, "out", "", "`file` to write the JSON to, with mode 0600")
	return cmd
}

func (f *enrollmentFlags) settings() (api.EnrollmentSettings, error) {
	s := api.EnrollmentSettings{Capabilities: &api.Capabilities{IoTEdge: f.edge}}
	if f.disabled {
		s.ProvisioningStatus = api.Disabled
	}
	switch f.reprovision {
	case "migrate":
		s.ReprovisionPolicy = &api.ReprovisionPolicy{UpdateHubAssignment: true, MigrateDeviceData: true}
	case "reset":
		s.ReprovisionPolicy = &api.ReprovisionPolicy{UpdateHubAssignment: true}
	case "never":
		s.ReprovisionPolicy = &api.ReprovisionPolicy{}
	default:
		return s, usagef("--reprovision must be migrate, reset or never, not %q", f.reprovision)
	}
	if f.twin != "" {
		d := json.NewDecoder(strings.NewReader(f.twin))
		d.UseNumber()
		d.DisallowUnknownFields() // a misspelt member would be lost in silence
		s.InitialTwin = &api.TwinPatch{}
		if err := d.Decode(s.InitialTwin); err != nil {
			return s, usagef(`--twin: %w; its form is {"tags":{…},"properties":{"desired":{…}}}`, err)
		}
	}
	if f.payload != "" {
		if !json.Valid([]byte(f.payload)) {
			return s, usagef("--payload is not JSON (a text needs quotes within it: '\"text\"')")
		}
		s.ReturnPayload = json.RawMessage(f.payload)
	}
	return s, nil
}

func (f *enrollmentFlags) attestation() (api.Attestation, error) {
	given := 0
	for _, text := range []string{f.thumbprint, f.certFile, f.caFile} {
		if text != "" {
			given++
		}
	}
	switch {
	case given > 1:
		return api.Attestation{}, usagef("give one of --x509-thumbprint, --cert and --ca")
	case f.group && (f.thumbprint != "" || f.certFile != ""):
		return api.Attestation{}, usagef("a group is let in by its authority (--ca), not by a device's certificate")
	case f.group && f.deviceID != "":
		return api.Attestation{}, usagef("the devices of a group have their registration ids as their ids: --device-id does not go with --group")
	case !f.group && f.caFile != "":
		return api.Attestation{}, usagef("--ca needs --group: a single device is let in by its own certificate (--cert)")
	case given == 0:
		return api.Attestation{Type: api.AttestationSymmetricKey}, nil
	}
	x := &api.X509Attestation{}
	if f.thumbprint != "" {
		info := &api.CertificateInfo{SHA256Thumbprint: f.thumbprint}
		if digits := strings.NewReplacer(":", "", " ", "").Replace(f.thumbprint); len(digits) == 40 {
			info = &api.CertificateInfo{SHA1Thumbprint: f.thumbprint}
		}
		x.ClientCertificates = &api.X509Certificates{Primary: &api.X509Certificate{Info: info}}
		return api.Attestation{Type: api.AttestationX509, X509: x}, nil
	}
	name := f.certFile + f.caFile // one of them is empty
	text, err := os.ReadFile(name)
	if err != nil {
		return api.Attestation{}, usagef("read certificate: %w", err)
	}
	certs := &api.X509Certificates{Primary: &api.X509Certificate{Certificate: string(text)}}
	if f.group {
		x.SigningCertificates = certs
	} else {
		x.ClientCertificates = certs
	}
	return api.Attestation{Type: api.AttestationX509, X509: x}, nil
}

func (f *enrollmentFlags) enroll(cmd *cobra.Command, c *service.Client, id string, a api.Attestation, settings api.EnrollmentSettings) (enrolled, error) {
	ctx := cmd.Context()
	scope, err := c.IDScope(ctx)
	if err != nil {
		return enrolled{}, err
	}
	out := enrolled{IDScope: scope}
	if f.group {
		var g api.EnrollmentGroup
		g, err = c.PutEnrollmentGroup(ctx, api.EnrollmentGroup{EnrollmentGroupID: id, Attestation: a, EnrollmentSettings: settings}, f.replace)
		out.Group, a = g.EnrollmentGroupID, g.Attestation
	} else {
		var e api.Enrollment
		e, err = c.PutEnrollment(ctx, api.Enrollment{RegistrationID: id, DeviceID: f.deviceID, Attestation: a, EnrollmentSettings: settings}, f.replace)
		out.RegistrationID, out.DeviceID, a = e.RegistrationID, e.DeviceID, e.Attestation
	}
	if err == nil && a.SymmetricKey != nil {
		out.Key = a.SymmetricKey.PrimaryKey
	}
	return out, err
}

// writeSecretJSON puts a value into a file with mode 0600.
func writeSecretJSON(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	return writeSecret(name, append(text, '\n'))
}

// explainProvisioning says how a device on this machine reaches the provisioning service.
func (t *hubTarget) explainProvisioning(w io.Writer) error {
	r, err := t.ready()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "# the provisioning service: MQTT at %s, MQTT over WebSocket and HTTPS at %s; devices must trust %s\n", r.MQTT, r.HTTPS, r.CAFile)
	return err
}

func newHubEnrollmentListCommand() *cobra.Command {
	var target hubTarget
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List enrollments and groups",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := target.needsProvisioning(cmd, "enrollment list, or enrollment-group list"); err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error {
				enrollments, err := c.Enrollments(cmd.Context())
				if err != nil {
					return err
				}
				groups, err := c.EnrollmentGroups(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printLine(cmd, map[string]any{"enrollments": enrollments, "groups": groups})
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "ENROLLMENT\tKIND\tBY\tSTATUS\tREGISTRATION\tDEVICE") // Flush reports
				for _, e := range enrollments {
					registration, device := "-", "-"
					if st := e.RegistrationState; st != nil {
						registration = st.Status
						if st.DeviceID != "" {
							device = st.DeviceID
						}
					}
					_, _ = fmt.Fprintf(w, "%s\tdevice\t%s\t%s\t%s\t%s\n", e.RegistrationID, e.Attestation.Type, e.ProvisioningStatus, registration, device) // as above
				}
				for _, g := range groups {
					_, _ = fmt.Fprintf(w, "%s\tgroup\t%s\t%s\t-\t-\n", g.EnrollmentGroupID, g.Attestation.Type, g.ProvisioningStatus) // as above
				}
				return w.Flush()
			})
		},
	}
	target.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, without the keys")
	return cmd
}

func newHubEnrollmentGetCommand() *cobra.Command {
	var target hubTarget
	var group bool
	cmd := &cobra.Command{
		Use:   "get ID",
		Short: "Print an enrollment as JSON, with what became of it, without its keys",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := target.needsProvisioning(cmd, "enrollment show, or enrollment-group show"); err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error {
				var found any
				var err error
				if group {
					var g struct {
						api.EnrollmentGroup
						Registrations []api.RegistrationState `json:"registrations"`
					}
					if g.EnrollmentGroup, err = c.EnrollmentGroup(cmd.Context(), args[0]); err == nil {
						g.Registrations, err = c.Registrations(cmd.Context(), args[0])
					}
					found = g
				} else {
					found, err = c.Enrollment(cmd.Context(), args[0])
				}
				if err != nil {
					return err
				}
				text, err := json.Marshal(found)
				if err != nil {
					return fmt.Errorf("encode enrollment: %w", err)
				}
				return printIndented(cmd, text)
			})
		},
	}
	target.add(cmd)
	cmd.Flags().BoolVar(&group, "group", false, "a group, with the devices that it let in")
	return cmd
}

func newHubEnrollmentRemoveCommand() *cobra.Command {
	var target hubTarget
	var group bool
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove an enrollment or a group; devices that it let in stay in the hub",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := target.needsProvisioning(cmd, "enrollment delete, or enrollment-group delete"); err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error {
				if group {
					return c.DeleteEnrollmentGroup(cmd.Context(), args[0])
				}
				return c.DeleteEnrollment(cmd.Context(), args[0])
			})
		},
	}
	target.add(cmd)
	cmd.Flags().BoolVar(&group, "group", false, "a group")
	return cmd
}

func newHubEnrollmentKeyCommand() *cobra.Command {
	var target hubTarget
	var out string
	cmd := &cobra.Command{
		Use:   "key GROUP REGISTRATION-ID",
		Short: "Print the key of a group's device, derived from the group's",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := target.needsProvisioning(cmd, "enrollment-group compute-device-key"); err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error {
				a, err := c.EnrollmentGroupKeys(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.SymmetricKey == nil {
					return usagef("the devices of group %s have certificates, not keys", args[0])
				}
				key, err := hub.DeriveDeviceKey(a.SymmetricKey.PrimaryKey, args[1])
				if err != nil {
					return err
				}
				if out != "" {
					return writeSecret(out, []byte(key+"\n"))
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
				return err
			})
		},
	}
	target.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "`file` to write the key to, with mode 0600")
	return cmd
}
