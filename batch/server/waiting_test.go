package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/server"
)

// TestABatchThatDoesNotMoveSaysWhy has every word of waiting_on occur for its
// reason, and none while a batch moves or when it has ended.
func TestABatchThatDoesNotMoveSaysWhy(t *testing.T) {
	free := make(chan struct{})
	failing := func(f batch.Failure) server.Processor {
		f.Code, f.Retry = batch.CodeProcessorError, true
		p := echo()
		p.Do = batch.ProcessorFunc(func(context.Context, batch.Call) ([]byte, error) { return nil, &f })
		p.Policy = batch.Policy{Attempts: 99, Base: time.Hour, Most: time.Hour}
		return p
	}
	busy, limited := echo(), echo()
	busy.Concurrency = 1
	busy.Do = batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
		select {
		case <-free:
		case <-ctx.Done():
		}
		return c.Item, ctx.Err()
	})
	limited.Rate = 0.01
	s := newSite(t, server.Options{Processors: map[string]server.Processor{
		"busy": busy, "limited": limited, "flaky": failing(batch.Failure{}), "echo": echo(),
		"polite": failing(batch.Failure{RetryAfter: 5 * time.Minute}), "down": failing(batch.Failure{Down: true}), "down later": failing(batch.Failure{Down: true}),
	}, Drain: time.Second})
	type view struct {
		Status    string
		WaitingOn *string `json:"waiting_on"`
		Rate      *float64
		ETA       *string
	}
	waits := func(id, want string) {
		t.Helper()
		var b view
		var word string
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			b = view{}
			s.get("/v1/batches/"+id, &b)
			if word = ""; b.WaitingOn != nil {
				word = *b.WaitingOn
			}
			if word == want {
				break
			}
		}
		if word != want || word != "" && (b.Rate != nil || b.ETA != nil) {
			t.Fatalf("it waits on %q, want %q: %+v", word, want, b)
		}
	}
	sent := func(processor string, items int, options ...string) string {
		t.Helper()
		return submit(t, http.DefaultClient, s.base, strings.Join(append(options, "processor="+url.QueryEscape(processor)), "&"), numbers(items))
	}
	first := sent("busy", 1)
	s.until(first, "running", func(b seen) bool { return b.Counts.Running == 1 })
	waits(first, "")
	second := sent("busy", 1)
	waits(second, "capacity")
	limit := sent("limited", 3)
	waits(limit, "rate_limit")
	waits(sent("polite", 1), "retry_backoff")
	waits(sent("polite", 1), "rate_limit") // its upstream asked to be left alone
	again := sent("flaky", 3)
	waits(again, "retry_backoff")
	down := sent("down", 9)
	waits(down, "upstream_unavailable")
	waits(sent("down", 1), "upstream_unavailable") // also one that was never tried
	waits(sent("down later", 5), "upstream_unavailable")
	waits(sent("echo", 1, "not_before="+url.QueryEscape(time.Now().Add(time.Hour).UTC().Format(time.RFC3339))), "not_before")
	steer := func(call, want string) {
		t.Helper()
		res, err := http.Post(s.base+"/v1/batches/"+second+call, "", nil)
		if err != nil || res.StatusCode != http.StatusAccepted {
			t.Fatal(err, res)
		}
		defer res.Body.Close()
		var b view
		if err := json.NewDecoder(res.Body).Decode(&b); err != nil || b.WaitingOn == nil || *b.WaitingOn != want {
			t.Errorf("%s: it says that it waits on %v, want %s, %v", call, b.WaitingOn, want, err)
		}
	}
	steer("/pause", "paused")
	waits(second, "paused")
	steer("/resume", "capacity")
	waits(second, "capacity")

	restart := func(change func(*server.Options)) {
		t.Helper()
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		change(&s.o)
		s.start()
	}
	restart(func(o *server.Options) { delete(o.Processors, "busy") })
	waits(first, "processor_missing")
	steer("/pause", "paused")
	steer("/resume", "processor_missing")
	waits(again, "retry_backoff")
	restart(func(o *server.Options) { o.Processors["busy"], o.Limits.MinWork = busy, 1<<60 })
	waits(first, "disk_full")
	steer("/resume", "disk_full")
	waits(again, "disk_full")
	restart(func(o *server.Options) { o.Limits.MinWork = 8 << 20 })
	close(free)
	for _, id := range []string{first, second} {
		s.ended(id)
		waits(id, "")
	}
}
