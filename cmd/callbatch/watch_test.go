package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

// tell sends an event of a batch.
func tell(w http.ResponseWriter, id int, b string) {
	fmt.Fprintf(w, "id: %d\nevent: batch.progress\ndata: %s\n\n", id, b)
	w.(http.Flusher).Flush()
}

func TestWatch(t *testing.T) {
	t.Run("one batch is followed to its end, across a broken connection", func(t *testing.T) {
		var from []string
		env := answering(t, func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/events") {
				io.WriteString(w, aBatch("queued", 1, 0, 0))
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			if from = append(from, r.Header.Get("Last-Event-ID")); len(from) == 1 {
				tell(w, 7, aBatch("running", 1, 1, 0))
				panic(http.ErrAbortHandler)
			}
			tell(w, 8, aBatch("completed", 1, 1, 1))
		})
		stdout, stderr, code := invoke(t, env, "watch", someBatch)
		if code != exitFailedItems || fmt.Sprint(from) != "[ 7]" {
			t.Errorf("exit %d after connections from %q: %s", code, from, stderr)
		}
		for _, want := range []string{"queued", "running", "completed  2 of 2, 1 failed"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("%q is not in\n%s", want, stdout)
			}
		}
		if strings.Count(stdout, "\n") != 3 || !strings.Contains(stderr, "asking again") {
			t.Errorf("it says\n%s%s", stdout, stderr)
		}
	})

	t.Run("all are followed until Ctrl-C, as JSON every change of them", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		env := answering(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/batches" { // whether the server is there
				io.WriteString(w, `{"data":[],"next":null}`)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			tell(w, 1, aBatch("running", 1, 1, 0))
			tell(w, 2, aBatch("completed", 1, 2, 0))
			time.AfterFunc(200*time.Millisecond, cancel)
			<-r.Context().Done()
		})
		var out, log bytes.Buffer
		code := run(ctx, []string{"watch", "--output", "json"}, env, nil, &out, &log)
		if code != 0 || strings.Count(out.String(), "\n") != 2 || !strings.Contains(out.String(), `"status":"completed"`) {
			t.Errorf("exit %d: %s%s", code, &log, &out)
		}
	})

	for _, tt := range []struct {
		args []string
		exit int
	}{
		{[]string{"watch", "bat_x"}, exitUsage},
		{[]string{"watch", someBatch, someBatch}, exitUsage},
		{[]string{"watch", someBatch, "--timeout", "0s"}, exitUsage},
		{[]string{"watch", someBatch}, exitUnreachable},
		{[]string{"watch"}, exitUnreachable},
	} {
		if _, stderr, code := invoke(t, []string{"CALLBATCH_URL=http://127.0.0.1:1"}, tt.args...); code != tt.exit {
			t.Errorf("%q: exit %d, want %d: %s", tt.args, code, tt.exit, stderr)
		}
	}

	t.Run("it can be given up", func(t *testing.T) {
		env := answering(t, func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/events") {
				io.WriteString(w, aBatch("queued", 1, 0, 0))
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			tell(w, 1, aBatch("running", 1, 1, 0))
			<-r.Context().Done()
		})
		if _, stderr, code := invoke(t, env, "watch", someBatch, "--timeout", "100ms"); code != exitTimeout {
			t.Errorf("exit %d: %s", code, stderr)
		}
	})
}

func TestBoard(t *testing.T) {
	rate, eta := 12.5, time.Now().Add(time.Minute)
	running := func(id string, done int) client.Batch {
		return client.Batch{ID: id, Status: "running", Counts: batch.Counts{Total: 10, Succeeded: done, Pending: 10 - done}, Rate: &rate, ETA: &eta}
	}
	t.Run("a terminal has a line for each batch, and those that ended stay above", func(t *testing.T) {
		var out bytes.Buffer
		b := newBoard(&world{}, &out)
		b.screen.lively = true
		ended := running("one", 10)
		ended.Status = "completed"
		for _, now := range []client.Batch{running("one", 5), running("two", 1), ended} {
			if err := b.show(now); err != nil {
				t.Fatal(err)
			}
		}
		draws := strings.Split(out.String(), "\r\x1b[J")[1:]
		if len(draws) != 3 || strings.Count(draws[1], "\n") != 2 || !strings.HasSuffix(draws[1], "\x1b[2A") {
			t.Fatalf("it drew %q", draws)
		}
		if lines := strings.Split(draws[2], "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "one") || !strings.HasPrefix(lines[1], "two") || b.drawn != 1 {
			t.Errorf("the last is %q", lines)
		}
		for _, line := range strings.Split(draws[1], "\n") {
			if plain := strings.NewReplacer("\x1b[1m", "", "\x1b[2m", "", "\x1b[0m", "", "\x1b[2A", "").Replace(line); len([]rune(plain)) > 79 {
				t.Errorf("a line has %d characters: %q", len(plain), plain)
			}
		}
	})
	t.Run("more than fit are counted", func(t *testing.T) {
		var out bytes.Buffer
		b := newBoard(&world{}, &out)
		b.screen.lively = true
		for i := range 30 {
			if err := b.show(running(fmt.Sprint(i), 1)); err != nil {
				t.Fatal(err)
			}
		}
		if !strings.HasSuffix(out.String(), "and 8 more\n") || b.drawn != 23 {
			t.Errorf("%d lines stand there: %q", b.drawn, out.String()[len(out.String())-100:])
		}
	})
	t.Run("it says how fast a batch is, and how far", func(t *testing.T) {
		b := running("one", 1)
		b.Counts.Failed, b.WaitingOn, b.Round, b.Callback.Status = 2, "rate_limit", 3, "delivering"
		if got, want := details(b), "3 of 10, 2 failed, 12.5/s, 1m0s left, waiting on rate_limit, round 3, callback delivering"; got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	})
	t.Run("what strangers sent does nothing to it", func(t *testing.T) {
		b := client.Batch{ID: "x\x1b[2J", Status: "a\nb", WaitingOn: "\x07", Counts: batch.Counts{Total: 1}}
		var out bytes.Buffer
		if err := newBoard(&world{}, &out).show(b); err != nil || strings.ContainsAny(strings.TrimSuffix(out.String(), "\n"), "\x1b\x07\n") {
			t.Errorf("%q, %v", &out, err)
		}
	})
	t.Run("a line is written when there is something new, and now and then", func(t *testing.T) {
		said := running("one", 1)
		waits, paused := said, said
		waits.WaitingOn, paused.Status = "rate_limit", "paused"
		for _, tt := range []struct {
			now  client.Batch
			ago  time.Duration
			want bool
		}{
			{said, 4 * time.Second, false},
			{said, 5 * time.Second, true},
			{running("one", 2), time.Second, false},
			{waits, time.Second / 2, false},
			{waits, time.Second, true},
			{paused, 0, true},
		} {
			if got := isNews(said, tt.now, tt.ago); got != tt.want {
				t.Errorf("%s waiting on %q after %s: %t, want %t", tt.now.Status, tt.now.WaitingOn, tt.ago, got, tt.want)
			}
		}
	})
}
