package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

func newRedeliver(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "redeliver {MESSAGE… | --status STATUS}",
		Short: "Send webhooks once more",
		Long: `Have messages sent once more, with the same webhook-id and body, to where the
callback of their batch points now. Their schedule begins anew.

Messages are named one by one, in whatever state they are; the first that fails
ends the command. Or the server is told, once, to send all again that have a
status, such as those exhausted while a receiver was down; the count is printed.`,
		Example: `  callbatch redeliver msg_… --wait --timeout 1m
  callbatch redeliver --status exhausted --host shop.example:443 --since 24h`,
	}
	r := redelivery{status: choice{words: messageWords(batch.MessageDelivered)}}
	r.register(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.output = *output
		if err := r.complete(cmd.Flags(), args); err != nil {
			return err
		}
		c, err := connect(w)
		if err != nil {
			return err
		}
		if r.status.word != "" {
			return r.many(cmd.Context(), w, c)
		}
		for _, id := range args {
			if err := r.one(cmd.Context(), w, c, id); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
		}
		return nil
	}
	return cmd
}

// A redelivery is what redeliver was told to do.
type redelivery struct {
	output output

	wait    bool // for the one message
	timeout span

	status choice // of many messages
	host   lane
	since  moment
}

func (r *redelivery) register(cmd *cobra.Command) {
	f := cmd.Flags()
	r.status.register(cmd, "status", "all messages with this `status`")
	f.Var(&r.host, "host", "with --status: only messages to this `host:port`")
	f.Var(&r.since, "since", "with --status: only messages made since this `time`, such as 2026-01-31T12:00:00Z, or 24h ago")
	f.BoolVar(&r.wait, "wait", false, "with one message: wait until it is settled; exit 1 if it is not delivered")
	f.Var(&r.timeout, "timeout", "with --wait: give up after this `duration`, and exit 124")
}

// complete judges flags and arguments together.
func (r *redelivery) complete(flags *pflag.FlagSet, args []string) error {
	many := r.status.word != ""
	switch {
	case many && len(args) > 0:
		return usagef("either messages are named, or --status says which: not both")
	case !many && len(args) == 0:
		return usagef("which messages? name them, or give --status exhausted")
	case !many && (flags.Changed("host") || flags.Changed("since")):
		return usagef("--host and --since are for --status")
	case r.wait && len(args) != 1:
		return usagef("--wait is for one message")
	case r.timeout != 0 && !r.wait:
		return usagef("--timeout is for --wait")
	}
	for _, arg := range args {
		if _, err := batch.ParseMessageID(arg); err != nil {
			return usagef("%q does not name a message: %w", arg, err)
		}
	}
	return nil
}

// many has the server send all messages again that are alike.
func (r *redelivery) many(ctx context.Context, w *world, c *client.Client) error {
	n, err := c.RedeliverAll(ctx, client.Redelivery{Status: r.status.word, Host: string(r.host), Since: time.Time(r.since)})
	if err != nil {
		return err
	}
	if r.output == outputJSON {
		return writeDocument(w, struct {
			Count int `json:"count"`
		}{n})
	}
	_, err = fmt.Fprintf(w.stdout, "%d to be sent again\n", n)
	return err
}

// one sends a message again.
func (r *redelivery) one(ctx context.Context, w *world, c *client.Client, id string) error {
	m, err := c.Redeliver(ctx, id)
	if err == nil && r.wait {
		m, err = r.await(ctx, w, c, m)
	}
	if err != nil {
		return err
	}
	if r.output == outputJSON {
		err = writeDocument(w, m)
	} else {
		_, err = fmt.Fprintf(w.stdout, "%s  %s\n", printable(m.ID, mostShown), printable(m.Status, mostShown))
	}
	if err == nil && r.wait && m.Status != batch.MessageDelivered.String() {
		return fmt.Errorf("it is not delivered: %s", printable(string(m.Reason), mostShown))
	}
	return err
}

// await asks after a message until it is settled, less and less often. It
// outlasts a server that is away.
func (r *redelivery) await(ctx context.Context, w *world, c *client.Client, m client.Message) (client.Message, error) {
	if r.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(r.timeout), errWaited)
		defer cancel()
	}
	id := m.ID
	const first, longest = 200 * time.Millisecond, 5 * time.Second
	for pause := first; ; pause = min(2*pause, longest) {
		var s batch.MessageState
		if s.UnmarshalText([]byte(m.Status)) == nil && s.Settled() {
			return m, nil
		}
		select {
		case <-ctx.Done():
			return m, context.Cause(ctx)
		case <-time.After(pause):
		}
		var err error
		if m, err = outlast(ctx, w, func() (client.Message, error) { return c.Message(ctx, id) }); err != nil {
			return m, err
		}
	}
}

// A moment is a time, given as such or by how long ago it was, as the value
// of a flag.
type moment time.Time

func (m *moment) Set(text string) error {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		if at.After(time.Now()) {
			return errors.New("it is in the future")
		}
		*m = moment(at)
		return nil
	}
	var ago span
	if err := ago.Set(text); err != nil {
		return fmt.Errorf("%q is neither how long ago, such as 24h, nor a time such as 2026-01-31T12:00:00Z", text)
	}
	*m = moment(time.Now().Add(-time.Duration(ago)).UTC())
	return nil
}

func (m *moment) String() string {
	if time.Time(*m).IsZero() {
		return ""
	}
	return time.Time(*m).Format(time.RFC3339)
}

func (m *moment) Type() string { return "time" }
