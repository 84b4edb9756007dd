package intake_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

const (
	asJSON   = "application/json"
	asNDJSON = "application/x-ndjson"
)

// recorder keeps the blocks and the index, and checks their form.
type recorder struct {
	index  []batch.IndexEntry
	t      testing.TB
	items  []batch.Item
	blocks []batch.Block
	err    error // what Append returns
}

func (r *recorder) Append(_ context.Context, b batch.Block) error {
	size := 0
	for _, it := range b.Items {
		size += len(it.Raw)
	}
	if b.First != len(r.items) || len(b.Items) == 0 || len(b.Items) > batch.BlockItems || size > batch.BlockBytes && len(b.Items) > 1 {
		r.t.Errorf("block of %d items and %d bytes begins at %d, after %d items", len(b.Items), size, b.First, len(r.items))
	}
	r.items = append(r.items, b.Items...)
	r.blocks = append(r.blocks, b)
	return r.err
}

func (r *recorder) Index(_ context.Context, entries []batch.IndexEntry) error {
	if len(entries) > batch.IndexEntries {
		r.t.Errorf("%d entries of the index at once", len(entries))
	}
	r.index = append(r.index, entries...)
	return nil
}

// raws returns the bytes of the items.
func (r *recorder) raws() []string {
	var out []string
	for _, it := range r.items {
		out = append(out, string(it.Raw))
	}
	return out
}

func (r *recorder) ids() []string {
	var out []string
	for _, it := range r.items {
		out = append(out, it.ID)
	}
	return out
}

// withProcessor is what most tests need of a server.
var withProcessor = intake.Options{Defaults: batch.Options{Processor: "price"}}

func request(contentType, body string) intake.Request {
	return intake.Request{ContentType: contentType, Body: strings.NewReader(body), Length: int64(len(body))}
}

func read(t testing.TB, r intake.Request, o intake.Options) (*recorder, batch.Options, error) {
	t.Helper()
	stage := &recorder{t: t}
	c, err := intake.Read(t.Context(), r, stage, o)
	return stage, c.Options, err
}

// refused returns the refusal that err must be.
func refused(t *testing.T, err error) *batch.Error {
	t.Helper()
	e, ok := errors.AsType[*batch.Error](err)
	if !ok {
		t.Fatalf("got error %v, want a *batch.Error", err)
	}
	return e
}

