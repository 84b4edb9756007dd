package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
)

// A shop is a processor of the test binary.
type shop struct {
	*testing.T
	*Processor
	log *lockedBuffer
}

// A lockedBuffer keeps what is logged.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// open returns workers of a kind that are gone when the test is over.
func open(t *testing.T, how string) *shop {
	t.Helper()
	s := &shop{T: t, log: &lockedBuffer{}}
	var err error
	s.Processor, err = New(Options{
		Command: []string{os.Args[0]}, Env: []string{"WORKER=" + how}, MaxOutput: 1 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.LogTo(slog.New(slog.NewTextHandler(s.log, nil)))
	t.Cleanup(s.Close)
	return s
}

func (s *shop) call(item string, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return s.Process(ctx, batch.Call{Index: 3, ID: "A-17", Round: 2, Attempt: 4, Item: []byte(item)})
}

// works has an item worked on and returns the id of the process that did.
func (s *shop) works() int {
	s.Helper()
	out, err := s.call(`{"n":1}`, 10*time.Second)
	if err != nil {
		s.Fatalf("it does not work: %v\n%s", err, s.log)
	}
	var got struct{ PID int }
	if err := json.Unmarshal(out, &got); err != nil {
		s.Fatal(err)
	}
	return got.PID
}

// fails has an item fail and returns how.
func (s *shop) fails(item string, limit time.Duration) batch.Failure {
	s.Helper()
	out, err := s.call(item, limit)
	f, ok := errors.AsType[*batch.Failure](err)
	if !ok {
		s.Fatalf("got %q, %v, not a failure", out, err)
	}
	got := *f
	return got
}

func TestWorker(t *testing.T) {
	t.Run("it is told all about the item, on one line", func(t *testing.T) {
		t.Parallel()
		s := open(t, "plain")
		out, err := s.call("{\n \"big\": 12345678901234567890.10,\r\n \"text\": \"a\\nb\"}", 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Task json.RawMessage }
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		key := batch.Call{Index: 3, Round: 2}.Key()
		want := fmt.Sprintf(`{"batch":%q,"index":3,"id":"A-17","attempt":4,"key":%q,"item":{"big":12345678901234567890.10,"text":"a\nb"}}`, batch.ID{}, key)
		if diff := cmp.Diff(want, string(got.Task)); diff != "" {
			t.Error(diff)
		}
		if !strings.HasSuffix(key, "/3/r2") {
			t.Errorf("the key is %s", key)
		}
	})

	t.Run("it stays for the next item", func(t *testing.T) {
		t.Parallel()
		s := open(t, "plain")
		if a, b := s.works(), s.works(); a != b {
			t.Errorf("there were two: %d and %d", a, b)
		}
	})

	t.Run("there are as many as items at once", func(t *testing.T) {
		t.Parallel()
		s := open(t, "plain")
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 50 {
					s.works()
				}
			})
		}
		all.Wait()
		if n := len(s.idle); n < 1 || n > 8 {
			t.Errorf("there are %d workers", n)
		}
	})

	t.Run("it sees the environment it is given, and no more", func(t *testing.T) {
		t.Setenv("SECRET", "of the server")
		out, err := open(t, "plain").call(`{"do":"env"}`, 10*time.Second)
		if string(out) != `["WORKER=plain"]` {
			t.Errorf("got %s, %v", out, err)
		}
	})

	t.Run("it runs where it is told to", func(t *testing.T) {
		t.Parallel()
		s := open(t, "plain")
		s.o.Command, s.o.Dir = []string{"/bin/sh", "-c", `read line; echo "{\"output\":\"$(pwd -P)\"}"`}, "/"
		if out, err := s.call(`1`, 10*time.Second); string(out) != `"/"` {
			t.Errorf("got %s, %v", out, err)
		}
	})

	t.Run("an item larger than a pipe reaches it", func(t *testing.T) {
		t.Parallel()
		s := open(t, "plain")
		s.o.MaxOutput = 2 << 20
		item := `"` + strings.Repeat("x", 1<<20) + `"`
		if out, err := s.call(item, 10*time.Second); err != nil || !bytes.Contains(out, []byte(item)) {
			t.Errorf("got %d bytes, %v", len(out), err)
		}
	})

	t.Run("what it says on standard error is in the log, printable", func(t *testing.T) {
		t.Parallel()
		s := open(t, "plain")
		s.o.Command = []string{"/bin/sh", "-c", `printf 'odd \033[1m\377\n' >&2; read line; echo '{"output":1}'`}
		if out, err := s.call(`1`, 10*time.Second); string(out) != "1" {
			t.Fatalf("got %s, %v", out, err)
		}
		s.Close()
		if want := `odd ` + "\uFFFD[1m\uFFFD"; !strings.Contains(s.log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, s.log)
		}
	})
}

