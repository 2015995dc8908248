package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/internal/control"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

func newCheckCommand() *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, without a network",
		Long: `Check the configuration, the files that it names and the programs of its plugins,
without a network. Every error stands on a line of its own:

  file:line:col: key: what is wrong (did you mean …?)

Run it as the user that runs fairlead: what may be read depends on it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := flags.load()
			if err != nil {
				return err
			}
			if problems := checkFiles(c); len(problems) > 0 {
				return usageError(&config.Error{Problems: problems})
			}
			for _, p := range append(cautions(c), doubts(c, time.Now(), os.Getenv)...) {
				cmd.PrintErrf("warning: %s\n", p)
			}
			for _, p := range c.Unsupported() {
				cmd.PrintErrf("note: %s; run refuses it\n", p)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", checked(c))
			return err
		},
	}
	flags.add(cmd)
	return cmd
}

// checkFiles looks, before anything is touched, at what the configuration names outside itself.
func checkFiles(c *config.Config) []config.Problem {
	problems := append(c.CheckFiles(verifySecrets(c)), checkRegistration(c)...)
	if _, err := netdial.ParseCiphers(c.TLS.Cipher); err != nil {
		problems = append(problems, c.Problem("tls.cipher", "%v", err))
	}
	problems = append(problems, checkProxies(c)...)
	if err := control.CheckDir(c.StateDir); err != nil {
		problems = append(problems, c.Problem("state_dir", "%v", err))
	}
	return problems
}

// verifySecrets lets those who use a secret say how it must look.
func verifySecrets(c *config.Config) config.Verify {
	return config.Verify{
		ConnectionString: func(s core.Secret) error {
			cs, err := credentials.ParseConnectionString(s.Reveal())
			if err != nil {
				return err
			}
			switch hasFiles := c.Device.X509 != nil; {
			case cs.X509 && !hasFiles:
				return errors.New("the string says x509=true: write device.x509 with the certificate's files beside it, as in x509: {cert_file: gw.pem, key_file: gw.key}")
			case !cs.X509 && hasFiles:
				return errors.New("the string holds a key, and device.x509 names a certificate: keep one (a string for a certificate ends with x509=true)")
			}
			gateway := c.Device.GatewayHostname
			if named := cs.Identity.Gateway; named != "" && gateway != "" && !strings.EqualFold(named, gateway) {
				return fmt.Errorf("GatewayHostName in the string and device.gateway_hostname (%s) name different gateways: keep one", gateway)
			}
			return nil
		},
		Key: func(s core.Secret) error {
			_, err := credentials.KeySigner(s)
			return err
		},
		SASToken: func(s core.Secret) error {
			_, err := credentials.ReadToken(s.Reveal()) // one that has ended can be replaced while the device runs
			return err
		},
		Certificate: func(cert, key []byte, passPhrase core.Secret) error {
			_, err := credentials.ParseCertificate(cert, key, passPhrase)
			return err
		},
	}
}

// checked says in one line what was found to be right.
func checked(c *config.Config) string {
	count := func(n int, one string) string {
		if n == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %ss", n, one)
	}
	text := c.Files()[0]
	if n := len(c.Files()) - 1; n > 0 {
		text += " and " + count(n, "file") + " of conf.d"
	}
	verb := "is"
	if len(c.Files()) > 1 {
		verb = "are"
	}
	return fmt.Sprintf("%s %s fine: %s, %s, outbox: %s", text, verb, count(len(c.Transports), "transport"), count(len(c.Plugins), "plugin"), c.Outbox.Mode)
}
