package api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
)

func TestMessages(t *testing.T) {
	w := newWorld(t)
	of := w.store.put(w.tenants[0], 1, 1)
	id := w.store.putMessage(w.tenants[0], of)
	path := "/v1/messages/" + id.String()

	t.Run("one shows its attempts and the very bytes of its body", func(t *testing.T) {
		r := w.get(path).is(200, "")
		m := w.store.messages[id]
		want := `{"id":"` + id.String() + `","batch_id":"` + of.String() + `","type":"batch.completed","round":1,"status":"waiting",` +
			`"reason":null,"host":"shop.example:443","created_at":"` + batch.FormatTime(m.Created) + `","next_attempt_at":"` + batch.FormatTime(m.Due) + `","attempts_made":1,` +
			`"attempts":[{"number":1,"started_at":"` + batch.FormatTime(m.attempts[0].Started) + `","took_ms":{"dns":1,"connect":0,"tls":0,"first_byte":0,"total":9},` +
			`"remote_addr":"203.0.113.9:443","request_headers":{"Webhook-Signature":"v1,***"},` +
			`"response":{"status":503,"headers":{},"body":"busy","truncated":false},"error":{"category":"status","detail":"503"}}],` +
			`"body":{"type":"batch.completed", "data":{"results":[{"output":"<\u00e9>"}]}}}` + "\n"
		if diff := cmp.Diff(want, string(r.body)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("settled there is no next attempt", func(t *testing.T) {
		m := w.store.messages[id]
		m.State, m.Reason = batch.MessageExhausted, "410 Gone"
		w.store.messages[id] = m
		body := string(w.get(path).is(200, "").body)
		for _, want := range []string{`"next_attempt_at":null`, `"reason":"410 Gone"`, `"status":"exhausted"`} {
			if !strings.Contains(body, want) {
				t.Errorf("no %s in %s", want, body)
			}
		}
	})
	t.Run("a batch lists its own, newest first, page by page", func(t *testing.T) {
		other := w.store.put(w.tenants[0], 1, 1)
		w.store.putMessage(w.tenants[0], other)
		for range 4 {
			w.store.putMessage(w.tenants[0], of)
		}
		var got []string
		for path := "/v1/batches/" + of.String() + "/messages?limit=2"; path != ""; {
			r := w.get(path).is(200, "")
			var p struct {
				Data []struct {
					ID    string
					Batch string `json:"batch_id"`
				}
			}
			r.decode(&p)
			for _, m := range p.Data {
				if m.Batch != of.String() {
					t.Errorf("%s belongs to %s", m.ID, m.Batch)
				}
				got = append(got, m.ID)
			}
			path, _, _ = strings.Cut(strings.TrimPrefix(r.header.Get("Link"), "<"), ">")
		}
		if len(got) != 5 {
			t.Errorf("%d messages: %v", len(got), got)
		}
		for i := range got[1:] {
			if got[i] <= got[i+1] {
				t.Errorf("%v is not newest first", got)
			}
		}
		var p struct{ Data []struct{ ID string } }
		w.get(fmt.Sprintf("/v1/batches/%s/messages?status=exhausted", of)).is(200, "").decode(&p)
		if len(p.Data) != 1 || p.Data[0].ID != id.String() {
			t.Errorf("the exhausted ones are %v", p.Data)
		}
	})
	t.Run("a list is refused what it does not know", func(t *testing.T) {
		list := "/v1/batches/" + of.String() + "/messages"
		w.get(list+"?status=lost").is(400, "bad_status")
		w.get(list+"?host=shop.example").is(400, "unknown_parameter")
		w.get(list+"?cursor="+cursorAt(batchList, of)).is(400, "bad_cursor")
	})
}

func TestSecret(t *testing.T) {
	w := newWorld(t)
	var first, again struct{ Secret string }
	r := w.get("/v1/callbacks/secret").is(200, "")
	r.decode(&first)
	w.get("/v1/callbacks/secret").is(200, "").decode(&again)
	if first.Secret == "" || first != again {
		t.Errorf("%q, then %q", first.Secret, again.Secret)
	}
	if got := r.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q", got)
	}
}
