package main_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// receiver takes the webhooks, believes nothing and keeps a log.
type receiver struct {
	ledger  *ledger
	trigger *trigger
	server  *httptest.Server
	api     *api

	mu       sync.Mutex
	rnd      *rand.Rand
	secret   string
	verifier *standardwebhooks.Webhook
	messages map[string]*received // by webhook-id
	byBatch  map[string][]*received
	attempts int
}

// received is a message as it came, on every attempt.
type received struct {
	id      string
	body    [sha256.Size]byte
	doc     webhookDoc
	indexes []int // of the results it carries
	numbers []int // of the attempts
	acked   bool  // we answered 2xx, and the answer was written
	closed  bool  // the API says delivered: it may not come again
}

func newReceiver(t *testing.T, l *ledger, tg *trigger, rnd *rand.Rand) *receiver {
	rc := &receiver{
		ledger: l, trigger: tg, rnd: rnd,
		messages: make(map[string]*received), byBatch: make(map[string][]*received),
	}
	rc.server = httptest.NewServer(rc)
	t.Cleanup(rc.server.Close)
	return rc
}

func (rc *receiver) url() string { return rc.server.URL + "/hook" }

func (rc *receiver) port() string {
	u, err := url.Parse(rc.server.URL)
	if err != nil {
		panic(err) // httptest's own
	}
	return u.Port()
}

// trust sets the secret that signatures are held against; it never changes.
func (rc *receiver) trust(secret string) error {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if rc.secret != "" && rc.secret != secret {
		return errors.New("it is another than before")
	}
	v, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return err
	}
	rc.secret, rc.verifier = secret, v
	return nil
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the server died while it sent
	}
	rc.trigger.hit("callback")
	m, err := rc.record(r.Header, body)
	if err != nil {
		rc.ledger.violate("webhook %s: %v\n%v\n%.2000s", r.Header.Get("webhook-id"), err, r.Header, body)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if rc.chance(4) {
		if err := rc.confirm(r.Context(), m); err != nil {
			rc.ledger.violate("webhook %s says what the API does not: %v\n%.2000s", m.id, err, body)
		}
	}
	rc.answer(w, m)
	rc.trigger.hit("callback answered")
}

// chance is true once in n times.
func (rc *receiver) chance(n int) bool {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return rc.rnd.IntN(n) == 0
}

func (rc *receiver) answer(w http.ResponseWriter, m *received) {
	switch {
	case rc.chance(25):
		w.WriteHeader(http.StatusInternalServerError)
		return
	case rc.chance(60):
		panic(http.ErrAbortHandler)
	}
	rc.mu.Lock()
	m.acked = true // from here on the server may know
	rc.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
	_ = http.NewResponseController(w).Flush() // a dead client is the point
}

// record verifies an attempt, holds it against those before, and logs it.
func (rc *receiver) record(h http.Header, body []byte) (*received, error) {
	if err := rc.verify(h, body); err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(h.Get("callbatch-attempt"))
	if err != nil {
		return nil, fmt.Errorf("callbatch-attempt: %w", err)
	}
	m, err := rc.message(h.Get("webhook-id"), body)
	if err != nil {
		return nil, err
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.attempts++
	switch {
	case m.closed:
		return nil, errors.New("it was delivered, and comes again")
	case m.body != sha256.Sum256(body):
		return nil, errors.New("the body changed between attempts")
	case number < 1 || slices.Contains(m.numbers, number):
		return nil, fmt.Errorf("attempt %d comes after attempts %v", number, m.numbers)
	}
	m.numbers = append(m.numbers, number)
	return m, nil
}

func (rc *receiver) verify(h http.Header, body []byte) error {
	rc.mu.Lock()
	v := rc.verifier
	rc.mu.Unlock()
	if err := v.Verify(body, h); err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if want := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"; h.Get("content-digest") != want {
		return fmt.Errorf("content-digest is %q, the body's is %q", h.Get("content-digest"), want)
	}
	if !strings.HasPrefix(h.Get("user-agent"), "Callbatch/") || h.Get("Idempotency-Key") != "" {
		return fmt.Errorf("headers %v", h)
	}
	return nil
}

// message returns the log entry of a webhook-id and reads the body of a new one.
func (rc *receiver) message(id string, body []byte) (*received, error) {
	rc.mu.Lock()
	m := rc.messages[id]
	rc.mu.Unlock()
	if m != nil {
		return m, nil
	}
	m = &received{id: id, body: sha256.Sum256(body)}
	if err := json.Unmarshal(body, &m.doc); err != nil {
		return nil, err
	}
	s := rc.ledger.token(m.doc.Data.Metadata["token"])
	if s == nil {
		return nil, errors.New("it is about a batch that nobody sent")
	}
	for _, raw := range m.doc.Data.Results {
		r, err := s.note(raw)
		if err != nil {
			return nil, err
		}
		m.indexes = append(m.indexes, r.Index)
	}
	m.doc.Data.Results = nil // noted by their digest
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if first := rc.messages[id]; first != nil {
		return first, nil // two attempts of it at once
	}
	rc.messages[id] = m
	rc.byBatch[m.doc.Data.BatchID] = append(rc.byBatch[m.doc.Data.BatchID], m)
	return m, nil
}

// confirm asks the API, while the message is being delivered, whether it
// already says the same. A server that dies meanwhile excuses.
func (rc *receiver) confirm(ctx context.Context, m *received) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	d := m.doc.Data
	b, err := rc.api.batch(ctx, d.BatchID)
	if err != nil {
		return excuse(err)
	}
	if m.doc.Type != "batch.results" {
		if "batch."+b.Status != m.doc.Type || b.Counts != d.Counts || !equal(b.FinishedAt, d.FinishedAt) {
			return fmt.Errorf("it is %s %+v", b.Status, b.Counts)
		}
	}
	s := rc.ledger.token(d.Metadata["token"])
	for _, i := range rc.sample(m) {
		it, err := rc.api.item(ctx, d.BatchID, i)
		if err != nil {
			return excuse(err)
		}
		if it.Result == nil {
			return fmt.Errorf("item %d is %s", i, it.Status)
		}
		if _, err := s.note(it.Result); err != nil {
			return err
		}
	}
	return nil
}

// sample picks the first and the last item the message is about.
func (rc *receiver) sample(m *received) []int {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if len(m.indexes) < 2 {
		return m.indexes
	}
	return []int{m.indexes[0], m.indexes[len(m.indexes)-1]}
}

// excuse lets pass what a crash explains: an answer that did not arrive, or
// one that says that the server is not there yet.
func excuse(err error) error {
	var u unexpected
	var v violation
	switch {
	case errors.As(err, &v):
		return err
	case errors.As(err, &u) && u.status != http.StatusServiceUnavailable:
		return err
	default:
		return nil
	}
}

// of returns what was received about a batch.
func (rc *receiver) of(id string) []received {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	var all []received
	for _, m := range rc.byBatch[id] {
		c := *m
		c.indexes = slices.Clone(m.indexes)
		all = append(all, c)
	}
	return all
}

// forget closes the log of a batch whose messages are all delivered.
func (rc *receiver) forget(id string) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	for _, m := range rc.byBatch[id] {
		m.closed, m.indexes, m.numbers = true, nil, nil
	}
	delete(rc.byBatch, id)
}

func (rc *receiver) summary() string {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return fmt.Sprintf("%d messages in %d attempts", len(rc.messages), rc.attempts)
}
