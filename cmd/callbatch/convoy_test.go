package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
	"github.com/callbatch/callbatch/batch/server"
)

// A dock is a server that takes batches in parts.
type dock struct {
	mu     sync.Mutex
	keys   map[string]string // of idempotency, by what they were for
	opened int
	query  string
	parts  map[int]string
	puts   int
	sealed bool
	gone   bool

	before func(what string, puts int, w http.ResponseWriter) (done bool) // answers instead
}

func (d *dock) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	what, status := r.Method+" "+path.Base(r.URL.Path), "open"
	if r.Method == http.MethodPut {
		what = "PUT"
		d.puts++
	}
	if d.sealed {
		status = "queued"
	}
	if d.before != nil && d.before(what, d.puts, w) {
		return
	}
	switch what {
	case "POST batches":
		d.opened, d.query = d.opened+1, r.URL.RawQuery
		d.key(what, r)
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, aBatch("open", 1, 0, 0))
	case "GET " + someBatch:
		io.WriteString(w, aBatch(status, 1, 0, 0))
	case "GET parts":
		var list struct {
			Data []json.RawMessage `json:"data"`
		}
		for _, n := range slices.Sorted(maps.Keys(d.parts)) {
			list.Data = append(list.Data, d.part(n))
		}
		json.NewEncoder(w).Encode(list)
	case "PUT":
		n, _ := strconv.Atoi(path.Base(r.URL.Path))
		d.parts[n] = string(body)
		w.Write(d.part(n))
	case "POST seal":
		d.key(what, r)
		if want := fmt.Sprintf(`{"parts":%d}`, len(d.parts)); string(body) != want {
			problem(w, http.StatusConflict, "missing_parts")
			return
		}
		d.sealed = true
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, aBatch("queued", 1, 0, 0))
	case "DELETE " + someBatch:
		d.gone = true
		w.WriteHeader(http.StatusNoContent)
	default:
		problem(w, http.StatusNotFound, "not_found")
	}
}

func (d *dock) key(what string, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	if before := d.keys[what]; key == "" || before != "" && before != key {
		panic("a call under another key")
	}
	d.keys[what] = key
}

func (d *dock) part(n int) []byte {
	sum := sha256.Sum256([]byte(d.parts[n]))
	return fmt.Appendf(nil, `{"part":%d,"items":1,"bytes":%d,"sha256":%q}`, n, len(d.parts[n]), hex.EncodeToString(sum[:]))
}

// text is what the parts come to.
func (d *dock) text() (all string) {
	for _, n := range slices.Sorted(maps.Keys(d.parts)) {
		all += d.parts[n]
	}
	return all
}

// docked returns a server, and what submits files to it.
func docked(t *testing.T) (d *dock, file string, submit func(ctx context.Context, args ...string) (stdout, stderr string, code int)) {
	d = &dock{parts: make(map[int]string), keys: make(map[string]string)}
	env := append(answering(t, d.ServeHTTP), "XDG_CACHE_HOME="+t.TempDir())
	file = filepath.Join(t.TempDir(), "items.ndjson")
	return d, file, func(ctx context.Context, args ...string) (string, string, int) {
		var out, log bytes.Buffer
		code := run(ctx, append([]string{"submit", file}, args...), env, nil, &out, &log)
		return out.String(), log.String(), code
	}
}

