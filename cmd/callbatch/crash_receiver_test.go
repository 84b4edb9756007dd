package main_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
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
)

// receiver takes the webhooks, believes nothing and keeps a log.
type receiver struct {
	ledger  *ledger
	trigger *trigger
	server  *httptest.Server
	api     *api
	keys    *keyring

	mu       sync.Mutex // guards what follows
	rnd      *rand.Rand
	messages map[string]*received // by webhook-id
	byBatch  map[string][]*received
	calls    map[string]*call // by webhook-id
	outage   outage
	quiet    [2]time.Time // between these an open breaker lets nothing through
	attempts int
}

// received is a message as it came, on every attempt.
type received struct {
	letter
	numbers []int // of the attempts
	acked   int   // the last of them that we answered with 2xx, and the answer was written
	floor   int   // attempts there were when it was closed
	closed  bool  // the API says delivered: it may not come again, unless it is called for
}

// call is for a message to come once more.
type call struct {
	above int  // an attempt with a higher number has to come and be acknowledged
	sure  bool // because the API said so
	alone bool // it was for this message: no breaker keeps it
}

func newReceiver(t *testing.T, l *ledger, tg *trigger, rnd *rand.Rand) *receiver {
	rc := &receiver{
		ledger: l, trigger: tg, rnd: rnd, keys: &keyring{},
		messages: make(map[string]*received), byBatch: make(map[string][]*received), calls: make(map[string]*call),
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

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the server died while it sent
	}
	rc.trigger.hit("callback")
	m, number, err := rc.record(r.Header, body)
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
	rc.answer(w, m, number)
	rc.trigger.hit("callback answered")
}

// chance is true once in n times.
func (rc *receiver) chance(n int) bool {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return rc.rnd.IntN(n) == 0
}

// fail begins an outage.
func (rc *receiver) fail() {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.outage = outage{attempts: outageAttempts, grace: outageGrace}
}

// expectQuiet says that no attempt begins from now on until then, but for
// messages that were asked for by themselves.
func (rc *receiver) expectQuiet(until time.Time) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.quiet = [2]time.Time{time.Now(), until}
}

func (rc *receiver) mood() mood {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return rc.outage.next()
}

func (rc *receiver) answer(w http.ResponseWriter, m *received, number int) {
	switch mood := rc.mood(); {
	case mood == down:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case mood == moody && rc.chance(25):
		w.WriteHeader(http.StatusInternalServerError)
		return
	case mood == moody && rc.chance(60):
		panic(http.ErrAbortHandler)
	}
	rc.mu.Lock()
	m.acked = max(m.acked, number) // from here on the server may know
	rc.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
	_ = http.NewResponseController(w).Flush() // a dead client is the point
}

// record verifies an attempt, holds it against those before, and logs it.
func (rc *receiver) record(h http.Header, body []byte) (m *received, number int, err error) {
	began, err := rc.verify(h, body)
	if err != nil {
		return nil, 0, err
	}
	if number, err = strconv.Atoi(h.Get("callbatch-attempt")); err != nil {
		return nil, 0, fmt.Errorf("callbatch-attempt: %w", err)
	}
	if m, err = rc.message(h.Get("webhook-id"), body); err != nil {
		return nil, 0, err
	}
	if want := m.about.pass(); h.Get("Authorization") != want {
		return nil, 0, fmt.Errorf("its callback_headers say %q", want)
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.attempts++
	call := rc.calls[m.id]
	switch {
	case m.closed:
		return nil, 0, errors.New("it was delivered, and comes again")
	case m.about.mode == "pull" && call == nil:
		return nil, 0, errors.New("it is to be pulled, and comes")
	case m.body != sha256.Sum256(body):
		return nil, 0, errors.New("the body changed between attempts")
	case number <= m.floor || slices.Contains(m.numbers, number):
		return nil, 0, fmt.Errorf("attempt %d comes after attempts %v", number, m.numbers)
	case began.After(rc.quiet[0]) && time.Now().Before(rc.quiet[1]) && (call == nil || !call.alone):
		return nil, 0, fmt.Errorf("it comes before %v, when the breaker lets the next through", rc.quiet[1])
	}
	m.numbers = append(m.numbers, number)
	return m, number, nil
}

// verify returns when the attempt began, or up to a second before.
func (rc *receiver) verify(h http.Header, body []byte) (began time.Time, err error) {
	seconds, err := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
	if err != nil {
		return began, fmt.Errorf("webhook-timestamp: %w", err)
	}
	began = time.Unix(seconds, 0)
	if err := rc.keys.verify(h, body, began); err != nil {
		return began, err
	}
	sum := sha256.Sum256(body)
	if want := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"; h.Get("content-digest") != want {
		return began, fmt.Errorf("content-digest is %q, the body's is %q", h.Get("content-digest"), want)
	}
	if !strings.HasPrefix(h.Get("user-agent"), "Callbatch/") || h.Get("Idempotency-Key") != "" {
		return began, fmt.Errorf("headers %v", h)
	}
	return began, nil
}

