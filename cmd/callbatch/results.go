package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/callbatch/callbatch/batch/client"
)

func newResults(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "results ID",
		Short: "Write the results of a batch, one a line",
		Long: `Write the results of a batch in the order of its items, one JSON object a line,
to standard output or to a file.

A batch that has not ended gives what there is. With --after it gives only what
follows that item, up to the first that is unfinished; so does a file, which
goes on where it ends if the command is given again. --follow goes on until the
batch has ended, whatever becomes of the connection meanwhile.

A file is gone on with only if it holds the first results of this batch without
a gap; what --status selects has gaps and goes into a new file, as CSV and one
JSON document do.`,
		Example: `  callbatch results bat_… | jq .output
  callbatch results bat_… --follow -o results.ndjson
  callbatch results bat_… --status failed --format csv -o failed.csv`,
		Args: exactly("ID"),
	}
	d := download{status: choice{words: resultWords}, format: choice{words: formatWords}}
	d.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		d.batch = args[0]
		if err := d.complete(cmd); err != nil {
			return err
		}
		var err error
		if d.client, err = connect(w); err != nil {
			return err
		}
		if d.file != "" {
			return d.intoFile(cmd.Context(), w)
		}
		return d.run(cmd.Context(), w, w.stdout, nil)
	}
	return cmd
}

// What results may be told to select, and to write.
var (
	resultWords = []string{"succeeded", "failed", "canceled", "expired"}
	formatWords = []string{"ndjson", "csv", "json"} // the last is an array of what the first has
)

// A download is what results was told to fetch.
type download struct {
	client *client.Client
	batch  string
	status choice
	format choice
	round  int
	after  *int // of what was written last; nil: everything is wanted, whatever is unfinished before it
	follow bool
	file   string
}

func (d *download) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&d.file, "out", "o", "", "`file` to write to, and to go on with if it holds some of these results")
	d.status.register(cmd, "status", "only results with this `status`")
	d.format.register(cmd, "format", "`format` to write")
	f.IntVar(&d.round, "round", 0, "the results as they were after this `round` (default the last)")
	f.Int("after", -1, "only results after the item with this `index`")
	f.BoolVar(&d.follow, "follow", false, "go on with what is finished, until the batch has ended")
}

// complete judges the flags together.
func (d *download) complete(cmd *cobra.Command) error {
	f := cmd.Flags()
	after, err := f.GetInt("after")
	if err != nil {
		return err
	}
	if f.Changed("after") || d.follow {
		d.after = &after
	}
	switch {
	case f.Changed("after") && d.file != "":
		return usagef("--after does not go with --out: the file says where to go on")
	case after < -1:
		return usagef("--after is the index of an item")
	case f.Changed("round") && d.round < 1:
		return usagef("--round is 1 or more")
	case d.follow && d.round > 0:
		return usagef("--follow is of the last round: leave out --round")
	case d.follow && !d.lines():
		return usagef("--follow writes ndjson only")
	}
	return nil
}

// lines reports whether the results are written one a line.
func (d *download) lines() bool { return d.format.word == "" || d.format.word == "ndjson" }

// run writes the results to out. What is known of them must be the first that
// arrives, and is not written again.
func (d *download) run(ctx context.Context, w *world, out io.Writer, known *bufio.Reader) error {
	t := &tap{out: bufio.NewWriter(out), known: known}
	if !d.follow {
		return d.once(ctx, w, t)
	}
	for {
		_, err := outlast(ctx, w, func() (struct{}, error) { return struct{}{}, d.once(ctx, w, t) })
		if err != nil {
			return err
		}
		b, err := outlast(ctx, w, func() (client.Batch, error) { return d.client.Batch(ctx, d.batch) })
		if err != nil || b.Terminal() && (d.status.word != "" || *d.after+1 >= b.Counts.Total) {
			return err
		}
		const pause = 200 * time.Millisecond // the server ended the stream: it may be stopping
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// once writes what one answer gives, and moves on.
func (d *download) once(ctx context.Context, w *world, t *tap) error {
	o := client.ResultOptions{After: d.after, Status: d.status.word, Round: d.round, Follow: d.follow}
	if d.format.word == "csv" {
		o.Format = client.CSV
	}
	r, err := d.client.Results(ctx, d.batch, o)
	if err != nil {
		return err
	}
	defer r.Close()
	switch d.format.word {
	case "csv":
		_, err = t.out.ReadFrom(r.Lines)
		err = errors.Join(err, t.out.Flush())
	case "json":
		err = t.array(r)
	default:
		err = t.copy(r.Lines, d)
	}
	if err != nil {
		return err
	}
	if r.Incomplete && !d.follow {
		fmt.Fprintln(w.stderr, "incomplete: the batch has not ended; give the command again later for what is missing")
	}
	return nil
}

// A tap is where lines of results come out.
type tap struct {
	out   *bufio.Writer
	known *bufio.Reader // lines that must come first, and are not written again; nil: none
}

// array writes results as one JSON document.
func (t *tap) array(r *client.Results) error {
	before := "[\n"
	for in := bufio.NewReaderSize(r.Lines, longestLine); ; {
		line, err := in.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil {
			return fmt.Errorf("results: %w", err)
		}
		t.out.WriteString(before) // Flush tells what went wrong
		t.out.Write(bytes.TrimSuffix(line, []byte{'\n'}))
		before = ",\n"
	}
	if before == "[\n" { // there were none
		t.out.WriteString("[")
	}
	t.out.WriteString("\n]\n")
	return t.out.Flush()
}

// longestLine is the longest line of results: an output has at most 1 MiB.
const longestLine = 4 << 20

// copy writes whole lines as they come, and moves d on behind each.
func (t *tap) copy(from io.Reader, d *download) error {
	in := bufio.NewReaderSize(from, longestLine)
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			err = nil
			if t.known != nil { // something was to come
				err = t.match(nil, d)
			}
			return errors.Join(err, t.out.Flush())
		}
		if err == io.EOF {
			err = errors.New("results: the last line is not whole")
		}
		if err != nil {
			return errors.Join(err, t.out.Flush())
		}
		if t.known != nil {
			err = t.match(line, d)
		} else {
			_, err = t.out.Write(line)
		}
		if err != nil {
			return err
		}
		if d.after != nil {
			index, ok := indexOf(line)
			if !ok {
				return errors.New("results: a line does not begin with its index")
			}
			*d.after = index
		}
		if in.Buffered() == 0 {
			if err := t.out.Flush(); err != nil {
				return err
			}
		}
	}
}

