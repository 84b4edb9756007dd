package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

func newList(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the batches, newest first",
		Long: `List the batches, newest first, each with how many of its items succeeded, failed
(or were canceled or expired) and are left to do.`,
		Example: `  callbatch list --status running
  callbatch list --metadata run=nightly --created-after 24h --output json | jq .counts`,
		Args: exactly(),
	}
	l := roster{status: choice{words: statusWords()}}
	l.register(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o, err := l.complete(cmd.Flags())
		if err != nil {
			return err
		}
		c, err := connect(w)
		if err != nil {
			return err
		}
		head := fmt.Sprintf(rosterLine, "id", "status", "items", "succeeded", "failed", "left", "created", "processor")
		return write(w, l.listing, *output, c.All(cmd.Context(), o), "batches", head, rosterEntry)
	}
	return cmd
}

// A roster is what list was asked.
type roster struct {
	listing   listing
	status    choice
	processor string
	metadata  pairs
	after     moment
	before    moment
}

func (l *roster) register(cmd *cobra.Command) {
	f := cmd.Flags()
	l.status.register(cmd, "status", "only batches with this `status`")
	f.StringVar(&l.processor, "processor", "", "only batches this `processor` works on")
	f.Var(&l.metadata, "metadata", "only batches with this `key=value`; may be repeated")
	f.Var(&l.after, "created-after", "only batches made after this `time`, such as 2026-01-31T12:00:00Z, or 24h ago")
	f.Var(&l.before, "created-before", "only batches made before this `time`, or so long ago")
	l.listing.register(f)
}

// complete judges the flags together and says what to ask for.
func (l *roster) complete(f *pflag.FlagSet) (client.ListOptions, error) {
	o := client.ListOptions{
		Status: l.status.word, Processor: l.processor, Metadata: l.metadata,
		CreatedAfter: time.Time(l.after), CreatedBefore: time.Time(l.before), Limit: l.listing.atATime(),
	}
	if !o.CreatedBefore.IsZero() && !o.CreatedBefore.After(o.CreatedAfter) {
		return o, usagef("--created-before is not later than --created-after: nothing was made in between")
	}
	return o, l.listing.complete(f)
}

// rosterLine is a line of the list: id, status, items, succeeded, failed,
// left, created, processor.
const rosterLine = "%-30s  %-9s  %9v  %9v  %9v  %9v  %-26s  %s"

func rosterEntry(b client.Batch) string {
	c := b.Counts
	return fmt.Sprintf(rosterLine, b.ID, b.Status, c.Total, c.Succeeded, c.Failed+c.Canceled+c.Expired, c.Pending+c.Running, localTime(&b.Created), b.Processor)
}

// statusWords are the words for the states of a batch.
func statusWords() (words []string) {
	for s := batch.Open; s <= batch.Expired; s++ {
		words = append(words, s.String())
	}
	return words
}
