package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
	"github.com/callbatch/callbatch/callback/signature"
)

// A receiver is what a user of webhooks writes: it verifies each before it
// believes any of it.
type receiver struct {
	secrets    []signature.Secret
	keys       *keyring // instead of secrets, if it is a server's; nil: there is none
	unverified bool     // signatures are not looked at
	answer     func(http.ResponseWriter, *http.Request, arrival)
}

// An arrival is one attempt at one message, as it was received.
type arrival struct {
	ID      string // webhook-id: the same on every attempt
	Attempt int    // 0: not said
	Event   event
	Body    []byte
	Bad     error // why the signature is not good, if it is not
	Strange error // why the body is not an event as Callbatch sends it, if it is not
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
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "webhooks are sent with POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, mostWebhook))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	a := arrival{ID: req.Header.Get(signature.HeaderID), Body: body}
	a.Attempt, _ = strconv.Atoi(req.Header.Get("callbatch-attempt")) // only shown
	if !r.unverified {
		a.Bad = r.verify(req, body)
	}
	if a.Bad == nil {
		a.Strange = json.Unmarshal(body, &a.Event)
	}
	r.answer(w, req, a)
}

func (r *receiver) verify(req *http.Request, body []byte) error {
	if r.keys != nil {
		return r.keys.verify(req.Context(), req.Header, body, time.Now())
	}
	return signature.Verify(req.Header, body, time.Now(), 0, r.secrets...)
}

// A listening is a handler, such as a receiver, that can be reached.
type listening struct {
	addr   net.Addr
	server *http.Server
	ended  chan error // gets what the server ended with
}

// listen serves r on address until stop.
func (r *receiver) listen(address string) (*listening, error) { return listen(address, r) }

// listen serves a handler on address until stop.
func listen(address string, to http.Handler) (*listening, error) {
	socket, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	l := &listening{addr: socket.Addr(), ended: make(chan error, 1)}
	l.server = &http.Server{
		Handler:           to,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		MaxHeaderBytes:    64 << 10,
	}
	go func() { l.ended <- l.server.Serve(socket) }()
	return l, nil
}

// url is where webhooks are to be sent, seen from this machine.
func (l *listening) url() string {
	a := l.addr.(*net.TCPAddr)
	if a.IP.IsUnspecified() {
		return fmt.Sprintf("http://127.0.0.1:%d/hooks", a.Port)
	}
	return fmt.Sprintf("http://%s/hooks", a)
}

// stop takes no more webhooks, gives those being answered five seconds, and
// waits for the server's end.
func (l *listening) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := l.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = l.server.Close()
	}
	if served := <-l.ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
