package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// grace is how long what was canceled has to notice, and after that how long
// the last outcomes have to be recorded.
const grace = 3 * time.Second

// Run works until ctx ends or the store fails, and returns when drained: nil,
// or why outcomes could not be recorded. A drain has three steps, each over as
// soon as nothing is left: items, messages and tests in flight may end (Drain);
// they are canceled and not counted (3 s); the last outcomes are recorded
// (3 s). A processor that ignores the end of its context is left behind then,
// and what it returns is dropped. A store that failed ends the first two at
// once.
func (e *Engine) Run(ctx context.Context) error {
	defer e.end()
	// What was begun is brought to its end after ctx has ended.
	keep, cancelKeep := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelKeep()
	serve, stop := context.WithCancel(ctx)
	defer stop()

	var renewer sync.WaitGroup
	renewer.Go(func() { e.renew(keep) })
	loops, broken := errgroup.WithContext(keep)
	e.start(loops, serve, broken, e.life)
	ended := make(chan error, 1)
	go func() { ended <- loops.Wait() }()

	select {
	case <-ctx.Done():
	case <-broken.Done():
	case <-e.store.Failed():
	}
	stop()
	err := e.drain(ended, cancelKeep)
	cancelKeep()
	renewer.Wait()

	select {
	case <-e.store.Failed():
		return fmt.Errorf("the store failed: %w", e.store.Err())
	default:
		return err
	}
}

// start starts what claims until serve ends, and what records until nothing
// is left.
func (e *Engine) start(loops *errgroup.Group, serve, keep, work context.Context) {
	loops.Go(func() error { e.claim(serve, keep); return nil })
	for _, l := range e.order {
		loops.Go(func() error { l.run(serve, work); return nil })
	}
	loops.Go(func() error { e.courier.claim(serve, keep, work); return nil })
	loops.Go(func() error { return e.record(keep, work) })
	loops.Go(func() error { return e.courier.record(keep) })
}

// drain brings what is in hand to its end, by ever stronger means, and waits
// for all that was started.
func (e *Engine) drain(ended <-chan error, cancelKeep func()) (err error) {
	steps := []struct {
		do   func()
		wait time.Duration
	}{{e.halt, e.o.Drain}, {e.end, grace}, {e.abandon, grace}, {cancelKeep, grace}}
	failed := e.store.Failed()
	for _, s := range steps {
		s.do()
		select {
		case err = <-ended:
			e.end()
			e.await(grace)
			return err
		case <-failed: // nothing can be recorded: go on to the next
			failed = nil
		case <-time.After(s.wait):
		}
	}
	return fmt.Errorf("the store did not answer within %v", e.o.Drain+3*grace)
}

// await waits for the workers, for a time: a processor may have no ear for
// its context, and nothing can end it then.
func (e *Engine) await(most time.Duration) {
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		e.workers.Wait()
		e.courier.sends.Wait()
	}()
	select {
	case <-idle:
	case <-time.After(most):
		e.log.Warn("stopped although work did not end with its context")
	}
}
