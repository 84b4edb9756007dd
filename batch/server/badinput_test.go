package server_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/server"
)

func gz(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, s)
	w.Close()
	return b.String()
}

// bad is a submission that must be refused.
type bad struct {
	name   string
	typ    string // content type; default NDJSON
	query  string // default: the processor
	coding string
	body   string
	status int
	code   string // of the answer
	at     string // code of the first place named, if one must be
	line   int    // of that place
}

const jsonType = "application/json"

var refused = []bad{
	{name: "an empty body", body: "", status: 422, code: "empty_batch"},
	{name: "an empty JSON body", typ: jsonType, body: "", status: 400, code: "empty_body"},
	{name: "only blank lines", body: "\n\r\n  \n", status: 422, code: "empty_batch"},
	{name: "no items", typ: jsonType, body: `{"processor":"noop","items":[]}`, status: 422, code: "empty_batch"},
	{name: "lone CR between items", body: "1\r2\r3", status: 400, at: "trailing_data", line: 1},
	{name: "a second BOM", body: "\xef\xbb\xbf\xef\xbb\xbf1\n", status: 400, line: 1},
	{name: "a BOM inside", body: "1\n\xef\xbb\xbf2\n", status: 400, line: 2},
	{name: "UTF-16 with a BOM", body: "\xff\xfe1\x00\n\x00", status: 400},
	{name: "UTF-16 without one", body: "{\x00}\x00\n\x00", status: 400},
	{name: "Latin-1", body: "\"caf\xe9\"\n", status: 400, at: "invalid_utf8", line: 1},
	{name: "overlong UTF-8", body: "\"\xc0\xaf\"\n", status: 400, at: "invalid_utf8", line: 1},
	{name: "CESU surrogates", body: "\"\xed\xa0\x80\xed\xb0\x80\"\n", status: 400, at: "invalid_utf8", line: 1},
	{name: "a lone surrogate", body: `"\ud800"`, status: 400, at: "lone_surrogate", line: 1},
	{name: "a raw control character", body: "\"a\x01b\"\n", status: 400, at: "invalid_json", line: 1},
	{name: "NUL padding", body: "1\x00\x00\n", status: 400},
	{name: "an escaped NUL in an id", query: "processor=noop&id_field=/id", body: `{"id":"a\u0000b"}`, status: 422, at: "bad_id", line: 1},
	{name: "a bidi override in an id", query: "processor=noop&id_field=/id", body: `{"id":"a\u202eb"}`, status: 422, at: "bad_id", line: 1},
	{name: "a duplicate member", body: "{\"a\":1}\n{\"a\":1,\"a\":2}\n", status: 400, at: "duplicate_member", line: 2},
	{name: "a nested duplicate member", body: `{"x":{"a":1,"\u0061":2}}`, status: 400, at: "duplicate_member", line: 1},
	{name: "a duplicate option", typ: jsonType, body: `{"processor":"noop","processor":"noop","items":[1]}`, status: 400},
	{name: "an option in another case", typ: jsonType, body: `{"Processor":"noop","items":[1]}`, status: 422, at: "unknown_option"},
	{name: "an unknown option", typ: jsonType, body: `{"processor":"noop","colour":1,"items":[1]}`, status: 422, at: "unknown_option"},
	{name: "an unknown parameter", query: "processor=noop&colour=1", body: "1\n", status: 422, at: "unknown_option"},
	{name: "101 levels", body: strings.Repeat("[", 101) + strings.Repeat("]", 101), status: 400, at: "too_deep", line: 1},
	{name: "brackets without end", body: strings.Repeat("[", 1000), status: 400, line: 1},
	{name: "two values on a line", body: "1 2\n", status: 400, at: "trailing_data", line: 1},
	{name: "a trailing comma", body: "[1,]\n", status: 400, at: "invalid_json", line: 1},
	{name: "a comment", body: "1 // one\n", status: 400, line: 1},
	{name: "single quotes", body: "{'a':1}\n", status: 400, at: "invalid_json", line: 1},
	{name: "NaN", body: "NaN\n", status: 400, at: "invalid_json", line: 1},
	{name: "a number with a leading zero", body: "01\n", status: 400, line: 1},
	{name: "a number with a plus", body: "+1\n", status: 400, at: "invalid_json", line: 1},
	{name: "a JSON array over lines as NDJSON", body: "[\n1,\n2\n]\n", status: 400, line: 1},
	{name: "a pretty-printed object as NDJSON", body: "{\n  \"a\": 1\n}\n", status: 400, line: 1},
	{name: "NDJSON as JSON", typ: jsonType, body: "{\"a\":1}\n{\"a\":2}\n", status: 400},
	{name: "an array as JSON", typ: jsonType, body: `[1,2]`, status: 422},
	{name: "items that are no array", typ: jsonType, body: `{"processor":"noop","items":{}}`, status: 422},
	{name: "a line over the limit", body: `"` + strings.Repeat("x", 2000) + `"`, status: 413, code: "line_too_long"},
	{name: "one endless line", body: `"` + strings.Repeat("x", 1<<19), status: 413, code: "line_too_long"},
	{name: "an item over the limit", typ: jsonType, body: `{"processor":"noop","items":["` + strings.Repeat("x", 2000) + `"]}`, status: 413, code: "item_too_large"},
	{name: "a body over the limit", body: strings.Repeat("1\n", 1<<20), status: 413},
	{name: "an item too many", body: strings.Repeat("1\n", 1001), status: 413, code: "too_many_items"},
	{name: "a missing id", query: "processor=noop&id_field=/id", body: "{\"id\":1}\n{}\n", status: 422, at: "bad_id", line: 2},
	{name: "a null id", query: "processor=noop&id_field=/id", body: `{"id":null}`, status: 422, at: "bad_id", line: 1},
	{name: "an empty id", query: "processor=noop&id_field=/id", body: `{"id":""}`, status: 422, at: "bad_id", line: 1},
	{name: "a fractional id", query: "processor=noop&id_field=/id", body: `{"id":1.5}`, status: 422, at: "bad_id", line: 1},
	{name: "a long id", query: "processor=noop&id_field=/id", body: `{"id":"` + strings.Repeat("x", 257) + `"}`, status: 422, at: "bad_id", line: 1},
	{name: "an id twice", query: "processor=noop&id_field=/id", body: "{\"id\":1}\n\n{\"id\":2}\n{\"id\":\"1\"}\n", status: 422, at: "duplicate_id", line: 4},
	{name: "a truncated gzip", coding: "gzip", body: gz("1\n2\n")[:20], status: 400, code: "bad_gzip"},
	{name: "a gzip with a wrong sum", coding: "gzip", body: gz("1\n2\n")[:20] + "xxxxxxxx", status: 400, code: "bad_gzip"},
	{name: "junk behind a gzip", coding: "gzip", body: gz("1\n2\n") + "junk", status: 400, code: "bad_gzip"},
	{name: "plain text as gzip", coding: "gzip", body: "1\n2\n", status: 400, code: "bad_gzip"},
	{name: "a gzip bomb", coding: "gzip", body: gz(strings.Repeat(" ", 64<<20)), status: 413},
	{name: "brotli", coding: "br", body: "1\n", status: 415, code: "unsupported_coding"},
	{name: "gzip twice", coding: "gzip, gzip", body: gz(gz("1\n")), status: 415, code: "unsupported_coding"},
	{name: "no content type", typ: "none", body: "1\n", status: 415, code: "unsupported_content_type"},
	{name: "a zstd cut off", coding: "zstd", body: "\x28\xb5\x2f\xfd\x04", status: 400, code: "bad_zstd"},
	{name: "a zstd of a wide window", coding: "zstd", body: "\x28\xb5\x2f\xfd\x00\x70\x09\x00\x001", status: 413, code: "zstd_window_too_large"},
	{name: "plain text", typ: "text/plain", body: "1\n", status: 415, code: "unsupported_content_type"},
	{name: "another charset", typ: "application/json; charset=utf-16", body: `{"items":[1]}`, status: 415, code: "unsupported_charset"},
	{name: "a table that is empty", typ: "text/csv", query: "processor=noop", body: "", status: 422, code: "empty_batch"},
	{name: "a table of a header", typ: "text/csv", query: "processor=noop", body: "a,b\n", status: 422, code: "empty_batch"},
	{name: "a ragged table", typ: "text/csv", query: "processor=noop", body: "a,b\n1,2\n\n3\n", status: 400, at: "ragged_row", line: 4},
	{name: "a table with a column twice", typ: "text/csv", query: "processor=noop", body: "a,a\n1,2\n", status: 400, at: "bad_column", line: 1},
	{name: "a table with a quote open", typ: "text/csv", query: "processor=noop", body: "a\n1\n\"2\n", status: 400, at: "invalid_csv", line: 3},
	{name: "a row over the limit", typ: "text/csv", query: "processor=noop", body: "a\n" + strings.Repeat("x", 2000), status: 413, code: "line_too_long"},
	{name: "a form without a boundary", typ: "multipart/form-data", query: "", body: "--b--", status: 400, code: "invalid_form"},
	{name: "a form that is empty", typ: "multipart/form-data; boundary=b", body: "--b--", status: 422},
	{name: "an unknown processor", query: "processor=nope", body: "1\n", status: 422, at: "unknown_processor"},
	{name: "no processor", query: "priority=low", body: "1\n", status: 422},
	{name: "a parameter twice", query: "processor=noop&processor=noop", body: "1\n", status: 400},
	{name: "a broken escape", query: "processor=%zz", body: "1\n", status: 400},
	{name: "a semicolon", query: "processor=noop;priority=low", body: "1\n", status: 400},
	{name: "attempts that are no number", query: "processor=noop&max_attempts=many", body: "1\n", status: 422},
	{name: "a billion attempts", query: "processor=noop&max_attempts=1000000000", body: "1\n", status: 422, at: "out_of_range"},
	{name: "metadata over its size", query: "processor=noop&metadata.k=" + strings.Repeat("x", 513), body: "1\n", status: 422, at: "too_long"},
	{name: "a relative callback", query: "processor=noop&callback_url=/hooks", body: "1\n", status: 422, at: "callback_refused"},
	{name: "an empty callback", query: "processor=noop&callback_url=", body: "1\n", status: 422},
	{name: "a callback to a file", query: "processor=noop&callback_url=file:///etc/passwd", body: "1\n", status: 422, at: "callback_refused"},
	{name: "a callback with a password", query: "processor=noop&callback_url=https://u:p@shop.example/", body: "1\n", status: 422, at: "callback_refused"},
	{name: "a callback to a private address", query: "processor=noop&callback_url=https://10.0.0.1/", body: "1\n", status: 422, at: "callback_refused"},
	{name: "a callback to the metadata service", query: "processor=noop&callback_url=https://169.254.169.254/", body: "1\n", status: 422, at: "callback_refused"},
	{name: "a callback in octal", query: "processor=noop&callback_url=https://0251.0376.0251.0376/", body: "1\n", status: 422, at: "callback_refused"},
	{name: "a callback to NAT64", query: "processor=noop&callback_url=https://[64:ff9b::a9fe:a9fe]/", body: "1\n", status: 422, at: "callback_refused"},
	{name: "a callback with a zone", query: "processor=noop&callback_url=https://[fe80::1%2525eth0]/", body: "1\n", status: 422, at: "callback_refused"},
	{name: "a callback to port 0", query: "processor=noop&callback_url=https://shop.example:0/", body: "1\n", status: 422, at: "callback_refused"},
}

