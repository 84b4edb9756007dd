package api

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
)

func TestNothingThatChangesIgnoresAnIdempotencyKey(t *testing.T) {
	w := newWorld(t)
	rows := map[string]bool{}
	for _, rt := range routes() {
		rows[rt.method+" "+rt.path] = true
		if rt.method == http.MethodGet {
			continue
		}
		t.Run(rt.method+" "+rt.path, func(t *testing.T) {
			path := rt.at(w.ids(rt, w.tenants[0]))
			word := "unsupported_header"
			if slices.Contains(keyed, rt.method+" "+rt.path) {
				word = "bad_idempotency_key"
			}
			for _, key := range []string{"", "a b", "é", strings.Repeat("k", 257)} {
				w.do(rt.method, path, w.admin(), "", "Idempotency-Key", key).is(400, word)
			}
			w.do(rt.method, path, w.admin(), "", "Idempotency-Key", "k", "Idempotency-Key", "k").is(400, word)
			w.do(rt.method, path, w.keys[0][access.Read], "", "Idempotency-Key", "k").is(403, "forbidden")
		})
	}
	for _, row := range keyed {
		if !rows[row] {
			t.Errorf("%s takes a key and does not exist", row)
		}
	}
	w.do("GET", "/v1/batches", w.admin(), "", "Idempotency-Key", "k").is(200, "")
}

// keyedSubmit posts NDJSON with an Idempotency-Key.
func (w *world) keyedSubmit(idempotencyKey, query, body string) reply {
	w.t.Helper()
	return w.do("POST", "/v1/batches"+query, w.admin(), body, "Content-Type", "application/x-ndjson", "Idempotency-Key", idempotencyKey)
}

func (r reply) replayed() bool { return r.header.Get("Idempotent-Replayed") == "true" }

func TestASubmissionThatComesAgain(t *testing.T) {
	w := newWorld(t)
	const key = `!"k~` // all that is visible
	first := w.keyedSubmit(key, "?processor=price", "1\n2\n").is(202, "")
	if first.replayed() {
		t.Error("the first is said to be replayed")
	}
	var was, is batchView
	first.decode(&was)
	w.store.change(was.ID, func(b *fakeBatch) { b.finish(0, batch.ItemSucceeded, "2") })

	same := func(again reply) {
		t.Helper()
		again.is(202, "").decode(&is)
		if !again.replayed() || is.ID != was.ID || is.Counts.Succeeded != 1 || again.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("the second time it is %s, replayed %v", again.body, again.replayed())
		}
	}
	same(w.keyedSubmit(key, "?processor=price", "1\n2\n"))
	same(w.keyedSubmit(key, "?processor=price&priority=normal&open=false", "\n1\r\n 2"))
	same(w.do("POST", "/v1/batches", w.admin(), `{"items":[1,2],"processor":"price"}`, "Content-Type", "application/json", "Idempotency-Key", key))
	for _, other := range []struct{ query, body string }{
		{"?processor=price", "1\n3\n"}, {"?processor=price", "1\n"}, {"?processor=price&priority=low", "1\n2\n"},
	} {
		w.keyedSubmit(key, other.query, other.body).is(422, "idempotency_mismatch")
	}
	w.do("POST", "/v1/batches?open=true&processor=price", w.admin(), "", "Idempotency-Key", key).is(422, "idempotency_mismatch")
	w.keyedSubmit(key, "?processor=price", "1\n{").is(400, "invalid_json")
	w.keyedSubmit(key, "?processor=price&validate_only=true", "1\n2\n").is(200, "")
	if len(w.store.batches) != 1 {
		t.Errorf("there are %d batches", len(w.store.batches))
	}
	t.Run("another tenant's key is another", func(t *testing.T) {
		b := w.do("POST", "/v1/batches?processor=price", w.keys[1][access.Submit], "1\n2\n", "Content-Type", "application/x-ndjson", "Idempotency-Key", key)
		if b.is(202, ""); b.replayed() {
			t.Error("it was replayed")
		}
	})
	t.Run("a refusal binds nothing", func(t *testing.T) {
		w.keyedSubmit("refused", "?processor=none", "1\n").is(422, "unknown_processor")
		w.keyedSubmit("refused", "?processor=price&validate_only=true", "1\n").is(200, "")
		if w.keyedSubmit("refused", "?processor=price", "1\n").is(202, "").replayed() {
			t.Error("it was replayed")
		}
	})
}

