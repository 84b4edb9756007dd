package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
)

// ask sends a request without a body over a connection in memory and returns
// the answer, whose body may still come. headers are given in pairs.
func (w *world) ask(c net.Conn, method, path string, headers ...string) *http.Response {
	w.t.Helper()
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n", method, path, w.admin())
	for i := 0; i < len(headers); i += 2 {
		fmt.Fprintf(c, "%s: %s\r\n", headers[i], headers[i+1])
	}
	io.WriteString(c, "\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// asked is ask, for an answer that is read to its end.
func (w *world) asked(c net.Conn, method, path string, headers ...string) reply {
	w.t.Helper()
	res := w.ask(c, method, path, headers...)
	got, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{w.t, res.StatusCode, res.Header, got}
}

// later has something done after a while. It returns how long what follows
// takes.
func later(d time.Duration, do func()) (took func() time.Duration) {
	start := time.Now()
	if do != nil {
		time.AfterFunc(d, do)
	}
	return func() time.Duration { return time.Since(start) }
}

// finish ends some of the items of a batch.
func (w *world) finish(id batch.ID, items ...int) {
	w.store.change(id, func(b *fakeBatch) {
		for _, i := range items {
			b.finish(i, batch.ItemSucceeded, "1")
		}
	})
}

func pathOf(id batch.ID) string { return "/v1/batches/" + id.String() }

func TestWaitingForABatch(t *testing.T) {
	// about fails the test unless a wait took so long, and little more.
	about := func(t *testing.T, took, want time.Duration) {
		t.Helper()
		if took < want || took > want+300*time.Millisecond {
			t.Errorf("it took %s, want %s", took, want)
		}
	}
	status := func(r reply) string {
		var b struct{ Status string }
		r.decode(&b)
		return b.Status
	}
	inMemory(t, "ends with the batch", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 2, 0)
		time.AfterFunc(10*time.Second, func() { w.finish(id, 0) })
		took := later(30*time.Second, func() { w.finish(id, 1) })
		r := w.asked(dial(), "GET", pathOf(id), "Prefer", "wait=60").is(200, "")
		about(t, took(), 30*time.Second)
		if status(r) != "completed" || r.header.Get("Preference-Applied") != "wait=60" || r.header.Get("Retry-After") != "" {
			t.Errorf("%v %s", r.header, r.body)
		}
	})
	inMemory(t, "ends with a change of what the client knows", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 2, 0)
		c := dial()
		tag := w.asked(c, "GET", pathOf(id)).is(200, "").header.Get("ETag")
		took := later(20*time.Second, func() { w.finish(id, 0) })
		r := w.asked(c, "GET", pathOf(id), "Prefer", "wait=60", "If-None-Match", tag).is(200, "")
		about(t, took(), 20*time.Second)
		if now := r.header.Get("ETag"); status(r) != "running" || now == tag || now == "" {
			t.Errorf("%v %s", r.header, r.body)
		}
	})
	inMemory(t, "sees a change that comes too soon for a tag of its own", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 2, 0)
		c := dial()
		tag := w.asked(c, "GET", pathOf(id)).header.Get("ETag")
		took := later(time.Millisecond, func() { w.finish(id, 0) })
		w.asked(c, "GET", pathOf(id), "Prefer", "wait=60", "If-None-Match", tag).is(200, "")
		about(t, took(), tagPause)
	})
	inMemory(t, "sees the end at once, however soon it comes", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1, 0)
		took := later(time.Millisecond, func() { w.finish(id, 0) })
		w.asked(dial(), "GET", pathOf(id), "Prefer", "wait=60").is(200, "")
		if took() > 2*time.Millisecond {
			t.Errorf("it took %s", took())
		}
	})
	inMemory(t, "ends when it is over", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1, 0)
		c := dial()
		took := later(0, nil)
		r := w.asked(c, "GET", pathOf(id), "Prefer", "respond-async, wait=7;x=y").is(200, "")
		about(t, took(), 7*time.Second)
		took = later(0, nil)
		w.asked(c, "GET", pathOf(id), "Prefer", `Wait="3"`, "If-None-Match", r.header.Get("ETag")).is(304, "")
		about(t, took(), 3*time.Second)
		took = later(0, nil)
		if got := w.asked(c, "HEAD", pathOf(id), "Prefer", "wait=99999999").is(200, "").header.Get("Preference-Applied"); got != "wait=60" {
			t.Errorf("%q is applied", got)
		}
		about(t, took(), time.Minute)
	})
	inMemory(t, "is none where there is nothing to wait for", func(t *testing.T, w *world, dial func() net.Conn) {
		done, running := w.store.put(w.tenants[0], 1, 1), w.store.put(w.tenants[0], 1, 0)
		c, took := dial(), later(0, nil)
		w.asked(c, "GET", pathOf(done), "Prefer", "wait=60").is(200, "")
		w.asked(c, "GET", pathOf(running), "Prefer", "wait=60", "If-None-Match", `W/"x"`).is(200, "")
		w.asked(c, "GET", pathOf(w.store.put(w.tenants[1], 1, 0)), "Prefer", "wait=60").is(404, "not_found")
		if took() > 0 {
			t.Errorf("it took %s", took())
		}
	})
	inMemory(t, "is none where nobody understands the wish", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1, 0)
		c, took := dial(), later(0, nil)
		for _, wish := range []string{"wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "wait=5s", "wait=99999999999999999999", "respond-async", "xwait=5", ""} {
			r := w.asked(c, "GET", pathOf(id), "Prefer", wish).is(200, "")
			if _, has := r.header["Preference-Applied"]; has {
				t.Errorf("%q: %v", wish, r.header)
			}
		}
		if took() > 0 {
			t.Errorf("it took %s", took())
		}
	})
	inMemory(t, "needs no hint", func(t *testing.T, w *world, dial func() net.Conn) {
		w.store.deaf = true
		id := w.store.put(w.tenants[0], 1, 0)
		took := later(20*time.Second, func() { w.finish(id, 0) })
		w.asked(dial(), "GET", pathOf(id), "Prefer", "wait=60").is(200, "")
		if took() > 20*time.Second+watchPoll {
			t.Errorf("it took %s", took())
		}
	})
	inMemory(t, "ends with the client", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1, 0)
		c := dial()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nPrefer: wait=60\r\nAuthorization: Bearer %s\r\n\r\n", pathOf(id), w.admin())
		time.Sleep(time.Second)
		c.Close()
		synctest.Wait()
		w.store.reads = 0
		time.Sleep(10 * time.Second)
		if w.store.reads > 0 || w.store.watches.Any() {
			t.Errorf("it looked %d times more", w.store.reads)
		}
	})
	stopping := make(chan struct{})
	inMemory(t, "ends at once when the server stops", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1, 0)
		took := later(5*time.Second, func() { close(stopping) })
		w.asked(dial(), "GET", pathOf(id), "Prefer", "wait=60").is(200, "")
		w.asked(dial(), "GET", pathOf(id), "Prefer", "wait=60").is(200, "")
		about(t, took(), 5*time.Second)
	}, func(o *Options) {
		stopping = make(chan struct{}) // in the bubble
		o.Stopping = stopping
	})
}

