package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// patience of tests is long: a loaded machine must not fail them.
const patience = 2 * time.Minute

// dial opens a connection for what no well-behaved client sends.
func (w *world) dial() *net.TCPConn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// raw sends bytes and returns the status of each answer until the connection
// ends; of a request that says "Connection: close" that is one.
func (w *world) raw(text string) (statuses []int) {
	w.t.Helper()
	c := w.dial()
	// The server may answer and close before it has read everything.
	go io.WriteString(c, text)
	in := bufio.NewReader(c)
	for {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses
		}
		statuses = append(statuses, res.StatusCode)
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return statuses
		}
	}
}

func TestRequestsThatAreNotHTTP(t *testing.T) {
	w := newWorld(t)
	auth := "Authorization: Bearer " + w.admin() + "\r\n"
	post := "POST /v1/batches?processor=price HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n" + auth
	get := "GET /v1/batches HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + auth
	for _, c := range []struct {
		name, text string
		want       int
	}{
		{"two lengths that differ", post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n1\n2", 400},
		{"a length with a sign", post + "Content-Length: +2\r\n\r\n1\n", 400},
		{"two hosts", get + "Host: y\r\n\r\n", 400},
		{"no host", strings.Replace(get, "Host: x\r\n", "", 1) + "\r\n", 400},
		{"a space before the colon", get + "X-A : b\r\n\r\n", 400},
		{"a NUL in a header", get + "X-A: b\x00c\r\n\r\n", 400},
		{"a NUL in the key", strings.Replace(get, "cbk_", "cbk\x00", 1) + "\r\n", 400},
		{"a coding of the transfer besides chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"a bad chunk size", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n1\n\r\n0\r\n\r\n", 400},
		{"chunks and a length together are read as chunks", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n0\r\n\r\n", 202},
		{"headers above 32 KiB", get + "X-A: " + strings.Repeat("a", 33<<10) + "\r\n\r\n", 431},
		{"headers below 32 KiB", get + "X-A: " + strings.Repeat("a", 30<<10) + "\r\n\r\n", 200},
		{"an expectation nobody knows", post + "Expect: the-worst\r\nContent-Length: 2\r\n\r\n1\n", 417},
		{"a folded key", strings.Replace(get, "Bearer ", "Bearer\r\n ", 1) + "\r\n", 200},
		{"a key folded in its middle", strings.Replace(get, "cbk_", "cbk_\r\n ", 1) + "\r\n", 401},
		{"bare line feeds", strings.ReplaceAll(get, "\r\n", "\n") + "\n", 200},
		{"an absolute target is a path", strings.Replace(get, "GET /", "GET http://elsewhere.example/", 1) + "\r\n", 200},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404},
		{"CONNECT", "CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\nConnection: close\r\n\r\n", 404},
		{"a method nobody knows", strings.Replace(get, "GET", "BREW", 1) + "\r\n", 405},
		{"TRACE", strings.Replace(get, "GET", "TRACE", 1) + "\r\n", 405},
		{"lower case", strings.Replace(get, "GET", "get", 1) + "\r\n", 405},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := w.raw(c.text); len(got) != 1 || got[0] != c.want {
				t.Errorf("answered %v, want %d", got, c.want)
			}
		})
	}
	t.Run("a continue is given before the body, and the answer after it", func(t *testing.T) {
		c := w.dial()
		in := bufio.NewReader(c)
		io.WriteString(c, post+"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
		if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 100 {
			t.Fatalf("%v, %v", res, err)
		}
		io.WriteString(c, "1\n")
		if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 202 {
			t.Fatalf("%v, %v", res, err)
		}
	})
	t.Run("who may not submit gets no continue", func(t *testing.T) {
		if got := w.raw(strings.Replace(post, "cbk_", "xxx_", 1) + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"); len(got) != 1 || got[0] != 401 {
			t.Errorf("answered %v", got)
		}
	})
}

func TestPathsHaveOneSpelling(t *testing.T) {
	w := newWorld(t)
	id := w.store.put(w.tenants[0], 1, 1).String()
	for _, path := range []string{
		"//v1/batches", "/v1//batches", "/v1/batches/", "/v1/./batches", "/v1/../v1/batches", "/v1/batches/.", "/v1/batches/..",
		"/v1/%2e%2e/v1/batches", "/v1/%62atches", "/v1%2Fbatches", "/v1/batches%2F", "/v1/batches%00", "/v1/batches.", "/v1/batches%20",
		"/V1/batches", "/v1/batches/" + id + "/", "/v1/batches/" + id + "/../" + id, "/v1/batches/" + strings.ToUpper(id),
		"/v1/batches/" + id + "/items/00", "/v1/batches/" + id + "/items/%30", "/v1/batches/" + id + "%2fresults", "/", "/v1", "/v1/batches\\", "/v1/batches%0a",
	} {
		for _, method := range []string{"GET", "POST"} {
			got := w.raw(method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + w.admin() + "\r\n\r\n")
			if len(got) != 1 || got[0] != 404 && got[0] != 400 {
				t.Errorf("%s %s: %v", method, path, got)
			}
		}
	}
}