func TestWhatIsAccepted(t *testing.T) {
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	exact := `"` + strings.Repeat("x", 62) + `"`
	digits := strings.Repeat("9", 100_000)
	for _, c := range []struct {
		name, contentType, body string
		want                    []string
	}{
		{"lines", asNDJSON, "{\"a\":1}\n{\"a\":2}\n", []string{`{"a":1}`, `{"a":2}`}},
		{"the other names of NDJSON", "application/jsonl", "1\n", []string{"1"}},
		{"and the third", "application/ndjson; charset=UTF-8", "1\n", []string{"1"}},
		{"blank lines between items", asNDJSON, "\n1\n\n \t\n2\n\n", []string{"1", "2"}},
		{"no line feed at the end", asNDJSON, "1\n2", []string{"1", "2"}},
		{"CRLF", asNDJSON, "{\"a\":1}\r\n2\r\n\r\n", []string{`{"a":1}`, "2"}},
		{"one byte order mark", asNDJSON, "\ufeff1\n2\n", []string{"1", "2"}},
		{"one byte order mark before JSON", asJSON, "\ufeff{\"items\":[1]}", []string{"1"}},
		{"white space around items is cut, inside is kept", asNDJSON, "  { \"a\" : [1, 2] }\t\n", []string{`{ "a" : [1, 2] }`}},
		{"any JSON value is an item", asNDJSON, "[1]\n\"s\"\n1\nnull\ntrue\n", []string{"[1]", `"s"`, "1", "null", "true"}},
		{
			"numbers beyond any type keep their digits", asNDJSON, "9007199254740993\n18446744073709551616\n1e400\n1e-400\n-0\n" + digits,
			[]string{"9007199254740993", "18446744073709551616", "1e400", "1e-400", "-0", digits},
		},
		{"escapes stay as they were sent", asNDJSON, `{"\u0061":"\u0000\ud83d\ude00\/"}`, []string{`{"\u0061":"\u0000\ud83d\ude00\/"}`}},
		{"100 levels", asNDJSON, deep, []string{deep}},
		{"brackets in strings are no levels", asNDJSON, `"` + strings.Repeat(`[{\"`, 200) + `"`, []string{`"` + strings.Repeat(`[{\"`, 200) + `"`}},
		{"many brackets are not many levels", asNDJSON, "[" + strings.Repeat("[{}],", 100) + "0]", []string{"[" + strings.Repeat("[{}],", 100) + "0]"}},
		{"100 levels in JSON", asJSON, `{"items":[` + deep + `]}`, []string{deep}},
		{"a line of exactly the limit", asNDJSON, exact, []string{exact}},
		{"an item of exactly the limit", asJSON, `{"items":[` + exact + `]}`, []string{exact}},
		{"JSON over several lines", asJSON, "{\n  \"items\": [\n    {\"a\": 1},\n    2\n  ]\n}\n", []string{`{"a": 1}`, "2"}},
		{"items after the options", asJSON, `{"priority":"high","items":[1,2]}`, []string{"1", "2"}},
		{"items before the options", asJSON, `{"items":[1,2],"priority":"high"}`, []string{"1", "2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := withProcessor
			if strings.Contains(c.name, "exactly") {
				o.ItemBytes = len(exact)
			}
			for _, slow := range []bool{false, true} {
				r := request(c.contentType, c.body)
				if slow {
					r.Body, r.Length = iotest.OneByteReader(r.Body), -1
				}
				stage, _, err := read(t, r, o)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(c.want, stage.raws()); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

func TestWhatIsRefused(t *testing.T) {
	deep := strings.Repeat("[", 101) + strings.Repeat("]", 101)
	utf16 := func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			b.WriteString(s[i:i+1] + "\x00")
		}
		return b.String()
	}
	for _, c := range []struct {
		name, contentType, body string
		code                    batch.Code
		reason                  string
		line                    int // of the first problem; 0: it has none
		says                    string
	}{
		{name: "empty body", contentType: asNDJSON, body: "", code: batch.Invalid, reason: "empty_batch"},
		{name: "only blank lines", contentType: asNDJSON, body: "\n\r\n \n", code: batch.Invalid, reason: "empty_batch"},
		{name: "only a byte order mark", contentType: asNDJSON, body: "\ufeff", code: batch.Invalid, reason: "empty_batch"},
		{name: "physical line numbers", contentType: asNDJSON, body: "1\n\n\r\nx\n", code: batch.Malformed, reason: "invalid_json", line: 4},
		{name: "lone CR between items", contentType: asNDJSON, body: "{\"a\":1}\r{\"a\":2}\r", code: batch.Malformed, reason: "trailing_data", line: 1, says: "LF or CRLF"},
		{name: "second byte order mark", contentType: asNDJSON, body: "\ufeff\ufeff1\n", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "byte order mark inside", contentType: asNDJSON, body: "1\n\ufeff2\n", code: batch.Malformed, reason: "invalid_json", line: 2},
		{name: "UTF-16 LE with mark", contentType: asNDJSON, body: "\xff\xfe" + utf16("1\n"), code: batch.Malformed, reason: "invalid_utf8", says: "UTF-16"},
		{name: "UTF-16 BE with mark", contentType: asJSON, body: "\xfe\xff\x00" + utf16("{}"), code: batch.Malformed, reason: "invalid_utf8", says: "UTF-16"},
		{name: "UTF-16 LE without mark", contentType: asNDJSON, body: utf16("{}"), code: batch.Malformed, reason: "invalid_utf8", says: "UTF-16"},
		{name: "UTF-16 BE without mark", contentType: asNDJSON, body: "\x00" + utf16("{}"), code: batch.Malformed, reason: "invalid_utf8", says: "UTF-16"},
		{name: "UTF-32 LE", contentType: asNDJSON, body: "1\x00\x00\x00\n\x00\x00\x00", code: batch.Malformed, reason: "invalid_utf8", says: "UTF-32"},
		{name: "UTF-32 BE", contentType: asNDJSON, body: "\x00\x00\x001\x00\x00\x00\n", code: batch.Malformed, reason: "invalid_utf8", says: "UTF-32"},
		{name: "UTF-32 BE with mark", contentType: asNDJSON, body: "\x00\x00\xfe\xff\x00\x00\x001", code: batch.Malformed, reason: "invalid_utf8", says: "UTF-32"},
		{name: "Latin-1", contentType: asNDJSON, body: "1\n\"caf\xe9\"\n", code: batch.Malformed, reason: "invalid_utf8", line: 2},
		{name: "Latin-1 in JSON", contentType: asJSON, body: "{\"items\":[\"caf\xe9\"]}", code: batch.Malformed, reason: "invalid_utf8"},
		{name: "overlong UTF-8", contentType: asNDJSON, body: "\"\xc0\xaf\"", code: batch.Malformed, reason: "invalid_utf8", line: 1},
		{name: "CESU surrogates", contentType: asNDJSON, body: "\"\xed\xa0\xbd\xed\xb8\x80\"", code: batch.Malformed, reason: "invalid_utf8", line: 1},
		{name: "lone surrogate", contentType: asNDJSON, body: `{"a":"x\ud800"}`, code: batch.Malformed, reason: "lone_surrogate", line: 1},
		{name: "lone low surrogate", contentType: asNDJSON, body: `"\uDC00 x"`, code: batch.Malformed, reason: "lone_surrogate", line: 1},
		{name: "high surrogate before a letter", contentType: asNDJSON, body: `"\ud83d\u0041"`, code: batch.Malformed, reason: "lone_surrogate", line: 1},
		{name: "lone surrogate in JSON", contentType: asJSON, body: `{"items":[1,{"a":"x\ud800"}]}`, code: batch.Malformed, reason: "lone_surrogate"},
		{name: "raw NUL in a string", contentType: asNDJSON, body: "\"a\x00b\"", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "raw control character in a string", contentType: asNDJSON, body: "\"a\x01b\"", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "NUL padding", contentType: asNDJSON, body: "{\"a\":1}\x00\x00\x00", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "a NUL behind the first byte", contentType: asNDJSON, body: "1\x00", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "a NUL behind the first byte and more lines", contentType: asNDJSON, body: "1\x00\n2\n", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "a NUL first", contentType: asNDJSON, body: "\x0012\n", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "nothing but NULs", contentType: asNDJSON, body: "\x00\x00\x00\x00\x00", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "NUL padding behind the last line", contentType: asNDJSON, body: "{\"a\":1}\n\x00\x00\x00", code: batch.Malformed, reason: "invalid_json", line: 2},
		{name: "NUL padding of JSON", contentType: asJSON, body: "{\"items\":[1]}\x00\x00", code: batch.Malformed, reason: "trailing_data"},
		{name: "duplicate member", contentType: asNDJSON, body: `{"a":1,"a":2}`, code: batch.Malformed, reason: "duplicate_member", line: 1},
		{name: "duplicate member by escape", contentType: asNDJSON, body: `{"a":1,"\u0061":2}`, code: batch.Malformed, reason: "duplicate_member", line: 1},
		{name: "nested duplicate member", contentType: asNDJSON, body: `{"x":[{"a":1,"a":2}]}`, code: batch.Malformed, reason: "duplicate_member", line: 1},
		{name: "duplicate option", contentType: asJSON, body: `{"priority":"low","priority":"low","items":[1]}`, code: batch.Malformed, reason: "duplicate_member"},
		{name: "duplicate items", contentType: asJSON, body: `{"items":[1],"items":[2]}`, code: batch.Malformed, reason: "duplicate_member"},
		{name: "duplicate member in an item of JSON", contentType: asJSON, body: `{"items":[1,{"a":{"b":1,"b":2}}]}`, code: batch.Malformed, reason: "duplicate_member"},
		{name: "option in other case", contentType: asJSON, body: `{"PRIORITY":"low","items":[1]}`, code: batch.Invalid, reason: "unknown_option", says: "PRIORITY"},
		{name: "unknown option", contentType: asJSON, body: `{"items":[1],"colour":{"a":[1]}}`, code: batch.Invalid, reason: "unknown_option", says: "colour"},
		{name: "101 levels", contentType: asNDJSON, body: deep, code: batch.Malformed, reason: "too_deep", line: 1},
		{name: "101 levels in JSON", contentType: asJSON, body: `{"items":[` + deep + `]}`, code: batch.Malformed, reason: "too_deep"},
		{name: "a million levels", contentType: asNDJSON, body: "1\n" + strings.Repeat("[", 1_000_000), code: batch.Malformed, reason: "too_deep", line: 2},
		{name: "a million levels in JSON", contentType: asJSON, body: `{"items":[` + strings.Repeat("[", 1_000_000), code: batch.Malformed, reason: "too_deep"},
		{name: "a million objects in JSON", contentType: asJSON, body: `{"items":[` + strings.Repeat(`{"a":`, 200_000), code: batch.Malformed, reason: "too_deep"},
		{name: "NaN", contentType: asNDJSON, body: "1\nNaN", code: batch.Malformed, reason: "invalid_json", line: 2},
		{name: "Infinity", contentType: asNDJSON, body: "-Infinity", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "leading zero", contentType: asNDJSON, body: "[01]", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "plus sign", contentType: asNDJSON, body: "+1", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "no digit before the point", contentType: asNDJSON, body: ".5", code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "two values on a line", contentType: asNDJSON, body: "1\n{} {}\n", code: batch.Malformed, reason: "trailing_data", line: 2},
		{name: "trailing comma", contentType: asNDJSON, body: `{"a":1,}`, code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "comment", contentType: asNDJSON, body: `{"a":1/*x*/}`, code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "single quotes", contentType: asNDJSON, body: `{'a':1}`, code: batch.Malformed, reason: "invalid_json", line: 1},
		{name: "trailing comma in JSON", contentType: asJSON, body: `{"items":[1,]}`, code: batch.Malformed, reason: "invalid_json"},
		{name: "an array over several lines as NDJSON", contentType: asNDJSON, body: "[\n1,\n2\n]", code: batch.Malformed, reason: "invalid_json", line: 1, says: "application/json"},
		{name: "an array with items on lines as NDJSON", contentType: asNDJSON, body: "[{\"a\":1},\n{\"a\":2}]", code: batch.Malformed, reason: "invalid_json", line: 1, says: "application/json"},
		{name: "pretty-printed JSON as NDJSON", contentType: asNDJSON, body: "\n{\n  \"a\": 1\n}\n", code: batch.Malformed, reason: "invalid_json", line: 2, says: "application/json"},
		{name: "NDJSON as JSON", contentType: asJSON, body: "{\"a\":1}\n{\"a\":2}\n", code: batch.Malformed, reason: "trailing_data", says: "application/x-ndjson"},
		{name: "bytes behind JSON", contentType: asJSON, body: `{"items":[1]} x`, code: batch.Malformed, reason: "trailing_data"},
		{name: "zero bytes as JSON", contentType: asJSON, body: "", code: batch.Malformed, reason: "empty_body"},
		{name: "only white space as JSON", contentType: asJSON, body: " \n", code: batch.Malformed, reason: "empty_body"},
		{name: "JSON cut off", contentType: asJSON, body: `{"items":[1,2`, code: batch.Malformed, reason: "invalid_json", says: "ends in the middle"},
		{name: "JSON cut off behind the items", contentType: asJSON, body: `{"items":[1,2]`, code: batch.Malformed, reason: "invalid_json", says: "ends in the middle"},
		{name: "JSON that is no object", contentType: asJSON, body: `[1,2]`, code: batch.Invalid, reason: "wrong_type", says: `"items"`},
		{name: "items missing", contentType: asJSON, body: `{"priority":"low"}`, code: batch.Invalid, reason: "required", says: "items"},
		{name: "items no array", contentType: asJSON, body: `{"items":{"a":1}}`, code: batch.Invalid, reason: "wrong_type", says: "items"},
		{name: "items an object with a fault", contentType: asJSON, body: `{"items":{"a":x}}`, code: batch.Malformed, reason: "invalid_json"},
		{name: "items null", contentType: asJSON, body: `{"items":null}`, code: batch.Invalid, reason: "wrong_type", says: "items"},
		{name: "no items", contentType: asJSON, body: `{"items":[]}`, code: batch.Invalid, reason: "empty_batch"},
		{name: "option of another type", contentType: asJSON, body: `{"processor":7,"items":[1]}`, code: batch.Invalid, reason: "wrong_type", says: "processor"},
		{name: "option null", contentType: asJSON, body: `{"callback_url":null,"items":[1]}`, code: batch.Invalid, reason: "wrong_type", says: "callback_url"},
		{name: "empty callback URL", contentType: asJSON, body: `{"callback_url":"","items":[1]}`, code: batch.Invalid, reason: "empty", says: "callback_url"},
		{name: "integer with a fraction", contentType: asJSON, body: `{"max_attempts":1.0,"items":[1]}`, code: batch.Invalid, reason: "wrong_type", says: "max_attempts"},
		{name: "integer beyond 64 bits", contentType: asJSON, body: `{"max_attempts":18446744073709551616,"items":[1]}`, code: batch.Invalid, reason: "wrong_type"},
		{name: "integer as a string", contentType: asJSON, body: `{"max_attempts":"5","items":[1]}`, code: batch.Invalid, reason: "wrong_type"},
		{name: "zero", contentType: asJSON, body: `{"max_attempts":0,"items":[1]}`, code: batch.Invalid, reason: "out_of_range"},
		{name: "out of range", contentType: asJSON, body: `{"items":[1],"callback_page_items":257}`, code: batch.Invalid, reason: "out_of_range"},
		{name: "nested metadata", contentType: asJSON, body: `{"items":[1],"metadata":{"a":{"b":1}}}`, code: batch.Invalid, reason: "wrong_type", says: "metadata"},
		{name: "metadata no object", contentType: asJSON, body: `{"items":[1],"metadata":[]}`, code: batch.Invalid, reason: "wrong_type", says: "metadata"},
		{name: "metadata of a mebibyte", contentType: asJSON, body: `{"items":[1],"metadata":{"a":"` + strings.Repeat("x", 1<<20) + `"}}`, code: batch.TooLarge, reason: "option_too_large"},
		{name: "bad id_field", contentType: asJSON, body: `{"id_field":"a","items":[1]}`, code: batch.Invalid, reason: "bad_pointer"},
		{name: "white space without end", contentType: asJSON, body: `{"items":[1` + strings.Repeat(" ", 4<<20), code: batch.TooLarge, reason: "too_much_space"},
		{name: "white space before the first item", contentType: asJSON, body: `{"items":[` + strings.Repeat(" ", 2<<20) + "1]}", code: batch.TooLarge, reason: "too_much_space"},
		{name: "white space around a comma", contentType: asJSON, body: `{"items":[1` + strings.Repeat(" ", 40<<10) + "," + strings.Repeat("\n", 40<<10) + "2]}", code: batch.TooLarge, reason: "too_much_space"},
		{name: "white space before an option", contentType: asJSON, body: `{"processor":` + strings.Repeat("\t", 2<<20) + `"price","items":[1]}`, code: batch.TooLarge, reason: "too_much_space"},
		{name: "an option nested too deep", contentType: asJSON, body: `{"items":[1],"metadata":` + strings.Repeat("[", 20_000), code: batch.Malformed, reason: "too_deep", says: "a value is nested"},
		{name: "no content type", contentType: "", body: "1", code: batch.Unsupported, reason: "unsupported_content_type"},
		{name: "plain text", contentType: "text/plain", body: "1", code: batch.Unsupported, reason: "unsupported_content_type"},
		{name: "other charset", contentType: "application/json; charset=utf-16", body: "1", code: batch.Unsupported, reason: "unsupported_charset"},
		{name: "broken content type", contentType: "application/json; charset", body: "1", code: batch.Unsupported, reason: "unsupported_content_type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, slow := range []bool{false, true} {
				r := request(c.contentType, c.body)
				if slow && len(c.body) < 1<<12 {
					r.Body, r.Length = iotest.OneByteReader(r.Body), -1
				}
				_, _, err := read(t, r, withProcessor)
				e := refused(t, err)
				if e.Code != c.code || e.Word() != c.reason {
					t.Errorf("got %s %s (%v), want %s %s", e.Code, e.Word(), e, c.code, c.reason)
				}
				if c.line != 0 && (len(e.Places) == 0 || e.Places[0].Line != c.line) {
					t.Errorf("got places %+v, want line %d first", e.Places, c.line)
				}
				if !strings.Contains(e.Message, c.says) {
					t.Errorf("%q does not say %q", e.Message, c.says)
				}
			}
		})
	}
}

func TestAFaultAmongTheItemsNamesTheItem(t *testing.T) {
	for body, want := range map[string]string{
		`{"items":[1,]}`:             "1 ",
		`{"items":[,1]}`:             "0 ",
		`{"items":[1,,2]}`:           "1 ",
		`{"items":[1 2]}`:            "1 ",
		`{"items":[01]}`:             "0 ",
		`{"items":[1, "a"b, 2]}`:     "1 ",
		`{"items":[1,{"a":1}},2]}`:   "1 ",
		`{"items":[1,{"a":01}]}`:     "1 ",
		`{"items":[1}`:               "0 ",
		`{"items":[}`:                "0 ",
		`{"items":[1,2,[3,{"a":x}]`:  "2 /1/a",
		`{"items":{"0":x}}`:          "-1 /items/0",
		`{"items":[1],"metadata":{,`: "-1 /metadata",
	} {
		_, _, err := read(t, request(asJSON, body), withProcessor)
		e := refused(t, err)
		if got := fmt.Sprintf("%d %s", e.Places[0].Index, e.Places[0].Pointer); got != want || e.Reason != "invalid_json" {
			t.Errorf("%s: got %q (%v), want %q", body, got, err, want)
		}
	}
}

func TestEveryLimitIsNamed(t *testing.T) {
	line := `"` + strings.Repeat("x", 62) + `"` // 64 bytes
	big := strings.Repeat("7", 3<<20)
	for _, c := range []struct {
		name, contentType, body string
		limits                  intake.Options
		wantOK                  bool
		reason, setting         string
	}{
		{"as many items as there may be", asNDJSON, "1\n2\n3\n", intake.Options{Items: 3}, true, "", ""},
		{"one item more", asNDJSON, "1\n2\n3\n4\n", intake.Options{Items: 3}, false, "too_many_items", "limits.items"},
		{"one item more in JSON", asJSON, `{"items":[1,2,3,4]}`, intake.Options{Items: 3}, false, "too_many_items", "limits.items"},
		{"a line one byte too long", asNDJSON, line + "\n", intake.Options{ItemBytes: 63}, false, "line_too_long", "limits.item_bytes"},
		{"an item one byte too long", asJSON, `{"items":[` + line + `]}`, intake.Options{ItemBytes: 63}, false, "item_too_large", "limits.item_bytes"},
		{"white space is not the item", asNDJSON, strings.Repeat(" ", 1000) + line + "   \r\n", intake.Options{ItemBytes: 64}, true, "", ""},
		{"white space is not the item in JSON", asJSON, `{"items":[` + strings.Repeat(" ", 60<<10) + line + `]}`, intake.Options{ItemBytes: 64}, true, "", ""},
		{"a line far too long", asNDJSON, big, intake.Options{}, false, "line_too_long", "limits.item_bytes"},
		{"an item far too long", asJSON, `{"items":[` + big + `]}`, intake.Options{}, false, "item_too_large", "limits.item_bytes"},
		{"a body too long in the middle of a value in JSON", asJSON, `{"items":[{"a":` + line + `}]}`, intake.Options{Body: 32}, false, "body_too_large", "limits.body"},
		{"a body of exactly the limit", asNDJSON, line, intake.Options{Body: 64}, true, "", ""},
		{"a body one byte too long", asNDJSON, line + "\n", intake.Options{Body: 64}, false, "body_too_large", "limits.body"},
	} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, length known %t", c.name, known), func(t *testing.T) {
				c.limits.Defaults = withProcessor.Defaults
				r := request(c.contentType, c.body)
				if !known {
					r.Length = -1
				}
				_, _, err := read(t, r, c.limits)
				if c.wantOK {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				e := refused(t, err)
				if e.Code != batch.TooLarge || e.Reason != c.reason || !strings.Contains(e.Message, c.setting) {
					t.Errorf("got %s %s %q, want too_large %s with %q", e.Code, e.Reason, e.Message, c.reason, c.setting)
				}
			})
		}
	}
}

