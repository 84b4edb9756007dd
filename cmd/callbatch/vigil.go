package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/callbatch/callbatch/batch/client"
)

// A vigil is what a command was told of waiting for the end of a batch.
type vigil struct {
	wait    bool
	watch   bool
	timeout span
}

func (v *vigil) register(f *pflag.FlagSet) {
	f.BoolVar(&v.wait, "wait", false, "wait for the end of the batch; exit 3 if not every item succeeded")
	f.BoolVar(&v.watch, "watch", false, "as --wait, with how it goes as the watch command shows it")
	f.Var(&v.timeout, "timeout", "with --wait or --watch: give up after this `duration`, and exit 124")
}

func (v *vigil) complete() error {
	if v.timeout != 0 && !v.asked() {
		return usagef("--timeout is for --wait and --watch")
	}
	return nil
}

// asked reports whether the end is waited for.
func (v *vigil) asked() bool { return v.wait || v.watch }

// keep waits for the end of the batch, if it was asked for, and shows on
// stderr how far it is.
func (v *vigil) keep(ctx context.Context, w *world, c *client.Client, b client.Batch) (client.Batch, error) {
	if !v.asked() {
		return b, nil
	}
	ctx, cancel := v.within(ctx)
	defer cancel()
	if v.watch {
		return follow(ctx, c, b, newBoard(w, w.stderr))
	}
	m := newMeter(w, int64(b.Counts.Total), "done", "items")
	defer m.close()
	return c.Wait(ctx, b.ID, client.WaitOptions{
		Progress: func(b client.Batch) { m.set(int64(b.Counts.Finished())) },
	})
}

// within bounds ctx by the timeout, if there is one.
func (v *vigil) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if v.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, time.Duration(v.timeout), errWaited)
}

// verdict says on stderr how a batch has ended, or fails if not all of its
// items succeeded.
func verdict(w *world, b client.Batch) error {
	if b.Counts.Succeeded < b.Counts.Total {
		return fmt.Errorf("%s, but %w: %s", statusLine(b), errFailedItems, countsLine(b.Counts))
	}
	fmt.Fprintf(w.stderr, "%s: %s\n", statusLine(b), countsLine(b.Counts))
	return nil
}
