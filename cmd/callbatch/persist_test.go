package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbatch/callbatch/batch/client"
)

func TestPersist(t *testing.T) {
	broken := &client.Unreachable{URL: "http://x", Unknown: true, Err: errors.New("EOF")}
	absent := &client.Unreachable{URL: "http://x", Err: errors.New("connection refused")}
	busy := &client.Error{Status: 503, Code: "unavailable", RetryAfter: 20 * time.Second}
	receiving := &client.Error{Status: 409, Code: "idempotency_in_progress"}
	conflict := &client.Error{Status: 409, Code: "wrong_state"}
	for _, tt := range []struct {
		name    string
		answers []error // the last for ever
		calls   int
		want    error
		atLeast time.Duration
		atMost  time.Duration
	}{
		{"an answer is an answer", []error{nil}, 1, nil, 0, 0},
		{"a refusal too", []error{conflict}, 1, conflict, 0, 0},
		{"a server that was never there is told at once", []error{absent}, 1, absent, 0, 0},
		{"so is one that has no time", []error{busy}, 1, busy, 0, 0},
		{"a connection that broke is made anew", []error{broken, nil}, 2, nil, 0, 0},
		{"also while the server starts, and has not noticed", []error{broken, absent, busy, receiving, nil}, 5, nil, 20 * time.Second, 25 * time.Second},
		{"what it is then refused with is the answer", []error{broken, conflict}, 2, conflict, 0, 0},
		{"but not for ever", []error{broken}, 0, broken, persistence, persistence + 10*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				begun, calls := time.Now(), 0
				_, err := persist(t.Context(), &world{stderr: &log}, func() (int, error) {
					calls++
					return 0, tt.answers[min(calls, len(tt.answers))-1]
				})
				took := time.Since(begun)
				if !errors.Is(err, tt.want) || tt.calls > 0 && calls != tt.calls || took < tt.atLeast || took > tt.atMost {
					t.Errorf("%v after %d calls and %s", err, calls, took)
				}
				if said := strings.Count(log.String(), "trying again"); (said == 1) != (calls > 1) {
					t.Errorf("it says %q", &log)
				}
			})
		})
	}

	t.Run("whoever gives up is not kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errWaited)
			defer cancel()
			_, err := persist(ctx, &world{stderr: new(bytes.Buffer)}, func() (int, error) { return 0, broken })
			if !errors.Is(err, errWaited) {
				t.Errorf("%v", err)
			}
		})
	})
	t.Run("a server that talks for a while and breaks off is not given up for what was before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begun, calls := time.Now(), 0
			_, err := endure(t.Context(), persistence, func(error) {}, func() (int, error) {
				if calls++; calls == 5 {
					return 0, nil
				}
				time.Sleep(persistence)
				return 0, broken
			})
			if err != nil || time.Since(begun) < 4*persistence {
				t.Errorf("%v after %d calls and %s", err, calls, time.Since(begun))
			}
		})
	})
}
