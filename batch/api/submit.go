package api

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// submit takes a batch in. It answers 202 after the store said that the
// whole batch is durable, and nothing at all if the store could not say.
func (s *server) submit(w http.ResponseWriter, r *request) error {
	if err := s.Accepting(); err != nil {
		return err
	}
	stage := s.Store.Stage(r.Context(), r.tenant, batch.NewID(time.Now()))
	defer stage.Discard()
	options, err := intake.Read(r.Context(), intake.Request{
		ContentType:     strings.Join(r.Header.Values("Content-Type"), ", "),
		ContentEncoding: strings.Join(r.Header.Values("Content-Encoding"), ", "),
		Query:           r.query,
		Body:            r.Body,
		Length:          r.ContentLength,
	}, stage, s.Limits)
	if err != nil {
		return cmp.Or(tooSlow(r.Request), fmt.Errorf("read submission: %w", err))
	}
	b, err := stage.Create(r.Context(), batch.Spec{Options: options, BaseURL: s.BaseURL, Created: time.Now().UTC()})
	if err != nil && batch.CodeOf(err) == "" {
		return fmt.Errorf("%w: create batch: %w", errAborted, err)
	}
	if err != nil {
		return err
	}
	return s.submitted(w, r, b)
}

// submitted answers for a batch that is durable: with its end, if the client
// likes to wait for that and it comes in time. Whatever goes wrong with the
// wait, the batch is there and that is said.
func (s *server) submitted(w http.ResponseWriter, r *request, b batch.Batch) error {
	w.Header().Set("Location", "/v1/batches/"+b.ID.String())
	if wait := patient(w, r.Header); wait > 0 {
		if f, err := s.attend(r.Context(), r.tenant, b.ID, wait, frame.over); err == nil && f.over() {
			return writeJSON(w, http.StatusOK, f.body)
		} else if err == nil {
			w.Header().Set("Retry-After", pollSeconds)
			return writeJSON(w, http.StatusAccepted, f.body)
		}
	}
	w.Header().Set("Retry-After", pollSeconds)
	return writeJSON(w, http.StatusAccepted, encode(s.viewBatch(b)))
}

// checkOptions is what only the server knows about options.
func (s *server) checkOptions(o batch.Options) []batch.Problem {
	ps := s.checkCallback(o.CallbackURL, o.CallbackHeaders, "/callback_url", "/callback_headers")
	if !s.HasProcessor(o.Processor) {
		ps = append(ps, problemAt("/processor", "unknown_processor", "there is no processor of this name: GET /v1/processors lists them"))
	}
	return ps
}