func TestSubmittingAndWaiting(t *testing.T) {
	post := func(w *world, c net.Conn, wish string) reply {
		w.t.Helper()
		io.WriteString(c, strings.Replace(posting(w, 4), "\r\n\r\n", "\r\nPrefer: "+wish+"\r\n\r\n1\n2\n", 1))
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		if err != nil {
			w.t.Fatal(err)
		}
		return reply{w.t, res.StatusCode, res.Header, got}
	}
	// all ends every batch there is.
	all := func(w *world) {
		w.store.mu.Lock()
		var ids []batch.ID
		for id := range w.store.batches {
			ids = append(ids, id)
		}
		w.store.mu.Unlock()
		for _, id := range ids {
			w.finish(id, 0, 1)
		}
	}
	inMemory(t, "is answered with the end if it comes in time", func(t *testing.T, w *world, dial func() net.Conn) {
		took := later(9*time.Second, func() { all(w) })
		r := post(w, dial(), "wait=10").is(200, "")
		if took() > 10*time.Second || !strings.Contains(string(r.body), `"status":"completed"`) || r.header.Get("Location") == "" ||
			r.header.Get("Preference-Applied") != "wait=10" || r.header.Get("Retry-After") != "" {
			t.Errorf("after %s: %v %s", took(), r.header, r.body)
		}
	})
	inMemory(t, "is answered as usual if it does not", func(t *testing.T, w *world, dial func() net.Conn) {
		took := later(0, nil)
		r := post(w, dial(), "wait=10").is(202, "")
		if took() < 10*time.Second || r.header.Get("Location") == "" || r.header.Get("Retry-After") == "" || r.header.Get("Preference-Applied") != "wait=10" {
			t.Errorf("after %s: %v %s", took(), r.header, r.body)
		}
		w.kept(1)
	})
	inMemory(t, "is answered as usual where nobody can wait", func(t *testing.T, w *world, dial func() net.Conn) {
		w.crowd(mostWatchers, 0)
		took := later(0, nil)
		post(w, dial(), "wait=10").is(202, "")
		if took() > 0 {
			t.Errorf("it took %s", took())
		}
		w.kept(1)
	})
}

