package api

import (
	"bytes"
	"compress/gzip"
	"errors"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/callbatch/callbatch/batch"
)

// id returns the id of the batch in the answer.
func (r reply) id() batch.ID {
	r.t.Helper()
	var b struct{ ID batch.ID }
	r.decode(&b)
	return b.ID
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	z.Close()
	return b.String()
}

// formOf returns a form with a file and with fields behind it, and its
// content type.
func formOf(name, text string, fields ...string) (body, kind string) {
	var b strings.Builder
	w := multipart.NewWriter(&b)
	f, _ := w.CreateFormFile("file", name)
	f.Write([]byte(text))
	for i := 0; i < len(fields); i += 2 {
		w.WriteField(fields[i], fields[i+1])
	}
	w.Close()
	return b.String(), w.FormDataContentType()
}

func TestSubmit(t *testing.T) {
	const lines = `{"qty":2,"sku":"a"}` + "\n" + `{"qty":3,"sku":"b"}` + "\n"
	for name, send := range map[string]func(w *world) reply{
		"lines": func(w *world) reply {
			return w.submit("?processor=price&id_field=/sku&metadata.run=nightly&callback_url=https://shop.example/hooks", lines)
		},
		"a JSON document": func(w *world) reply {
			return w.do("POST", "/v1/batches", w.admin(), `{"items":[{"qty":2,"sku":"a"},{"qty":3,"sku":"b"}],"processor":"price",
				"id_field":"/sku","metadata":{"run":"nightly"},"callback_url":"https://shop.example/hooks"}`, "Content-Type", "application/json")
		},
		"gzipped lines": func(w *world) reply {
			return w.do("POST", "/v1/batches?processor=price&id_field=/sku&metadata.run=nightly&callback_url=https://shop.example/hooks",
				w.admin(), zipped(lines), "Content-Type", "application/x-ndjson", "Content-Encoding", "gzip")
		},
		"lines of zstd": func(w *world) reply {
			z, _ := zstd.NewWriter(nil)
			return w.do("POST", "/v1/batches?processor=price&id_field=/sku&metadata.run=nightly&callback_url=https://shop.example/hooks",
				w.admin(), string(z.EncodeAll([]byte(lines), nil)), "Content-Type", "application/x-ndjson", "Content-Encoding", "zstd")
		},
		"lines in a form": func(w *world) reply {
			body, kind := formOf("items.ndjson", lines, "processor", "price", "id_field", "/sku", "metadata.run", "nightly", "callback_url", "https://shop.example/hooks")
			return w.do("POST", "/v1/batches", w.admin(), body, "Content-Type", kind)
		},
	} {
		t.Run(name+" are accepted", func(t *testing.T) {
			w := newWorld(t, func(o *Options) { o.BaseURL, o.PageItems = "https://callbatch.example", 7 })
			r := send(w).is(202, "")
			id := r.id()
			if got := r.header.Get("Location"); got != "/v1/batches/"+id.String() {
				t.Errorf("Location is %q", got)
			}
			if r.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			w.get(r.header.Get("Location")).is(200, "")
			w.store.change(id, func(b *fakeBatch) {
				if len(b.items) != 2 || string(b.items[1].Raw) != `{"qty":3,"sku":"b"}` || b.items[1].ID != "b" {
					t.Errorf("the items are %+v", b.items)
				}
				if b.BaseURL != "https://callbatch.example" || b.Options.CallbackPageItems != 7 || b.Options.Metadata["run"] != "nightly" {
					t.Errorf("the spec is %+v", b.Spec)
				}
			})
		})
	}
	t.Run("a table is accepted", func(t *testing.T) {
		w := newWorld(t)
		id := w.do("POST", "/v1/batches?processor=price", w.admin(), "sku,qty\r\na,2\r\n", "Content-Type", "text/csv").is(202, "").id()
		w.store.change(id, func(b *fakeBatch) {
			if len(b.items) != 1 || string(b.items[0].Raw) != `{"sku":"a","qty":"2"}` {
				t.Errorf("the items are %s", b.items[0].Raw)
			}
		})
	})
	t.Run("what is only to be checked is checked and not kept", func(t *testing.T) {
		w := newWorld(t)
		form, kind := formOf("items.csv", "a\n1\n2\n", "processor", "price", "validate_only", "true")
		for _, r := range []reply{
			w.submit("?processor=price&validate_only=true", "1\n2\n"),
			w.do("POST", "/v1/batches", w.admin(), `{"items":[1,2],"processor":"price","validate_only":true}`, "Content-Type", "application/json"),
			w.do("POST", "/v1/batches", w.admin(), form, "Content-Type", kind),
		} {
			if r.is(200, ""); string(r.body) != `{"valid":true,"total":2}`+"\n" || r.header.Get("Location") != "" {
				t.Errorf("answered %s, %v", r.body, r.header)
			}
		}
		if len(w.store.batches) != 0 || w.store.staged != w.store.discarded {
			t.Errorf("%d batches, %d of %d stages discarded", len(w.store.batches), w.store.discarded, w.store.staged)
		}
	})
	t.Run("the default processor serves who names none", func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.DefaultProcessor = "price" })
		w.submit("", "1\n").is(202, "")
	})
}

