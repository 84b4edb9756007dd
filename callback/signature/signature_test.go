package signature_test

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	oracle "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"

	"github.com/callbatch/callbatch/callback/signature"
)

// The vectors of the official libraries' own test suites.
var vectors = []struct {
	name, secret, id string
	unix             int64
	body, want       string
}{
	{
		name:   "libraries/go/webhook_test.go",
		secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		id:     "msg_p5jXN8AQM9LWM0D4loKWxJek",
		unix:   1614265330,
		body:   `{"test": 2432232314}`,
		want:   "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
	},
	{
		name:   "libraries/rust/src/lib.rs",
		secret: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
		id:     "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
		unix:   1649367553,
		body:   `{"email":"test@example.com","username":"test_user"}`,
		want:   "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
	},
}

func TestSignGivesThePublishedVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			secret := mustParse(t, v.secret)
			if got := signature.Sign(v.id, time.Unix(v.unix, 0), []byte(v.body), secret); got != v.want {
				t.Errorf("Sign = %s, want %s", got, v.want)
			}
		})
	}
}

func TestSignDuringRotation(t *testing.T) {
	v := vectors[0]
	first, second := mustParse(t, v.secret), mustParse(t, vectors[1].secret)
	sign := func(secrets ...signature.Secret) string {
		return signature.Sign(v.id, time.Unix(v.unix, 0), []byte(v.body), secrets...)
	}
	if got, want := sign(second, first), sign(second)+" "+v.want; got != want {
		t.Errorf("two secrets give %q, want one signature each, separated by a space: %q", got, want)
	}
	if got := sign(signature.Secret{}, first); got != v.want {
		t.Errorf("a zero secret beside a live one gives %q, want %q", got, v.want)
	}
	if got := sign(signature.Secret{}); got != "" {
		t.Errorf("a zero secret signs: %q", got)
	}
}

func TestSignAllocatesLittle(t *testing.T) {
	secret, body := signature.NewSecret(), make([]byte, 96<<10)
	allocs := testing.AllocsPerRun(100, func() { signature.Sign("msg_1", time.Unix(1, 0), body, secret) })
	if allocs > 16 {
		t.Errorf("Sign makes %.0f allocations; the body must be streamed into the HMAC", allocs)
	}
}

func TestContentDigest(t *testing.T) {
	// RFC 9530, appendix B.1, the second example.
	const want = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
	if got := signature.ContentDigest([]byte(`{"hello": "world"}`)); got != want {
		t.Errorf("ContentDigest = %s, want %s", got, want)
	}
}

func TestTheOfficialGoLibraryAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 24, 64).Draw(t, "key")
		id := rapid.StringMatching(`msg_[0-9a-z]{1,26}`).Draw(t, "id")
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		text := "whsec_" + base64.StdEncoding.EncodeToString(key)
		secret, err := signature.ParseSecret(text)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := oracle.NewWebhook(text)
		if err != nil {
			t.Fatal(err)
		}

		now := time.Now()
		ours := message(id, now, body, secret, signature.NewSecret())
		if err := theirs.Verify(body, ours); err != nil {
			t.Errorf("the official library refuses ours: %v", err)
		}
		value, err := theirs.Sign(id, now, body)
		if err != nil {
			t.Fatal(err)
		}
		ours.Set(signature.HeaderSignature, value)
		if err := signature.Verify(ours, body, now, 0, secret); err != nil {
			t.Errorf("we refuse theirs: %v", err)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	secret, body := signature.NewSecret(), []byte(strings.Repeat("x", 1024))
	b.ReportAllocs()
	for b.Loop() {
		signature.Sign("msg_01jdv7p3k5m2n4q6r8s0t2v4w6", time.Unix(1, 0), body, secret)
	}
}

// message returns the headers of a signed message.
func message(id string, at time.Time, body []byte, secrets ...signature.Secret) http.Header {
	h := http.Header{}
	h.Set(signature.HeaderID, id)
	h.Set(signature.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(signature.HeaderSignature, signature.Sign(id, at, body, secrets...))
	h.Set(signature.HeaderDigest, signature.ContentDigest(body))
	return h
}

func mustParse(t *testing.T, text string) signature.Secret {
	t.Helper()
	s, err := signature.ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
