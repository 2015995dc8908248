package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
)

func newHubC2DCommand() *cobra.Command {
	var target hubTarget
	var m api.C2D
	var properties []string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:     "c2d ID BODY",
		Short:   "Send a cloud-to-device message (BODY - reads stdin)",
		Example: `  fairlead hub c2d dev1 'stop now' --property target=press`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := target.needsEmbedded(cmd, "c2d", "az iot device c2d-message send -d "+args[0]+" --data …"); err != nil {
				return err
			}
			if strings.Contains(args[0], "/") {
				return usagef("%s is a module: cloud-to-device messages go to devices only; a module has methods and a twin", args[0])
			}
			for _, p := range properties {
				key, value, ok := strings.Cut(p, "=")
				if !ok || key == "" {
					return usagef("--property %q is not KEY=VALUE", p)
				}
				if m.Properties == nil {
					m.Properties = map[string]*string{}
				}
				m.Properties[key] = &value
			}
			var err error
			if m.Body, err = readBody(cmd, args[1]); err != nil {
				return err
			}
			if ttl != 0 {
				m.TTL = ttl.String()
			}
			return target.withHub(cmd, func(c *service.Client) error { return c.SendC2D(cmd.Context(), args[0], m) })
		},
	}
	target.add(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&properties, "property", nil, "application property as KEY=VALUE (repeatable)")
	flags.StringVar(&m.MessageID, "message-id", "", "message id, up to 128 characters")
	flags.StringVar(&m.CorrelationID, "correlation-id", "", "correlation id")
	flags.StringVar(&m.UserID, "user-id", "", "user id")
	flags.StringVar(&m.ContentType, "content-type", "", "content type, such as application/json")
	flags.StringVar(&m.ContentEncoding, "content-encoding", "", "content encoding, such as utf-8")
	flags.StringVar(&m.Ack, "ack", "", "feedback that is wanted: none, positive, negative, full")
	flags.DurationVar(&ttl, "ttl", 0, "how long the message is good, up to 48h (default 1h)")
	return cmd
}

// errEnough ends a monitor that has shown what it was asked for.
var errEnough = errors.New("enough")

func newHubMonitorCommand() *cobra.Command {
	var target hubTarget
	var device, since, source string
	var asJSON, follow bool
	var count int
	cmd := &cobra.Command{
		Use:   "monitor",
		Short: "Watch device-to-cloud messages",
		Long: `Print device-to-cloud messages as they come: time, device, properties, body. With --since it begins with
what the hub has kept from then on: a duration ago (10m), or a time (2026-11-23T12:00:00Z).
With --source it shows the events that hub serve --events has the hub tell, such as twinChangeEvents, or all.
--json gives every property that the hub stamps: iothub-connection-device-id, iothub-connection-auth-method,
iothub-enqueuedtime, iothub-message-source and so on.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := target.needsEmbedded(cmd, "monitor", "az iot hub monitor-events"); err != nil {
				return err
			}
			id := api.ParseID(device)
			filter := api.MessageFilter{Source: source, Device: id.Device, Module: id.Module}
			if since != "" {
				at, err := parseSince(since, time.Now())
				if err != nil {
					return err
				}
				filter.Since = at
			} else if !follow {
				filter.From = 1
			}
			return target.withHub(cmd, func(c *service.Client) error {
				shown := 0
				err := c.Monitor(cmd.Context(), filter, follow, func(m api.Message) error {
					if err := printMessage(cmd, m, asJSON); err != nil {
						return err
					}
					if shown++; shown == count {
						return errEnough
					}
					return nil
				})
				if errors.Is(err, errEnough) || cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
					return nil
				}
				return err
			})
		},
	}
	target.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&device, "device", "", "only this device, or DEVICE/MODULE")
	flags.StringVar(&since, "since", "", "begin with what came since then")
	flags.StringVar(&source, "source", api.SourceTelemetry, "what to show: "+api.SourceTelemetry+", "+strings.Join(api.EventSources(), ", ")+" or "+api.SourceAll)
	flags.BoolVar(&asJSON, "json", false, "print a JSON object per line")
	flags.IntVar(&count, "count", 0, "end after that many messages")
	flags.BoolVar(&follow, "follow", true, "wait for further messages")
	return cmd
}

func parseSince(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, usagef("--since %q is neither a duration (10m) nor a time (2026-11-23T12:00:00Z)", text)
	}
	return at, nil
}

func printMessage(cmd *cobra.Command, m api.Message, asJSON bool) error {
	if asJSON {
		return printLine(cmd, m)
	}
	id := api.ID{Device: m.DeviceID, Module: m.ModuleID}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s  %s\n",
		m.EnqueuedTime.Local().Format("15:04:05.000"), id, formatProperties(m), printable(m.Body))
	return err
}

// formatProperties shows the application's properties and what of the system's a reader looks for.
func formatProperties(m api.Message) string {
	parts := make([]string, 0, len(m.Properties)+3)
	for key, value := range m.Properties {
		parts = append(parts, key+"="+value)
	}
	keys := []string{"message-id", "content-type", "iothub-outputname"}
	if m.System["iothub-message-source"] != api.SourceTelemetry {
		keys = []string{"iothub-message-source"} // the rest says itself
	}
	for _, key := range keys {
		if value := m.System[key]; value != "" {
			parts = append(parts, key+"="+value)
		}
	}
	slices.Sort(parts)
	return printable([]byte("{" + strings.Join(parts, " ") + "}"))
}

// printable keeps a message from driving the terminal.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, strings.ToValidUTF8(string(text), "·"))
}