// Bad input is refused with its status, its code and its place, and leaves
// nothing behind.
func TestBadInput(t *testing.T) {
	base := start(t, server.Options{
		Processors: map[string]server.Processor{"noop": {Do: noop}},
		Limits:     server.Limits{Items: 1000, ItemBytes: 1024, Body: 1 << 20},
	})
	for _, c := range refused {
		t.Run(c.name, func(t *testing.T) {
			status, got := c.send(t, base)
			if status != c.status || c.code != "" && got.Code != c.code {
				t.Fatalf("got %d %+v, want %d %s", status, got, c.status, c.code)
			}
			if got.Detail == "" || got.RequestID == "" || got.Status != status {
				t.Errorf("the answer lacks a part: %+v", got)
			}
			if c.at == "" && c.line == 0 {
				return
			}
			if len(got.Errors) == 0 {
				t.Fatalf("no place is named: %+v", got)
			}
			if at := got.Errors[0]; c.at != "" && at.Code != c.at || at.Line != c.line {
				t.Errorf("got %+v, want %s in line %d", at, c.at, c.line)
			}
		})
	}
	t.Run("nothing is left behind", func(t *testing.T) {
		resp, err := http.Get(base + "/v1/batches")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, _ := io.ReadAll(resp.Body); !strings.HasPrefix(string(b), `{"data":[]`) {
			t.Errorf("there is %s", b)
		}
	})
	t.Run("all problems are named, up to a hundred", func(t *testing.T) {
		_, got := bad{body: strings.Repeat("1\nx\n", 250)}.send(t, base)
		if len(got.Errors) != batch.MaxProblems || got.More != 150 || got.Errors[99].Line != 200 {
			t.Errorf("%d problems and %d more", len(got.Errors), got.More)
		}
	})
}

type answer struct {
	Status    int
	Code      string
	Detail    string
	RequestID string `json:"request_id"`
	More      int
	Errors    []struct {
		Index, Line   int
		Pointer, Code string
		Detail        string
	}
}

func (c bad) send(t *testing.T, base string) (int, answer) {
	t.Helper()
	query := c.query
	if query == "" && c.typ != jsonType {
		query = "processor=noop"
	}
	req, err := http.NewRequest("POST", base+"/v1/batches?"+query, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	switch c.typ {
	case "":
		req.Header.Set("Content-Type", "application/x-ndjson")
	case "none":
	default:
		req.Header.Set("Content-Type", c.typ)
	}
	if c.coding != "" {
		req.Header.Set("Content-Encoding", c.coding)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if typ := resp.Header.Get("Content-Type"); typ != "application/problem+json" {
		t.Errorf("the answer is %s", typ)
	}
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, a
}
