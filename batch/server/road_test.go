package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/server"
	"github.com/callbatch/callbatch/storage"
)

// patience is the longest any of these tests waits for what must happen.
const patience = time.Minute

// A site is a store with a server on it that can be stopped and started.
type site struct {
	t    *testing.T
	o    server.Options
	base string
	stop func() error
}

func newSite(t *testing.T, o server.Options) *site {
	o.Listen, o.Dev, o.Store, o.Limits.MinFree = "127.0.0.1:0", true, filepath.Join(t.TempDir(), "callbatch.db"), 16<<20
	o.Limits.MinWork = 8 << 20
	s := &site{t: t, o: o}
	s.start()
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		s.check()
	})
	return s
}

func (s *site) start() {
	s.t.Helper()
	ready, done := make(chan net.Addr, 1), make(chan error, 1)
	o := s.o
	o.Ready = func(a net.Addr) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- server.Run(ctx, o) }()
	select {
	case a := <-ready:
		s.base = "http://" + a.String()
	case err := <-done:
		cancel()
		s.t.Fatal(err)
	}
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
}

// check opens the store of the stopped server and has it checked.
func (s *site) check() {
	s.t.Helper()
	st, err := storage.Open(context.Background(), s.o.Store, storage.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(st.Check(context.Background()), st.Close()); err != nil {
		s.t.Errorf("check: %v", err)
	}
}

type seen struct {
	ID       string
	Status   string
	Counts   batch.Counts
	Started  *time.Time `json:"started_at"`
	Callback struct {
		Status   string
		Messages struct{ Waiting, Delivered, Exhausted int }
	}
}

func (s *site) get(path string, into any) http.Header {
	s.t.Helper()
	resp, err := http.Get(s.base + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != 200 {
		s.t.Fatalf("GET %s: %s, %v", path, resp.Status, err)
	}
	return resp.Header
}

func (s *site) batch(id string) (b seen) {
	s.get("/v1/batches/"+id, &b)
	return b
}

// until waits until the batch is as wanted.
func (s *site) until(id, what string, ok func(seen) bool) seen {
	s.t.Helper()
	var b seen
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		b = s.batch(id)
		if c := b.Counts; c.Pending+c.Running+c.Finished() != c.Total {
			s.t.Fatalf("counts do not sum: %+v", c)
		}
		if ok(b) {
			return b
		}
	}
	s.t.Fatalf("never %s: %+v", what, b)
	return b
}

func (s *site) ended(id string) seen {
	s.t.Helper()
	return s.until(id, "ended with its messages", func(b seen) bool {
		return b.Status == "completed" && (b.Callback.Status == "none" || b.Callback.Status == "delivered")
	})
}

func (s *site) results(id, query string) (lines []string) {
	s.t.Helper()
	resp, err := http.Get(s.base + "/v1/batches/" + id + "/results" + query)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, 2<<20)
	for sc.Scan() {
		lines = append(lines, sc.Text())
	}
	return lines
}

func numbers(n int) io.Reader {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"n\":%d}\n", i)
	}
	return strings.NewReader(b.String())
}

// A hook is a receiver that keeps what arrives and verifies it with the
// official library.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	bodies map[string][]string // by webhook-id, one an attempt
	types  map[string]string
	answer func(id string, attempt int) int
	inside func(event)
}

type event struct {
	Type string
	Data struct {
		BatchID  string `json:"batch_id"`
		Status   string
		Counts   batch.Counts
		Messages int
		Results  []json.RawMessage
	}
}

func newHook(t *testing.T, secret func() string) *hook {
	h := &hook{bodies: map[string][]string{}, types: map[string]string{}, answer: func(string, int) int { return 200 }, inside: func(event) {}}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		wh, err := standardwebhooks.NewWebhook(secret())
		if err != nil {
			t.Error(err)
			return
		}
		if err := wh.Verify(body, r.Header); err != nil {
			t.Errorf("the signature does not fit: %v", err)
		}
		var e event
		if err := json.Unmarshal(body, &e); err != nil {
			t.Error(err)
		}
		id := r.Header.Get("webhook-id")
		h.mu.Lock()
		h.bodies[id] = append(h.bodies[id], string(body))
		h.types[id] = e.Type
		n := len(h.bodies[id])
		h.mu.Unlock()
		if got := r.Header.Get("callbatch-attempt"); got != fmt.Sprint(n) {
			t.Errorf("attempt %d says it is number %s", n, got)
		}
		h.inside(e)
		w.WriteHeader(h.answer(id, n))
	}))
	t.Cleanup(h.Close)
	return h
}

