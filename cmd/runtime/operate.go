package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/engine"
	"github.com/fairlead-iot/fairlead/internal/control"
)

// socketFlags are the flags of every command that talks to a running runtime.
type socketFlags struct {
	configFlags
	socket  string
	timeout time.Duration
}

func (f *socketFlags) add(cmd *cobra.Command) {
	f.configFlags.add(cmd)
	cmd.Flags().StringVar(&f.socket, "socket", "", "the runtime's socket, in place of the one that the configuration's state_dir says")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 30*time.Second, "how long to wait")
}

// dial returns a client of the runtime, and a context that ends with the flag's timeout.
func (f *socketFlags) dial(cmd *cobra.Command) (*control.Client, context.Context, context.CancelFunc, error) {
	path := f.socket
	if path == "" {
		c, err := f.load()
		if err != nil {
			return nil, nil, nil, err
		}
		path = filepath.Join(c.StateDir, control.SocketName)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	return control.NewClient(path), ctx, cancel, nil
}

// operation makes a command that does one thing to a running runtime.
func operation(use, short string, args cobra.PositionalArgs, do func(ctx context.Context, c *control.Client, cmd *cobra.Command, args []string) error) *cobra.Command {
	flags := &socketFlags{}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, ctx, cancel, err := flags.dial(cmd)
			if err != nil {
				return err
			}
			defer cancel()
			err = do(ctx, c, cmd, args)
			if errors.Is(err, core.ErrTimeout) {
				err = explainTimeout(cmd.Context(), c, err)
			}
			return err
		},
	}
	flags.add(cmd)
	return cmd
}

// explainTimeout adds the state of the connection to the error of an operation that took too long: mostly that is why.
func explainTimeout(ctx context.Context, c *control.Client, err error) error {
	const patience = 5 * time.Second // of a busy machine
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, statusErr := c.Status(ctx)
	if statusErr != nil {
		return err // the runtime hangs, or is gone: there is nothing to add
	}
	return fmt.Errorf("%w; the device is %s: %s%s", err, s.Connection.State, s.Connection.Reason, inWhen(s.Connection))
}

// inWhen says when the next attempt is made; "" where none is planned.
func inWhen(c control.Connection) string {
	in := time.Duration(c.NextAttempt * float64(time.Second)).Round(time.Second)
	switch {
	case in <= 0:
		return ""
	case c.Spared > 0:
		return fmt.Sprintf("; asked again in %v, and not sooner", in)
	}
	return fmt.Sprintf("; tried again in %v", in)
}

func newStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := operation("status", "Show what the running device does", noArgs,
		func(ctx context.Context, c *control.Client, cmd *cobra.Command, _ []string) error {
			s, err := c.Status(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			return printStatus(cmd.OutOrStdout(), s)
		})
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// provisioningText says in a line what the provisioning service has said.
func provisioningText(p *control.Provisioning) string {
	text := fmt.Sprintf("registration %s of %s: ", p.RegistrationID, p.IDScope)
	switch {
	case p.AssignedHub == "":
		text += p.Host + " has not said yet which hub it belongs to"
	case p.Kept:
		text += fmt.Sprintf("assigned to %s since %s, by an earlier run", p.AssignedHub, p.Since)
	default:
		text += fmt.Sprintf("assigned to %s since %s", p.AssignedHub, p.Since)
	}
	if p.LastError != "" {
		text += "; asked again in vain: " + p.LastError
	}
	return text
}

func printStatus(out io.Writer, s control.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) // Flush reports
	}
	ago := func(seconds float64) string {
		return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
	}
	id := s.DeviceID
	if s.ModuleID != "" {
		id += "/" + s.ModuleID
	}
	if p := s.Provisioning; p != nil && p.AssignedHub == "" {
		row("device", "registration %s of %s, not assigned yet", p.RegistrationID, p.IDScope)
	} else {
		row("device", "%s at %s", id, s.Hostname)
	}
	row("connection", "%s for %s by %s: %s", s.Connection.State, ago(s.Connection.Since), s.Connection.Transport, s.Connection.Reason)
	if s.Connection.NextAttempt > 0 {
		row("next attempt", "in %s", ago(s.Connection.NextAttempt))
	}
	for _, cause := range s.Connection.Causes {
		row("cause", "%s", describeCause(cause))
	}
	if len(s.Connection.Transports) > 1 {
		text := strings.Join(s.Connection.Transports, ", ")
		if s.Connection.Chosen != "" {
			text += "; " + s.Connection.Chosen + " was chosen (fairlead transport use auto)"
		}
		if p := s.Connection.NextProbe; p != nil {
			text += "; a better one is tried again in " + ago(*p)
		}
		if r := s.Connection.ProbeReason; r != "" {
			text += ", and failed before: " + oneLine(r)
		}
		row("routes", "%s", text)
	}
	if s.Connection.CredentialLife > 0 {
		renewal := "and is renewed before"
		if s.Connection.CredentialGiven {
			renewal = "unless it is replaced before (fairlead token update, or its file)"
		}
		row("credential", "ends in %s, %s", ago(s.Connection.CredentialLife), renewal)
	}
	if d := s.Connection.CredentialDoubt; d != "" && d != s.Clock {
		row("doubt", "%s", s.Connection.CredentialDoubt)
	}
	if p := s.Provisioning; p != nil {
		row("provisioning", "%s", provisioningText(p))
	}
	if s.Clock != "" {
		row("clock", "%s", s.Clock)
	}
	moved := ""
	if s.Counters.Swaps > 0 {
		moved = fmt.Sprintf(", moved to another route %d", s.Counters.Swaps)
	}
	row("sessions", "%d, lost %d, renewed %d%s, attempts %d", s.Counters.Sessions, s.Counters.Losses, s.Counters.Renewals, moved, s.Counters.Attempts)
	kept := ""
	if s.Outbox.Mode == "memory" {
		kept = " (in memory: lost at a crash)"
	}
	row("outbox", "%d of %d messages, %d of %d bytes%s", s.Outbox.Messages, s.Outbox.MaxMessages, s.Outbox.Bytes, s.Outbox.MaxBytes, kept)
	row("telemetry", "%d acknowledged of %d", s.Counters.Acknowledged, s.Counters.Submitted)
	row("methods", "%d answered of %d", s.Counters.MethodsAnswered, s.Counters.MethodsCalled)
	row("messages", "%d completed of %d, dead letters %d", s.Counters.MessagesCompleted, s.Counters.MessagesReceived, s.Counters.DeadLetters)
	if s.LastDeadLetter != "" {
		row("last dead letter", "%s", s.LastDeadLetter)
	}
	row("desired", "version %d", s.Desired)
	for _, u := range s.Uploads {
		from := u.Path
		if from == "" {
			from = "a stream of " + u.Owner
		}
		row("upload "+u.ID, "%s as %s: %s", from, u.Name, uploadText(u))
	}
	for _, p := range s.Plugins {
		text := p.State
		if p.Degraded {
			text = "degraded (it crashes again and again), " + text
		}
		if p.PID != 0 {
			text += fmt.Sprintf(", pid %d", p.PID)
		}
		text += fmt.Sprintf(", start %d", p.Start)
		if len(p.Methods) > 0 {
			text += ", methods " + strings.Join(p.Methods, " ")
		}
		switch {
		case p.Reason != "":
			text += ": " + p.Reason
		case p.LastExit != "":
			text += "; the last start ended: " + p.LastExit
		}
		row("plugin "+p.Name, "%s", text)
	}
	row("runtime", "version %s, pid %d, up %s, state in %s", s.Version, s.PID, ago(s.Uptime), s.StateDir)
	return w.Flush()
}

// eventTime is how the time of an event is written.
const eventTime = "15:04:05.000"

// describeConnection says what the line means that announces a state of the connection.
func describeConnection(l engine.Line) []string {
	c := l.Connection
	text := fmt.Sprintf("%s by %s since %s", c.State, c.Route, c.Since.Local().Format(eventTime))
	if !c.NextAttempt.IsZero() {
		text += fmt.Sprintf(", next attempt in %v", max(0, c.NextAttempt.Sub(l.Time)).Round(100*time.Millisecond))
	}
	out := []string{text}
	for _, cause := range c.Causes {
		out = append(out, "cause "+describeCause(control.Cause(cause)))
	}
	return out
}

