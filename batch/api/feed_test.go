package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
)

// fed is a page of the feed.
type fed struct {
	Data []struct {
		ID   batch.MessageID
		Body json.RawMessage
	}
	Next string
}

func (p fed) ids() (ids []batch.MessageID) {
	for _, e := range p.Data {
		ids = append(ids, e.ID)
	}
	return ids
}

func TestFeed(t *testing.T) {
	w := newWorld(t)
	of := w.store.put(w.tenants[0], 1, 1)
	empty := w.get("/v1/messages/feed").is(200, "")
	if want := `{"data":[],"next":"` + cursorAt(messageFeed, [16]byte{}) + `"}` + "\n"; string(empty.body) != want {
		t.Errorf("empty it is %s, want %s", empty.body, want)
	}
	var want []batch.MessageID
	for range 7 {
		want = append(want, w.store.putMessage(w.tenants[0], of))
		w.store.putMessage(w.tenants[1], of)
	}

	t.Run("shows what it has to say and the very bytes of the body", func(t *testing.T) {
		m := w.store.messages[want[0]]
		got := w.get("/v1/messages/feed?limit=1").is(200, "")
		want := `{"data":[{"id":"` + m.ID.String() + `","type":"batch.completed","created_at":"` + batch.FormatTime(m.Created) + `",` +
			`"body":{"type":"batch.completed", "data":{"results":[{"output":"<\u00e9>"}]}}}],"next":"` + cursorAt(messageFeed, m.ID) + `"}` + "\n"
		if diff := cmp.Diff(want, string(got.body)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("walks oldest first, each message once, and stays at its end", func(t *testing.T) {
		for _, limit := range []int{1, 3, 200} {
			var got []batch.MessageID
			path := fmt.Sprintf("/v1/messages/feed?limit=%d", limit)
			for after := ""; ; {
				var p fed
				w.get(path+after).is(200, "").decode(&p)
				if after = "&after=" + p.Next; len(p.Data) == 0 {
					var again fed
					w.get(path+after).is(200, "").decode(&again)
					if again.Next != p.Next {
						t.Errorf("at the end next moves from %s to %s", p.Next, again.Next)
					}
					break
				}
				got = append(got, p.ids()...)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("limit %d: %s", limit, diff)
			}
		}
	})
	t.Run("shows a message whatever became of it", func(t *testing.T) {
		w.store.changeMessage(want[0], func(m *fakeMessage) { m.State = batch.MessageDelivered })
		w.store.changeMessage(want[1], func(m *fakeMessage) { m.State = batch.MessagePulled })
		var p fed
		w.get("/v1/messages/feed").is(200, "").decode(&p)
		if diff := cmp.Diff(want, p.ids()); diff != "" {
			t.Error(diff)
		}
	})
	for query, code := range map[string]string{
		"after=": "bad_after", "after=0": "bad_after", "after=x": "bad_after", "after=" + cursorAt(messageFeed, [16]byte{1})[:20]: "bad_after",
		"after=" + cursorAt(messageList, want[0]): "bad_after", "after=" + want[0].String(): "bad_after",
		"wait=-1": "bad_wait", "wait=": "bad_wait", "wait=1s": "bad_wait", "wait=1.5": "bad_wait", "limit=0": "bad_limit",
		"cursor=" + cursorAt(messageFeed, [16]byte{1}): "unknown_parameter", "status=pulled": "unknown_parameter", "wait=1&wait=2": "repeated_parameter",
	} {
		t.Run(query+" is refused", func(t *testing.T) { w.get("/v1/messages/feed?"+query).is(400, code) })
	}
	t.Run("is no message and takes no POST", func(t *testing.T) {
		if got := w.do("POST", "/v1/messages/feed", w.admin(), "").is(405, "method_not_allowed").header.Get("Allow"); got != "GET, HEAD" {
			t.Errorf("Allow is %q", got)
		}
	})
}

// waiting asks for the feed over a connection in memory and returns what comes
// of it.
func waiting(t *testing.T, w *world, c net.Conn, query, body string) <-chan reply {
	t.Helper()
	fmt.Fprintf(c, "GET /v1/messages/feed?%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\nAuthorization: Bearer %s\r\n\r\n%s",
		query, len(body), w.admin(), body)
	answers := make(chan reply, 1)
	go func() {
		defer close(answers)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return
		}
		got, err := io.ReadAll(res.Body)
		if err == nil {
			answers <- reply{t, res.StatusCode, res.Header, got}
		}
	}()
	return answers
}

func TestWaitingForTheFeed(t *testing.T) {
	post := func(w *world) batch.MessageID {
		return w.store.putMessage(w.tenants[0], w.store.put(w.tenants[0], 1, 1))
	}
	// ends fails the test unless the wait is answered with these messages.
	ends := func(t *testing.T, answers <-chan reply, want ...batch.MessageID) reply {
		t.Helper()
		r, ok := <-answers
		if !ok {
			t.Fatal("there was no answer")
		}
		var p fed
		r.is(200, "").decode(&p)
		if diff := cmp.Diff(want, p.ids()); diff != "" {
			t.Error(diff)
		}
		return r
	}
	inMemory(t, "ends with the wait", func(t *testing.T, w *world, dial func() net.Conn) {
		start := time.Now()
		ends(t, waiting(t, w, dial(), "wait=7", ""))
		if took := time.Since(start); took < 7*time.Second || took > 8*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	inMemory(t, "ends within a minute", func(t *testing.T, w *world, dial func() net.Conn) {
		start := time.Now()
		ends(t, waiting(t, w, dial(), "wait=99999999999999999999", ""))
		if took := time.Since(start); took < time.Minute || took > 61*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	inMemory(t, "ends with a message", func(t *testing.T, w *world, dial func() net.Conn) {
		start := time.Now()
		answers := waiting(t, w, dial(), "wait=60", "")
		time.Sleep(20 * time.Second)
		ends(t, answers, post(w))
		if took := time.Since(start); took > 21*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	inMemory(t, "needs no wait where there is one", func(t *testing.T, w *world, dial func() net.Conn) {
		start, id := time.Now(), post(w)
		ends(t, waiting(t, w, dial(), "wait=60", ""), id)
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %s", took)
		}
	})
	inMemory(t, "needs no hint", func(t *testing.T, w *world, dial func() net.Conn) {
		w.store.deaf = true
		answers := waiting(t, w, dial(), "wait=60", "")
		time.Sleep(20 * time.Second)
		start := time.Now()
		ends(t, answers, post(w))
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	inMemory(t, "looks rarely, however much others are sent", func(t *testing.T, w *world, dial func() net.Conn) {
		answers := waiting(t, w, dial(), "wait=10", "")
		of := w.store.put(w.tenants[1], 1, 1)
		for range 2000 {
			time.Sleep(5 * time.Millisecond)
			w.store.putMessage(w.tenants[1], of)
		}
		ends(t, answers)
		if w.store.looks > 250 {
			t.Errorf("it looked %d times in 10 s", w.store.looks)
		}
	})
	inMemory(t, "goes on when the client's patience for bodies is over", func(t *testing.T, w *world, dial func() net.Conn) {
		answers := waiting(t, w, dial(), "wait=60", "{}")
		time.Sleep(50 * time.Second)
		ends(t, answers, post(w))
	}, func(o *Options) { o.Patience = time.Second })
	inMemory(t, "ends with the client", func(t *testing.T, w *world, dial func() net.Conn) {
		c := dial()
		answers := waiting(t, w, c, "wait=60", "")
		time.Sleep(time.Second)
		c.Close()
		<-answers
		synctest.Wait()
		w.store.looks = 0
		time.Sleep(10 * time.Second)
		if w.store.looks > 0 {
			t.Errorf("it looked %d times more", w.store.looks)
		}
	})

	stopping := make(chan struct{})
	inMemory(t, "ends at once when the server stops, and says to come later", func(t *testing.T, w *world, dial func() net.Conn) {
		start := time.Now()
		var all []<-chan reply
		for range 3 {
			all = append(all, waiting(t, w, dial(), "wait=60", ""))
		}
		time.Sleep(5 * time.Second)
		close(stopping)
		all = append(all, waiting(t, w, dial(), "wait=60", ""))
		for _, answers := range all {
			if r := ends(t, answers); r.header.Get("Retry-After") == "" {
				t.Errorf("the header is %v", r.header)
			}
		}
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("it took %s", took)
		}
		id := post(w)
		if r := ends(t, waiting(t, w, dial(), "wait=60", ""), id); r.header.Get("Retry-After") != "" {
			t.Errorf("with a message the header is %v", r.header)
		}
	}, func(o *Options) {
		stopping = make(chan struct{}) // in the bubble
		o.Stopping = stopping
	})
}

func TestManyWaitForOneMessage(t *testing.T) {
	w := newWorld(t)
	of := w.store.put(w.tenants[0], 1, 1)
	var waiters sync.WaitGroup
	got := make([]fed, 16)
	for i := range got {
		waiters.Go(func() { w.get("/v1/messages/feed?wait=60").is(200, "").decode(&got[i]) })
	}
	id := w.store.putMessage(w.tenants[0], of)
	waiters.Wait()
	for _, p := range got {
		if diff := cmp.Diff([]batch.MessageID{id}, p.ids()); diff != "" {
			t.Error(diff)
		}
	}
}
