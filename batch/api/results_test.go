package api

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

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
		"?follow=": "bad_follow", "?follow=1": "bad_follow", "?follow=TRUE": "bad_follow", "?round=0": "bad_round", "?round=x": "bad_round", "?round=": "bad_round",
	} {
		t.Run(query+" is refused", func(t *testing.T) { w.get(path+query).is(400, code) })
	}
	for accept, want := range map[string]string{
		"": "application/x-ndjson", "*/*": "application/x-ndjson", "application/*": "application/x-ndjson", "application/jsonl": "application/x-ndjson",
		"text/csv": "text/csv", "text/*": "text/csv", "application/json": "application/json",
		"text/csv;q=0.4, application/X-NDJSON;q=0.5": "application/x-ndjson", "text/csv, application/X-NDJSON;q=0.5": "text/csv",
		"application/json, text/plain, */*": "application/json", "text/html,*/*;q=0.1": "application/x-ndjson",
		"*/*, application/x-ndjson;q=0": "text/csv", "*/*;q=0.5, text/csv;q=0, application/json": "application/json",
		"text/html": "", "text/csv;q=0": "", "*/*;q=0": "", "nonsense": "", "text/csv;q=x": "", "application/x-ndjson;q=2": "", ";;,": "",
	} {
		t.Run("for who accepts "+accept+" are "+want, func(t *testing.T) {
			if want == "" {
				w.get(path, "Accept", accept).is(406, "not_acceptable")
				return
			}
			r := w.get(path, "Accept", accept).is(200, "")
			if got, _, _ := strings.Cut(r.header.Get("Content-Type"), ";"); got != want || !strings.Contains(strings.Join(r.header.Values("Vary"), ","), "Accept") {
				t.Errorf("%v", r.header)
			}
		})
	}
}

func TestResultsAsJSON(t *testing.T) {
	for _, pageSize := range []int{0, 1, 2, 3} {
		w := newWorld(t)
		w.store.pageSize = pageSize
		id := mixed(w)
		page := func(query string) (indexes []int, next *int) {
			t.Helper()
			var p struct {
				Data []struct{ Index int }
				Next *int
			}
			w.get(pathOf(id)+"/results"+query, "Accept", "application/json").is(200, "").decode(&p)
			for _, r := range p.Data {
				indexes = append(indexes, r.Index)
			}
			return indexes, p.Next
		}
		for query, want := range map[string]struct {
			indexes []int
			next    int
		}{
			"":                       {[]int{0, 1, 2, 3, 4}, 4},
			"?limit=2":               {[]int{0, 1}, 1},
			"?after=1&limit=2":       {[]int{2, 3}, 3},
			"?after=3":               {[]int{4}, 4},
			"?after=4":               {nil, 4},
			"?after=-1&limit=5":      {[]int{0, 1, 2, 3, 4}, 4},
			"?status=failed":         {[]int{3}, 4},
			"?status=failed&limit=1": {[]int{3}, 3},
		} {
			indexes, next := page(query)
			if next == nil || *next != want.next || !slices.Equal(indexes, want.indexes) {
				t.Errorf("%s in pages of %d: %v, next %v, want %v", query, pageSize, indexes, next, want)
			}
		}
		w.store.change(id, func(b *fakeBatch) {
			for _, i := range []int{5, 8, 9} {
				b.finish(i, batch.ItemSucceeded, "1")
			}
		})
		var all []int
		for after := "-1"; after != ""; {
			indexes, next := page("?limit=3&after=" + after)
			if all, after = append(all, indexes...), ""; next != nil {
				after = strconv.Itoa(*next)
			}
		}
		if !slices.Equal(all, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
			t.Errorf("in pages of %d the walk gives %v", pageSize, all)
		}
	}
	t.Run("a page has 1000 unless more are asked for", func(t *testing.T) {
		w := newWorld(t)
		id := w.store.put(w.tenants[0], 2500, 2500)
		for query, want := range map[string]int{"": 1000, "?limit=2400": 2400, "?limit=2500": 2500, "?limit=9999": 2500} {
			var p struct {
				Data []struct{ Index int }
				Next *int
			}
			w.get(pathOf(id)+"/results"+query, "Accept", "application/json").is(200, "").decode(&p)
			if len(p.Data) != want || (p.Next == nil) != (want == 2500) {
				t.Errorf("%q: %d results, next %v", query, len(p.Data), p.Next)
			}
		}
		w.get(pathOf(id)+"/results?follow=true", "Accept", "application/json").is(400, "bad_follow")
	})
}

