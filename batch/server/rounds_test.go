package server_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/server"
)

// call makes a call without a body or with one of JSON and returns its status.
func (s *site) call(method, path, body string) int {
	s.t.Helper()
	req, err := http.NewRequest(method, s.base+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestRounds retries a batch through a server that is stopped and started
// meanwhile, until all of it has succeeded, and deletes it.
func TestRounds(t *testing.T) {
	const items, bad = 2000, 40 // each 50th fails in its first round, each 100th in its second
	var mu sync.Mutex
	keys := map[string]int{}
	do := batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
		mu.Lock()
		keys[c.Key()]++
		mu.Unlock()
		if c.Index%50 == 7 && c.Round == 1 || c.Index%100 == 7 && c.Round == 2 {
			return nil, &batch.Failure{Code: "app.no", Message: "not yet"}
		}
		return []byte(fmt.Sprint(c.Round)), nil
	})
	s := newSite(t, server.Options{Processors: map[string]server.Processor{"p": {Do: do}}})
	h := newHook(t, s.secret)
	said := map[string]int{}
	h.inside = func(e event) { // what a message says the API shows already
		h.mu.Lock()
		defer h.mu.Unlock()
		said[e.Type] += len(e.Data.Results)
		if e.Type == "batch.completed" {
			said[fmt.Sprintf("completed %d failed", e.Data.Counts.Failed)]++
			if b := s.batch(e.Data.BatchID); b.Counts != e.Data.Counts {
				t.Errorf("the message says %+v, the API %+v", e.Data.Counts, b.Counts)
			}
		}
	}
	told := func(b seen) bool { return b.Status == "completed" && b.Callback.Status == "delivered" }
	id := submit(t, http.DefaultClient, s.base, "processor=p&callback_url="+h.URL, numbers(items))
	for round, failed := range []int{bad, bad / 2, 0} {
		b := s.until(id, "told of", told)
		if b.Counts.Failed != failed || b.Counts.Succeeded != items-failed {
			t.Fatalf("after round %d: %+v", round+1, b.Counts)
		}
		if got := len(s.results(id, "?status=failed")); got != failed {
			t.Errorf("after round %d: %d results say failed", round+1, got)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		s.start()
		want := http.StatusAccepted
		if failed == 0 {
			want = http.StatusConflict
		}
		if got := s.call("POST", "/v1/batches/"+id+"/retry", fmt.Sprintf(`{"from_round":%d}`, round+1)); got != want {
			t.Fatalf("a retry of round %d: %d", round+1, got)
		}
	}
	for round, failed := range map[int]int{1: bad, 2: bad / 2, 3: 0} {
		query := fmt.Sprintf("?round=%d", round)
		if all, no := len(s.results(id, query)), len(s.results(id, query+"&status=failed")); all != items || no != failed {
			t.Errorf("round %d has %d results, %d of them failed", round, all, no)
		}
	}
	mu.Lock()
	if len(keys) != items+bad+bad/2 {
		t.Errorf("%d idempotency keys were seen", len(keys))
	}
	for key, n := range keys {
		if n != 1 {
			t.Errorf("%s was tried %d times", key, n)
		}
	}
	mu.Unlock()
	h.mu.Lock()
	if got := said["batch.results"] + said["batch.completed"]; got != items+bad+bad/2 {
		t.Errorf("%d results were sent", got)
	}
	for _, failed := range []int{bad, bad / 2, 0} {
		if n := said[fmt.Sprintf("completed %d failed", failed)]; n != 1 {
			t.Errorf("the end with %d failed was told %d times", failed, n)
		}
	}
	h.mu.Unlock()

	if got := s.call("DELETE", "/v1/batches/"+id, ""); got != http.StatusNoContent {
		t.Errorf("delete: %d", got)
	}
	for range 2 {
		if got := s.call("GET", "/v1/batches/"+id+"/results", ""); got != http.StatusGone {
			t.Errorf("its results: %d", got)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		s.start()
	}
}
