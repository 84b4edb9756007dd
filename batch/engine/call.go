package engine

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// The most that is kept of what a processor says about a failure, in bytes.
const (
	maxFailureCode    = 128
	maxFailureMessage = 1 << 10
	maxFailureBody    = 4 << 10
)

// do works through a run, item after item. What the engine's own stop cuts
// short leaves no trace: the item is as if it had not begun.
func (l *lane) do(t *term, r *run) {
	work := &r.block.work
	start := time.Now()
	now := start
	w := l.watch(r, now)
	for pos, ok := r.begin(); ok; pos, ok = r.begin() {
		it := &work.Items[pos]
		if w.minds(it) {
			if f := batch.Fatal(it.Deaths); f != nil {
				l.condemn(r, pos, f, now)
				continue
			}
			if !w.begin(t.parent, pos) { // we stop, or the block is another's
				w.stop(pos)
				break
			}
			now = time.Now()
		}
		out, f := l.attempt(t.at(now), batch.Call{
			Batch: work.Spec.ID, Index: it.Index, ID: batch.ItemText(it.ID, it.Index),
			Round: work.Round, Attempt: it.Attempts + 1, Item: slices.Clip(it.Raw),
		})
		if t.parent.Err() != nil {
			w.stop(pos)
			break
		}
		now = time.Now()
		r.tried++
		l.settle(r, pos, out, f, now)
		r.urgent = r.alone()
		if r.urgent || f != nil && (f.Down || f.RetryAfter > 0) {
			r.giveBack(r.cut()) // the gate may be shut for the rest, or others wait for their place
		}
	}
	r.took = max(0, now.Sub(start)-w.waited)
	l.e.count(l.name, r)
}

// settle decides what follows an attempt at the item at pos.
func (l *lane) settle(r *run, pos int, out []byte, f *batch.Failure, now time.Time) {
	work := &r.block.work
	it := &work.Items[pos]
	res := batch.Result{Index: it.Index, ID: it.ID, Attempts: it.Attempts + 1, Finished: now, Status: batch.ItemSucceeded, Payload: out}
	if r.down = f != nil && f.Down; !r.down {
		r.up = true
	}
	if f != nil {
		policy := l.p.Policy.Bounded(work.Spec.Options.MaxAttempts)
		if hold := policy.Hold(f); hold > 0 {
			r.hold = now.Add(hold)
		}
		unseen := f.UpstreamStatus == 0 // an answer is one to the item, whatever it says of the service
		if r.down && (r.free && unseen || f.Untried && !r.probe) {
			r.giveBack(span{pos, pos + 1})
			return
		}
		f, deaths := f.At(it.Deaths)
		if wait, again := policy.Next(res.Attempts, f, rand.Float64); again {
			r.again = append(r.again, batch.Again{Index: it.Index, Attempts: res.Attempts, Deaths: deaths, Due: now.Add(wait)})
			return
		}
		res.Status, res.Payload = batch.ItemFailed, f.JSON()
	}
	l.outcome(r, res)
}

// condemn ends the item at pos without another try.
func (l *lane) condemn(r *run, pos int, f *batch.Failure, now time.Time) {
	it := &r.block.work.Items[pos]
	res := batch.Result{Index: it.Index, ID: it.ID, Attempts: max(it.Attempts, it.Deaths), Finished: now, Status: batch.ItemFailed, Payload: f.JSON()}
	l.log.Error("an item is not tried again: the process died of it", "batch_id", r.block.work.Spec.ID, "index", it.Index, "deaths", it.Deaths)
	l.outcome(r, res)
}

// outcome gives a run the result of an item.
func (l *lane) outcome(r *run, res batch.Result) {
	r.results = append(r.results, res)
	r.bytes += len(res.Payload)
	if res.Status != batch.ItemFailed {
		return
	}
	if r.failed++; r.bounded {
		l.e.failed(r)
	}
}

