package upstream_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/process/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

func call(item string) batch.Call {
	return batch.Call{Batch: batch.ID{1, 2, 3}, Index: 7, ID: "A-17", Round: 1, Attempt: 2, Item: []byte(item)}
}

func open(tb testing.TB, o upstream.Options) *upstream.Processor {
	tb.Helper()
	p, err := upstream.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// serve returns the URL of a service that answers with h.
func serve(tb testing.TB, h http.HandlerFunc) string {
	tb.Helper()
	s := httptest.NewServer(h)
	tb.Cleanup(s.Close)
	return s.URL
}

// answer returns the URL of a service that always answers the same.
func answer(tb testing.TB, status int, header http.Header, body string) string {
	tb.Helper()
	return serve(tb, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil // no guess of the server's
		for name, values := range header {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

func failureOf(t *testing.T, err error) *batch.Failure {
	t.Helper()
	var f *batch.Failure
	if !errors.As(err, &f) {
		t.Fatalf("got error %v, want a failure", err)
	}
	return f
}

func TestARequestSaysWhichItemItIs(t *testing.T) {
	type seen struct {
		Method, Path, Auth, Body string
		Length                   int64
		Header                   http.Header
	}
	var got seen
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		got = seen{r.Method, r.RequestURI, user + "/" + password, string(body), r.ContentLength, r.Header}
		got.Header.Del("Authorization")
	})
	item := `{"a":"<&>ü", "n":1e400}`
	c := call(item)
	header := http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {"Callbatch/1.2.3"}, "Accept-Encoding": {"identity"},
		"Content-Length": {fmt.Sprint(len(item))}, "X-Team": {"images"},
		"Idempotency-Key": {c.Batch.String() + "/7"}, "Callbatch-Batch": {c.Batch.String()},
		"Callbatch-Item": {"7"}, "Callbatch-Attempt": {"2"},
	}
	p := open(t, upstream.Options{
		URL:     strings.Replace(url, "http://", "http://me:pass%20word@", 1) + "/render?size=2&q=a%20b",
		Headers: map[string]string{"x-team": "images"},
		Version: "1.2.3",
	})
	t.Run("in the first round", func(t *testing.T) {
		if _, err := p.Process(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		want := seen{"POST", "/render?size=2&q=a%20b", "me/pass word", item, int64(len(item)), header}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("in a later round, by another method and type", func(t *testing.T) {
		c := c
		c.Round, c.Attempt = 3, 1
		p := open(t, upstream.Options{URL: url, Method: "put", Headers: map[string]string{"Content-Type": "application/vnd.api+json"}})
		if _, err := p.Process(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if got.Method != "PUT" || got.Path != "/" || got.Header.Get("Idempotency-Key") != c.Batch.String()+"/7/r3" ||
			got.Header.Get("Callbatch-Attempt") != "1" || got.Header.Get("Content-Type") != "application/vnd.api+json" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAnAnswerIsTheOutput(t *testing.T) {
	for _, c := range []struct{ name, contentType, body, want string }{
		{"JSON byte for byte", "application/json", `{"b": "<>&\u003c",  "a":[1e400, 9007199254740993, -0.0, 1.10]}`, ""},
		{"JSON with parameters", "Application/JSON; charset=utf-8", `{"a":1}`, ""},
		{"JSON of another kind", "application/problem+json", `[ ]`, ""},
		{"a lone scalar", "application/json", `"x"`, ""},
		{"white space around it", "application/json", "\r\n {\"a\": 1}\n", `{"a": 1}`},
		{"several lines are drawn into one", "application/json", "{\r\n  \"b\": \"\\n\\u00fc\",\n  \"a\": 1.10\n}\n", `{"b":"\n\u00fc","a":1.10}`},
		{"nothing", "application/json", "", "null"},
		{"nothing of no type", "", "", "null"},
		{"text", "text/plain", "a \"<b>\"\n\u2028ü\x00", `"a \"<b>\"\n` + "\u2028" + `ü\u0000"`},
		{"text with a charset", `text/html; charset="UTF-8"`, "<p>", `"<p>"`},
		{"JSON called text", "text/plain; charset=utf-8", `{"a":1}`, `"{\"a\":1}"`},
		{"XML", "application/xml", `<a/>`, `"<a/>"`},
		{"lines of JSON", "application/x-ndjson", "{}\n{}\n", `"{}\n{}\n"`},
		{"text in another charset", "text/plain; charset=iso-8859-1", "\xfc", `{"base64":"/A==","content_type":"text/plain; charset=iso-8859-1"}`},
		{"text that is none", "text/plain", "\xff", `{"base64":"/w==","content_type":"text/plain"}`},
		{"bytes", "image/png", "\x89PNG", `{"base64":"iVBORw==","content_type":"image/png"}`},
		{"a type that is none", "<\"&", "x", `{"base64":"eA==","content_type":"<\"&"}`},
		{"JSON without a type", "", ` {"a": 1}`, `{"a": 1}`},
		{"text without a type", "", `{"a": 1`, `"{\"a\": 1"`},
		{"bytes without a type", "", "\xff\x00", `{"base64":"/wA=","content_type":""}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == "" {
				c.want = c.body
			}
			header := http.Header{}
			if c.contentType != "" {
				header.Set("Content-Type", c.contentType)
			}
			p := open(t, upstream.Options{URL: answer(t, 200, header, c.body)})
			got, err := p.Process(t.Context(), call(`{}`))
			if err != nil || string(got) != c.want {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
		})
	}
	t.Run("204 has none, which is null", func(t *testing.T) {
		got, err := open(t, upstream.Options{URL: answer(t, 204, nil, "")}).Process(t.Context(), call(`{}`))
		if err != nil || string(got) != "null" {
			t.Errorf("got %s, %v", got, err)
		}
	})
}

func TestWhatIsNotJSONUnderItsTypeIsBadOutput(t *testing.T) {
	for _, body := range []string{
		`{"a":1`, `{"a":1,"a":2}`, `1 2`, "\"\xff\"", `"\ud800"`, `NaN`, `01`, ` `, "\ufeff{}", `{}x`, `'a'`, `[1,]`,
		strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), "<html>sorry</html>",
	} {
		p := open(t, upstream.Options{URL: answer(t, 200, http.Header{"Content-Type": {"application/json"}}, body)})
		out, err := p.Process(t.Context(), call(`{}`))
		f := failureOf(t, err)
		if f.Code != batch.CodeBadOutput || f.Retry || f.Down || out != nil || len(f.Body) > 4096 {
			t.Errorf("%.40q: got %s, %s", body, out, f)
		}
	}
}

func TestAStatusDecides(t *testing.T) {
	const final, again, down = 0, 1, 2
	for _, c := range []struct {
		status, verdict int
		header          http.Header
		wait            time.Duration
	}{
		{300, final, nil, 0},
		{301, final, http.Header{"Location": {"/loop"}}, 0},
		{302, final, http.Header{"Location": {"http://127.0.0.1:1/"}}, 0},
		{303, final, http.Header{"Location": {"http://[broken"}}, 0},
		{304, final, nil, 0},
		{307, final, http.Header{"Location": {"/loop"}}, 0},
		{308, final, http.Header{"Location": {"//other"}}, 0},
		{400, final, nil, 0},
		{401, final, nil, 0},
		{403, final, nil, 0},
		{404, final, http.Header{"Retry-After": {"5"}}, 0},
		{409, final, nil, 0},
		{410, final, nil, 0},
		{422, final, nil, 0},
		{408, again, nil, 0},
		{425, again, nil, 0},
		{429, again, http.Header{"Retry-After": {"120"}}, 2 * time.Minute},
		{429, again, http.Header{"Retry-After": {"-120"}}, 0},
		{429, again, http.Header{"Retry-After": {"soon"}}, 0},
		{500, again, http.Header{"Retry-After": {"1"}}, time.Second},
		{501, again, nil, 0},
		{502, down, nil, 0},
		{503, down, http.Header{"Retry-After": {"3"}}, 3 * time.Second},
		{504, down, nil, 0},
		{599, again, nil, 0},
		{999, again, nil, 0},
	} {
		t.Run(fmt.Sprint(c.status, c.header), func(t *testing.T) {
			p := open(t, upstream.Options{URL: answer(t, c.status, c.header, "why")})
			out, err := p.Process(t.Context(), call(`{}`))
			f := failureOf(t, err)
			want := batch.Failure{
				Code: batch.CodeUpstreamStatus, Message: f.Message, UpstreamStatus: c.status, Body: "why",
				Retry: c.verdict != final, Down: c.verdict == down, RetryAfter: c.wait,
			}
			if c.status == 304 {
				want.Body = "" // it never has one
			}
			if d := cmp.Diff(want, *f); d != "" || out != nil {
				t.Error(string(out), d)
			}
			if !strings.Contains(f.Message, fmt.Sprint(c.status)) || c.status/100 == 3 && !strings.Contains(f.Message, "redirects are not followed") {
				t.Errorf("got message %q", f.Message)
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var requests atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.Redirect(w, r, "/again", http.StatusTemporaryRedirect)
	})
	_, err := open(t, upstream.Options{URL: url}).Process(t.Context(), call(`{}`))
	if f := failureOf(t, err); f.UpstreamStatus != 307 || requests.Load() != 1 {
		t.Errorf("got %s after %d requests", f, requests.Load())
	}
}

func TestOutputsAreBounded(t *testing.T) {
	for _, c := range []struct {
		name, contentType, body string
		fits                    bool
	}{
		{"JSON of the limit", "application/json", `"234567890123456"`[:15] + `"`, true},
		{"JSON one byte longer", "application/json", `"2345678901234567"`[:16] + `"`, false},
		{"text that fits as a string", "text/plain", "23456789012345", true},
		{"text that only fits without its quotes", "text/plain", "234567890123456", false},
		{"text that grows by escapes", "text/plain", "\x00\x00\x00", false},
		{"bytes that grow by their coding", "image/png", "x", false},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, ", chunked ", chunked), func(t *testing.T) {
				url := serve(t, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", c.contentType)
					if chunked {
						w.(http.Flusher).Flush()
					}
					io.WriteString(w, c.body)
				})
				out, err := open(t, upstream.Options{URL: url, MaxOutput: 16}).Process(t.Context(), call(`{}`))
				if c.fits {
					if err != nil {
						t.Errorf("got %v", err)
					}
					return
				}
				if f := failureOf(t, err); f.Code != batch.CodeOutputTooLarge || f.Retry || out != nil {
					t.Errorf("got %s, %s", out, f)
				}
			})
		}
	}
}

func TestExcerptsAreBoundedAndPrintable(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"short", "no\tsuch\r\nsku ü", "no\tsuch\nsku ü"},
		{"long", strings.Repeat("é", 100_000), strings.Repeat("é", 2048)},
		{"cut before a whole character", "x" + strings.Repeat("é", 100_000), "x" + strings.Repeat("é", 2047)},
		{"control characters, overrides and bytes", "a\x00\x1b[31m\u202eb\xff", "a\uFFFD\uFFFD[31m\uFFFDb\uFFFD"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := open(t, upstream.Options{URL: answer(t, 422, nil, c.body)}).Process(t.Context(), call(`{}`))
			if f := failureOf(t, err); f.Body != c.want {
				t.Errorf("got %d bytes %.60q, want %d bytes %.60q", len(f.Body), f.Body, len(c.want), c.want)
			}
		})
	}
}

func TestSecretsAreShownNowhere(t *testing.T) {
	secrets := []string{"s3cr3t-token", "hunter22", "key&value", "key%26value", "operator"}
	echo := serve(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/refuse" {
			w.WriteHeader(400)
		}
		fmt.Fprintln(w, "you sent", r.Header, user, password, r.RequestURI, r.URL.Query(), strings.Repeat(" ", 4000), r.Header)
	})
	dead := httptest.NewServer(nil)
	dead.Close()
	for _, base := range []string{echo + "/refuse", echo + "/garbage", dead.URL} {
		for _, o := range []upstream.Options{
			{Headers: map[string]string{"authorization": "Bearer s3cr3t-token", "x-key": "hunter22"}, URL: base + "?token=key%26value"},
			{URL: strings.Replace(base, "http://", "http://operator:hunter22@", 1) + "?key%26value"},
		} {
			_, err := open(t, o).Process(t.Context(), call(`{}`))
			f := failureOf(t, err)
			if base != dead.URL && !strings.Contains(f.Body, "you sent") {
				t.Errorf("the answer is not in the failure: %+v", f)
			}
			for _, s := range secrets {
				if o.Headers != nil && s == "operator" {
					continue
				}
				if said := fmt.Sprintf("%+v", *f) + string(f.JSON()); strings.Contains(said, s) {
					t.Errorf("%s: the failure shows %q: %s", base, s, said)
				}
			}
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for _, c := range []struct {
		o    upstream.Options
		want string
	}{
		{upstream.Options{}, "upstream: url"},
		{upstream.Options{URL: "ftp://h/"}, "upstream: url"},
		{upstream.Options{URL: "https:///path"}, "upstream: url"},
		{upstream.Options{URL: "http:opaque"}, "upstream: url"},
		{upstream.Options{URL: "http://h/#f"}, "upstream: url"},
		{upstream.Options{URL: "http://u:hunter22@h:port/"}, "upstream: url"},
		{upstream.Options{URL: "http://h", Method: "GET"}, "upstream: method"},
		{upstream.Options{URL: "http://h", Headers: map[string]string{"a b": "hunter22"}}, `upstream: headers: "a b"`},
		{upstream.Options{URL: "http://h", Headers: map[string]string{"x-a": "hunter22\r\nx-b: 1"}}, "upstream: headers: the value of x-a"},
		{upstream.Options{URL: "http://h", Headers: map[string]string{"idempotency-key": "hunter22"}}, "upstream: headers: idempotency-key"},
		{upstream.Options{URL: "http://h", Headers: map[string]string{"callbatch-x": "hunter22"}}, "upstream: headers: callbatch-x"},
		{upstream.Options{URL: "http://h", Headers: map[string]string{"Accept-encoding": "gzip"}}, "upstream: headers: Accept-encoding"},
		{upstream.Options{URL: "http://h", Headers: map[string]string{"X-A": "hunter22", "x-a": "1"}}, "upstream: headers: "},
		{upstream.Options{URL: "http://u:hunter22@h", Headers: map[string]string{"authorization": "x"}}, "upstream: headers: authorization"},
	} {
		p, err := upstream.New(c.o)
		if p != nil || err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "hunter22") {
			t.Errorf("New(%+v): got %v, want %s…", c.o, err, c.want)
		}
	}
}

// connections counts the connections a service accepts.
func connections(tb testing.TB, h http.HandlerFunc) (url string, opened *atomic.Int32) {
	tb.Helper()
	opened = new(atomic.Int32)
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	tb.Cleanup(s.Close)
	return s.URL, opened
}

func TestConnectionsAreKept(t *testing.T) {
	t.Run("after every kind of answer", func(t *testing.T) {
		bodies := []string{"", "short", strings.Repeat("x", 16<<10)}
		var n int
		url, opened := connections(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader([]int{200, 500, 429, 404, 302, 503}[n/len(bodies)])
			io.WriteString(w, bodies[n%len(bodies)])
		})
		p := open(t, upstream.Options{URL: url})
		for ; n < 6*len(bodies); n++ {
			p.Process(t.Context(), call(`{}`))
		}
		if got := opened.Load(); got != 1 {
			t.Errorf("%d calls took %d connections", n, got)
		}
	})
	t.Run("all of them, when one breaks", func(t *testing.T) {
		const width = 8
		var meet sync.WaitGroup
		meet.Add(width)
		url, opened := connections(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.Header.Get("Callbatch-Attempt") {
			case "1":
				meet.Done()
				meet.Wait() // so that each call has its own connection
			case "2":
				panic(http.ErrAbortHandler)
			}
		})
		p := open(t, upstream.Options{URL: url, Concurrency: width})
		c := call(`{}`)
		c.Attempt = 1
		var calls sync.WaitGroup
		for range width {
			calls.Go(func() {
				if _, err := p.Process(t.Context(), c); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		for i := range width - 1 {
			c.Attempt = 2 + i%2*8
			_, err := p.Process(t.Context(), c)
			if broken := c.Attempt == 2; broken != (err != nil) {
				t.Errorf("call %d: got %v", i, err)
			}
		}
		if got := opened.Load(); got != width {
			t.Errorf("got %d connections, want %d", got, width)
		}
	})
}

func TestManyCallsAtOnceDoNotMix(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		item, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"key":%q,"item":%s}`, r.Header.Get("Idempotency-Key"), item)
	})
	p := open(t, upstream.Options{URL: url, Concurrency: 16})
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 20 {
				c := call(fmt.Sprintf(`"%d-%s"`, i, strings.Repeat("x", g*1000)))
				c.Index = g*100 + i
				want := fmt.Sprintf(`{"key":%q,"item":%s}`, c.Key(), c.Item)
				if got, err := p.Process(t.Context(), c); err != nil || string(got) != want {
					t.Errorf("got %.80s, %v, want %.80s", got, err, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, "%q", r.Proto)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	t.Run("a certificate of the given roots is trusted, and HTTP/1.1 is spoken", func(t *testing.T) {
		got, err := open(t, upstream.Options{URL: s.URL, RootCAs: roots}).Process(t.Context(), call(`{}`))
		if err != nil || string(got) != `"HTTP/1.1"` {
			t.Errorf("got %s, %v", got, err)
		}
	})
	for _, c := range []struct {
		name string
		o    upstream.Options
		want string
	}{
		{"an unknown authority", upstream.Options{URL: s.URL}, "its certificate is signed by an unknown authority"},
		{"another host", upstream.Options{URL: strings.Replace(s.URL, "127.0.0.1", "localhost", 1), RootCAs: roots}, "its certificate is for another host"},
		{"no TLS at all", upstream.Options{URL: strings.Replace(answer(t, 200, nil, ""), "http:", "https:", 1)}, "the connection broke before there was an answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := open(t, c.o).Process(t.Context(), call(`{}`))
			if f := failureOf(t, err); f.Code != batch.CodeUpstreamUnreachable || !f.Retry || !f.Down || !strings.HasSuffix(f.Message, c.want) {
				t.Errorf("got %s, want %s", f, c.want)
			}
		})
	}
}

func BenchmarkCalls(b *testing.B) {
	item := []byte(`{"sku":"A-17","qty":3,"price":19.99,"tags":["a","b"],"note":"hello wörld","address":{"street":"Main 1","zip":"12345"}}`)
	url := serve(b, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Write(item)
	})
	const inFlight = 64
	run := func(b *testing.B, call func(context.Context) error) {
		b.ReportAllocs()
		ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
		defer cancel()
		var left atomic.Int64
		left.Store(int64(b.N))
		var wg sync.WaitGroup
		for range inFlight {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if err := call(ctx); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	b.Run("bare http.Client", func(b *testing.B) {
		tr := &http.Transport{MaxIdleConnsPerHost: inFlight, DisableCompression: true}
		defer tr.CloseIdleConnections()
		client := &http.Client{Transport: tr}
		run(b, func(ctx context.Context) error {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(item))
			if err != nil {
				return err
			}
			r.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(r)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.ReadAll(resp.Body)
			return err
		})
	})
	b.Run("processor", func(b *testing.B) {
		p := open(b, upstream.Options{URL: url, Concurrency: inFlight})
		c := batch.Call{Index: 1, Round: 1, Attempt: 1, Item: item}
		run(b, func(ctx context.Context) error {
			_, err := p.Process(ctx, c)
			return err
		})
	})
}
