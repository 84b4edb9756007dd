package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// How results are read: so many from the store at a time, whose bytes it
// bounds, and of what is followed again after a while at the earliest.
const (
	resultsPage = 1024
	followPause = 100 * time.Millisecond

	jsonResults = 1000 // of one JSON answer, unless the client says otherwise
)

// A resultForm is a form that results are sent in.
type resultForm struct {
	media
	head   string // before the first
	paged  bool   // it ends with where to go on
	append func(dst []byte, rs []batch.Result, first bool) []byte
}

var (
	asLines = resultForm{
		media:  media{"application/x-ndjson", []string{"application/ndjson", "application/jsonl"}},
		append: func(dst []byte, rs []batch.Result, _ bool) []byte { return appendLines(dst, rs) },
	}
	asCSV = resultForm{
		media: media{"text/csv", nil}, head: csvHeader,
		append: func(dst []byte, rs []batch.Result, _ bool) []byte {
			for _, r := range rs {
				dst = appendRow(dst, r)
			}
			return dst
		},
	}
	asJSON = resultForm{
		media: media{"application/json", nil}, head: `{"data":[`, paged: true,
		append: func(dst []byte, rs []batch.Result, first bool) []byte {
			for _, r := range rs {
				if !first {
					dst = append(dst, ',')
				}
				dst, first = batch.AppendResult(dst, r), false
			}
			return dst
		},
	}
	resultForms = []resultForm{asLines, asCSV, asJSON}
)

// appendLines appends results, one a line: no payload has a line break.
func appendLines(dst []byte, results []batch.Result) []byte {
	for _, res := range results {
		dst = append(batch.AppendResult(dst, res), '\n')
	}
	return dst
}

// A resultsRequest is what a client wants of the results of a batch.
type resultsRequest struct {
	tenant batch.TenantID
	id     batch.ID
	form   resultForm
	query  batch.ResultQuery // for the next page
	limit  int               // results wanted
	sent   int
	follow bool
	watch  *batch.Watch // if it follows
	seen   uint64       // version of the last change before the last look
}

// results streams results page by page and holds no more than one. If it
// cannot go on it breaks the connection off, so that what arrived is not
// taken for the whole.
func (s *server) results(w http.ResponseWriter, r *request) error {
	q, err := newResultsRequest(w, r)
	if err != nil {
		return err
	}
	if q.follow {
		leave, err := s.seats.sit(r.tenant, false)
		if err != nil {
			return err
		}
		defer leave()
		q.watch = s.Store.Watch(r.tenant, &q.id)
		defer q.watch.Close()
		q.seen = q.watch.Version()
	}
	page, err := s.Store.Results(r.Context(), r.tenant, q.id, q.query)
	if err != nil {
		return err
	}
	if q.query.Round == 0 { // a retry meanwhile changes nothing of this answer
		q.query.Round = page.Batch.Round
	}
	q.header(w, page.Batch)
	out := code(w, r.Request)
	defer out.free()
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	return s.sendResults(r.Context(), q, page, out)
}

// sendResults sends pages, beginning with one that was read.
func (s *server) sendResults(ctx context.Context, q *resultsRequest, page batch.ResultPage, out *coded) error {
	buf := []byte(q.form.head)
	for begun := false; ; begun = true {
		buf = q.form.append(buf, page.Results, q.sent == 0)
		q.sent += len(page.Results)
		over := q.sent >= q.limit || page.Last && (!q.follow || q.settled(page.Batch))
		if over && q.form.paged {
			buf = q.appendNext(buf, page)
		}
		if len(buf) > 0 || over || !begun {
			if err := out.send(buf, over); err != nil || over {
				return err
			}
		}
		if page.Last && !s.more(ctx, q) {
			return errAborted // it is not whole
		}
		buf = buf[:0]
		q.query.From, q.query.Limit = page.Next, min(q.limit-q.sent, resultsPage)
		var err error
		if page, err = s.Store.Results(ctx, q.tenant, q.id, q.query); err != nil {
			return fmt.Errorf("results from %d on: %w", q.query.From, err)
		}
	}
}

