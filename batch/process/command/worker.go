package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// A worker is one running program. It belongs to one goroutine at a time; what
// watches it needs nothing but the process.
type worker struct {
	cmd    *exec.Cmd
	in     *os.File // to its standard input
	out    *os.File // from its standard output
	lines  *bufio.Reader
	served int // items it has answered

	mu     sync.Mutex // guards signals against the reuse of a process id
	reaped bool
	told   bool          // by us, to end
	ended  chan struct{} // closed when the process is no more; its state is known then
}

// The ways of a worker to fail an item that are not its own.
var (
	errUnseen  = errors.New("it ended, or did not begin, without having read the item")
	errEnded   = errors.New("it ended without an answer")
	errTime    = errors.New("it was not done in time")
	errTooLong = errors.New("its answer is longer than the limit")
)

// startWorker starts the program. done is called when it, and what watches it,
// has ended, also if it could not be started.
func startWorker(o Options, d *diary, done func()) (_ *worker, err error) {
	w := &worker{cmd: exec.Command(o.Command[0], o.Command[1:]...), ended: make(chan struct{})}
	w.cmd.Dir, w.cmd.Env = o.Dir, append([]string{}, o.Env...) // nil would be all that the server has
	w.cmd.SysProcAttr = ownGroup()
	var pipes [3]struct{ r, w *os.File }
	for i := range pipes {
		if pipes[i].r, pipes[i].w, err = os.Pipe(); err != nil {
			for _, p := range pipes[:i] {
				closeAll(p.r, p.w)
			}
			done()
			return nil, err
		}
	}
	w.in, w.out = pipes[0].w, pipes[1].r
	w.lines = bufio.NewReader(w.out)
	w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = pipes[0].r, pipes[1].w, pipes[2].w
	started := make(chan error)
	go func() {
		defer done()
		w.watch(started, pipes[2].r, d)
	}()
	err = <-started
	closeAll(pipes[0].r, pipes[1].w, pipes[2].w)
	if err != nil {
		closeAll(w.in, w.out, pipes[2].r)
		if _, missing := os.Stat(o.Dir); o.Dir != "" && missing != nil {
			err = fmt.Errorf("dir: %w", missing) // which would not be said
		}
		return nil, err
	}
	return w, nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		_ = f.Close() // of a pipe: there is nothing to be lost
	}
}

// watch starts the process and stays with it until it has ended, on a thread
// that is its own: Linux kills the process when the thread ends that started
// it, which is to be no sooner than with the server.
func (w *worker) watch(started chan<- error, stderr *os.File, d *diary) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := w.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	var listener sync.WaitGroup
	listener.Go(func() { d.listen(w.pid(), stderr) })
	awaitExit(w.cmd)
	w.mu.Lock()
	_ = syscall.Kill(-w.pid(), syscall.SIGKILL) // what it has started; its id is not free yet
	_ = w.cmd.Wait()                            // the state says it all
	w.reaped = true
	w.mu.Unlock()
	// Whoever has left the group may hold the other ends open for ever.
	soon := time.Now().Add(exitTime)
	_, _ = w.out.SetReadDeadline(soon), stderr.SetReadDeadline(soon)
	close(w.ended)
	listener.Wait()
	closeAll(stderr)
}

func (w *worker) pid() int { return w.cmd.Process.Pid }

// ask gives the worker an item and returns its answer, of at most so many
// bytes. After an error the worker is good for nothing more.
func (w *worker) ask(ctx context.Context, line []byte, most int) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { w.hurry(time.Unix(1, 0)) })
	defer stop()
	sent := make(chan int, 1)
	go func() {
		n, _ := w.in.Write(line) // short if there is an error
		sent <- n
	}()
	reply, err := w.line(most)
	// An answer to what has not been read is none to it, so by now the worker
	// must have read all of it, give or take a moment.
	w.hurry(time.Now().Add(exitTime))
	written := <-sent
	seen := unread(w.in) < written
	switch {
	case err == nil && ctx.Err() == nil && (written < len(line) || !seen):
		return nil, &protocolError{"came before it had read the item"}
	case err == nil && stop():
		w.hurry(time.Time{})
		return reply, nil
	case errors.Is(err, errTooLong):
		return nil, err
	case !seen:
		return nil, errUnseen
	case ctx.Err() != nil:
		return nil, errTime
	default:
		return nil, errEnded
	}
}

// hurry has reading and writing end at a time; zero: never.
func (w *worker) hurry(at time.Time) {
	_, _ = w.out.SetReadDeadline(at), w.in.SetWriteDeadline(at) // pipes have deadlines
}

// line reads a line of at most so many bytes.
func (w *worker) line(most int) (line []byte, err error) {
	for {
		part, err := w.lines.ReadSlice('\n')
		if len(line)+len(part) > most {
			return nil, errTooLong
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// fit reports whether an idle worker may be given an item: it lives, and has
// said nothing that it was not asked.
func (w *worker) fit() bool {
	select {
	case <-w.ended:
		return false
	default:
		return w.lines.Buffered() == 0 && unread(w.out) == 0
	}
}

// end has an idle worker end by itself, or else ends it.
func (w *worker) end() {
	w.mu.Lock()
	w.told = true
	w.mu.Unlock()
	closeAll(w.in)
	if !w.within(endTime) {
		w.kill()
	}
	closeAll(w.out)
}

// kill ends the worker and all it has started, and lets go of it.
func (w *worker) kill() {
	closeAll(w.in)
	for _, s := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{0, exitTime}, {syscall.SIGTERM, killTime}, {syscall.SIGKILL, killTime}} {
		w.signal(s.signal)
		if w.within(s.wait) {
			break
		}
	}
	closeAll(w.out)
}

// within waits for the worker's end, for a time.
func (w *worker) within(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w.ended:
		return true
	case <-t.C:
		return false
	}
}

func (w *worker) signal(s syscall.Signal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s == 0 || w.reaped {
		return
	}
	w.told = true
	_ = syscall.Kill(-w.pid(), s) // it may have ended meanwhile
}

// stoppedByOthers reports whether somebody asked the worker to end, as a
// service manager does that stops all of a service's processes at once.
func (w *worker) stoppedByOthers() bool {
	select {
	case <-w.ended:
	default:
		return false
	}
	if w.told || w.cmd.ProcessState == nil { // nobody may know how, if SIGCHLD is ignored
		return false
	}
	status, ok := w.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return false
	}
	s := status.Signal()
	return s == syscall.SIGTERM || s == syscall.SIGINT || s == syscall.SIGHUP
}

// fate says how the worker ended.
func (w *worker) fate() string {
	select {
	case <-w.ended:
		return w.cmd.ProcessState.String()
	default:
		return "it does not end"
	}
}
