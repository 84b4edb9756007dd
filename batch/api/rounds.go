package api

import (
	"net/http"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// mostNames bounds the body of a retry, which may name many items, in bytes.
const mostNames = 2 << 20

// retry opens the next round of a batch.
func (s *server) retry(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	order, err := retryOrder(r)
	if err != nil {
		return err
	}
	return s.begin(w, r, id, order, func(once batch.Once) (batch.Batch, error) {
		b, err := s.Store.Retry(r.Context(), r.tenant, id, order, once)
		return b, uncertain("retry batch", err)
	})
}

// retryOrder reads what is to run again. A list that is there and empty is
// refused: without one everything that did not succeed would run.
func retryOrder(r *request) (o batch.Retry, err error) {
	var in struct {
		FromRound *int      `json:"from_round"`
		IDs       *[]string `json:"ids"`
		Indexes   *[]int    `json:"indexes"`
		ExpiresIn *string   `json:"expires_in"`
	}
	body, err := r.inputUpTo(mostNames, "application/json")
	if err != nil {
		return o, err
	}
	if err := intake.Object(body, &in); err != nil {
		return o, err
	}
	if in.FromRound == nil {
		return o, unacceptable(problemAt("/from_round", "required", "from_round is required: the round that has ended, as the batch shows it"))
	}
	o.From = *in.FromRound
	if in.IDs != nil {
		o.IDs = *in.IDs
	}
	if in.Indexes != nil {
		o.Indexes = *in.Indexes
	}
	const noItem = "%s names no item: leave it out to retry all that did not succeed"
	switch {
	case in.IDs != nil && len(o.IDs) == 0:
		return o, unacceptable(problemAt("/ids", "empty", noItem, "ids"))
	case in.Indexes != nil && len(o.Indexes) == 0:
		return o, unacceptable(problemAt("/indexes", "empty", noItem, "indexes"))
	}
	if n := len(o.IDs) + len(o.Indexes); n > batch.MaxNamed {
		return o, unacceptable(problemAt("", "too_many", "a retry names at most %d items, not %d: without a name it is for all that did not succeed", batch.MaxNamed, n))
	}
	if in.ExpiresIn != nil {
		d, err := time.ParseDuration(*in.ExpiresIn)
		if err != nil || d < 0 {
			return o, unacceptable(problemAt("/expires_in", "bad_duration", `expires_in is a duration such as "90m", or "0s" for none`))
		}
		o.ExpiresIn = &d
	}
	return o, nil
}

// remove takes a batch away.
func (s *server) remove(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	force := r.query.Get("force")
	if r.query.Has("force") && force != "true" && force != "false" {
		return badParam("bad_force", "force is true or false")
	}
	if err := s.Store.Delete(r.Context(), r.tenant, id, force == "true"); err != nil {
		return uncertain("delete batch", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
