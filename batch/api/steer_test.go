package api

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
)

func TestPauseAndResume(t *testing.T) {
	w := newWorld(t)
	path := "/v1/batches/" + w.store.put(w.tenants[0], 2, 1).String()
	for _, step := range []struct{ do, status string }{
		{"resume", "running"}, {"pause", "paused"}, {"pause", "paused"}, {"resume", "running"}, {"pause", "paused"}, {"cancel", "canceling"},
	} {
		var b struct{ Status string }
		w.do("POST", path+"/"+step.do, w.admin(), "").is(202, "").decode(&b)
		if b.Status != step.status {
			t.Errorf("after %s the batch is %s", step.do, b.Status)
		}
	}
	for _, do := range []string{"pause", "resume"} {
		w.do("POST", path+"/"+do, w.admin(), "").is(409, "wrong_state")
		w.do("POST", path+"/"+do, w.admin(), `{"force":true}`).is(422, "unexpected_body")
		w.do("POST", path+"/"+do, w.keys[0]["read"], "").is(403, "forbidden")
	}
}

func TestAmending(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.CheckCallback = func(url string) error {
			if strings.Contains(url, "10.0.0.1") {
				return errors.New("callbacks may not go there")
			}
			return nil
		}
	})
	put := func() (batch.ID, string) {
		id := w.store.put(w.tenants[0], 10, 3)
		w.store.change(id, func(b *fakeBatch) {
			b.Options.CallbackURL = "https://a.example/"
			b.Options.CallbackHeaders = map[string]string{"x-a": "1", "x-b": "s3cret"}
			b.Options.Metadata = map[string]string{"a": "1", "b": "2"}
			b.Accept(b.Options, b.Created)
		})
		return id, "/v1/batches/" + id.String()
	}
	patch := func(path, body, kind string) reply {
		t.Helper()
		return w.do("PATCH", path, w.admin(), body, "Content-Type", kind)
	}
	t.Run("changes what is named, and nothing else", func(t *testing.T) {
		id, path := put()
		body := `{"callback_url":"https://b.example/?t=s3cret","callback_headers":{"x-a":null,"X_B":"7"},"metadata":{"a":null,"c":"3"},
			"priority":"high","expires_in":"2h","max_failures":"50%","concurrency":4}`
		for _, kind := range []string{"application/merge-patch+json", "application/json; charset=utf-8"} {
			var b batchView
			r := patch(path, body, kind).is(200, "")
			r.decode(&b)
			if *b.Callback.URL != "https://b.example/?t=***" || b.Priority != "high" || b.Expires == nil || strings.Contains(string(r.body), "s3cret") {
				t.Errorf("it is %s", r.body)
			}
			if diff := cmp.Diff(map[string]string{"b": "2", "c": "3"}, b.Metadata); diff != "" {
				t.Error(diff)
			}
		}
		w.store.change(id, func(b *fakeBatch) {
			if b.Edition != 1 || b.Options.MaxFailures != "50%" || b.Options.Concurrency != 4 || b.Options.ExpiresIn != 2*time.Hour {
				t.Errorf("it is %+v", b.Spec)
			}
			if diff := cmp.Diff(map[string]string{"X_B": "7"}, b.Options.CallbackHeaders); diff != "" {
				t.Error(diff)
			}
		})
		patch(path, `{"expires_in":null,"concurrency":null,"max_failures":null,"priority":null,"metadata":null,"callback_headers":null}`, "application/json").is(200, "")
		w.store.change(id, func(b *fakeBatch) {
			if o := b.Options; !b.Expires.IsZero() || o.Concurrency != 0 || o.MaxFailures != "" || o.Metadata != nil || o.CallbackHeaders != nil {
				t.Errorf("it is %+v", o)
			}
		})
	})
	_, path := put()
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		``:                                       {400, "empty_body"},
		`{`:                                      {400, "invalid_json"},
		`[]`:                                     {422, "wrong_type"},
		`{"colour":1}`:                           {422, "unknown_member"},
		`{"processor":"size"}`:                   {422, "fixed_option"},
		`{"callback_url":"https://10.0.0.1/"}`:   {422, "callback_refused"},
		`{"callback_headers":{"host":"s3cret"}}`: {422, "bad_header"},
		`{"callback_headers":{"x":"a\nb"}}`:      {422, "bad_header"},
		`{"concurrency":-1}`:                     {422, "out_of_range"},
		`{"metadata":{"k":"` + strings.Repeat("v", 600) + `"}}`: {422, "too_long"},
		strings.Repeat(" ", mostInput) + `{}`:                   {413, "body_too_large"},
	} {
		t.Run("not "+strings.TrimSpace(body), func(t *testing.T) {
			if r := patch(path, body, "application/json").is(want.status, want.code); strings.Contains(string(r.body), "s3cret") {
				t.Errorf("it repeats a value: %s", r.body)
			}
		})
	}
	t.Run("not in another form", func(t *testing.T) {
		patch(path, `{}`, "text/plain").is(415, "unsupported_content_type")
		w.do("PATCH", path+"?concurrency=1", w.admin(), `{}`, "Content-Type", "application/json").is(400, "unknown_parameter")
		w.do("PATCH", path, w.keys[0]["read"], `{}`, "Content-Type", "application/json").is(403, "forbidden")
	})
	t.Run("once it has ended, only where its messages go", func(t *testing.T) {
		id, path := put()
		w.store.change(id, func(b *fakeBatch) { b.End(batch.Completed, 10, time.Now()) })
		patch(path, `{"concurrency":1}`, "application/json").is(409, "wrong_state")
		patch(path, `{"callback_url":"https://c.example/","metadata":{"x":"y"}}`, "application/json").is(200, "")
	})
	t.Run("a callback for a batch that had none", func(t *testing.T) {
		path := "/v1/batches/" + w.store.put(w.tenants[0], 2, 1).String()
		patch(path, `{"callback_url":"https://c.example/"}`, "application/json").is(409, "no_callback_url")
		path = "/v1/batches/" + w.store.put(w.tenants[0], 1, 0).String()
		patch(path, `{"callback_headers":{"x":"y"}}`, "application/json").is(422, "needs_callback_url")
		patch(path, `{"callback_url":"https://c.example/"}`, "application/json").is(200, "")
	})
}
