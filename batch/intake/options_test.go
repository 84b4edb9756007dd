package intake_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// found returns the pointers and codes of a refusal's problems.
func found(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var got []string
	for _, p := range refused(t, err).Places {
		got = append(got, p.Pointer, p.Code)
	}
	return strings.Join(got, " ")
}

func TestOptionsThatSteer(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, json, query string // query "-": there is no such form
		want              batch.Options
		wrong             string // pointers and codes of the problems
	}{
		{"not_before", `"2026-11-23T12:00:00Z"`, "2026-11-23T12:00:00Z", batch.Options{NotBefore: noon}, ""},
		{"not_before", `"2026-11-23T13:00:00+01:00"`, "2026-11-23T13:00:00+01:00", batch.Options{NotBefore: noon}, ""},
		{"not_before", `"2026-11-23 12:00"`, "2026-11-23 12:00", batch.Options{}, "/not_before bad_time"},
		{"not_before", `"9999-12-31T23:59:59-01:00"`, "9999-12-31T23:59:59-01:00", batch.Options{}, "/not_before out_of_range"},
		{"not_before", `"0001-01-01T00:00:00Z"`, "0001-01-01T00:00:00Z", batch.Options{}, "/not_before bad_time"},
		{"not_before", `""`, "", batch.Options{}, "/not_before bad_time"},
		{"not_before", `1763899200`, "-", batch.Options{}, "/not_before wrong_type"},
		{"not_before", `null`, "-", batch.Options{}, "/not_before wrong_type"},
		{"expires_in", `"30m"`, "30m", batch.Options{ExpiresIn: 30 * time.Minute}, ""},
		{"expires_in", `"1h30m"`, "1h30m", batch.Options{ExpiresIn: 90 * time.Minute}, ""},
		{"expires_in", `"0s"`, "0s", batch.Options{}, "/expires_in bad_duration"},
		{"expires_in", `"-1s"`, "-1s", batch.Options{}, "/expires_in bad_duration"},
		{"expires_in", `"1ns"`, "1ns", batch.Options{}, "/expires_in out_of_range"},
		{"expires_in", `"100000h"`, "100000h", batch.Options{}, "/expires_in out_of_range"},
		{"expires_in", `"30"`, "30", batch.Options{}, "/expires_in bad_duration"},
		{"expires_in", `30`, "-", batch.Options{}, "/expires_in wrong_type"},
		{"max_failures", `0`, "0", batch.Options{MaxFailures: "0"}, ""},
		{"max_failures", `12`, "12", batch.Options{MaxFailures: "12"}, ""},
		{"max_failures", `"5%"`, "5%", batch.Options{MaxFailures: "5%"}, ""},
		{"max_failures", `"0.25%"`, "0.25%", batch.Options{MaxFailures: "0.25%"}, ""},
		{"max_failures", `"101%"`, "101%", batch.Options{}, "/max_failures bad_tolerance"},
		{"max_failures", `-1`, "-1", batch.Options{}, "/max_failures bad_tolerance"},
		{"max_failures", `1.5`, "1.5", batch.Options{}, "/max_failures bad_tolerance"},
		{"max_failures", `"12"`, "-", batch.Options{}, "/max_failures wrong_type"},
		{"max_failures", `true`, "-", batch.Options{}, "/max_failures wrong_type"},
		{"max_failures", `""`, "-", batch.Options{}, "/max_failures wrong_type"},
		{"max_failures", `null`, "", batch.Options{}, "/max_failures wrong_type"},
	} {
		t.Run(c.name+" as "+c.json, func(t *testing.T) {
			judge := func(form string, o batch.Options, err error, wrong string) {
				t.Helper()
				if got := found(t, err); got != wrong {
					t.Fatalf("%s: got %q, want %q", form, got, wrong)
				}
				if err == nil && (!o.NotBefore.Equal(c.want.NotBefore) || o.ExpiresIn != c.want.ExpiresIn || o.MaxFailures != c.want.MaxFailures) {
					t.Errorf("%s: got %+v", form, o)
				}
			}
			_, o, err := read(t, request(asJSON, fmt.Sprintf(`{%q:%s,"items":[1]}`, c.name, c.json)), withProcessor)
			judge("JSON", o, err, c.wrong)
			if c.query == "-" {
				return
			}
			wrong := c.wrong
			if c.name == "max_failures" && c.query == "" {
				wrong = "/max_failures empty"
			}
			r := request(asNDJSON, "1\n")
			r.Query = url.Values{c.name: {c.query}}
			_, o, err = read(t, r, withProcessor)
			judge("query", o, err, wrong)
		})
	}
}

