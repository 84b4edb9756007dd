package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/callbatch/callbatch/batch/client"
)

func newWatch(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch [ID]",
		Short: "Follow a batch, or all of them, as they are worked on",
		Long: `Follow a batch to its end, or all batches until Ctrl-C: how far each is, how fast,
what it waits for and how its callback stands. On a terminal there is a line for
each that changes in place; elsewhere one is written when there is something
new, and with --output json the whole batch whenever it has changed.

It outlasts a restart of the server and a connection that breaks. For one batch
it exits as submit --wait does: with 3 if not every item succeeded.`,
		Example: `  callbatch watch bat_…
  callbatch watch --output json | jq -r 'select(.status == "completed").id'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("usage: %s", cmd.UseLine())
			}
			return nil
		},
	}
	var v vigil
	cmd.Flags().Var(&v.timeout, "timeout", "give up after this `duration`, and exit 124")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, cancel := v.within(cmd.Context())
		defer cancel()
		b := newBoard(w, w.stdout)
		b.json = *output == outputJSON
		if len(args) == 1 {
			return watchOne(ctx, w, b, args[0])
		}
		err := watchAll(ctx, w, b)
		if cmd.Context().Err() != nil {
			return nil // as it ends
		}
		return err
	}
	return cmd
}

func watchOne(ctx context.Context, w *world, on *board, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	c, err := connect(w)
	if err != nil {
		return err
	}
	b, err := c.Batch(ctx, id) // a server that is not there is told at once
	if err != nil {
		return err
	}
	if b, err = follow(ctx, c, b, on); err != nil {
		return err
	}
	return verdict(w, b)
}

// follow shows a batch until it has ended.
func follow(ctx context.Context, c *client.Client, b client.Batch, on *board) (client.Batch, error) {
	defer on.close()
	if err := on.show(b); err != nil || b.Terminal() {
		return b, err
	}
	for next, err := range c.Watch(ctx, b.ID, client.WatchOptions{Lost: on.lost}) {
		if err != nil {
			return b, err
		}
		b = next
		if err := on.show(b); err != nil {
			return b, err
		}
	}
	return b, nil
}

func watchAll(ctx context.Context, w *world, on *board) error {
	c, err := connect(w)
	if err != nil {
		return err
	}
	if _, err := c.List(ctx, client.ListOptions{Limit: 1}); err != nil {
		return err
	}
	defer on.close()
	for b, err := range c.Watch(ctx, "", client.WatchOptions{Patience: -1, Lost: on.lost}) {
		if err != nil {
			return err
		}
		if err := on.show(b); err != nil {
			return err
		}
	}
	return nil
}
