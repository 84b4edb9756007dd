package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
	"github.com/callbatch/callbatch/callback/signature"
)

// A receiver is what a user of webhooks writes: it verifies each, remembers
// what it has seen, and answers. To show a retry it turns the first one away.
type receiver struct {
	secret signature.Secret
	seen   func(arrival) // called once for each request, one at a time

	mu       sync.Mutex
	arrivals []arrival
}

// An arrival is one attempt at one message, as it was received.
type arrival struct {
	ID      string // webhook-id: the same on every attempt
	Attempt int
	Event   event
	Body    []byte
	Bad     error // why the signature is not good, if it is not
	Status  int   // how it was answered
}

// acknowledged reports whether the sender was told that all is well.
func (a arrival) acknowledged() bool { return a.Status/100 == 2 }

// An event is the body of a webhook.
type event struct {
	Type string `json:"type"`
	Data struct {
		BatchID  string          `json:"batch_id"`
		Status   string          `json:"status"`
		Counts   batch.Counts    `json:"counts"`
		Messages int             `json:"messages"` // how many result messages there are
		Results  []client.Result `json:"results"`
	} `json:"data"`
}

// mostWebhook bounds a body: Callbatch never sends more in one.
const mostWebhook = batch.MaxPageBytes

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, mostWebhook))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	a := arrival{ID: req.Header.Get(signature.HeaderID), Body: body}
	a.Attempt, _ = strconv.Atoi(req.Header.Get("callbatch-attempt")) // only shown
	a.Bad = signature.Verify(req.Header, body, time.Now(), 0, r.secret)
	if a.Bad == nil {
		a.Bad = json.Unmarshal(body, &a.Event)
	}
	w.WriteHeader(r.answer(&a))
}

// answer decides about an arrival and remembers it.
func (r *receiver) answer(a *arrival) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case a.Bad != nil:
		a.Status = http.StatusUnauthorized
	case len(r.arrivals) == 0:
		a.Status = http.StatusServiceUnavailable
	default:
		a.Status = http.StatusNoContent
	}
	r.arrivals = append(r.arrivals, *a)
	r.seen(*a)
	return a.Status
}

// all returns what has arrived so far, in order.
func (r *receiver) all() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.arrivals)
}

// listen serves r on a free port of the loopback until stop, which waits.
func (r *receiver) listen() (url string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	stop = func() error {
		err := s.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}
	return fmt.Sprintf("http://%s/hooks", l.Addr()), stop, nil
}