func TestMethods(t *testing.T) {
	w := newWorld(t)
	id := w.store.put(w.tenants[0], 1, 1).String()
	for path, allow := range map[string]string{
		"/v1/batches":                    "GET, HEAD, POST",
		"/v1/batches/" + id:              "DELETE, GET, HEAD, PATCH",
		"/v1/batches/" + id + "/cancel":  "POST",
		"/v1/batches/" + id + "/results": "GET, HEAD",
		"/livez":                         "GET, HEAD",
	} {
		for _, method := range []string{"PUT", "PATCH", "DELETE", "OPTIONS"} {
			if strings.Contains(allow, method) {
				continue
			}
			if got := w.do(method, path, w.admin(), "").is(405, "method_not_allowed").header.Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow is %q, want %q", method, path, got, allow)
			}
		}
	}
	t.Run("HEAD works wherever GET does", func(t *testing.T) {
		for _, rt := range routes() {
			if rt.method != http.MethodGet || rt.path == "/v1/events" { // whose answer has no end
				continue
			}
			path := rt.path
			if strings.Contains(path, "{id}") {
				path = rt.at(w.ids(rt, w.tenants[0]))
			}
			key := w.admin()
			if rt.path == "/metrics" {
				key = w.keys[0]["operator"]
			}
			get, head := w.do("GET", path, key, ""), w.do("HEAD", path, key, "")
			if head.status != get.status || head.header.Get("Content-Type") != get.header.Get("Content-Type") || len(head.body) > 0 {
				t.Errorf("%s: GET %d, HEAD %d %v %q", path, get.status, head.status, head.header, head.body)
			}
		}
	})
}

func TestRequestIDs(t *testing.T) {
	w := newWorld(t)
	for id, kept := range map[string]bool{
		"a-B_9.z": true, strings.Repeat("a", 128): true,
		"": false, strings.Repeat("a", 129): false, "a b": false, "a\tb": false, "é": false, `"`: false, "a,b": false, "<script>": false,
	} {
		got := w.do("GET", "/livez", "", "", "X-Request-Id", id).header.Values("X-Request-Id")
		if len(got) != 1 || got[0] == "" || (got[0] == id) != kept {
			t.Errorf("%q became %q", id, got)
		}
	}
	got := w.do("GET", "/livez", "", "", "X-Request-Id", "a", "X-Request-Id", "b").header.Values("X-Request-Id")
	if len(got) != 1 || got[0] == "a" || got[0] == "b" {
		t.Errorf("two became %q", got)
	}
}

// observed collects what Observe is told.
type observed struct {
	mu  sync.Mutex
	all []string
}

func (o *observed) add(route, method string, status int, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, fmt.Sprintf("%s %s %d", method, route, status))
}

func (o *observed) has(line string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.all {
		if l == line {
			return true
		}
	}
	return false
}

func TestEveryRequestIsObservedOnce(t *testing.T) {
	var seen observed
	w := newWorld(t, func(o *Options) { o.Observe = seen.add })
	id := w.store.put(w.tenants[0], 1, 1).String()
	w.get("/v1/batches/" + id)
	w.do("HEAD", "/v1/batches/"+id, w.admin(), "")
	w.get("/v1/secret-" + id)
	w.do("DELETE", "/v1/batches", w.admin(), "")
	w.do("BREW", "/v1/batches", w.admin(), "")
	w.server.Close()
	for _, want := range []string{
		"GET /v1/batches/{id} 200", "HEAD /v1/batches/{id} 200", "GET none 404", "DELETE /v1/batches 405", "other /v1/batches 405",
	} {
		if !seen.has(want) {
			t.Errorf("no %q in %q", want, seen.all)
		}
	}
	if len(seen.all) != 5 {
		t.Errorf("%q", seen.all)
	}
}

func TestEveryRequestIsInTheLogAtLevelDebug(t *testing.T) {
	var log lockedBuffer
	w := newWorld(t, func(o *Options) {
		o.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	id := w.store.put(w.tenants[0], 1, 1).String()
	w.do("GET", "/v1/batches/"+id+"?q=hush", w.admin(), "", "X-Request-Id", "req-1", "X-Other", "hush")
	w.do("HUSH", "/hush", "hush", "", "X-Request-Id", "req-2")
	w.server.Close()
	want := []string{"GET /v1/batches/{id} 400 req-1", "other none 404 req-2"}
	var got []string
	for line := range strings.Lines(log.String()) {
		var l struct {
			Level, Method, Route string
			Status               int
			Took                 *time.Duration
			RequestID            string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Level != "DEBUG" || l.Took == nil {
			t.Errorf("%q, %v", line, err)
		}
		got = append(got, fmt.Sprintf("%s %s %d %s", l.Method, l.Route, l.Status, l.RequestID))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if all := strings.ToLower(log.String()); strings.Contains(all, "hush") || strings.Contains(all, "cbk_") {
		t.Errorf("the log says %s", all)
	}
}

func TestFailuresOfOurs(t *testing.T) {
	for name, ask := range map[string]func(w *world) reply{
		"a panic": func(w *world) reply { return w.submit("?processor=price&callback_url=https://shop.example/", "1\n") },
		"an internal error": func(w *world) reply {
			return w.get("/v1/batches/" + w.store.put(w.tenants[0], 2, 2).String() + "/results?after=0")
		},
	} {
		t.Run(name+" is 500 without details, and logged once", func(t *testing.T) {
			w := newWorld(t, func(o *Options) {
				o.CheckCallback = func(string) error { panic("the secret of the house") }
			})
			w.store.resultsErr = errors.New("the secret of the house")
			p := ask(w).is(500, "internal").problem()
			if strings.Contains(p.Detail, "house") {
				t.Errorf("the client is told %q", p.Detail)
			}
			if log := w.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "house") || !strings.Contains(log, p.RequestID) {
				t.Errorf("the log says %q", log)
			}
			w.get("/v1/batches").is(200, "")
		})
	}
	t.Run("a damaged record is called so", func(t *testing.T) {
		w := newWorld(t)
		w.store.resultsErr = batch.Errorf(batch.Damaged, "segment 7")
		w.get("/v1/batches/"+w.store.put(w.tenants[0], 2, 2).String()+"/results?after=0").is(500, "damaged")
		if log := w.log.String(); !strings.Contains(log, "segment 7") {
			t.Errorf("the log says %q", log)
		}
	})
}