func BenchmarkItems(b *testing.B) {
	p, err := New(Options{Command: []string{os.Args[0]}, Env: []string{"WORKER=plain"}})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	item := []byte(`{"do":"say","say":"{\"output\":1}"}`)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := p.Process(context.Background(), batch.Call{Item: item}); err != nil {
				b.Error(err)
			}
		}
	})
}

func TestAnswers(t *testing.T) {
	key := batch.Call{Index: 3, Round: 2}.Key()
	bad := func(text string) batch.Failure {
		return batch.Failure{Code: batch.CodeBadOutput, Message: "the worker's answer " + text, Retry: true}
	}
	noLine := bad(`is not a line like {"output":…} or {"error":{"code":…,"message":…}}`)
	for name, tt := range map[string]struct {
		say  string
		out  string
		want batch.Failure
	}{
		"an output passes byte for byte":        {say: `{"output": {"a" :1.0e2,"b":"\u00e9"} }`, out: `{"a" :1.0e2,"b":"\u00e9"}`},
		"null is an output":                     {say: `{"output":null}`, out: `null`},
		"the key may be said":                   {say: `{"key":"` + key + `","output":1}`, out: `1`},
		"another's key is out of step":          {say: `{"key":"bat_x/4","output":1}`, want: bad("has the key of another item")},
		"a failure has a code of its own":       {say: `{"error":{"code":"unreadable","message":"no text"}}`, want: batch.Failure{Code: "app.unreadable", Message: "no text"}},
		"however that is written":               {say: `{"error":{"code":"app.unreadable","message":"no text"}}`, want: batch.Failure{Code: "app.unreadable", Message: "no text"}},
		"it is never one of ours":               {say: `{"error":{"code":"timeout"}}`, want: batch.Failure{Code: "app.timeout"}},
		"it may ask for another try":            {say: `{"error":{"code":"busy","message":"m","retry":true,"retry_after":"5s"}}`, want: batch.Failure{Code: "app.busy", Message: "m", Retry: true, RetryAfter: 5 * time.Second}},
		"a failure may have no code":            {say: `{"error":{"message":"m"}}`, want: batch.Failure{Message: "m"}},
		"a code is a word":                      {say: `{"error":{"code":"no such thing"}}`, want: bad("has an error code that is not 1 to 64 letters, digits, dots, underscores or hyphens")},
		"a short one":                           {say: `{"error":{"code":"` + strings.Repeat("x", 65) + `"}}`, want: bad("has an error code that is not 1 to 64 letters, digits, dots, underscores or hyphens")},
		"a wait is a duration":                  {say: `{"error":{"code":"busy","retry_after":"soon"}}`, want: bad(`has a retry_after that is not a duration such as "5s"`)},
		"garbage is no answer":                  {say: `Traceback (most recent call last):`, want: noLine},
		"nor is nothing":                        {say: ``, want: noLine},
		"nor a bare value":                      {say: `[1]`, want: noLine},
		"nor two":                               {say: `{"output":1} {"output":2}`, want: noLine},
		"nor one with a member twice":           {say: `{"output":1,"output":2}`, want: noLine},
		"nor an unknown one":                    {say: `{"result":1}`, want: bad("has a member besides output, error and key")},
		"nor an empty one":                      {say: `{}`, want: bad("has to have one of output and error")},
		"nor both":                              {say: `{"output":1,"error":{"code":"x"}}`, want: bad("has to have one of output and error")},
		"an output over the limit is too large": {say: `{"output":"` + strings.Repeat("x", 1<<10) + `"}`, want: batch.Failure{Code: batch.CodeOutputTooLarge, Message: "the worker's answer makes an output larger than 1024 bytes"}},
		"so is a line":                          {say: `{"output":"` + strings.Repeat("x", 10<<10) + `"}`, want: batch.Failure{Code: batch.CodeOutputTooLarge, Message: "the worker's answer makes an output larger than 1024 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, "plain")
			before := s.works()
			item, err := json.Marshal(map[string]string{"do": "say", "say": tt.say})
			if err != nil {
				t.Fatal(err)
			}
			if tt.out != "" {
				if out, err := s.call(string(item), 10*time.Second); string(out) != tt.out {
					t.Errorf("got %s, %v, want %s", out, err, tt.out)
				}
			} else if diff := cmp.Diff(tt.want, s.fails(string(item), 10*time.Second)); diff != "" {
				t.Error(diff)
			}
			inStep := tt.want.Code != batch.CodeBadOutput && len(tt.say) < 5<<10
			if after := s.works(); (before == after) != inStep {
				t.Errorf("worker %d was followed by %d", before, after)
			}
		})
	}
}