// message returns the log entry of a webhook-id and reads the body of a new one.
func (rc *receiver) message(id string, body []byte) (*received, error) {
	rc.mu.Lock()
	m := rc.messages[id]
	rc.mu.Unlock()
	if m != nil {
		return m, nil
	}
	l, err := rc.ledger.read(id, body)
	if err != nil {
		return nil, err
	}
	m = &received{letter: l}
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
	switch m.doc.Type {
	case typeResults:
	case typeProgress:
		if c := b.Counts; c.Succeeded < d.Counts.Succeeded || c.Failed < d.Counts.Failed || c.Canceled < d.Counts.Canceled {
			return fmt.Errorf("it is %s %+v", b.Status, c)
		}
	default:
		if "batch."+b.Status != m.doc.Type || b.Counts != d.Counts || !equal(b.FinishedAt, d.FinishedAt) {
			return fmt.Errorf("it is %s %+v", b.Status, b.Counts)
		}
	}
	for _, i := range m.sample() {
		it, err := rc.api.item(ctx, d.BatchID, i)
		if err != nil {
			return excuse(err)
		}
		if it.Result == nil {
			return fmt.Errorf("item %d is %s", i, it.Status)
		}
		if _, err := m.about.note(it.Result); err != nil {
			return err
		}
	}
	return nil
}

// sample picks the first and the last item the message is about.
func (m letter) sample() []int {
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

// of returns what was received about a batch, by webhook-id.
func (rc *receiver) of(id string) map[string]received {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	all := make(map[string]received)
	for _, m := range rc.byBatch[id] {
		c := *m
		c.numbers = slices.Clone(m.numbers)
		all[m.id] = c
	}
	return all
}

// close ends the log of a batch whose messages are all delivered. Word of its
// progress may still be on its way.
func (rc *receiver) close(id string) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	for _, m := range rc.byBatch[id] {
		if m.doc.Type != typeProgress {
			m.closed, m.floor = true, slices.Max(append([]int{0}, m.numbers...))
		}
	}
}

// reopen says that a message may come again: somebody is about to call for it,
// by itself or with others.
func (rc *receiver) reopen(id string, alone bool) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if m := rc.messages[id]; m != nil {
		m.closed = false
	}
	c := rc.calls[id]
	if c == nil {
		c = &call{}
		rc.calls[id] = c
	}
	c.alone = c.alone || alone
}

// want says that the API has answered a call: there will be another attempt
// than the first so many, and so on until one is acknowledged.
func (rc *receiver) want(id string, attempts int) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	c := rc.calls[id]
	c.above, c.sure = max(c.above, attempts), true
}

// owed returns which messages have to come once more, and have not.
func (rc *receiver) owed() (ids []string) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	for id := range rc.calls {
		if rc.waitsFor(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids) // so that two looks compare
	return ids
}

func (rc *receiver) owes(id string) bool {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return rc.waitsFor(id)
}

// waitsFor needs the lock.
func (rc *receiver) waitsFor(id string) bool {
	c, m := rc.calls[id], rc.messages[id]
	return c != nil && c.sure && (m == nil || m.acked <= c.above)
}

func (rc *receiver) summary() string {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return fmt.Sprintf("%d messages in %d attempts", len(rc.messages), rc.attempts)
}
