package engine_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
)

var errNo = &batch.Failure{Code: batch.CodeProcessorError, Message: "no"}

// failing fails every item after d, for good, and counts them.
func failing(calls *atomic.Int64, d time.Duration) batch.Processor {
	return batch.ProcessorFunc(func(ctx context.Context, _ batch.Call) ([]byte, error) {
		calls.Add(1)
		if err := nap(ctx, d); err != nil {
			return nil, err
		}
		return nil, errNo
	})
}

func TestNothingStartsAfterAFailureTooMany(t *testing.T) {
	for name, c := range map[string]struct {
		bears       batch.Tolerance
		concurrency int // of the processor
		own         int // of the batch
		takes       time.Duration
		least, most int64 // that fail
	}{
		"the first, one at a time":         {"0", 1, 0, 0, 1, 1},
		"one at a time for its owner":      {"0", 64, 1, 0, 1, 1},
		"the first of slow ones":           {"0", 1, 0, 50 * time.Millisecond, 1, 1},
		"the sixth":                        {"5", 1, 0, 0, 6, 6},
		"one more than a share":            {"1%", 1, 0, 0, 21, 21},
		"the first of eight at once":       {"0", 8, 0, 0, 1, 8},
		"the first of eight slow ones":     {"0", 8, 0, 50 * time.Millisecond, 1, 8},
		"the sixth, with eight at once":    {"5", 8, 0, time.Millisecond, 6, 13},
		"the hundred and first, with many": {"100", 64, 0, 50 * time.Millisecond, 101, 164},
	} {
		bubble(t, name, func(t *testing.T, m *memory) {
			var calls atomic.Int64
			start(t, m, procs(engine.Processor{Concurrency: c.concurrency, Do: failing(&calls, c.takes)}))
			begun := time.Now()
			k := m.await(t, m.submit(spec(1, batch.Options{MaxFailures: c.bears, Concurrency: c.own}), 2000, 256))
			if took := time.Since(begun) - time.Duration(c.most)*c.takes; c.takes > 0 && took > 20*time.Millisecond {
				t.Errorf("it ended %v late", took)
			}
			if k.Status != batch.Canceled || k.Reason != batch.CodeTooManyFailures || k.Done.Canceled != 2000-k.Done.Failed {
				t.Fatalf("ended %s, %q, with %+v", k.Status, k.Reason, k.Done)
			}
			if n := int64(k.Done.Failed); n < c.least || n > c.most || n != calls.Load() {
				t.Errorf("%d failed of %d that were started, want %d to %d", n, calls.Load(), c.least, c.most)
			}
		})
	}
	bubble(t, "what is in flight finishes and is kept, and nobody asks in a hurry for the rest", func(t *testing.T, m *memory) {
		var calls atomic.Int64
		start(t, m, procs(engine.Processor{Concurrency: 3, Do: batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
			switch calls.Add(1) {
			case 1:
				return nil, errNo
			case 2:
				_ = nap(ctx, 5*time.Millisecond)
				return nil, errNo
			}
			return c.Item, nap(ctx, 10*time.Second)
		})}))
		id := m.submit(spec(1, batch.Options{MaxFailures: "1"}), 1000, 1000)
		time.Sleep(15 * time.Millisecond)
		m.with(id, func(k *kept) {
			if k.Status != batch.Canceling {
				t.Errorf("it is %s after the second failure", k.Status)
			}
		})
		k := m.await(t, id)
		if want := (batch.Tally{Succeeded: 2, Failed: 2, Canceled: 996}); k.Done != want || k.Status != batch.Canceled {
			t.Errorf("ended %s with %+v, want %+v", k.Status, k.Done, want)
		}
		if len(m.groups) > 10 {
			t.Errorf("it took %d groups of reports", len(m.groups))
		}
	})
	bubble(t, "also while the store cannot know of it", func(t *testing.T, m *memory) {
		var calls atomic.Int64
		start(t, m, procs(engine.Processor{Concurrency: 2, Do: batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
			switch calls.Add(1); {
			case c.Index < 1024: // until runs are long
				return c.Item, nil
			case c.Index%64 == 1:
				return c.Item, nap(ctx, 20*time.Second) // the failure before waits for the end of the run
			default:
				return nil, errNo
			}
		})}))
		k := m.await(t, m.submit(spec(1, batch.Options{MaxFailures: "1"}), 4096, 256))
		if k.Reason != batch.CodeTooManyFailures || k.Done.Failed < 2 || k.Done.Failed > 3 {
			t.Errorf("ended with %q and %+v", k.Reason, k.Done)
		}
		if len(m.groups) > 200 || m.claims > 500 {
			t.Errorf("it took %d groups of reports and %d claims", len(m.groups), m.claims)
		}
	})
	bubble(t, "those that failed before this node had the batch count", func(t *testing.T, m *memory) {
		var calls atomic.Int64
		o := procs(engine.Processor{Concurrency: 1, Do: failing(&calls, time.Second)})
		_, stop := start(t, m, o)
		id := m.submit(spec(1, batch.Options{MaxFailures: "5"}), 1000, 256)
		time.Sleep(3500 * time.Millisecond)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		start(t, m, o)
		if k := m.await(t, id); k.Done.Failed != 6 {
			t.Errorf("%d failed, want 6", k.Done.Failed)
		}
	})
	bubble(t, "those of earlier rounds do not", func(t *testing.T, m *memory) {
		var calls atomic.Int64
		id := m.submit(spec(1, batch.Options{MaxFailures: "5"}), 1000, 256)
		m.with(id, func(k *kept) {
			k.Round, k.Kept, k.Done.Failed = 2, 40, 40
			for i := range 40 {
				k.blocks[3].state.Items[i] = batch.ItemState{Status: batch.ItemFailed}
			}
		})
		start(t, m, procs(engine.Processor{Concurrency: 1, Do: failing(&calls, 0)}))
		if k := m.await(t, id); k.Failed() != 6 || calls.Load() != 6 {
			t.Errorf("%d failed of %d that were started, want 6", k.Failed(), calls.Load())
		}
	})
	bubble(t, "an attempt that is made again is none", func(t *testing.T, m *memory) {
		start(t, m, procs(engine.Processor{Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			if c.Attempt < 3 {
				return nil, &batch.Failure{Code: batch.CodeProcessorError, Message: "no", Retry: true}
			}
			return c.Item, nil
		})}))
		if k := m.await(t, m.submit(spec(1, batch.Options{MaxFailures: "0"}), 300, 256)); k.Done.Succeeded != 300 {
			t.Errorf("ended with %+v", k.Done)
		}
	})
	bubble(t, "an item that the process died of is one", func(t *testing.T, m *memory) {
		var calls atomic.Int64
		id := m.submit(spec(1, batch.Options{MaxFailures: "0"}), 300, 256)
		m.blame(id, map[int]int{0: 15})
		start(t, m, procs(engine.Processor{Concurrency: 1, Do: failing(&calls, 0)}))
		if k := m.await(t, id); k.Done.Failed != 1 || calls.Load() > 0 {
			t.Errorf("ended with %+v, %d were started", k.Done, calls.Load())
		}
	})
	bubble(t, "what was let go goes on if its owner has it bear more before it is stopped", func(t *testing.T, m *memory) {
		away := true
		m.onRecord = func([]batch.Report) error {
			if away {
				return batch.Errorf(batch.Unavailable, "away")
			}
			return nil
		}
		var calls atomic.Int64
		start(t, m, procs(engine.Processor{Concurrency: 1, Do: failing(&calls, 0)}))
		id := m.submit(spec(1, batch.Options{MaxFailures: "0"}), 1000, 100)
		time.Sleep(time.Minute)
		if calls.Load() != 1 {
			t.Fatalf("%d were started", calls.Load())
		}
		ten := batch.Tolerance("10")
		m.amend(id, batch.Amendment{MaxFailures: &ten})
		m.with(id, func(*kept) { away = false })
		if k := m.await(t, id); k.Done.Failed != 11 || calls.Load() != 11 {
			t.Errorf("%d failed of %d that were started, want 11", k.Done.Failed, calls.Load())
		}
	})
	bubble(t, "one that is given a bound on its way keeps it", func(t *testing.T, m *memory) {
		var calls atomic.Int64
		start(t, m, procs(engine.Processor{Concurrency: 1, Do: failing(&calls, time.Second)}))
		id := m.submit(spec(1, batch.Options{}), 1000, 100)
		time.Sleep(10500 * time.Millisecond)
		twenty := batch.Tolerance("20")
		m.amend(id, batch.Amendment{MaxFailures: &twenty})
		if k := m.await(t, id); k.Done.Failed != 21 || calls.Load() != 21 {
			t.Errorf("%d failed of %d that were started, want 21", k.Done.Failed, calls.Load())
		}
	})
}

