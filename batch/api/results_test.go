package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
)

// mixed keeps a batch of ten items: 0 to 4 succeeded but for 3, which
// failed; 5 is unfinished; 6 failed and 7 succeeded; 8 and 9 are unfinished.
func mixed(w *world) batch.ID {
	id := w.store.put(w.tenants[0], 10, 0)
	w.store.change(id, func(b *fakeBatch) {
		for _, i := range []int{0, 1, 2, 4, 7} {
			b.finish(i, batch.ItemSucceeded, fmt.Sprintf(`{"n":%d}`, i))
		}
		for _, i := range []int{3, 6} {
			b.finish(i, batch.ItemFailed, `{"code":"timeout","message":"too slow"}`)
		}
	})
	return id
}

func (r reply) indexes() (got []int) {
	r.t.Helper()
	for line := range strings.Lines(string(r.body)) {
		var i int
		if _, err := fmt.Sscanf(line, `{"index":%d,`, &i); err != nil || !strings.HasSuffix(line, "}\n") {
			r.t.Fatalf("the line %q is no result", line)
		}
		got = append(got, i)
	}
	return got
}

func TestResults(t *testing.T) {
	for _, pageSize := range []int{0, 1, 2, 3} {
		w := newWorld(t)
		w.store.pageSize = pageSize
		id := mixed(w)
		path := "/v1/batches/" + id.String() + "/results"
		for query, want := range map[string][]int{
			"":                               {0, 1, 2, 3, 4, 6, 7},
			"?status=failed":                 {3, 6},
			"?status=expired":                nil,
			"?limit=3":                       {0, 1, 2},
			"?limit=100":                     {0, 1, 2, 3, 4},
			"?after=-1":                      {0, 1, 2, 3, 4},
			"?after=1":                       {2, 3, 4},
			"?after=1&limit=2":               {2, 3},
			"?after=4":                       nil,
			"?after=6":                       {7},
			"?after=9":                       nil,
			"?after=1000":                    nil,
			"?after=9223372036854775807":     nil,
			"?after=0&status=failed":         {3},
			"?limit=1&status=failed":         {3},
			"?after=3&limit=9&status=failed": nil,
		} {
			t.Run(fmt.Sprintf("%s in pages of %d", query, pageSize), func(t *testing.T) {
				r := w.get(path+query).is(200, "")
				if diff := cmp.Diff(want, r.indexes()); diff != "" {
					t.Error(diff)
				}
				if r.header.Get("Content-Type") != "application/x-ndjson" || r.header.Get("Callbatch-Incomplete") != "true" {
					t.Errorf("the headers are %v", r.header)
				}
			})
		}
	}
	w := newWorld(t)
	t.Run("of a finished batch are complete", func(t *testing.T) {
		id := w.store.put(w.tenants[0], 3, 3)
		r := w.get("/v1/batches/"+id.String()+"/results").is(200, "")
		if _, has := r.header["Callbatch-Incomplete"]; has || len(r.indexes()) != 3 {
			t.Errorf("%v %s", r.header, r.body)
		}
	})
	t.Run("are the client's bytes, one result a line", func(t *testing.T) {
		id := w.store.put(w.tenants[0], 1, 0)
		w.store.change(id, func(b *fakeBatch) { b.finish(0, batch.ItemSucceeded, `{ "a" : "<\n>", "big":1e400}`) })
		r := w.get("/v1/batches/" + id.String() + "/results")
		if want := `"output":{ "a" : "<\n>", "big":1e400},`; len(r.indexes()) != 1 || !strings.Contains(string(r.body), want) {
			t.Errorf("%q is not in %q", want, r.body)
		}
	})
	path := "/v1/batches/" + mixed(w).String() + "/results"
	t.Run("HEAD shows the header only", func(t *testing.T) {
		r := w.do("HEAD", path, w.admin(), "").is(200, "")
		if len(r.body) > 0 || r.header.Get("Callbatch-Incomplete") != "true" {
			t.Errorf("%v %q", r.header, r.body)
		}
	})
	for query, code := range map[string]string{
		"?after=-2": "bad_after", "?after=": "bad_after", "?after=x": "bad_after", "?limit=0": "bad_limit",
		"?status=pending": "bad_status", "?status=running": "bad_status", "?status=ok": "bad_status", "?status=": "bad_status",
		"?follow=true": "unknown_parameter", "?round=0": "bad_round", "?round=x": "bad_round", "?round=": "bad_round",
	} {
		t.Run(query+" is refused", func(t *testing.T) { w.get(path+query).is(400, code) })
	}
	t.Run("in other forms are refused", func(t *testing.T) {
		w.get(path, "Accept", "text/csv").is(406, "not_acceptable")
		w.get(path, "Accept", "application/json").is(406, "not_acceptable")
		w.get(path, "Accept", "text/csv, application/X-NDJSON;q=0.5").is(200, "")
		w.get(path, "Accept", "text/html,*/*;q=0.1").is(200, "")
	})
}

