package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// messageView is a message as clients see it in a list.
type messageView struct {
	ID      batch.MessageID    `json:"id"`
	Batch   batch.ID           `json:"batch_id"`
	Type    string             `json:"type"`
	Round   int                `json:"round"`
	Status  batch.MessageState `json:"status"`
	Reason  *string            `json:"reason"`
	Host    string             `json:"host"`
	Created string             `json:"created_at"`
	Ended   *string            `json:"ended_at"`
	Next    *string            `json:"next_attempt_at"`
	Made    int                `json:"attempts_made"`
}

func viewMessage(m batch.Message) messageView {
	v := messageView{
		ID: m.ID, Batch: m.Batch, Type: m.Type, Round: m.Round, Status: m.State, Reason: orNull(m.Reason),
		Host: m.Host, Created: batch.FormatTime(m.Created), Ended: timeOrNull(m.Ended), Made: m.Made,
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

func viewAttempt(a batch.Attempt) attemptView {
	if r := a.Response; r != nil && r.Headers == nil {
		bare := *r
		bare.Headers = map[string]string{}
		a.Response = &bare
	}
	return attemptView{Number: a.Number, Started: batch.FormatTime(a.Started), Attempt: a}
}

// messageID returns the message id in the path. One that is none is as unknown
// as any.
func (r *request) messageID() (batch.MessageID, error) {
	id, err := batch.ParseMessageID(r.vars["id"])
	if err != nil {
		return batch.MessageID{}, batch.Errorf(batch.NotFound, "there is no such message")
	}
	return id, nil
}

func (s *server) listMessages(w http.ResponseWriter, r *request) error {
	return s.list(w, r, nil)
}

func (s *server) listOfBatch(w http.ResponseWriter, r *request) error {
	b, err := s.batch(r)
	if err != nil {
		return err
	}
	return s.list(w, r, &b.ID)
}

// list shows messages: those of a batch, or all.
func (s *server) list(w http.ResponseWriter, r *request, of *batch.ID) error {
	q := batch.MessageQuery{Tenant: r.tenant, Batch: of}
	if err := word(r.query, "status", &q.State); err != nil {
		return err
	}
	if r.query.Has("host") {
		var ok bool
		if q.Host, ok = lane(r.query.Get("host")); !ok {
			return badParam("bad_host", hostForm)
		}
	}
	var err error
	if q.Limit, err = pageLimit(r.query); err != nil {
		return err
	}
	before, err := cursor(r.query, "cursor", messageList)
	if err != nil {
		return err
	}
	q.Before = (*batch.MessageID)(before)
	list, next, err := s.search(r.Context(), q)
	if err != nil {
		return err
	}
	views := make([]messageView, len(list))
	for i, m := range list {
		views[i] = viewMessage(m)
	}
	return writeList(w, r, messageList, views, (*[16]byte)(next))
}

// searchTime is how long one call looks for messages that few are like.
const searchTime = 500 * time.Millisecond

// search asks the store on until the page is full, the list ends or the time
// is up. What is left is for the next page.
func (s *server) search(ctx context.Context, q batch.MessageQuery) (list []batch.Message, next *batch.MessageID, err error) {
	until := time.Now().Add(searchTime)
	for {
		var part []batch.Message
		if part, next, err = s.Store.Messages(ctx, q); err != nil {
			return nil, nil, err
		}
		list = append(list, part...)
		q.Before, q.Limit = next, q.Limit-len(part)
		if next == nil || q.Limit <= 0 || time.Now().After(until) {
			return list, next, nil
		}
	}
}

const hostForm = "host is a host and its port as messages show them, such as shop.example:443"

// lane returns a host and port as messages show them.
func lane(text string) (host string, ok bool) {
	const most = 300 // a name has 253 characters
	name, port, err := net.SplitHostPort(text)
	if err != nil || name == "" || len(text) > most {
		return "", false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	host = net.JoinHostPort(strings.ToLower(name), strconv.FormatUint(n, 10))
	return host, err == nil && n > 0 && host == strings.ToLower(text)
}

// getMessage shows a message with every attempt and the bytes it sends.
func (s *server) getMessage(w http.ResponseWriter, r *request) error {
	id, err := r.messageID()
	if err != nil {
		return err
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
		views[i] = viewAttempt(a)
	}
	body := unclosed(struct {
		messageView
		Attempts []attemptView `json:"attempts"`
	}{viewMessage(m), views})
	body = append(append(body, `,"body":`...), sent...)
	return writeJSON(w, http.StatusOK, append(body, "}\n"...))
}
