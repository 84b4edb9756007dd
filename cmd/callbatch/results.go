package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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
goes on where it ends if the command is given again. It goes on only if the file
holds the first results of the batch without a gap; what --status selects has
gaps and goes into a new file.`,
		Example: `  callbatch results bat_… | jq .output
  callbatch results bat_… --status failed -o failed.ndjson`,
		Args: exactly("ID"),
	}
	var d download
	f := cmd.Flags()
	f.StringVarP(&d.file, "out", "o", "", "`file` to write to, and to go on with if it holds some of these results")
	f.StringVar(&d.status, "status", "", "only results with this `status`: succeeded, failed, canceled or expired")
	after := f.Int("after", -1, "only results after the item with this `index`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		d.batch = args[0]
		if f.Changed("after") {
			d.after = after
		}
		if d.after != nil && d.file != "" {
			return usagef("--after does not go with --out: the file says where to go on")
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

// A download is what results was told to fetch.
type download struct {
	client *client.Client
	batch  string
	status string
	after  *int
	file   string
}

// run writes the results to out. If last is given it must be the first line
// that arrives, and is not written again.
func (d *download) run(ctx context.Context, w *world, out io.Writer, last []byte) error {
	r, err := d.client.Results(ctx, d.batch, client.ResultOptions{After: d.after, Status: d.status})
	if err != nil {
		return err
	}
	defer r.Close()
	in := bufio.NewReaderSize(r.Lines, 64<<10)
	if last != nil {
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return err
		}
		if !bytes.Equal(line, last) {
			return fmt.Errorf("%s holds other results than these: move it away, or give another name", d.file)
		}
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	if r.Incomplete {
		fmt.Fprintln(w.stderr, "incomplete: the batch has not ended; give the command again later for what is missing")
	}
	return nil
}

// intoFile appends to the file what it lacks. A selection goes into an empty
// file only: which results it lacks nobody could tell.
func (d *download) intoFile(ctx context.Context, w *world) (err error) {
	f, err := os.OpenFile(d.file, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if d.status != "" {
		if info, err := f.Stat(); err != nil || info.Size() > 0 {
			return errors.Join(err, fmt.Errorf("%s is not empty, and with --status it is not gone on with: move it away, or give another name", d.file))
		}
		return d.run(ctx, w, f, nil)
	}
	n, last, err := seekEnd(f)
	if err != nil {
		return fmt.Errorf("go on with %s: %w", d.file, err)
	}
	before := max(-1, n-2) // the last line comes again, to be compared
	d.after = &before
	return d.run(ctx, w, f, last)
}

var (
	errNotResults = errors.New("this is not a file of results")
	errGap        = errors.New("results are missing in it, as if --status or --after had made it: move it away, or give another name")
)

// seekEnd readies f for more lines. It must hold the first n results of a
// batch; what a broken download left of a line behind them is cut off. The
// last whole line is nil if there is none.
func seekEnd(f *os.File) (n int, last []byte, err error) {
	const longest = 4 << 20 // line: an output has at most 1 MiB
	in := bufio.NewReaderSize(f, longest)
	var whole int64
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return 0, nil, err
		}
		if !begins(line, `{"index":`) || err == bufio.ErrBufferFull {
			return 0, nil, errNotResults
		}
		if !begins(line, fmt.Sprintf(`{"index":%d,`, n)) {
			return 0, nil, errGap
		}
		if err == io.EOF {
			break
		}
		n, whole, last = n+1, whole+int64(len(line)), append(last[:0], line...)
	}
	if err := f.Truncate(whole); err != nil {
		return 0, nil, err
	}
	_, err = f.Seek(whole, io.SeekStart)
	return n, last, err
}

// begins reports whether line, which may be broken off, begins with head.
func begins(line []byte, head string) bool {
	return bytes.HasPrefix(line, []byte(head[:min(len(head), len(line))]))
}
