package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
	"github.com/callbatch/callbatch/callback"
	"github.com/callbatch/callbatch/callback/signature"
)

// counter notes how attempts are counted.
type counter struct {
	engine.Metrics
	mu   sync.Mutex
	sent []string
}

func (c *counter) Sent(outcome string, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, outcome)
}

func TestTheLog(t *testing.T) {
	bubble(t, "has one line for each attempt, and nothing secret", func(t *testing.T, m *memory) {
		const token, credential = "t0ps3cret", "Bearer cr3d3ntial"
		key := signature.NewSecret().Reveal()
		m.secrets = []batch.Secret{{Text: key}}
		results := []callback.Result{
			{Verdict: callback.Retry, Status: 503, Category: callback.CategoryStatus, Detail: "503"},
			{Verdict: callback.Retry, Category: callback.CategoryConnect, Detail: "refused"},
			{Verdict: callback.Interrupted, Category: callback.CategoryInterrupted},
			{Verdict: callback.Retry, Category: "nobody knows"},
			{Verdict: callback.Delivered, Status: 200},
			{Verdict: callback.Gone, Status: 410, Category: callback.CategoryStatus, Detail: "410"},
		}
		next := 0
		r := &receiver{answer: func(_ context.Context, msg callback.Message) callback.Result {
			r := results[next%len(results)]
			next++
			r.RequestHeaders = map[string][]string{"Authorization": {msg.Headers["Authorization"]}, "X-Key": {msg.Secrets[0].Reveal()}}
			r.ResponseHeaders = map[string][]string{"X-Echo": {msg.Headers["Authorization"]}}
			r.ResponseBody = []byte(msg.URL)
			return r
		}}
		var log bytes.Buffer
		metrics := &counter{}
		e, stop := start(t, m, engine.Options{
			Sender: r, Metrics: metrics, Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		m.onBody = func(batch.Message) ([]byte, error) {
			if next == 0 && log.Len() == 0 {
				return nil, errors.New("no body")
			}
			return []byte(`{}`), nil
		}
		url := hook + "?token=" + token
		headers := map[string]string{"Authorization": credential}
		id := m.post(url, 1, func(l *letter) { l.headers = headers })[0]
		time.Sleep(time.Hour)
		m.redeliver(id)
		synctest.Wait()
		next = 0
		if _, _, err := e.Test(t.Context(), batch.TenantID{}, url, headers); err != nil {
			t.Fatal(err)
		}
		stop()

		for _, secret := range []string{token, "token=", credential, "cr3d3ntial", key, strings.TrimPrefix(key, "whsec_")} {
			if strings.Contains(log.String(), secret) {
				t.Errorf("%q is in the log:\n%s", secret, &log)
			}
		}
		type line struct {
			Msg, Host, Outcome, State, Reason string
			Attempt                           int
			Retry, Manual                     bool
			Due                               time.Time
		}
		var lines []line
		for text := range strings.Lines(log.String()) {
			var l line
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(l.Msg, "webhook") {
				lines = append(lines, l)
			}
		}
		if len(lines) != 7 {
			t.Fatalf("%d lines:\n%s", len(lines), &log)
		}
		for i, want := range []line{
			{Attempt: 1, Outcome: "status", State: "waiting"},
			{Attempt: 2, Outcome: "connect", State: "waiting", Retry: true},
			{Attempt: 3, Outcome: "interrupted", State: "waiting", Retry: true},
			{Attempt: 3, Outcome: "other", State: "waiting", Retry: true},
			{Attempt: 4, Outcome: "delivered", State: "delivered", Retry: true},
			{Attempt: 5, Outcome: "status", State: "exhausted", Reason: "410", Retry: true, Manual: true},
		} {
			want.Msg, want.Host = "webhook attempt", "shop.example:443"
			got := lines[i]
			if got.Due.IsZero() != (want.State != "waiting") {
				t.Errorf("attempt %d is due %v", got.Attempt, got.Due)
			}
			if got.Due = want.Due; got != want {
				t.Errorf("line %d is %+v, want %+v", i+1, got, want)
			}
		}
		if got := lines[6]; got.Msg != "webhook test" || got.Host != "shop.example:443" || got.Outcome != "status" {
			t.Errorf("the test is %+v", got)
		}
		if want := []string{"status", "connect", "interrupted", "other", "delivered", "status"}; !slices.Equal(metrics.sent, want) {
			t.Errorf("counted %v", metrics.sent)
		}
	})
}
