package api

import (
	"encoding/json"
	"sync/atomic"
	"testing"

	"github.com/callbatch/callbatch/batch"
)

func TestHealth(t *testing.T) {
	var stopping, full atomic.Bool
	w := newWorld(t, func(o *Options) {
		o.Ready = func() bool { return !stopping.Load() }
		o.Accepting = func() error {
			if full.Load() {
				return batch.Refuse(batch.Full, "disk_full", "the disk is nearly full")
			}
			return nil
		}
	})
	check := func(path string, status int, body string) {
		t.Helper()
		if r := w.do("GET", path, "", ""); r.status != status || string(r.body) != body+"\n" {
			t.Errorf("%s: %d %s, want %d %s", path, r.status, r.body, status, body)
		}
	}
	const fine = `{"ready":true,"accepting":true,"reason":null}`
	check("/livez", 200, `{"status":"ok"}`)
	check("/healthz", 200, `{"status":"ok"}`)
	check("/readyz", 200, fine)
	check("/readyz?accepting=1", 200, fine)

	full.Store(true)
	check("/readyz", 200, `{"ready":true,"accepting":false,"reason":"disk_full"}`)
	check("/readyz?accepting=1", 503, `{"ready":true,"accepting":false,"reason":"disk_full"}`)
	full.Store(false)

	stopping.Store(true)
	check("/livez", 200, `{"status":"ok"}`)
	check("/readyz", 503, `{"ready":false,"accepting":false,"reason":null}`)
	w.do("GET", "/readyz?accepting=yes", "", "").is(400, "bad_accepting")
	w.do("GET", "/livez?x", "", "").is(400, "unknown_parameter")
}

func TestProcessors(t *testing.T) {
	for want, schema := range map[string]json.RawMessage{"null": nil, "true": json.RawMessage("true"), `{"minimum":1.50}`: json.RawMessage(`{"minimum":1.50}`)} {
		w := newWorld(t, func(o *Options) {
			o.Processors = func() []Processor {
				return []Processor{{Name: "price", Kind: "jq", Health: "ok", Schema: schema}}
			}
		})
		want = `{"data":[{"name":"price","kind":"jq","health":"ok","schema":` + want + "}]}\n"
		if got := string(w.do("GET", "/v1/processors", w.keys[1]["submit"], "").is(200, "").body); got != want {
			t.Errorf("they are %s, want %s", got, want)
		}
	}
	none := newWorld(t, func(o *Options) { o.Processors = nil })
	if got := string(none.get("/v1/processors").is(200, "").body); got != `{"data":[]}`+"\n" {
		t.Errorf("none are %s", got)
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	if got := string(w.do("GET", "/metrics", w.keys[0]["operator"], "").is(200, "").body); got != "callbatch_up 1\n" {
		t.Errorf("they are %s", got)
	}
	without := newWorld(t, func(o *Options) { o.Metrics = nil })
	without.do("GET", "/metrics", without.keys[0]["operator"], "").is(404, "no_such_path")
}
