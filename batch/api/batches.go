package api

import (
	"math"
	"net/http"
	"time"

	"github.com/callbatch/callbatch/batch"
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
		Counts: b.Counts(), Metadata: b.Options.Metadata, Priority: b.Options.Priority, WaitingOn: orNull(b.WaitingOn),
		Created: batch.FormatTime(b.Created), Started: timeOrNull(b.Started), Finished: timeOrNull(b.Finished),
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
	if b.Rate > 0 {
		rate := shortRate(b.Rate)
		v.Rate, v.ETA = &rate, timeOrNull(b.ETA(time.Now()))
	}
	return v
}

// shortRate leaves a rate about four digits: it is no more exact.
func shortRate(rate float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(rate))-3)
	return math.Round(rate/unit) / math.Round(1/unit)
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
	q := batch.BatchQuery{Tenant: r.tenant}
	if err := word(r.query, "status", &q.Status); err != nil {
		return err
	}
	limit, err := pageLimit(r.query)
	if err != nil {
		return err
	}
	before, err := cursor(r.query, "cursor", batchList)
	if err != nil {
		return err
	}
	q.Limit, q.Before = limit, (*batch.ID)(before)
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

func (s *server) cancel(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	b, err := s.Store.Cancel(r.Context(), r.tenant, id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusAccepted, encode(s.viewBatch(b)))
}
