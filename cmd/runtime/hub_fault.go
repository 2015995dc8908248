package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
)

func newHubFaultCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "fault", Short: "Make things go wrong on purpose"}
	cmd.AddCommand(newHubFaultAddCommand(), newHubFaultListCommand(), newHubFaultRemoveCommand())
	return cmd
}

func newHubFaultAddCommand() *cobra.Command {
	var target hubTarget
	var f api.Fault
	var duration, delay time.Duration
	cmd := &cobra.Command{
		Use:   "add NAME [CODE]",
		Short: "Begin a fault and print its id",
		Long: `Begin a fault and print its id. It lasts for --count strikes or --duration, or until it is removed.
CODE is a number that some faults take; --code=N is the same, and the way to give a negative one.

  cut                 drop the connection; with --count or --duration refuse further ones
                      (--mode close, or black-hole: silence)
  connack [CODE]      answer CONNECT with that return code (default 3)
  withhold-puback     keep telemetry, never acknowledge it
  delay-puback        acknowledge telemetry --delay later
  refuse-suback       answer SUBSCRIBE with 0x80
  drop-twin-response  leave twin requests unanswered
  twin-status [CODE]  answer twin requests with that status (default 429)
  duplicate-c2d       deliver cloud-to-device messages twice
  lose-session        forget the persistent session at the next CONNECT
  method-black-hole   swallow direct method calls
  throttle            answer twin requests and HTTPS requests with 429
  quota               refuse telemetry, as when the day's quota is used up
  http-status [CODE]  answer HTTPS requests with that status (default 503)
  expire-tokens       end the tokens of connected devices; with --count or --duration refuse new ones
  jump-version [CODE] move the version of desired properties by so much (default 100), once
  slow-reads          wait for --delay before each read from a device
  provisioning-status [CODE]
                      answer devices of the provisioning service with that status (default 429), to be
                      tried again after --delay; --device is a registration id
  slow-assignment     tell as many polls as --count that the device is still being assigned
  storage-status [CODE]
                      answer requests to the hub's blob endpoint with that status (default 503)
  storage-delay       answer them --delay later
  short-sas           give addresses for uploads that are good for --delay only

Those below /fairlead, this command's own, are spared by throttle and http-status.`,
		Example: `  fairlead hub fault add cut --device dev1 --duration 30s
  fairlead hub fault add connack 5 --count 3
  fairlead hub fault add jump-version --device dev1 --code=-5`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := target.needsFaults(cmd); err != nil {
				return err
			}
			f.Name, f.Duration, f.Delay = args[0], api.Duration(duration), api.Duration(delay)
			if !slices.Contains(api.FaultNames(), f.Name) {
				return usagef("no fault %q; there are %s", f.Name, strings.Join(api.FaultNames(), ", "))
			}
			if len(args) == 2 {
				code, err := strconv.Atoi(args[1])
				if err != nil {
					return usagef("code %q is not a number", args[1])
				}
				if cmd.Flags().Changed("code") {
					return usagef("the code is given twice, as %d and by --code", code)
				}
				f.Code = code
			}
			if f.Code == 0 && (len(args) == 2 || cmd.Flags().Changed("code")) {
				return usagef("code 0 is none: leave it out for the usual one")
			}
			return target.withHub(cmd, func(c *service.Client) error {
				added, err := c.AddFault(cmd.Context(), f)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), added.ID)
				return err
			})
		},
	}
	target.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.Device, "device", "", "only this device, or DEVICE/MODULE (default all)")
	flags.IntVar(&f.Count, "count", 0, "how often it strikes")
	flags.DurationVar(&duration, "duration", 0, "how long it lasts")
	flags.DurationVar(&delay, "delay", 0, "for delay-puback, slow-reads, storage-delay and short-sas, and the retry-after of provisioning-status")
	flags.IntVar(&f.Code, "code", 0, "for connack, twin-status, http-status, jump-version, provisioning-status, storage-status")
	flags.StringVar(&f.Mode, "mode", "", "for cut: close (default) or black-hole")
	return cmd
}

func newHubFaultListCommand() *cobra.Command {
	var target hubTarget
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the faults that are active",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := target.needsFaults(cmd); err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error {
				faults, err := c.Faults(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printLine(cmd, faults)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "ID\tFAULT\tDEVICE\tSTRUCK\tCOUNT\tEXPIRES") // Flush reports
				for _, f := range faults {
					device, count, expires := "all", "-", "-"
					if f.Device != "" {
						device = f.Device
					}
					if f.Count > 0 {
						count = strconv.Itoa(f.Count)
					}
					if !f.Expires.IsZero() {
						expires = f.Expires.Local().Format(time.TimeOnly)
					}
					_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", f.ID, f.Name, device, f.Struck, count, expires) // as above
				}
				return w.Flush()
			})
		},
	}
	target.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newHubFaultRemoveCommand() *cobra.Command {
	var target hubTarget
	cmd := &cobra.Command{
		Use:   "remove ID|all",
		Short: "End a fault, or all of them",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := target.needsFaults(cmd); err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error { return c.RemoveFault(cmd.Context(), args[0]) })
		},
	}
	target.add(cmd)
	return cmd
}

func (t *hubTarget) needsFaults(cmd *cobra.Command) error {
	if t.isRemote(cmd) {
		return usagef("a real hub has no faults on order; start one of your own with fairlead hub serve")
	}
	return nil
}
