package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

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

The file's name says what is in it: .ndjson or .jsonl is one item a line, .csv a
row each below a header, .json an object with "items" and with the options
beside them; each may be compressed (.gz, .zst). --type says it where there is
no name.

A file over 64 MiB goes up in parts, several at a time. If that is interrupted,
the same command goes on with it where it was, as does --resume, also from
another machine. Once refused, nothing of it is left on the server.

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
	check   bool
	key     string // of idempotency
	vigil   vigil

	parts    bool
	partSize sizeFlag
	resume   string // the batch to go on with
}

// inParts reports whether the flags want parts.
func (s *submission) inParts() bool { return s.parts || s.partSize > 0 || s.resume != "" }

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
	f.StringVar(&s.typ, "type", "", "what is sent: ndjson, jsonl, csv or json, each also with .gz or .zst (default by the file's name)")
	f.BoolVar(&s.check, "validate-only", false, "have everything checked, and nothing kept")
	f.StringVar(&s.key, "idempotency-key", "", "`key` under which the same is taken only once, also by another command (default one of its own)")
	f.BoolVar(&s.parts, "parts", false, "send the file in parts, as one over 64 MiB is anyway")
	f.Var(&s.partSize, "part-size", "how large the parts are (default 16MiB, more where there would be too many)")
	f.StringVar(&s.resume, "resume", "", "go on with the parts of this `batch`")
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
		return usagef("what is in %s? say it with --type ndjson, --type csv or --type json", file)
	}
	switch {
	case slices.Contains(s.options.CallbackEvents, ""):
		return usagef("--callback-event is empty: give it a value, or leave it out")
	case s.file == "-" && s.headers.file == "-":
		return usagef("standard input can be read only once")
	case s.inParts() && s.file == "-":
		return usagef("standard input can be read only once, as parts may have to be again: write a file first")
	case s.inParts() && !s.media.cuttable():
		return usagef("parts are cut at line ends: JSON and what is compressed is sent as a whole")
	case s.inParts() && s.check:
		return usagef("--validate-only sends the whole: it keeps no parts")
	case s.check && s.vigil.asked():
		return usagef("--validate-only makes no batch to wait for")
	case s.check && s.media.document:
		return usagef(`--validate-only does not go with JSON: there "validate_only" stands beside the items`)
	case s.partSize > largestPart:
		return usagef("--part-size is at most %d MiB", largestPart>>20)
	}
	if s.resume != "" {
		if err := checkID(s.resume); err != nil {
			return err
		}
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
	if given != "" && s.resume != "" {
		return usagef("%s does not go with --resume: the batch has its options", given)
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

func (s *submission) run(ctx context.Context, w *world, c *client.Client, o output) error {
	in, info, err := s.open(w)
	if err != nil {
		return err
	}
	defer in.Close()
	if s.check {
		return s.validate(ctx, w, c, in, info, o)
	}
	b, err := s.upload(ctx, w, c, in, info)
	if checked := (*client.Checked)(nil); errors.As(err, &checked) { // the document says so
		return writeValid(w, checked.Total, o)
	}
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
		err = writeDocument(w, b)
	}
	if err != nil || !s.vigil.asked() {
		return err
	}
	return verdict(w, b)
}

// open opens what is sent; info is nil if it can be read only once.
func (s *submission) open(w *world) (in io.ReadCloser, info fs.FileInfo, err error) {
	if s.file == "-" {
		return io.NopCloser(w.stdin), nil, nil
	}
	f, err := os.Open(s.file)
	if err != nil {
		return nil, nil, err
	}
	info, err = f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = fmt.Errorf("%s is a folder", s.file)
	case !info.Mode().IsRegular():
		return f, nil, nil
	default:
		return f, info, nil
	}
	return nil, nil, errors.Join(err, f.Close())
}

// upload sends what there is, in parts if it is large or that was asked for.
func (s *submission) upload(ctx context.Context, w *world, c *client.Client, in io.Reader, info fs.FileInfo) (client.Batch, error) {
	f, ok := in.(*os.File)
	if !ok || info == nil { // it can be read only once
		if s.inParts() {
			return client.Batch{}, usagef("%s cannot be read again, as parts may have to be", s.file)
		}
		m := newMeter(w, -1, "sent", "bytes")
		defer m.close()
		return c.Submit(ctx, io.TeeReader(in, m), s.whole(nil))
	}
	if s.inParts() || info.Size() > largeFile && s.media.cuttable() {
		return s.convoy(ctx, w, c, f, info)
	}
	m := newMeter(w, info.Size(), "sent", "bytes")
	defer m.close()
	s.key = cmp.Or(s.key, rand.Text())
	return persist(ctx, w, func() (client.Batch, error) {
		m.set(0)
		return c.Submit(ctx, io.TeeReader(io.NewSectionReader(f, 0, info.Size()), m), s.whole(info))
	})
}

// whole is how the whole is sent at once.
func (s *submission) whole(info fs.FileInfo) client.SubmitOptions {
	o := client.SubmitOptions{ContentType: s.media.kind, ContentEncoding: s.media.coding, Options: s.options, IdempotencyKey: s.key}
	if info != nil {
		o.Length = info.Size()
	}
	return o
}

// validate has the server check what there is, and keep nothing.
func (s *submission) validate(ctx context.Context, w *world, c *client.Client, in io.Reader, info fs.FileInfo, o output) error {
	total, err := c.Validate(ctx, in, s.whole(info))
	if err != nil {
		return err
	}
	return writeValid(w, total, o)
}

func writeValid(w *world, total int, o output) error {
	if o == outputJSON {
		return writeDocument(w, struct {
			Valid bool `json:"valid"`
			Total int  `json:"total"`
		}{true, total})
	}
	_, err := fmt.Fprintf(w.stdout, "valid: %d items\n", total)
	return err
}
