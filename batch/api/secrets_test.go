package api

import (
	"strings"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback/signature"
)

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

func TestRotatingTheSecret(t *testing.T) {
	const path = "/v1/callbacks/secret/rotate"
	type rotation struct {
		Secret   string
		OldUntil *time.Time `json:"old_until"`
	}
	rotate := func(w *world, body string) (got rotation) {
		w.t.Helper()
		r := w.do("POST", path, w.admin(), body)
		if body != "" {
			r = w.post(path, body)
		}
		r.is(200, "").decode(&got)
		if r.header.Get("Cache-Control") != "no-store" {
			w.t.Errorf("the header is %v", r.header)
		}
		if _, err := signature.ParseSecret(got.Secret); err != nil {
			w.t.Errorf("%v", err)
		}
		return got
	}
	for body, want := range map[string]time.Duration{
		"": 24 * time.Hour, "{}": 24 * time.Hour, `{"keep_old_for":"24h"}`: 24 * time.Hour, `{"keep_old_for":"30s"}`: 30 * time.Second,
		`{"keep_old_for":"1h30m"}`: 90 * time.Minute, `{"keep_old_for":"168h"}`: 168 * time.Hour, `{"keep_old_for":"0s"}`: 0,
	} {
		t.Run("with "+body, func(t *testing.T) {
			w := newWorld(t)
			var before, now struct{ Secret string }
			w.get("/v1/callbacks/secret").is(200, "").decode(&before)
			start := time.Now()
			got := rotate(w, body)
			w.get("/v1/callbacks/secret").is(200, "").decode(&now)
			if got.Secret == before.Secret || got.Secret != now.Secret {
				t.Error("the new secret is not the current one")
			}
			if (got.OldUntil == nil) != (want == 0) {
				t.Fatalf("the old one signs until %v", got.OldUntil)
			}
			if want > 0 && (got.OldUntil.Before(start.Add(want-time.Second)) || got.OldUntil.After(time.Now().Add(want))) {
				t.Errorf("the old one signs until %s, want for %s", got.OldUntil, want)
			}
		})
	}
	w := newWorld(t)
	t.Run("the first one has none before it", func(t *testing.T) {
		if got := rotate(w, ""); got.OldUntil != nil {
			t.Errorf("until %v", got.OldUntil)
		}
	})
	t.Run("old_until is that of the last of all before", func(t *testing.T) {
		far := rotate(w, `{"keep_old_for":"100h"}`).OldUntil
		if near := rotate(w, `{"keep_old_for":"1h"}`).OldUntil; near == nil || !near.Equal(*far) {
			t.Errorf("%v, want %v", near, far)
		}
	})
	for body, code := range map[string]string{
		`{"keep_old_for":""}`: "bad_duration", `{"keep_old_for":"-1s"}`: "bad_duration", `{"keep_old_for":"168h1s"}`: "bad_duration",
		`{"keep_old_for":"7d"}`: "bad_duration", `{"keep_old_for":"1"}`: "bad_duration", `{"keep_old_for":"99999999999999h"}`: "bad_duration",
		`{"keep_old_for":24}`: "wrong_type", `{"keep_old_for":null}`: "wrong_type", `{"keep":"24h"}`: "unknown_member",
	} {
		t.Run(body+" is refused", func(t *testing.T) { w.post(path, body).is(422, code) })
	}
	before := w.store.secrets[w.tenants[0]][0].Text
	w.post(path, "{").is(400, "invalid_json")
	w.post(path, strings.Repeat(" ", 65<<10)).is(413, "body_too_large")
	w.do("POST", path, w.admin(), "{}").is(415, "unsupported_content_type")
	w.get(path).is(405, "method_not_allowed")
	if after := w.store.secrets[w.tenants[0]][0].Text; after != before {
		t.Error("a refused call made a secret")
	}
	t.Run("more than sign at once are a conflict", func(t *testing.T) {
		w.store.refusal = batch.Refuse(batch.Conflict, "too_many_secrets", "10 secrets sign already")
		w.post(path, "{}").is(409, "too_many_secrets")
	})
}
