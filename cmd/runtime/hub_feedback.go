package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
)

// feedbackPoll is how often --follow asks: the hub's route does not wait.
const feedbackPoll = time.Second

func newHubFeedbackCommand() *cobra.Command {
	var target hubTarget
	var asJSON, follow bool
	cmd := &cobra.Command{
		Use:   "feedback",
		Short: "Fetch what became of cloud-to-device messages sent with --ack",
		Long: `Print the feedback that waits, and remove it from the hub: what became of cloud-to-device messages that were
sent with --ack positive, negative or full.`,
		Example: `  fairlead hub c2d dev1 'stop now' --ack full --message-id m1
  fairlead hub feedback`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return target.withHub(cmd, func(c *service.Client) error {
				for {
					err := takeFeedback(cmd.Context(), c, func(f api.Feedback) error { return printFeedback(cmd, f, asJSON) })
					if err != nil || !follow {
						return err
					}
					select {
					case <-time.After(feedbackPoll):
					case <-cmd.Context().Done():
						return nil
					}
				}
			})
		},
	}
	target.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object per line")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on until interrupted")
	return cmd
}

// takeFeedback gives every record that waits, and removes a batch once all of it was given.
func takeFeedback(ctx context.Context, c *service.Client, give func(api.Feedback) error) error {
	for {
		batch, err := c.ReceiveFeedback(ctx)
		if err != nil || batch == nil {
			return err
		}
		for _, f := range batch.Records {
			if err := give(f); err != nil {
				return err
			}
		}
		if err := c.CompleteFeedback(ctx, batch.Lock); err != nil {
			return err
		}
	}
}

func printFeedback(cmd *cobra.Command, f api.Feedback, asJSON bool) error {
	if asJSON {
		return printLine(cmd, f)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s  %s\n",
		f.EnqueuedTimeUTC.Local().Format("15:04:05.000"), f.DeviceID, printable([]byte(f.OriginalMessageID)), f.StatusCode)
	return err
}
