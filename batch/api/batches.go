package api

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// pollSeconds is how soon it is worth asking after a batch again.
const pollSeconds = "1"

// batchView is a batch as clients see it.
type batchView struct {
	ID        batch.ID          `json:"id"`
	Status    batch.Status      `json:"status"`
	Reason    *string           `json:"reason"`
	Round     int               `json:"round"`
	Processor string            `json:"processor"`
	Counts    batch.Counts      `json:"counts"`
	Callback  callbackView      `json:"callback"`
	Metadata  map[string]string `json:"metadata"`
	Priority  batch.Priority    `json:"priority"`
	WaitingOn *string           `json:"waiting_on"`
	Rate      *float64          `json:"rate"`
	ETA       *string           `json:"eta"`
	Created   string            `json:"created_at"`
	Started   *string           `json:"started_at"`
	Finished  *string           `json:"finished_at"`
	Expires   *string           `json:"expires_at"`
	Links     linksView         `json:"links"`
}

type callbackView struct {
	URL      *string           `json:"url"`
	Headers  map[string]string `json:"headers,omitempty"` // their names; never a value
	Mode     batch.Mode        `json:"mode"`
	Status   string            `json:"status"`
	Messages struct {
		Waiting   int `json:"waiting"`
		Delivered int `json:"delivered"`
		Exhausted int `json:"exhausted"`
		Other     int `json:"other"` // canceled, blocked, pulled
	} `json:"messages"`
}

type linksView struct {
	Self     string `json:"self"`
	Results  string `json:"results"`
	Messages string `json:"messages"`
	Events   string `json:"events"`
	Cancel   string `json:"cancel"`
}

func (s *server) viewBatch(b batch.Batch) batchView {
	self := "/v1/batches/" + b.ID.String()
	v := batchView{
		ID: b.ID, Status: b.Status, Reason: orNull(b.Reason), Round: b.Round, Processor: b.Options.Processor,
		Counts: b.Counts(), Metadata: b.Options.Metadata, Priority: b.Options.Priority, WaitingOn: orNull(s.waitingOn(b)),
		Created: batch.FormatTime(b.Created), Started: timeOrNull(b.Started), Finished: timeOrNull(b.Finished), Expires: timeOrNull(b.Expires),
		Links: linksView{Self: self, Results: self + "/results", Messages: self + "/messages", Events: self + "/events", Cancel: self + "/cancel"},
	}
	if v.Metadata == nil {
		v.Metadata = map[string]string{}
	}
	v.Callback.URL = orNull(batch.MaskURL(b.Options.CallbackURL))
	v.Callback.Headers = masked(b.Options.CallbackHeaders)
	v.Callback.Mode = b.Options.CallbackMode
	v.Callback.Status = b.CallbackStatus()
	v.Callback.Messages.Waiting = b.Messages.Waiting
	v.Callback.Messages.Delivered = b.Messages.Delivered
	v.Callback.Messages.Exhausted = b.Messages.Exhausted
	v.Callback.Messages.Other = b.Messages.Other
	if b.Rate > 0 {
		rate := shortRate(b.Rate)
		v.Rate, v.ETA = &rate, timeOrNull(b.ETA(time.Now()))
	}
	return v
}

// waitingOn says why a batch does not move, as exactly as it is known.
func (s *server) waitingOn(b batch.Batch) string {
	if b.WaitingOn == "" {
		return ""
	}
	return s.Surroundings(b.Options.Processor).Explain(b.WaitingOn)
}

// shortRate leaves a rate four digits: it is no more exact.
func shortRate(rate float64) float64 {
	short, err := strconv.ParseFloat(strconv.FormatFloat(rate, 'g', 4, 64), 64)
	if err != nil {
		panic("api: a number that was just written: " + err.Error())
	}
	return short
}

// masked returns the names of headers, the values hidden.
func masked(headers map[string]string) map[string]string {
	shown := make(map[string]string, len(headers))
	for name := range headers {
		shown[name] = "***"
	}
	return shown
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func timeOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := batch.FormatTime(t)
	return &s
}

// id returns the batch id in the path. One that is none is as unknown as any.
func (r *request) id() (batch.ID, error) {
	id, err := batch.ParseID(r.vars["id"])
	if err != nil {
		return batch.ID{}, batch.Errorf(batch.NotFound, "there is no such batch")
	}
	return id, nil
}

func (s *server) batch(r *request) (batch.Batch, error) {
	id, err := r.id()
	if err != nil {
		return batch.Batch{}, err
	}
	return s.Store.Batch(r.Context(), r.tenant, id)
}