// indexOf returns the index of the item that a whole line is about.
func indexOf(line []byte) (index int, ok bool) {
	digits, ok := bytes.CutPrefix(line, []byte(`{"index":`))
	end := bytes.IndexByte(digits, ',')
	if !ok || end < 0 {
		return 0, false
	}
	index, err := strconv.Atoi(string(digits[:end]))
	return index, err == nil
}

// match compares a line with the next that is known.
func (t *tap) match(line []byte, d *download) error {
	want, err := t.known.ReadSlice('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if len(want) == 0 {
		t.known = nil
		_, err := t.out.Write(line)
		return err
	}
	if !bytes.Equal(line, want) {
		return fmt.Errorf("%s holds other results than these: move it away, or give another name", d.file)
	}
	return nil
}

// intoFile appends to the file what it lacks. What has gaps, and what is not
// one result a line, goes into an empty file only: which results it lacks
// nobody could tell.
func (d *download) intoFile(ctx context.Context, w *world) (err error) {
	b, err := d.client.Batch(ctx, d.batch)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.file, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if d.status.word != "" || !d.lines() {
		if info, err := f.Stat(); err != nil || info.Size() > 0 {
			return errors.Join(err, fmt.Errorf("%s is not empty, and with --status or another format it is not gone on with: move it away, or give another name", d.file))
		}
		return d.run(ctx, w, f, nil)
	}
	n, last, err := seekEnd(f)
	if err != nil {
		return fmt.Errorf("go on with %s: %w", d.file, err)
	}
	// What is there comes again, to be compared: the last line tells whether it
	// is of this batch, and after another round any line may differ.
	before, from := max(-1, n-2), last
	if b.Round > 1 {
		before, from = -1, 0
	}
	d.after = &before
	end, err := f.Seek(0, io.SeekCurrent)
	if err != nil || n == 0 {
		return errors.Join(err, d.run(ctx, w, f, nil))
	}
	known := bufio.NewReaderSize(io.NewSectionReader(f, from, end-from), longestLine)
	return d.run(ctx, w, f, known)
}

var (
	errNotResults = errors.New("this is not a file of results")
	errGap        = errors.New("results are missing in it, as if --status or --after had made it: move it away, or give another name")
)

// seekEnd readies f for more lines. It must hold the first n results of a
// batch; what a broken download left of a line behind them is cut off. The
// last of them begins at last.
func seekEnd(f *os.File) (n int, last int64, err error) {
	in := bufio.NewReaderSize(f, longestLine)
	var whole int64
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return 0, 0, err
		}
		if !begins(line, `{"index":`) || err == bufio.ErrBufferFull {
			return 0, 0, errNotResults
		}
		if !begins(line, fmt.Sprintf(`{"index":%d,`, n)) {
			return 0, 0, errGap
		}
		if err == io.EOF {
			break
		}
		n, last, whole = n+1, whole, whole+int64(len(line))
	}
	if err := f.Truncate(whole); err != nil {
		return 0, 0, err
	}
	_, err = f.Seek(whole, io.SeekStart)
	return n, last, err
}

// begins reports whether line, which may be broken off, begins with head.
func begins(line []byte, head string) bool {
	return bytes.HasPrefix(line, []byte(head[:min(len(head), len(line))]))
}