func TestResultsAsCSV(t *testing.T) {
	w := newWorld(t)
	at := time.Date(2026, 11, 23, 12, 0, 31, 2e7, time.UTC)
	ids := []string{"", "A-17", `say "hi", you`, "=1+2", "+1", "-1", "@x", "\tx", "\rx", "\nx", "＝1", "two\nlines", " x ", "a'b", "a;b", "é"}
	id := w.store.put(w.tenants[0], len(ids), 0)
	w.store.change(id, func(b *fakeBatch) {
		for i, id := range ids {
			b.items[i].ID = id
			switch {
			case i == 0:
				b.finish(i, batch.ItemFailed, `{"code":"app.=x","message":"=cmd|' /C calc'!A0, \"no\"","upstream_status":422}`)
			case i == 1:
				b.finish(i, batch.ItemSucceeded, `{"a":"x,y","b":[1]}`)
			case i == 2:
				b.finish(i, batch.ItemSucceeded, `"=1+2"`)
			default:
				b.finish(i, batch.ItemSucceeded, "-7.5e3")
			}
			r := b.results[i]
			r.Finished = at
			b.results[i] = r
		}
	})
	r := w.get(pathOf(id)+"/results", "Accept", "text/csv").is(200, "")
	if got := r.header.Get("Content-Type"); got != "text/csv; charset=utf-8; header=present" || !strings.Contains(r.header.Get("Content-Disposition"), id.String()+".csv") {
		t.Errorf("%v", r.header)
	}
	const when = ",2026-11-23T12:00:31.020Z\r\n"
	want := "index,id,status,attempts,output,error_code,error_message,finished_at\r\n" +
		`0,0,failed,1,,app.=x,"'=cmd|' /C calc'!A0, ""no"""` + when +
		`1,A-17,succeeded,1,"{""a"":""x,y"",""b"":[1]}",,` + when +
		`2,"say ""hi"", you",succeeded,1,"""=1+2""",,` + when +
		`3,"'=1+2",succeeded,1,-7.5e3,,` + when
	if !strings.HasPrefix(string(r.body), want) {
		t.Error(cmp.Diff(want, string(r.body)))
	}
	rows, err := csv.NewReader(bytes.NewReader(r.body)).ReadAll()
	if err != nil || len(rows) != len(ids)+1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for i, id := range ids {
		got := rows[i+1][1]
		if strings.ContainsAny(got[:1], "=+-@\t\r\n") || strings.HasPrefix(got, "＝") {
			t.Errorf("the cell %q is a formula", got)
		}
		if got = strings.TrimPrefix(got, "'"); id != "" && got != strings.ReplaceAll(id, "\r\n", "\n") {
			t.Errorf("the id %q is read as %q", id, got)
		}
	}
	t.Run("begin with the header also when there is none", func(t *testing.T) {
		r := w.get(pathOf(id)+"/results?status=expired", "Accept", "text/csv").is(200, "")
		if string(r.body) != csvHeader {
			t.Errorf("%q", r.body)
		}
	})
}

