// Package command works on items with a program of the operator's own: an item
// is a line of JSON to its standard input, what becomes of it a line from its
// standard output. The program is started without a shell, stays for as many
// items as it likes, and works on one at a time; there are as many of it as
// items in flight.
//
// A worker that crashes, hangs, or says anything but one answer an item is
// replaced, with all it has started. It costs the attempt at its item, and
// nothing else: one that nobody has read from the pipe was not tried.
//
// A worker has its standard input closed when it is not needed any more, and
// a moment to end by itself. On Linux it does not outlive the server, however
// that ends; what it has started itself has to see to that by its input.
package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// DefaultMaxOutput is how large an output may be unless [Options] say so.
const DefaultMaxOutput = 1 << 20

// Times of a worker's end.
const (
	endTime  = 2 * time.Second        // to end by itself once its input is closed
	killTime = time.Second            // between SIGTERM and SIGKILL, and what that is given
	exitTime = 200 * time.Millisecond // between the end of its output and its own
)

// Options say what is run. Only Command is required.
type Options struct {
	Command []string // the program and its arguments; one without a slash is looked for in PATH
	Dir     string   // where it runs; default: where the server does
	Env     []string // all of its environment, as NAME=value; default: none

	MaxOutput int // bytes of one output; default 1 MiB
}

// A Processor keeps the workers of one program. They are started when they are
// needed.
type Processor struct {
	o     Options
	diary *diary

	mu     sync.Mutex
	idle   []*worker // the one used last is the next
	closed bool
	living sync.WaitGroup // one for each worker that has not ended
}

var _ batch.Processor = (*Processor)(nil)

// New returns a processor. It starts nothing yet.
func New(o Options) (*Processor, error) {
	if len(o.Command) == 0 || o.Command[0] == "" {
		return nil, errors.New("command: names no program")
	}
	if o.MaxOutput <= 0 {
		o.MaxOutput = DefaultMaxOutput
	}
	return &Processor{o: o, diary: newDiary(slog.New(slog.DiscardHandler))}, nil
}

// LogTo says where it is logged what workers write to standard error, and how
// they end: at most some lines a second. It is called before the first Process;
// without it nothing is logged.
func (p *Processor) LogTo(log *slog.Logger) { p.diary = newDiary(log) }

// Process has a worker work on the item. It returns once the worker may be
// given another item or has ended.
func (p *Processor) Process(ctx context.Context, c batch.Call) ([]byte, error) {
	line, err := request(c)
	if err != nil {
		return nil, &batch.Failure{Code: batch.CodeProcessorError, Message: "the item is not one JSON value"}
	}
	for ctx.Err() == nil {
		w := p.take()
		if w == nil {
			if w, err = p.start(); err != nil {
				p.diary.write(slog.LevelWarn, "worker cannot be started", "error", err)
				return nil, untried("the worker could not be started")
			}
		}
		out, err := p.try(ctx, w, line, c.Key())
		if unseen(err) && w.served > 0 && ctx.Err() == nil {
			continue // it ended between two items: that says nothing
		}
		return out, err
	}
	return nil, ctx.Err()
}

// try gives a worker one item. Whatever it does but answer is its end.
func (p *Processor) try(ctx context.Context, w *worker, line []byte, key string) ([]byte, error) {
	const envelope = 4 << 10 // bytes around an output
	reply, err := w.ask(ctx, line, p.o.MaxOutput+envelope)
	var out []byte
	var refusal *batch.Failure
	if err == nil {
		out, refusal, err = parse(reply, key)
	}
	if err != nil {
		w.kill()
		if !errors.Is(ctx.Err(), context.Canceled) {
			p.diary.write(slog.LevelWarn, "worker replaced", "pid", w.pid(), "items", w.served, "cause", err, "end", w.fate())
		}
		return nil, p.failure(ctx, w, err)
	}
	w.served++
	p.put(w)
	switch {
	case refusal != nil:
		return nil, refusal
	case len(out) > p.o.MaxOutput:
		return nil, p.tooLarge()
	}
	return out, nil
}

// failure says what the end of a worker means for its item.
func (p *Processor) failure(ctx context.Context, w *worker, err error) error {
	var bad *protocolError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err() // our own stop, no fault of anybody's
	case errors.Is(err, errUnseen), w.stoppedByOthers():
		return untried("the worker ended before it took the item")
	case errors.Is(err, errTooLong):
		return p.tooLarge()
	case errors.As(err, &bad):
		return &batch.Failure{Code: batch.CodeBadOutput, Message: "the worker's answer " + bad.text, Retry: true}
	case ctx.Err() != nil:
		return &batch.Failure{Code: batch.CodeTimeout, Message: "the worker did not answer in time", Retry: true}
	default:
		return &batch.Failure{
			Code: batch.CodeProcessorError, Message: "the worker ended without an answer: " + w.fate(), Retry: true, Died: true,
		}
	}
}

func (p *Processor) tooLarge() *batch.Failure {
	return &batch.Failure{
		Code:    batch.CodeOutputTooLarge,
		Message: fmt.Sprintf("the worker's answer makes an output larger than %d bytes", p.o.MaxOutput),
	}
}

// untried is the failure of an item that no worker has seen: the program
// itself does not work.
func untried(message string) *batch.Failure {
	return &batch.Failure{Code: batch.CodeProcessorError, Message: message, Retry: true, Down: true, Untried: true}
}

func unseen(err error) bool {
	f, ok := errors.AsType[*batch.Failure](err)
	return ok && f.Untried
}

// take returns an idle worker that is fit to work, or nil.
func (p *Processor) take() *worker {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		w := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if w.fit() {
			return w
		}
		w.kill()
		p.diary.write(slog.LevelWarn, "worker replaced", "pid", w.pid(), "items", w.served, "cause", "it ended, or wrote unasked", "end", w.fate())
	}
}

// put keeps a worker for the next item.
func (p *Processor) put(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.idle = append(p.idle, w)
		return
	}
	p.living.Go(w.kill)
}

// start starts a worker.
func (p *Processor) start() (*worker, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errors.New("the processor is closed")
	}
	p.living.Add(1)
	p.mu.Unlock()
	return startWorker(p.o, p.diary, p.living.Done)
}

// Close ends the workers: their input is closed, and what has not ended then
// is killed. It returns when all have ended, after some seconds at most. Calls
// that are under way end with their contexts.
func (p *Processor) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	var ends sync.WaitGroup
	for _, w := range idle {
		ends.Go(w.end)
	}
	ends.Wait()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		p.living.Wait()
	}()
	select {
	case <-gone:
	case <-time.After(endTime):
		p.diary.write(slog.LevelWarn, "stopped although workers did not end")
	}
}
