package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"go.uber.org/goleak"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
	"github.com/callbatch/callbatch/callback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an API over a fake store, behind a real server. Everything it is
// asked and answers must fit openapi.yaml.
type world struct {
	t       *testing.T
	store   *fakeStore
	server  *httptest.Server
	handler http.Handler
	log     *lockedBuffer
	router  routers.Router

	links   batch.Links
	tenants [2]batch.TenantID
	keys    [2]map[access.Scope]string // one for each scope, by tenant
}

// newOptions returns a world that has no server yet, and options for one.
func newOptions(t *testing.T, with []func(*Options)) (*world, Options) {
	t.Helper()
	w := &world{t: t, store: newFakeStore(), log: &lockedBuffer{}, links: batch.Links{Key: []byte("the key that signs links in tests")}}
	w.tenants[1] = batch.TenantID{1}
	for i, tenant := range w.tenants {
		w.keys[i] = map[access.Scope]string{}
		for _, s := range []access.Scope{access.Submit, access.Read, access.Admin, access.Operator} {
			w.keys[i][s] = w.addKey(batch.Key{Tenant: tenant, Scopes: []string{string(s)}})
		}
	}
	o := Options{
		Store: w.store, Keys: access.NewKeys(w.store), Logger: slog.New(slog.NewJSONHandler(w.log, nil)),
		Processors: func() []Processor { return []Processor{{Name: "price", Kind: "jq", Health: "ok"}} },
		Links:      w.links, CheckHeaders: callback.CheckHeaders, Test: delivered,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "callbatch_up 1\n") }),
	}
	for _, change := range with {
		change(&o)
	}
	return w, o
}

// delivered is a test of a callback that went well.
func delivered(context.Context, batch.TenantID, string, map[string]string) (batch.MessageID, batch.Attempt, error) {
	now := time.Now()
	return batch.NewMessageID(now), batch.Attempt{
		Number: 1, Started: now, Took: batch.Took{Total: 3}, RemoteAddr: "203.0.113.9:443",
		RequestHeaders: map[string]string{"webhook-signature": "***"}, Response: &batch.Response{Status: 204},
	}, nil
}

func newWorld(t *testing.T, with ...func(*Options)) *world {
	t.Helper()
	w, o := newOptions(t, append([]func(*Options){func(o *Options) { o.Patience = patience }}, with...))
	w.server = httptest.NewUnstartedServer(nil)
	w.handler = New(o)
	w.server.Config = HTTPServer(w.handler)
	w.server.Start()
	t.Cleanup(w.server.Close)
	w.router = documented(t)
	return w
}

func (w *world) addKey(k batch.Key) string {
	text := access.NewKey()
	k.Hash = access.Hash(text)
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.store.keys = append(w.store.keys, k)
	return text
}

// admin is a key that may do anything in the first tenant.
func (w *world) admin() string { return w.keys[0][access.Admin] }

// document loads openapi.yaml once.
var document = sync.OnceValues(func() (*openapi3.T, error) {
	for _, lines := range []string{"application/x-ndjson", "application/ndjson", "application/jsonl", "text/csv", "text/event-stream"} {
		openapi3filter.RegisterBodyDecoder(lines, openapi3filter.PlainBodyDecoder)
	}
	openapi3filter.RegisterBodyDecoder("multipart/form-data", decodeForm)
	doc, err := openapi3.NewLoader().LoadFromData(openapi)
	if err != nil {
		return nil, err
	}
	return doc, doc.Validate(context.Background())
})

// decodeForm makes of a form what its schema describes: fields that are JSON
// are that.
func decodeForm(body io.Reader, h http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
	_, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return nil, err
	}
	form, err := multipart.NewReader(body, params["boundary"]).ReadForm(1 << 20)
	if err != nil {
		return nil, err
	}
	decoded := map[string]any{}
	for name := range form.File {
		decoded[name] = "the file"
	}
	for name, values := range form.Value {
		var v any
		if err := json.Unmarshal([]byte(values[0]), &v); err != nil {
			v = values[0]
		}
		decoded[name] = v
	}
	return decoded, nil
}

func documented(t *testing.T) routers.Router {
	t.Helper()
	doc, err := document()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return router
}

// reply is an answer that was read to its end.
type reply struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

// do sends a request with headers given in pairs.
func (w *world) do(method, path, key, body string, headers ...string) reply {
	w.t.Helper()
	req, err := http.NewRequest(method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if res.Header.Get("X-Request-Id") == "" {
		w.t.Errorf("%s %s: no X-Request-Id", method, path)
	}
	w.fits(req, body, res, got)
	return reply{w.t, res.StatusCode, res.Header, got}
}

// fits holds request and answer against openapi.yaml. HEAD is not in there:
// it is GET without the body.
func (w *world) fits(req *http.Request, body string, res *http.Response, got []byte) {
	w.t.Helper()
	if req.Method == http.MethodHead {
		return
	}
	rt, vars, err := w.router.FindRoute(req)
	if err != nil {
		if res.StatusCode < 400 {
			w.t.Errorf("%s %s is not documented", req.Method, req.URL.Path)
		}
		return
	}
	asked := &openapi3filter.RequestValidationInput{
		Request: req, PathParams: vars, Route: rt,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if res.StatusCode < 400 && req.Header.Get("Content-Encoding") == "" {
		req.Body = io.NopCloser(strings.NewReader(body))
		if err := openapi3filter.ValidateRequest(context.Background(), asked); err != nil {
			w.t.Errorf("%s %s was accepted but is not as documented: %v", req.Method, req.URL, err)
		}
	}
	answered := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: asked, Status: res.StatusCode, Header: res.Header,
		Body: io.NopCloser(bytes.NewReader(got)), Options: asked.Options,
	}
	if err := openapi3filter.ValidateResponse(context.Background(), answered); err != nil {
		w.t.Errorf("answer %d to %s %s is not as documented: %v\n%s", res.StatusCode, req.Method, req.URL, err, got)
	}
}

func (w *world) get(path string, headers ...string) reply {
	w.t.Helper()
	return w.do("GET", path, w.admin(), "", headers...)
}

// submit posts NDJSON.
func (w *world) submit(query, body string) reply {
	w.t.Helper()
	return w.do("POST", "/v1/batches"+query, w.admin(), body, "Content-Type", "application/x-ndjson")
}

// is fails the test unless the answer has the status, and the code if it is
// a problem.
func (r reply) is(status int, code string) reply {
	r.t.Helper()
	var p problem
	if r.status >= 400 && len(r.body) > 0 {
		r.decode(&p)
	}
	if r.status != status || p.Code != code {
		r.t.Fatalf("status %d %q, want %d %q: %s", r.status, p.Code, status, code, r.body)
	}
	if p.Code != "" && (p.Status != status || p.RequestID != r.header.Get("X-Request-Id") ||
		r.header.Get("Content-Type") != "application/problem+json") {
		r.t.Errorf("the problem does not fit its answer: %s %v", r.body, r.header)
	}
	return r
}

func (r reply) decode(v any) {
	r.t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		r.t.Fatalf("%v in %q", err, r.body)
	}
}

func (r reply) problem() (p problem) {
	r.t.Helper()
	r.decode(&p)
	return p
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