// counting counts what is read of an endless body.
type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// repeat is a text said over and over, without end.
type repeat struct {
	text string
	at   int
}

func (r *repeat) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		c := copy(p[n:], r.text[r.at:])
		n += c
		r.at = (r.at + c) % len(r.text)
	}
	return len(p), nil
}

func TestReadingEndsEarly(t *testing.T) {
	t.Run("a body whose length is over the limit is not read at all", func(t *testing.T) {
		body := &counting{r: &repeat{text: "1\n"}}
		_, _, err := read(t, intake.Request{ContentType: asNDJSON, Body: body, Length: 17 << 30}, withProcessor)
		if e := refused(t, err); e.Reason != "body_too_large" || body.n != 0 {
			t.Errorf("got %s after %d bytes", e.Reason, body.n)
		}
	})
	t.Run("options refused in the query leave the body unread", func(t *testing.T) {
		body := &counting{r: &repeat{text: "1\n"}}
		r := intake.Request{ContentType: asNDJSON, ContentEncoding: "gzip", Query: url.Values{"colour": {"red"}}, Body: body, Length: -1}
		_, _, err := read(t, r, withProcessor)
		if e := refused(t, err); e.Reason != "unknown_option" || body.n != 0 {
			t.Errorf("got %s after %d bytes", e.Reason, body.n)
		}
	})
	for name, c := range map[string]struct{ contentType, head, text string }{
		"one line without end":           {asNDJSON, "", "x"},
		"one blank line without end":     {asNDJSON, "", " "},
		"one item without end":           {asJSON, `{"items":["`, "x"},
		"white space without end":        {asJSON, "", " "},
		"one option without end":         {asJSON, `{"processor":"`, "x"},
		"one option name without end":    {asJSON, `{"`, "x"},
		"options without end":            {asJSON, `{"a":1`, `,"b":1`}, // the second is a duplicate
		"an unknown array without end":   {asJSON, `{"a":[1`, ",1"},
		"white space behind without end": {asJSON, `{"items":[1]}`, " "},
	} {
		t.Run(name, func(t *testing.T) {
			body := &counting{r: io.MultiReader(strings.NewReader(c.head), &repeat{text: c.text})}
			_, _, err := read(t, intake.Request{ContentType: c.contentType, Body: body, Length: -1}, withProcessor)
			refused(t, err)
			if body.n > 2<<20 {
				t.Errorf("read %d bytes before saying %v", body.n, err)
			}
		})
	}
	t.Run("unknown options without end are not collected", func(t *testing.T) {
		var b strings.Builder
		for i := range 10_000 {
			fmt.Fprintf(&b, `%c"option%d":null`, "{,"[min(i, 1)], i)
		}
		body := &counting{r: strings.NewReader(b.String())}
		_, _, err := read(t, intake.Request{ContentType: asJSON, Body: io.MultiReader(body, &repeat{text: " "}), Length: -1}, withProcessor)
		if e := refused(t, err); e.Reason != "unknown_option" || len(e.Places) != batch.MaxProblems || body.n > 100_000 {
			t.Errorf("got %s with %d places after %d bytes", e.Reason, len(e.Places), body.n)
		}
	})
}