func TestWorkersThatFail(t *testing.T) {
	died := func(how string) batch.Failure {
		return batch.Failure{Code: batch.CodeProcessorError, Message: "the worker ended without an answer: " + how, Retry: true, Died: true}
	}
	late := batch.Failure{Code: batch.CodeTimeout, Message: "the worker did not answer in time", Retry: true}
	away := batch.Failure{Code: batch.CodeProcessorError, Message: "the worker ended before it took the item", Retry: true, Down: true, Untried: true}

	for name, tt := range map[string]struct {
		how, do string
		limit   time.Duration
		want    batch.Failure
	}{
		"one that crashes":                      {"plain", "crash", time.Minute, died("exit status 7")},
		"one that ends in the middle of a line": {"plain", "half", time.Minute, died("exit status 0")},
		"one that closes its output":            {"plain", "close", time.Minute, died("signal: terminated")},
		"one that hangs":                        {"plain", "hang", 2 * time.Second, late},
		"one that hangs and ignores SIGTERM":    {"ignores SIGTERM", "hang", 2 * time.Second, late},
		"one whose child holds its output":      {"plain", "orphan", time.Minute, died("exit status 9")},
		"one that writes a gigabyte":            {"plain", "gigabyte", time.Minute, batch.Failure{Code: batch.CodeOutputTooLarge, Message: "the worker's answer makes an output larger than 1024 bytes"}},
		"one that somebody else tells to end":   {"plain", "terminate", time.Minute, away},
		"one that floods its standard error":    {"floods stderr", "crash", time.Minute, died("exit status 7")},
	} {
		t.Run(name+" costs the attempt only", func(t *testing.T) {
			t.Parallel()
			s := open(t, tt.how)
			before := s.works()
			start := time.Now()
			if diff := cmp.Diff(tt.want, s.fails(`{"do":"`+tt.do+`"}`, tt.limit)); diff != "" {
				t.Error(diff)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", before)); err == nil {
				t.Error("the process is still there")
			}
			if after := s.works(); after == before {
				t.Error("the worker was not replaced")
			}
		})
	}

	t.Run("one that dies between items is replaced unnoticed", func(t *testing.T) {
		t.Parallel()
		s := open(t, "plain")
		for range 20 {
			pid := s.works()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if !gone(pid) {
				t.Fatal("it does not die")
			}
			s.works()
		}
	})

	for _, do := range []string{"twice", "late"} {
		t.Run("one that writes two lines is out of step: "+do, func(t *testing.T) {
			t.Parallel()
			s := open(t, "plain")
			before := s.works()
			if out, err := s.call(`{"do":"`+do+`"}`, 10*time.Second); string(out) != `"A-17"` {
				t.Errorf("got %s, %v", out, err)
			}
			time.Sleep(100 * time.Millisecond)
			if after := s.works(); before == after {
				t.Error("it was not replaced")
			}
		})
	}

	t.Run("what cannot be started is in the log", func(t *testing.T) {
		t.Parallel()
		s := open(t, "plain")
		s.o.Dir = "/no/such"
		s.fails(`1`, time.Minute)
		if want := `worker cannot be started" error="dir: stat /no/such: no such file or directory`; !strings.Contains(s.log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, s.log)
		}
	})

	for how, want := range map[string]string{
		"dies at start": "the worker ended before it took the item",
		"never reads":   "the worker ended before it took the item",
		"no such file":  "the worker could not be started",
	} {
		t.Run("no item was tried by one that "+how, func(t *testing.T) {
			t.Parallel()
			s := open(t, how)
			if how == "no such file" {
				s.o.Command = []string{filepath.Join(t.TempDir(), "missing")}
			}
			for _, item := range []string{`1`, `"` + strings.Repeat("x", 1<<20) + `"`} {
				f := s.fails(item, time.Second)
				if f.Message != want || !f.Down || !f.Untried || !f.Retry || f.Died {
					t.Errorf("%s: got %+v", how, f)
				}
			}
		})
	}

	t.Run("the log is bounded", func(t *testing.T) {
		t.Parallel()
		s := open(t, "floods stderr")
		time.Sleep(300 * time.Millisecond)
		for range 3 {
			s.works()
			time.Sleep(300 * time.Millisecond)
		}
		s.Close()
		if n := len(s.log.String()); n == 0 || n > 200<<10 {
			t.Errorf("%d bytes were logged", n)
		}
	})

	t.Run("our own stop is nobody's fault", func(t *testing.T) {
		t.Parallel()
		s := open(t, "plain")
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(300*time.Millisecond, cancel)
		out, err := s.Process(ctx, batch.Call{Item: []byte(`{"do":"hang"}`)})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %s, %v", out, err)
		}
	})

	t.Run("memory stays bounded", func(t *testing.T) {
		s := open(t, "floods stderr")
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.TotalAlloc
		}
		before := heap()
		s.fails(`{"do":"gigabyte"}`, 10*time.Second)
		if grown := heap() - before; grown > 16<<20 {
			t.Errorf("%d bytes were taken", grown)
		}
	})
}

