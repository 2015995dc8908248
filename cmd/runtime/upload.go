package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/internal/control"
)

// How an upload is followed.
const (
	// restartWait is how long a follower waits for a runtime that restarts.
	restartWait = time.Minute
	// barWidth is the bar's length in characters; plainEvery the least time between two plain lines of one state.
	barWidth   = 30
	plainEvery = 10 * time.Second
)

func newUploadCommand() *cobra.Command {
	flags := &socketFlags{}
	var name, cancelID string
	var wait, asJSON bool
	cmd := &cobra.Command{
		Use:   "upload FILE",
		Short: "Upload a file as the running device, to the storage behind its hub",
		Long: `Queue a file for upload to the storage account behind the hub, and print the
upload's id. The runtime reads the file, which must stay as it is until the end;
what a bad link or a restart interrupts goes on where it stopped. The hub is told
how it ended.

With --wait, show the progress (on stderr) and return when it has ended: 0 if the
file is there, 1 if not. Interrupting that does not end the upload; neither does
--timeout, which bounds the wait if it is given, and then says what the upload
waits for.`,
		Example: "  fairlead upload /var/log/today.log --name logs/today.log --wait\n  fairlead upload --cancel 3f9c2a70d1e4b586",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (cancelID != "") {
				return usagef("name either a file, or with --cancel the id of an upload (see %s --help)", cmd.CommandPath())
			}
			hasName := cmd.Flags().Changed("name")
			if cancelID != "" && (hasName || wait) {
				return usagef("--cancel stands alone")
			}
			if hasName && name == "" {
				return usagef("--name is empty: give the blob a name, or leave --name out for the file's own")
			}
			c, ctx, cancel, err := flags.dial(cmd)
			if err != nil {
				return err
			}
			defer cancel()
			out := cmd.OutOrStdout()
			if cancelID != "" {
				if err := c.CancelUpload(ctx, cancelID); err != nil {
					return inputError(err)
				}
				if asJSON {
					u, err := c.FollowUpload(ctx, cancelID, func(control.Upload) error { return nil })
					if err != nil {
						return err
					}
					return printJSON(out, u)
				}
				_, err := fmt.Fprintln(out, "cancelled")
				return err
			}
			r, err := newUpload(args[0], name)
			if err != nil {
				return usageError(err)
			}
			u, err := c.Upload(ctx, r)
			if err != nil {
				return inputError(err)
			}
			if wait {
				limit := time.Duration(0)
				if cmd.Flags().Changed("timeout") {
					limit = flags.timeout
				}
				return followUpload(cmd, c, u, asJSON, limit)
			}
			if asJSON {
				return printJSON(out, u)
			}
			_, err = fmt.Fprintf(out, "%s: %s is queued as %s\n", u.ID, u.Path, u.Name)
			return err
		},
	}
	flags.add(cmd)
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "the blob's name, which the storage prefixes with the device's id; the file's own name if left out")
	f.BoolVar(&wait, "wait", false, "wait until it has ended, and show the progress")
	f.StringVar(&cancelID, "cancel", "", "call the upload with this id off")
	f.BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

// inputError makes what the runtime calls invalid the user's.
func inputError(err error) error {
	if errors.Is(err, core.ErrInvalid) {
		return usageError(err)
	}
	return err
}

// newUpload makes the request of a file, after a look at it: the runtime may see another file system, but seldom does.
func newUpload(file, name string) (control.NewUpload, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return control.NewUpload{}, err
	}
	if name == "" {
		name = filepath.Base(path)
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return control.NewUpload{}, fmt.Errorf("%s is not a regular file", path)
	}
	return control.NewUpload{Path: path, Name: name}, nil
}

// followUpload shows the progress until the end, or for so long if limit is not 0. A runtime that restarts meanwhile is
// waited for.
func followUpload(cmd *cobra.Command, c *control.Client, u control.Upload, asJSON bool, limit time.Duration) error {
	p := &progress{w: cmd.ErrOrStderr(), isTerminal: isTerminal(cmd.ErrOrStderr())}
	began, ctx := time.Now(), cmd.Context()
	if limit != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	var lost time.Time
	trouble := "" // what it waited for last
	for {
		last, err := c.FollowUpload(ctx, u.ID, func(now control.Upload) error {
			lost = time.Time{}
			u, trouble = now, cmp.Or(now.Reason, trouble)
			return p.show(now)
		})
		if err == nil {
			u = last
			break
		}
		if ctx.Err() != nil {
			p.end()
			reason := core.ErrCancelled
			if cmd.Context().Err() == nil {
				reason = core.ErrTimeout
			}
			if trouble != "" {
				trouble = " after " + trouble
			}
			return fmt.Errorf("%w%s; the upload goes on: fairlead status shows it, fairlead upload --cancel %s ends it", reason, trouble, u.ID)
		}
		if errors.Is(err, core.ErrInvalid) {
			p.end()
			return err // the runtime has forgotten it
		}
		if lost.IsZero() {
			lost = time.Now()
		}
		if time.Since(lost) > restartWait {
			p.end()
			return fmt.Errorf("%w; the upload goes on when the runtime does", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	p.end()
	out := cmd.OutOrStdout()
	if asJSON {
		if err := printJSON(out, u); err != nil {
			return err
		}
	}
	if u.State != core.UploadDone.String() {
		return fmt.Errorf("upload %s %s: %s", u.ID, u.State, u.Reason)
	}
	if asJSON {
		return nil
	}
	_, err := fmt.Fprintf(out, "%s: %s is there, %s in %v\n", u.ID, u.Name, byteText(float64(u.Size)), time.Since(began).Round(100*time.Millisecond))
	return err
}

// progress shows an upload: a bar on a terminal, lines elsewhere.
type progress struct {
	w          io.Writer
	isTerminal bool
	state      string
	percent    int
	at         time.Time
	isOpen     bool // a bar stands without an end of the line
}

func (p *progress) show(u control.Upload) error {
	if p.isTerminal {
		full := barWidth * u.Percent() / 100
		_, err := fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), uploadText(u))
		p.isOpen = true
		return err
	}
	if u.State == p.state && (time.Since(p.at) < plainEvery || u.Percent() == p.percent) {
		return nil
	}
	p.state, p.percent, p.at = u.State, u.Percent(), time.Now()
	_, err := fmt.Fprintf(p.w, "%s\n", uploadText(u))
	return err
}

func (p *progress) end() {
	if p.isOpen {
		_, _ = fmt.Fprintln(p.w) // stderr; nothing is lost
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// uploadText says in one line how an upload stands.
func uploadText(u control.Upload) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d %% of %s", u.State, u.Percent(), byteText(float64(u.Size)))
	if u.Rate > 0 {
		fmt.Fprintf(&b, ", %s/s", byteText(u.Rate))
	}
	if u.Left > 0 {
		fmt.Fprintf(&b, ", %s left", time.Duration(u.Left*float64(time.Second)).Round(time.Second))
	}
	if u.Reason != "" {
		fmt.Fprintf(&b, ": %s", u.Reason)
	}
	if u.NextAttempt > 0 {
		fmt.Fprintf(&b, " (next attempt in %s)", time.Duration(u.NextAttempt*float64(time.Second)).Round(time.Second))
	}
	return b.String()
}

// byteText writes a number of bytes for people.
func byteText(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1024 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", n)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.1f TiB", n)
}
