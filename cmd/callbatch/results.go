package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
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
goes on where it ends if the command is given again.`,
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
		fmt.Fprintln(w.stderr, "incomplete: the batch has not ended; give the command again for the rest")
	}
	return nil
}

// intoFile appends to the file what it lacks.
func (d *download) intoFile(ctx context.Context, w *world) (err error) {
	f, err := os.OpenFile(d.file, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	last, err := seekEnd(f)
	if err != nil {
		return fmt.Errorf("go on with %s: %w", d.file, err)
	}
	before := -1
	if last != nil {
		var r struct{ Index int }
		if err := json.Unmarshal(last, &r); err != nil {
			return fmt.Errorf("go on with %s: %w", d.file, errNotResults)
		}
		before = r.Index - 1 // the last line comes again, to be compared
	}
	d.after = &before
	return d.run(ctx, w, f, last)
}

var errNotResults = errors.New("this is not a file of results")

// seekEnd readies f for more lines: what a broken download left of a line is
// cut off. It returns the last whole line, nil if there is none.
func seekEnd(f *os.File) ([]byte, error) {
	const most = 4 << 20 // of one line: an output has at most 1 MiB
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	tail := make([]byte, min(size, most))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil && err != io.EOF {
		return nil, err
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	start := bytes.LastIndexByte(tail[:max(0, end-1)], '\n') + 1
	for _, line := range [][]byte{tail[start:end], tail[end:]} {
		if head := []byte(`{"index":`); !bytes.HasPrefix(line, head[:min(len(head), len(line))]) {
			return nil, errNotResults
		}
	}
	whole := size - int64(len(tail)-end)
	if err := f.Truncate(whole); err != nil {
		return nil, err
	}
	if _, err := f.Seek(whole, io.SeekStart); err != nil {
		return nil, err
	}
	if end == 0 {
		return nil, nil
	}
	return tail[start:end], nil
}
