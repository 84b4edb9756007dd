package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/callback/signature"
)

func TestAudience(t *testing.T) {
	ours, others := signature.NewSecret(), signature.NewSecret()
	a := &audience{seen: func(arrival) {}}
	r := &receiver{secrets: []signature.Secret{ours}, answer: a.answer}
	post := func(id string, by signature.Secret, body string) int {
		now := time.Now()
		req := httptest.NewRequest(http.MethodPost, "/hooks", bytes.NewBufferString(body))
		req.Header.Set(signature.HeaderID, id)
		req.Header.Set(signature.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
		req.Header.Set(signature.HeaderSignature, signature.Sign(id, now, []byte(body), by))
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		return w.Code
	}
	got := []int{
		post("a", ours, `{"type":"batch.results"}`),
		post("a", ours, `{"type":"batch.results"}`),
		post("b", others, `{"type":"batch.results"}`),
		post("c", ours, `not JSON`),
		post("d", ours, string(bytes.Repeat([]byte(" "), mostWebhook+1))),
	}
	want := []int{503, 204, 401, 401, 400}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers to the first, the same again, a stranger's, no JSON, too much (-want +got):\n%s", diff)
	}
	if n := len(a.all()); n != 4 {
		t.Errorf("%d arrivals were kept, want the 4 that could be read", n)
	}
}
