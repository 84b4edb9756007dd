package api

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// A validity is the answer to a submission that was only to be checked; one
// that is not valid is refused as any other.
type validity struct {
	Valid bool `json:"valid"`
	Total int  `json:"total"`
}

// submit takes a batch in, or opens one that is sent in parts. It answers 202
// after the store said that the whole batch is durable, 200 if it was only to
// be checked, and nothing at all if the store could not say.
func (s *server) submit(w http.ResponseWriter, r *request) error {
	open, err := takeOpen(r.query)
	if err != nil {
		return err
	}
	first, err := s.reserve(r)
	if err != nil {
		return err
	}
	defer first.release()
	if first.bound == nil {
		if err := s.Accepting(); err != nil {
			return err
		}
	}
	if open {
		return s.open(w, r, first)
	}
	stage := s.Store.Stage(r.Context(), r.tenant, batch.NewID(time.Now()))
	defer stage.Discard()
	var to batch.Sink = stage
	if first.bound != nil {
		to = nowhere{}
	}
	content, err := intake.Read(r.Context(), r.submission(first.keyed()), to, s.Limits)
	if err != nil {
		return unread(r, err)
	}
	if content.ValidateOnly {
		return writeJSON(w, http.StatusOK, encode(validity{Valid: true, Total: content.Items}))
	}
	once := first.once("POST /v1/batches", content.Digest[:])
	if first.bound != nil {
		return s.replay(w, r, first, once, http.StatusAccepted)
	}
	b, err := stage.Create(r.Context(), s.spec(r, content), once)
	if err != nil {
		return uncertain("create batch", err)
	}
	first.release() // it is bound: whoever sends the same again need not wait as well
	return s.accepted(w, r, b, http.StatusAccepted)
}

// open makes a batch exist that is sent in parts.
func (s *server) open(w http.ResponseWriter, r *request, first reservation) error {
	content, err := intake.ReadOptions(r.Context(), r.submission(first.keyed()), s.Limits)
	if err != nil {
		return unread(r, err)
	}
	if content.ValidateOnly {
		return writeJSON(w, http.StatusOK, encode(validity{Valid: true}))
	}
	once := first.once("POST /v1/batches?open=true", content.Digest[:])
	if first.bound != nil {
		return s.replay(w, r, first, once, http.StatusCreated)
	}
	spec := s.spec(r, content)
	spec.ID, spec.Tenant = batch.NewID(spec.Created), r.tenant
	b, err := s.Store.OpenBatch(r.Context(), spec, once)
	if err != nil {
		return uncertain("open batch", err)
	}
	return s.accepted(w, r, b, http.StatusCreated)
}

// takeOpen takes the parameter out of the query that says that a batch is to be
// sent in parts. The others are options.
func takeOpen(q url.Values) (bool, error) {
	given := q["open"]
	q.Del("open")
	switch {
	case len(given) == 0:
		return false, nil
	case len(given) > 1 || given[0] != "true" && given[0] != "false":
		return false, badParam("bad_open", "open is true or false")
	}
	return given[0] == "true", nil
}

// submission returns the request as intake reads it.
func (r *request) submission(digest bool) intake.Request {
	return intake.Request{
		ContentType:     strings.Join(r.Header.Values("Content-Type"), ", "),
		ContentEncoding: strings.Join(r.Header.Values("Content-Encoding"), ", "),
		Query:           r.query,
		Body:            r.Body,
		Length:          r.ContentLength,
		Digest:          digest,
	}
}

func (s *server) spec(r *request, c intake.Content) batch.Spec {
	return batch.Spec{Options: c.Options, BaseURL: s.BaseURL, Created: time.Now().UTC()}
}

// unread is why a body was not taken in.
func unread(r *request, err error) error {
	return cmp.Or(tooSlow(r.Request), fmt.Errorf("read submission: %w", err))
}

// uncertain makes the connection be given up where the store could not say
// whether it did what was asked.
func uncertain(what string, err error) error {
	if err != nil && batch.CodeOf(err) == "" {
		return fmt.Errorf("%w: %s: %w", errAborted, what, err)
	}
	return err
}

// accepted answers with a batch that is the caller's to follow: with its end,
// if he likes to wait for that and it comes in time. Whatever goes wrong with
// the wait, the batch is there and that is said.
func (s *server) accepted(w http.ResponseWriter, r *request, b batch.Batch, status int) error {
	s.tags.expire(b.ID)
	w.Header().Set("Location", "/v1/batches/"+b.ID.String())
	if status != http.StatusAccepted {
		return writeJSON(w, status, encode(s.viewBatch(b)))
	}
	body := encode(s.viewBatch(b))
	if wait := patient(w, r.Header); wait > 0 {
		f, err := s.attend(r.Context(), r.tenant, b.ID, wait, frame.over)
		if err == nil && f.over() {
			return writeJSON(w, http.StatusOK, f.body)
		}
		if err == nil {
			body = f.body
		}
	}
	w.Header().Set("Retry-After", pollSeconds)
	return writeJSON(w, status, body)
}

// checkOptions is what only the server knows about options.
func (s *server) checkOptions(o batch.Options) []batch.Problem {
	ps := s.checkCallback(o.CallbackURL, o.CallbackHeaders, "/callback_url", "/callback_headers")
	if !s.HasProcessor(o.Processor) {
		ps = append(ps, problemAt("/processor", "unknown_processor", "there is no processor of this name: GET /v1/processors lists them"))
	}
	return ps
}
