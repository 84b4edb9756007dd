package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"strconv"
)

// ResultOptions select results of a batch. After and Limit make the server
// walk the finished prefix only: going on after the last index received
// misses nothing.
type ResultOptions struct {
	After  *int   // only results with a greater index; nil: from the first on
	Limit  int    // at most; 0: all there are
	Status string // only what has it; empty: any
	Round  int    // as they were after this round; 0: as they are
	Follow bool   // walk the finished prefix as it grows, to the end of the batch
	Format Format // default NDJSON
}

// A Format is how results are written.
type Format string

// The formats.
const (
	NDJSON Format = "application/x-ndjson" // an object a line
	CSV    Format = "text/csv"             // a row each, below a header
)

// Results is a stream of results. It is closed by its reader.
type Results struct {
	// Lines is the stream as it comes, in the format asked for. If it breaks
	// off before its end, reading it gives an error and not io.EOF.
	Lines io.ReadCloser

	// Incomplete says that items of the batch were unfinished.
	Incomplete bool
}

// Results opens the results of a batch. ctx must live as long as the stream.
func (c *Client) Results(ctx context.Context, id string, o ResultOptions) (*Results, error) {
	q := url.Values{}
	if o.After != nil {
		q.Set("after", strconv.Itoa(*o.After))
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	if o.Status != "" {
		q.Set("status", o.Status)
	}
	if o.Round > 0 {
		q.Set("round", strconv.Itoa(o.Round))
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	if o.Format == "" {
		o.Format = NDJSON
	}
	req, err := c.request(ctx, http.MethodGet, batchPath(id)+"/results", q, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", string(o.Format))
	res, err := c.send(req)
	if err != nil {
		return nil, err
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != string(o.Format) {
		res.Body.Close()
		return nil, c.stranger(res)
	}
	lines := &stream{ReadCloser: res.Body, req: req}
	return &Results{Lines: lines, Incomplete: res.Header.Get("Callbatch-Incomplete") == "true"}, nil
}

// Close lets go of the connection.
func (r *Results) Close() error { return r.Lines.Close() }

// All returns the results one by one, if they come as NDJSON. After an error there is no more.
func (r *Results) All() iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		in := bufio.NewReaderSize(r.Lines, 64<<10)
		for {
			line, err := in.ReadBytes('\n')
			if err == io.EOF && len(line) == 0 {
				return
			}
			var res Result
			if err == nil {
				err = json.Unmarshal(line, &res)
			}
			if err != nil {
				yield(Result{}, fmt.Errorf("results: %w", err))
				return
			}
			if !yield(res, nil) {
				return
			}
		}
	}
}

// stream is a body whose breaking off is told like any other loss of the
// server.
type stream struct {
	io.ReadCloser
	req *http.Request
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = unreachable(s.req, err)
	}
	return n, err
}
