package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/callbatch/callbatch/batch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// against returns a client of a server that answers as h does.
func against(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := New(Options{URL: s.URL + "/", Key: "cbk_x", HTTP: s.Client()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestURLsThatAreNoServer(t *testing.T) {
	for _, u := range []string{"127.0.0.1:8080", "ftp://x", "http://", "https://u:p@x", "http://x?a=b", "http://x#f", "http://x:y", "http://x/v1", "http://x/v1/", "http://x/v1/batches"} {
		if _, err := New(Options{URL: u}); err == nil {
			t.Errorf("%s is accepted", u)
		}
	}
	if c, err := New(Options{}); err != nil || c.base != "http://127.0.0.1:8080" {
		t.Errorf("the default is %+v, %v", c, err)
	}
}

func TestTheURLHasNoVersion(t *testing.T) {
	_, err := New(Options{URL: "https://v1/under/v1/"})
	if err == nil || !strings.Contains(err.Error(), "a path too many: give the URL of the server alone, https://v1/under") {
		t.Errorf("%v", err)
	}
	if c, err := New(Options{URL: "https://v1/under/"}); err != nil || c.base != "https://v1/under" {
		t.Errorf("a server under a path of its own is %+v, %v", c, err)
	}
}

func TestSubmitSendsOptionsAsParameters(t *testing.T) {
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q := r.URL.Query()
		got := fmt.Sprint(r.Method, r.URL.Path, q, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), r.Header.Get("Content-Encoding"), string(body))
		want := fmt.Sprint("POST", "/v1/batches", map[string][]string{
			"processor": {"price"}, "callback_url": {"https://x/?a=b&c"}, "callback_mode": {"summary"}, "callback_page_bytes": {"2048"},
			"callback_page_items": {"7"}, "id_field": {"/id"}, "metadata.a b": {"ü"}, "priority": {"low"}, "max_attempts": {"3"}, "concurrency": {"9"},
			"not_before": {"2026-11-23T12:00:00.5Z"}, "expires_in": {"1h30m0s"}, "max_failures": {"5%"},
			"callback_events": {`["batch.progress"]`}, "callback_headers": {`{"Authorization":"Bearer \"a\""}`},
		}, "Bearer cbk_x", "application/x-ndjson", "gzip", "items")
		if got != want {
			t.Errorf("it sent\n%s, want\n%s", got, want)
		}
		w.WriteHeader(202)
		io.WriteString(w, `{"id":"bat_1","status":"queued","reason":null,"counts":{"total":2,"pending":2}}`)
	})
	b, err := c.Submit(context.Background(), strings.NewReader("items"), SubmitOptions{ContentEncoding: "gzip", Options: batch.Options{
		Processor: "price", CallbackURL: "https://x/?a=b&c", CallbackMode: batch.ModeSummary, CallbackPageBytes: 2048, CallbackPageItems: 7,
		IDField: "/id", Metadata: map[string]string{"a b": "ü"}, Priority: batch.PriorityLow, MaxAttempts: 3, Concurrency: 9,
		NotBefore: time.Date(2026, 11, 23, 12, 0, 0, 5e8, time.UTC), ExpiresIn: 90 * time.Minute, MaxFailures: "5%",
		CallbackEvents: []string{batch.TypeProgress}, CallbackHeaders: map[string]string{"Authorization": `Bearer "a"`},
	}})
	if err != nil || b.ID != "bat_1" || b.Counts.Pending != 2 || b.Reason != "" {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestErrors(t *testing.T) {
	t.Run("a problem is told as the server told it", func(t *testing.T) {
		c := against(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(422)
			io.WriteString(w, `{"type":"about:blank","title":"x","status":422,"detail":"line 3: no","code":"duplicate_id","request_id":"r",
				"errors":[{"index":1,"line":3,"pointer":"/id","code":"duplicate_id","detail":"no"},{"code":"c","detail":"d"}],"more":9}`)
		})
		_, err := c.Batch(context.Background(), "bat_1")
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("%T %v", err, err)
		}
		one, three := 1, 3
		want := &Error{
			Status: 422, Title: "Unprocessable Entity", Detail: "line 3: no", Code: "duplicate_id", RequestID: "r", More: 9, RetryAfter: 7 * time.Second,
			Errors: []Place{{Index: &one, Line: &three, Pointer: "/id", Code: "duplicate_id", Detail: "no"}, {Code: "c", Detail: "d"}},
		}
		if diff := cmp.Diff(want, e); diff != "" {
			t.Error(diff)
		}
		if err.Error() != "line 3: no" {
			t.Errorf("it reads %q", err)
		}
	})
	t.Run("what somebody else answers is not repeated", func(t *testing.T) {
		for _, a := range []struct {
			status int
			body   string
		}{
			{502, "<html>nginx</html>"},
			{307, ""},
			{404, `{"message":"no route"}`},
			{200, "<html>hello</html>"},
			{200, `"hello"`},
			{200, `{"hello":"world"}`},
		} {
			c := against(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "https://elsewhere.example/")
				w.WriteHeader(a.status)
				io.WriteString(w, a.body)
			})
			_, err := c.Batch(context.Background(), "bat_1")
			_, streamed := c.Results(context.Background(), "bat_1", ResultOptions{})
			_, pulled := c.Feed(context.Background(), FeedOptions{})
			_, redelivered := c.Redeliver(context.Background(), "msg_1")
			_, tested := c.TestCallback(context.Background(), "https://x/", nil)
			deleted, dropped := c.Delete(context.Background(), "bat_1", false), c.DeletePart(context.Background(), "bat_1", 0)
			for _, err := range []error{err, streamed, pulled, redelivered, tested, deleted, dropped} {
				want := fmt.Sprintf("what answered at %s is not a Callbatch server (%d %s)", c.base, a.status, http.StatusText(a.status))
				var e *Error
				if !errors.As(err, &e) || e.Status != a.status || e.Code != "" || err.Error() != want {
					t.Errorf("%d %s: %v, want %s", a.status, a.body, err, want)
				}
			}
		}
	})
	t.Run("a server that is not there is unreachable, and nothing was done", func(t *testing.T) {
		s := httptest.NewServer(nil)
		s.Close()
		c, _ := New(Options{URL: s.URL})
		_, err := c.Batch(context.Background(), "bat_1")
		var u *Unreachable
		if !errors.As(err, &u) || u.Unknown || strings.Count(err.Error(), s.URL) != 1 {
			t.Errorf("%v", err)
		}
	})
	t.Run("a server that goes away may have done it", func(t *testing.T) {
		c := against(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		_, err := c.Submit(context.Background(), strings.NewReader("1\n"), SubmitOptions{})
		var u *Unreachable
		if !errors.As(err, &u) || !u.Unknown {
			t.Errorf("%v", err)
		}
	})
	t.Run("who gives up is told his own reason", func(t *testing.T) {
		c := against(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		why := errors.New("why")
		ctx, cancel := context.WithTimeoutCause(context.Background(), 10*time.Millisecond, why)
		defer cancel()
		if _, err := c.Batch(ctx, "bat_1"); !errors.Is(err, why) {
			t.Errorf("%v", err)
		}
	})
}

func TestErrorsNameNoHeaderOfACallback(t *testing.T) {
	secret := map[string]string{"Authorization": "s3cret"}
	gone := httptest.NewServer(nil)
	gone.Close()
	away, _ := New(Options{URL: gone.URL})
	broken := against(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	strange := against(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, r.URL.String(), http.StatusBadGateway) })
	for _, c := range []*Client{away, broken, strange} {
		_, submitted := c.Submit(context.Background(), strings.NewReader("1\n"), SubmitOptions{Options: batch.Options{CallbackHeaders: secret}})
		_, tested := c.TestCallback(context.Background(), "https://x/", secret)
		for _, err := range []error{submitted, tested} {
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v", err)
			}
		}
	}
}

func TestFeedOutwaitsItsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{steps: []func(*http.Request) (*http.Response, error){
			func(r *http.Request) (*http.Response, error) {
				if r.URL.RawQuery != "after=c&limit=3&wait=60" {
					t.Errorf("it asked for %s", r.URL)
				}
				select {
				case <-time.After(90 * time.Second):
					return says(200, `{"data":[],"next":"c"}`, "Retry-After", "1")(r)
				case <-r.Context().Done():
					return nil, r.Context().Err()
				}
			},
			func(r *http.Request) (*http.Response, error) {
				if r.URL.RawQuery != "" {
					t.Errorf("it asked for %s", r.URL)
				}
				<-r.Context().Done()
				return nil, r.Context().Err()
			},
		}}
		c, err := New(Options{HTTP: &http.Client{Transport: s}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Feed(context.Background(), FeedOptions{After: "c", Wait: time.Minute + time.Millisecond, Limit: 3})
		if err != nil || p.Next != "c" || p.RetryAfter != time.Second {
			t.Errorf("%+v, %v", p, err)
		}
		var u *Unreachable
		if _, err := c.Feed(context.Background(), FeedOptions{Wait: time.Millisecond}); !errors.As(err, &u) {
			t.Errorf("%v", err)
		}
	})
}

func TestAllMessages(t *testing.T) {
	var asked []string
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI())
		switch r.URL.Query().Get("cursor") {
		case "":
			io.WriteString(w, `{"data":[{"id":"msg_3"},{"id":"msg_2"}],"next":"a"}`)
		case "a":
			io.WriteString(w, `{"data":[],"next":"b"}`)
		case "b":
			io.WriteString(w, `{"data":[{"id":"msg_1"}],"next":null}`)
		default:
			http.Error(w, "no", 500)
		}
	})
	walk := func(o MessageOptions, most int) (ids []string, last error) {
		for m, err := range c.AllMessages(context.Background(), o) {
			if last = err; err == nil {
				ids = append(ids, m.ID)
			}
			if len(ids) == most {
				break
			}
		}
		return ids, last
	}
	ids, err := walk(MessageOptions{Batch: "bat_1", Status: "parked", Host: "x:443", Limit: 2}, 9)
	if diff := cmp.Diff([]string{"msg_3", "msg_2", "msg_1"}, ids); diff != "" || err != nil {
		t.Error(err, diff)
	}
	const first = "/v1/batches/bat_1/messages?%shost=x%%3A443&limit=2&status=parked"
	want := []string{fmt.Sprintf(first, ""), fmt.Sprintf(first, "cursor=a&"), fmt.Sprintf(first, "cursor=b&")}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Error(diff)
	}
	asked = nil
	if ids, err := walk(MessageOptions{}, 1); len(ids) != 1 || err != nil || len(asked) != 1 || asked[0] != "/v1/messages" {
		t.Errorf("who stops early got %q, %v, and asked %q", ids, err, asked)
	}
	if ids, err := walk(MessageOptions{Cursor: "x"}, 9); len(ids) != 0 || err == nil {
		t.Errorf("an error is %q, %v", ids, err)
	}
}

