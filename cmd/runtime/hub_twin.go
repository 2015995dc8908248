package main

import (
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
)

func newHubTwinCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "twin", Short: "Read and change a twin"}
	cmd.AddCommand(newHubTwinGetCommand(), newHubTwinPatchCommand())
	return cmd
}

func newHubTwinGetCommand() *cobra.Command {
	var target hubTarget
	cmd := &cobra.Command{
		Use:   "get ID",
		Short: "Print a twin as JSON",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return target.withHub(cmd, func(c *service.Client) error {
				text, err := c.Twin(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return printIndented(cmd, text)
			})
		},
	}
	target.add(cmd)
	return cmd
}

func newHubTwinPatchCommand() *cobra.Command {
	var target hubTarget
	cmd := &cobra.Command{
		Use:     "patch ID JSON",
		Short:   "Merge a patch into a twin and print it",
		Long:    `Merge a patch in the service's form into a twin: null deletes, an object merges. Print the whole twin.`,
		Example: `  fairlead hub twin patch dev1 '{"properties":{"desired":{"interval":10}}}'`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var patch struct {
				Tags       json.RawMessage `json:"tags"`
				Properties json.RawMessage `json:"properties"`
			}
			if err := json.Unmarshal([]byte(args[1]), &patch); err != nil {
				return usagef("the patch is not a JSON object: %w", err)
			}
			if patch.Tags == nil && patch.Properties == nil {
				return usagef(`the patch changes nothing: its form is {"properties":{"desired":{…}}} or {"tags":{…}}`)
			}
			return target.withHub(cmd, func(c *service.Client) error {
				text, err := c.PatchTwin(cmd.Context(), args[0], json.RawMessage(args[1]))
				if err != nil {
					return err
				}
				return printIndented(cmd, text)
			})
		},
	}
	target.add(cmd)
	return cmd
}

func newHubMethodCommand() *cobra.Command {
	var target hubTarget
	var payload string
	var timeout, connectTimeout time.Duration
	cmd := &cobra.Command{
		Use:     "method ID NAME",
		Short:   "Call a direct method and print its answer as JSON",
		Example: `  fairlead hub method dev1 reboot --payload '{"delay":5}'`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !json.Valid([]byte(payload)) {
				return usagef("--payload is not JSON (a text needs quotes within it: '\"text\"')")
			}
			response, connect := int(timeout.Seconds()), int(connectTimeout.Seconds())
			return target.withHub(cmd, func(c *service.Client) error {
				answer, err := c.InvokeMethod(cmd.Context(), args[0], api.MethodRequest{
					MethodName: args[1], Payload: json.RawMessage(payload),
					ResponseTimeoutInSeconds: &response, ConnectTimeoutInSeconds: &connect,
				})
				if err != nil {
					return err
				}
				return printLine(cmd, answer)
			})
		},
	}
	target.add(cmd)
	cmd.Flags().StringVar(&payload, "payload", "null", "payload, any JSON")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long the device may take, 5s to 5m, in whole seconds")
	cmd.Flags().DurationVar(&connectTimeout, "connect-timeout", 0, "how long to wait for the device to connect, up to 5m")
	return cmd
}
