package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
)

// told is an event of a stream, or a comment.
type told struct {
	id, name string
	batch    struct {
		ID     batch.ID
		Status string
		Counts batch.Counts
	}
	comment bool
	at      time.Time
}

// listen reads a stream to its end.
func listen(t *testing.T, res *http.Response) <-chan told {
	t.Helper()
	if kind := res.Header.Get("Content-Type"); res.StatusCode != 200 || kind != "text/event-stream" {
		t.Fatalf("%d %q", res.StatusCode, kind)
	}
	events := make(chan told, 10_000)
	go func() {
		defer close(events)
		var e told
		for in := bufio.NewScanner(res.Body); in.Scan(); {
			field, value, _ := strings.Cut(in.Text(), ": ")
			switch field {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				if err := json.Unmarshal([]byte(value), &e.batch); err != nil {
					t.Errorf("%v in %q", err, value)
				}
			case ":":
				e.comment = true
			case "":
				if e != (told{}) {
					e.at = time.Now()
					events <- e
				}
				e = told{}
			}
		}
	}()
	return events
}

// heard returns what a stream has brought by now.
func heard(events <-chan told) (all []told) {
	synctest.Wait()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return all
			}
			all = append(all, e)
		default:
			return all
		}
	}
}

// lines is what a stream said, an event a line.
func lines(events []told) (all []string) {
	for _, e := range events {
		if e.comment {
			all = append(all, "comment")
		} else {
			all = append(all, fmt.Sprintf("%s %d", e.name, e.batch.Counts.Succeeded))
		}
	}
	return all
}

func said(t *testing.T, events []told, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, lines(events)); diff != "" {
		t.Errorf("the stream says otherwise: %s", diff)
	}
}

