package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbatch/callbatch/batch/client"
)

func TestOutlastWaitsEverLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stderr bytes.Buffer
		w := &world{stderr: &stderr}
		busy := &client.Error{Status: http.StatusTooManyRequests, Detail: "busy\x1b", RetryAfter: 3 * time.Second}
		away := &client.Unreachable{URL: "http://127.0.0.1:1", Err: errors.New("refused")}
		script := []error{busy, away, fmt.Errorf("once more: %w", away), away, away, away, away, away, away, nil}
		start := time.Now()
		n, err := outlast(t.Context(), w, func() (int, error) {
			next := script[0]
			script = script[1:]
			return len(script), next
		})
		const ms = time.Millisecond
		want := 3000*ms + (200+400+800+1600+3200+5000+5000+5000)*ms
		if took := time.Since(start); n != 0 || err != nil || took != want {
			t.Errorf("%d, %v after %s, want %s", n, err, took, want)
		}
		if said := stderr.String(); said != "busy\ufffd; asking again until that is over\n" {
			t.Errorf("it said %q", said)
		}

		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errWaited)
		defer cancel()
		if _, err := outlast(ctx, w, func() (int, error) { return 0, away }); !errors.Is(err, errWaited) {
			t.Errorf("at the end of the time: %v", err)
		}
	})
}

func TestWhatAWaitDoesNotOutlast(t *testing.T) {
	for status, code := range map[int]int{400: exitFailure, 401: exitKey, 403: exitKey, 404: exitNotFound, 500: exitFailure} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, `{"code":"some","detail":"no"}`)
		}))
		var stderr bytes.Buffer
		got := run(t.Context(), []string{"messages", "--feed", "--follow"}, []string{"CALLBATCH_URL=" + s.URL}, nil, io.Discard, &stderr)
		if got != code || stderr.String() == "" {
			t.Errorf("%d: exit code %d, want %d, %s", status, got, code, &stderr)
		}
		s.Close()
	}
}

// TestTheServerRestarts takes a server away from commands that wait for
// something and brings it back at its address, where it is busy first.
func TestTheServerRestarts(t *testing.T) {
	const id = "msg_00000000000000000000000000"
	for name, tt := range map[string]struct {
		args          []string
		before, after string // what the server answers
		query         string // with which it is asked afterwards
		wrote         string
		code          int
	}{
		"while a feed is followed": {
			[]string{"messages", "--feed", "--follow"},
			`{"data":[{"id":"one","type":"t","body":1}],"next":"A"}`, `{"data":[{"id":"two","type":"t","body":2}],"next":"B"}`, "after=A&wait=60",
			"one\ntwo\n", exitKey,
		},
		"while a message is waited for": {
			[]string{"redeliver", id, "--wait", "--timeout", "2m"},
			`{"id":"` + id + `","status":"waiting"}`, `{"id":"` + id + `","status":"delivered"}`, "",
			id + "  delivered\n", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var before atomic.Int32
			waits := make(chan struct{})
			up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				switch before.Add(1) {
				case 1:
					io.WriteString(w, tt.before)
					return
				case 2:
					close(waits)
				}
				panic(http.ErrAbortHandler)
			}))
			defer up.Close()
			address := up.Listener.Addr().String()
			errs, stderr := io.Pipe()
			var stdout bytes.Buffer
			ended := make(chan int, 1)
			go func() {
				ended <- run(t.Context(), tt.args, []string{"CALLBATCH_URL=http://" + address}, nil, &stdout, stderr)
				stderr.Close()
			}()
			var said string
			heard := make(chan struct{})
			go func() {
				defer close(heard)
				b, _ := io.ReadAll(errs)
				said = string(b)
			}()
			select {
			case <-waits:
			case code := <-ended:
				t.Fatalf("it ended with %d", code)
			}
			up.Close()

			var calls atomic.Int32
			again := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch calls.Add(1) {
				case 1:
					w.WriteHeader(http.StatusServiceUnavailable)
				case 2:
					w.Header().Set("Retry-After", "1")
					w.WriteHeader(http.StatusTooManyRequests)
				case 3:
					if r.URL.RawQuery != tt.query {
						t.Errorf("it goes on with %s", r.URL)
					}
					io.WriteString(w, tt.after)
				default:
					w.WriteHeader(http.StatusForbidden)
					io.WriteString(w, `{"code":"forbidden","detail":"no longer"}`)
				}
			}))
			again.Listener.Close()
			again.Listener = listenAgain(t, address)
			again.Start()
			defer again.Close()
			code := <-ended
			<-heard
			if code != tt.code || strings.Count(said, "asking again until that is over\n") != 1 {
				t.Errorf("exit code %d, %s", code, said)
			}
			wrote := stdout.String()
			if tt.query != "" {
				wrote = ""
				for line := range strings.Lines(stdout.String()) {
					wrote += line[len(`{"id":"`):len(`{"id":"one`)] + "\n"
				}
			}
			if wrote != tt.wrote {
				t.Errorf("it wrote %q", wrote)
			}
		})
	}
}

// listenAgain listens where somebody listened a moment ago.
func listenAgain(t *testing.T, address string) net.Listener {
	t.Helper()
	for deadline := time.Now().Add(scriptPatience); ; time.Sleep(10 * time.Millisecond) {
		l, err := net.Listen("tcp", address)
		if err == nil {
			return l
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