func TestARefusedSubmissionLeavesNothing(t *testing.T) {
	guard := func(o *Options) {
		o.CheckCallback = func(string) error { return errors.New("plain http is not allowed (callbacks.allow_http)") }
		o.Limits.Items = 3
	}
	ndjson := []string{"Content-Type", "application/x-ndjson"}
	for _, c := range []struct {
		name, query, body string
		headers           []string
		status            int
		code              string
		pointer           string
	}{
		{"no processor", "", "1\n", ndjson, 422, "required", "/processor"},
		{"an unknown processor", "?processor=none", "1\n", ndjson, 422, "unknown_processor", "/processor"},
		{"a refused callback", "?processor=price&callback_url=http://shop.example/", "1\n", ndjson, 422, "callback_refused", "/callback_url"},
		{"an unknown option", "?processor=price&colour=red", "1\n", ndjson, 422, "unknown_option", "/colour"},
		{"an option given twice", "?processor=price&priority=low&priority=low", "1\n", ndjson, 400, "repeated_option", "/priority"},
		{"a query that is none", "?processor=%zz", "1\n", ndjson, 400, "bad_query", ""},
		{"options beside a JSON document", "?processor=price", `{"items":[1]}`, []string{"Content-Type", "application/json"}, 422, "", ""},
		{"no content type", "?processor=price", "1\n", nil, 415, "unsupported_content_type", ""},
		{"two content types", "?processor=price", "1\n", append(ndjson, ndjson...), 415, "unsupported_content_type", ""},
		{"an unknown coding", "?processor=price", "1\n", append(ndjson, "Content-Encoding", "br"), 415, "unsupported_coding", ""},
		{"two codings", "?processor=price", "1\n", append(ndjson, "Content-Encoding", "gzip", "Content-Encoding", "gzip"), 415, "unsupported_coding", ""},
		{"too many items", "?processor=price", "1\n2\n3\n4\n", ndjson, 413, "too_many_items", ""},
		{"nothing", "?processor=price", "", ndjson, 422, "empty_batch", ""},
		{"a form without a file", "", "--b\r\nContent-Disposition: form-data; name=\"processor\"\r\n\r\nprice\r\n--b--\r\n", []string{"Content-Type", "multipart/form-data; boundary=b"}, 422, "required", "/file"},
		{"a form cut off", "", "--b\r\nContent-Disposition: form-data; name=\"processor\"\r\n\r\npri", []string{"Content-Type", "multipart/form-data; boundary=b"}, 400, "invalid_form", ""},
		{"a table without rows", "?processor=price", "a,b\n", []string{"Content-Type", "text/csv"}, 422, "empty_batch", ""},
		{"a table with a short row", "?processor=price", "a,b\n1\n", []string{"Content-Type", "text/csv"}, 400, "ragged_row", ""},
		{"a fault where nothing is to be kept", "?processor=price&validate_only=true", "x\n", ndjson, 400, "invalid_json", ""},
		{"a word for a truth", "?processor=price&validate_only=yes", "1\n", ndjson, 422, "wrong_type", "/validate_only"},
		{"a truncated zstd", "?processor=price", "\x28\xb5\x2f\xfd", append(ndjson, "Content-Encoding", "zstd"), 400, "bad_zstd", ""},
		{"a truncated gzip", "?processor=price", zipped("1\n2\n")[:20], append(ndjson, "Content-Encoding", "gzip"), 400, "bad_gzip", ""},
		{"an empty Idempotency-Key", "?processor=price", "1\n", append(ndjson, "Idempotency-Key", ""), 400, "bad_idempotency_key", ""},
		{"two Idempotency-Keys", "?processor=price", "1\n", append(ndjson, "Idempotency-Key", "k", "Idempotency-Key", "é"), 400, "bad_idempotency_key", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, guard)
			r := w.do("POST", "/v1/batches"+c.query, w.admin(), c.body, c.headers...)
			if c.code == "" {
				c.code = r.problem().Code
			}
			p := r.is(c.status, c.code).problem()
			if c.pointer != "" && (len(p.Errors) != 1 || p.Errors[0].Pointer != c.pointer || p.Errors[0].Index != nil || p.Errors[0].Line != nil) {
				t.Errorf("the places are %+v, want only %s", p.Errors, c.pointer)
			}
			if len(w.store.batches) != 0 || w.store.staged != w.store.discarded {
				t.Errorf("%d batches, %d of %d stages discarded", len(w.store.batches), w.store.discarded, w.store.staged)
			}
		})
	}
	t.Run("bad items are named by index and line", func(t *testing.T) {
		w := newWorld(t)
		p := w.submit("?processor=price", "{}\n\n{\n").is(400, "invalid_json").problem()
		if len(p.Errors) != 1 || *p.Errors[0].Index != 1 || *p.Errors[0].Line != 3 {
			t.Errorf("the places are %+v", p.Errors)
		}
	})
	t.Run("more than a hundred problems are counted", func(t *testing.T) {
		w := newWorld(t)
		p := w.submit("?processor=price&id_field=/id", strings.Repeat("{}\n", 105)).is(422, "bad_id").problem()
		if len(p.Errors) != 100 || p.More != 5 {
			t.Errorf("%d places and %d more", len(p.Errors), p.More)
		}
	})
}