func newEventsCommand() *cobra.Command {
	var asJSON, follow bool
	flags := &socketFlags{}
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened in the running device, and what it did about it",
		Long: `Show the last events of the running device (●) and the orders that followed (→), one
a line. Where a state of the connection is announced, lines with = say its route,
since when it is so, when the next attempt is made, and what each route has failed
of. The flow of telemetry is not part of it; status has its counters.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, ctx, cancel, err := flags.dial(cmd)
			if err != nil {
				return err
			}
			defer cancel()
			if follow {
				ctx = cmd.Context()
			}
			return c.Events(ctx, follow, func(l engine.Line) error {
				if asJSON {
					b, err := json.Marshal(l)
					if err != nil {
						return fmt.Errorf("write JSON: %w", err)
					}
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", b)
					return err
				}
				mark := "●"
				if l.Effect {
					mark = "  →"
				}
				at := l.Time.Format(eventTime)
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s\n", at, mark, l.Text); err != nil || l.Connection == nil {
					return err
				}
				for _, text := range describeConnection(l) {
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s   = %s\n", at, text); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until stopped")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON lines")
	return cmd
}

func newConnectCommand() *cobra.Command {
	cmd := operation("connect", "Connect the running device, and wait until it is", noArgs,
		func(ctx context.Context, c *control.Client, cmd *cobra.Command, _ []string) error {
			// What must be spared for longer than anybody waits here is said at once: it is tried then without a word, too.
			if end, ok := ctx.Deadline(); ok {
				if s, err := c.Status(ctx); err == nil && time.Duration(s.Connection.Spared*float64(time.Second)) > time.Until(end) {
					return fmt.Errorf("%w: %s%s; where that is mended in the configuration, restart fairlead", core.ErrConnectionFailed, s.Connection.Reason, inWhen(s.Connection))
				}
			}
			if err := c.Connect(ctx); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "connected")
			return err
		})
	return cmd
}

func newDisconnectCommand() *cobra.Command {
	cmd := operation("disconnect", "Disconnect the running device until connect", noArgs,
		func(ctx context.Context, c *control.Client, cmd *cobra.Command, _ []string) error {
			if err := c.Disconnect(ctx); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "disconnected; what is sent waits for connect")
			return err
		})
	return cmd
}

func newSendCommand() *cobra.Command {
	var m core.Message
	var properties []string
	cmd := operation("send BODY", "Send a message as the running device, and wait until the hub has it (BODY - reads stdin)", cobra.ExactArgs(1),
		func(ctx context.Context, c *control.Client, cmd *cobra.Command, args []string) error {
			var err error
			if m.Payload, err = readBody(cmd, args[0]); err != nil {
				return err
			}
			for _, p := range properties {
				key, value, ok := strings.Cut(p, "=")
				if !ok {
					return usagef("--property %s: write it as name=value", p)
				}
				if m.Properties == nil {
					m.Properties = map[string]string{}
				}
				m.Properties[key] = value
			}
			if err := m.Check(); err != nil {
				return usageError(err)
			}
			if err := c.Send(ctx, &m); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "acknowledged by the hub")
			return err
		})
	f := cmd.Flags()
	f.StringArrayVarP(&properties, "property", "p", nil, "an application property, name=value (repeatable)")
	f.StringVar(&m.ID, "message-id", "", "the message's id; made up if left out")
	f.StringVar(&m.CorrelationID, "correlation-id", "", "the correlation id")
	f.StringVar(&m.ContentType, "content-type", "", "as in application/json")
	f.StringVar(&m.ContentEncoding, "content-encoding", "", "as in utf-8")
	return cmd
}

// maxBody bounds what is read from stdin, in bytes. It is above every limit of a hub, which has to refuse the rest.
const maxBody = 1 << 20

// readBody returns the body of a message as the argument gives it: the text itself, or - for what stdin has. Arguments
// end at 128 KiB on Linux, messages at 256 KiB.
func readBody(cmd *cobra.Command, arg string) ([]byte, error) {
	if arg != "-" {
		return []byte(arg), nil
	}
	body, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxBody))
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return body, nil
}

func newTwinCommand() *cobra.Command {
	get := operation("get", "Print the twin, as the hub has it", noArgs,
		func(ctx context.Context, c *control.Client, cmd *cobra.Command, _ []string) error {
			t, err := c.Twin(ctx)
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), t)
		})
	report := operation("report JSON", "Change reported properties by a JSON merge patch", cobra.ExactArgs(1),
		func(ctx context.Context, c *control.Client, cmd *cobra.Command, args []string) error {
			var patch map[string]any
			if err := json.Unmarshal([]byte(args[0]), &patch); err != nil {
				return usagef("the patch is not a JSON object: %w", err)
			}
			version, err := c.Report(ctx, json.RawMessage(args[0]))
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), control.Reported{Version: version})
		})
	cmd := &cobra.Command{Use: "twin", Short: "Read the twin of the running device, or report to it"}
	cmd.AddCommand(get, report)
	return cmd
}