func TestResultsThatAreFollowed(t *testing.T) {
	// lines reads what comes, line by line, and closes at a proper end.
	type line struct {
		index int
		at    time.Time
		err   error
	}
	follow := func(t *testing.T, w *world, c net.Conn, path string, headers ...string) <-chan line {
		t.Helper()
		res := w.ask(c, "GET", path, headers...)
		if res.StatusCode != 200 {
			t.Fatalf("%d", res.StatusCode)
		}
		if _, has := res.Header["Callbatch-Incomplete"]; has {
			t.Error("what is followed is said to be incomplete")
		}
		got := make(chan line, 1000)
		go func() {
			defer close(got)
			var body io.Reader = res.Body
			switch res.Header.Get("Content-Encoding") {
			case "gzip":
				z, err := gzip.NewReader(body)
				if err != nil {
					got <- line{err: err}
					return
				}
				body = z
			case "zstd":
				z, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1))
				if err != nil {
					got <- line{err: err}
					return
				}
				defer z.Close()
				body = z
			}
			for in := bufio.NewReader(body); ; {
				text, err := in.ReadString('\n')
				if err == io.EOF && text == "" {
					return
				}
				l := line{at: time.Now(), err: err}
				fmt.Sscanf(text, `{"index":%d,`, &l.index)
				fmt.Sscanf(text, `%d,`, &l.index)
				if !strings.HasPrefix(text, "index,") {
					got <- l
				}
				if err != nil {
					return
				}
			}
		}()
		return got
	}
	indexes := func(lines <-chan line) (got []int, err error) {
		synctest.Wait()
		for {
			select {
			case l, ok := <-lines:
				if !ok {
					return got, nil
				}
				if l.err != nil {
					return got, l.err
				}
				got = append(got, l.index)
			default:
				return got, nil
			}
		}
	}
	for _, headers := range [][]string{nil, {"Accept", "text/csv"}, {"Accept-Encoding", "gzip"}, {"Accept-Encoding", "zstd, gzip"}, {"Accept", "text/csv", "Accept-Encoding", "zstd"}} {
		inMemory(t, fmt.Sprint("are the prefix as it grows, and end with the batch ", headers), func(t *testing.T, w *world, dial func() net.Conn) {
			id := w.store.put(w.tenants[0], 6, 0)
			lines := follow(t, w, dial(), pathOf(id)+"/results?follow=true", headers...)
			for _, step := range []struct {
				items, want []int
			}{{nil, nil}, {[]int{0}, []int{0}}, {[]int{2, 3}, nil}, {[]int{1}, []int{1, 2, 3}}, {[]int{5}, nil}, {[]int{4}, []int{4, 5}}} {
				w.finish(id, step.items...)
				time.Sleep(time.Second)
				if got, err := indexes(lines); !slices.Equal(got, step.want) || err != nil {
					t.Errorf("when %v are finished there come %v, %v; want %v", step.items, got, err, step.want)
				}
			}
			if _, more := <-lines; more {
				t.Error("it does not end")
			}
		})
	}
	inMemory(t, "of a batch that is over are those there are", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 3, 3)
		got, err := indexes(follow(t, w, dial(), pathOf(id)+"/results?follow=true&after=0"))
		if !slices.Equal(got, []int{1, 2}) || err != nil {
			t.Errorf("%v, %v", got, err)
		}
	})
	inMemory(t, "go on after an index and end with the limit", func(t *testing.T, w *world, dial func() net.Conn) {
		id := w.store.put(w.tenants[0], 9, 2)
		lines := follow(t, w, dial(), pathOf(id)+"/results?follow=true&after=0&limit=3&status=succeeded")
		time.Sleep(time.Second)
		w.finish(id, 2, 3, 4, 5)
		got, err := indexes(lines)
		if _, more := <-lines; !slices.Equal(got, []int{1, 2, 3}) || err != nil || more {
			t.Errorf("%v, %v", got, err)
		}
	})
	inMemory(t, "are not followed with follow=false", func(t *testing.T, w *world, dial func() net.Conn) {
		r := w.asked(dial(), "GET", pathOf(w.store.put(w.tenants[0], 9, 2))+"/results?follow=false").is(200, "")
		if got := r.indexes(); len(got) != 2 || r.header.Get("Callbatch-Incomplete") != "true" {
			t.Errorf("%v %v", got, r.header)
		}
	})
	inMemory(t, "need no hint, and no patience", func(t *testing.T, w *world, dial func() net.Conn) {
		w.store.deaf = true
		id := w.store.put(w.tenants[0], 2, 0)
		lines := follow(t, w, dial(), pathOf(id)+"/results?follow=true")
		time.Sleep(10 * time.Minute)
		w.finish(id, 0, 1)
		time.Sleep(watchPoll)
		if got, err := indexes(lines); len(got) != 2 || err != nil {
			t.Errorf("%v, %v", got, err)
		}
	}, func(o *Options) { o.Patience = time.Second })
	stopping := make(chan struct{})
	for _, coding := range []string{"", "gzip", "zstd"} {
		inMemory(t, "break off when the server stops "+coding, func(t *testing.T, w *world, dial func() net.Conn) {
			id := w.store.put(w.tenants[0], 9, 2)
			lines := follow(t, w, dial(), pathOf(id)+"/results?follow=true", "Accept-Encoding", coding)
			time.Sleep(time.Second)
			took := later(0, nil)
			close(stopping)
			n, broke := 0, false
			for l := range lines {
				if broke = l.err != nil; !broke {
					n++
				}
			}
			if n != 2 || !broke || took() > 0 {
				t.Errorf("%d lines after %s, broken off is %v", n, took(), broke)
			}
		}, func(o *Options) {
			stopping = make(chan struct{}) // in the bubble
			o.Stopping = stopping
		})
	}
	w := newWorld(t)
	r := w.do("HEAD", pathOf(w.store.put(w.tenants[0], 1, 0))+"/results?follow=true", w.admin(), "").is(200, "")
	if len(r.body) > 0 {
		t.Errorf("HEAD shows %q", r.body)
	}
}

