package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbatch/callbatch/callback/signature"
)

// A listener is a callbatch listen that runs inside the test.
type listener struct {
	t     *testing.T
	url   string
	lines <-chan string // what it shows
}

// newListener starts one that is stopped, well, at the end of the test.
func newListener(t *testing.T, env []string, args ...string) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stdout, stdin := io.Pipe()
	stderr, log := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		code := run(ctx, append([]string{"listen", "--listen", "127.0.0.1:0"}, args...), env, strings.NewReader(""), stdin, log)
		stdin.Close()
		log.Close()
		ended <- code
	}()
	lines, urls := make(chan string, 100), make(chan string, 1)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			lines <- s.Text()
		}
	}()
	go func() {
		defer close(urls)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			if url, ok := strings.CutPrefix(s.Text(), "callback_url: "); ok {
				urls <- url
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != 0 {
			t.Errorf("listen ended with %d", code)
		}
		for line := range lines {
			t.Errorf("listen showed a line that nobody expected: %s", line)
		}
	})
	url, ok := <-urls
	if !ok {
		t.Fatal("listen did not say where it listens")
	}
	return &listener{t: t, url: url, lines: lines}
}

// shows waits for a line, and for it to match.
func (l *listener) shows(pattern string) string {
	l.t.Helper()
	select {
	case line := <-l.lines:
		if !regexp.MustCompile(pattern).MatchString(line) {
			l.t.Errorf("it showed\n%s\nwhich does not match\n%s", line, pattern)
		}
		return line
	case <-time.After(scriptPatience):
		l.t.Fatal("it shows nothing")
		return ""
	}
}

