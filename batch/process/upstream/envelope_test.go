package upstream_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/process/upstream"
)

// A sight is what a service sees of a request.
type sight struct {
	Request string // method, path and query as they stood on the wire
	Body    string
	Header  map[string]string // those asked for
}

// watch returns a service under /api/v1?tenant=7 that answers with what it sees.
func watch(t *testing.T, headers ...string) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s := sight{Request: r.Method + " " + r.RequestURI, Body: string(body), Header: map[string]string{}}
		for _, name := range headers {
			if v := r.Header.Values(name); len(v) > 0 {
				s.Header[name] = strings.Join(v, "|")
			}
		}
		w.Header().Set("Content-Type", "application/json")
		if r.Method != http.MethodHead {
			_ = json.NewEncoder(w).Encode(s)
		}
	}) + "/api/v1?tenant=7"
}

func see(t *testing.T, p *upstream.Processor, item string) sight {
	t.Helper()
	out, err := p.Process(t.Context(), call(item))
	if err != nil {
		t.Fatalf("%s: %v", item, err)
	}
	var s sight
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnEnvelopeSaysHowItIsSent(t *testing.T) {
	p := open(t, upstream.Options{URL: watch(t, "Content-Type"), Envelope: true})
	typed := func(contentType string) map[string]string {
		if contentType == "" {
			return map[string]string{}
		}
		return map[string]string{"Content-Type": contentType}
	}
	for _, tt := range []struct{ name, item, request, body, contentType string }{
		{"nothing is a POST of nothing", `{}`, "POST /api/v1?tenant=7", "", ""},
		{"null is not there", `{"method":null,"path":null,"headers":null}`, "POST /api/v1?tenant=7", "", ""},
		{"a body is JSON byte for byte", `{"body":{"a": 1.50,"b":"\u00e9"}}`, "POST /api/v1?tenant=7", `{"a": 1.50,"b":"\u00e9"}`, "application/json"},
		{"null is a body", `{"body":null}`, "POST /api/v1?tenant=7", `null`, "application/json"},
		{"a string is JSON too", `{"body":"x"}`, "POST /api/v1?tenant=7", `"x"`, "application/json"},
		{"unless it is sent as something else", `{"body":"a,b\n1,2","headers":{"content-type":"text/csv"}}`, "POST /api/v1?tenant=7", "a,b\n1,2", "text/csv"},
		{"a method", `{"method":"PUT","path":"/a","body":1}`, "PUT /api/v1/a?tenant=7", "1", "application/json"},
		{"a GET", `{"method":"GET","path":"a/b"}`, "GET /api/v1/a/b?tenant=7", "", ""},
		{"a DELETE", `{"method":"DELETE","path":"/a/"}`, "DELETE /api/v1/a/?tenant=7", "", ""},
		{"the root", `{"path":"/"}`, "POST /api/v1/?tenant=7", "", ""},
		{"what is encoded stays so", `{"path":"/a%2Fb/%E2%82%AC/c%3Fd;e=1"}`, "POST /api/v1/a%2Fb/%E2%82%AC/c%3Fd;e=1?tenant=7", "", ""},
		{"dots in a name", `{"path":"/a..b/.c/...d"}`, "POST /api/v1/a..b/.c/...d?tenant=7", "", ""},
		{"something like a URL is a name", `{"path":"http:x@host"}`, "POST /api/v1/http:x@host?tenant=7", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := sight{tt.request, tt.body, typed(tt.contentType)}
			if diff := cmp.Diff(want, see(t, p, tt.item)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnEnvelopeDoesNotEscape(t *testing.T) {
	p := open(t, upstream.Options{URL: serve(t, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("it was sent: %s %s", r.Method, r.RequestURI)
	}) + "/api/v1", Envelope: true})
	quote := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const dots, empty, encode = "a segment . or ..", "an empty segment", "percent-encoded"
	for at, want := range map[string]string{
		"..": dots, "/..": dots, "/../x": dots, "/a/../../x": dots, "/a/./b": dots, "/.": dots,
		"/%2e%2e/x": dots, "/.%2E/x": dots, "/%2E./x": dots, "/%252e%252e/x": dots, "/%25252e%25252e/x": dots,
		"/a%2f..%2fx": dots, "/a%252f..%252fx": dots, "/%5c..%5cx": dots, "/..;/x": dots, "/..%3bx/y": dots, "/a/..;v=1": dots,
		"//evil.example": empty, "//evil.example/x": empty, "///x": empty, "/a//b": empty, "http://evil.example/": empty,
		`\\evil.example`: "a backslash", `/\evil.example`: "a backslash", `/a\..\b`: "a backslash",
		"/a?b=c": "a query", "?b": "a query", "/a#b": "a fragment", "#": "a fragment",
		"/a b": encode, "/a\r\nHost: x": encode, "/é": encode, "/\x00": encode, "/{x}": encode,
		"/%": "no encoding", "/%zz": "no encoding", "/%0d%0aHost:%20x": "a control character", "/%00": "a control character",
		"/" + strings.Repeat("a", 4<<10): "longer than 4096 bytes",
	} {
		t.Run(at[:min(len(at), 40)], func(t *testing.T) {
			_, err := p.Process(t.Context(), call(`{"path":`+quote(at)+`}`))
			f := failureOf(t, err)
			if f.Code != batch.CodeProcessorError || f.Retry || f.Down || !strings.Contains(f.Message, "the item is not sent: its path ") || !strings.Contains(f.Message, want) {
				t.Errorf("got %+v, want %s", f, want)
			}
		})
	}
}

func FuzzAnEnvelopeStaysBelow(f *testing.F) {
	for _, s := range []string{"/a", "a/b", "/%2e%2e/", "//x", "/..;/", "/a%2f..%2f", `/\..`, "/%252e"} {
		f.Add(s)
	}
	var saw string
	server := roundTrip(f, &saw)
	p := open(f, upstream.Options{URL: server + "/api/v1", Envelope: true})
	f.Fuzz(func(t *testing.T, sent string) {
		item, err := json.Marshal(map[string]string{"path": sent})
		if err != nil {
			t.Skip()
		}
		saw = ""
		if _, err := p.Process(t.Context(), call(string(item))); err != nil {
			return
		}
		if strings.ContainsAny(saw, "?#") {
			t.Fatalf("%q became %q", sent, saw)
		}
		for read := saw; err == nil; read, err = url.PathUnescape(read) { // however often it is decoded
			cleaned := path.Clean(strings.ReplaceAll(read, `\`, "/"))
			if cleaned != "/api/v1" && !strings.HasPrefix(cleaned, "/api/v1/") {
				t.Fatalf("%q became %q", sent, saw)
			}
			if read == "" || !strings.Contains(read, "%") {
				break
			}
		}
	})
}

// roundTrip returns a service that writes down the path it is asked for.
func roundTrip(tb testing.TB, saw *string) string {
	return serve(tb, func(_ http.ResponseWriter, r *http.Request) { *saw = r.RequestURI })
}

func TestTheHeadersOfAnEnvelope(t *testing.T) {
	t.Run("are sent, but those of the operator win", func(t *testing.T) {
		p := open(t, upstream.Options{
			URL:      watch(t, "Authorization", "X-Tenant", "X-More", "User-Agent", "Idempotency-Key", "Callbatch-Attempt", "Accept"),
			Headers:  map[string]string{"authorization": "Bearer ours", "x-tenant": "7"},
			Envelope: true,
		})
		got := see(t, p, `{"headers":{"Authorization":"Bearer theirs","X_Tenant":"8","x-more":"1","user-agent":"them","accept":"text/plain"}}`)
		want := map[string]string{
			"Authorization": "Bearer ours", "X-Tenant": "7", "X-More": "1", "User-Agent": "them", "Accept": "text/plain",
			"Idempotency-Key": call("").Key(), "Callbatch-Attempt": "2",
		}
		if diff := cmp.Diff(want, got.Header); diff != "" {
			t.Error(diff)
		}
	})

	many := map[string]string{}
	for i := range 65 {
		many["x-"+strings.Repeat("a", i)] = "1"
	}
	for name, tt := range map[string]struct {
		headers map[string]string
		want    string
	}{
		"the host":                  {map[string]string{"Host": "evil.example"}, "the header Host is not an item's to set"},
		"the length":                {map[string]string{"content-length": "1"}, "not an item's to set"},
		"the coding":                {map[string]string{"content-encoding": "gzip"}, "not an item's to set"},
		"the connection":            {map[string]string{"Connection": "close"}, "not an item's to set"},
		"the transfer":              {map[string]string{"Transfer-Encoding": "chunked"}, "not an item's to set"},
		"with an underscore":        {map[string]string{"Transfer_Encoding": "chunked"}, "not an item's to set"},
		"the proxy's":               {map[string]string{"proxy-authorization": "x"}, "not an item's to set"},
		"the key":                   {map[string]string{"IDEMPOTENCY-KEY": "x"}, "not an item's to set"},
		"ours":                      {map[string]string{"callbatch-batch": "x"}, "not an item's to set"},
		"a name that is none":       {map[string]string{"a b": "x"}, "is not the name of a header"},
		"a value that is two lines": {map[string]string{"x-a": "1\r\nx-b: 2"}, "has characters that a header cannot have"},
		"one twice":                 {map[string]string{"x-a": "1", "X-A": "2"}, "is there twice"},
		"too many":                  {many, "more than 64 headers"},
		"too long":                  {map[string]string{"x-a": strings.Repeat("a", 17<<10)}, "or 16384 bytes of them"},
	} {
		t.Run("cannot be "+name, func(t *testing.T) {
			p := open(t, upstream.Options{URL: watch(t), Envelope: true})
			item, err := json.Marshal(map[string]any{"headers": tt.headers})
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.Process(t.Context(), call(string(item)))
			if f := failureOf(t, err); f.Retry || !strings.Contains(f.Message, tt.want) {
				t.Errorf("got %+v, want %s", f, tt.want)
			}
		})
	}
}

func TestWhatIsNoEnvelope(t *testing.T) {
	p := open(t, upstream.Options{URL: watch(t), Envelope: true})
	for _, item := range []string{
		`null`, `1`, `"x"`, `[]`, `{"url":"http://evil.example"}`, `{"method":1}`, `{"path":{}}`, `{"headers":[]}`, `{"headers":{"a":1}}`,
		`{"method":"get"}`, `{"method":"CONNECT"}`, `{"method":"TRACE"}`, `{"method":"HEAD"}`, `{"method":""}`, `{"method":"GET","body":1}`,
	} {
		_, err := p.Process(t.Context(), call(item))
		if f := failureOf(t, err); f.Code != batch.CodeProcessorError || f.Retry || !strings.HasPrefix(f.Message, "the item is not sent: ") {
			t.Errorf("%s: got %+v", item, f)
		}
	}
}
