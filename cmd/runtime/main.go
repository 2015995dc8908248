// Command runtime is Fairlead's one program; its users know it as fairlead. It names everything and decides nothing:
// each subcommand, in the file of its name, wires packages together.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
)

func main() {
	ctx, stop := notifyContext(context.Background(), os.Exit)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run carries out a command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	printError(stderr, err)
	return exitCode(err)
}

// printError says what went wrong. Problems of the configuration stand alone on their lines, which begin with the place,
// so that editors can jump there.
func printError(stderr io.Writer, err error) {
	if e, ok := errors.AsType[*exitError](err); ok && e.err == nil {
		return // the command has said it
	}
	prefix := "fairlead: "
	if _, ok := errors.AsType[*config.Error](err); ok {
		prefix = ""
	}
	text := err.Error()
	if errors.Is(err, core.ErrInvalid) { // the exit code says so
		text = strings.TrimSuffix(text, ": "+core.ErrInvalid.Error())
	}
	_, _ = fmt.Fprintf(stderr, "%s%s\n", prefix, text) // nowhere to say that stderr is gone
}

// newRootCommand returns the command with all its subcommands. A new one is a line here and a file of its own.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "fairlead",
		Short: "Keep a device connected to its IoT hub, and run its plugins",
		Long: `Fairlead keeps a device connected to Azure IoT Hub whatever the network does, and
runs the device's business logic as plugins in processes of their own.

Exit codes: 0 fine; 1 it failed; 2 the input is wrong; 3 the identity or the
state directory is in use. Results go to stdout, logs and errors to stderr.`,
		Args:          noArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w (see %s --help)", err, cmd.CommandPath())
	})
	root.SetHelpCommand(newHelpCommand(root))
	root.AddCommand(
		newRunCommand(),
		newCheckCommand(),
		newDoctorCommand(),
		newStatusCommand(),
		newEventsCommand(),
		newWhyCommand(),
		newConnectCommand(),
		newDisconnectCommand(),
		newSendCommand(),
		newTwinCommand(),
		newTokenCommand(),
		newTransportCommand(),
		newUploadCommand(),
		newHubCommand(),
		newDemoCommand(),
		newBuiltinCommand(),
		newConfigCommand(),
		newVersionCommand(),
	)
	root.InitDefaultCompletionCmd("completion")
	usageArgs(root)
	return root
}

// newHelpCommand is cobra's own but for the exit code of a topic that does not exist.
func newHelpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 && cmd == root {
				return usagef("no command %q", args)
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// usageArgs makes wrong arguments of every command, cobra's own included, exit as wrong input.
func usageArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if _, ok := errors.AsType[*exitError](err); err == nil || ok {
				return err
			}
			return usagef("%w (see %s --help)", err, cmd.CommandPath())
		}
	} else if cmd.HasSubCommands() {
		cmd.Args = noArgs
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			return usagef("%s needs a subcommand (see %s --help)", cmd.CommandPath(), cmd.CommandPath())
		}
	}
	for _, sub := range cmd.Commands() {
		usageArgs(sub)
	}
}

// noArgs refuses arguments; of a command with subcommands, it says that there is no such subcommand.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		text := fmt.Sprintf("%s has no subcommand %q", cmd.CommandPath(), args[0])
		cmd.SuggestionsMinimumDistance = 2 // letters that a mistyped name may be off
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += fmt.Sprintf(" (did you mean %q?)", near[0])
		}
		return usageError(errors.New(text))
	}
	return usagef("%s takes no argument, but got %q", cmd.CommandPath(), args[0])
}

// notifyContext returns a context that the first SIGTERM or SIGINT cancels. A second one exits at once, with the code
// that a shell gives to a process that a signal ended.
func notifyContext(parent context.Context, exit func(int)) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	done := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case s := <-signals:
				if n == 0 {
					cancel()
					continue
				}
				code := 128
				if s, ok := s.(syscall.Signal); ok {
					code += int(s)
				}
				exit(code)
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}

// configFlags are the flags of every command that reads the configuration.
type configFlags struct {
	file string
	set  []string
}

func (f *configFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.file, "config", "c", config.DefaultPath, "configuration file: YAML, TOML or JSON")
	cmd.Flags().StringArrayVar(&f.set, "set", nil, "override a key, as in connection.keep_alive=30s (repeatable; never for secrets)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml", "toml", "json") // the flag exists: it was added above
}

// load reads the configuration. An error that the user must mend exits as wrong input; it holds all problems, one a line.
func (f *configFlags) load() (*config.Config, error) {
	c, err := config.Load(f.file, config.Options{Set: f.set})
	if _, ok := errors.AsType[*config.Error](err); ok {
		return nil, usageError(err)
	}
	return c, err
}
