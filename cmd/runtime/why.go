package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/internal/control"
	"github.com/fairlead-iot/fairlead/store"
)

// whyWait is how long why waits for a running runtime: what is on the disk is what was asked for.
const whyWait = 2 * time.Second

// reasons is what why shows.
type reasons struct {
	// Connection is the running device's; nil where none runs.
	Connection *control.Connection `json:"connection"`
	Entries    []store.Entry       `json:"entries"`
	// Damaged lines of the record could not be read.
	Damaged int `json:"damaged"`
}

func newWhyCommand() *cobra.Command {
	var flags configFlags
	var asJSON bool
	var socket string
	count := 20
	cmd := &cobra.Command{
		Use:   "why",
		Short: "Show what ended the last sessions, and what attempts failed of",
		Long: `Show what the device's connection went through: when each session began, what ended
it, and what attempts failed of since. The record is kept in the state directory, in
at most 64 KiB, and outlives the runtime: why works when none is running, and after a
crash. Attempts that failed alike are counted.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 1 {
				return usagef("--lines %d: it must be 1 or more", count)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), whyWait)
			defer cancel()
			r, err := readReasons(ctx, &flags, socket)
			if err != nil {
				return err
			}
			r.Entries = append([]store.Entry{}, r.Entries[max(0, len(r.Entries)-count):]...)
			if asJSON {
				return printJSON(cmd.OutOrStdout(), r)
			}
			return printReasons(cmd.OutOrStdout(), r, time.Local)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&socket, "socket", "", "the runtime's socket, beside which the record lies, in place of the one that the configuration's state_dir says")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().IntVarP(&count, "lines", "n", count, "how many of the last entries")
	return cmd
}

// readReasons reads the record, and asks the running runtime, if there is one. Of a socket there must be one, which lies in
// its state directory.
func readReasons(ctx context.Context, flags *configFlags, socket string) (r reasons, err error) {
	dir, isNamed := filepath.Dir(socket), socket != ""
	if !isNamed {
		c, err := flags.load()
		if err != nil {
			return r, err
		}
		dir, socket = c.StateDir, control.SocketPath(c.StateDir)
	}
	s, err := control.NewClient(socket).Status(ctx)
	switch {
	case err == nil:
		r.Connection = &s.Connection
	case isNamed:
		return r, err
	}
	r.Entries, r.Damaged, err = store.ReadHistory(dir)
	return r, err
}

func printReasons(w io.Writer, r reasons, zone *time.Location) error {
	var b strings.Builder
	for i, e := range r.Entries {
		if e.What == store.Started && i > 0 && r.Entries[i-1].What != store.Stopped {
			_, _ = fmt.Fprintf(&b, "%-19s  the runtime ended without a word: it was killed, or the power failed\n", "")
		}
		_, _ = fmt.Fprintf(&b, "%s  %s\n", e.At.In(zone).Format(time.DateTime), describe(e, zone))
	}
	if len(r.Entries) == 0 {
		b.WriteString("nothing is on record yet\n")
	}
	if r.Damaged > 0 {
		_, _ = fmt.Fprintf(&b, "%d damaged lines of the record were left out\n", r.Damaged)
	}
	if c := r.Connection; c == nil {
		b.WriteString("now: no runtime is running here\n")
	} else {
		_, _ = fmt.Fprintf(&b, "now: %s for %s by %s: %s\n", c.State, inSeconds(c.Since), c.Transport, oneLine(c.Reason))
		for _, cause := range c.Causes {
			_, _ = fmt.Fprintf(&b, "  %s\n", describeCause(cause))
		}
		if c.NextAttempt > 0 {
			_, _ = fmt.Fprintf(&b, "  next attempt in %s\n", inSeconds(c.NextAttempt))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func describe(e store.Entry, zone *time.Location) string {
	lasted := ""
	if e.Lasted > 0 {
		lasted = " after " + inSeconds(e.Lasted)
		if e.Renewals > 0 {
			lasted += fmt.Sprintf(" and %d renewals", e.Renewals)
		}
	}
	switch e.What {
	case store.Started:
		return fmt.Sprintf("started: version %s, pid %d", oneLine(e.Version), e.PID)
	case store.Stopped:
		return "stopped"
	case store.Connected:
		return "connected by " + oneLine(e.Route)
	case store.Lost:
		return fmt.Sprintf("lost%s by %s: %s", lasted, oneLine(e.Route), reasonOf(e))
	case store.Closed:
		return fmt.Sprintf("closed%s by %s: %s", lasted, oneLine(e.Route), reasonOf(e))
	case store.Failed:
		times := ""
		if e.Count > 1 && e.First != nil {
			times = fmt.Sprintf(" %d times since %s", e.Count, e.First.In(zone).Format(time.DateTime))
		}
		by := ""
		if e.Route != "" { // else it had not come to a route: there was no credential
			by = " by " + oneLine(e.Route)
		}
		return fmt.Sprintf("failed%s%s: %s", times, by, reasonOf(e))
	default:
		return oneLine(e.What) + ": " + reasonOf(e)
	}
}

func reasonOf(e store.Entry) string {
	s := oneLine(e.Reason)
	if e.Kind == "" {
		return s
	}
	if e.Phase == "" {
		return s + " (" + oneLine(e.Kind) + ")"
	}
	return fmt.Sprintf("%s (%s, %s)", s, oneLine(e.Kind), oneLine(e.Phase))
}

func describeCause(c control.Cause) string {
	s := fmt.Sprintf("%s: %s (%s", c.Route, oneLine(c.Reason), c.Kind)
	if c.Phase != "" {
		s += ", " + c.Phase
	}
	s += ")"
	if c.Count > 1 {
		s += fmt.Sprintf(", %d times in a row", c.Count)
	}
	return s
}

// oneLine keeps what others wrote, hubs and proxies, from the terminal's controls.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// inSeconds writes a duration that is given in seconds, for people.
func inSeconds(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
