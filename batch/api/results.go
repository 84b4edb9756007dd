package api

import (
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/callbatch/callbatch/batch"
)

// resultsPage is how many results are read from the store at a time; the
// store bounds their bytes.
const resultsPage = 1024

// results streams results page by page and holds no more than one. If it
// cannot go on it breaks the connection off, so that what arrived is not
// taken for the whole.
func (s *server) results(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	q, limit, err := resultQuery(r)
	if err != nil {
		return err
	}
	page, err := s.Store.Results(r.Context(), r.tenant, id, q)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	if q.Round == 0 { // a retry meanwhile changes nothing of this answer
		q.Round = page.Batch.Round
	}
	if q.Round == page.Batch.Round && page.Batch.Done.Sum() < page.Batch.Items {
		w.Header().Set("Callbatch-Incomplete", "true")
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	flush := http.NewResponseController(w).Flush
	for buf := []byte(nil); ; {
		buf = appendLines(buf[:0], page.Results)
		if _, err := w.Write(buf); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		if limit -= len(page.Results); page.Last || limit <= 0 {
			return nil
		}
		if err := flush(); err != nil {
			return fmt.Errorf("flush results: %w", err)
		}
		q.From, q.Limit = page.Next, min(limit, resultsPage)
		if page, err = s.Store.Results(r.Context(), r.tenant, id, q); err != nil {
			return fmt.Errorf("results from %d on: %w", q.From, err)
		}
	}
}

// resultQuery returns the first page to read and how many results there may
// be in all. With after or limit only the finished prefix is walked: whoever
// goes on after the last index he got misses nothing, whatever he filters by.
func resultQuery(r *request) (q batch.ResultQuery, limit int, err error) {
	if !acceptsNDJSON(r.Header) {
		return q, 0, &refusal{http.StatusNotAcceptable, "not_acceptable", "results are application/x-ndjson"}
	}
	if err := word(r.query, "status", &q.Status); err != nil {
		return q, 0, err
	}
	if r.query.Has("status") && !q.Status.Terminal() {
		return q, 0, badParam("bad_status", "a result is succeeded, failed, canceled or expired")
	}
	after, err := number(r.query, "after", -1, -1)
	if err != nil {
		return q, 0, err
	}
	if limit, err = number(r.query, "limit", 1, math.MaxInt); err != nil {
		return q, 0, err
	}
	if q.Round, err = number(r.query, "round", 1, 0); err != nil {
		return q, 0, err
	}
	q.From, q.Limit = after+1, min(limit, resultsPage)
	q.Prefix = r.query.Has("after") || r.query.Has("limit")
	return q, limit, nil
}

// acceptsNDJSON reports whether the client can do with lines of JSON.
func acceptsNDJSON(h http.Header) bool {
	accept := strings.Join(h.Values("Accept"), ",")
	if accept == "" {
		return true
	}
	for a := range strings.SplitSeq(accept, ",") {
		kind, _, _ := strings.Cut(a, ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "*/*", "application/*", "application/x-ndjson", "application/ndjson", "application/jsonl":
			return true
		}
	}
	return false
}

// appendLines appends results, one a line: no payload has a line break.
func appendLines(dst []byte, results []batch.Result) []byte {
	for _, res := range results {
		dst = append(batch.AppendResult(dst, res), '\n')
	}
	return dst
}