// post sends a webhook and returns how it was answered.
func (l *listener) post(id string, attempt int, secret signature.Secret, body string) int {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), http.MethodPost, l.url, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	now := time.Now()
	req.Header.Set("content-type", "application/json")
	req.Header.Set("callbatch-attempt", strconv.Itoa(attempt))
	req.Header.Set(signature.HeaderID, id)
	req.Header.Set(signature.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(signature.HeaderSignature, signature.Sign(id, now, []byte(body), secret))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// answers posts a webhook that has to be answered so.
func (l *listener) answers(want int, id string, attempt int, secret signature.Secret, body string) {
	l.t.Helper()
	if got := l.post(id, attempt, secret, body); got != want {
		l.t.Errorf("%s was answered with %d, want %d", id, got, want)
	}
}

const (
	resultsEvent = `{"type":"batch.results","data":{"batch_id":"bat_1","results":[{"index":4},{"index":5}]}}`
	endEvent     = `{"type":"batch.completed","data":{"batch_id":"bat_1","status":"completed","counts":{"total":3,"succeeded":2,"failed":1}}}`
)

func TestListen(t *testing.T) {
	ours, old, stranger := signature.NewSecret(), signature.NewSecret(), signature.NewSecret()
	held := []string{"CALLBATCH_SECRET=" + ours.Reveal() + " " + old.Reveal()}

	t.Run("a line tells of each webhook", func(t *testing.T) {
		l := newListener(t, held)
		l.answers(204, "msg_1", 1, ours, resultsEvent)
		l.shows(`^\d\d:\d\d:\d\d  204  batch\.results    bat_1 +try 1  2 results, 4 to 5$`)
		l.answers(204, "msg_2", 3, old, endEvent)
		l.shows(`204  batch\.completed  bat_1 +try 3  completed: 2 succeeded, 1 failed`)
		l.answers(204, "msg_3", 1, ours, `not JSON`)
		l.shows(`204 .*8 bytes$`)
		l.answers(401, "msg_4", 1, stranger, endEvent)
		l.shows(`401  msg_4  no signature matches$`)
	})

	t.Run("it notices what comes again", func(t *testing.T) {
		l := newListener(t, held)
		l.answers(401, "msg_1", 1, stranger, endEvent)
		l.shows(`401`)
		l.answers(204, "msg_1", 1, ours, endEvent)
		l.shows(`failed +$`)
		l.answers(204, "msg_1", 2, ours, endEvent)
		l.shows(`try 2 .* acknowledged before: a receiver drops it$`)
	})

	t.Run("what strangers send does nothing to the terminal", func(t *testing.T) {
		l := newListener(t, held, "--skip-verify")
		l.answers(204, "m", 1, stranger, `{"type":"\u001b]0;x\u0007\n`+"\u009b"+`31m","data":{"batch_id":"`+strings.Repeat("x", 5000)+`"}}`)
		if line := l.shows(`\x{fffd}\]0;x\x{fffd}\x{fffd}\x{fffd}31m`); strings.ContainsAny(line, "\x1b\a\u009b") || len(line) > 1000 {
			t.Errorf("it showed %q", line)
		}
	})

	t.Run("as JSON there is the whole event", func(t *testing.T) {
		l := newListener(t, held, "--output", "json")
		const event = "{\"type\":\"batch.results\",\n \"data\":{\"batch_id\":\"bat_1\",\"results\":[{\"output\":\"<\u009b\u202e\U000e0001é>\"}]}}"
		l.answers(204, "msg_1", 1, ours, event)
		line := l.shows(`"received_at":"[^"]*\.\d{3}Z","webhook_id":"msg_1","attempt":1,"again":false,"status":204,"note":null,"event":\{"type":"batch.results","data":.*"<\\u009b\\u202e\\udb40\\udc01é>"`)
		var got struct {
			Event struct {
				Data struct{ Results []struct{ Output string } }
			}
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil || got.Event.Data.Results[0].Output != "<\u009b\u202e\U000e0001é>" {
			t.Errorf("the event became %+v (%v)", got, err)
		}
		l.answers(204, "msg_1", 2, ours, event)
		l.shows(`"attempt":2,"again":true,`)
		l.answers(401, "msg_2", 1, stranger, event)
		l.shows(`"status":401,"note":"no signature matches","event":null`)
		l.answers(204, "msg_3", 1, ours, "no JSON")
		l.shows(`"status":204,"note":null,"event":null`)
	})

	t.Run("what fits is passed on, and answered so", func(t *testing.T) {
		var calls atomic.Int32
		target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if err := signature.Verify(r.Header, body, time.Now(), 0, ours); err != nil {
				t.Errorf("the target cannot verify it: %v", err)
			}
			if calls.Add(1) == 1 {
				w.WriteHeader(http.StatusTeapot)
			}
		}))
		l := newListener(t, held, "--forward-to", target.URL)
		l.answers(401, "msg_1", 1, stranger, endEvent)
		l.shows(`401`)
		l.answers(418, "msg_1", 1, ours, endEvent)
		l.shows(`418 .*completed: `)
		l.answers(200, "msg_1", 2, ours, endEvent)
		l.shows(`200 .*try 2 .*here again$`)
		target.Close()
		l.answers(502, "msg_2", 1, ours, endEvent)
		l.shows(`502 .*--forward-to: .*refused$`)
		if n := calls.Load(); n != 2 {
			t.Errorf("the target was called %d times, want 2", n)
		}
	})

	t.Run("a share is turned away before it is passed on", func(t *testing.T) {
		target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Error("it was passed on")
		}))
		defer target.Close()
		l := newListener(t, held, "--forward-to", target.URL, "--fail-rate", "1")
		l.answers(401, "msg_1", 1, stranger, endEvent)
		l.shows(`401`)
		l.answers(503, "msg_1", 1, ours, endEvent)
		l.shows(`503 .*turned away by --fail-rate$`)
		l.answers(503, "msg_1", 2, ours, endEvent)
		l.shows(`503 .*turned away by --fail-rate  here again$`)
	})

	t.Run("a share is neither none nor all", func(t *testing.T) {
		l := newListener(t, held, "--fail-rate", "0.5")
		var got []int
		for i := range 64 { // all alike once in 2^63 runs
			got = append(got, l.post(fmt.Sprint(i), 1, ours, endEvent))
			l.shows(`204|503`)
		}
		if !slices.Contains(got, 204) || !slices.Contains(got, 503) {
			t.Errorf("all were answered with %d", got[0])
		}
	})

	t.Run("the server is asked for a secret that nobody gave", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/callbacks/secret" || r.Header.Get("Authorization") != "Bearer key" {
				t.Errorf("asked for %s with %q", r.URL, r.Header.Get("Authorization"))
			}
			fmt.Fprintf(w, `{"secret":%q}`, ours.Reveal())
		}))
		defer server.Close()
		l := newListener(t, []string{"CALLBATCH_URL=" + server.URL, "CALLBATCH_KEY=key"})
		l.answers(204, "msg_1", 1, ours, endEvent)
		l.shows(`204`)
		l.answers(401, "msg_2", 1, stranger, endEvent)
		l.shows(`401`)
	})

	t.Run("a secret that was rotated is fetched anew", func(t *testing.T) {
		var current atomic.Value
		current.Store(ours)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"secret":%q}`, current.Load().(signature.Secret).Reveal())
		}))
		defer server.Close()
		l := newListener(t, []string{"CALLBATCH_URL=" + server.URL})
		l.answers(401, "msg_1", 1, stranger, endEvent)
		l.shows(`401`)
		current.Store(signature.NewSecret())
		l.answers(204, "msg_2", 1, current.Load().(signature.Secret), endEvent)
		l.shows(`204`)
		l.answers(204, "msg_3", 1, ours, endEvent) // signed before
		l.shows(`204`)
		l.answers(401, "msg_4", 1, stranger, endEvent)
		l.shows(`401`)
	})

	t.Run("only webhooks are taken", func(t *testing.T) {
		l := newListener(t, held)
		res, err := http.Get(l.url)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != http.MethodPost {
			t.Errorf("a GET is answered with %s, Allow %q", res.Status, res.Header.Get("Allow"))
		}
		l.answers(400, "msg_1", 1, ours, strings.Repeat(" ", mostWebhook+1))
	})
}

func TestListenRefusesWhatCannotWork(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	secret := "CALLBATCH_SECRET=" + signature.NewSecret().Reveal()
	for name, tt := range map[string]struct {
		env  string
		args []string
		code int
		says string
	}{
		"an address that is none":   {secret, []string{"--listen", "9000"}, 2, `--listen must look like`},
		"an address that is taken":  {secret, []string{"--listen", taken.Addr().String()}, 1, "--listen chooses another"},
		"a share of more than all":  {secret, []string{"--fail-rate", "30"}, 2, "a share from 0 to 1"},
		"a share that is no number": {secret, []string{"--fail-rate", "NaN"}, 2, "a share from 0 to 1"},
		"a target that is none":     {secret, []string{"--forward-to", "localhost:3000"}, 2, "--forward-to must look like"},
		"a secret for nothing":      {"", []string{"--skip-verify", "--secret", "x"}, 2, "--skip-verify needs no secret"},
		"a secret that is none":     {"CALLBATCH_SECRET=hush", nil, 2, "CALLBATCH_SECRET: secret 1 of 1: not a webhook secret: it does not begin with whsec_"},
		"a server that is gone":     {"CALLBATCH_URL=" + gone.URL, nil, 69, "ask the server for the secret"},
		"an argument":               {secret, []string{"9000"}, 2, "usage: callbatch listen"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			code := run(t.Context(), append([]string{"listen"}, tt.args...), []string{tt.env}, strings.NewReader(""), &stdout, &stderr)
			if code != tt.code || !strings.Contains(stderr.String(), tt.says) || stdout.Len() > 0 {
				t.Errorf("code %d, %q, %q; want %d, saying %q", code, stderr.String(), stdout.String(), tt.code, tt.says)
			}
		})
	}
}

func TestListenKnowsItself(t *testing.T) {
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9000}
	everywhere := &net.TCPAddr{IP: net.IPv6unspecified, Port: 9000}
	for _, tt := range []struct {
		host, port string
		we         *net.TCPAddr
		want       bool
	}{
		{"127.0.0.1", "9000", loopback, true},
		{"localhost", "9000", loopback, true},
		{"::1", "9000", everywhere, true},
		{"127.0.0.1", "9001", loopback, false},
		{"192.0.2.1", "9000", loopback, false},
		{"receiver.test", "9000", everywhere, false},
	} {
		if got := isSelf(tt.host, tt.port, tt.we); got != tt.want {
			t.Errorf("isSelf(%s, %s, %s) = %v", tt.host, tt.port, tt.we, got)
		}
	}
}
