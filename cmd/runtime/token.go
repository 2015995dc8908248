package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/internal/control"
)

func newTokenCommand() *cobra.Command {
	update := operation("update [@FILE]", "Replace the running device's SAS token by one from stdin, or from a file", atMostOneFile,
		func(ctx context.Context, c *control.Client, cmd *cobra.Command, args []string) error {
			token, err := readToken(cmd, args)
			if err != nil {
				return err
			}
			if err := c.UpdateToken(ctx, token); errors.Is(err, core.ErrInvalid) {
				return usageError(err)
			} else if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "taken; the session is renewed with it")
			return err
		})
	update.Long = `Replace the SAS token of a running device whose identity is device.sastoken. The token
comes from stdin, or from a file named as @FILE; never as an argument, which
everybody on the machine could read. It must be of the same device and hub.

A token that is given so is forgotten at the next start: replace the file that
device.sastoken names to change it for good, which the running device notices.`
	update.Example = "  az iot hub generate-sas-token -n myhub -d gw-0042 --query sas -o tsv | fairlead token update\n  fairlead token update @/run/new-token"
	cmd := &cobra.Command{Use: "token", Short: "Replace the SAS token of the running device"}
	cmd.AddCommand(update)
	return cmd
}

// atMostOneFile refuses whatever may be a token, without repeating it.
func atMostOneFile(cmd *cobra.Command, args []string) error {
	if len(args) > 1 || len(args) == 1 && (!strings.HasPrefix(args[0], "@") || args[0] == "@") {
		return usagef("the token is read from stdin, or from a file named as @FILE, never from an argument, which everybody on this machine can read (see %s --help)", cmd.CommandPath())
	}
	return nil
}

// maxToken is far more than a token has, in bytes.
const maxToken = 64 << 10

func readToken(cmd *cobra.Command, args []string) (core.Secret, error) {
	in := cmd.InOrStdin()
	if len(args) > 0 {
		f, err := os.Open(strings.TrimPrefix(args[0], "@"))
		if err != nil {
			return "", usagef("open the token's file: %w", err)
		}
		defer f.Close() //nolint:errcheck // it was only read
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxToken))
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := core.Secret(strings.TrimSpace(string(text)))
	if token == "" {
		return "", usagef("no token: nothing was read")
	}
	return token, nil
}

// tokenFileLook is how often the token's file is looked at. A look costs two system calls, and a token file changes a
// few times a day; whoever wants it at once says `fairlead token update`.
const tokenFileLook = 2 * time.Second

// watchToken replaces the device's token whenever its file changes, until ctx ends. It looks at the text, not at the file's
// dates: Kubernetes changes a link above the file, and others write in place.
func (rt *running) watchToken(ctx context.Context) *sync.WaitGroup {
	var watching sync.WaitGroup
	source := rt.cfg.Device.SASToken
	path := source.Path()
	if path == "" {
		return &watching
	}
	watching.Go(func() {
		last, tick := rt.token, time.NewTicker(tokenFileLook)
		defer tick.Stop()
		var trouble, said string
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			token, err := source.Resolve()
			token = core.Secret(strings.TrimSpace(token.Reveal()))
			if err == nil && token == last {
				trouble, said = "", ""
				continue
			}
			if err == nil {
				err = rt.client.UpdateSASToken(ctx, token.Reveal())
			}
			if err == nil {
				last, trouble, said = token, "", ""
				continue
			}
			// A file that is being written is of no use for a moment; one that is so twice is meant.
			if text := err.Error(); text == trouble && text != said {
				said = text
				rt.log.Warn("the SAS token's file has changed, and is not of use: the token before it stays", "file", path, "error", err)
			}
			trouble = err.Error()
		}
	})
	return &watching
}
