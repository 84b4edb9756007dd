package intake_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// digest returns the digest of a submission, which is accepted.
func digest(t *testing.T, r intake.Request, o intake.Options) string {
	t.Helper()
	r.Digest = true
	c, err := intake.Read(t.Context(), r, &recorder{t: t}, o)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", c.Digest)
}

func TestDigestOfTheContent(t *testing.T) {
	inQuery := func(r intake.Request, q string) intake.Request {
		r.Query, _ = url.ParseQuery(q)
		return r
	}
	zipped := func(text string) intake.Request {
		b := zip(t, text)
		return intake.Request{ContentType: asNDJSON, ContentEncoding: "gzip", Body: bytes.NewReader(b), Length: int64(len(b))}
	}
	want := digest(t, request(asJSON, `{"priority":"high","metadata":{"a":"1","b":"2"},"items":[{"n":1},2]}`), withProcessor)
	for name, r := range map[string]intake.Request{
		"another order":        request(asJSON, `{"items":[{"n":1},2],"metadata":{"b":"2","a":"1"},"priority":"high"}`),
		"defaults said":        request(asJSON, `{"processor":"price","callback_mode":"results","priority":"high","metadata":{"a":"1","b":"2"},"items":[{"n":1},2]}`),
		"white space":          request(asJSON, "{\"priority\": \"high\", \"metadata\":{\"a\":\"1\",\"b\":\"2\"},\n\"items\":[ {\"n\":1} , 2 ]}"),
		"escapes in an option": request(asJSON, `{"priority":"\u0068igh","metadata":{"a":"1","b":"2"},"items":[{"n":1},2]}`),
		"lines":                inQuery(request(asNDJSON, "{\"n\":1}\r\n\r\n 2"), "priority=high&metadata.a=1&metadata.b=2"),
		"lines, zipped":        inQuery(zipped("{\"n\":1}\n2\n"), `priority=high&metadata={"a":"1","b":"2"}`),
	} {
		if got := digest(t, r, withProcessor); got != want {
			t.Errorf("%s: another digest", name)
		}
	}
	seen := map[string]string{want: "the first"}
	for name, r := range map[string]intake.Request{
		"an option less":         request(asJSON, `{"priority":"high","metadata":{"a":"1"},"items":[{"n":1},2]}`),
		"other items":            request(asJSON, `{"priority":"high","metadata":{"a":"1","b":"2"},"items":[{"n":1},3]}`),
		"items the other way":    request(asJSON, `{"priority":"high","metadata":{"a":"1","b":"2"},"items":[2,{"n":1}]}`),
		"an escape in an item":   request(asJSON, `{"priority":"high","metadata":{"a":"1","b":"2"},"items":[{"\u006e":1},2]}`),
		"attempts spelled out":   request(asJSON, `{"priority":"high","max_attempts":5,"metadata":{"a":"1","b":"2"},"items":[{"n":1},2]}`),
		"white space in an item": request(asJSON, `{"priority":"high","metadata":{"a":"1","b":"2"},"items":[{"n": 1},2]}`),
		"one item of the digits": request(asJSON, `{"items":[12]}`),
		"two items of them":      request(asJSON, `{"items":[1,2]}`),
	} {
		got := digest(t, r, withProcessor)
		if other, is := seen[got]; is {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[got] = name
	}
	if c, err := intake.Read(t.Context(), request(asNDJSON, "1"), &recorder{t: t}, withProcessor); err != nil || c.Digest != [32]byte{} || c.Items != 1 {
		t.Errorf("got %+v, %v without asking", c, err)
	}
}

func TestValidateOnly(t *testing.T) {
	query := func(r intake.Request, value string) intake.Request {
		r.Query = url.Values{"validate_only": {value}}
		return r
	}
	lines := file("a.ndjson", "", "1\n2\n")
	for _, c := range []struct {
		name   string
		r      intake.Request
		only   bool
		reason string
	}{
		{"lines", query(request(asNDJSON, "1\n2\n"), "true"), true, ""},
		{"not wanted", query(request(asNDJSON, "1\n2\n"), "false"), false, ""},
		{"a table", query(request(asCSV, "a\n1\n2\n"), "true"), true, ""},
		{"a document", request(asJSON, `{"validate_only":true,"items":[1,2]}`), true, ""},
		{"a document that says so at its end", request(asJSON, `{"items":[1,2],"validate_only":true}`), true, ""},
		{"a form", request(asForm, formOf(field("validate_only", "true"), lines)), true, ""},
		{"a form that says so at its end", request(asForm, formOf(lines, field("validate_only", "true"))), true, ""},
		{"another word", query(request(asNDJSON, "1"), "yes"), false, "wrong_type"},
		{"text in a document", request(asJSON, `{"items":[1],"validate_only":"true"}`), false, "wrong_type"},
		{"a fault in a line", query(request(asNDJSON, "1\nx\n"), "true"), false, "invalid_json"},
		{"an id twice", request(asJSON, `{"validate_only":true,"id_field":"","items":[1],"id_field":"/a"}`), false, "duplicate_member"},
		{"ids twice", request(asJSON, `{"validate_only":true,"id_field":"/a","items":[{"a":1},{"a":1}]}`), false, "duplicate_id"},
		{"no items", query(request(asCSV, "a\n"), "true"), false, "empty_batch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stage := &recorder{t: t}
			got, err := intake.Read(t.Context(), c.r, stage, withProcessor)
			if c.reason != "" {
				if e := refused(t, err); e.Word() != c.reason {
					t.Errorf("got %s: %v", e.Word(), e)
				}
				return
			}
			if err != nil || got.ValidateOnly != c.only || got.Items != 2 || c.only == (len(stage.items) > 0) {
				t.Errorf("got %+v, %v, %d items appended", got, err, len(stage.items))
			}
		})
	}
}

func TestReadOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		r      intake.Request
		want   string // id_field
		reason string
	}{
		{"in the query", intake.Request{Query: url.Values{"id_field": {"/a"}}}, "/a", ""},
		{"in the query beside a content type", intake.Request{ContentType: asJSON, Query: url.Values{"id_field": {"/a"}}}, "/a", ""},
		{"in an object", request(asJSON, `{"id_field":"/a"}`), "/a", ""},
		{"an empty object", request(asJSON, `{}`), "", ""},
		{"with items", request(asJSON, `{"id_field":"/a","items":[]}`), "", "items_beside_options"},
		{"as lines", request(asNDJSON, `{"id_field":"/a"}`), "", "unsupported_content_type"},
		{"in both places", intake.Request{ContentType: asJSON, Query: url.Values{"id_field": {"/a"}}, Body: strings.NewReader("{}"), Length: 2}, "", "unknown_option"},
		{"bad ones", request(asJSON, `{"id_field":"a"}`), "", "bad_pointer"},
		{"a bad query", intake.Request{Query: url.Values{"colour": {"red"}}}, "", "unknown_option"},
		{"half an object", request(asJSON, `{"id_field"`), "", "invalid_json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := intake.ReadOptions(t.Context(), c.r, withProcessor)
			if c.reason != "" {
				if e := refused(t, err); e.Word() != c.reason {
					t.Errorf("got %s: %v", e.Word(), e)
				}
				return
			}
			if err != nil || got.Options.IDField != c.want || got.Options.Processor != "price" || got.Items != 0 {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// itemsSum returns the digest of items that are short.
func itemsSum(items ...string) [sha256.Size]byte {
	h := sha256.New()
	for _, raw := range items {
		h.Write(append([]byte{byte(len(raw))}, raw...))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func TestReadPart(t *testing.T) {
	of := batch.Options{Processor: "price", IDField: "/id"}
	readPart := func(t *testing.T, r intake.Request, o intake.Options) (*recorder, intake.Part, error) {
		stage := &recorder{t: t}
		p, err := intake.ReadPart(t.Context(), r, stage, o, of)
		return stage, p, err
	}
	t.Run("what it holds is returned", func(t *testing.T) {
		lines := "{\"id\":\"a\"}\n\n{\"id\":\"b\"}\n"
		document := `{"items":[{"id":"a"},{"id":"b"}]} `
		zipped := zip(t, lines)
		for _, c := range []struct {
			r    intake.Request
			text string
		}{
			{request(asNDJSON, lines), lines},
			{request(asJSON, document), document},
			{intake.Request{ContentType: asNDJSON, ContentEncoding: "gzip", Body: bytes.NewReader(zipped), Length: -1}, lines},
		} {
			stage, got, err := readPart(t, c.r, intake.Options{})
			want := intake.Part{Items: 2, Bytes: int64(len(c.text)), SHA256: sha256.Sum256([]byte(c.text)), Content: itemsSum(`{"id":"a"}`, `{"id":"b"}`)}
			if err != nil || got != want || !slices.Equal(stage.ids(), []string{"a", "b"}) {
				t.Errorf("%s: got %+v, %v, ids %q", c.r.ContentType, got, err, stage.ids())
			}
		}
	})
	for _, c := range []struct {
		name   string
		r      intake.Request
		limits intake.Options
		reason string
		says   string
	}{
		{"options in the query", intake.Request{ContentType: asNDJSON, Query: url.Values{"priority": {"low"}}, Body: strings.NewReader("1"), Length: 1}, intake.Options{}, "unknown_option", "those of the batch"},
		{"options beside the items", request(asJSON, `{"priority":"low","items":[{"id":1}]}`), intake.Options{}, "option_beside_items", "those of the batch"},
		{"no items", request(asNDJSON, ""), intake.Options{}, "empty_part", "a part has at least one item"},
		{"items without the id", request(asNDJSON, "1"), intake.Options{}, "bad_id", "line 1"},
		{"an id twice", request(asNDJSON, "{\"id\":1}\n\n{\"id\":1}"), intake.Options{}, "duplicate_id", "line 3"},
		{"more bytes than a part may have", request(asNDJSON, `{"id":"1234"}`), intake.Options{PartBytes: 12}, "part_too_large", "limits.part_bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := readPart(t, c.r, c.limits)
			if e := refused(t, err); e.Word() != c.reason || !strings.Contains(e.Message, c.says) {
				t.Errorf("got %s: %v", e.Word(), e)
			}
		})
	}
}

func TestItemsAreCheckedByTheirProcessor(t *testing.T) {
	asked := 0
	o := withProcessor
	o.CheckItems = func(of batch.Options) func([]byte) []batch.Problem {
		asked++
		if of.Processor == "anything" {
			return nil
		}
		return func(raw []byte) []batch.Problem {
			if string(raw) == "7" {
				return []batch.Problem{{Pointer: "/qty", Code: "schema", Detail: of.Processor + " says no"}}
			}
			return nil
		}
	}
	place := func(index, line int, processor string) batch.Problem {
		return batch.Problem{Index: index, Line: line, Pointer: "/qty", Code: "schema", Detail: processor + " says no"}
	}
	anything := request(asNDJSON, "7\n")
	anything.Query = url.Values{"processor": {"anything"}}
	for _, c := range []struct {
		name string
		r    intake.Request
		want []batch.Problem
	}{
		{"lines", request(asNDJSON, "1\n\n7\n8\n7"), []batch.Problem{place(1, 3, "price"), place(3, 5, "price")}},
		{"a document", request(asJSON, `{"items":[1,7]}`), []batch.Problem{place(1, -1, "price")}},
		{"all that decides before the items", request(asJSON, `{"id_field":"","processor":"weigh","items":[7]}`), []batch.Problem{place(0, -1, "weigh")}},
		{"the processor behind the items", request(asJSON, `{"id_field":"","items":[7],"processor":"weigh"}`), []batch.Problem{place(0, -1, "weigh")}},
		{"items that are fine", request(asNDJSON, "1\n"), nil},
		{"a processor that takes anything", anything, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked = 0
			_, _, err := read(t, c.r, o)
			if asked != 1 {
				t.Errorf("asked %d times", asked)
			}
			if c.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			e := refused(t, err)
			if d := cmp.Diff(c.want, e.Places); d != "" || e.Code != batch.Invalid || e.Reason != "schema" {
				t.Errorf("got %s %s\n%s", e.Code, e.Reason, d)
			}
		})
	}
	t.Run("a part", func(t *testing.T) {
		_, err := intake.ReadPart(t.Context(), request(asNDJSON, "1\n7"), &recorder{t: t}, o, batch.Options{Processor: "weigh"})
		if e := refused(t, err); len(e.Places) != 1 || e.Places[0] != place(1, 2, "weigh") {
			t.Errorf("got %+v", e)
		}
	})
}
