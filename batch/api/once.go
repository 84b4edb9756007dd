package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/callbatch/callbatch/batch"
)

// keyed are the rows that take an Idempotency-Key. The others refuse it
// rather than promise what is not kept.
var keyed = []string{
	"POST /v1/batches",
	"POST /v1/batches/{id}/seal",
	"POST /v1/batches/{id}/retry",
	"POST /v1/messages/{id}/redeliver",
	"POST /v1/messages/redeliver",
}

// checkIdempotencyKey refuses the header where it has no meaning and where it
// is not of its form.
func checkIdempotencyKey(h http.Header, rt route) error {
	vs, has := h["Idempotency-Key"]
	if !has || rt.method == http.MethodGet {
		return nil
	}
	if !slices.Contains(keyed, rt.method+" "+rt.path) {
		return badParam("unsupported_header", "Idempotency-Key is not supported here")
	}
	if len(vs) != 1 || vs[0] == "" || len(vs[0]) > batch.MaxOnceKey || strings.ContainsFunc(vs[0], func(c rune) bool { return c <= ' ' || c > '~' }) {
		return badParam("bad_idempotency_key", "an Idempotency-Key is 1 to %d visible ASCII characters, given once", batch.MaxOnceKey)
	}
	return nil
}

// A reservation is the place of a request among those with its
// Idempotency-Key.
type reservation struct {
	key     string         // empty: it has none
	bound   *batch.Binding // of an earlier request with the key
	release func()         // a second call does nothing
}

func (s *server) reserve(r *request) (reservation, error) {
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		return reservation{release: func() {}}, nil
	}
	bound, release, err := s.Store.Reserve(r.Context(), r.tenant, key)
	return reservation{key, bound, sync.OnceFunc(release)}, err
}

func (f reservation) keyed() bool { return f.key != "" }

// once returns what is to be bound: an operation and what goes with it.
func (f reservation) once(operation string, with []byte) batch.Once {
	if !f.keyed() {
		return batch.Once{}
	}
	return batch.Once{Key: f.key, Content: batch.Content(operation, with)}
}

// once has a call without a large body do its work, with what it is to bind,
// or answers it again as the first one with its Idempotency-Key was answered.
// with is what is asked for besides the path.
func (s *server) once(w http.ResponseWriter, r *request, with any, first func(batch.Once) error, again func(batch.Binding) error) error {
	f, err := s.reserve(r)
	if err != nil {
		return err
	}
	defer f.release()
	once := f.once(r.Method+" "+r.URL.Path, encode(with))
	if f.bound == nil {
		return first(once)
	}
	if err := f.replays(w, once); err != nil {
		return err
	}
	return again(*f.bound)
}

// begin has a batch begin something, as once does, and answers with it. The key
// is bound and free again before a client waits for the end of the batch.
func (s *server) begin(w http.ResponseWriter, r *request, id batch.ID, with any, first func(batch.Once) (batch.Batch, error)) error {
	var b batch.Batch
	err := s.once(w, r, with, func(once batch.Once) (err error) {
		if err := s.Accepting(); err != nil {
			return err
		}
		b, err = first(once)
		return err
	}, func(batch.Binding) (err error) {
		b, err = s.Store.Batch(r.Context(), r.tenant, id)
		return err
	})
	if err != nil {
		return err
	}
	return s.accepted(w, r, b, http.StatusAccepted)
}

// replays refuses a request that has the key of another, and marks the answer
// to one that comes again.
func (f reservation) replays(w http.ResponseWriter, once batch.Once) error {
	if err := f.bound.Replays(once.Content); err != nil {
		return err
	}
	w.Header().Set("Idempotent-Replayed", "true")
	return nil
}

// replay answers a submission that comes again with the batch as it is now.
func (s *server) replay(w http.ResponseWriter, r *request, f reservation, once batch.Once, status int) error {
	if err := f.replays(w, once); err != nil {
		return err
	}
	b, err := s.Store.Batch(r.Context(), r.tenant, f.bound.Batch)
	if err != nil {
		return err
	}
	return s.accepted(w, r, b, status)
}

// nowhere takes items that are only to be read.
type nowhere struct{}

func (nowhere) Append(context.Context, batch.Block) error       { return nil }
func (nowhere) Index(context.Context, []batch.IndexEntry) error { return nil }
