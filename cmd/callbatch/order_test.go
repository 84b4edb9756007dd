package main_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// TestOrder watches the system calls of the real server: no byte of a 202
// leaves before the batch is synced to disk, none of a result before that is,
// and none of a webhook before the message itself is.
func TestOrder(t *testing.T) {
	o := traceOrder(t, build(t))
	for _, err := range o.violations() {
		t.Error(err)
	}
}

// order is a trace of a server that took batches and sent their webhooks.
type order struct {
	calls []*syscallLine
	store string
	jobs  []orderJob
}

// orderJob is a batch of one item. Its token is in the record of the batch
// and nowhere before; its output is in the result and nowhere before.
type orderJob struct {
	id, token, output, webhookID string
}

func (o order) violations() []error {
	var all []error
	want := func(what string, out *syscallLine, mark []byte) {
		if out == nil {
			all = append(all, fmt.Errorf("%s is not in the trace", what))
		} else if err := durableBefore(o.calls, out, o.store, mark); err != nil {
			all = append(all, fmt.Errorf("%s: %w", what, err))
		}
	}
	for _, j := range o.jobs {
		message, err := batch.ParseMessageID(j.webhookID)
		if err != nil {
			all = append(all, err)
			continue
		}
		hook := sent(o.calls, "POST ", []byte(j.webhookID))
		want("the 202 of "+j.id, sent(o.calls, "HTTP/1.1 202", []byte(j.id)), []byte(j.token))
		want("the result of "+j.id+", shown", sent(o.calls, "", []byte(j.output)), []byte(j.output))
		want("the webhook of "+j.id+", its result", hook, []byte(j.output))
		want("the webhook of "+j.id+", its message", hook, message[:])
	}
	return all
}

// traceOrder runs the server under strace while it takes a few batches.
func traceOrder(t *testing.T, bin string, env ...string) order {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("strace is needed, and CI has to have it")
		}
		t.Skip("needs strace")
	}
	hooks := newHooks(t)
	v := newVictim(t, bin, t.TempDir(), append(env, "GODEBUG=asyncpreemptoff=1")) // its signals cut delays short
	v.configure(t, "http://"+v.addr, hooks.port())
	trace := v.path("trace")
	v.wrap = []string{
		strace, "-f", "--seccomp-bpf", "-y", "-xx", "-s", "2097152", "-o", trace,
		"-e", "signal=none", "-e", "trace=pwrite64,fdatasync,fsync,write,writev,sendto,sendmsg",
		"-e", "inject=fdatasync:delay_enter=10000", // µs, in which to show what is not on disk
	}
	if err := v.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.stop)
	if err := v.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := newAPI(v)
	o := order{store: v.store()}
	for i := range 10 {
		o.jobs = append(o.jobs, orderOne(t, a, hooks, i))
	}
	v.terminateTraced(t)
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if o.calls, err = parseTrace(f); err != nil {
		t.Fatal(err)
	}
	return o
}

// orderOne submits a batch of one item and waits for its webhook.
func orderOne(t *testing.T, a *api, hooks *hooks, i int) orderJob {
	t.Helper()
	j := orderJob{token: fmt.Sprintf("token-of-batch-%d", i), output: fmt.Sprintf(`{"sum":%d}`, 7_000_000+i)}
	body := fmt.Sprintf(`{"processor":"sum","metadata":{"token":%q},"callback_url":%q,"items":[{"i":%d,"n":7000000}]}`, j.token, hooks.server.URL, i)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ans, err := a.do(ctx, http.MethodPost, "/v1/batches", "application/json", strings.NewReader(body))
	if err != nil || ans.status != http.StatusAccepted {
		t.Fatalf("%v, %d %s", err, ans.status, ans.body)
	}
	j.id = filepath.Base(ans.header.Get("Location"))
	for !bytes.Contains(ans.body, []byte(j.output)) { // whatever is shown, as soon as it is
		if ans, err = a.do(ctx, http.MethodGet, "/v1/batches/"+j.id+"/results", "", nil); err != nil {
			t.Fatal(err)
		}
	}
	if j.webhookID, err = hooks.await(ctx, j.token); err != nil {
		t.Fatal(err)
	}
	return j
}

// terminateTraced asks the server, which is the child of strace, to stop.
func (v *victim) terminateTraced(t *testing.T) {
	t.Helper()
	v.mu.Lock()
	pid := v.cmd.Process.Pid
	v.mu.Unlock()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Sscan(string(text), &child); err != nil {
		t.Fatalf("children of strace: %q: %v", text, err)
	}
	if err := syscall.Kill(child, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-v.gone
}

// hooks is a receiver that says which message told of which batch.
type hooks struct {
	server *httptest.Server
	mu     sync.Mutex
	bodies map[string][]byte // by webhook-id
	came   chan struct{}
}

func newHooks(t *testing.T) *hooks {
	h := &hooks{bodies: make(map[string][]byte), came: make(chan struct{}, 1)}
	h.server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		if _, err := b.ReadFrom(r.Body); err != nil {
			return
		}
		h.mu.Lock()
		h.bodies[r.Header.Get("webhook-id")] = b.Bytes()
		h.mu.Unlock()
		select {
		case h.came <- struct{}{}:
		default:
		}
	}))
	t.Cleanup(h.server.Close)
	return h
}

func (h *hooks) port() string { return h.server.URL[strings.LastIndexByte(h.server.URL, ':')+1:] }

// await returns the id of the webhook whose body has the text in it.
func (h *hooks) await(ctx context.Context, text string) (string, error) {
	for {
		h.mu.Lock()
		for id, body := range h.bodies {
			if bytes.Contains(body, []byte(`"`+text+`"`)) {
				h.mu.Unlock()
				return id, nil
			}
		}
		h.mu.Unlock()
		select {
		case <-h.came:
		case <-ctx.Done():
			return "", fmt.Errorf("no webhook with %s: %w", text, ctx.Err())
		}
	}
}
