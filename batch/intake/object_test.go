package intake_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

type order struct {
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
}

func TestObjectsAreReadStrictly(t *testing.T) {
	for body, want := range map[string]order{
		`{}`:      {},
		" {}\r\n": {},
		`{"url":"\u0061","headers":{"A":"b","a":""}}`: {URL: "a", Headers: map[string]string{"A": "b", "a": ""}},
	} {
		var got order
		if err := intake.Object([]byte(body), &got); err != nil || !cmp.Equal(want, got) {
			t.Errorf("%s: %v %s", body, err, cmp.Diff(want, got))
		}
	}
	deep := strings.Repeat("[", 20_000)
	for _, c := range []struct {
		body    string
		code    batch.Code
		reason  string
		pointer string
	}{
		{"", batch.Malformed, "empty_body", ""},
		{"  ", batch.Malformed, "invalid_json", ""},
		{"{", batch.Malformed, "invalid_json", ""},
		{"{}{}", batch.Malformed, "invalid_json", ""},
		{"{}\x00", batch.Malformed, "invalid_json", ""},
		{"\ufeff{}", batch.Malformed, "invalid_json", ""},
		{`{"url":s3cret}`, batch.Malformed, "invalid_json", "/url"},
		{`{"url":"` + "\xff" + `s3cret"}`, batch.Malformed, "invalid_utf8", "/url"},
		{`{"url":"\ud800s3cret"}`, batch.Malformed, "lone_surrogate", "/url"},
		{`{"headers":{"A":"\us3cret"}}`, batch.Malformed, "invalid_json", "/headers/A"},
		{`{"headers":{"A":"\s3cret"}}`, batch.Malformed, "invalid_json", "/headers/A"},
		{`{"url":"s3cret","url":"s3cret"}`, batch.Malformed, "duplicate_member", "/url"},
		{`{"url":"s3cret","\u0075rl":"s3cret"}`, batch.Malformed, "duplicate_member", "/url"},
		{`{"headers":{"A":"s3cret","A":"s3cret"}}`, batch.Malformed, "duplicate_member", "/headers/A"},
		{`{"headers":` + deep, batch.Invalid, "wrong_type", "/headers"},
		{deep, batch.Invalid, "wrong_type", ""},
		{`null`, batch.Invalid, "wrong_type", ""},
		{`"s3cret"`, batch.Invalid, "wrong_type", ""},
		{`{"url":null}`, batch.Invalid, "wrong_type", "/url"},
		{`{"headers":null}`, batch.Invalid, "wrong_type", "/headers"},
		{`{"headers":{"A":null}}`, batch.Invalid, "wrong_type", "/headers/A"},
		{`{"headers":{"A":["s3cret"]}}`, batch.Invalid, "wrong_type", "/headers/A"},
		{`{"headers":"s3cret"}`, batch.Invalid, "wrong_type", "/headers"},
		{`{"url":{"s3cret":1}}`, batch.Invalid, "wrong_type", "/url"},
		{`{"URL":"s3cret"}`, batch.Invalid, "unknown_member", "/URL"},
		{`{"a~/b":"s3cret"}`, batch.Invalid, "unknown_member", "/a~0~1b"},
		{`{"` + strings.Repeat("x", 50_000) + `":1}`, batch.Invalid, "unknown_member", "/" + strings.Repeat("x", 199) + "…"},
	} {
		var got order
		err := intake.Object([]byte(c.body), &got)
		e, ok := errors.AsType[*batch.Error](err)
		if !ok || e.Code != c.code || e.Word() != c.reason {
			t.Errorf("%.40s: %v, want %s %s", c.body, err, c.code, c.reason)
			continue
		}
		if c.reason != "empty_body" && (len(e.Places) != 1 || e.Places[0].Pointer != c.pointer || e.Places[0].Index != -1 || e.Places[0].Line != -1) {
			t.Errorf("%.40s: the places are %+v, want %s", c.body, e.Places, c.pointer)
		}
		if strings.Contains(e.Message, "3cret") || len(e.Message) > 500 {
			t.Errorf("%.40s: it says %s", c.body, e.Message)
		}
	}
}