func (s *site) secret() string {
	var v struct{ Secret string }
	s.get("/v1/callbacks/secret", &v)
	return v.Secret
}

func TestTheRoad(t *testing.T) {
	s := newSite(t, server.Options{
		Processors: map[string]server.Processor{"noop": {Do: noop}},
		Callbacks:  server.Callbacks{Schedule: []time.Duration{0, 10 * time.Millisecond, 10 * time.Millisecond}},
	})
	h := newHook(t, s.secret)
	h.answer = func(_ string, attempt int) int { return []int{503, 200}[min(attempt, 2)-1] }
	var early atomic.Int64
	h.inside = func(e event) { // what a message says the API shows already
		b := s.batch(e.Data.BatchID)
		if strings.HasPrefix(e.Type, "batch.comp") && (b.Status != e.Data.Status || b.Counts != e.Data.Counts) {
			early.Add(1)
		}
	}
	for _, n := range []int{1, 256, 257, 3000} {
		t.Run(fmt.Sprintf("%d items", n), func(t *testing.T) {
			before := len(h.bodies)
			id := submit(t, http.DefaultClient, s.base, "processor=noop&callback_url="+h.URL, numbers(n))
			b := s.ended(id)
			if b.Counts.Succeeded != n {
				t.Errorf("counts %+v", b.Counts)
			}
			lines := s.results(id, "")
			for i, line := range lines {
				if !strings.HasPrefix(line, fmt.Sprintf(`{"index":%d,"id":"%d","status":"succeeded","output":{"n":%d},"attempts":1,`, i, i, i)) {
					t.Fatalf("result %d is %s", i, line)
				}
			}
			if len(lines) != n {
				t.Errorf("%d results", len(lines))
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			var told []string
			ends, parts, announced := 0, 0, 0
			for id, bodies := range h.bodies {
				if len(bodies) != 2 || bodies[0] != bodies[1] {
					t.Errorf("%s came %d times, the same every time: %v", id, len(bodies), bodies[0] == bodies[len(bodies)-1])
				}
				var e event
				json.Unmarshal([]byte(bodies[0]), &e)
				if e.Data.BatchID != b.ID {
					continue
				}
				if e.Type == "batch.completed" {
					ends, announced = ends+1, e.Data.Messages
				} else {
					parts++
				}
				for _, r := range e.Data.Results {
					told = append(told, string(r))
				}
			}
			slices.Sort(told)
			slices.Sort(lines)
			if ends != 1 || parts != announced || !slices.Equal(told, lines) {
				t.Errorf("%d ends, %d parts of %d announced, %d results told of %d", ends, parts, announced, len(told), len(lines))
			}
			if want := map[bool]int{true: 1, false: (n+255)/256 + 1}[n <= 256]; len(h.bodies)-before != want {
				t.Errorf("%d messages, not %d", len(h.bodies)-before, want)
			}
		})
	}
	if n := early.Load(); n > 0 {
		t.Errorf("%d messages said more than the API", n)
	}
}

func TestCancel(t *testing.T) {
	started := make(chan struct{}, 1000)
	gate := make(chan struct{})
	s := newSite(t, server.Options{Processors: map[string]server.Processor{"slow": {Concurrency: 4, Do: batch.ProcessorFunc(
		func(ctx context.Context, c batch.Call) ([]byte, error) {
			started <- struct{}{}
			select {
			case <-gate:
			case <-ctx.Done():
			}
			return c.Item, ctx.Err()
		})}}})
	h := newHook(t, s.secret)
	id := submit(t, http.DefaultClient, s.base, "processor=slow&callback_url="+h.URL, numbers(1000))
	for range 4 {
		<-started
	}
	resp, err := http.Post(s.base+"/v1/batches/"+id+"/cancel", "", nil)
	if err != nil || resp.StatusCode != 202 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	canceling := s.batch(id)
	if canceling.Status != "canceling" || canceling.Started == nil {
		t.Fatalf("it is %s, started at %v, while items are in flight", canceling.Status, canceling.Started)
	}
	close(gate)
	b := s.until(id, "canceled with its messages", func(b seen) bool { return b.Status == "canceled" && b.Callback.Status == "delivered" })
	if b.Started == nil || b.Started.After(*canceling.Started) {
		t.Errorf("it was started at %v, then at %v", canceling.Started, b.Started)
	}
	if b.Counts.Succeeded < 4 || b.Counts.Succeeded+b.Counts.Canceled != 1000 {
		t.Errorf("counts %+v", b.Counts)
	}
	ran := 0
	lines := s.results(id, "")
	for _, l := range lines {
		if strings.Contains(l, `"status":"succeeded"`) {
			ran++
		} else if !strings.Contains(l, `"status":"canceled","error":{"code":"canceled",`) || !strings.Contains(l, `"attempts":0`) {
			t.Errorf("got %s", l)
		}
	}
	if len(lines) != 1000 || ran != b.Counts.Succeeded {
		t.Errorf("%d results, %d of them ran, counts %+v", len(lines), ran, b.Counts)
	}
	h.mu.Lock()
	told := 0
	for _, bodies := range h.bodies {
		told += strings.Count(bodies[0], `"index":`)
	}
	h.mu.Unlock()
	if told != ran {
		t.Errorf("%d results were told, %d items ran", told, ran)
	}
	resp, err = http.Post(s.base+"/v1/batches/"+id+"/cancel", "", nil)
	if err != nil || resp.StatusCode != 202 {
		t.Errorf("a second cancel: %v, %v", resp.Status, err)
	}
	resp.Body.Close()
}

// A stop in the middle costs no attempt and loses nothing.
func TestStopAndStart(t *testing.T) {
	var calls, cut atomic.Int64
	block := make(chan struct{})
	do := batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
		if calls.Add(1) > 300 {
			select {
			case <-block:
			case <-ctx.Done():
				cut.Add(1)
				return nil, ctx.Err()
			}
		}
		return fmt.Appendf(nil, "%d", c.Attempt), nil
	})
	s := newSite(t, server.Options{Drain: 50 * time.Millisecond, Processors: map[string]server.Processor{"p": {Do: do, Concurrency: 8}}})
	h := newHook(t, s.secret)
	const n = 2000
	id := submit(t, http.DefaultClient, s.base, "processor=p&callback_url="+h.URL, numbers(n))
	s.until(id, "under way", func(b seen) bool { return calls.Load() > 300 })
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if cut.Load() == 0 {
		t.Fatal("nothing was cut short: the test shows nothing")
	}
	s.check()
	close(block)
	s.start()
	b := s.ended(id)
	if b.Counts.Succeeded != n {
		t.Errorf("counts %+v", b.Counts)
	}
	for _, l := range s.results(id, "") {
		if !strings.Contains(l, `"output":1,"attempts":1,`) {
			t.Fatalf("an attempt was counted that our stop cut short: %s", l)
		}
	}
}

// A small batch does not wait behind a large one.
func TestFairness(t *testing.T) {
	step := make(chan struct{})
	do := batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
		select {
		case <-step:
		case <-ctx.Done():
		}
		return c.Item, ctx.Err()
	})
	s := newSite(t, server.Options{Drain: time.Millisecond, Processors: map[string]server.Processor{"p": {Do: do, Concurrency: 2}}})
	large := submit(t, http.DefaultClient, s.base, "processor=p", numbers(20_000))
	s.until(large, "running", func(b seen) bool { return b.Status == "running" })
	small := submit(t, http.DefaultClient, s.base, "processor=p", numbers(1))
	for worked := 0; s.batch(small).Status != "completed"; worked++ {
		if worked > 2000 {
			t.Fatal("the small batch waits behind the large one")
		}
		select {
		case step <- struct{}{}:
		case <-time.After(patience):
			t.Fatal("nothing is worked on")
		}
	}
}
