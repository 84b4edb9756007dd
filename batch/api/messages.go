package api

import (
	"bytes"
	"fmt"
	"net/http"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback/signature"
)

// messageView is a message as clients see it in a list.
type messageView struct {
	ID     batch.MessageID    `json:"id"`
	Batch  batch.ID           `json:"batch_id"`
	Type   string             `json:"type"`
	Round  int                `json:"round"`
	Status batch.MessageState `json:"status"`
	Reason *string            `json:"reason"`
	Host   string             `json:"host"`
	Create string             `json:"created_at"`
	Next   *string            `json:"next_attempt_at"`
	Made   int                `json:"attempts_made"`
}

func viewMessage(m batch.Message) messageView {
	v := messageView{
		ID: m.ID, Batch: m.Batch, Type: m.Type, Round: m.Round, Status: m.State, Reason: orNull(m.Reason),
		Host: m.Host, Create: batch.FormatTime(m.Created), Made: m.Made,
	}
	if m.State == batch.MessageWaiting || m.State == batch.MessageParked {
		v.Next = timeOrNull(m.Due)
	}
	return v
}

// attemptView is an attempt with its time in the format of all times.
type attemptView struct {
	Number  int    `json:"number"`
	Started string `json:"started_at"`
	batch.Attempt
}

func (s *server) listMessages(w http.ResponseWriter, r *request) error {
	b, err := s.batch(r)
	if err != nil {
		return err
	}
	q := batch.MessageQuery{Tenant: r.tenant, Batch: &b.ID}
	if err := word(r.query, "status", &q.State); err != nil {
		return err
	}
	if q.Limit, err = pageLimit(r.query); err != nil {
		return err
	}
	before, err := cursor(r.query, messageList)
	if err != nil {
		return err
	}
	q.Before = (*batch.MessageID)(before)
	list, next, err := s.Store.Messages(r.Context(), q)
	if err != nil {
		return err
	}
	views := make([]messageView, len(list))
	for i, m := range list {
		views[i] = viewMessage(m)
	}
	return writeList(w, r, messageList, views, (*[16]byte)(next))
}

// getMessage shows a message with every attempt and the bytes it sends.
func (s *server) getMessage(w http.ResponseWriter, r *request) error {
	id, err := batch.ParseMessageID(r.vars["id"])
	if err != nil {
		return batch.Errorf(batch.NotFound, "there is no such message")
	}
	m, attempts, err := s.Store.Message(r.Context(), r.tenant, id)
	if err != nil {
		return err
	}
	sent, err := s.Store.Body(r.Context(), m)
	if err != nil {
		return fmt.Errorf("body of %s: %w", m.ID, err)
	}
	views := make([]attemptView, len(attempts))
	for i, a := range attempts {
		views[i] = attemptView{Number: a.Number, Started: batch.FormatTime(a.Started), Attempt: a}
	}
	head := encode(struct {
		messageView
		Attempts []attemptView `json:"attempts"`
	}{viewMessage(m), views})
	body := append(bytes.TrimSuffix(head, []byte("}\n")), `,"body":`...)
	return writeJSON(w, http.StatusOK, append(append(body, sent...), "}\n"...))
}

// getSecret shows what the tenant's messages are signed with, and makes it
// if nothing was ever signed.
func (s *server) getSecret(w http.ResponseWriter, r *request) error {
	fresh := batch.Secret{Text: signature.NewSecret().Reveal(), Created: time.Now().UTC()}
	secrets, err := s.Store.Secrets(r.Context(), r.tenant, fresh)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, http.StatusOK, encode(struct {
		Secret string `json:"secret"`
	}{secrets[0].Text}))
}
