package callback

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEveryStatusHasItsVerdict(t *testing.T) {
	want := func(status int) (Verdict, string) {
		switch {
		case status == 410:
			return Gone, CategoryStatus
		case status == 413:
			return Gone, CategoryTooLarge
		case status/100 == 2:
			return Delivered, ""
		case status/100 == 3:
			return Retry, CategoryRedirect
		}
		return Retry, CategoryStatus
	}
	for status := 100; status <= 999; status++ {
		verdict, category, detail := judge(&http.Response{StatusCode: status})
		wantVerdict, wantCategory := want(status)
		if verdict != wantVerdict || category != wantCategory || (detail == "") != (verdict == Delivered) {
			t.Errorf("%d: %s, %q, %q; want %s, %q", status, verdict, category, detail, wantVerdict, wantCategory)
		}
	}
}

func TestADetailNamesTheRemedy(t *testing.T) {
	for _, tc := range []struct {
		status   int
		location string
		says     []string
		not      string
	}{
		{410, "", []string{"410 Gone", "callback_url", "redeliver"}, ""},
		{413, "", []string{"413", "callback_page_bytes", "summary"}, ""},
		{503, "", []string{"503 Service Unavailable"}, ""},
		{307, "https://new.example:8443/hook?token=s3cret", []string{`to "new.example:8443"`, "callback_url"}, "s3cret"},
		{301, "https://u:s3cret@new.example/", []string{`"new.example"`}, "s3cret"},
		{302, "/login?s3cret", []string{"302 Found; redirects"}, "s3cret"},
		{302, "https://" + strings.Repeat("s3cret", 100) + "/", []string{"302 Found; redirects"}, "s3cret"},
		{302, "http://[s3cret", []string{"302 Found; redirects"}, "s3cret"},
		{304, "", []string{"304 Not Modified is no acknowledgement; answer 2xx"}, "callback_url"},
		{304, "https://new.example/", []string{"answer 2xx"}, "new.example"},
	} {
		res := &http.Response{StatusCode: tc.status, Header: http.Header{}}
		if tc.location != "" {
			res.Header[hiddenLocation] = []string{tc.location}
		}
		_, _, detail := judge(res)
		for _, s := range tc.says {
			if !strings.Contains(detail, s) {
				t.Errorf("%d: %q does not say %q", tc.status, detail, s)
			}
		}
		if tc.not != "" && strings.Contains(detail, tc.not) {
			t.Errorf("%d: %q says %q", tc.status, detail, tc.not)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		status int
		values []string
		want   time.Duration
	}{
		{429, []string{"120"}, 2 * time.Minute},
		{503, []string{"120"}, 2 * time.Minute},
		{500, []string{"120"}, 0},
		{301, []string{"120"}, 0},
		{429, nil, 0},
		{429, []string{""}, 0},
		{429, []string{"0"}, 0},
		{429, []string{" 7 "}, 7 * time.Second},
		{429, []string{"Mon, 23 Nov 2026 12:05:00 GMT"}, 5 * time.Minute},
		{429, []string{"Monday, 23-Nov-26 12:05:00 GMT"}, 5 * time.Minute},
		{429, []string{"Mon Nov 23 12:05:00 2026"}, 5 * time.Minute},
		{429, []string{"Mon, 23 Nov 2026 11:00:00 GMT"}, 0},
		{429, []string{"Fri, 31 Dec 9999 23:59:59 GMT"}, maxRetryAfter},
		{429, []string{"2592001"}, maxRetryAfter},
		{429, []string{"9223372037"}, maxRetryAfter}, // seconds that overflow a time.Duration
		{429, []string{"9223372036854775808"}, maxRetryAfter},
		{429, []string{strings.Repeat("9", 1000)}, maxRetryAfter},
		{429, []string{"-1"}, 0},
		{429, []string{"+1"}, 0},
		{429, []string{"1.5"}, 0},
		{429, []string{"1e3"}, 0},
		{429, []string{"soon"}, 0},
		{429, []string{"2026-11-23T12:05:00Z"}, 0},
		{429, []string{"60", "3600"}, time.Minute},
	} {
		res := &http.Response{StatusCode: tc.status, Header: http.Header{"Retry-After": tc.values}}
		if got := retryAfter(res, now); got != tc.want {
			t.Errorf("%d with %.40q: %s, want %s", tc.status, tc.values, got, tc.want)
		}
	}
}

func TestVerdictsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for v := Retry; v <= Interrupted; v++ {
		if name := v.String(); seen[name] || strings.HasPrefix(name, "Verdict(") {
			t.Errorf("verdict %d is called %q", v, name)
		} else {
			seen[name] = true
		}
	}
	if got := Verdict(99).String(); got != "Verdict(99)" {
		t.Errorf("an unknown verdict is called %q", got)
	}
}
