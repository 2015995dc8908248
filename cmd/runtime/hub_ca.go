package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub/service"
)

func newHubCACommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Register, list and remove certificate authorities of devices",
		Long: `Register, list and remove the certificate authorities whose devices the embedded hub believes: devices added
with --ca-signed connect with a certificate that leads to one of them and whose common name is the device's id.`,
	}
	cmd.AddCommand(newHubCAAddCommand(), newHubCAListCommand(), newHubCARemoveCommand())
	return cmd
}

func newHubCAAddCommand() *cobra.Command {
	var target hubTarget
	var name string
	cmd := &cobra.Command{
		Use:   "add FILE",
		Short: "Register the certificate authority in a PEM file and print its name",
		Example: `  fairlead hub ca add plant-ca.pem
  fairlead hub device add dev1 --ca-signed`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := target.needsCAs(cmd, "create --hub-name … --name … --path "+args[0]); err != nil {
				return err
			}
			text, err := os.ReadFile(args[0])
			if err != nil {
				return usagef("read the CA: %w", err)
			}
			if name == "" {
				name = strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0]))
			}
			return target.withHub(cmd, func(c *service.Client) error {
				ca, err := c.AddCA(cmd.Context(), name, text)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), ca.Name)
				return err
			})
		},
	}
	target.add(cmd)
	cmd.Flags().StringVar(&name, "name", "", "name to register it under (default the file's, without its extension)")
	return cmd
}

func newHubCAListCommand() *cobra.Command {
	var target hubTarget
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the certificate authorities",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := target.needsCAs(cmd, "list --hub-name …"); err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error {
				all, err := c.CAs(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printLine(cmd, all)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "NAME\tSUBJECT\tENDS\tSHA-256") // Flush reports
				for _, ca := range all {
					_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", ca.Name, ca.Subject, ca.NotAfter.Format("2006-01-02"), ca.Thumbprint) // as above
				}
				return w.Flush()
			})
		},
	}
	target.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newHubCARemoveCommand() *cobra.Command {
	var target hubTarget
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Forget a certificate authority; its devices that are connected stay so",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := target.needsCAs(cmd, "delete --hub-name … --name "+args[0]); err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error { return c.RemoveCA(cmd.Context(), args[0]) })
		},
	}
	target.add(cmd)
	return cmd
}

func (t *hubTarget) needsCAs(cmd *cobra.Command, az string) error {
	if t.isRemote(cmd) {
		return usagef("a real hub's certificate authorities are managed through Azure; use: az iot hub certificate %s", az)
	}
	return nil
}