func TestAmendments(t *testing.T) {
	t.Run("say what changes", func(t *testing.T) {
		a, err := intake.Amendment([]byte(`{"callback_url":"https://b.example/","callback_headers":{"x-a":"1","x-b":null},"metadata":null,
			"priority":"low","expires_in":"2h","max_failures":"5%","concurrency":3}`))
		if err != nil {
			t.Fatal(err)
		}
		if *a.CallbackURL != "https://b.example/" || *a.CallbackHeaders["x-a"] != "1" || a.CallbackHeaders["x-b"] != nil || len(a.CallbackHeaders) != 2 ||
			a.BareCallback || !a.BareMetadata || *a.Priority != batch.PriorityLow || *a.ExpiresIn != 2*time.Hour || *a.MaxFailures != "5%" || *a.Concurrency != 3 {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("take back with null", func(t *testing.T) {
		a, err := intake.Amendment([]byte(`{"callback_headers":null,"priority":null,"expires_in":null,"max_failures":null,"concurrency":null}`))
		if err != nil {
			t.Fatal(err)
		}
		if !a.BareCallback || *a.Priority != batch.PriorityNormal || *a.ExpiresIn != 0 || *a.MaxFailures != "" || *a.Concurrency != 0 || a.Metadata != nil || a.CallbackURL != nil {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("may be nothing", func(t *testing.T) {
		if a, err := intake.Amendment([]byte(`{}`)); err != nil || a.Priority != nil {
			t.Errorf("got %+v, %v", a, err)
		}
	})
	for body, want := range map[string]string{
		``:                        "",
		`null`:                    " wrong_type",
		`[]`:                      " wrong_type",
		`{"priority":"high"`:      " invalid_json",
		`{"a":1,"a":1}`:           "/a duplicate_member",
		`{"colour":null}`:         "/colour unknown_member",
		`{"processor":"x"}`:       "/processor fixed_option",
		`{"not_before":null}`:     "/not_before fixed_option",
		`{"callback_url":null}`:   "/callback_url wrong_type",
		`{"callback_url":""}`:     "/callback_url empty",
		`{"priority":"urgent"}`:   "/priority unknown_value",
		`{"concurrency":0}`:       "/concurrency out_of_range",
		`{"concurrency":"3"}`:     "/concurrency wrong_type",
		`{"expires_in":"soon"}`:   "/expires_in bad_duration",
		`{"max_failures":"200%"}`: "/max_failures bad_tolerance",
		`{"metadata":"x"}`:        "/metadata wrong_type",
		`{"metadata":{"k":1}}`:    "/metadata/k wrong_type",
		`{"callback_headers":{"X-A":["s3cret"]}}`:                      "/callback_headers/X-A wrong_type",
		`{"priority":7,"expires_in":7,"metadata":[],"callback_url":7}`: "/callback_url wrong_type /expires_in wrong_type /metadata wrong_type /priority wrong_type",
	} {
		t.Run("not "+body, func(t *testing.T) {
			_, err := intake.Amendment([]byte(body))
			if err == nil || found(t, err) != want || strings.Contains(fmt.Sprintf("%+v", err), "s3cret") {
				t.Errorf("got %v at %q", err, found(t, err))
			}
		})
	}
}