func zip(t testing.TB, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		w := gzip.NewWriter(&b)
		if _, err := io.WriteString(w, p); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestContentCodings(t *testing.T) {
	good := zip(t, "1\n2\n")
	badSum := bytes.Clone(good)
	badSum[len(badSum)-8] ^= 1
	bomb := zip(t, strings.Repeat("                              1\n", 12<<20/32))
	for _, c := range []struct {
		name, coding string
		body         []byte
		want         []string
		code         batch.Code
		reason       string
	}{
		{name: "gzip", coding: "gzip", body: good, want: []string{"1", "2"}},
		{name: "gzip in upper case", coding: "GZIP", body: good, want: []string{"1", "2"}},
		{name: "several members are one stream", coding: "gzip", body: zip(t, "1", "2\n", "", "3"), want: []string{"12", "3"}},
		{name: "identity", coding: "identity", body: []byte("1"), want: []string{"1"}},
		{name: "truncated", coding: "gzip", body: good[:len(good)-4], code: batch.Malformed, reason: "bad_gzip"},
		{name: "truncated in the header", coding: "gzip", body: good[:5], code: batch.Malformed, reason: "bad_gzip"},
		{name: "wrong checksum", coding: "gzip", body: badSum, code: batch.Malformed, reason: "bad_gzip"},
		{name: "junk behind", coding: "gzip", body: append(bytes.Clone(good), "junk"...), code: batch.Malformed, reason: "bad_gzip"},
		{name: "plain body", coding: "gzip", body: []byte("1\n2\n"), code: batch.Malformed, reason: "bad_gzip"},
		{name: "zero bytes", coding: "gzip", code: batch.Malformed, reason: "bad_gzip"},
		{name: "truncated in the name of a later member", coding: "gzip", body: append(bytes.Clone(good), "\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03name"...), code: batch.Malformed, reason: "bad_gzip"},
		{name: "truncated before the name of a later member", coding: "gzip", body: append(bytes.Clone(good), "\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03"...), code: batch.Malformed, reason: "bad_gzip"},
		{name: "gzip in gzip", coding: "gzip", body: zip(t, string(good)), code: batch.Malformed, reason: "invalid_json"},
		{name: "bomb", coding: "gzip", body: bomb, code: batch.TooLarge, reason: "ratio_too_large"},
		{name: "brotli", coding: "br", body: good, code: batch.Unsupported, reason: "unsupported_coding"},
		{name: "gzip twice", coding: "gzip, gzip", body: good, code: batch.Unsupported, reason: "unsupported_coding"},
		{name: "garbage", coding: "\x00", body: good, code: batch.Unsupported, reason: "unsupported_coding"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := intake.Request{ContentType: asNDJSON, ContentEncoding: c.coding, Body: bytes.NewReader(c.body), Length: int64(len(c.body))}
			stage, _, err := read(t, r, withProcessor)
			if c.code != "" {
				if e := refused(t, err); e.Code != c.code || e.Word() != c.reason {
					t.Errorf("got %s %s, want %s %s", e.Code, e.Word(), c.code, c.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, stage.raws()); d != "" {
				t.Error(d)
			}
		})
	}
	t.Run("the limit is of the decoded body", func(t *testing.T) {
		o := withProcessor
		o.Body = 1 << 20
		body := zip(t, strings.Repeat("1\n", 1<<20))
		_, _, err := read(t, intake.Request{ContentType: asNDJSON, ContentEncoding: "gzip", Body: bytes.NewReader(body), Length: -1}, o)
		if e := refused(t, err); e.Reason != "body_too_large" {
			t.Errorf("got %s", e.Reason)
		}
	})
	t.Run("empty members without end are not free", func(t *testing.T) {
		o := withProcessor
		o.Body = 1 << 20
		body := &repeat{text: string(zip(t, ""))}
		_, _, err := read(t, intake.Request{ContentType: asNDJSON, ContentEncoding: "gzip", Body: body, Length: -1}, o)
		if e := refused(t, err); e.Reason != "body_too_large" {
			t.Errorf("got %s", e.Reason)
		}
	})
	t.Run("a JSON document is read to the end of its gzip", func(t *testing.T) {
		body := zip(t, `{"items":[1]}`)
		_, _, err := read(t, intake.Request{ContentType: asJSON, ContentEncoding: "gzip", Body: bytes.NewReader(body[:len(body)-1]), Length: -1}, withProcessor)
		if e := refused(t, err); e.Reason != "bad_gzip" {
			t.Errorf("got %s", e.Reason)
		}
	})
}

func TestAnIncompleteBodyKeepsItsCause(t *testing.T) {
	for name, body := range map[string]func(error) intake.Request{
		"NDJSON": func(cause error) intake.Request {
			return intake.Request{ContentType: asNDJSON, Body: io.MultiReader(strings.NewReader("1\n2"), iotest.ErrReader(cause))}
		},
		"JSON": func(cause error) intake.Request {
			return intake.Request{ContentType: asJSON, Body: io.MultiReader(strings.NewReader(`{"items":[1`), iotest.ErrReader(cause))}
		},
		"JSON, behind the object": func(cause error) intake.Request {
			return intake.Request{ContentType: asJSON, Body: io.MultiReader(strings.NewReader(`{"items":[1]}`), iotest.ErrReader(cause))}
		},
		"gzip": func(cause error) intake.Request {
			return intake.Request{ContentType: asNDJSON, ContentEncoding: "gzip", Body: io.MultiReader(bytes.NewReader(zip(t, "1")[:12]), iotest.ErrReader(cause))}
		},
		"gzip from the first byte": func(cause error) intake.Request {
			return intake.Request{ContentType: asNDJSON, ContentEncoding: "gzip", Body: iotest.ErrReader(cause)}
		},
	} {
		for _, cause := range []error{os.ErrDeadlineExceeded, io.ErrUnexpectedEOF} {
			t.Run(fmt.Sprintf("%s, %v", name, cause), func(t *testing.T) {
				r := body(cause)
				r.Length = -1
				_, _, err := read(t, r, withProcessor)
				if e := refused(t, err); e.Code != batch.Malformed || e.Reason != "incomplete_body" || !errors.Is(err, cause) {
					t.Errorf("got %s %s, %v", e.Code, e.Reason, err)
				}
			})
		}
	}
	t.Run("a canceled context ends the reading", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := intake.Read(ctx, request(asNDJSON, "1"), &recorder{t: t}, withProcessor)
		if e := refused(t, err); e.Reason != "incomplete_body" || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAStageThatFailsIsNotTheClientsFault(t *testing.T) {
	cause := errors.New("disk on fire")
	_, err := intake.Read(t.Context(), request(asNDJSON, "1"), &recorder{t: t, err: cause}, withProcessor)
	if !errors.Is(err, cause) || batch.CodeOf(err) != "" {
		t.Errorf("got %v", err)
	}
}

func TestOptions(t *testing.T) {
	want := batch.Options{
		Processor: "price", CallbackURL: "https://shop.example/hooks", CallbackMode: batch.ModeSummary, CallbackPageBytes: 2048, CallbackPageItems: 7,
		IDField: "/id", Metadata: map[string]string{"run": "nightly", "naïve": "a/b"}, Priority: batch.PriorityLow, MaxAttempts: 3, Concurrency: 9,
		CallbackEvents: []string{"batch.progress"}, CallbackHeaders: map[string]string{"Authorization": "Bearer a/b", "X-Empty": ""},
	}
	members := `"processor":"price","callback_url":"https:\/\/shop.example/hooks","callback_mode":"summary","callback_page_bytes":2048,"callback_page_items":7,` +
		`"id_field":"/id","metadata":{"run":"nightly","na\u00efve":"a/b"},"priority":"low","max_attempts":3,"concurrency":9,` +
		`"callback_events":["batch\u002eprogress"],"callback_headers":{"Authorization":"Bearer a\/b","X-Empty":""}`
	query := url.Values{
		"processor": {"price"}, "callback_url": {"https://shop.example/hooks"}, "callback_mode": {"summary"}, "callback_page_bytes": {"2048"}, "callback_page_items": {"7"},
		"id_field": {"/id"}, "metadata": {`{"run":"nightly","naïve":"a/b"}`}, "priority": {"low"}, "max_attempts": {"3"}, "concurrency": {"9"},
		"callback_events": {`["batch.progress"]`}, "callback_headers": {` {"Authorization":"Bearer a/b","X-Empty":""} `},
	}
	pairs := url.Values{"metadata.run": {"nightly"}, "metadata.naïve": {"a/b"}}
	for k, v := range query {
		if k != "metadata" {
			pairs[k] = v
		}
	}
	for name, r := range map[string]intake.Request{
		"before the items":          request(asJSON, "{"+members+`,"items":[{"id":"A"}]}`),
		"behind the items":          request(asJSON, `{"items":[{"id":"A"}],`+members+"}"),
		"in the query":              {ContentType: asNDJSON, Query: query, Body: strings.NewReader(`{"id":"A"}`), Length: -1},
		"with metadata as its keys": {ContentType: asNDJSON, Query: pairs, Body: strings.NewReader(`{"id":"A"}`), Length: -1},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []batch.Options
			o := intake.Options{
				Defaults: batch.Options{Processor: "other", Metadata: map[string]string{"gone": "yes"}},
				Check:    func(o batch.Options) []batch.Problem { asked = append(asked, o); return nil },
			}
			stage, got, err := read(t, r, o)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff([]batch.Options{want}, asked); d != "" {
				t.Errorf("Check was asked otherwise: %s", d)
			}
			if d := cmp.Diff([]string{"A"}, stage.ids()); d != "" {
				t.Error(d)
			}
		})
	}
	t.Run("what is not asked for is the default", func(t *testing.T) {
		_, got, err := read(t, request(asJSON, `{"items":[1]}`), intake.Options{Defaults: batch.Options{Processor: "price", CallbackPageItems: 5}})
		want := batch.Options{Processor: "price", CallbackPageItems: 5}.WithDefaults()
		if err != nil || !cmp.Equal(want, got) {
			t.Error(err, cmp.Diff(want, got))
		}
	})
	t.Run("the server's judgement refuses", func(t *testing.T) {
		o := withProcessor
		o.Check = func(batch.Options) []batch.Problem {
			return []batch.Problem{{Index: -1, Line: -1, Pointer: "/processor", Code: "unknown_processor", Detail: "there is no such processor"}}
		}
		for _, r := range []intake.Request{request(asJSON, `{"items":[1]}`), request(asNDJSON, "1")} {
			_, _, err := read(t, r, o)
			if e := refused(t, err); e.Code != batch.Invalid || e.Reason != "unknown_processor" {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("a processor is required", func(t *testing.T) {
		_, _, err := read(t, request(asNDJSON, "1"), intake.Options{})
		if e := refused(t, err); e.Reason != "required" || e.Places[0].Pointer != "/processor" {
			t.Errorf("got %v", err)
		}
	})
	for name, c := range map[string]struct {
		query  url.Values
		code   batch.Code
		reason string
	}{
		"unknown":                {url.Values{"colour": {"red"}}, batch.Invalid, "unknown_option"},
		"items":                  {url.Values{"items": {"[]"}}, batch.Invalid, "unknown_option"},
		"twice":                  {url.Values{"priority": {"low", "low"}}, batch.Malformed, "repeated_option"},
		"empty":                  {url.Values{"callback_url": {""}}, batch.Invalid, "empty"},
		"number with a sign":     {url.Values{"max_attempts": {"+5"}}, batch.Invalid, "wrong_type"},
		"number with a zero":     {url.Values{"max_attempts": {"05"}}, batch.Invalid, "wrong_type"},
		"negative number":        {url.Values{"max_attempts": {"-5"}}, batch.Invalid, "out_of_range"},
		"metadata twice":         {url.Values{"metadata": {"{}"}, "metadata.a": {"b"}}, batch.Invalid, "ambiguous"},
		"metadata not JSON":      {url.Values{"metadata": {"{"}}, batch.Malformed, "invalid_json"},
		"metadata with two keys": {url.Values{"metadata": {`{"a":"1","a":"2"}`}}, batch.Malformed, "invalid_json"},
		"not UTF-8":              {url.Values{"processor": {"\xff"}}, batch.Malformed, "invalid_utf8"},
		"a mode nobody knows":    {url.Values{"callback_mode": {"shout"}}, batch.Invalid, "unknown_value"},
		"events as a word":       {url.Values{"callback_events": {"batch.progress"}}, batch.Malformed, "invalid_json"},
		"events twice":           {url.Values{"callback_events": {`["batch.progress"]`, `["batch.progress"]`}}, batch.Malformed, "repeated_option"},
		"a header by its name":   {url.Values{"callback_headers.X-A": {"b"}}, batch.Invalid, "unknown_option"},
	} {
		t.Run("in the query: "+name, func(t *testing.T) {
			_, _, err := read(t, intake.Request{ContentType: asNDJSON, Query: c.query, Body: strings.NewReader("1"), Length: -1}, withProcessor)
			if e := refused(t, err); e.Code != c.code || e.Word() != c.reason {
				t.Errorf("got %s %s (%v), want %s %s", e.Code, e.Word(), e, c.code, c.reason)
			}
		})
	}
	for name, r := range map[string]intake.Request{
		"given twice":   {ContentType: asNDJSON, Query: url.Values{"processor": {"a", "b"}}, Body: strings.NewReader("1"), Length: -1},
		"empty":         {ContentType: asNDJSON, Query: url.Values{"processor": {""}}, Body: strings.NewReader("1"), Length: -1},
		"of wrong type": request(asJSON, `{"processor":7,"items":[1]}`),
	} {
		t.Run("one that is "+name+" is not said to be missing as well", func(t *testing.T) {
			_, _, err := read(t, r, intake.Options{})
			if e := refused(t, err); len(e.Places) != 1 || e.Places[0].Code == "required" {
				t.Errorf("got %v: %+v", err, e.Places)
			}
		})
	}
	t.Run("not in the query where the body carries them", func(t *testing.T) {
		_, _, err := read(t, intake.Request{ContentType: asJSON, Query: url.Values{"priority": {"low"}}, Body: strings.NewReader(`{"items":[1]}`), Length: -1}, withProcessor)
		if e := refused(t, err); e.Reason != "unknown_option" {
			t.Errorf("got %v", err)
		}
	})
}

func TestCallbackOptions(t *testing.T) {
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, `"e%d",`, i)
	}
	for _, c := range []struct {
		options string
		want    string // pointers and codes of the problems; none: it is accepted
	}{
		{`"callback_mode":"pull"`, ""},
		{`"callback_mode":"pull","callback_url":"https://shop.example/"`, ""},
		{`"callback_mode":"push"`, "/callback_mode unknown_value"},
		{`"callback_mode":""`, "/callback_mode empty"},
		{`"callback_mode":["pull"]`, "/callback_mode wrong_type"},
		{`"callback_events":[]`, ""},
		{`"callback_events":"batch.progress"`, "/callback_events wrong_type"},
		{`"callback_events":{"batch.progress":true}`, "/callback_events wrong_type"},
		{`"callback_events":null`, "/callback_events wrong_type"},
		{`"callback_events":["batch.progress",["s3cret"]]`, "/callback_events/1 wrong_type"},
		{`"callback_events":["batch.progress","batch.progress"]`, "/callback_events/1 repeated"},
		{`"callback_events":["batch.completed"]`, "/callback_events/0 unknown_value"},
		{`"callback_events":[` + many.String() + `"e"]`, "/callback_events too_many"},
		{`"callback_headers":{}`, ""},
		{`"callback_headers":{"X-A":"s3cret"},"callback_url":"https://shop.example/"`, ""},
		{`"callback_headers":{"X-A":"s3cret"}`, "/callback_headers needs_callback_url"},
		{`"callback_headers":{"X-A":"s3cret"},"callback_mode":"pull"`, "/callback_headers needs_callback_url"},
		{`"callback_headers":{"X-A":"s3cret"},"callback_url":""`, "/callback_url empty"},
		{`"callback_headers":{"X-A":"s3cret"},"callback_url":7`, "/callback_url wrong_type"},
		{`"callback_headers":{"X-A":["s3cret"],"X/B":{"s3cret":1}}`, "/callback_headers/X-A wrong_type /callback_headers/X~1B wrong_type"},
		{`"callback_headers":"s3cret"`, "/callback_headers wrong_type"},
		{`"callback_headers":["s3cret"]`, "/callback_headers wrong_type"},
		{`"callback_headers":null`, "/callback_headers wrong_type"},
		{`"callback_headers":{"X-A":"s3cret","X-A":"s3cret"}`, "/callback_headers/X-A duplicate_member"},
		{`"callback_headers":{"X-A":"\us3cret"}`, "/callback_headers/X-A invalid_json"},
		{`"callback_headers":{"X-A":"\ud800s3cret"}`, "/callback_headers/X-A lone_surrogate"},
		{`"callback_headers":{"X-A":s3cret}`, "/callback_headers/X-A invalid_json"},
		{`"callback_headers":{"X-A":"` + strings.Repeat("s3cret", 50_000) + `"}`, "option_too_large"},
	} {
		t.Run(fmt.Sprintf("%.60s", c.options), func(t *testing.T) {
			_, _, err := read(t, request(asJSON, "{"+c.options+`,"items":[1]}`), withProcessor)
			if err == nil && c.want == "" {
				return
			}
			e := refused(t, err)
			var got []string
			for _, p := range e.Places {
				got = append(got, p.Pointer, p.Code)
			}
			if len(got) == 0 {
				got = []string{e.Word()}
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if all := fmt.Sprintf("%v %+v", err, e); strings.Contains(all, "3cret") {
				t.Errorf("it repeats a value: %s", all)
			}
		})
	}
}

func TestAllProblemsAreListed(t *testing.T) {
	t.Run("each with its place, and nothing is kept after the first", func(t *testing.T) {
		body := "{\"id\":\"a\"}\nx\n\n{\"id\":\"b\",\"q\":{\"q\":1,\"q\":2}}\n{\"id\":\"a\"}\n{\"no\":1}\n"
		r := intake.Request{ContentType: asNDJSON, Query: url.Values{"id_field": {"/id"}}, Body: strings.NewReader(body), Length: -1}
		stage, _, err := read(t, r, withProcessor)
		e := refused(t, err)
		var got []batch.Problem
		for _, p := range e.Places {
			p.Detail = ""
			got = append(got, p)
		}
		want := []batch.Problem{
			{Index: 1, Line: 2, Code: "invalid_json"},
			{Index: 2, Line: 4, Pointer: "/q/q", Code: "duplicate_member"},
			{Index: 3, Line: 5, Pointer: "/id", Code: "duplicate_id"},
			{Index: 4, Line: 6, Pointer: "/id", Code: "bad_id"},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if e.Code != batch.Malformed || e.Reason != "" || e.More != 0 {
			t.Errorf("got %s %q and %d more", e.Code, e.Reason, e.More)
		}
		if len(stage.items) != 0 {
			t.Errorf("%d items were kept", len(stage.items))
		}
	})
	t.Run("beyond a hundred they are counted", func(t *testing.T) {
		_, _, err := read(t, request(asNDJSON, "1\n"+strings.Repeat("x\n", 250)), withProcessor)
		e := refused(t, err)
		if len(e.Places) != batch.MaxProblems || e.More != 150 || e.Places[99].Line != 101 || e.Reason != "invalid_json" {
			t.Errorf("got %d places and %d more, reason %s", len(e.Places), e.More, e.Reason)
		}
	})
	t.Run("the first duplicates are listed, however they were found", func(t *testing.T) {
		var b strings.Builder
		for i := range 500 {
			fmt.Fprintf(&b, "[%d]\n", i%250)
		}
		r := intake.Request{ContentType: asNDJSON, Query: url.Values{"id_field": {"/0"}}, Body: strings.NewReader(b.String()), Length: -1}
		_, _, err := read(t, r, withProcessor)
		e := refused(t, err)
		if len(e.Places) != batch.MaxProblems || e.More != 150 || e.Reason != "duplicate_id" {
			t.Fatalf("got %v, %d places and %d more", e, len(e.Places), e.More)
		}
		for i, p := range e.Places {
			if p.Index != 250+i {
				t.Fatalf("place %d is index %d", i, p.Index)
			}
		}
	})
	t.Run("options and items of a JSON document together", func(t *testing.T) {
		_, _, err := read(t, request(asJSON, `{"id_field":"/id","items":[{"id":1},{"id":1.5},{"id":1}],"colour":1,"priority":"urgent"}`), withProcessor)
		var got []string
		for _, p := range refused(t, err).Places {
			got = append(got, fmt.Sprintf("%d %d %s %s", p.Index, p.Line, p.Pointer, p.Code))
		}
		want := []string{"-1 -1 /colour unknown_option", "-1 -1 /priority unknown_value", "1 -1 /id bad_id", "2 -1 /id duplicate_id"}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("a fault of the JSON document is placed in its item", func(t *testing.T) {
		_, _, err := read(t, request(asJSON, `{"items":[1,{"a":[{"b":1,"b":2}]}]}`), withProcessor)
		e := refused(t, err)
		if p := e.Places[0]; p.Index != 1 || p.Pointer != "/a/0/b" {
			t.Errorf("got %+v", p)
		}
	})
}

func TestClientIDs(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, c := range []struct {
		name, field, item string
		want              string // empty: bad_id
	}{
		{"string", "/id", `{"x":1,"id":"A-17"}`, "A-17"},
		{"integer", "/id", `{"id":17,"x":{"id":18}}`, "17"},
		{"negative integer", "/id", `{"id":-17}`, "-17"},
		{"integer beyond 64 bits", "/id", `{"id":18446744073709551616}`, "18446744073709551616"},
		{"nested", "/a/b", `{"b":2,"a":{"b":1}}`, "1"},
		{"in an array", "/a/1", `{"a":["x","y"]}`, "y"},
		{"item is an array", "/0", `["x"]`, "x"},
		{"escaped in the pointer", "/a~1b~0c", `{"a/b~c":"x"}`, "x"},
		{"escaped in the item", "/é", `{"\u00e9":"\u0041\/"}`, "A/"},
		{"empty name", "/", `{"":"x"}`, "x"},
		{"256 bytes", "/id", `{"id":"` + long + `"}`, long},
		{"what other tools would run", "/id", `{"id":"../%2f<script>=cmd()"}`, "../%2f<script>=cmd()"},
		{"not ASCII", "/id", `{"id":"größe-日本"}`, "größe-日本"},
		{"with joiners, as Persian and emoji have", "/id", "{\"id\":\"\u0645\u06cc\u200c\u062e 👨\u200d👩\"}", "\u0645\u06cc\u200c\u062e 👨\u200d👩"},
		{"missing", "/id", `{"ID":"x"}`, ""},
		{"missing below", "/a/b", `{"a":"b"}`, ""},
		{"missing in an array", "/01", `["a","b"]`, ""},
		{"item is no object", "/id", `"id"`, ""},
		{"null", "/id", `{"id":null}`, ""},
		{"true", "/id", `{"id":true}`, ""},
		{"empty", "/id", `{"id":""}`, ""},
		{"fraction", "/id", `{"id":1.0}`, ""},
		{"exponent", "/id", `{"id":1e3}`, ""},
		{"object", "/id", `{"id":{}}`, ""},
		{"array", "/id", `{"id":[1]}`, ""},
		{"257 bytes", "/id", `{"id":"x` + long + `"}`, ""},
		{"a mebibyte", "/id", `{"id":"` + strings.Repeat("x", 1<<20-100) + `"}`, ""},
		{"NUL", "/id", `{"id":"a\u0000"}`, ""},
		{"line feed", "/id", `{"id":"a\r\nb"}`, ""},
		{"DEL", "/id", "{\"id\":\"\x7f\"}", ""},
		{"C1 control", "/id", "{\"id\":\"a\u0085\"}", ""},
		{"line separator", "/id", "{\"id\":\"a\u2028b\"}", ""},
		{"paragraph separator", "/id", `{"id":"a\u2029b"}`, ""},
		{"bidi override", "/id", "{\"id\":\"a\u202eb\"}", ""},
		{"bidi isolate", "/id", "{\"id\":\"a\u2066b\"}", ""},
		{"Arabic letter mark", "/id", "{\"id\":\"a\u061cb\"}", ""},
	} {
		for name, r := range map[string]intake.Request{
			"NDJSON":               {ContentType: asNDJSON, Query: url.Values{"id_field": {c.field}}, Body: strings.NewReader("\n" + c.item), Length: -1},
			"JSON":                 request(asJSON, `{"id_field":"`+c.field+`","items":[`+c.item+`]}`),
			"JSON, items at first": request(asJSON, `{"items":[`+c.item+`],"id_field":"`+c.field+`"}`),
		} {
			t.Run(c.name+" in "+name, func(t *testing.T) {
				stage, _, err := read(t, r, withProcessor)
				if c.want == "" {
					e := refused(t, err)
					p := e.Places[0]
					if e.Code != batch.Invalid || e.Reason != "bad_id" || p.Index != 0 || p.Pointer != c.field || name == "NDJSON" && p.Line != 2 {
						t.Errorf("got %v with %+v", e, p)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff([]string{c.want}, stage.ids()); d != "" {
					t.Error(d)
				}
			})
		}
	}
	t.Run("without id_field there are none", func(t *testing.T) {
		stage, _, err := read(t, request(asJSON, `{"id_field":"","items":[{"id":1},{"id":1}]}`), withProcessor)
		if d := cmp.Diff([]string{"", ""}, stage.ids()); err != nil || d != "" {
			t.Error(err, d)
		}
	})
	for name, c := range map[string]struct {
		a, b string
		same bool
	}{
		"adjacent":                     {`"x"`, `"x"`, true},
		"string and integer":           {`17`, `"17"`, true},
		"by escape":                    {`"A"`, `"\u0041"`, true},
		"composed and decomposed":      {`"é"`, `"e\u0301"`, false},
		"in another case":              {`"a"`, `"A"`, false},
		"with a space":                 {`"a"`, `"a "`, false},
		"integers of different digits": {`1`, `-1`, false},
	} {
		t.Run("twice: "+name, func(t *testing.T) {
			r := intake.Request{ContentType: asNDJSON, Query: url.Values{"id_field": {"/id"}}, Body: strings.NewReader("\n{\"id\":" + c.a + "}\n\n{\"id\":" + c.b + "}\n"), Length: -1}
			_, _, err := read(t, r, withProcessor)
			if !c.same {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			e := refused(t, err)
			if e.Code != batch.Invalid || e.Reason != "duplicate_id" || e.Places[0].Line != 4 || !strings.Contains(e.Message, "line 2") {
				t.Errorf("got %v with %+v", e, e.Places)
			}
		})
	}
}

func TestBlocks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var want []string
	for i := range 3000 {
		size := random.IntN(200)
		switch {
		case i%500 == 7:
			size = batch.BlockBytes + random.IntN(1000)
		case i%100 == 9:
			size = batch.BlockBytes / 4
		}
		want = append(want, fmt.Sprintf(`{"id":%d,"fill":"%s"}`, i, strings.Repeat("y", size)))
	}
	for name, r := range map[string]intake.Request{
		"NDJSON":                   {ContentType: asNDJSON, Query: url.Values{"id_field": {"/id"}}, Body: strings.NewReader(strings.Join(want, "\r\n")), Length: -1},
		"JSON":                     request(asJSON, `{"id_field":"/id","items":[`+strings.Join(want, " ,\n")+`]}`),
		"JSON, options at the end": request(asJSON, `{"items":[`+strings.Join(want, ",")+`],"id_field":"/id"}`),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := withProcessor
			o.Dir = dir
			stage, _, err := read(t, r, o)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, stage.raws()); d != "" {
				t.Error(d)
			}
			for i, it := range stage.items {
				if it.ID != fmt.Sprint(i) {
					t.Fatalf("item %d has id %q", i, it.ID)
				}
			}
			if len(stage.blocks) > 60 {
				t.Errorf("%d blocks", len(stage.blocks))
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