func TestFollowingABatch(t *testing.T) {
	inMemory(t, "tells every state, the end, and ends", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 3, 0)
		res := w.ask(dial(), "GET", pathOf(id)+"/events", "Accept-Encoding", "gzip")
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Encoding": ""} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		events := listen(t, res)
		for i := range 3 {
			time.Sleep(time.Second)
			w.finish(id, i)
		}
		var all []told
		ids := map[string]bool{}
		for e := range events {
			all = append(all, e)
			ids[e.id] = true
			if e.batch.ID != id {
				t.Errorf("an event is of %s", e.batch.ID)
			}
		}
		said(t, all, "batch.progress 0", "batch.progress 1", "batch.progress 2", "batch.completed 3")
		if len(ids) != 4 || ids[""] {
			t.Errorf("the ids are %v", ids)
		}
	})
	inMemory(t, "tells at most four a second, and the newest", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 5000, 0)
		events := listen(t, w.ask(dial(), "GET", pathOf(id)+"/events"))
		for i := range 2000 {
			time.Sleep(time.Millisecond)
			w.finish(id, i)
		}
		time.Sleep(tagPause)
		all := heard(events)
		if n := len(all); n < 8 || n > 11 || all[n-1].batch.Counts.Succeeded != 2000 {
			t.Errorf("%d events in two seconds: %q", n, lines(all))
		}
		for i := 1; i < len(all); i++ {
			if apart := all[i].at.Sub(all[i-1].at); apart < tagPause {
				t.Errorf("two are %s apart", apart)
			}
		}
	})
	inMemory(t, "tells the end at once", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1, 0)
		events := listen(t, w.ask(dial(), "GET", pathOf(id)+"/events"))
		time.Sleep(time.Millisecond)
		w.finish(id, 0)
		said(t, heard(events), "batch.progress 0", "batch.completed 1")
	})
	inMemory(t, "of one that is over tells just that", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1, 1)
		events := listen(t, w.ask(dial(), "GET", pathOf(id)+"/events"))
		all := heard(events)
		said(t, all, "batch.completed 1")
		r := w.asked(dial(), "GET", pathOf(id)+"/events", "Last-Event-ID", all[0].id)
		if r.status != 204 {
			t.Errorf("who has got it is answered %d", r.status)
		}
	})
	inMemory(t, "goes on after the last event, also at another server", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 3, 1)
		c := dial()
		all := heard(listen(t, w.ask(c, "GET", pathOf(id)+"/events")))
		said(t, all, "batch.progress 1")
		c.Close()
		time.Sleep(time.Second)
		events := listen(t, w.ask(dial(), "GET", pathOf(id)+"/events", "Last-Event-ID", all[0].id))
		if again := heard(events); len(again) > 0 {
			t.Errorf("it tells again %q", lines(again))
		}
		time.Sleep(time.Second)
		w.finish(id, 1)
		said(t, heard(events), "batch.progress 2")

		w.handler.(*server).tags = tags{} // as after a restart
		said(t, heard(listen(t, w.ask(dial(), "GET", pathOf(id)+"/events", "Last-Event-ID", all[0].id))), "batch.progress 2")
	})
	inMemory(t, "breathes while there is nothing to tell", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1, 0)
		events := listen(t, w.ask(dial(), "GET", pathOf(id)+"/events"))
		time.Sleep(10 * time.Minute)
		if n := len(heard(events)); n < 30 || n > 41 {
			t.Errorf("%d comments and events in ten minutes", n)
		}
		w.finish(id, 0)
		said(t, heard(events), "batch.completed 1")
	}, func(o *Options) { o.Patience = time.Second })
	inMemory(t, "tells that a rate is not known any more", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 9, 1)
		w.store.change(id, func(b *fakeBatch) { b.Rate = 12.345678 })
		events := listen(t, w.ask(dial(), "GET", pathOf(id)+"/events"))
		time.Sleep(time.Second)
		w.store.change(id, func(b *fakeBatch) { b.Rate = 12.2 })
		time.Sleep(time.Second)
		w.store.change(id, func(b *fakeBatch) { b.Rate = 0 })
		time.Sleep(time.Second)
		said(t, heard(events), "batch.progress 1", "batch.progress 1")
	})
	inMemory(t, "lasts an hour at most", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1, 0)
		took := later(0, nil)
		for range listen(t, w.ask(dial(), "GET", pathOf(id)+"/events")) {
		}
		if took() < longestStream || took() > longestStream+time.Second {
			t.Errorf("it lasted %s", took())
		}
	})
	inMemory(t, "ends when the batch is gone", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1, 0)
		events := listen(t, w.ask(dial(), "GET", pathOf(id)+"/events"))
		time.Sleep(time.Second)
		w.store.mu.Lock()
		delete(w.store.batches, id)
		w.store.mu.Unlock()
		for range events {
		}
	})
	inMemory(t, "HEAD shows the header only", func(t *testing.T, w *world, dial func() net.Conn) {
		r := w.asked(dial(), "HEAD", pathOf(w.store.put(w.tenants[0], 1, 0))+"/events").is(200, "")
		if r.header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("%v", r.header)
		}
		w.asked(dial(), "HEAD", "/v1/events").is(200, "")
	})
	var seen observed
	inMemory(t, "gives up who does not read", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 100, 0)
		w.ask(dial(), "GET", pathOf(id)+"/events") // and reads no further
		for i := range 90 {
			w.finish(id, i)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if !seen.has("GET /v1/batches/{id}/events 499") || w.store.watches.Any() {
			t.Errorf("after a minute: %q", seen.all)
		}
	}, func(o *Options) { o.Observe = seen.add })
	stopping := make(chan struct{})
	inMemory(t, "ends when the server stops, which takes no other", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1, 0)
		one, all := listen(t, w.ask(dial(), "GET", pathOf(id)+"/events")), listen(t, w.ask(dial(), "GET", "/v1/events"))
		took := later(0, nil)
		close(stopping)
		for range one {
		}
		for range all {
		}
		if took() > 0 {
			t.Errorf("it took %s", took())
		}
		for _, path := range []string{pathOf(id) + "/events", "/v1/events"} {
			w.asked(dial(), "GET", path).is(503, "draining")
		}
	}, func(o *Options) {
		stopping = make(chan struct{}) // in the bubble
		o.Stopping = stopping
	})
	w := newWorld(t)
	w.get(pathOf(w.store.put(w.tenants[1], 1, 0))+"/events").is(404, "not_found")
	w.get(pathOf(w.store.put(w.tenants[0], 1, 0))+"/events?wait=1").is(400, "unknown_parameter")
}

