package api

import (
	"strings"
	"testing"

	"github.com/callbatch/callbatch/batch/intake"
)

func TestBodiesThatThereIsNoMemoryFor(t *testing.T) {
	asJSON := []string{"Content-Type", "application/json"}
	overloaded := func(t *testing.T, r reply) {
		t.Helper()
		if r.is(503, "overloaded"); r.header.Get("Retry-After") != "5" {
			t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
		}
	}
	t.Run("one body too many", func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.Budget = intake.NewBudget(1<<20, 0) })
		path := w.do("POST", "/v1/batches?open=true&processor=price", w.admin(), "").is(201, "").header.Get("Location")
		overloaded(t, w.submit("?processor=price", "1\n"))
		overloaded(t, w.putPart(path, 0, "1\n"))
		overloaded(t, w.do("POST", "/v1/batches?open=true", w.admin(), `{"processor":"price"}`, asJSON...))
		w.get(path).is(200, "")
		if n := len(w.store.batches); n != 1 {
			t.Errorf("there are %d batches", n)
		}
	})
	t.Run("a large body", func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Limits.Budget = intake.NewBudget(0, 1) })
		large := `"` + strings.Repeat("x", 200<<10) + `"`
		overloaded(t, w.submit("?processor=price", large))
		path := w.submit("?processor=price", "1\n").is(202, "").header.Get("Location")
		overloaded(t, w.post(path+"/retry", `{"ids":[`+large+`]}`))
	})
}
