package api

import (
	"net/http"
	"testing"

	"github.com/callbatch/callbatch/batch/access"
)

func TestNothingThatChangesIgnoresAnIdempotencyKey(t *testing.T) {
	w := newWorld(t)
	for _, rt := range routes() {
		if rt.method == http.MethodGet {
			continue
		}
		t.Run(rt.method+" "+rt.path, func(t *testing.T) {
			path := rt.at(w.ids(rt, w.tenants[0]))
			for _, key := range []string{"k", ""} {
				w.do(rt.method, path, w.admin(), "", "Idempotency-Key", key).is(400, "unsupported_header")
			}
			w.do(rt.method, path, w.keys[0][access.Read], "", "Idempotency-Key", "k").is(403, "forbidden")
		})
	}
	w.do("GET", "/v1/batches", w.admin(), "", "Idempotency-Key", "k").is(200, "")
}