// settled reports whether the results that are asked for will not change.
func (q *resultsRequest) settled(b batch.Batch) bool {
	return q.query.Round < b.Round || b.Status.Terminal()
}

// more waits until there may be more results. It reports false if the server
// stops or the client is gone.
func (s *server) more(ctx context.Context, q *resultsRequest) bool {
	looked := time.Now()
	changed, ended := q.watch.After(q.seen)
	ok := s.idle(ctx, changed, watchPoll) && s.idle(ctx, ended, followPause-time.Since(looked))
	q.seen = q.watch.Version()
	return ok
}

// header says what comes. What is followed is whole when it ends.
func (q *resultsRequest) header(w http.ResponseWriter, b batch.Batch) {
	h := w.Header()
	h.Add("Vary", "Accept")
	switch q.form.name {
	case asCSV.name:
		h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
		h.Set("Content-Disposition", `attachment; filename="`+b.ID.String()+`.csv"`)
	default:
		h.Set("Content-Type", q.form.name)
	}
	if !q.follow && q.query.Round == b.Round && b.Done.Sum() < b.Items {
		h.Set("Callbatch-Incomplete", "true")
	}
}

// appendNext ends a page of JSON: with where to go on, or null when nothing
// will ever follow.
func (q *resultsRequest) appendNext(dst []byte, page batch.ResultPage) []byte {
	dst = append(dst, `],"next":`...)
	if page.Last && q.settled(page.Batch) {
		dst = append(dst, "null"...)
	} else {
		dst = strconv.AppendInt(dst, int64(page.Next-1), 10)
	}
	return append(dst, "}\n"...)
}

// newResultsRequest reads what a client wants. With after, limit or follow, and
// in pages, only the finished prefix is walked: whoever goes on after the last
// index he got misses nothing, whatever he filters by.
func newResultsRequest(w http.ResponseWriter, r *request) (*resultsRequest, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	q := &resultsRequest{tenant: r.tenant, id: id}
	if q.form, err = resultFormOf(r); err != nil {
		w.Header().Add("Vary", "Accept")
		return nil, err
	}
	if err := word(r.query, "status", &q.query.Status); err != nil {
		return nil, err
	}
	if r.query.Has("status") && !q.query.Status.Terminal() {
		return nil, badParam("bad_status", "a result is succeeded, failed, canceled or expired")
	}
	after, err := number(r.query, "after", -1, -1)
	if err != nil {
		return nil, err
	}
	most := math.MaxInt
	if q.form.paged {
		most = jsonResults
	}
	if q.limit, err = number(r.query, "limit", 1, most); err != nil {
		return nil, err
	}
	if q.query.Round, err = number(r.query, "round", 1, 0); err != nil {
		return nil, err
	}
	q.follow = r.query.Get("follow") == "true"
	if r.query.Has("follow") && !q.follow && r.query.Get("follow") != "false" {
		return nil, badParam("bad_follow", "follow is true or false")
	}
	if q.follow && q.form.paged {
		return nil, badParam("bad_follow", "a page of JSON is not followed: ask for application/x-ndjson or text/csv")
	}
	q.query.From, q.query.Limit = after+1, min(q.limit, resultsPage)
	q.query.Prefix = q.follow || q.form.paged || r.query.Has("after") || r.query.Has("limit")
	return q, nil
}

// resultFormOf returns the form a client wants its results in.
func resultFormOf(r *request) (resultForm, error) {
	var offers []media
	for _, f := range resultForms {
		offers = append(offers, f.media)
	}
	best, ok := choose(r.Header.Values("Accept"), offers)
	for _, f := range resultForms {
		if ok && f.name == best.name {
			return f, nil
		}
	}
	return resultForm{}, &refusal{http.StatusNotAcceptable, "not_acceptable", "results are application/x-ndjson, text/csv or application/json"}
}