// crowd fills the seats of the first tenant.
func (w *world) crowd(one, all int) {
	s := w.handler.(*server)
	s.seats.mu.Lock()
	defer s.seats.mu.Unlock()
	s.seats.add(w.tenants[0], crowd{one, all})
}

func TestWhoMayWatchIsBounded(t *testing.T) {
	w := newWorld(t)
	id := w.store.put(w.tenants[0], 1, 0)
	other := w.keys[1][access.Read]
	w.crowd(mostWatchers, mostSpectators)
	for _, path := range []string{pathOf(id) + "/events", "/v1/events", pathOf(id) + "/results?follow=true"} {
		if got := w.get(path).is(429, "too_many_watchers").header.Get("Retry-After"); got == "" {
			t.Errorf("%s: no Retry-After", path)
		}
	}
	if r := w.get(pathOf(id), "Prefer", "wait=5").is(429, "too_many_watchers"); r.header.Get("Preference-Applied") != "" {
		t.Errorf("a wait that is refused is said to be applied: %v", r.header)
	}
	w.get(pathOf(id)).is(200, "")
	w.do("GET", pathOf(id)+"/events", other, "").is(404, "not_found")
	w.crowd(-mostWatchers, -mostSpectators)
	for range 3 {
		if _, err := w.handler.(*server).seats.sit(w.tenants[0], true); err != nil {
			t.Error(err)
		}
	}
	w.crowd(0, -3)
	w.get(pathOf(w.store.put(w.tenants[0], 1, 1))+"/results?follow=true").is(200, "")
	if taken := w.handler.(*server).seats.taken; len(taken) > 0 {
		t.Errorf("%v are still taken", taken)
	}
}

// TestManyWatchersLookOnce holds that a change is read and rendered once,
// however many wait for it.
func TestManyWatchersLookOnce(t *testing.T) {
	inMemory(t, "", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 1000, 0)
		tag := w.asked(dial(), "GET", pathOf(id)).header.Get("ETag")
		var done sync.WaitGroup
		var changed atomic.Int32
		for range 300 {
			c := dial()
			done.Go(func() {
				if w.asked(c, "GET", pathOf(id), "Prefer", "wait=60", "If-None-Match", tag).status == 200 {
					changed.Add(1)
				}
			})
		}
		synctest.Wait()
		time.Sleep(time.Second)
		w.store.reads = 0
		w.finish(id, 0)
		done.Wait()
		if changed.Load() != 300 || w.store.reads != 1 {
			t.Errorf("%d saw the change, which was read %d times", changed.Load(), w.store.reads)
		}
	})
}

// drain is where the streams of a benchmark go.
type drain struct {
	header http.Header
	events *atomic.Int64
	bytes  *atomic.Int64
}

func (d *drain) Header() http.Header { return d.header }
func (d *drain) WriteHeader(int)     {}
func (d *drain) FlushError() error   { return nil }
func (d *drain) Write(p []byte) (int, error) {
	if strings.HasPrefix(string(p[:min(3, len(p))]), "id:") {
		d.events.Add(1)
	}
	d.bytes.Add(int64(len(p)))
	return len(p), nil
}

// BenchmarkTenThousandWatchers follows one batch from 10,000 clients while it
// changes a thousand times a second, and gives what a second of that costs.
func BenchmarkTenThousandWatchers(b *testing.B) {
	const clients = 10_000
	store := newFakeStore()
	var tenant batch.TenantID
	id := store.put(tenant, 1<<20, 0)
	stopping := make(chan struct{})
	h := New(Options{Store: store, Stopping: stopping})
	var events, bytes atomic.Int64
	var all sync.WaitGroup
	for range clients {
		r := httptest.NewRequest("GET", "http://localhost"+pathOf(id)+"/events", nil)
		all.Go(func() { h.ServeHTTP(&drain{http.Header{}, &events, &bytes}, r) })
	}
	for events.Load() < clients {
		time.Sleep(time.Millisecond)
	}
	seconds := 0.0
	n := 0
	store.mu.Lock()
	store.reads = 0
	store.mu.Unlock()
	events.Store(0)
	b.ResetTimer()
	for b.Loop() {
		start := time.Now()
		for time.Since(start) < time.Second {
			store.change(id, func(f *fakeBatch) { f.InFlight = n % 1000 })
			n++
			time.Sleep(time.Millisecond)
		}
		seconds += time.Since(start).Seconds()
	}
	b.StopTimer()
	store.mu.Lock()
	b.ReportMetric(float64(store.reads)/seconds, "reads/s")
	store.mu.Unlock()
	b.ReportMetric(float64(events.Load())/seconds, "events/s")
	b.ReportMetric(float64(n)/seconds, "changes/s")
	close(stopping)
	all.Wait()
}