// fill writes a file of n lines of 10 bytes.
func fill(t *testing.T, file string, n int) (text string) {
	for i := range n {
		text += fmt.Sprintf("%9d\n", i)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return text
}

func TestConvoy(t *testing.T) {
	t.Run("a file goes up in parts", func(t *testing.T) {
		d, file, submit := docked(t)
		text := fill(t, file, 95)
		stdout, stderr, code := submit(t.Context(), "--part-size", "100", "--processor", "price")
		if code != 0 || stdout != someBatch+"\n" || !d.sealed || d.text() != text || len(d.parts) != 10 {
			t.Errorf("exit %d, %d parts: %s%s", code, len(d.parts), stdout, stderr)
		}
		if d.query != "open=true&processor=price" {
			t.Errorf("it was opened with %s", d.query)
		}
	})

	t.Run("a connection that breaks, at any call, does nothing twice", func(t *testing.T) {
		for _, at := range []string{"POST batches", "PUT", "POST seal"} {
			d, file, submit := docked(t)
			text, broke := fill(t, file, 30), false
			d.before = func(what string, _ int, _ http.ResponseWriter) bool {
				if what == at && !broke {
					broke = true
					panic(http.ErrAbortHandler)
				}
				return false
			}
			_, stderr, code := submit(t.Context(), "--part-size", "100")
			if code != 0 || !broke || d.opened != 1 || d.text() != text {
				t.Errorf("%s: exit %d, opened %d times: %s", at, code, d.opened, stderr)
			}
		}
	})

	t.Run("an upload that was interrupted goes on by the same command", func(t *testing.T) {
		d, file, submit := docked(t)
		text := fill(t, file, 95)
		ctx, cancel := context.WithCancel(t.Context())
		d.before = func(what string, puts int, w http.ResponseWriter) bool {
			if what == "PUT" && puts > 4 {
				cancel()
				panic(http.ErrAbortHandler)
			}
			return false
		}
		_, stderr, code := submit(ctx, "--part-size", "100")
		if code != exitInterrupted || !strings.Contains(stderr, "callbatch submit "+file+" --resume "+someBatch+" --part-size 100\n") || d.sealed || d.gone {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		d.mu.Lock()
		d.before, d.puts = nil, 0
		d.mu.Unlock()
		_, stderr, code = submit(t.Context(), "--parts")
		if code != 0 || d.opened != 1 || d.puts > 10-4 || d.text() != text || !strings.Contains(stderr, "parts are there") {
			t.Errorf("exit %d, opened %d times, %d parts sent: %s", code, d.opened, d.puts, stderr)
		}
		clear(d.keys)
		_, _, _ = submit(t.Context(), "--parts") // it was done: this is another
		if d.opened != 2 {
			t.Errorf("opened %d times", d.opened)
		}
	})

	t.Run("or by naming the batch", func(t *testing.T) {
		d, file, submit := docked(t)
		text := fill(t, file, 30)
		d.parts[1] = text[100:200]
		if _, stderr, code := submit(t.Context(), "--resume", someBatch); code != 1 || !strings.Contains(stderr, "--part-size") || d.sealed {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		_, stderr, code := submit(t.Context(), "--resume", someBatch, "--part-size", "100")
		if code != 0 || d.opened != 0 || d.text() != text {
			t.Errorf("exit %d: %s", code, stderr)
		}
		if _, stderr, code = submit(t.Context(), "--resume", someBatch); code != 1 || !strings.Contains(stderr, "is queued: it lacks no part") {
			t.Errorf("exit %d: %s", code, stderr)
		}
	})

	t.Run("but not with a file that has changed", func(t *testing.T) {
		d, file, submit := docked(t)
		d.before = func(what string, _ int, w http.ResponseWriter) bool {
			if what == "POST seal" {
				problem(w, http.StatusInsufficientStorage, "disk_full")
				return true
			}
			return false
		}
		fill(t, file, 30)
		if _, stderr, code := submit(t.Context(), "--part-size", "100"); code != 1 || !strings.Contains(stderr, "--resume") {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		d.before = nil
		fill(t, file, 31)
		if _, stderr, code := submit(t.Context(), "--part-size", "100", "--resume", someBatch); code != 0 {
			t.Errorf("lines at the end are another part: exit %d: %s", code, stderr)
		}
		d.sealed = false
		if err := os.WriteFile(file, []byte("other\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, stderr, code := submit(t.Context(), "--part-size", "100", "--resume", someBatch); code != 1 || !strings.Contains(stderr, "has changed") {
			t.Errorf("exit %d: %s", code, stderr)
		}
		if now := time.Now().Add(time.Hour); os.Chtimes(file, now, now) != nil {
			t.Error("the file's time does not change")
		}
		clear(d.keys)
		if _, _, _ = submit(t.Context(), "--part-size", "100"); d.opened != 2 {
			t.Errorf("it was opened %d times", d.opened)
		}
	})

	t.Run("what is refused is taken back, and its place is that in the file", func(t *testing.T) {
		for _, tt := range []struct{ at, code, places, want string }{
			{"PUT", "bad_json", `[{"part":1,"index":2,"line":3,"code":"bad_json","detail":"bad"}]`, "line 13: bad"},
			{"POST seal", "duplicate_id", `[{"part":2,"index":0,"line":1,"pointer":"/id","code":"duplicate_id","detail":"bad"}]`, "line 21 /id: bad"},
		} {
			d, file, submit := docked(t)
			fill(t, file, 30)
			d.before = func(what string, puts int, w http.ResponseWriter) bool {
				if what == tt.at && puts > 2 {
					w.WriteHeader(http.StatusUnprocessableEntity)
					fmt.Fprintf(w, `{"status":422,"code":%q,"detail":"part 1: bad","errors":%s}`, tt.code, tt.places)
					return true
				}
				return false
			}
			_, stderr, code := submit(t.Context(), "--part-size", "100")
			if code != 1 || !d.gone || stderr != "callbatch: "+tt.want+"\n" {
				t.Errorf("exit %d, gone: %t: %s", code, d.gone, stderr)
			}
		}
	})

	t.Run("CSV has its header in every part, which counts in no line", func(t *testing.T) {
		d, file, submit := docked(t)
		if err := os.WriteFile(file, []byte("a,\"b\nc\"\n1,2\n3,4\n5,6\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		d.before = func(what string, _ int, w http.ResponseWriter) bool {
			if what != "POST seal" {
				return false
			}
			w.WriteHeader(http.StatusUnprocessableEntity)
			io.WriteString(w, `{"status":422,"code":"x","detail":"no","errors":[{"part":1,"line":3,"code":"x","detail":"no"}]}`)
			return true
		}
		_, stderr, _ := submit(t.Context(), "--type", "csv", "--part-size", "5")
		if d.parts[0] != "a,\"b\nc\"\n1,2\n3,4\n" || d.parts[1] != "a,\"b\nc\"\n5,6\n" || !strings.Contains(stderr, "line 5: no") {
			t.Errorf("%v: %s", d.parts, stderr)
		}
	})

	t.Run("nothing is nothing", func(t *testing.T) {
		d, file, submit := docked(t)
		if err := os.WriteFile(file, []byte("\n\n \n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, stderr, code := submit(t.Context(), "--parts"); code != 1 || !strings.Contains(stderr, "nothing in") || !d.gone {
			t.Errorf("exit %d: %s", code, stderr)
		}
	})
}

// TestBrokenUpload is an upload to a real server that is broken off and goes
// on: every line of the file is one item, in its place.
func TestBrokenUpload(t *testing.T) {
	const lines = 5000
	s := &stand{own: true}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	err := s.serve(t.Context(), server.Options{
		Listen: "127.0.0.1:0", Store: filepath.Join(t.TempDir(), "callbatch.db"), Dev: true, DefaultProcessor: "same",
		Processors: map[string]server.Processor{"same": {
			Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) { return c.Item, nil }),
		}},
		Limits: server.Limits{MinFree: 16 << 20, MinWork: 8 << 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var puts atomic.Int32
	proxy := httputil.NewSingleHostReverseProxy(to)
	env := append(answering(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && puts.Add(1) == 20 {
			cancel()
		}
		proxy.ServeHTTP(w, r)
	}), "XDG_CACHE_HOME="+t.TempDir())
	file := filepath.Join(t.TempDir(), "items.ndjson")
	fill(t, file, lines)

	var out, log bytes.Buffer
	args := []string{"submit", file, "--part-size", "1000B", "--wait"}
	if code := run(ctx, args, env, nil, &out, &log); code != exitInterrupted || out.Len() > 0 {
		t.Fatalf("exit %d: %s%s", code, &out, &log)
	}
	sent := puts.Load()
	if code := run(t.Context(), args, env, nil, &out, &log); code != 0 {
		t.Fatalf("exit %d: %s", code, &log)
	}
	if again := puts.Load() - sent; again > 50-15 {
		t.Errorf("%d of 50 parts were sent after %d were before", again, sent)
	}
	results, err := s.client.Results(t.Context(), strings.TrimSpace(out.String()), client.ResultOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer results.Close()
	n := 0
	for r, err := range results.All() {
		if err != nil || string(r.Output) != strconv.Itoa(n) || r.Index != n {
			t.Fatalf("result %d is %+v, %v", n, r, err)
		}
		n++
	}
	if n != lines {
		t.Errorf("%d results for %d lines", n, lines)
	}
}
