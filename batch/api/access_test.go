package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
)

// at returns the path of a route with its variables filled in.
func (rt route) at(id fmt.Stringer) string {
	return strings.NewReplacer("{id}", id.String(), "{index}", "0", "{part}", "0").Replace(rt.path)
}

// input returns a query and a body that a route takes, and headers that go
// with them.
func (rt route) input() (query, body string, headers []string) {
	switch {
	case rt.method == http.MethodPut:
		return "", "1\n", []string{"Content-Type", "application/x-ndjson"}
	case rt.method == http.MethodPatch:
		return "", `{"priority":"low"}`, []string{"Content-Type", "application/json"}
	case strings.HasSuffix(rt.path, "/retry"):
		return "", `{"from_round":1}`, []string{"Content-Type", "application/json"}
	case slices.Contains(rt.params, "id"):
		return "?id=0", "", nil
	}
	return "", "", nil
}

// ids returns what the path's id may be in a tenant: one that is there, and in
// a state that lets the row answer.
func (w *world) ids(rt route, tenant batch.TenantID) fmt.Stringer {
	done, last := 0, batch.ItemSucceeded
	switch {
	case strings.HasSuffix(rt.path, "/retry"):
		done, last = 1, batch.ItemFailed
	case strings.HasSuffix(rt.path, "/output"), strings.HasSuffix(rt.path, "/events"), rt.method == "DELETE":
		done = 1
	}
	if strings.Contains(rt.path, "/parts") || strings.HasSuffix(rt.path, "/seal") {
		parts := 1
		if rt.method == http.MethodPut {
			parts = 0
		}
		return w.store.putOpen(tenant, parts)
	}
	b := w.store.put(tenant, 1, 0)
	if done == 1 {
		w.store.change(b, func(b *fakeBatch) { b.finish(0, last, `{"total":6}`) })
	}
	if strings.HasPrefix(rt.path, "/v1/messages/") {
		return w.store.putMessage(tenant, b)
	}
	return b
}

