package main

import (
	"github.com/spf13/cobra"

	hostmetrics "github.com/fairlead-iot/fairlead/examples/hostmetrics/plugin"
	thermostat "github.com/fairlead-iot/fairlead/examples/thermostat/plugin"
	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

// builtinCommand starts a built-in plugin: this very binary, started again by the host, through the same door as any
// other plugin.
const builtinCommand = "plugin-builtin"

// builtins are the plugins that come with the binary.
var builtins = map[string]func() *sdk.Plugin{
	"hostmetrics": hostmetrics.New,
	"thermostat":  thermostat.New,
}

func newBuiltinCommand() *cobra.Command {
	return &cobra.Command{
		Use: builtinCommand + " NAME", Hidden: true, Args: cobra.ExactArgs(1),
		Short: "Serve a built-in plugin (the host starts it)",
		RunE: func(_ *cobra.Command, args []string) error {
			builtin, ok := builtins[args[0]]
			if !ok {
				return usagef("no built-in plugin is called %q", args[0])
			}
			builtin().Serve()
			return nil
		},
	}
}
