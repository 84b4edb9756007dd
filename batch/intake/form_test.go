package intake_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

const asForm = "multipart/form-data; boundary=b"

// field is a field of a form.
func field(name, value string) string {
	return fmt.Sprintf("--b\r\nContent-Disposition: form-data; name=%q\r\n\r\n%s\r\n", name, value)
}

// file is the file of a form. An empty content type is left out.
func file(name, contentType, text string) string {
	head := fmt.Sprintf("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=%q\r\n", name)
	if contentType != "" {
		head += "Content-Type: " + contentType + "\r\n"
	}
	return head + "\r\n" + text + "\r\n"
}

func formOf(parts ...string) string { return strings.Join(parts, "") + "--b--\r\n" }

func TestFormsAreAccepted(t *testing.T) {
	lines := file("a.ndjson", "", "{\"id\":\"A\"}\n\n{\"id\":\"B\"}\n")
	items := []string{`{"id":"A"}`, `{"id":"B"}`}
	for _, c := range []struct {
		name, body string
		items, ids []string
		priority   batch.Priority
	}{
		{"options before the file", formOf(field("priority", "low"), field("id_field", "/id"), lines), items, []string{"A", "B"}, batch.PriorityLow},
		{"options behind the file", formOf(lines, field("id_field", "/id"), field("priority", "low")), items, []string{"A", "B"}, batch.PriorityLow},
		{"options around the file", formOf(field("id_field", "/id"), lines, field("priority", "low")), items, []string{"A", "B"}, batch.PriorityLow},
		{"a file alone", formOf(lines), items, []string{"", ""}, batch.PriorityNormal},
		{"no ids wanted", formOf(field("id_field", ""), lines), items, []string{"", ""}, batch.PriorityNormal},
		{"a type of its own", formOf(file("a", "application/jsonl", "1\n2")), []string{"1", "2"}, []string{"", ""}, batch.PriorityNormal},
		{"its type before its name", formOf(file("a.json", "text/csv", "id\n1\n")), []string{`{"id":"1"}`}, []string{""}, batch.PriorityNormal},
		{"its name where the type says nothing", formOf(file("A.CSV", "application/octet-stream", "id\n1\n"), field("id_field", "/id")), []string{`{"id":"1"}`}, []string{"1"}, batch.PriorityNormal},
		{"what a spreadsheet makes of it", formOf(file("a.csv", "application/vnd.ms-excel", "\ufeffid\r\n1\r\n")), []string{`{"id":"1"}`}, []string{""}, batch.PriorityNormal},
		{"a document", formOf(file("a.json", "", `{"items":[{"id":"A"},{"id":"B"}]}`), field("id_field", "/id")), items, []string{"A", "B"}, batch.PriorityNormal},
		{"a preamble and an epilogue", "hello\r\n" + formOf(lines) + "and goodbye", items, []string{"", ""}, batch.PriorityNormal},
		{"no line feed at the end", strings.TrimSuffix(formOf(lines), "\r\n"), items, []string{"", ""}, batch.PriorityNormal},
		{"line feeds alone between parts", strings.ReplaceAll(formOf(lines), "\r\n", "\n"), items, []string{"", ""}, batch.PriorityNormal},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, slow := range []bool{false, true} {
				r := request(asForm, c.body)
				if slow {
					r.Body, r.Length = iotest.OneByteReader(r.Body), -1
				}
				stage, o, err := read(t, r, withProcessor)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(c.items, stage.raws()) + cmp.Diff(c.ids, stage.ids()); d != "" || o.Priority != c.priority {
					t.Error(o.Priority, d)
				}
			}
		})
	}
	t.Run("zipped as a whole", func(t *testing.T) {
		b := zip(t, formOf(lines))
		stage, _, err := read(t, intake.Request{ContentType: asForm, ContentEncoding: "gzip", Body: bytes.NewReader(b), Length: int64(len(b))}, withProcessor)
		if err != nil || !cmp.Equal(items, stage.raws()) {
			t.Error(err, stage.raws())
		}
	})
	t.Run("every kind of option", func(t *testing.T) {
		body := formOf(field("metadata.run", "nightly"), field("callback_events", `["batch.progress"]`), lines, field("max_attempts", "3"), field("metadata.naïve", "a/b"))
		_, got, err := read(t, request(asForm, body), withProcessor)
		want := batch.Options{Processor: "price", MaxAttempts: 3, CallbackEvents: []string{"batch.progress"}, Metadata: map[string]string{"run": "nightly", "naïve": "a/b"}}.WithDefaults()
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Error(err, d)
		}
	})
	t.Run("the boundary and the order are not the content", func(t *testing.T) {
		want := digest(t, request(asForm, formOf(field("priority", "low"), lines)), withProcessor)
		other := strings.ReplaceAll(formOf(lines, field("priority", "low")), "--b", "--other")
		if got := digest(t, request("multipart/form-data; boundary=other", other), withProcessor); got != want {
			t.Error("another digest")
		}
		plain := request(asNDJSON, "{\"id\":\"A\"}\n{\"id\":\"B\"}")
		plain.Query = url.Values{"priority": {"low"}}
		if got := digest(t, plain, withProcessor); got != want {
			t.Error("another digest than that of the lines")
		}
	})
	t.Run("items are checked by a processor that is named behind them", func(t *testing.T) {
		o := withProcessor
		o.CheckItems = func(of batch.Options) func([]byte) []batch.Problem {
			return func([]byte) []batch.Problem { return []batch.Problem{{Code: of.Processor}} }
		}
		_, _, err := read(t, request(asForm, formOf(field("id_field", "/id"), lines, field("processor", "weigh"))), o)
		if e := refused(t, err); e.Reason != "weigh" || len(e.Places) != 2 || e.Places[1].Line != 3 {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("a part of a batch", func(t *testing.T) {
		text := "{\"id\":\"A\"}\n\n{\"id\":\"B\"}\n"
		stage := &recorder{t: t}
		got, err := intake.ReadPart(t.Context(), request(asForm, formOf(lines)), stage, intake.Options{}, batch.Options{IDField: "/id"})
		if want := (intake.Part{Items: 2, Bytes: int64(len(text)), SHA256: sha256.Sum256([]byte(text)), Content: itemsSum(`{"id":"A"}`, `{"id":"B"}`)}); err != nil || got != want || stage.items[1].ID != "B" {
			t.Errorf("got %+v, %v", got, err)
		}
		_, err = intake.ReadPart(t.Context(), request(asForm, formOf(lines, field("priority", "low"))), &recorder{t: t}, intake.Options{}, batch.Options{})
		if e := refused(t, err); e.Reason != "option_beside_items" || len(e.Places) != 1 {
			t.Errorf("got %+v", e)
		}
	})
}

// pairs returns as many fields of metadata.
func pairs(n int) []string {
	var fields []string
	for _, i := range numbers(n) {
		fields = append(fields, field("metadata."+i, i))
	}
	return fields
}

func TestFormsAreRefused(t *testing.T) {
	lines := file("a.ndjson", "", "1\n2\n")
	many := strings.Repeat(field("colour", "red"), 1000)
	head := "--b\r\nContent-Disposition: form-data; name=\"priority\"\r\n"
	for _, c := range []struct {
		name, contentType, body string
		code                    batch.Code
		reason                  string
		says                    string
	}{
		{"no boundary", "multipart/form-data", formOf(lines), batch.Malformed, "invalid_form", "boundary"},
		{"a boundary too long", "multipart/form-data; boundary=" + strings.Repeat("b", 71), formOf(lines), batch.Malformed, "invalid_form", "boundary"},
		{"another boundary", "multipart/form-data; boundary=c", formOf(lines), batch.Malformed, "invalid_form", ""},
		{"another multipart", "multipart/mixed; boundary=b", formOf(lines), batch.Unsupported, "unsupported_content_type", "multipart/form-data"},
		{"nothing", asForm, "", batch.Malformed, "invalid_form", ""},
		{"no parts", asForm, formOf(), batch.Invalid, "required", "file"},
		{"no file", asForm, formOf(field("priority", "low")), batch.Invalid, "required", "file"},
		{"an empty file", asForm, formOf(file("a.ndjson", "", "")), batch.Invalid, "empty_batch", ""},
		{"a second file", asForm, formOf(lines, field("priority", "low"), lines), batch.Invalid, "second_file", ""},
		{"a file of another name", asForm, formOf(strings.Replace(lines, `"file"`, `"upload"`, 1)), batch.Invalid, "", "file is required"},
		{"an unknown field", asForm, formOf(lines, field("colour", "red")), batch.Invalid, "unknown_option", "colour"},
		{"the items as a field", asForm, formOf(lines, field("items", "[1]")), batch.Invalid, "unknown_option", "items"},
		{"a field twice", asForm, formOf(field("priority", "low"), lines, field("priority", "low")), batch.Malformed, "repeated_option", "priority"},
		{"id_field twice", asForm, formOf(field("id_field", ""), lines, field("id_field", "/id")), batch.Malformed, "repeated_option", "id_field"},
		{"a bad id_field before the file", asForm, formOf(field("id_field", "id"), lines), batch.Invalid, "bad_pointer", ""},
		{"a field not UTF-8", asForm, formOf(lines, field("priority", "\xff")), batch.Malformed, "invalid_utf8", ""},
		{"many fields", asForm, formOf(many), batch.TooLarge, "too_many_fields", "100"},
		{"many pairs of metadata", asForm, formOf(pairs(40)...), batch.Invalid, "", "2 problems"},
		{"more pairs than parts", asForm, formOf(pairs(101)...), batch.TooLarge, "too_many_fields", "100"},
		{"fields too large", asForm, formOf(field("processor", strings.Repeat("x", 200<<10)), field("priority", strings.Repeat("x", 100<<10))), batch.TooLarge, "option_too_large", ""},
		{"a part without a name", asForm, formOf("--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n"), batch.Malformed, "invalid_form", "name"},
		{"a part that is no form data", asForm, formOf("--b\r\nContent-Disposition: attachment; name=\"file\"\r\n\r\nx\r\n"), batch.Malformed, "invalid_form", "name"},
		{"a part without a header", asForm, formOf("--b\r\n\r\nx\r\n"), batch.Malformed, "invalid_form", "name"},
		{"a header that is none", asForm, formOf("--b\r\nhello\r\n\r\nx\r\n"), batch.Malformed, "invalid_form", ""},
		{"a header without end", asForm, head + "X: " + strings.Repeat("x", 1<<20), batch.Malformed, "invalid_form", "header"},
		{"headers without end", asForm, head + strings.Repeat("X: x\r\n", 100_000), batch.Malformed, "invalid_form", "header"},
		{"a preamble without end", asForm, strings.Repeat("hello\r\n", 100_000), batch.Malformed, "invalid_form", ""},
		{"an epilogue without end", asForm, formOf(lines) + strings.Repeat("hello\r\n", 100_000), batch.Malformed, "trailing_data", ""},
		{"an unknown type", asForm, formOf(file("a.csv", "image/png", "id\n1\n")), batch.Unsupported, "unsupported_content_type", "image/png"},
		{"an unknown name", asForm, formOf(file("a.xlsx", "", "id\n1\n")), batch.Unsupported, "unsupported_content_type", "a.xlsx"},
		{"a form in the form", asForm, formOf(file("a", asForm, formOf(lines))), batch.Unsupported, "unsupported_content_type", ""},
		{"another charset", asForm, formOf(file("a.csv", "text/csv; charset=latin1", "id\n1\n")), batch.Unsupported, "unsupported_charset", "latin1"},
		{"CSV without a header", asForm, formOf(file("a.csv", "text/csv; header=absent", "1\n")), batch.Unsupported, "unsupported_content_type", "header"},
		{"base64", asForm, formOf(strings.Replace(lines, "\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1)), batch.Unsupported, "unsupported_coding", ""},
		{"options in the document", asForm, formOf(file("a.json", "", `{"priority":"low","items":[1]}`)), batch.Invalid, "option_beside_items", "fields of the form"},
		{"a document without items", asForm, formOf(file("a.json", "", `{}`)), batch.Invalid, "required", "items"},
		{"a fault in the file", asForm, formOf(file("a.ndjson", "", "1\n\nx"), field("priority", "low")), batch.Malformed, "invalid_json", "line 3"},
		{"a fault in the table", asForm, formOf(file("a.csv", "", "a\n1\n2,3\n"), field("priority", "low")), batch.Malformed, "ragged_row", "line 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, slow := range []bool{false, true} {
				r := request(c.contentType, c.body)
				if slow && len(c.body) < 1<<12 {
					r.Body, r.Length = iotest.OneByteReader(r.Body), -1
				}
				_, _, err := read(t, r, withProcessor)
				e := refused(t, err)
				if e.Code != c.code || e.Reason != c.reason || !strings.Contains(e.Message, c.says) {
					t.Errorf("got %s %q (%v), want %s %q", e.Code, e.Reason, e, c.code, c.reason)
				}
			}
		})
	}
	t.Run("a form cut off anywhere", func(t *testing.T) {
		for _, kind := range []string{
			formOf(field("priority", "low"), lines, field("max_attempts", "3")),
			formOf(field("priority", "low"), file("a.json", "", `{"items":[1]}`), field("max_attempts", "3")),
			formOf(file("a.csv", "", "a\n1\n")),
		} {
			whole := strings.TrimSuffix(kind, "\r\n")
			for n := range len(whole) {
				_, _, err := read(t, request(asForm, whole[:n]), withProcessor)
				if e := refused(t, err); e.Code != batch.Malformed {
					t.Fatalf("cut off behind %q: %v", whole[max(0, n-20):n], err)
				}
				r := intake.Request{ContentType: asForm, Body: io.MultiReader(strings.NewReader(whole[:n]), iotest.ErrReader(io.ErrUnexpectedEOF)), Length: -1}
				_, _, err = read(t, r, withProcessor)
				if e := refused(t, err); e.Reason != "incomplete_body" {
					t.Fatalf("broken off behind %q: %v", whole[max(0, n-20):n], err)
				}
			}
		}
	})
	t.Run("a field without end is not read to it", func(t *testing.T) {
		body := &counting{r: io.MultiReader(strings.NewReader(head+"\r\n"), &repeat{text: "x"})}
		_, _, err := read(t, intake.Request{ContentType: asForm, Body: body, Length: -1}, withProcessor)
		if e := refused(t, err); e.Reason != "option_too_large" || body.n > 1<<20 {
			t.Errorf("got %v after %d bytes", err, body.n)
		}
	})
	t.Run("options in the query", func(t *testing.T) {
		r := request(asForm, formOf(lines))
		r.Query = url.Values{"priority": {"low"}}
		_, _, err := read(t, r, withProcessor)
		if e := refused(t, err); e.Reason != "unknown_option" {
			t.Errorf("got %v", err)
		}
	})
}
