package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// plan is what the upstream does with an item. It follows from the item, so
// that its right outcome is known whatever crashes.
type plan int

const (
	work        plan = iota
	refuse           // 422, always
	unavailable      // 503 at first
	reset            // the connection breaks at first
	hang             // no answer at first
)

func planOf(hash uint64) plan {
	switch n := hash / 1000 % 1000; {
	case n < 5:
		return refuse
	case n < 15:
		return unavailable
	case n < 18:
		return reset
	case n < 19:
		return hang
	default:
		return work
	}
}

// twice is the upstream's output, spaced so that a byte for byte copy shows.
func twice(i, n int) string { return fmt.Sprintf(`{"i": %d,  "twice": %d}`, i, 2*n) }

// upstream works on items and keeps a log of every call.
type upstream struct {
	ledger  *ledger
	trigger *trigger
	server  *httptest.Server

	mu    sync.Mutex
	calls map[string][]uint8 // by batch: how often each item came
	total int
	most  uint8
}

func newUpstream(t *testing.T, l *ledger, tg *trigger) *upstream {
	u := &upstream{ledger: l, trigger: tg, calls: make(map[string][]uint8)}
	u.server = httptest.NewServer(u)
	t.Cleanup(u.server.Close)
	return u
}

func (u *upstream) url() string { return u.server.URL }

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the server died while it sent
	}
	u.trigger.hit("upstream call")
	var item struct {
		Token string
		I     int
	}
	if err := json.Unmarshal(body, &item); err != nil {
		u.ledger.violate("upstream got %q: %v", body, err)
		return
	}
	s := u.ledger.token(item.Token)
	if s == nil || item.I >= s.items || string(s.item(item.I)) != string(body) {
		u.ledger.violate("upstream got an item that nobody sent: %s", body)
		return
	}
	call, err := u.record(s, item.I, r.Header)
	if err != nil {
		u.ledger.violate("upstream, item %s: %v", body, err)
		return
	}
	u.answer(w, r, s, item.I, call)
}

// record logs a call and returns how many there were of this item.
func (u *upstream) record(s *submission, index int, h http.Header) (int, error) {
	key := h.Get("Idempotency-Key")
	id, text, _ := strings.Cut(key, "/")
	if n, err := strconv.Atoi(text); err != nil || n != index {
		return 0, fmt.Errorf("the idempotency key is %q", key)
	}
	if h.Get("Callbatch-Batch") != id || h.Get("Callbatch-Item") != text {
		return 0, fmt.Errorf("key %q, but batch %q and item %q", key, h.Get("Callbatch-Batch"), h.Get("Callbatch-Item"))
	}
	if known := s.batchID(); known != "" && known != id {
		return 0, fmt.Errorf("the batch is %s, but %s was acknowledged", id, known)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	calls, ok := u.calls[id]
	if ok && calls == nil {
		return 0, fmt.Errorf("batch %s had ended, and was audited", id)
	}
	if !ok {
		calls = make([]uint8, s.items)
		u.calls[id] = calls
	}
	u.total++
	calls[index]++
	u.most = max(u.most, calls[index])
	return int(calls[index]), nil
}

// forget closes the log of a batch: another call would be one too many.
func (u *upstream) forget(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls[id] = nil
}

func (u *upstream) called(id string, index int) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if calls := u.calls[id]; calls != nil {
		return int(calls[index])
	}
	return 0
}

func (u *upstream) answer(w http.ResponseWriter, r *http.Request, s *submission, index, call int) {
	p := planOf(s.hash(index))
	if call > 1 && p != refuse {
		p = work
	}
	switch p {
	case refuse:
		http.Error(w, "not this one", http.StatusUnprocessableEntity)
	case unavailable:
		http.Error(w, "not now", http.StatusServiceUnavailable)
	case reset:
		panic(http.ErrAbortHandler)
	case hang:
		select {
		case <-r.Context().Done():
		case <-time.After(20 * time.Second):
		}
	case work:
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, twice(index, s.number(index)))
	}
}

func (u *upstream) summary() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return fmt.Sprintf("%d upstream calls (at most %d of one item)", u.total, u.most)
}