func TestCodings(t *testing.T) {
	w := newWorld(t)
	id := w.store.put(w.tenants[0], 500, 500)
	for range 5 {
		w.store.put(w.tenants[0], 1, 0)
	}
	// plain undoes a coding.
	plain := func(coding string, body []byte) string {
		var r io.Reader = bytes.NewReader(body)
		switch coding {
		case "gzip":
			z, err := gzip.NewReader(r)
			if err != nil {
				t.Fatal(err)
			}
			r = z
		case "zstd":
			z, err := zstd.NewReader(r)
			if err != nil {
				t.Fatal(err)
			}
			defer z.Close()
			r = z
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	// get asks without what a transport does by itself.
	get := func(path, accept string) (*http.Response, []byte) {
		req, _ := http.NewRequest("GET", w.server.URL+path, nil)
		req.Header.Set("Authorization", "Bearer "+w.admin())
		req.Header.Set("Accept-Encoding", accept)
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, b
	}
	for accept, want := range map[string]string{
		"gzip": "gzip", "zstd": "zstd", "gzip, zstd": "zstd", "gzip;q=1.0, zstd;q=0.5": "gzip", "GZIP": "gzip", "x-gzip": "gzip", "*": "zstd",
		"*;q=0.1, gzip": "gzip", "zstd;q=0, *": "gzip", "gzip;q=0": "", "identity": "", "identity, gzip;q=0.5": "", "br": "", "": "", "deflate, br": "", "gzip;q=x": "", "*;q=0": "",
	} {
		for _, path := range []string{pathOf(id) + "/results", pathOf(id) + "/results?status=expired", "/v1/batches"} {
			plainly, raw := get(path, "identity")
			res, body := get(path, accept)
			if got := res.Header.Get("Content-Encoding"); got != want || res.Header.Get("Vary") == "" {
				t.Errorf("%s for %q: coded %q, want %q; %v", path, accept, got, want, res.Header)
				continue
			}
			if got := plain(want, body); got != string(raw) || plainly.Header.Get("Content-Encoding") != "" {
				t.Errorf("%s for %q is %.100q, want %.100q", path, accept, got, raw)
			}
		}
	}
	if res, _ := get("/v1/batches?limit=1", "gzip"); res.Header.Get("Content-Encoding") != "" {
		t.Error("a small answer is coded")
	}
	if res, _ := get(pathOf(id)+"/events", "gzip"); res.Header.Get("Content-Encoding") != "" {
		t.Error("events are coded")
	}
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
