package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
)

func newHubFilesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "files", Short: "See what devices have uploaded"}
	cmd.AddCommand(newHubFilesListCommand(), newHubFilesGetCommand(), newHubFilesNotificationsCommand())
	return cmd
}

// needsFiles refuses a real hub: files are in its storage account, and notifications come over AMQP.
func (t *hubTarget) needsFiles(cmd *cobra.Command, instead string) error {
	if t.isRemote(cmd) {
		return usagef("a real hub does not give its files and their notifications over its REST API; %s", instead)
	}
	return nil
}

func newHubFilesListCommand() *cobra.Command {
	var target hubTarget
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list DEVICE",
		Short: "List the files of a device (or a module, as DEVICE/MODULE)",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := target.needsFiles(cmd, "use: az storage blob list --prefix "+args[0]+"/ --account-name … --container-name …"); err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error {
				files, err := c.Files(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if asJSON {
					text, err := json.Marshal(files)
					if err != nil {
						return fmt.Errorf("encode files: %w", err)
					}
					return printIndented(cmd, text)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "FILE\tBYTES\tMODIFIED\tTYPE") // Flush reports
				for _, f := range files {
					_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", printable([]byte(f.Name)), f.Size, f.LastModified.Local().Format(time.DateTime), printable([]byte(f.ContentType))) // as above
				}
				return w.Flush()
			})
		},
	}
	target.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newHubFilesGetCommand() *cobra.Command {
	var target hubTarget
	var out string
	cmd := &cobra.Command{
		Use:     "get DEVICE FILE",
		Short:   "Write an uploaded file to stdout, or to --out",
		Example: `  fairlead hub files get dev1 logs/today.txt --out today.txt`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := target.needsFiles(cmd, "use: az storage blob download --name "+args[0]+"/"+args[1]+" --account-name … --container-name …"); err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error {
				content, size, err := c.OpenFile(cmd.Context(), args[0], args[1])
				if e, ok := errors.AsType[*api.Error](err); ok && e.HTTPStatus == 404 {
					return fmt.Errorf("%w (see fairlead hub files list %s)", err, args[0])
				}
				if err != nil {
					return err
				}
				defer content.Close() //nolint:errcheck // it was read
				if out == "" {
					return copyAll(cmd.OutOrStdout(), content, size)
				}
				return writeStream(out, content, size)
			})
		},
	}
	target.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "file to write to; it appears when it is complete")
	return cmd
}

// copyAll copies a content of a known size. A stream that ends early is no file.
func copyAll(w io.Writer, content io.Reader, size int64) error {
	n, err := io.Copy(w, content)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("read file, %d of %d bytes: %w", n, size, err)
	}
	return nil
}

// writeStream puts a file in place once all of it is there.
func writeStream(name string, content io.Reader, size int64) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	err = copyAll(tmp, content, size)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

func newHubFilesNotificationsCommand() *cobra.Command {
	var target hubTarget
	var device string
	var asJSON, follow bool
	var count int
	cmd := &cobra.Command{
		Use:   "notifications",
		Short: "Show the notifications of uploads, without taking them",
		Long: `Show the notifications of uploads that the hub keeps, for an hour or until a service completes them, and
with --follow those that come. They stay where they are: looking takes none away from a service.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := target.needsFiles(cmd, "they come over AMQP, for which Microsoft's service SDKs have a receiver of file notifications"); err != nil {
				return err
			}
			return target.withHub(cmd, func(c *service.Client) error {
				shown := 0
				err := c.WatchFileNotifications(cmd.Context(), device, follow, func(n api.FileNotification) error {
					if err := printFileNotification(cmd, n, asJSON); err != nil {
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
	flags.StringVar(&device, "device", "", "only this device, its modules included")
	flags.BoolVar(&follow, "follow", false, "wait for further ones")
	flags.BoolVar(&asJSON, "json", false, "print a JSON object per line")
	flags.IntVar(&count, "count", 0, "end after that many")
	return cmd
}

func printFileNotification(cmd *cobra.Command, n api.FileNotification, asJSON bool) error {
	if asJSON {
		return printLine(cmd, n)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s  %d bytes\n",
		n.EnqueuedTimeUTC.Local().Format("15:04:05.000"), n.DeviceID, printable([]byte(n.BlobName)), n.BlobSizeInBytes)
	return err
}