func TestClose(t *testing.T) {
	t.Run("ends what workers have started", func(t *testing.T) {
		t.Parallel()
		s := open(t, "plain")
		out, err := s.call(`{"do":"child"}`, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		var pid int
		if _, err := fmt.Sscan(string(out), &pid); err != nil {
			t.Fatal(err)
		}
		if !gone(pid) {
			t.Errorf("process %d is %s", pid, stateOf(pid))
		}
	})

	t.Run("ends who does not listen", func(t *testing.T) {
		t.Parallel()
		s := open(t, "ignores SIGTERM")
		s.works()
		start := time.Now()
		s.Close()
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
	})

	t.Run("is the end", func(t *testing.T) {
		t.Parallel()
		s := open(t, "plain")
		s.works()
		s.Close()
		if f := s.fails(`1`, time.Second); !f.Untried {
			t.Errorf("got %+v", f)
		}
	})
}

// gone waits for the end of a process that is about to end.
func gone(pid int) bool {
	for range 2000 {
		if s := stateOf(pid); s == "" || s == "Z" {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// stateOf returns the state of a process, Z for one that only waits to be
// reaped; empty if there is none.
func stateOf(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	return fields[0]
}

// TestNoOrphans kills a server of workers and looks for them.
func TestNoOrphans(t *testing.T) {
	if dir := os.Getenv("SERVER"); dir != "" {
		p, err := New(Options{Command: []string{os.Args[0]}, Env: []string{"WORKER=ignores SIGTERM"}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := p.Process(t.Context(), batch.Call{Item: []byte(`1`)})
		fmt.Printf("%s %v\n", out, err)
		time.Sleep(time.Hour)
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends children with their parent")
	}
	server := exec.Command(os.Args[0], "-test.run", "^TestNoOrphans$")
	server.Env = append(slices.Clone(os.Environ()), "SERVER=here")
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var got struct{ PID int }
	if err := json.NewDecoder(out).Decode(&got); err != nil || got.PID == 0 {
		t.Fatal(err, got)
	}
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait() // it was killed
	if !gone(got.PID) {
		t.Errorf("worker %d outlives its server", got.PID)
		_ = syscall.Kill(got.PID, syscall.SIGKILL)
	}
}