// lagging is a store whose claims take long to come back, but for the first.
type lagging struct{ *memory }

func (s lagging) Claim(ctx context.Context, c batch.Claim) ([]batch.Work, error) {
	works, err := s.memory.Claim(ctx, c)
	s.mu.Lock()
	first := s.claims == 1
	s.mu.Unlock()
	if len(works) > 0 && !first {
		time.Sleep(5 * time.Second)
	}
	return works, err
}

func TestFailuresAreCountedWhateverIsUnderWay(t *testing.T) {
	bubble(t, "a claim of before a failure too many brings nothing that starts", func(t *testing.T, m *memory) {
		var calls atomic.Int64
		o := procs(engine.Processor{Concurrency: 1, Do: batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
			if calls.Add(1); nap(ctx, time.Second) == nil && c.Index == 0 {
				return c.Item, nil
			}
			return nil, errNo
		})})
		o.PerBatch = 2
		start(t, lagging{m}, o)
		if k := m.await(t, m.submit(spec(1, batch.Options{MaxFailures: "0"}), 3, 1)); k.Done.Failed != 1 || calls.Load() != 2 {
			t.Errorf("ended with %+v, %d were started", k.Done, calls.Load())
		}
	})
	// The item that is bad fails whenever it is tried; the others take their time.
	for name, c := range map[string]struct {
		per   int
		bad   int
		naps  map[int]time.Duration
		loses time.Duration
	}{
		"turns out to be lost":              {2, 3, map[int]time.Duration{0: time.Second, 2: 740 * time.Millisecond, 3: 500 * time.Millisecond, 4: time.Second}, 2235 * time.Millisecond},
		"is lost before it is recorded":     {2, 2, map[int]time.Duration{0: time.Second, 2: 1240 * time.Millisecond, 3: time.Second}, 2245 * time.Millisecond},
		"is lost before the end of its run": {256, 256, map[int]time.Duration{257: 3 * time.Second}, time.Second},
	} {
		bubble(t, "a failure does not count whose lease "+name, func(t *testing.T, m *memory) {
			tries := 0
			start(t, m, procs(engine.Processor{Concurrency: 1, Do: batch.ProcessorFunc(func(ctx context.Context, i batch.Call) ([]byte, error) {
				if err := nap(ctx, c.naps[i.Index]); i.Index != c.bad {
					return i.Item, err
				}
				tries++
				return nil, errNo
			})}))
			id := m.submit(spec(1, batch.Options{MaxFailures: "1"}), 8*c.per, c.per)
			time.Sleep(c.loses)
			m.with(id, func(k *kept) { k.blocks[1].lease = nil })
			if k := m.await(t, id); k.Status != batch.Completed || k.Done.Failed != 1 || tries != 2 {
				t.Errorf("ended %s with %+v, and it was tried %d times", k.Status, k.Done, tries)
			}
			if m.token != 9 {
				t.Errorf("of 8 blocks one was lost, and %d were claimed: some were let go", m.token)
			}
		})
	}
}