// getBatch shows a batch, once it is another than the client knows or has
// ended if he likes to wait.
func (s *server) getBatch(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	enough := frame.over
	if _, knows := r.Header["If-None-Match"]; knows {
		enough = func(f frame) bool { return !matches(r.Header, f.tag) }
	}
	f, err := s.attend(r.Context(), r.tenant, id, patient(w, r.Header), enough)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", f.tag)
	if !f.over() {
		w.Header().Set("Retry-After", pollSeconds)
	}
	if matches(r.Header, f.tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return writeJSON(w, http.StatusOK, f.body)
}

func (s *server) listBatches(w http.ResponseWriter, r *request) error {
	q, err := batchQuery(r)
	if err != nil {
		return err
	}
	list, next, err := s.Store.Batches(r.Context(), q)
	if err != nil {
		return err
	}
	views := make([]batchView, len(list))
	for i, b := range list {
		views[i] = s.viewBatch(b)
	}
	return writeList(w, r, batchList, views, (*[16]byte)(next))
}

// batchQuery reads which batches are to be listed. A filter that is there and
// empty is refused: it would let through everything.
func batchQuery(r *request) (q batch.BatchQuery, err error) {
	q = batch.BatchQuery{Tenant: r.tenant, Processor: r.query.Get("processor")}
	if q.Processor == "" && r.query.Has("processor") {
		return q, badParam("bad_processor", "processor is the name of one")
	}
	if err := word(r.query, "status", &q.Status); err != nil {
		return q, err
	}
	if q.Metadata, err = metadata(r.query); err != nil {
		return q, err
	}
	if q.Limit, err = pageLimit(r.query); err != nil {
		return q, err
	}
	before, err := cursor(r.query, "cursor", batchList)
	if err != nil {
		return q, err
	}
	q.Before = (*batch.ID)(before)
	return q, created(r.query, &q)
}

// created bounds a list by when the batches' submissions began, as their ids
// say: what is outside is not even looked at.
func created(params url.Values, q *batch.BatchQuery) error {
	after, err := instant(params, "created_after")
	if err != nil {
		return err
	}
	before, err := instant(params, "created_before")
	if err != nil {
		return err
	}
	if !after.IsZero() {
		q.Since = batch.FirstID(after.Truncate(time.Millisecond).Add(time.Millisecond))
	}
	if first := batch.FirstID(before); !before.IsZero() && (q.Before == nil || bytes.Compare(first[:], q.Before[:]) < 0) {
		q.Before = &first
	}
	return nil
}

// steer has one of the store's small steps done to a batch and shows it as it
// is then.
func (s *server) steer(w http.ResponseWriter, r *request, step func(context.Context, batch.TenantID, batch.ID) (batch.Batch, error)) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	b, err := step(r.Context(), r.tenant, id)
	if err != nil {
		return err
	}
	s.tags.expire(id)
	return writeJSON(w, http.StatusAccepted, encode(s.viewBatch(b)))
}

func (s *server) cancel(w http.ResponseWriter, r *request) error {
	return s.steer(w, r, s.Store.Cancel)
}

func (s *server) pause(w http.ResponseWriter, r *request) error {
	return s.steer(w, r, s.Store.Pause)
}

func (s *server) resume(w http.ResponseWriter, r *request) error {
	return s.steer(w, r, s.Store.Resume)
}

// amend changes what a batch asked for.
func (s *server) amend(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	body, err := r.inputBytes("application/json", "application/merge-patch+json")
	if err != nil {
		return err
	}
	a, err := intake.Amendment(body)
	if err != nil {
		return err
	}
	if ps := s.checkAmendment(a); len(ps) > 0 {
		return unacceptable(ps...)
	}
	b, err := s.Store.Amend(r.Context(), r.tenant, id, a)
	if err != nil {
		return err
	}
	s.tags.expire(id)
	return writeJSON(w, http.StatusOK, encode(s.viewBatch(b)))
}

// checkAmendment is what only the server knows about an amendment.
func (s *server) checkAmendment(a batch.Amendment) []batch.Problem {
	headers := map[string]string{}
	for name, value := range a.CallbackHeaders {
		if value != nil {
			headers[name] = *value
		}
	}
	url := ""
	if a.CallbackURL != nil {
		url = *a.CallbackURL
	}
	return s.checkCallback(url, headers, "/callback_url", "/callback_headers")
}
