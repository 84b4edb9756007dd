package api

import (
	"net/http"
	"strconv"

	"github.com/callbatch/callbatch/batch"
)

// item returns the item that the path names.
func (s *server) item(r *request) (batch.ItemView, error) {
	id, err := r.id()
	if err != nil {
		return batch.ItemView{}, err
	}
	index, err := strconv.Atoi(r.vars["index"])
	if err != nil {
		return batch.ItemView{}, batch.Errorf(batch.NotFound, "there is no such item")
	}
	return s.Store.Item(r.Context(), r.tenant, id, index)
}

// getItem shows one item.
func (s *server) getItem(w http.ResponseWriter, r *request) error {
	item, err := s.item(r)
	if err != nil {
		return err
	}
	return showItem(w, item)
}

// findItem shows the item with an id.
func (s *server) findItem(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	if !r.query.Has("id") {
		return badParam("missing_parameter", "id is required: the id of an item")
	}
	item, err := s.Store.FindItem(r.Context(), r.tenant, id, r.query.Get("id"))
	if err != nil {
		return err
	}
	return showItem(w, item)
}

// showItem answers with an item. Input and result are the bytes that were
// given.
func showItem(w http.ResponseWriter, item batch.ItemView) error {
	body := unclosed(struct {
		Index  int              `json:"index"`
		ID     string           `json:"id"`
		Status batch.ItemStatus `json:"status"`
	}{item.Index, batch.ItemText(item.ID, item.Index), item.Status})
	body = append(append(body, `,"input":`...), item.Input...)
	body = append(body, `,"attempts":`...)
	body = strconv.AppendInt(body, int64(item.Attempts), 10)
	body = append(body, `,"result":`...)
	if item.Result == nil {
		body = append(body, "null"...)
	} else {
		body = batch.AppendResult(body, *item.Result)
	}
	return writeJSON(w, http.StatusOK, append(body, "}\n"...))
}

// getOutput shows the output of an item alone, byte for byte.
func (s *server) getOutput(w http.ResponseWriter, r *request) error {
	item, err := s.item(r)
	switch {
	case err != nil:
		return err
	case item.Result == nil:
		w.Header().Set("Retry-After", pollSeconds)
		return batch.Refuse(batch.Conflict, "unfinished", "the item is %s: it has no output yet", item.Status)
	case item.Result.Status != batch.ItemSucceeded:
		return batch.Refuse(batch.NotFound, "no_output", "the item is %s: it has no output, and its error is among the results of the batch", item.Status)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(item.Result.Payload)))
	return writeJSON(w, http.StatusOK, item.Result.Payload)
}
