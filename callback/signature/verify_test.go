package signature_test

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/callbatch/callbatch/callback/signature"
)

func TestVerify(t *testing.T) {
	var (
		sent     = time.Unix(1_780_000_000, 0)
		body     = []byte(`{"type":"batch.completed"}`)
		secret   = signature.NewSecret()
		old      = signature.NewSecret()
		stranger = signature.NewSecret()
	)
	for name, tc := range map[string]struct {
		alter     func(http.Header)
		body      string
		now       time.Time
		tolerance time.Duration
		secrets   []signature.Secret
		want      error // nil: accepted
		not       error // must not be this one
	}{
		"as sent":                                {},
		"five minutes old":                       {now: sent.Add(5 * time.Minute)},
		"five minutes ahead":                     {now: sent.Add(-5 * time.Minute)},
		"older than five minutes":                {now: sent.Add(301 * time.Second), want: signature.ErrTooOld},
		"more than five minutes ahead":           {now: sent.Add(-301 * time.Second), want: signature.ErrTooNew},
		"older than a narrower tolerance":        {now: sent.Add(2 * time.Second), tolerance: time.Second, want: signature.ErrTooOld},
		"any age with a negative tolerance":      {now: sent.AddDate(10, 0, 0), tolerance: -1},
		"the receiver has only the old secret":   {secrets: []signature.Secret{old}},
		"the receiver has both":                  {secrets: []signature.Secret{stranger, secret}},
		"a stranger's secret":                    {secrets: []signature.Secret{stranger}, want: signature.ErrNoMatch, not: signature.ErrBodyChanged},
		"no secret":                              {secrets: []signature.Secret{}, want: signature.ErrNoSecret},
		"only a zero secret":                     {secrets: []signature.Secret{{}}, want: signature.ErrNoSecret},
		"another body":                           {body: `{"type": "batch.completed"}`, want: signature.ErrBodyChanged},
		"another body, digest adjusted":          {body: "{}", alter: set(signature.HeaderDigest, signature.ContentDigest([]byte("{}"))), want: signature.ErrNoMatch, not: signature.ErrBodyChanged},
		"another id":                             {alter: set(signature.HeaderID, "msg_other"), want: signature.ErrNoMatch},
		"another time":                           {alter: set(signature.HeaderTimestamp, "1780000001"), want: signature.ErrNoMatch},
		"the same time written differently":      {alter: set(signature.HeaderTimestamp, "+1780000000"), want: signature.ErrNoMatch},
		"no id":                                  {alter: drop(signature.HeaderID), want: signature.ErrMissingHeader},
		"no timestamp":                           {alter: drop(signature.HeaderTimestamp), want: signature.ErrMissingHeader},
		"no signature":                           {alter: drop(signature.HeaderSignature), want: signature.ErrMissingHeader},
		"empty signature":                        {alter: set(signature.HeaderSignature, ""), want: signature.ErrMissingHeader},
		"two ids":                                {alter: func(h http.Header) { h.Add(signature.HeaderID, "msg_2") }, want: signature.ErrRepeatedHeader},
		"timestamp with a fraction":              {alter: set(signature.HeaderTimestamp, "1780000000.5"), want: signature.ErrBadTimestamp},
		"timestamp as a date":                    {alter: set(signature.HeaderTimestamp, "2026-05-28T20:26:40Z"), want: signature.ErrBadTimestamp},
		"negative timestamp":                     {alter: set(signature.HeaderTimestamp, "-1780000000"), want: signature.ErrBadTimestamp},
		"timestamp beyond all time":              {alter: set(signature.HeaderTimestamp, strconv.Itoa(math.MaxInt64)), want: signature.ErrBadTimestamp},
		"unknown versions beside ours":           {alter: edit(func(s string) string { return "v1a,AAAA v2,BBBB " + s + " v3" })},
		"unknown versions only":                  {alter: edit(func(s string) string { return strings.ReplaceAll(s, "v1,", "v1a,") }), want: signature.ErrNoVersion},
		"signatures without a version":           {alter: edit(func(s string) string { return strings.ReplaceAll(s, "v1,", "") }), want: signature.ErrNoVersion},
		"signatures joined by commas":            {alter: edit(func(s string) string { return strings.ReplaceAll(s, " ", ",") }), want: signature.ErrCommaList},
		"signature cut short":                    {alter: edit(func(s string) string { return s[:20] }), want: signature.ErrNoMatch},
		"another body, digest of another kind":   {body: "{}", alter: set(signature.HeaderDigest, "sha-512=:AAAA:"), want: signature.ErrNoMatch, not: signature.ErrBodyChanged},
		"signature of an empty key on no secret": {secrets: nil, alter: edit(func(string) string { return "v1," }), want: signature.ErrNoMatch},
	} {
		t.Run(name, func(t *testing.T) {
			header := message("msg_1", sent, body, secret, old)
			if tc.alter != nil {
				tc.alter(header)
			}
			got := body
			if tc.body != "" {
				got = []byte(tc.body)
			}
			now := tc.now
			if now.IsZero() {
				now = sent
			}
			secrets := tc.secrets
			if secrets == nil {
				secrets = []signature.Secret{secret}
			}

			err := signature.Verify(header, got, now, tc.tolerance, secrets...)
			if !errors.Is(err, tc.want) {
				t.Errorf("Verify = %v, want %v", err, tc.want)
			}
			if tc.not != nil && errors.Is(err, tc.not) {
				t.Errorf("Verify = %v, which must not be %v", err, tc.not)
			}
		})
	}
}

