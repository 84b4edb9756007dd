package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

func newMessages(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "messages [BATCH|MESSAGE]",
		Short: "Show the webhooks, and how their delivery stands",
		Long: `List the messages of a batch, or of all, newest first; or show one message with
every attempt to deliver it.

With --feed all messages come with their bodies, oldest first, one JSON object a
line, the body in it byte for byte as receivers are sent it: for a receiver that cannot be called. Where "next" of a line is not null,
--after goes on behind that line another time. No message is missed so; drop an
id you have seen.`,
		Example: `  callbatch messages --status exhausted --host shop.example:443
  callbatch messages msg_… --verbose
  callbatch messages --feed --follow | jq -c .body.data`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("usage: %s", cmd.UseLine())
			}
			return nil
		},
	}
	q := inquiry{status: choice{words: messageWords(batch.MessageWaiting)}}
	q.register(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q.output = *output
		purpose, err := q.complete(cmd.Flags(), args)
		if err != nil {
			return err
		}
		c, err := connect(w)
		if err != nil {
			return err
		}
		switch purpose {
		case ofFeed:
			return q.pull(cmd.Context(), w, c)
		case ofOne:
			return q.show(cmd.Context(), w, c, args[0])
		default:
			return q.list(cmd.Context(), w, c)
		}
	}
	return cmd
}

// An inquiry is what messages was asked.
type inquiry struct {
	output output

	batch  string // of a list
	status choice
	host   lane
	listing

	verbose bool // of one message
	body    bool

	feed   bool
	after  string
	follow bool
}

// What messages does, in the words that say which flags go with it.
const (
	ofList = "a list of messages"
	ofOne  = "one message"
	ofFeed = "--feed"
)

// purposes are those of the flags that go with one thing only.
var purposes = map[string]string{
	"status": ofList, "host": ofList, "limit": ofList, "all": ofList,
	"verbose": ofOne, "body": ofOne,
	"after": ofFeed, "follow": ofFeed,
}

func (q *inquiry) register(cmd *cobra.Command) {
	f := cmd.Flags()
	q.status.register(cmd, "status", "only messages with this `status`")
	f.Var(&q.host, "host", "only messages to this `host:port`")
	q.listing.register(f)
	f.BoolVarP(&q.verbose, "verbose", "v", false, "with one message: also the headers and the receiver's answers")
	f.BoolVar(&q.body, "body", false, "with one message: its body alone, byte for byte")
	f.BoolVar(&q.feed, "feed", false, "pull the messages, oldest first")
	f.StringVar(&q.after, "after", "", "with --feed: begin behind this `place`, which an earlier line gave as next")
	f.BoolVar(&q.follow, "follow", false, "with --feed: go on with new messages until Ctrl-C")
}

// complete judges flags and argument together, and says what is wanted.
func (q *inquiry) complete(flags *pflag.FlagSet, args []string) (purpose string, err error) {
	purpose = ofList
	switch {
	case q.feed && len(args) > 0:
		return "", usagef("--feed is of all batches: leave out %s", args[0])
	case q.feed:
		purpose = ofFeed
	case len(args) > 0:
		if purpose, err = q.name(args[0]); err != nil {
			return "", err
		}
	}
	flags.Visit(func(f *pflag.Flag) {
		if p, bound := purposes[f.Name]; bound && p != purpose {
			err = usagef("--%s is for %s", f.Name, p)
		}
	})
	switch {
	case err != nil:
	case q.body && (q.output == outputJSON || q.verbose):
		err = usagef("--body gives the body alone: leave out --output and --verbose")
	default:
		err = q.listing.complete(flags)
	}
	return purpose, err
}

// name takes the argument for what it names.
func (q *inquiry) name(arg string) (purpose string, err error) {
	_, err = batch.ParseMessageID(arg)
	switch {
	case err == nil:
		return ofOne, nil
	case strings.HasPrefix(arg, "msg_"):
		return "", usagef("%q does not name a message: %w", arg, err)
	}
	if _, err := batch.ParseID(arg); err != nil {
		return "", usagef("%q names neither a batch (bat_…) nor a message (msg_…): %w", arg, err)
	}
	q.batch = arg
	return ofList, nil
}

// list writes messages, a line each.
func (q *inquiry) list(ctx context.Context, w *world, c *client.Client) error {
	o := client.MessageOptions{Batch: q.batch, Status: q.status.word, Host: string(q.host), Limit: q.atATime()}
	head := fmt.Sprintf(listLine, "id", "type", "status", "attempts", "next attempt", "host", "created")
	return write(w, q.listing, q.output, c.AllMessages(ctx, o), "messages", head, messageEntry)
}

// listLine is a line of the list: id, type, status, attempts, next attempt,
// host, created.
const listLine = "%-30s  %-15s  %-9s  %8v  %-26s  %-21s  %s"

func messageEntry(m client.Message) string {
	next := "-"
	if m.Next != nil {
		next = localTime(m.Next)
	}
	return fmt.Sprintf(listLine, m.ID, m.Type, m.Status, m.Made, next, cmp.Or(m.Host, "-"), localTime(&m.Created))
}

func unprintable(r rune) bool { return !unicode.IsGraphic(r) }

// messageWords are the words for the states of a message, from first on.
func messageWords(first batch.MessageState) (words []string) {
	for s := first; s <= batch.MessagePulled; s++ {
		words = append(words, s.String())
	}
	return words
}