// attempt calls the processor once and judges what it gave.
func (l *lane) attempt(ctx context.Context, c batch.Call) ([]byte, *batch.Failure) {
	out, err := l.call(ctx, c)
	if err != nil {
		return nil, l.failure(err, c)
	}
	switch {
	case len(out) > l.e.o.MaxOutput:
		return nil, &batch.Failure{Code: batch.CodeOutputTooLarge, Message: "the output is larger than the limit"}
	case !l.p.Trusted && !jsontext.Value(out).IsValid():
		return nil, &batch.Failure{Code: batch.CodeBadOutput, Message: "the output is not exactly one valid JSON value"}
	case !l.p.Trusted && bytes.ContainsAny(out, "\r\n"):
		return oneLine(out), nil
	}
	return out, nil
}

// oneLine draws a JSON value together that is spread over lines, because
// results are lines. Its strings and numbers stay as they are.
func oneLine(out []byte) []byte {
	v := jsontext.Value(bytes.Clone(out)) // a processor may give its item back
	if err := v.Compact(); err != nil {
		panic("engine: compact valid JSON: " + err.Error())
	}
	return v
}

func (l *lane) call(ctx context.Context, c batch.Call) (out []byte, err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		out, err = nil, &batch.Failure{Code: batch.CodeProcessorError, Message: "the processor panicked", Retry: true}
		stack := debug.Stack()
		l.complain.Do(func() {
			l.log.Error("processor panicked", "batch_id", c.Batch, "index", c.Index, "attempt", c.Attempt, "panic", p, "stack", string(stack))
		})
	}()
	return l.p.Do.Process(ctx, c)
}

// failure makes any error of a processor a failure that is fit to be kept.
func (l *lane) failure(err error, c batch.Call) *batch.Failure {
	var f *batch.Failure
	switch {
	case errors.As(err, &f) && f != nil:
		return bounded(*f)
	case errors.Is(err, context.DeadlineExceeded):
		return &batch.Failure{Code: batch.CodeTimeout, Message: "the attempt took longer than " + l.p.Timeout.String(), Retry: true}
	default:
		l.complain.Do(func() {
			l.log.Warn("processor failed", "batch_id", c.Batch, "index", c.Index, "attempt", c.Attempt, "error", err)
		})
		return &batch.Failure{Code: batch.CodeProcessorError, Message: "the processor failed", Retry: true}
	}
}

// bounded returns f with no more than is kept, and a code of the contract's:
// a processor's own begin with app.
func bounded(f batch.Failure) *batch.Failure {
	switch f.Code {
	case batch.CodeUpstreamStatus, batch.CodeUpstreamUnreachable, batch.CodeTimeout,
		batch.CodeProcessorError, batch.CodeBadOutput, batch.CodeOutputTooLarge:
	case "":
		f.Code = batch.CodeProcessorError
	default:
		f.Code = "app." + clip(strings.TrimPrefix(f.Code, "app."), maxFailureCode)
	}
	f.Message, f.Body = clip(f.Message, maxFailureMessage), clip(f.Body, maxFailureBody)
	return &f
}

// clip returns the valid UTF-8 of at most n bytes of s.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}

// A term is a context with a deadline for one attempt after the other.
// Attempts that begin in quick succession share one: a timer for each would
// cost more than the smallest of them. None gets less than 63/64 of length.
type term struct {
	parent context.Context
	length time.Duration
	ctx    context.Context
	cancel context.CancelFunc
	since  time.Time
}

// at returns the context of an attempt that begins now.
func (t *term) at(now time.Time) context.Context {
	if t.ctx == nil || now.Sub(t.since) > t.length/64 {
		t.end()
		t.ctx, t.cancel = context.WithTimeout(t.parent, t.length)
		t.since = now
	}
	return t.ctx
}

func (t *term) end() {
	if t.cancel != nil {
		t.cancel()
	}
}