func TestSubmitAndTheStore(t *testing.T) {
	t.Run("while work is not accepted the reason and Retry-After are given, and reads go on", func(t *testing.T) {
		for status, reason := range map[int]error{
			503: batch.Refuse(batch.Unavailable, "draining", "the server is stopping"),
			507: batch.Refuse(batch.Full, "disk_full", "the disk is nearly full"),
		} {
			w := newWorld(t, func(o *Options) { o.Accepting = func() error { return reason } })
			var e *batch.Error
			errors.As(reason, &e)
			r := w.submit("?processor=price", "1\n").is(status, e.Reason)
			if r.header.Get("Retry-After") == "" {
				t.Errorf("%d without Retry-After", status)
			}
			w.get("/v1/batches").is(200, "")
		}
	})
	t.Run("a refusal of the store is answered as one", func(t *testing.T) {
		w := newWorld(t)
		w.store.createErr = batch.Errorf(batch.Full, "the disk is nearly full")
		w.submit("?processor=price", "1\n").is(507, "full")
	})
	t.Run("when the store does not know the outcome nothing is answered", func(t *testing.T) {
		w := newWorld(t)
		w.store.createErr = errors.New("sync: input/output error")
		req, _ := http.NewRequest("POST", w.server.URL+"/v1/batches?processor=price", strings.NewReader("1\n"))
		req.Header.Set("Authorization", "Bearer "+w.admin())
		req.Header.Set("Content-Type", "application/x-ndjson")
		if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
			res.Body.Close()
			t.Fatalf("answered %s", res.Status)
		}
		if log := w.log.String(); strings.Count(log, "input/output error") != 1 {
			t.Errorf("the log says %q", log)
		}
	})
}
