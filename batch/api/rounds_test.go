package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// over puts a batch of 10 items that has ended; each fifth failed.
func (w *world) over() (batch.ID, string) {
	id := w.store.put(w.tenants[0], 10, 0)
	w.store.change(id, func(b *fakeBatch) {
		for i := range 10 {
			if i%5 == 3 {
				b.finish(i, batch.ItemFailed, `{"code":"timeout","message":"too slow"}`)
			} else {
				b.finish(i, batch.ItemSucceeded, `{"total":6}`)
			}
		}
	})
	return id, "/v1/batches/" + id.String()
}

func TestRetry(t *testing.T) {
	w := newWorld(t)
	retry := func(path, body string) reply {
		t.Helper()
		return w.do("POST", path+"/retry", w.admin(), body, "Content-Type", "application/json")
	}
	t.Run("opens the next round, and its counts fall by what runs again", func(t *testing.T) {
		for body, failed := range map[string]int{`{"from_round":1}`: 0, `{"from_round": 1, "indexes": [3]}`: 1} {
			_, path := w.over()
			r := retry(path, body).is(202, "")
			var b struct {
				Status string
				Round  int
				Counts batch.Counts
			}
			r.decode(&b)
			want := batch.Counts{Total: 10, Pending: 2 - failed, Succeeded: 8, Failed: failed}
			if b.Status != "queued" || b.Round != 2 || b.Counts != want || r.header.Get("Retry-After") == "" {
				t.Errorf("after %s it is %+v", body, b)
			}
			w.get(path+"/results?round=2").is(200, "")
			w.get(path+"/results?round=1&follow=true").is(200, "") // and does not wait for the second
			if got := w.get(path+"/results?round=1", "Accept", "application/json").is(200, ""); !strings.Contains(string(got.body), `"next":null}`) {
				t.Errorf("of the round that is over there may come more: %s", got.body)
			}
			if got := w.get(path+"/results?round=1").is(200, ""); got.header.Get("Callbatch-Incomplete") != "" {
				t.Error("the round that is over is said to be incomplete")
			}
			if got := w.get(path+"/results").is(200, ""); got.header.Get("Callbatch-Incomplete") != "true" {
				t.Error("the round under way is not said to be incomplete")
			}
			retry(path, body).is(409, "wrong_round")
			retry(path, `{"from_round":2}`).is(409, "wrong_state")
		}
	})
	t.Run("hands on what was asked for", func(t *testing.T) {
		id, path := w.over()
		minute := time.Minute
		retry(path, `{"from_round":1,"ids":["b","a"],"indexes":[8,3],"expires_in":"60s"}`).is(202, "")
		got := w.store.retries[len(w.store.retries)-1]
		want := batch.Retry{From: 1, IDs: []string{"b", "a"}, Indexes: []int{8, 3}, ExpiresIn: &minute}
		if got.From != want.From || !slices.Equal(got.IDs, want.IDs) || !slices.Equal(got.Indexes, want.Indexes) || *got.ExpiresIn != minute {
			t.Errorf("it was asked for %+v", got)
		}
		if b := w.store.batches[id]; b.Expires.IsZero() {
			t.Error("it has no deadline")
		}
	})
	t.Run("once for each Idempotency-Key", func(t *testing.T) {
		_, path := w.over()
		again := func(body string) reply {
			return w.do("POST", path+"/retry", w.admin(), body, "Content-Type", "application/json", "Idempotency-Key", "retry-1")
		}
		if r := again(`{"from_round":1,"indexes":[3]}`).is(202, ""); r.header.Get("Idempotent-Replayed") != "" {
			t.Error("the first is said to be a replay")
		}
		if r := again(`{"indexes": [3], "from_round": 1}`).is(202, ""); r.header.Get("Idempotent-Replayed") != "true" || r.header.Get("Location") != path {
			t.Errorf("the same again is answered with %v", r.header)
		}
		again(`{"from_round":1}`).is(422, "idempotency_mismatch")
	})
	_, path := w.over()
	many := strings.Repeat("3,", batch.MaxNamed)
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		``:                                    {400, "empty_body"},
		`[]`:                                  {422, "wrong_type"},
		`{"from_round":1}{}`:                  {400, "invalid_json"},
		`{}`:                                  {422, "required"},
		`{"from_round":"1"}`:                  {422, "wrong_type"},
		`{"from_round":1.5}`:                  {422, "wrong_type"},
		`{"from_round":null}`:                 {422, "wrong_type"},
		`{"from_round":99999999999999999999}`: {422, "wrong_type"},
		`{"from_round":2}`:                    {409, "wrong_round"},
		`{"from_round":1,"from_round":1}`:     {400, "duplicate_member"},
		`{"from_round":1,"indexes":[]}`:       {422, "empty"},
		`{"from_round":1,"ids":[]}`:           {422, "empty"},
		`{"from_round":1,"ids":["a",7]}`:      {422, "wrong_type"},
		`{"from_round":1,"ids":"a"}`:          {422, "wrong_type"},
		`{"from_round":1,"items":[3]}`:        {422, "unknown_member"},
		`{"from_round":1,"indexes":[` + many + `3]}`:    {422, "too_many"},
		`{"from_round":1,"expires_in":"soon"}`:          {422, "bad_duration"},
		`{"from_round":1,"expires_in":"-1s"}`:           {422, "bad_duration"},
		`{"from_round":1,"expires_in":"1ns"}`:           {422, "out_of_range"},
		`{"from_round":1,"expires_in":"876000000000h"}`: {422, "bad_duration"},
		`"` + strings.Repeat("x", mostNames) + `"`:      {413, "body_too_large"},
	} {
		t.Run(fmt.Sprintf("refuses %.60s", body), func(t *testing.T) { retry(path, body).is(want.status, want.code) })
	}
	t.Run("says what each member is", func(t *testing.T) {
		for body, says := range map[string]string{
			`{"from_round":"1"}`: "whole number", `{"from_round":1,"ids":{}}`: "a list", `{"from_round":1,"expires_in":7}`: "a string",
		} {
			if r := retry(path, body); !strings.Contains(string(r.body), says) {
				t.Errorf("%s: %s", body, r.body)
			}
		}
	})
	t.Run("is new work, which a server that takes none refuses", func(t *testing.T) {
		w := newWorld(t, func(o *Options) {
			o.Accepting = func() error { return batch.Refuse(batch.Full, "disk_full", "it is full") }
		})
		_, path := w.over()
		w.do("POST", path+"/retry", w.admin(), `{"from_round":1}`, "Content-Type", "application/json").is(507, "disk_full")
		w.do("DELETE", path, w.admin(), "").is(204, "")
	})
}

