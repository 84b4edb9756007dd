package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// build compiles the real binary.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "callbatch")
	out, err := exec.CommandContext(t.Context(), "go", append(append([]string{"build"}, flags...), "-o", bin, ".")...).CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// victim is the server as a process: started, killed, started again on the
// same store.
type victim struct {
	bin  string
	dir  string
	addr string
	env  []string
	wrap []string // what the command line is put behind, if anything

	mu      sync.Mutex
	cmd     *exec.Cmd
	killed  bool
	asked   bool          // to stop gently
	gone    chan struct{} // closed when the process has ended
	outcome error         // of Wait
}

func newVictim(t *testing.T, bin, dir string, env []string) *victim {
	t.Helper()
	return &victim{bin: bin, dir: dir, addr: quietAddr(t), env: env}
}

// quietAddr finds an address for a server that comes and goes. It lies below
// the ports that the kernel gives to outgoing connections: one of these could
// take the address while the server is away, or connect to itself.
func quietAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no free port between 20000 and 32000")
	return ""
}

const configText = `
listen: %s
store: %s
processors:
  twice:
    http:
      url: %s
      concurrency: 32
      timeout: 3s
      attempts: 20
  sum:
    jq: '{sum: (.n + .i)}'
callbacks:
  schedule: [%s]
  allow_http: true
  allow: [127.0.0.0/8]
  ports: [%s]
  hold: 2s
log:
  level: warn
`

// configure writes the configuration: an upstream and a receiver in this
// process, and a schedule that outlasts many kills.
func (v *victim) configure(t *testing.T, upstream, receiverPort string) {
	t.Helper()
	schedule := "0s, 100ms, 200ms, 500ms" + strings.Repeat(", 1s", 96)
	text := fmt.Sprintf(configText, v.addr, v.store(), upstream, schedule, receiverPort)
	if err := os.WriteFile(v.path("config.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (v *victim) store() string { return v.path("store.db") }

func (v *victim) path(name string) string { return filepath.Join(v.dir, name) }

// start runs the server unless it runs.
func (v *victim) start() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cmd != nil {
		return nil
	}
	log, err := os.OpenFile(v.path("server.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	line := append(append([]string{}, v.wrap...), v.bin, "serve", "--config", v.path("config.yaml"))
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = v.environ()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	fmt.Fprintf(log, "--- start %s\n", time.Now().Format(time.StampMicro))
	if err := cmd.Start(); err != nil {
		return err
	}
	v.cmd, v.killed, v.asked, v.gone = cmd, false, false, make(chan struct{})
	go v.await(cmd, v.gone)
	return nil
}

// await ends with the process; whoever closes the test kills that first.
func (v *victim) await(cmd *exec.Cmd, gone chan struct{}) {
	err := cmd.Wait()
	v.mu.Lock()
	v.outcome = err
	v.mu.Unlock()
	close(gone)
}

// ready returns when the server answers, or says why it never will.
func (v *victim) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	v.mu.Lock()
	gone := v.gone
	v.mu.Unlock()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+v.addr+"/readyz", nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-gone:
			return fmt.Errorf("it ended: %w\n%s", errors.Join(v.ended()), v.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w\n%s", ctx.Err(), v.lastWords())
		case <-time.After(3 * time.Millisecond):
		}
	}
}

// kill sends SIGKILL and does not wait.
func (v *victim) kill() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cmd != nil && !v.killed {
		v.killed = true
		// All of its group, as it may be wrapped. It may have ended already:
		// ended says how.
		_ = syscall.Kill(-v.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// doom says that the server will kill itself, and waits until it has.
func (v *victim) doom(ctx context.Context) error {
	v.mu.Lock()
	v.killed = true
	gone := v.gone
	v.mu.Unlock()
	select {
	case <-gone:
		return v.ended()
	case <-ctx.Done():
		return fmt.Errorf("it lives on: %w", ctx.Err())
	}
}

// terminate asks the server to stop gently, and does not wait.
func (v *victim) terminate() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cmd != nil && !v.killed {
		v.asked = true
		_ = v.cmd.Process.Signal(syscall.SIGTERM)
	}
}

// ended waits for the process and says how it ended: nil if it was us.
func (v *victim) ended() error {
	v.mu.Lock()
	gone := v.gone
	v.mu.Unlock()
	<-gone
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cmd = nil
	if v.asked && v.outcome == nil {
		return nil
	}
	var exit *exec.ExitError
	if errors.As(v.outcome, &exit) {
		ws, ok := exit.Sys().(syscall.WaitStatus)
		switch {
		case ok && v.killed && ws.Signal() == syscall.SIGKILL:
			return nil
		case ok && v.asked && ws.Signal() == syscall.SIGTERM:
			return nil // it was asked before it could listen
		}
	}
	return fmt.Errorf("%v\n%s", v.outcome, v.lastWords())
}

// stop ends whatever runs; it is for the end of a test.
func (v *victim) stop() {
	v.mu.Lock()
	running := v.cmd != nil
	v.mu.Unlock()
	if running {
		v.kill()
		_ = v.ended() // the audit is over: how it ends says nothing
	}
}

// check runs the store's own check; the server must not run.
func (v *victim) check(ctx context.Context) ([]byte, error) {
	cmd := exec.CommandContext(ctx, v.bin, "check", "--store", v.store())
	cmd.Env = v.environ()
	return cmd.CombinedOutput()
}

// environ is the environment of the server: ours, without what is meant for
// the tests.
func (v *victim) environ() []string {
	ours := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "CALLBATCH_") })
	return append(append(ours, "CALLBATCH_ADMIN_KEY_FILE="+v.path("key")), v.env...)
}

// lastWords returns the end of the log.
func (v *victim) lastWords() []byte {
	b, err := os.ReadFile(v.path("server.log"))
	if err != nil {
		return []byte(err.Error())
	}
	if i := bytes.LastIndex(b, []byte("--- start")); i >= 0 {
		b = b[i:]
	}
	return b[max(0, len(b)-8<<10):]
}
