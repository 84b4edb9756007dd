package api

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
)

// post sends a JSON body as the first tenant's admin.
func (w *world) post(path, body string, headers ...string) reply {
	w.t.Helper()
	return w.do("POST", path, w.admin(), body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

func TestRedeliver(t *testing.T) {
	w := newWorld(t)
	of := w.store.put(w.tenants[0], 1, 1)
	for state := batch.MessageWaiting; state <= batch.MessagePulled; state++ {
		t.Run("in the state "+state.String(), func(t *testing.T) {
			id := w.store.putMessage(w.tenants[0], of)
			w.store.changeMessage(id, func(m *fakeMessage) { m.State = state })
			var m struct {
				ID     batch.MessageID
				Status string
				Made   int `json:"attempts_made"`
			}
			w.do("POST", "/v1/messages/"+id.String()+"/redeliver", w.admin(), "").is(202, "").decode(&m)
			want := "waiting"
			if state == batch.MessageSending {
				want = "sending"
			}
			if m.ID != id || m.Status != want || m.Made != 1 {
				t.Errorf("it is %+v", m)
			}
		})
	}
	path := "/v1/messages/" + w.store.putMessage(w.tenants[0], of).String() + "/redeliver"
	t.Run("takes no body", func(t *testing.T) {
		w.do("POST", path, w.admin(), "{}").is(202, "")
		w.do("POST", path, w.admin(), `{"force":true}`).is(422, "unexpected_body")
		w.do("POST", path, w.admin(), strings.Repeat(" ", 1<<20)+"{").is(422, "unexpected_body")
		w.do("POST", path+"?force=true", w.admin(), "").is(400, "unknown_parameter")
	})
	t.Run("without a callback URL is a conflict", func(t *testing.T) {
		w.store.refusal = batch.Refuse(batch.Conflict, "no_callback_url", "there is nowhere to send it")
		w.do("POST", path, w.admin(), "").is(409, "no_callback_url")
	})
}

func TestRedeliverAll(t *testing.T) {
	w := newWorld(t)
	of := w.store.put(w.tenants[0], 1, 1)
	for i, host := range []string{"shop.example:443", "shop.example:443", "other.example:8443"} {
		for _, tenant := range w.tenants {
			id := w.store.putMessage(tenant, of)
			w.store.changeMessage(id, func(m *fakeMessage) {
				m.Host, m.Created = host, time.Now().Add(-time.Duration(i)*time.Hour)
				m.End(batch.MessageExhausted, "410 Gone", time.Now())
			})
		}
	}
	const path = "/v1/messages/redeliver"
	hour := batch.FormatTime(time.Now().Add(-90 * time.Minute))
	for body, want := range map[string]int{
		`{"status":"exhausted"}`:                            3,
		`{"status":"delivered"}`:                            0,
		`{"status":"canceled"}`:                             0,
		`{"status":"blocked"}`:                              0,
		`{"status":"pulled"}`:                               0,
		`{"status":"exhausted","host":"shop.example:443"}`:  2,
		`{"host":"SHOP.example:443","status":"exhausted"}`:  2,
		`{"status":"exhausted","since":"` + hour + `"}`:     2,
		" {\n\"status\" : \"\\u0065xhausted\"}\n":           3,
		`{"status":"exhausted","host":"third.example:443"}`: 0,
	} {
		t.Run(body, func(t *testing.T) {
			var got struct{ Count int }
			w.post(path, body).is(202, "").decode(&got)
			if got.Count != want {
				t.Errorf("%d messages, want %d", got.Count, want)
			}
		})
	}
	t.Run("the order says whose and until when", func(t *testing.T) {
		w.store.orders = nil
		before := time.Now()
		w.post(path, `{"status":"blocked","since":"2026-01-02T03:04:05+01:00"}`).is(202, "")
		o := w.store.orders[0]
		if o.Made.Before(before.Add(-time.Second)) || o.Made.After(time.Now()) {
			t.Errorf("it was made at %s", o.Made)
		}
		o.Made = time.Time{}
		want := batch.Redelivery{Tenant: w.tenants[0], State: batch.MessageBlocked, Since: time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)}
		if diff := cmp.Diff(want, o); diff != "" {
			t.Error(diff)
		}
	})

	w.store.orders = nil
	for _, c := range []struct {
		body    string
		status  int
		code    string
		pointer string
	}{
		{``, 400, "empty_body", ""},
		{`{`, 400, "invalid_json", ""},
		{`{"status":"exhausted"}{}`, 400, "invalid_json", ""},
		{`{"status":"exhausted","status":"pulled"}`, 400, "duplicate_member", "/status"},
		{`{"status":"\ud800"}`, 400, "lone_surrogate", "/status"},
		{`[]`, 422, "wrong_type", ""},
		{`{}`, 422, "required", "/status"},
		{`{"status":""}`, 422, "required", "/status"},
		{`{"status":null}`, 422, "wrong_type", "/status"},
		{`{"status":["exhausted"]}`, 422, "wrong_type", "/status"},
		{`{"status":"waiting"}`, 422, "unknown_value", "/status"},
		{`{"status":"sending"}`, 422, "unknown_value", "/status"},
		{`{"status":"parked"}`, 422, "unknown_value", "/status"},
		{`{"status":"Exhausted"}`, 422, "unknown_value", "/status"},
		{`{"status":"exhausted","host":""}`, 422, "bad_host", "/host"},
		{`{"status":"exhausted","host":null}`, 422, "wrong_type", "/host"},
		{`{"status":"exhausted","host":"shop.example"}`, 422, "bad_host", "/host"},
		{`{"status":"exhausted","since":""}`, 422, "bad_time", "/since"},
		{`{"status":"exhausted","since":"yesterday"}`, 422, "bad_time", "/since"},
		{`{"status":"exhausted","since":1764000000}`, 422, "wrong_type", "/since"},
		{`{"status":"exhausted","since":"` + batch.FormatTime(time.Now().Add(time.Hour)) + `"}`, 422, "in_the_future", "/since"},
		{`{"status":"exhausted","limit":"5"}`, 422, "unknown_member", "/limit"},
		{`{"status":"exhausted","Host":"shop.example:443"}`, 422, "unknown_member", "/Host"},
		{`{"status":"exhausted","` + strings.Repeat("x", 64<<10) + `":1}`, 413, "body_too_large", ""},
		{strings.Repeat(" ", 64<<10) + `{"status":"exhausted"}`, 413, "body_too_large", ""},
		{`{"status":` + strings.Repeat("[", 60<<10), 400, "too_deep", ""},
	} {
		t.Run(c.body[:min(len(c.body), 60)]+" is refused", func(t *testing.T) {
			p := w.post(path, c.body).is(c.status, c.code).problem()
			if c.pointer != "" && (len(p.Errors) != 1 || p.Errors[0].Pointer != c.pointer) {
				t.Errorf("the places are %+v, want %s", p.Errors, c.pointer)
			}
		})
	}
	t.Run("a body that does not say it is JSON is refused", func(t *testing.T) {
		const body = `{"status":"exhausted"}`
		for _, headers := range [][]string{
			nil,
			{"Content-Type", ""},
			{"Content-Type", "text/plain"},
			{"Content-Type", "application/x-www-form-urlencoded"},
			{"Content-Type", "application/json; charset=utf-16"},
			{"Content-Type", "application/json", "Content-Type", "application/json"},
		} {
			w.do("POST", path, w.admin(), body, headers...).is(415, "unsupported_content_type")
		}
		w.post(path, zipped(body), "Content-Encoding", "gzip").is(415, "unsupported_coding")
		w.post(path, body, "Content-Encoding", "identity").is(202, "")
		w.do("POST", path, w.admin(), body, "Content-Type", "Application/JSON; charset=UTF-8").is(202, "")
	})
	if len(w.store.orders) != 2 {
		t.Errorf("orders were kept: %+v", w.store.orders)
	}
	t.Run("is no message", func(t *testing.T) {
		if got := w.get(path).is(405, "method_not_allowed").header.Get("Allow"); got != "POST" {
			t.Errorf("Allow is %q", got)
		}
	})
	t.Run("what the store refuses is refused", func(t *testing.T) {
		w.store.refusal = batch.Errorf(batch.Full, "the disk is nearly full")
		w.post(path, `{"status":"exhausted"}`).is(507, "full")
	})
}