func TestDelete(t *testing.T) {
	w := newWorld(t)
	running := "/v1/batches/" + w.store.put(w.tenants[0], 2, 1).String()
	for _, query := range []string{"", "?force=true", "?force=false"} {
		w.do("DELETE", running+query, w.admin(), "").is(409, "wrong_state")
	}
	for _, query := range []string{"?force=", "?force=1", "?force=TRUE"} {
		w.do("DELETE", running+query, w.admin(), "").is(400, "bad_force")
	}
	w.do("DELETE", running+"?hard=true", w.admin(), "").is(400, "unknown_parameter")
	w.do("DELETE", running, w.admin(), `{"force":true}`).is(422, "unexpected_body")
	w.do("DELETE", running, w.keys[0]["read"], "").is(403, "forbidden")

	id, path := w.over()
	w.store.change(id, func(b *fakeBatch) { b.Messages.Waiting = 2 })
	results, _ := w.linksTo(w.tenants[0], id)
	w.do("DELETE", path, w.admin(), "").is(409, "messages_pending")
	if got := w.do("DELETE", path+"?force=true", w.admin(), "").is(204, ""); len(got.body) > 0 {
		t.Errorf("it says %q", got.body)
	}
	w.do("GET", results, "", "").is(410, "gone")
	doc, err := document()
	if err != nil {
		t.Fatal(err)
	}
	for _, rt := range routes() {
		if !strings.HasPrefix(rt.path, "/v1/batches/{id}") {
			continue
		}
		query, body, headers := rt.input()
		w.do(rt.method, rt.at(id)+query, w.admin(), body, headers...).is(410, "gone")
		if doc.Paths.Find(rt.path).GetOperation(rt.method).Responses.Status(410) == nil {
			t.Errorf("%s %s is not documented to answer 410", rt.method, rt.path)
		}
	}
}
