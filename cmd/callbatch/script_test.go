package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"callbatch": main})
}

// TestScripts runs what testdata/script says of the binary. Besides the usual
// commands the scripts have
//
//	serve [FLAG…]      start a server in $WORK and wait until it answers;
//	                   CALLBATCH_URL is where, serve.log what it logs
//	hangup             send it SIGHUP and wait until it has logged that
//	stop               stop it and check that it ends well
//	receiver           start a receiver of webhooks; RECEIVER is where
//	arrived TYPE N     wait until N messages of this type have been received
//	listener [FLAG…]   start callbatch listen and wait until it listens; LISTENER
//	                   is where, listen.out what it shows
//	heard REGEXP       wait until the listener has shown a line like this
//	upstream           start a service whose answers take for ever, but under
//	                   /hello, where there is nothing; UPSTREAM is where
//	waits ID REASON    wait until a batch says that it waits for this
//	expand FILE        put the values of variables into a file
//	code N COMMAND…    run a command that has to exit with N
//	keep NAME          put what the last command wrote into a variable
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "../../testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("NO_COLOR", "1")
			e.Values[stageKey{}] = &stage{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve":    cmdServe,
			"hangup":   cmdHangUp,
			"stop":     cmdStop,
			"receiver": cmdReceiver,
			"arrived":  cmdArrived,
			"listener": cmdListener,
			"heard":    cmdHeard,
			"upstream": cmdUpstream,
			"waits":    cmdWaits,
			"expand":   cmdExpand,
			"code":     cmdCode,
			"keep":     cmdKeep,
		},
	})
}

// scriptPatience is how long a script waits for what takes moments.
const scriptPatience = time.Minute

// A stage is what a script has started.
type stage struct {
	server *exec.Cmd
	ended  chan error // of the server's Wait

	mu       sync.Mutex
	arrivals []event
}

type stageKey struct{}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	s := stageOf(ts)
	if neg || s.server != nil {
		ts.Fatalf("usage: serve [FLAG…], once at a time")
	}
	bin, err := exec.LookPath("callbatch")
	ts.Check(err)
	log, err := os.Create(ts.MkAbs("serve.log"))
	ts.Check(err)
	cmd := exec.Command(bin, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Dir = ts.Getenv("WORK")
	for _, name := range []string{"HOME", "CALLBATCH_ADMIN_KEY_FILE", "CALLBATCH_CALLBACK_WINDOW", "TOKEN", "UPSTREAM"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	logs, w := io.Pipe()
	cmd.Stderr = w
	ts.Check(cmd.Start())
	s.server, s.ended = cmd, make(chan error, 1)
	addr, copied := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(copied)
		watchLog(io.TeeReader(logs, log), addr)
	}()
	go func() {
		err := cmd.Wait()
		w.Close()
		<-copied
		s.ended <- errors.Join(err, log.Close())
	}()
	ts.Defer(func() { s.stop(ts) })
	select {
	case a := <-addr:
		ts.Setenv("CALLBATCH_URL", "http://"+a)
	case err := <-s.ended:
		s.server = nil
		ts.Fatalf("the server ended: %v\n%s", err, ts.ReadFile("serve.log"))
	case <-time.After(scriptPatience):
		ts.Fatalf("the server is not ready")
	}
}

// watchLog reads the log to its end and tells where the server answers.
func watchLog(log io.Reader, addr chan<- string) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var entry struct{ Msg, Addr string }
		if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Msg == "ready" {
			addr <- entry.Addr
		}
	}
}

func (s *stage) stop(ts *testscript.TestScript) {
	if s.server == nil {
		return
	}
	ts.Check(s.server.Process.Signal(syscall.SIGTERM))
	s.server = nil
	select {
	case err := <-s.ended:
		if err != nil {
			ts.Fatalf("the server did not end well: %v\n%s", err, ts.ReadFile("serve.log"))
		}
	case <-time.After(scriptPatience):
		ts.Fatalf("the server does not end")
	}
}

func cmdHangUp(ts *testscript.TestScript, neg bool, args []string) {
	s := stageOf(ts)
	if neg || len(args) > 0 || s.server == nil {
		ts.Fatalf("usage: hangup, while a server runs")
	}
	ts.Check(s.server.Process.Signal(syscall.SIGHUP))
	for deadline := time.Now().Add(scriptPatience); !strings.Contains(ts.ReadFile("serve.log"), "SIGHUP"); {
		if time.Now().After(deadline) {
			ts.Fatalf("the server does not log SIGHUP")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func cmdStop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: stop")
	}
	stageOf(ts).stop(ts)
}

func cmdReceiver(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: receiver")
	}
	s := stageOf(ts)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.arrivals = append(s.arrivals, e)
	}))
	ts.Defer(server.Close)
	ts.Setenv("RECEIVER", server.URL)
}

func cmdArrived(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: arrived TYPE N")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	s := stageOf(ts)
	count := func() (n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.arrivals {
			if e.Type == args[0] {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(scriptPatience); count() < want; {
		if time.Now().After(deadline) {
			ts.Fatalf("%d messages of type %s arrived, not %d", count(), args[0], want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func cmdUpstream(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: upstream")
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/hello/") {
			http.NotFound(w, r)
			return
		}
		select {
		case <-r.Context().Done():
		case <-ctx.Done():
		}
	}))
	ts.Defer(func() { cancel(); server.Close() })
	ts.Setenv("UPSTREAM", server.URL)
}

func cmdWaits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waits ID REASON")
	}
	var b struct {
		WaitingOn string `json:"waiting_on"`
	}
	for end := time.Now().Add(scriptPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(ts.Getenv("CALLBATCH_URL") + "/v1/batches/" + args[0])
		ts.Check(err)
		err = json.NewDecoder(resp.Body).Decode(&b)
		resp.Body.Close()
		ts.Check(err)
		if b.WaitingOn == args[1] {
			return
		}
	}
	ts.Fatalf("it waits on %q, not on %s", b.WaitingOn, args[1])
}

func cmdExpand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: expand FILE")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	default:
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func cmdKeep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keep NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}