func TestWhileTheFirstIsBeingReceived(t *testing.T) {
	w := newWorld(t)
	body, writer := io.Pipe()
	req, err := http.NewRequest("POST", w.server.URL+"/v1/batches?processor=price", body)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Authorization": "Bearer " + w.admin(), "Content-Type": "application/x-ndjson", "Idempotency-Key": "k"} {
		req.Header.Set(name, value)
	}
	done := make(chan error, 1)
	go func() {
		res, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		done <- err
	}()
	if _, err := writer.Write([]byte("1\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the key is taken", func() bool {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return len(w.store.reserved) == 1
	})
	if r := w.keyedSubmit("k", "?processor=price", "1\n").is(409, "idempotency_in_progress"); r.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
	}
	w.keyedSubmit("other", "?processor=price", "1\n").is(202, "")
	writer.CloseWithError(io.ErrClosedPipe)
	if err := <-done; err == nil {
		t.Fatal("a broken upload was answered")
	}
	eventually(t, "the key is free", func() bool {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return len(w.store.reserved) == 0
	})
	if w.keyedSubmit("k", "?processor=price", "1\n").is(202, "").replayed() {
		t.Error("a broken upload has bound the key")
	}
}

func TestWhileTheFirstWaitsForTheEnd(t *testing.T) {
	w := newWorld(t)
	open := w.store.putOpen(w.tenants[0], 1)
	for path, body := range map[string]string{
		"/v1/batches?processor=price":            "1\n",
		"/v1/batches/" + open.String() + "/seal": `{"parts":1}`,
	} {
		send := func(more ...string) reply {
			kind := "application/json"
			if strings.Contains(path, "?") {
				kind = "application/x-ndjson"
			}
			return w.do("POST", path, w.admin(), body, append(more, "Content-Type", kind, "Idempotency-Key", path)...)
		}
		first := make(chan reply, 1)
		go func() { first <- send("Prefer", "wait=60") }()
		eventually(t, "the key is bound", func() bool {
			w.store.mu.Lock()
			defer w.store.mu.Unlock()
			return len(w.store.bindings) > 0 && len(w.store.reserved) == 0
		})
		again := send().is(202, "")
		var b batchView
		again.decode(&b)
		if !again.replayed() {
			t.Errorf("%s: not replayed: %s", path, again.body)
		}
		w.finish(b.ID, 0)
		(<-first).is(200, "")
		w.store.mu.Lock()
		clear(w.store.bindings)
		w.store.mu.Unlock()
	}
}

func TestOtherCallsThatComeAgain(t *testing.T) {
	w := newWorld(t)
	twice := func(status int, method, path, body string) {
		t.Helper()
		send := func() reply {
			return w.do(method, path, w.admin(), body, "Content-Type", "application/json", "Idempotency-Key", method+path)
		}
		first, again := send().is(status, ""), send().is(status, "")
		if first.replayed() || !again.replayed() || string(first.body) != string(again.body) {
			t.Errorf("%s %s: %v %s and then %v %s", method, path, first.replayed(), first.body, again.replayed(), again.body)
		}
	}
	id := w.store.putOpen(w.tenants[0], 2)
	twice(202, "POST", "/v1/batches/"+id.String()+"/seal", `{"parts":2}`)
	w.do("POST", "/v1/batches/"+id.String()+"/seal", w.admin(), `{"parts":1}`, "Content-Type", "application/json",
		"Idempotency-Key", "POST/v1/batches/"+id.String()+"/seal").is(422, "idempotency_mismatch")
	twice(201, "POST", "/v1/batches?open=true", `{"processor":"price"}`)

	m := w.store.putMessage(w.tenants[0], w.store.put(w.tenants[0], 1, 1))
	twice(202, "POST", "/v1/messages/"+m.String()+"/redeliver", "")
	w.do("POST", "/v1/messages/redeliver", w.admin(), `{"status":"exhausted"}`, "Content-Type", "application/json",
		"Idempotency-Key", "POST/v1/messages/"+m.String()+"/redeliver").is(422, "idempotency_mismatch")
	w.store.changeMessage(m, func(m *fakeMessage) { m.State = batch.MessageExhausted })
	twice(202, "POST", "/v1/messages/redeliver", `{"status":"exhausted"}`)
	if len(w.store.orders) != 1 {
		t.Errorf("%d orders were given", len(w.store.orders))
	}
}

// eventually waits until so says yes.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in time", what)
		}
	}
}
