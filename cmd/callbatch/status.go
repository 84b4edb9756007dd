package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

func newStatus(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status ID",
		Short: "Show how a batch stands",
		Args:  exactly("ID"),
	}
	output := outputFlag(cmd)
	cmd.RunE = onBatch(w, output, (*client.Client).Batch)
	return cmd
}

// onBatch runs a command that does one thing with the batch it names and
// shows the batch as it is then.
func onBatch(w *world, o *output, do func(*client.Client, context.Context, string) (client.Batch, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		c, err := connect(w)
		if err != nil {
			return err
		}
		b, err := do(c, cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return writeBatch(w, *o, b)
	}
}

// writeBatch shows a batch.
func writeBatch(w *world, o output, b client.Batch) error {
	if o == outputJSON {
		return writeDocument(w, b)
	}
	t := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
	describe(t, b)
	return t.Flush()
}

// describe writes a batch as rows of a name, a tab and a value, which does
// nothing to a terminal.
func describe(out io.Writer, b client.Batch) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%s\t%s\n", name, printable(fmt.Sprintf(format, args...), mostLine))
	}
	row("batch", "%s", b.ID)
	row("status", "%s", statusLine(b))
	row("processor", "%s", b.Processor)
	row("items", "%d: %s", b.Counts.Total, countsLine(b.Counts))
	if pace := speed(b); len(pace) > 0 {
		row("speed", "%s", strings.Join(pace, ", "))
	}
	if b.Callback.URL != "" {
		m := b.Callback.Messages
		row("callback", "%s to %s", b.Callback.Status, b.Callback.URL)
		text := fmt.Sprintf("%d delivered, %d waiting, %d exhausted", m.Delivered, m.Waiting, m.Exhausted)
		if m.Other > 0 {
			text += fmt.Sprintf(", %d blocked, canceled or pulled", m.Other)
		}
		row("messages", "%s", text)
	}
	for _, k := range slices.Sorted(maps.Keys(b.Metadata)) {
		row("metadata", "%s=%s", k, b.Metadata[k])
	}
	row("created", "%s", localTime(&b.Created))
	if b.Started != nil {
		row("started", "%s", localTime(b.Started))
	}
	if b.Expires != nil && !b.Terminal() {
		row("expires", "%s", localTime(b.Expires))
	}
	if b.Finished != nil {
		row("finished", "%s", localTime(b.Finished))
	}
}

// statusLine says how a batch stands, in what does nothing to a terminal.
func statusLine(b client.Batch) string {
	line := b.Status
	if b.Reason != "" {
		line += ", " + string(b.Reason)
	}
	if b.WaitingOn != "" && string(b.WaitingOn) != b.Status {
		line += ", waiting on " + string(b.WaitingOn)
	}
	if b.Round > 1 {
		line += fmt.Sprintf(" (round %d)", b.Round)
	}
	return printable(line, mostShown)
}

// countsLine says where the items are, leaving out where there are none.
func countsLine(c batch.Counts) string {
	var parts []string
	for _, p := range []struct {
		n    int
		name string
	}{
		{c.Succeeded, "succeeded"},
		{c.Failed, "failed"},
		{c.Canceled, "canceled"},
		{c.Expired, "expired"},
		{c.Running, "running"},
		{c.Pending, "pending"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.name))
		}
	}
	return strings.Join(parts, ", ")
}

func localTime(t *time.Time) string { return t.Local().Format("2006-01-02 15:04:05 -07:00") }