func TestVerifySaysByHowMuchTheTimeIsWrong(t *testing.T) {
	sent, body, secret := time.Unix(1_780_000_000, 0), []byte("{}"), signature.NewSecret()
	for name, tc := range map[string]struct {
		stamp string
		now   time.Time
		says  string
	}{
		"old":          {"1780000000", sent.Add(2 * time.Hour), "sent 2h0m0s ago, 5m0s is allowed"},
		"ahead":        {"1780000000", sent.Add(-time.Hour), "sent 1h0m0s ahead of this clock, 5m0s is allowed"},
		"milliseconds": {"1780000000000", sent, "looks like milliseconds"},
	} {
		t.Run(name, func(t *testing.T) {
			header := message("msg_1", sent, body, secret)
			header.Set(signature.HeaderTimestamp, tc.stamp)
			if err := signature.Verify(header, body, tc.now, 0, secret); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Verify = %v, want an error that says %q", err, tc.says)
			}
		})
	}
}

func TestCheckDigest(t *testing.T) {
	body := []byte("{}")
	good, other := signature.ContentDigest(body), signature.ContentDigest([]byte("[]"))
	for name, tc := range map[string]struct {
		values        []string
		agrees, known bool
	}{
		"none":                {},
		"this body's":         {[]string{good}, true, true},
		"another body's":      {[]string{other}, false, true},
		"another kind":        {[]string{"sha-512=:AAAA:"}, false, false},
		"two kinds in one":    {[]string{"sha-512=:AAAA:, " + good}, true, true},
		"two kinds, another":  {[]string{"sha-512=:AAAA:", other}, false, true},
		"not a digest at all": {[]string{"sha-256"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			for _, v := range tc.values {
				header.Add(signature.HeaderDigest, v)
			}
			if agrees, known := signature.CheckDigest(header, body); agrees != tc.agrees || known != tc.known {
				t.Errorf("CheckDigest = %v, %v; want %v, %v", agrees, known, tc.agrees, tc.known)
			}
		})
	}
}

func TestVerifyAcceptsThePublishedVectors(t *testing.T) {
	for _, v := range vectors {
		header := http.Header{}
		header.Set(signature.HeaderID, v.id)
		header.Set(signature.HeaderTimestamp, strconv.FormatInt(v.unix, 10))
		header.Set(signature.HeaderSignature, v.want)
		if err := signature.Verify(header, []byte(v.body), time.Unix(v.unix, 0), 0, mustParse(t, v.secret)); err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
	}
}

func set(name, value string) func(http.Header) {
	return func(h http.Header) { h.Set(name, value) }
}

func drop(name string) func(http.Header) {
	return func(h http.Header) { h.Del(name) }
}

func edit(f func(string) string) func(http.Header) {
	return func(h http.Header) { h.Set(signature.HeaderSignature, f(h.Get(signature.HeaderSignature))) }
}
