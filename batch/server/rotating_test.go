package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/callbatch/callbatch/batch/server"
)

func TestARotationIsKnownOnceItIsAnswered(t *testing.T) {
	s := newSite(t, server.Options{Processors: map[string]server.Processor{"noop": {Do: noop}}})
	var secret string // written between the attempts only
	h := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		wh, err := standardwebhooks.NewWebhook(secret)
		if err == nil {
			err = wh.Verify(body, r.Header)
		}
		if n := len(strings.Fields(r.Header.Get("webhook-signature"))); err != nil || n != 1 {
			t.Errorf("%d signatures: %v", n, err)
		}
	}))
	defer h.Close()
	secret = s.secret()
	for range 5 {
		s.post("/v1/callbacks/test", `{"url":"`+h.URL+`"}`, nil)
		var v struct{ Secret string }
		s.post("/v1/callbacks/secret/rotate", `{"keep_old_for":"0s"}`, &v)
		secret = v.Secret
	}
	s.post("/v1/callbacks/test", `{"url":"`+h.URL+`"}`, nil)
}

// post has the site do what the body says, and reads what it answers.
func (s *site) post(path, body string, into any) {
	s.t.Helper()
	resp, err := http.Post(s.base+path, "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && into != nil {
		err = json.Unmarshal(answer, into)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("POST %s: %s %s, %v", path, resp.Status, answer, err)
	}
}