// TestTenancy asks every route of the table that names something, with the
// keys of two tenants, for what is their own, the other's, and nobody's.
func TestTenancy(t *testing.T) {
	w := newWorld(t)
	for _, rt := range routes() {
		if !strings.Contains(rt.path, "{id}") {
			continue
		}
		for mine, tenant := range w.tenants {
			t.Run(fmt.Sprintf("%s %s as tenant %d", rt.method, rt.path, mine), func(t *testing.T) {
				as := func(id fmt.Stringer, requestID string) reply {
					query, body, headers := rt.input()
					return w.do(rt.method, rt.at(id)+query, w.keys[mine][access.Admin], body, append(headers, "X-Request-Id", requestID)...)
				}
				if own := as(w.ids(rt, tenant), "r"); own.status >= 300 {
					t.Errorf("one's own: %d %s", own.status, own.body)
				}
				var nobody fmt.Stringer = batch.NewID(time.Now())
				if strings.HasPrefix(rt.path, "/v1/messages/") {
					nobody = batch.NewMessageID(time.Now())
				}
				foreignID := w.ids(rt, w.tenants[1-mine])
				var was batch.Status
				if id, ok := foreignID.(batch.ID); ok {
					was = w.store.batches[id].Status
				}
				foreign := as(foreignID, "r").is(404, "not_found")
				unknown := as(nobody, "r").is(404, "not_found")
				if string(foreign.body) != string(unknown.body) {
					t.Errorf("another's:\n%snobody's:\n%s", foreign.body, unknown.body)
				}
				foreign.header.Del("Date")
				unknown.header.Del("Date")
				if f, u := fmt.Sprint(foreign.header), fmt.Sprint(unknown.header); f != u {
					t.Errorf("another's:\n%s\nnobody's:\n%s", f, u)
				}
				if id, ok := foreignID.(batch.ID); ok && (w.store.batches[id].Status != was || w.store.batches[id].Edition > 0 || w.store.batches[id].deleted) {
					t.Error("the other's batch is another now")
				}
				if id, ok := foreignID.(batch.MessageID); ok && w.store.messages[id].Manual {
					t.Error("the other's message is sent again now")
				}
			})
		}
	}
	t.Run("lists and secrets are the tenant's own", func(t *testing.T) {
		var lists [2]struct{ Data []struct{ ID batch.ID } }
		var secrets [2]struct{ Secret string }
		for i := range w.tenants {
			w.do("GET", "/v1/batches", w.keys[i][access.Read], "").is(200, "").decode(&lists[i])
			w.do("GET", "/v1/callbacks/secret", w.keys[i][access.Admin], "").is(200, "").decode(&secrets[i])
			for _, b := range lists[i].Data {
				if w.store.batches[b.ID].Tenant != w.tenants[i] {
					t.Errorf("tenant %d is shown %s", i, b.ID)
				}
			}
			for _, path := range []string{"/v1/messages", "/v1/messages/feed"} {
				var messages struct {
					Data []struct{ ID batch.MessageID }
				}
				w.do("GET", path, w.keys[i][access.Read], "").is(200, "").decode(&messages)
				for _, m := range messages.Data {
					if w.store.messages[m.ID].Tenant != w.tenants[i] {
						t.Errorf("%s shows tenant %d %s", path, i, m.ID)
					}
				}
				if len(messages.Data) == 0 {
					t.Errorf("%s shows tenant %d nothing", path, i)
				}
			}
		}
		if len(lists[0].Data) == 0 || len(lists[1].Data) == 0 || secrets[0] == secrets[1] {
			t.Errorf("%d and %d batches, secrets %v", len(lists[0].Data), len(lists[1].Data), secrets)
		}
	})
	t.Run("an id of another kind or of none is as unknown", func(t *testing.T) {
		m := w.store.putMessage(w.tenants[0], w.store.put(w.tenants[0], 1, 0))
		w.get("/v1/batches/"+m.String()).is(404, "not_found")
		w.get("/v1/messages/"+batch.NewID(time.Now()).String()).is(404, "not_found")
		w.get("/v1/batches/bat_"+strings.Repeat("u", 26)).is(404, "not_found")
		w.get("/v1/batches/x").is(404, "no_such_path")
	})
}

// TestScopes asks every route of the table with a key of every scope.
func TestScopes(t *testing.T) {
	w := newWorld(t)
	for _, rt := range routes() {
		path := rt.path
		if strings.Contains(path, "{id}") {
			path = rt.at(w.ids(rt, w.tenants[0]))
		}
		isOpen := slices.Contains(rt.scopes, open)
		for scope, key := range w.keys[0] {
			t.Run(fmt.Sprintf("%s %s with %s", rt.method, rt.path, scope), func(t *testing.T) {
				may := isOpen || slices.Contains(rt.scopes, scope) || scope == access.Admin && !slices.Contains(rt.scopes, access.Operator)
				method := rt.method
				if rt.path == "/v1/events" {
					method = http.MethodHead // the answer has no end
				}
				got := w.do(method, path, key, "").status
				if refused := got == http.StatusForbidden; refused == may {
					t.Errorf("status %d, allowed is %v", got, may)
				}
			})
		}
		t.Run(rt.method+" "+rt.path+" without a key", func(t *testing.T) {
			got := w.do(rt.method, path, "", "").status
			if refused := got == http.StatusUnauthorized; refused == isOpen {
				t.Errorf("status %d, open is %v", got, isOpen)
			}
		})
	}
}

