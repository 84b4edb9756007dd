package main

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/callbatch/callbatch/batch/client"
)

func newRetry(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retry ID",
		Short: "Work once more on what failed in a batch",
		Long: `Open the next round of a batch that has ended, for its items that failed, were
canceled or expired, or for some of them. Results that succeeded stay; those of
earlier rounds can still be read. The callback is told of the new round alone.

--from-round is the round you have looked at: should somebody else have opened
another meanwhile, it is a conflict and nothing is done.`,
		Example: `  callbatch retry bat_… --wait
  callbatch retry bat_… --ids A-17,A-18 --expires-in 1h`,
		Args: exactly("ID"),
	}
	var r again
	r.register(cmd.Flags())
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := r.complete(cmd.Flags()); err != nil {
			return err
		}
		var last client.Batch
		show := onBatch(w, output, func(c *client.Client, ctx context.Context, id string) (b client.Batch, err error) {
			last, err = r.run(ctx, w, c, id)
			return last, err
		})
		if err := show(cmd, args); err != nil || !r.vigil.asked() {
			return err
		}
		return verdict(w, last)
	}
	return cmd
}

// An again is what retry was told to do.
type again struct {
	from    int
	ids     []string
	indexes []int
	expires span // 0: as the batch says
	vigil   vigil
}

func (r *again) register(f *pflag.FlagSet) {
	f.IntVar(&r.from, "from-round", 0, "the `round` that is over (default the last one there is)")
	f.StringSliceVar(&r.ids, "ids", nil, "only items with these `ids`, separated by commas; may be repeated")
	f.IntSliceVar(&r.indexes, "indexes", nil, "only items at these `indexes`, separated by commas; may be repeated")
	f.Var(&r.expires, "expires-in", "let what is not done after this `duration` expire (default as the batch was submitted)")
	r.vigil.register(f)
}

// complete judges the flags together.
func (r *again) complete(f *pflag.FlagSet) error {
	switch {
	case f.Changed("from-round") && r.from < 1:
		return usagef("--from-round is 1 or more")
	case len(r.ids) > 0 && len(r.indexes) > 0:
		return usagef("items are named by --ids or by --indexes: not both")
	case f.Changed("ids") && (len(r.ids) == 0 || slices.Contains(r.ids, "")):
		return usagef("--ids is empty: give it a value, or leave it out")
	case slices.ContainsFunc(r.indexes, func(i int) bool { return i < 0 }):
		return usagef("--indexes are 0 or more")
	}
	return r.vigil.complete()
}

// run opens the round, and waits for its end if that was asked for.
func (r *again) run(ctx context.Context, w *world, c *client.Client, id string) (b client.Batch, err error) {
	if r.from == 0 {
		if b, err = c.Batch(ctx, id); err != nil {
			return b, err
		}
		r.from = b.Round
	}
	o := client.RetryOptions{
		FromRound: r.from, IDs: r.ids, Indexes: r.indexes, ExpiresIn: time.Duration(r.expires), IdempotencyKey: rand.Text(),
	}
	b, err = persist(ctx, w, func() (client.Batch, error) { return c.Retry(ctx, id, o) })
	if err != nil {
		return b, err
	}
	return r.vigil.keep(ctx, w, c, b)
}