func TestFollowingAllBatches(t *testing.T) {
	inMemory(t, "begins with what is under way, and goes on with what changes", func(t *testing.T, w *world, dial func() net.Conn) {
		running, done := w.store.put(w.tenants[0], 3, 1), w.store.put(w.tenants[0], 1, 1)
		w.store.put(w.tenants[1], 1, 0)
		events := listen(t, w.ask(dial(), "GET", "/v1/events"))
		all := heard(events)
		said(t, all, "batch.progress 1") // and not what has just ended
		if all[0].batch.ID != running {
			t.Errorf("%s is under way", all[0].batch.ID)
		}
		time.Sleep(time.Second)
		w.finish(running, 1)
		said(t, heard(events), "batch.progress 2")
		time.Sleep(time.Second)
		w.store.change(done, func(b *fakeBatch) { b.Messages.Delivered++ })
		w.finish(running, 2)
		said(t, heard(events), "batch.completed 3")
		time.Sleep(time.Second)
		w.store.change(running, func(b *fakeBatch) { b.Messages.Delivered++ })
		time.Sleep(time.Second)
		said(t, heard(events))
	})
	inMemory(t, "tells at most four a second of a batch, and the newest", func(t *testing.T, w *world, dial func() net.Conn) {
		a, b := w.store.put(w.tenants[0], 5000, 0), w.store.put(w.tenants[0], 5000, 0)
		events := listen(t, w.ask(dial(), "GET", "/v1/events"))
		for i := range 1000 {
			time.Sleep(time.Millisecond)
			w.finish(a, i)
			w.finish(b, i)
		}
		time.Sleep(2 * tagPause)
		last, n := map[batch.ID]int{}, 0
		at := map[batch.ID]time.Time{}
		for _, e := range heard(events) {
			if apart := e.at.Sub(at[e.batch.ID]); apart < tagPause {
				t.Errorf("two are %s apart", apart)
			}
			last[e.batch.ID], at[e.batch.ID] = e.batch.Counts.Succeeded, e.at
			n++
		}
		if n < 10 || n > 14 || last[a] != 1000 || last[b] != 1000 {
			t.Errorf("%d events in a second, at last %v", n, last)
		}
	})
	inMemory(t, "goes on after the last event with what has ended since", func(t *testing.T, w *world, dial func() net.Conn) {
		w.store.pageSize = 2
		w.store.put(w.tenants[0], 7, 7)
		time.Sleep(time.Minute)
		a, b := w.store.put(w.tenants[0], 2, 0), w.store.put(w.tenants[0], 3, 0)
		c := dial()
		events := listen(t, w.ask(c, "GET", "/v1/events"))
		time.Sleep(time.Minute)
		w.finish(b, 0)
		time.Sleep(time.Second)
		all := heard(events)
		c.Close()
		last := all[len(all)-1].id
		time.Sleep(time.Minute)
		w.finish(a, 0, 1)
		w.finish(b, 1)
		time.Sleep(time.Second)
		w.store.put(w.tenants[0], 5, 5)
		time.Sleep(time.Minute)
		c = dial()
		all = heard(listen(t, w.ask(c, "GET", "/v1/events", "Last-Event-ID", last)))
		said(t, all, "batch.completed 2", "batch.completed 5", "batch.progress 2")
		c.Close()
		time.Sleep(time.Minute)
		said(t, heard(listen(t, w.ask(dial(), "GET", "/v1/events", "Last-Event-ID", all[2].id))), "batch.progress 2")
	})
	inMemory(t, "misses no end when too much has changed to be named", func(t *testing.T, w *world, dial func() net.Conn) {
		const many = 9000
		near := dial()
		res := w.ask(near, "GET", "/v1/events") // and does not read for a while
		time.Sleep(time.Second)
		first := w.store.put(w.tenants[0], 1, 0)
		w.finish(first, 0)
		time.Sleep(time.Second)
		ended := map[batch.ID]bool{first: true}
		for range many {
			id := w.store.put(w.tenants[0], 1, 0)
			w.finish(id, 0)
			ended[id] = true
		}
		events := listen(t, res)
		time.Sleep(time.Minute)
		for _, e := range heard(events) {
			if e.name == "batch.completed" {
				delete(ended, e.batch.ID)
			}
		}
		if len(ended) > 0 {
			t.Errorf("of %d ends %d were not told", many+1, len(ended))
		}
	}, func(o *Options) { o.Patience = time.Hour })
	inMemory(t, "breathes while there is nothing to tell", func(t *testing.T, w *world, dial func() net.Conn) {
		events := listen(t, w.ask(dial(), "GET", "/v1/events"))
		time.Sleep(time.Minute)
		if n := len(heard(events)); n < 3 || n > 4 {
			t.Errorf("%d comments in a minute", n)
		}
	})
	w := newWorld(t)
	for _, last := range []string{"x", "-1", "1.5", "8b1a9953c4611296.0", "99999999999999999999"} {
		w.get("/v1/events", "Last-Event-ID", last).is(400, "bad_last_event_id")
	}
	w.get("/v1/events?status=running").is(400, "unknown_parameter")
}

// TestAStreamLeavesNothingBehind reads a few events and goes.
func TestAStreamLeavesNothingBehind(t *testing.T) {
	w := newWorld(t)
	id := w.store.put(w.tenants[0], 1000, 0)
	for n, path := range []string{pathOf(id) + "/events", "/v1/events", pathOf(id) + "/results?follow=true"} {
		req, _ := http.NewRequest("GET", w.server.URL+path, nil)
		req.Header.Set("Authorization", "Bearer "+w.admin())
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		w.finish(id, n)
		if _, err := io.ReadFull(res.Body, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		res.Body.Close()
	}
	for end := time.Now().Add(10 * time.Second); w.store.watches.Any(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("somebody still watches")
		}
	}
}
