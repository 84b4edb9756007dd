package api

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// partView is a part of a batch as clients see it.
type partView struct {
	Part   int    `json:"part"`
	Items  int    `json:"items"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func viewPart(p batch.Part) partView {
	return partView{p.Number, p.Items, p.Bytes, hex.EncodeToString(p.SHA256[:])}
}

// part returns the batch and the number of the part in the path.
func (r *request) part() (id batch.ID, number int, err error) {
	if id, err = r.id(); err != nil {
		return id, 0, err
	}
	number, err = strconv.Atoi(r.vars["part"])
	return id, number, err
}

// putPart takes a part of an open batch in. One that is there already is read
// once more, and kept no second time.
func (s *server) putPart(w http.ResponseWriter, r *request) error {
	id, number, err := r.part()
	if err != nil {
		return err
	}
	if err := s.Accepting(); err != nil {
		return err
	}
	b, err := s.Store.Batch(r.Context(), r.tenant, id)
	if err != nil {
		return err
	}
	if err := b.Accepts(); err != nil {
		return err
	}
	stage := s.Store.StagePart(r.Context(), r.tenant, id, number)
	defer stage.Discard()
	var to batch.Sink = stage
	there := stage.There()
	if there != nil {
		to = nowhere{}
	}
	read, err := intake.ReadPart(r.Context(), r.submission(false), to, s.Limits, b.Options)
	if err != nil {
		return unread(r, inPart(number, err))
	}
	if there != nil {
		if err := there.Again(read.Content); err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, encode(viewPart(*there)))
	}
	p, err := stage.Keep(r.Context(), batch.Part{Bytes: read.Bytes, SHA256: read.SHA256, Content: read.Content}, batch.Room{Items: s.Limits.Items, Bytes: s.Limits.Body})
	if err != nil {
		return uncertain("keep part", err)
	}
	return writeJSON(w, http.StatusOK, encode(viewPart(p)))
}

// inPart makes the places of a refusal those of a part.
func inPart(number int, err error) error {
	var e *batch.Error
	if !errors.As(err, &e) || len(e.Places) == 0 {
		return err
	}
	named := *e
	named.Places = slices.Clone(e.Places)
	for i := range named.Places {
		named.Places[i].Part = &number
	}
	named.Message = fmt.Sprintf("part %d: %s", number, e.Message)
	return &named
}

func (s *server) deletePart(w http.ResponseWriter, r *request) error {
	id, number, err := r.part()
	if err != nil {
		return err
	}
	if err := s.Store.DropPart(r.Context(), r.tenant, id, number); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) listParts(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	parts, err := s.Store.Parts(r.Context(), r.tenant, id)
	if err != nil {
		return err
	}
	views := make([]partView, len(parts))
	for i, p := range parts {
		views[i] = viewPart(p)
	}
	return writeJSON(w, http.StatusOK, encode(struct {
		Data []partView `json:"data"`
	}{views}))
}

// seal ends the sending of parts. It answers 202 after the store said that the
// batch is queued.
func (s *server) seal(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	var in struct {
		Parts *int `json:"parts"`
	}
	if r.ContentLength != 0 {
		if err := r.input(&in); err != nil {
			return err
		}
	}
	q := batch.Sealing{Tenant: r.tenant, Batch: id, Parts: -1}
	if in.Parts != nil {
		if q.Parts = *in.Parts; q.Parts < 1 || q.Parts > batch.MaxParts {
			return unacceptable(problemAt("/parts", "out_of_range", "parts is 1 to %d", batch.MaxParts))
		}
	}
	return s.begin(w, r, id, in, func(once batch.Once) (batch.Batch, error) {
		b, err := s.Store.Seal(r.Context(), q, once)
		return b, uncertain("seal batch", err)
	})
}