func TestIdsStayWithinTheirSegment(t *testing.T) {
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() != "/v1/batches/..%2F..%2Fmetrics%3Fx" {
			t.Errorf("it asked for %s", r.URL)
		}
		io.WriteString(w, `{"id":"bat_1"}`)
	})
	if _, err := c.Batch(context.Background(), "../../metrics?x"); err != nil {
		t.Error(err)
	}
}

func TestResultsThatBreakOffAreAnError(t *testing.T) {
	const line = `{"index":0,"id":"a","status":"succeeded","output":{"n": 1.0},"attempts":1,"finished_at":"2026-11-23T12:00:00.000Z"}` + "\n"
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "after=-1&limit=5&status=succeeded" {
			t.Errorf("it asked for %s", r.URL)
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("Callbatch-Incomplete", "true")
		io.WriteString(w, line+line[:20])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	after := -1
	rs, err := c.Results(context.Background(), "bat_1", ResultOptions{After: &after, Limit: 5, Status: "succeeded"})
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Close()
	if !rs.Incomplete {
		t.Error("it is not said to be incomplete")
	}
	var got []Result
	var last error
	for r, err := range rs.All() {
		if last = err; err == nil {
			got = append(got, r)
		}
	}
	if len(got) != 1 || string(got[0].Output) != `{"n": 1.0}` {
		t.Errorf("%+v", got)
	}
	var u *Unreachable
	if !errors.As(last, &u) {
		t.Errorf("it ended with %v", last)
	}
}

// scripted answers each request with the next of its steps.
type scripted struct {
	steps []func(*http.Request) (*http.Response, error)
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	next := s.steps[0]
	s.steps = s.steps[1:]
	return next(r)
}

func says(status int, body string, headers ...string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func TestWait(t *testing.T) {
	down := func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }
	waiting := func(steps ...func(*http.Request) (*http.Response, error)) (*Client, *scripted) {
		s := &scripted{steps: steps}
		c, err := New(Options{HTTP: &http.Client{Transport: s}})
		if err != nil {
			t.Fatal(err)
		}
		return c, s
	}
	t.Run("until the end, at the pace the server advises", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			c, s := waiting(
				says(200, `{"id":"bat_1","status":"queued"}`, "ETag", `W/"1"`, "Retry-After", "2"),
				func(r *http.Request) (*http.Response, error) {
					if got := r.Header.Get("If-None-Match"); got != `W/"1"` {
						t.Errorf("If-None-Match is %q", got)
					}
					return says(304, "", "Retry-After", "3")(r)
				},
				down,
				says(503, `{"code":"unavailable"}`, "Retry-After", "5"),
				says(200, `{"id":"bat_1","status":"running"}`, "ETag", `W/"2"`, "Retry-After", "2"),
				says(200, `{"id":"bat_1","status":"completed"}`, "ETag", `W/"3"`),
			)
			var seen []string
			b, err := c.Wait(context.Background(), "bat_1", WaitOptions{Progress: func(b Batch) { seen = append(seen, b.Status) }})
			if err != nil || b.Status != "completed" || len(s.steps) > 0 {
				t.Errorf("%+v, %v, %d steps left", b, err, len(s.steps))
			}
			if diff := cmp.Diff([]string{"queued", "running", "completed"}, seen); diff != "" {
				t.Error(diff)
			}
			if took := time.Since(start); took != (2+3+1+5+2)*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	})
	t.Run("but not for ever on a server that is away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, s := waiting(says(200, `{"id":"bat_1","status":"queued"}`))
			for range 200 {
				s.steps = append(s.steps, down)
			}
			start := time.Now()
			_, err := c.Wait(context.Background(), "bat_1", WaitOptions{Patience: 90 * time.Second})
			var u *Unreachable
			if took := time.Since(start); !errors.As(err, &u) || took < 90*time.Second || took > 95*time.Second {
				t.Errorf("%v after %s", err, took)
			}
		})
	})
	t.Run("nor on one that never answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hang := func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			c, _ := waiting(hang, hang, hang)
			_, err := c.Wait(context.Background(), "bat_1", WaitOptions{})
			var u *Unreachable
			if !errors.As(err, &u) {
				t.Errorf("%v", err)
			}
		})
	})
	t.Run("and not at all for what does not exist", func(t *testing.T) {
		c, _ := waiting(says(404, `{"code":"not_found","detail":"there is no such batch"}`))
		_, err := c.Wait(context.Background(), "bat_1", WaitOptions{})
		var e *Error
		if !errors.As(err, &e) || e.Code != "not_found" {
			t.Errorf("%v", err)
		}
	})
	t.Run("nor longer than its caller", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := waiting(says(200, `{"id":"bat_1","status":"queued"}`, "Retry-After", "60"))
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			b, err := c.Wait(ctx, "bat_1", WaitOptions{})
			if !errors.Is(err, context.DeadlineExceeded) || b.Status != "queued" {
				t.Errorf("%+v, %v", b, err)
			}
		})
	})
}
