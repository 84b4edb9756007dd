package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestForwarder(t *testing.T) {
	const body = `{"type":"batch.completed"}`
	type seen struct {
		Method, URI, Body string
		Header            http.Header
	}
	// send passes a webhook on to a receiver that answers with handle.
	send := func(t *testing.T, handle http.HandlerFunc) (seen, reply, error) {
		var got seen
		target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text, _ := io.ReadAll(r.Body)
			got = seen{r.Method, r.RequestURI, string(text), r.Header}
			handle(w, r)
		}))
		defer target.Close()
		f, err := newForwarder(target.URL + "/in?a=b")
		if err != nil {
			t.Fatal(err)
		}
		defer f.close()
		req := httptest.NewRequest(http.MethodPost, "/hooks", nil)
		for name, value := range map[string]string{
			"Webhook-Id": "msg_1", "Webhook-Signature": "v1,a= v1,b=", "Callbatch-Attempt": "2", "Content-Type": "application/json",
			"Connection": "X-Hop, close", "X-Hop": "1", "Te": "trailers", "Expect": "100-continue",
		} {
			req.Header.Set(name, value)
		}
		r, err := f.pass(req, []byte(body))
		return got, r, err
	}

	t.Run("body and headers arrive unchanged", func(t *testing.T) {
		got, _, err := send(t, func(http.ResponseWriter, *http.Request) {})
		if err != nil {
			t.Fatal(err)
		}
		want := seen{http.MethodPost, "/in?a=b", body, http.Header{
			"Webhook-Id": {"msg_1"}, "Webhook-Signature": {"v1,a= v1,b="}, "Callbatch-Attempt": {"2"},
			"Content-Type": {"application/json"}, "Content-Length": {"26"},
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the target saw (-want +got):\n%s", diff)
		}
	})

	t.Run("the answer comes back, without what is the connection's", func(t *testing.T) {
		_, r, err := send(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Date"] = nil
			w.Header().Set("Retry-After", "7")
			w.Header().Set("Keep-Alive", "timeout=5")
			http.Error(w, "busy", http.StatusTooManyRequests)
		})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		r.write(w)
		want := http.Header{"Retry-After": {"7"}, "Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"}}
		if diff := cmp.Diff(want, w.Header()); diff != "" || w.Code != http.StatusTooManyRequests || w.Body.String() != "busy\n" {
			t.Errorf("answered %d %q, headers (-want +got):\n%s", w.Code, w.Body, diff)
		}
	})

	t.Run("a redirect is an answer", func(t *testing.T) {
		_, r, err := send(t, func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "/elsewhere", http.StatusTemporaryRedirect)
		})
		if err != nil || r.status != http.StatusTemporaryRedirect {
			t.Errorf("answered %d (%v), want 307", r.status, err)
		}
	})

	t.Run("of a long answer there is the beginning", func(t *testing.T) {
		_, r, err := send(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 2*mostReply))
		})
		if err != nil || len(r.body) != mostReply {
			t.Errorf("%d bytes (%v), want %d", len(r.body), err, mostReply)
		}
	})

	t.Run("an answer that breaks off, or changes the protocol, is none", func(t *testing.T) {
		for name, answer := range map[string]string{
			"broken":   "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
			"switched": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
		} {
			_, r, err := send(t, func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(conn, answer)
				conn.Close()
			})
			if err == nil {
				t.Errorf("%s: answered %d, want an error", name, r.status)
			}
		}
	})

	t.Run("a target that is not there is named by no URL", func(t *testing.T) {
		gone := httptest.NewServer(nil)
		gone.Close()
		f, err := newForwarder(gone.URL + "/?token=hush")
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.pass(httptest.NewRequest(http.MethodPost, "/", nil), nil)
		if err == nil || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "hush") {
			t.Errorf("error %v, want one that says refused and not the query", err)
		}
	})
}
