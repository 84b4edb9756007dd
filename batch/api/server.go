package api

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
	"github.com/callbatch/callbatch/batch/intake"
)

// server is the API.
type server struct {
	Options
	router      *mux.Router
	resources   map[string]resource
	tags        tags
	board       board
	seats       seats
	crossOrigin *http.CrossOriginProtection
}

// A request is a request that may be served: its key bears the scope.
type request struct {
	*http.Request
	tenant batch.TenantID
	vars   map[string]string // of the path
	query  url.Values        // known names only, one value each
	budget *intake.Budget    // of memory, for its body
}

// errAborted is the end of a request whose connection is to be given up
// without a word, because any word could be wrong.
var errAborted = errors.New("connection given up")

// ServeHTTP is the way of every request.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	id := requestID(r)
	a := newAnswer(w, r, s.Patience)
	h := a.Header()
	h.Set("X-Request-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "private, no-cache")

	path, rs, vars := s.match(r)
	defer a.linger()
	defer func() { s.note(r, path, id, a.statusLabel(), time.Since(started)) }()
	err := guarded(func() error { return s.serve(a, r, rs, vars) })
	if err != nil {
		s.fail(a, r, id, err)
	}
}

// note tells of an answered request: nothing in clear that a stranger chose,
// but an id that is fit for it.
func (s *server) note(r *http.Request, route, id string, status int, took time.Duration) {
	method := methodLabel(r.Method)
	s.Observe(route, method, status, took)
	if s.Logger.Enabled(r.Context(), slog.LevelDebug) {
		s.Logger.LogAttrs(r.Context(), slog.LevelDebug, "request", slog.String("method", method), slog.String("route", route),
			slog.Int("status", status), slog.Duration("took", took), slog.String("request_id", id))
	}
}

// serve admits the request and hands it to its row of the table.
func (s *server) serve(w http.ResponseWriter, r *http.Request, rs resource, vars map[string]string) error {
	if s.Keys == nil && !loopback(r.Host) {
		return &refusal{http.StatusForbidden, "host_refused", "this server answers to loopback names only; it needs keys to do more"}
	}
	if rs == nil {
		return &refusal{http.StatusNotFound, "no_such_path", "there is nothing at this path"}
	}
	rt, ok := rs.find(r.Method)
	if !ok {
		w.Header().Set("Allow", rs.allow())
		return &refusal{http.StatusMethodNotAllowed, "method_not_allowed", "the methods of this path are " + rs.allow()}
	}
	tenant, err := s.admit(w, r, rt)
	if err != nil {
		return err
	}
	query, err := parseQuery(r.URL.RawQuery, rt.params)
	if err != nil {
		return err
	}
	if err := checkIdempotencyKey(r.Header, rt); err != nil {
		return err
	}
	if !rt.body {
		if err := refuseBody(r); err != nil {
			return err
		}
	}
	return rt.handle(s, w, &request{Request: r, tenant: tenant, vars: vars, query: query, budget: s.Limits.Budget})
}

// admit returns whose the request is, or why it is refused.
func (s *server) admit(w http.ResponseWriter, r *http.Request, rt route) (batch.TenantID, error) {
	if rt.scopes[0] == open {
		return batch.TenantID{}, nil
	}
	if rt.linked() {
		if given := links(r); len(given) > 0 {
			return s.follow(w, r, given)
		}
	}
	if s.Keys == nil {
		return batch.TenantID{}, s.sameSite(r)
	}
	key, ok, err := s.Keys.Find(r.Context(), bearer(r.Header))
	switch {
	case err != nil:
		return batch.TenantID{}, fmt.Errorf("find key: %w", err)
	case !ok:
		return batch.TenantID{}, unauthorized(w, "a valid key is needed, as in: Authorization: Bearer cbk_…")
	case !access.Allows(key, rt.scopes...):
		return batch.TenantID{}, &refusal{http.StatusForbidden, "forbidden", "the key lacks the scope " + orList(rt.scopes)}
	}
	return key.Tenant, nil
}

func unauthorized(w http.ResponseWriter, detail string) error {
	w.Header().Set("WWW-Authenticate", "Bearer")
	return &refusal{http.StatusUnauthorized, "unauthorized", detail}
}

// bearer returns the key a request bears; "" if there is none or more than
// one.
func bearer(h http.Header) string {
	vs := h.Values("Authorization")
	if len(vs) != 1 {
		return ""
	}
	scheme, key, _ := strings.Cut(vs[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return key
}

// sameSite refuses what a page of another site makes a browser send. Reads
// count as well: without keys nothing else keeps a page from us.
func (s *server) sameSite(r *http.Request) error {
	asWrite := *r
	asWrite.Method = http.MethodPost
	if s.crossOrigin.Check(&asWrite) != nil {
		return &refusal{http.StatusForbidden, "cross_site", "this server has no keys and refuses what other sites' pages send"}
	}
	return nil
}

// loopback reports whether a Host header names this machine: a name that no
// foreign DNS can point here.
func loopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback() || strings.EqualFold(name, "localhost")
}

// guarded turns a panic of f into an error.
func guarded(f func() error) (err error) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			err = errAborted
		default:
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return f()
}

// requestID returns the id the client gave the request if it is fit for a
// log, else a new one.
func requestID(r *http.Request) string {
	if vs := r.Header.Values("X-Request-Id"); len(vs) == 1 && sane(vs[0]) {
		return vs[0]
	}
	return "req_" + strings.ToLower(rand.Text())
}

func sane(id string) bool {
	const most = 128
	return id != "" && len(id) <= most && strings.Trim(id,
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

func methodLabel(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return m
	}
	return "other"
}

func orList(scopes []access.Scope) string {
	var names []string
	for _, s := range scopes {
		names = append(names, string(s))
	}
	return strings.Join(names, " or ")
}
