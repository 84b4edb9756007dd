package server_test

import (
	"net/http"
	"testing"

	"github.com/callbatch/callbatch/batch/process/jq"
	"github.com/callbatch/callbatch/batch/server"
)

// TestAFailureTooManyStopsABatch has every item fail that is started, and no more
// are started than it takes, in the first round as in the next.
func TestAFailureTooManyStopsABatch(t *testing.T) {
	do, err := jq.New(`error("no")`, jq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, server.Options{Processors: map[string]server.Processor{
		"one": {Do: do, Kind: "jq", Trusted: true, Concurrency: 1}, "eight": {Do: do, Kind: "jq", Trusted: true, Concurrency: 8},
	}})
	stopped := func(id, what string, least, most int) {
		t.Helper()
		b := s.until(id, what, func(b seen) bool { return b.Status == "canceled" })
		if c := b.Counts; c.Failed < least || c.Failed > most || c.Failed+c.Canceled != 2000 {
			t.Errorf("%s: %+v, want %d to %d failed", what, c, least, most)
		}
	}
	sent := func(query string) string {
		t.Helper()
		return submit(t, http.DefaultClient, s.base, query, numbers(2000))
	}
	stopped(sent("processor=one&max_failures=0"), "the first", 1, 1)
	stopped(sent("processor=one&max_failures=1%25"), "one more than a share", 21, 21)
	stopped(sent("processor=eight&concurrency=1&max_failures=0"), "one at a time for its owner", 1, 1)
	stopped(sent("processor=eight&max_failures=0"), "the first of eight at once", 1, 8)

	id := sent("processor=one&max_failures=5")
	stopped(id, "the sixth", 6, 6)
	if got := s.call("POST", "/v1/batches/"+id+"/retry", `{"from_round":1}`); got != http.StatusAccepted {
		t.Fatalf("retry: %d", got)
	}
	stopped(id, "the sixth of the second round", 6, 6)
}
