package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/config"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Explain the configuration",
	}
	cmd.AddCommand(newConfigExplainCommand(), newConfigSchemaCommand())
	return cmd
}

func newConfigExplainCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "explain [KEY]",
		Short:   "Say what a key means, or list all keys",
		Example: "  fairlead config explain connection.keep_alive",
		Args:    cobra.MaximumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return config.Keys(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			key := ""
			if len(args) > 0 {
				key = args[0]
			}
			text, err := config.Explain(key)
			if err != nil {
				return usageError(err)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
}

func newConfigSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print a JSON Schema (draft 2020-12) of the configuration, for editors",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.JSONSchema())
			return err
		},
	}
}
