package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
			`"reason":null,"host":"shop.example:443","created_at":"` + batch.FormatTime(m.Created) + `","ended_at":null,"next_attempt_at":"` + batch.FormatTime(m.Due) + `","attempts_made":1,` +
			`"attempts":[{"number":1,"started_at":"` + batch.FormatTime(m.attempts[0].Started) + `","took_ms":{"dns":1,"connect":0,"tls":0,"first_byte":0,"total":9},` +
			`"remote_addr":"203.0.113.9:443","request_headers":{"Webhook-Signature":"v1,***"},` +
			`"response":{"status":503,"headers":{},"body":"busy","truncated":false},"error":{"category":"status","detail":"503"}}],` +
			`"body":{"type":"batch.completed", "data":{"results":[{"output":"<\u00e9>"}]}}}` + "\n"
		if diff := cmp.Diff(want, string(r.body)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("settled there is no next attempt", func(t *testing.T) {
		w.store.changeMessage(id, func(m *fakeMessage) {
			m.End(batch.MessageExhausted, "410 Gone", time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
		})
		body := string(w.get(path).is(200, "").body)
		for _, want := range []string{`"next_attempt_at":null`, `"reason":"410 Gone"`, `"status":"exhausted"`, `"ended_at":"2026-11-23T12:00:00.000Z"`} {
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
		w.get(list+"?batch="+of.String()).is(400, "unknown_parameter")
		w.get(list+"?cursor="+cursorAt(batchList, of)).is(400, "bad_cursor")
	})
}

// listed walks a list of messages page by page.
func (w *world) listed(path string) (ids []batch.MessageID, pages int) {
	w.t.Helper()
	for path != "" {
		r := w.get(path).is(200, "")
		var p struct {
			Data []struct{ ID batch.MessageID }
		}
		r.decode(&p)
		for _, m := range p.Data {
			ids = append(ids, m.ID)
		}
		pages++
		path, _, _ = strings.Cut(strings.TrimPrefix(r.header.Get("Link"), "<"), ">")
	}
	return ids, pages
}

func TestFindingMessages(t *testing.T) {
	w := newWorld(t)
	one, other := w.store.put(w.tenants[0], 1, 1), w.store.put(w.tenants[0], 1, 1)
	at := map[string][]batch.MessageID{} // what there is, by what it is found under
	for i, state := range []batch.MessageState{
		batch.MessageWaiting, batch.MessageSending, batch.MessageParked, batch.MessageDelivered,
		batch.MessageExhausted, batch.MessageCanceled, batch.MessageBlocked, batch.MessagePulled,
	} {
		for of, host := range map[batch.ID]string{one: "shop.example:443", other: "[2001:db8::1]:8443"} {
			id := w.store.putMessage(w.tenants[0], of)
			w.store.changeMessage(id, func(m *fakeMessage) { m.State, m.Host = state, host })
			for _, under := range []string{"", of.String(), host, state.String(), of.String() + state.String(), host + state.String()} {
				at[under] = append(at[under], id)
			}
			if i == 0 {
				w.store.putMessage(w.tenants[1], of)
			}
		}
	}
	for _, ids := range at {
		slices.SortFunc(ids, func(a, b batch.MessageID) int { return slices.Compare(b[:], a[:]) })
	}
	ask := func(path, query, want string) {
		t.Helper()
		t.Run(path+query, func(t *testing.T) {
			for _, limit := range []string{"limit=1", "limit=3", "limit=200"} {
				got, _ := w.listed(path + "?" + limit + query)
				if diff := cmp.Diff(at[want], got); diff != "" || len(got) == 0 {
					t.Error(limit, diff)
				}
			}
		})
	}
	for _, pageSize := range []int{0, 1, 5} {
		w.store.pageSize = pageSize
		ask("/v1/messages", "", "")
		ask("/v1/batches/"+one.String()+"/messages", "", one.String())
		ask("/v1/messages", "&host=shop.example:443", "shop.example:443")
		ask("/v1/messages", "&host=SHOP.example:443", "shop.example:443")
		ask("/v1/messages", "&host=%5B2001:DB8::1%5D:8443", "[2001:db8::1]:8443")
		for state := batch.MessageWaiting; state <= batch.MessagePulled; state++ {
			ask("/v1/messages", "&status="+state.String(), state.String())
			ask("/v1/batches/"+other.String()+"/messages", "&status="+state.String(), other.String()+state.String())
			ask("/v1/messages", "&host=shop.example:443&status="+state.String(), "shop.example:443"+state.String())
		}
	}
	t.Run("a batch has none for another's host", func(t *testing.T) {
		if got, _ := w.listed("/v1/batches/" + one.String() + "/messages?host=%5B2001:db8::1%5D:8443"); len(got) > 0 {
			t.Errorf("%v", got)
		}
	})
	for _, host := range []string{
		"", "shop.example", ":443", "shop.example:", "shop.example:0", "shop.example:0443", "shop.example:+443", "shop.example:65536", "shop.example:https",
		"https://shop.example:443", "shop.example:443/", "2001:db8::1:8443", "[shop.example]:443", "a:b:443", strings.Repeat("a", 300) + ":443",
	} {
		t.Run(fmt.Sprintf("the host %.40q is refused", host), func(t *testing.T) {
			for _, path := range []string{"/v1/messages", "/v1/batches/" + one.String() + "/messages"} {
				p := w.get(path+"?host="+url.QueryEscape(host)).is(400, "bad_host").problem()
				if !strings.Contains(p.Detail, "shop.example:443") {
					t.Errorf("it says %q", p.Detail)
				}
			}
		})
	}
	t.Run("a list is refused what it does not know", func(t *testing.T) {
		w.get("/v1/messages?status=lost").is(400, "bad_status")
		w.get("/v1/messages?batch="+one.String()).is(400, "unknown_parameter")
		w.get("/v1/messages?cursor="+cursorAt(batchList, one)).is(400, "bad_cursor")
		w.get("/v1/messages?cursor="+cursorAt(messageFeed, [16]byte{1})).is(400, "bad_cursor")
		w.get("/v1/messages?limit=0").is(400, "bad_limit")
	})
}

func TestASearchIsBoundedInTimeAndGoesOnWithTheNextPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newOptions(t, nil)
		of := w.store.put(w.tenants[0], 1, 1)
		var last batch.MessageID
		for range 40 {
			if id := w.store.putMessage(w.tenants[0], of); last == (batch.MessageID{}) || slices.Compare(id[:], last[:]) < 0 {
				last = id
			}
		}
		w.store.changeMessage(last, func(m *fakeMessage) { m.State = batch.MessageBlocked })
		w.store.pageSize, w.store.slowness = 1, 100*time.Millisecond
		s := &server{Options: Options{Store: w.store}}
		q := batch.MessageQuery{Tenant: w.tenants[0], State: batch.MessageBlocked, Limit: 2}
		var got []batch.Message
		calls, start := 0, time.Now()
		for more := true; more; calls++ {
			list, next, err := s.search(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			got, q.Before, more = append(got, list...), next, next != nil
		}
		if len(got) != 1 || got[0].ID != last {
			t.Errorf("found %v", got)
		}
		if took := time.Since(start); calls < 2 || took/time.Duration(calls) > time.Second {
			t.Errorf("%d calls took %s", calls, took)
		}
	})
}
