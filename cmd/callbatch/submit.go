package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

func newSubmit(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "submit FILE|-",
		Short: "Send a batch, and print its id",
		Long: `Send a batch from a file, or from standard input, and print its id once the
whole of it is safely on the server's disk.

The file's name says what is in it: .ndjson or .jsonl is one item a line, .json
is an object with "items" and with the options beside them; each may be
compressed (.gz). --type says it where there is no name.

The options that flags give travel in the URL, which a proxy in between may log.

The server gives up on a body, with 408, that stops for 30 seconds or comes at
less than 256 bytes a second. Let a slow command write a file first, and send
that.`,
		Example: `  callbatch submit items.ndjson --callback-url https://shop.example/hooks
  generate | callbatch submit - --type ndjson --wait`,
		Args: exactly("FILE"),
	}
	var s submission
	s.register(cmd.Flags())
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := s.complete(args[0]); err != nil {
			return err
		}
		var err error
		if s.options.CallbackHeaders, err = s.headers.read(w); err != nil {
			return err
		}
		c, err := connect(w)
		if err != nil {
			return err
		}
		return s.run(cmd.Context(), w, c, *output)
	}
	return cmd
}

// A submission is what submit was told to do.
type submission struct {
	file    string
	media   media
	flags   *pflag.FlagSet // those of the options
	options batch.Options
	headers headerFlags
	typ     string
	vigil   vigil
}

func (s *submission) register(f *pflag.FlagSet) {
	o := &s.options
	s.flags = pflag.NewFlagSet("options", pflag.ContinueOnError)
	s.flags.StringVar(&o.Processor, "processor", "", "`name` of the processor (default the server's)")
	s.flags.StringVar(&o.CallbackURL, "callback-url", "", "`url` the results are sent to")
	s.flags.StringVar((*string)(&o.CallbackMode), "callback-mode", "", "results (in the webhooks, the default), summary (only counts) or pull (see messages --feed)")
	s.flags.StringArrayVar(&o.CallbackEvents, "callback-event", nil, "`event` to be told besides the end: batch.progress; may be repeated")
	s.headers.register(s.flags)
	s.flags.Var((*sizeFlag)(&o.CallbackPageBytes), "callback-page-bytes", "most bytes of one webhook, such as 96KiB")
	s.flags.IntVar(&o.CallbackPageItems, "callback-page-items", 0, "most results in one webhook")
	s.flags.StringVar(&o.IDField, "id-field", "", "JSON `pointer` to your own id in each item, such as /order_id")
	s.flags.Var((*pairs)(&o.Metadata), "metadata", "`key=value` to keep with the batch; may be repeated")
	s.flags.StringVar((*string)(&o.Priority), "priority", "", "high, normal (the default) or low")
	s.flags.TimeVar(&o.NotBefore, "not-before", time.Time{}, []string{time.RFC3339}, "start no item before this `time`, such as 2026-11-23T22:00:00Z")
	s.flags.Var((*span)(&o.ExpiresIn), "expires-in", "let what is unfinished expire after this `duration`")
	s.flags.StringVar((*string)(&o.MaxFailures), "max-failures", "", "stop when more items have failed than this `count`, or share such as 5%")
	s.flags.IntVar(&o.MaxAttempts, "max-attempts", 0, "most attempts at one item")
	s.flags.IntVar(&o.Concurrency, "concurrency", 0, "most items in flight at once")
	f.AddFlagSet(s.flags)
	f.StringVar(&s.typ, "type", "", "what is sent: ndjson, jsonl or json, each also with .gz (default by the file's name)")
	s.vigil.register(f)
}

// complete judges the flags together.
func (s *submission) complete(file string) error {
	s.file = file
	name := filepath.Base(file)
	if s.typ != "" {
		name = "." + s.typ
	}
	var known bool
	if s.media, known = mediaOf(name); !known {
		return usagef("what is in %s? say it with --type ndjson or --type json", file)
	}
	switch {
	case slices.Contains(s.options.CallbackEvents, ""):
		return usagef("--callback-event is empty: give it a value, or leave it out")
	case s.file == "-" && s.headers.file == "-":
		return usagef("standard input can be read only once")
	}
	if err := s.vigil.complete(); err != nil {
		return err
	}
	var given, nought string
	s.flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			given = cmp.Or(given, "--"+f.Name)
		}
		if f.Changed && f.Value.String() == "0" && f.Value.Type() == "int" {
			nought = cmp.Or(nought, "--"+f.Name)
		}
	})
	if nought != "" {
		return usagef("%s is 1 or more: leave it out for the server's own", nought)
	}
	if given != "" && s.media.document {
		return usagef("%s does not go with JSON: there the options stand beside the items", given)
	}
	var wrong []error
	for _, p := range s.options.Validate() {
		wrong = append(wrong, errors.New(p.Detail))
	}
	if len(wrong) > 0 {
		return usage{errors.Join(wrong...)}
	}
	return nil
}

// A media says what a body is.
type media struct {
	kind     string // content type
	coding   string // content encoding; empty: none
	document bool   // one JSON document, options and all
}

// mediaOf tells from a file's name what is in it.
func mediaOf(name string) (m media, known bool) {
	if plain, ok := strings.CutSuffix(name, ".gz"); ok {
		name, m.coding = plain, "gzip"
	}
	switch filepath.Ext(name) {
	case ".ndjson", ".jsonl":
		m.kind = "application/x-ndjson"
	case ".json":
		m.kind, m.document = "application/json", true
	default:
		return m, false
	}
	return m, true
}

func (s *submission) run(ctx context.Context, w *world, c *client.Client, o output) error {
	b, err := s.upload(ctx, w, c)
	if err != nil {
		return err
	}
	if o == outputText {
		if _, err := fmt.Fprintln(w.stdout, printable(b.ID, mostShown)); err != nil {
			return err
		}
	}
	if b, err = s.vigil.keep(ctx, w, c, b); err != nil {
		return err
	}
	if o == outputJSON {
		err = json.NewEncoder(w.stdout).Encode(b)
	}
	if err != nil || !s.vigil.asked() {
		return err
	}
	return verdict(w, b)
}

// upload sends the file while a meter shows how much of it is sent.
func (s *submission) upload(ctx context.Context, w *world, c *client.Client) (client.Batch, error) {
	body, length := w.stdin, int64(-1)
	if s.file != "-" {
		f, err := os.Open(s.file)
		if err != nil {
			return client.Batch{}, err
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			length = info.Size()
		}
		body = f
	}
	m := newMeter(w, length, "sent", "bytes")
	defer m.close()
	return c.Submit(ctx, io.TeeReader(body, m), client.SubmitOptions{
		ContentType: s.media.kind, ContentEncoding: s.media.coding, Length: max(0, length), Options: s.options,
	})
}