func TestKeysThatAreNone(t *testing.T) {
	w := newWorld(t)
	good := w.admin()
	expired := w.addKey(batch.Key{Scopes: []string{"admin"}, Expires: time.Now().Add(-time.Second)})
	mangled := []byte(good)
	mangled[20] ^= 1
	const id = "the same for all"
	want := w.do("GET", "/v1/batches", "", "", "X-Request-Id", id).is(401, "unauthorized")
	if got := want.header.Get("WWW-Authenticate"); got != "Bearer" {
		t.Errorf("WWW-Authenticate is %q", got)
	}
	for name, values := range map[string][]string{
		"a wrong key":              {"Bearer " + access.NewKey()},
		"a mangled key":            {"Bearer " + string(mangled)},
		"half a key":               {"Bearer " + good[:30]},
		"an expired key":           {"Bearer " + expired},
		"another prefix":           {"Bearer xyz_" + good[4:]},
		"upper case":               {"Bearer " + strings.ToUpper(good)},
		"no scheme":                {good},
		"another scheme":           {"Basic " + good},
		"an empty key":             {"Bearer "},
		"two spaces":               {"Bearer  " + good},
		"something behind":         {"Bearer " + good + " x"},
		"10 KiB":                   {"Bearer " + strings.Repeat("k", 10<<10)},
		"two headers":              {"Bearer " + good, "Bearer " + good},
		"two headers, one is good": {"Bearer " + good, "Basic eDp5"},
		"two keys in one header":   {"Bearer " + good + ", Bearer " + good},
	} {
		t.Run(name, func(t *testing.T) {
			headers := []string{"X-Request-Id", id}
			for _, v := range values {
				headers = append(headers, "Authorization", v)
			}
			got := w.do("GET", "/v1/batches", "", "", headers...).is(401, "unauthorized")
			if sansID(got) != sansID(want) {
				t.Errorf("%s differs from %s", got.body, want.body)
			}
		})
	}
	t.Run("a key in the query is refused", func(t *testing.T) {
		w.do("GET", "/v1/batches?key="+good, "", "").is(401, "unauthorized")
		w.do("GET", "/v1/batches?key="+good, good, "").is(400, "unknown_parameter")
	})
	t.Run("the scheme is read in any case", func(t *testing.T) {
		w.do("GET", "/v1/batches", "", "", "Authorization", "bEARER "+good).is(200, "")
	})
	t.Run("a cookie is no key", func(t *testing.T) {
		w.do("GET", "/v1/batches", "", "", "Cookie", "key="+good).is(401, "unauthorized")
	})
	if log := w.log.String(); strings.Contains(log, "cbk_") {
		t.Errorf("a key is in the log: %s", log)
	}
}

// sansID is the body without the request's id.
func sansID(r reply) string {
	return strings.ReplaceAll(string(r.body), r.header.Get("X-Request-Id"), "")
}

func TestWithoutKeys(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Keys = nil })
	_, port, _ := strings.Cut(strings.TrimPrefix(w.server.URL, "http://"), ":")
	ask := func(method, path, host string, headers ...string) int {
		t.Helper()
		body := ""
		if method == "POST" {
			body = "1\n"
		}
		req, err := http.NewRequest(method, w.server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Content-Type", "application/x-ndjson")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:" + port: 200, "127.0.0.1": 200, "127.0.0.1:" + port: 200, "[::1]": 200, "[::1]:9": 200,
		"evil.example": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example:" + port: 403, "10.0.0.1": 403, "0.0.0.0": 403, "2130706433": 403,
	} {
		t.Run("Host "+host, func(t *testing.T) {
			for _, path := range []string{"/v1/batches", "/readyz", "/metrics"} {
				if got := ask("GET", path, host); got != want {
					t.Errorf("%s: %d, want %d", path, got, want)
				}
			}
		})
	}
	self := "http://localhost:" + port
	for _, c := range []struct {
		name    string
		headers []string
		refused bool
	}{
		{"curl", nil, false},
		{"the address bar", []string{"Sec-Fetch-Site", "none"}, false},
		{"our own page", []string{"Sec-Fetch-Site", "same-origin", "Origin", self}, false},
		{"our own page in an old browser", []string{"Origin", self}, false},
		{"another site's page", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, true},
		{"another site's page in an old browser", []string{"Origin", "https://evil.example"}, true},
		{"a page on another port of this machine", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://localhost:1"}, true},
		{"a sandboxed frame", []string{"Origin", "null"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for method, path := range map[string]string{"POST": "/v1/batches?processor=price", "GET": "/v1/callbacks/secret"} {
				if got := ask(method, path, "localhost:"+port, c.headers...); (got == 403) != c.refused {
					t.Errorf("%s %s: %d", method, path, got)
				}
			}
		})
	}
}
