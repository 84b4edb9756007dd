package intake_test

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/url"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// small are limits that a fuzzer reaches.
var small = intake.Options{Items: 50, ItemBytes: 1000, Body: 100_000, Defaults: batch.Options{Processor: "price"}}

// fuzzRead reads, and returns the items if they were accepted.
func fuzzRead(t *testing.T, r intake.Request) ([]string, bool) {
	r.Length = -1
	stage, _, err := read(t, r, small)
	if err != nil {
		if e, ok := errors.AsType[*batch.Error](err); !ok || e.Message == "" {
			t.Fatalf("refused with %v", err)
		}
		return nil, false
	}
	for _, it := range stage.items {
		if !jsontext.Value(it.Raw).IsValid() || len(it.Raw) > small.ItemBytes {
			t.Fatalf("accepted %q", it.Raw)
		}
	}
	return stage.raws(), true
}

func FuzzNDJSON(f *testing.F) {
	for _, s := range []string{
		"1\n2\n", "\ufeff{\"id\":1}\r\n\r\n[2]", "{\"id\":\"a\"}\n{\"id\":\"a\"}", "{\"a\":1,\"a\":2}", "\"\\ud800\"", "\"\xff\"", "{} {}", "1\r2", "[\n1]",
		"\xff\xfe1\x00", "1\n\x00\x00", strings.Repeat("[", 101) + strings.Repeat("]", 101), strings.Repeat("7", 1001), "\"" + strings.Repeat(" ", 70_000),
	} {
		f.Add(s, "")
		f.Add(s, "/id")
	}
	f.Fuzz(func(t *testing.T, body, idField string) {
		r := intake.Request{ContentType: asNDJSON, Body: strings.NewReader(body)}
		if idField != "" {
			r.Query = url.Values{"id_field": {idField}}
		}
		got, ok := fuzzRead(t, r)
		if !ok {
			return
		}
		var want []string
		for line := range strings.Lines(strings.TrimPrefix(body, "\ufeff")) {
			if line = strings.Trim(line, " \t\r\n"); line != "" {
				want = append(want, line)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"items":[1,{"id":2}]}`, `{"id_field":"/id","items":[{"id":"a"},{"id":"b"}]}`, `{"items":[{"id":"a"},{"id":"a"}],"id_field":"/id"}`, "\ufeff{ \"items\" : [ 1 , 2 ] } ",
		`{"items":[1]}x`, `{"items":[1]`, `{"items":[{"a":1,"a":2}]}`, `{"items":["\ud800"]}`, `{"metadata":{"a":"b"},"items":[1],"max_attempts":3}`, `{"x":1,"items":{}}`, `[]`, ``,
		`{"items":[` + strings.Repeat("[", 10_001), `{"items":["` + strings.Repeat("x", 70_000),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got, ok := fuzzRead(t, request(asJSON, body))
		if !ok {
			return
		}
		var want struct{ Items []json.RawMessage }
		if err := json.Unmarshal([]byte(strings.TrimPrefix(body, "\ufeff")), &want); err != nil {
			t.Fatal(err)
		}
		if len(want.Items) != len(got) {
			t.Fatalf("%d items of %d", len(got), len(want.Items))
		}
		for i, raw := range want.Items {
			if string(raw) != got[i] {
				t.Errorf("item %d is %q, want %q", i, got[i], raw)
			}
		}
	})
}

func FuzzGzip(f *testing.F) {
	f.Add(zip(f, "1\n2\n"))
	f.Add(zip(f, "1", "2", ""))
	f.Add(zip(f, strings.Repeat("1\n", 49))[:20])
	f.Add([]byte("1\n"))
	f.Add(append(zip(f, "1\n"), "\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03name"...))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, ok := fuzzRead(t, intake.Request{ContentType: asNDJSON, ContentEncoding: "gzip", Body: bytes.NewReader(body)})
		if !ok {
			return
		}
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		want, ok := fuzzRead(t, intake.Request{ContentType: asNDJSON, Body: bytes.NewReader(plain)})
		if d := cmp.Diff(want, got); !ok || d != "" {
			t.Error(ok, d)
		}
	})
}

func FuzzZstd(f *testing.F) {
	f.Add(zst(f, "1\n2\n"))
	f.Add(append(zst(f, "1\n"), zst(f, "2")...))
	f.Add(zst(f, strings.Repeat("1\n", 49))[:12])
	f.Add([]byte("1\n"))
	f.Add(append(zst(f, "1\n"), "\x50\x2a\x4d\x18\x03\x00\x00\x00abc"...))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, ok := fuzzRead(t, intake.Request{ContentType: asNDJSON, ContentEncoding: "zstd", Body: bytes.NewReader(body)})
		if !ok {
			return
		}
		z, err := zstd.NewReader(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		plain, err := z.DecodeAll(body, nil)
		if err != nil {
			t.Fatal(err)
		}
		want, ok := fuzzRead(t, intake.Request{ContentType: asNDJSON, Body: bytes.NewReader(plain)})
		if d := cmp.Diff(want, got); !ok || d != "" {
			t.Error(ok, d)
		}
	})
}

func FuzzCSV(f *testing.F) {
	for _, s := range []string{
		"a,b\n1,2\n", "\ufeffa\r\n\r\n\"x\"\r\n", "a,b\n\"1\n2\",\"3\"\"4\"\n", "a\n\"\"\n\n", "a,a\n1,2\n", "a,b\n1\n", "a\n\"x", "a\nx\"y\n", "a\n\"x\"y\n", "a\r1\r",
		"a\n\x00\n", "a\n\xff\n", "a\n" + strings.Repeat("x", 990), "a\n" + strings.Repeat("x", 1001), "a\n\"" + strings.Repeat("\n", 70_000), strings.Repeat(",", 20_000), "a\n1\r",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got, ok := fuzzRead(t, request(asCSV, body))
		if !ok {
			return
		}
		c := csv.NewReader(strings.NewReader(strings.TrimPrefix(body, "\ufeff")))
		rows, err := c.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(rows)-1 {
			t.Fatalf("%d items of %d rows", len(got), len(rows)-1)
		}
		for i, row := range rows[1:] {
			var values map[string]string
			if err := json.Unmarshal([]byte(got[i]), &values); err != nil || len(values) != len(row) {
				t.Fatalf("%s of %q: %v", got[i], row, err)
			}
			for k, name := range rows[0] {
				name, want := name, row[k]
				value, has := values[name]
				for n, v := range values { // the library makes LF of CRLF inside quotes
					if unix(n) == name {
						value, has = v, true
					}
				}
				if !has || unix(value) != want {
					t.Errorf("%s of %q", got[i], row)
				}
			}
		}
	})
}

func unix(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

func FuzzForm(f *testing.F) {
	lines := file("a.ndjson", "", "1\n{\"id\":2}\n")
	for _, s := range []string{
		formOf(lines), formOf(field("priority", "low"), lines), formOf(lines, field("id_field", "/id")), formOf(file("a.csv", "", "a\n1\n")), formOf(file("a.json", "", `{"items":[1]}`)),
		formOf(lines, lines), formOf(field("colour", "red")), formOf(), lines, "", formOf(lines)[:20], "--b\r\n\r\n", "--b\r\nA", strings.Repeat("x", 20_000),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got, ok := fuzzRead(t, request(asForm, body))
		if !ok {
			return
		}
		form, err := multipart.NewReader(strings.NewReader(body), "b").ReadForm(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		defer form.RemoveAll()
		if len(got) == 0 || len(form.File["file"])+len(form.Value["file"]) != 1 {
			t.Errorf("%d items of %d files", len(got), len(form.File["file"])+len(form.Value["file"]))
		}
	})
}