func TestResultsThatCannotGoOnBreakOff(t *testing.T) {
	w := newWorld(t)
	w.store.pageSize = 2
	w.store.resultsErr = errors.New("segment 7: checksum")
	id := mixed(w)
	req, _ := http.NewRequest("GET", w.server.URL+"/v1/batches/"+id.String()+"/results", nil)
	req.Header.Set("Authorization", "Bearer "+w.keys[0][access.Read])
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("the body seems whole: %q", b)
	}
	if log := w.log.String(); strings.Count(log, "segment 7: checksum") != 1 {
		t.Errorf("the log says %q", log)
	}
}

func TestItem(t *testing.T) {
	w := newWorld(t)
	id := mixed(w)
	path := "/v1/batches/" + id.String() + "/items/"
	t.Run("unfinished", func(t *testing.T) {
		got := string(w.get(path+"5").is(200, "").body)
		if want := `{"index":5,"id":"5","status":"pending","input":{"qty": 2},"attempts":0,"result":null}` + "\n"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
	t.Run("finished", func(t *testing.T) {
		got := string(w.get(path+"3").is(200, "").body)
		if want := `{"index":3,"id":"3","status":"failed","input":{"qty": 2},"attempts":1,"result":{"index":3,"id":"3","status":"failed","error":{"code":"timeout","message":"too slow"},"attempts":1,`; !strings.HasPrefix(got, want) {
			t.Errorf("%s, want %s…", got, want)
		}
	})
	for _, index := range []string{"10", "9999999999", "99999999999", "-1", "007", "+1", "1.0", "x", "1e0"} {
		if r := w.get(path + index); r.status != 404 {
			t.Errorf("item %s: %d", index, r.status)
		}
	}
}

func TestOutput(t *testing.T) {
	w := newWorld(t)
	id := mixed(w)
	w.store.change(id, func(b *fakeBatch) {
		b.finish(8, batch.ItemCanceled, `{"code":"canceled","message":"the batch was canceled"}`)
		b.finish(9, batch.ItemExpired, `{"code":"expired","message":"the batch expired"}`)
	})
	path := "/v1/batches/" + id.String() + "/items/"
	t.Run("is the bytes that were given", func(t *testing.T) {
		for _, output := range []string{`{ "a" : "<\n>", "big":1e400}`, "null", "7", `""`, `"` + strings.Repeat("x", 100_000) + `"`} {
			w.store.change(id, func(b *fakeBatch) {
				r := b.results[0]
				r.Payload = []byte(output)
				b.results[0] = r
			})
			r := w.get(path+"0/output").is(200, "")
			if string(r.body) != output || r.header.Get("Content-Type") != "application/json" || r.header.Get("Content-Length") != strconv.Itoa(len(output)) {
				t.Errorf("%v %.80s, want %.80s", r.header, r.body, output)
			}
			head := w.do("HEAD", path+"0/output", w.admin(), "").is(200, "")
			if len(head.body) > 0 || head.header.Get("Content-Length") != strconv.Itoa(len(output)) {
				t.Errorf("HEAD: %v %.80s", head.header, head.body)
			}
		}
	})
	for index, want := range map[string]string{
		"3": "failed", "8": "canceled", "9": "expired",
	} {
		t.Run("there is none of an item that is "+want, func(t *testing.T) {
			p := w.get(path+index+"/output").is(404, "no_output").problem()
			if !strings.Contains(p.Detail, want) || !strings.Contains(p.Detail, "error") {
				t.Errorf("it says %q", p.Detail)
			}
		})
	}
	t.Run("there is none yet of an item that is not finished", func(t *testing.T) {
		r := w.get(path+"5/output").is(409, "unfinished")
		if r.header.Get("Retry-After") == "" || !strings.Contains(r.problem().Detail, "pending") {
			t.Errorf("%v %s", r.header, r.body)
		}
	})
	for _, index := range []string{"10", "9999999999", "99999999999", "-1", "007", "x"} {
		if r := w.get(path + index + "/output"); r.status != 404 {
			t.Errorf("item %s: %d", index, r.status)
		}
	}
	w.get(path+"0/output?after=1").is(400, "unknown_parameter")
}
