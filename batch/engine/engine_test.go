package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo gives every item back.
var echo = batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) { return c.Item, nil })

// start runs an engine until the test is over or stop is called, which
// returns what Run did.
func start(t *testing.T, s engine.Store, o engine.Options) (e *engine.Engine, stop func() error) {
	t.Helper()
	e = engine.New(s, o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { stop() })
	return e, stop
}

// nap works for d, unless ctx ends before.
func nap(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// slow gives every item back after d.
func slow(d time.Duration) batch.Processor {
	return batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) { return c.Item, nap(ctx, d) })
}

func procs(p engine.Processor) engine.Options {
	return engine.Options{Processors: map[string]engine.Processor{"p": p}}
}

func spec(tenant byte, o batch.Options) batch.Spec {
	o.Processor = "p"
	return batch.Spec{Tenant: batch.TenantID{tenant}, Options: o}
}

// bubble runs a test in a bubble of synctest with a store.
func bubble(t *testing.T, name string, test func(*testing.T, *memory)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, newMemory()) })
	})
}

func TestEveryItemGetsItsOneResult(t *testing.T) {
	bubble(t, "over many blocks, in input order, on the first attempt", func(t *testing.T, m *memory) {
		start(t, m, procs(engine.Processor{Do: echo}))
		k := m.await(t, m.submit(spec(1, batch.Options{}), 1000, 256))
		if k.Done.Succeeded != 1000 || k.Status != batch.Completed {
			t.Fatalf("ended %s with %+v", k.Status, k.Done)
		}
		for i := range 1000 {
			if r := k.results[i]; string(r.Payload) != fmt.Sprint(i) || r.Attempts != 1 || r.Finished.IsZero() {
				t.Fatalf("result %d is %+v", i, r)
			}
		}
	})
	bubble(t, "whatever its processor does", func(t *testing.T, m *memory) {
		big := []byte(`"` + strings.Repeat("x", 100) + `"`)
		outputs := []struct {
			do   func(context.Context) ([]byte, error)
			code string
		}{
			{func(context.Context) ([]byte, error) { panic("oh") }, "processor_error"},
			{func(context.Context) ([]byte, error) { return nil, errors.New("secret") }, "processor_error"},
			{func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }, "timeout"},
			{func(context.Context) ([]byte, error) { return []byte(`{"a":1,"a":2}`), nil }, "bad_output"},
			{func(context.Context) ([]byte, error) { return []byte(`1 2`), nil }, "bad_output"},
			{func(context.Context) ([]byte, error) { return nil, nil }, "bad_output"},
			{func(context.Context) ([]byte, error) { return big, nil }, "output_too_large"},
			{func(context.Context) ([]byte, error) { return nil, &batch.Failure{Code: "mine", Message: "m"} }, "app.mine"},
			{func(context.Context) ([]byte, error) {
				return nil, fmt.Errorf("wrapped: %w", &batch.Failure{Code: "app.mine", Message: "m", Body: strings.Repeat("é", 4096)})
			}, "app.mine"},
			{func(context.Context) ([]byte, error) { return nil, &batch.Failure{} }, "processor_error"},
		}
		o := procs(engine.Processor{
			Timeout: time.Second,
			Do:      batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) { return outputs[c.Index].do(ctx) }),
		})
		o.MaxOutput = 100
		start(t, m, o)
		k := m.await(t, m.submit(spec(1, batch.Options{MaxAttempts: 2}), len(outputs), 256))
		for i, want := range outputs {
			got := string(k.results[i].Payload)
			if k.results[i].Status != batch.ItemFailed || !strings.Contains(got, `"code":"`+want.code+`"`) {
				t.Errorf("item %d ended with %s, want code %s", i, got, want.code)
			}
			if len(got) > 4200 || strings.Contains(got, "secret") {
				t.Errorf("item %d keeps too much: %s", i, got)
			}
		}
	})
	bubble(t, "on one line, byte for byte but for white space", func(t *testing.T, m *memory) {
		out := []byte("{\r\n  \"a\" : \"<\\n>\",\n \"big\":1e400}")
		start(t, m, procs(engine.Processor{Do: batch.ProcessorFunc(func(context.Context, batch.Call) ([]byte, error) { return out, nil })}))
		k := m.await(t, m.submit(spec(1, batch.Options{}), 2, 256))
		for i := range 2 {
			if got := string(k.results[i].Payload); got != `{"a":"<\n>","big":1e400}` {
				t.Errorf("got %s", got)
			}
		}
	})
	bubble(t, "with the caller's id, and attempts counted from one", func(t *testing.T, m *memory) {
		var calls []batch.Call
		start(t, m, procs(engine.Processor{Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			calls = append(calls, c)
			if c.Attempt == 1 {
				return nil, &batch.Failure{Code: "timeout", Retry: true}
			}
			return c.Item, nil
		})}))
		m.await(t, m.submit(spec(1, batch.Options{}), 1, 1))
		if len(calls) != 2 || calls[1].Attempt != 2 || calls[1].ID != "0" || calls[1].Key() != calls[0].Key() {
			t.Fatalf("calls were %+v", calls)
		}
	})
}

func TestWaitingItems(t *testing.T) {
	bubble(t, "hold no slot", func(t *testing.T, m *memory) {
		start(t, m, procs(engine.Processor{
			Concurrency: 1, Policy: batch.Policy{Base: 10 * time.Minute, Most: 10 * time.Minute},
			Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
				if c.Attempt < 3 && string(c.Item) == "0" {
					return nil, &batch.Failure{Code: "timeout", Retry: true}
				}
				return c.Item, nil
			}),
		}))
		slow := m.submit(spec(1, batch.Options{}), 1, 1)
		time.Sleep(time.Second)
		quick := m.submit(spec(1, batch.Options{}), 5, 5)
		begun := time.Now()
		k := m.await(t, m.submit(spec(2, batch.Options{}), 1, 1))
		_ = k
		m.await(t, slow)
		if q := m.await(t, quick); q.Done.Succeeded != 5 {
			t.Errorf("the others ended with %+v", q.Done)
		}
		if s := m.await(t, slow); s.results[0].Attempts != 3 || time.Since(begun) > 21*time.Minute {
			t.Errorf("after %v: %+v", time.Since(begun), s.results[0])
		}
	})
	bubble(t, "of a shared Retry-After keep the whole processor waiting, up to its bound", func(t *testing.T, m *memory) {
		var starts []time.Time
		e, _ := start(t, m, procs(engine.Processor{
			Concurrency: 1, Policy: batch.Policy{MostRetryWait: time.Minute},
			Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
				starts = append(starts, time.Now())
				if len(starts) == 1 {
					return nil, &batch.Failure{Code: "upstream_status", Retry: true, RetryAfter: time.Hour}
				}
				return c.Item, nil
			}),
		}))
		id := m.submit(spec(1, batch.Options{}), 10, 10)
		time.Sleep(10 * time.Second)
		m.with(id, func(*kept) {
			if len(starts) != 1 || m.held[0].WaitingOn != "rate_limit" || e.Health("p") != "paused" {
				t.Errorf("%d starts, waiting on %+v, health %s", len(starts), m.held, e.Health("p"))
			}
		})
		m.await(t, id)
		if wait := starts[1].Sub(starts[0]); wait < time.Minute || wait > 62*time.Second {
			t.Errorf("the next item came after %v", wait)
		}
	})
}

func TestFairness(t *testing.T) {
	// order notes which batch each attempt was of, with one slot and a pace at
	// which every run is one item.
	order := func(mu *sync.Mutex, got *[]batch.ID) engine.Options {
		return procs(engine.Processor{Concurrency: 1, Do: batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
			mu.Lock()
			*got = append(*got, c.Batch)
			mu.Unlock()
			return c.Item, nap(ctx, 10*time.Millisecond)
		})})
	}
	count := func(got []batch.ID, id batch.ID) (n int) {
		for _, g := range got {
			if g == id {
				n++
			}
		}
		return n
	}
	var mu sync.Mutex
	bubble(t, "a batch of one does not wait behind a batch of a hundred thousand", func(t *testing.T, m *memory) {
		var got []batch.ID
		start(t, m, order(&mu, &got))
		m.submit(spec(1, batch.Options{}), 100_000, 256)
		time.Sleep(time.Second)
		begun := time.Now()
		m.await(t, m.submit(spec(1, batch.Options{}), 1, 1))
		if took := time.Since(begun); took > 100*time.Millisecond {
			t.Errorf("it took %v at 10 ms an item", took)
		}
	})
	bubble(t, "tenants share alike however many batches each has", func(t *testing.T, m *memory) {
		var got []batch.ID
		start(t, m, order(&mu, &got))
		for range 20 {
			m.submit(spec(1, batch.Options{}), 1000, 256)
		}
		lone := m.submit(spec(2, batch.Options{}), 1000, 256)
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if n := count(got, lone); n < len(got)*45/100 || n > len(got)*55/100 {
			t.Errorf("the lone batch had %d of %d", n, len(got))
		}
	})
	bubble(t, "a batch's priority is a weight", func(t *testing.T, m *memory) {
		var got []batch.ID
		start(t, m, order(&mu, &got))
		ids := map[batch.Priority]batch.ID{}
		for _, p := range []batch.Priority{batch.PriorityLow, batch.PriorityNormal, batch.PriorityHigh} {
			ids[p] = m.submit(spec(1, batch.Options{Priority: p}), 10_000, 256)
		}
		time.Sleep(20 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		for p, id := range ids {
			want := len(got) * p.Weight() / 7
			if n := count(got, id); n < want*9/10 || n > want*11/10 {
				t.Errorf("%s had %d of %d, want about %d", p, n, len(got), want)
			}
		}
	})
	bubble(t, "a tenant comes in though another fills all that may be claimed", func(t *testing.T, m *memory) {
		o := procs(engine.Processor{Concurrency: 2, Do: slow(100 * time.Millisecond)})
		o.Blocks = 32
		start(t, m, o)
		for range 100 {
			m.submit(spec(1, batch.Options{}), 10_000, 256)
		}
		time.Sleep(2 * time.Second)
		begun := time.Now()
		m.await(t, m.submit(spec(2, batch.Options{}), 1, 1))
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
	bubble(t, "a slow processor does not keep a quick one from work", func(t *testing.T, m *memory) {
		o := procs(engine.Processor{Concurrency: 1, Do: slow(20 * time.Second)})
		o.Processors["quick"] = engine.Processor{Do: echo}
		start(t, m, o)
		for range 1000 {
			m.submit(spec(1, batch.Options{}), 100, 100)
		}
		time.Sleep(2 * time.Second)
		begun := time.Now()
		m.await(t, m.submit(batch.Spec{Options: batch.Options{Processor: "quick"}}, 10_000, 256))
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestDeadline(t *testing.T) {
	bubble(t, "nothing starts from a batch's deadline on, also when it was moved", func(t *testing.T, m *memory) {
		var last atomic.Int64
		start(t, m, procs(engine.Processor{Concurrency: 2, Do: batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
			last.Store(time.Now().UnixNano())
			return c.Item, nap(ctx, 70*time.Millisecond)
		})}))
		id := m.submit(spec(1, batch.Options{ExpiresIn: time.Hour}), 10_000, 256)
		begun := time.Now()
		expires := func(in time.Duration) {
			d := in
			m.amend(id, batch.Amendment{ExpiresIn: &d})
		}
		time.Sleep(time.Second)
		expires(5 * time.Second)
		time.Sleep(time.Second)
		expires(10_040 * time.Millisecond)
		time.Sleep(20 * time.Second)
		if at := time.Unix(0, last.Load()).Sub(begun); at < 9900*time.Millisecond || at >= 10_040*time.Millisecond {
			t.Errorf("the last item was started after %v", at)
		}
		m.cancel(id)
		m.await(t, id)
	})
}

func TestBounds(t *testing.T) {
	// gauge notes the most calls at once.
	gauge := func(most *atomic.Int64) batch.Processor {
		var now atomic.Int64
		return batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			for n, m := now.Add(1), most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
			now.Add(-1)
			return c.Item, nil
		})
	}
	bubble(t, "a batch has no more in flight than it asked for, a processor no more than it may", func(t *testing.T, m *memory) {
		var most atomic.Int64
		start(t, m, procs(engine.Processor{Do: gauge(&most), Concurrency: 8}))
		m.await(t, m.submit(spec(1, batch.Options{Concurrency: 3}), 30, 4))
		if n := most.Swap(0); n != 3 {
			t.Errorf("the batch had %d in flight", n)
		}
		m.await(t, m.submit(spec(1, batch.Options{}), 80, 4))
		if n := most.Load(); n != 8 {
			t.Errorf("the processor had %d in flight", n)
		}
	})
	bubble(t, "another bound holds within a second, also for what is in hand", func(t *testing.T, m *memory) {
		var most atomic.Int64
		start(t, m, procs(engine.Processor{Do: gauge(&most), Concurrency: 8}))
		id := m.submit(spec(1, batch.Options{Concurrency: 1}), 200, 256)
		for _, bound := range []int{6, 2} {
			time.Sleep(1500 * time.Millisecond)
			m.amend(id, batch.Amendment{Concurrency: &bound})
			time.Sleep(2500 * time.Millisecond)
			most.Store(0)
			time.Sleep(5 * time.Second)
			if n := most.Load(); n != int64(bound) {
				t.Errorf("%d are in flight, %d may be", n, bound)
			}
		}
		m.await(t, id)
	})
	bubble(t, "a processor starts no more a second than it may", func(t *testing.T, m *memory) {
		start(t, m, procs(engine.Processor{Do: echo, Rate: 50}))
		begun := time.Now()
		m.await(t, m.submit(spec(1, batch.Options{}), 500, 256))
		if took := time.Since(begun); took < 9900*time.Millisecond || took > 11*time.Second {
			t.Errorf("500 at 50 a second took %v", took)
		}
	})
	bubble(t, "no more is held than there is room for", func(t *testing.T, m *memory) {
		var most atomic.Int64
		o := procs(engine.Processor{Do: gauge(&most), Concurrency: 2})
		o.Blocks = 20
		e, _ := start(t, m, o)
		for range 50 {
			m.submit(spec(1, batch.Options{}), 1000, 100)
		}
		time.Sleep(5 * time.Second)
		if g := e.Gauges()[0]; g.Blocks < 5 || g.Blocks > 11 || g.InFlight != 2 {
			t.Errorf("gauges: %+v", g)
		}
	})
}

func TestPoison(t *testing.T) {
	bubble(t, "is an item whose worker died three times, and no other", func(t *testing.T, m *memory) {
		start(t, m, procs(engine.Processor{Concurrency: 2, Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			if c.Index == 1 || c.Index == 2 && c.Attempt < 3 {
				return nil, &batch.Failure{Code: "processor_error", Message: "gone", Retry: true, Died: true}
			}
			return c.Item, nil
		})}))
		k := m.await(t, m.submit(spec(1, batch.Options{}), 4, 4))
		if k.Done.Succeeded != 3 || k.Done.Failed != 1 {
			t.Errorf("it ended with %+v", k.Done)
		}
		for _, r := range k.results {
			if r.Index == 1 && (r.Attempts != 3 || !strings.Contains(string(r.Payload), `"poison"`)) {
				t.Errorf("got %s after %d attempts", r.Payload, r.Attempts)
			}
		}
	})
}

func TestBreaker(t *testing.T) {
	bubble(t, "opens after five failures in a row, spends no attempt while open, and closes with a probe", func(t *testing.T, m *memory) {
		var calls []time.Time
		var up atomic.Bool
		e, _ := start(t, m, procs(engine.Processor{Concurrency: 1, Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			calls = append(calls, time.Now())
			if up.Load() {
				return c.Item, nil
			}
			return nil, &batch.Failure{Code: "upstream_unreachable", Retry: true, Down: true}
		})}))
		id := m.submit(spec(1, batch.Options{}), 20, 20)
		time.Sleep(50 * time.Minute)
		if e.Health("p") != "open" {
			t.Errorf("health is %s", e.Health("p"))
		}
		m.with(id, func(k *kept) {
			if len(m.held) != 1 || m.held[0].WaitingOn != "upstream_unavailable" {
				t.Errorf("holdings: %+v", m.held)
			}
			up.Store(true)
		})
		k := m.await(t, id)
		for i, want := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300} {
			if got := calls[5+i].Sub(calls[4+i]); got < want*time.Second || got > (want+2)*time.Second {
				t.Errorf("probe %d came after %v, want %ds", i, got, want)
			}
		}
		attempts := 0
		for _, r := range k.results {
			attempts += r.Attempts
		}
		if k.Done.Succeeded != 20 || attempts != 25 || e.Health("p") != "ok" {
			t.Errorf("%+v after %d attempts, health %s", k.Done, attempts, e.Health("p"))
		}
	})
	bubble(t, "does not keep a batch from its end whose last items bring the upstream down", func(t *testing.T, m *memory) {
		start(t, m, procs(engine.Processor{Do: batch.ProcessorFunc(func(context.Context, batch.Call) ([]byte, error) {
			return nil, &batch.Failure{Code: "upstream_unreachable", Retry: true, Down: true}
		})}))
		if k := m.await(t, m.submit(spec(1, batch.Options{}), 3, 3)); k.Done.Failed != 3 {
			t.Errorf("ended with %+v", k.Done)
		}
	})
	bubble(t, "takes an answer to a probe for an attempt, and asks with another item next", func(t *testing.T, m *memory) {
		var mu sync.Mutex
		var asked []int
		start(t, m, procs(engine.Processor{Concurrency: 1, Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, c.Index)
			return nil, &batch.Failure{Code: "upstream_status", UpstreamStatus: 503, Retry: true, Down: true}
		})}))
		bad := m.submit(spec(1, batch.Options{}), 10, 10)
		time.Sleep(time.Minute)
		mu.Lock()
		if probes := asked[5:]; len(probes) < 3 || len(slices.Compact(slices.Sorted(slices.Values(probes)))) != len(probes) {
			t.Errorf("probes were made with %v", probes)
		}
		mu.Unlock()
		k := m.await(t, bad)
		if k.Done.Failed != 10 {
			t.Errorf("ended with %+v", k.Done)
		}
		for i, r := range k.results {
			if r.Attempts != 5 {
				t.Errorf("item %d has %d attempts", i, r.Attempts)
			}
		}
	})
	bubble(t, "takes no attempt off items that nobody has seen", func(t *testing.T, m *memory) {
		var up atomic.Bool
		e, _ := start(t, m, procs(engine.Processor{Concurrency: 4, Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			if up.Load() {
				return c.Item, nil
			}
			return nil, &batch.Failure{Code: "processor_error", Retry: true, Down: true, Untried: true}
		})}))
		id := m.submit(spec(1, batch.Options{}), 20, 20)
		time.Sleep(50 * time.Minute)
		m.with(id, func(k *kept) {
			if e.Health("p") != "open" || len(m.held) != 1 || m.held[0].WaitingOn != "upstream_unavailable" {
				t.Errorf("health is %s, holdings: %+v", e.Health("p"), m.held)
			}
			up.Store(true)
		})
		k := m.await(t, id)
		attempts := 0
		for _, r := range k.results {
			attempts += r.Attempts
		}
		if k.Done.Succeeded != 20 || attempts != 20 {
			t.Errorf("%+v after %d attempts", k.Done, attempts)
		}
	})
	bubble(t, "stays closed if failures are not in a row", func(t *testing.T, m *memory) {
		n := 0
		e, _ := start(t, m, procs(engine.Processor{Concurrency: 1, Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			if n++; n%5 != 0 {
				return nil, &batch.Failure{Code: "upstream_unreachable", Down: true}
			}
			return c.Item, nil
		})}))
		m.await(t, m.submit(spec(1, batch.Options{}), 100, 100))
		if e.Health("p") != "ok" {
			t.Errorf("health is %s", e.Health("p"))
		}
	})
}

func TestCancel(t *testing.T) {
	bubble(t, "starts nothing more within two seconds, records what is in flight, and ends", func(t *testing.T, m *memory) {
		var last atomic.Int64
		start(t, m, procs(engine.Processor{Concurrency: 4, Do: batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
			last.Store(time.Now().UnixNano())
			return c.Item, nap(ctx, 1500*time.Millisecond)
		})}))
		id := m.submit(spec(1, batch.Options{}), 10_000, 256)
		time.Sleep(4 * time.Second)
		at := time.Now()
		m.cancel(id)
		k := m.await(t, id)
		if late := time.Unix(0, last.Load()).Sub(at); late > 2*time.Second {
			t.Errorf("an attempt started %v after the cancel", late)
		}
		if took := time.Since(at); took > 4*time.Second {
			t.Errorf("the end took %v", took)
		}
		if k.Status != batch.Canceled || k.Done.Sum() != 10_000 || k.Done.Succeeded == 0 || k.Done.Succeeded != len(k.results) {
			t.Errorf("ended %s with %+v and %d results", k.Status, k.Done, len(k.results))
		}
	})
	bubble(t, "cuts a run of tiny items short whose first one hangs", func(t *testing.T, m *memory) {
		var calls, hung atomic.Int64
		start(t, m, procs(engine.Processor{Concurrency: 1, Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			if calls.Add(1) == 500 {
				time.Sleep(10 * time.Second)
				hung.Store(calls.Load())
			}
			return c.Item, nil
		})}))
		id := m.submit(spec(1, batch.Options{}), 1024, 256)
		time.Sleep(time.Second)
		m.cancel(id)
		m.await(t, id)
		if calls.Load() != hung.Load() {
			t.Errorf("%d attempts started after the cancel", calls.Load()-hung.Load())
		}
	})
}

func TestDrain(t *testing.T) {
	attempts := func(k *kept) (n int) {
		for _, b := range k.blocks {
			for _, it := range b.state.Items {
				n += it.Attempts
			}
			if b.lease != nil {
				return -1
			}
		}
		return n
	}
	bubble(t, "lets items in flight end and records them", func(t *testing.T, m *memory) {
		_, stop := start(t, m, procs(engine.Processor{Concurrency: 4, Do: slow(10 * time.Second)}))
		id := m.submit(spec(1, batch.Options{}), 100, 10)
		time.Sleep(time.Second)
		begun := time.Now()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		m.with(id, func(k *kept) {
			if len(k.results) != 4 || attempts(k) != 4 {
				t.Errorf("%d results, %d attempts", len(k.results), attempts(k))
			}
		})
	})
	bubble(t, "costs no attempt of what it has to cut short", func(t *testing.T, m *memory) {
		_, stop := start(t, m, procs(engine.Processor{Concurrency: 4, Timeout: time.Hour, Do: slow(time.Hour)}))
		id := m.submit(spec(1, batch.Options{}), 100, 10)
		time.Sleep(time.Second)
		begun := time.Now()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < 20*time.Second || took > 21*time.Second {
			t.Errorf("it took %v", took)
		}
		m.with(id, func(k *kept) {
			if len(k.results) != 0 || attempts(k) != 0 || !k.Status.Claimable() {
				t.Errorf("%d results, %d attempts, %s", len(k.results), attempts(k), k.Status)
			}
		})
	})
	bubble(t, "does not wait for a processor without an ear for its context", func(t *testing.T, m *memory) {
		deaf := make(chan struct{})
		_, stop := start(t, m, procs(engine.Processor{Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			<-deaf
			return c.Item, nil
		})}))
		id := m.submit(spec(1, batch.Options{}), 10, 10)
		time.Sleep(time.Second)
		begun := time.Now()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("it took %v", took)
		}
		m.with(id, func(k *kept) {
			if attempts(k) != 0 {
				t.Errorf("%d attempts", attempts(k))
			}
		})
		close(deaf)
		synctest.Wait()
	})
	bubble(t, "of an idle engine is immediate", func(t *testing.T, m *memory) {
		_, stop := start(t, m, procs(engine.Processor{Do: echo}))
		m.await(t, m.submit(spec(1, batch.Options{}), 10, 10))
		begun := time.Now()
		if err := stop(); err != nil || time.Since(begun) > 0 {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

func TestRecording(t *testing.T) {
	bubble(t, "gathers what comes while a transaction is made", func(t *testing.T, m *memory) {
		m.onRecord = func([]batch.Report) error {
			m.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			m.mu.Lock()
			return nil
		}
		start(t, m, procs(engine.Processor{Do: echo}))
		var ids []batch.ID
		for range 200 {
			ids = append(ids, m.submit(spec(1, batch.Options{}), 1, 1))
		}
		for _, id := range ids {
			m.await(t, id)
		}
		if n := len(m.groups); n > 20 {
			t.Errorf("200 batches of one took %d transactions", n)
		}
	})
	bubble(t, "shows progress of a block before it is finished", func(t *testing.T, m *memory) {
		start(t, m, procs(engine.Processor{Concurrency: 1, Do: slow(time.Second)}))
		id := m.submit(spec(1, batch.Options{}), 100, 100)
		time.Sleep(10500 * time.Millisecond)
		m.with(id, func(k *kept) {
			if len(k.results) != 10 || k.Status != batch.Running {
				t.Errorf("%d results, %s", len(k.results), k.Status)
			}
		})
	})
	bubble(t, "holds outcomes while the store is away", func(t *testing.T, m *memory) {
		until := time.Now().Add(time.Minute)
		m.onRecord = func([]batch.Report) error {
			if time.Now().Before(until) {
				return batch.Errorf(batch.Unavailable, "away")
			}
			return nil
		}
		var calls atomic.Int64
		start(t, m, procs(engine.Processor{Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			calls.Add(1)
			return c.Item, nil
		})}))
		m.await(t, m.submit(spec(1, batch.Options{}), 1000, 100))
		if calls.Load() != 1000 {
			t.Errorf("%d calls", calls.Load())
		}
	})
	bubble(t, "lets a report that is refused not take the others with it", func(t *testing.T, m *memory) {
		var bad batch.ID
		m.onRecord = func(rs []batch.Report) error {
			if slices.ContainsFunc(rs, func(r batch.Report) bool { return r.Lease.Block.Batch == bad }) {
				return batch.Errorf(batch.Invalid, "no")
			}
			return nil
		}
		bad = m.submit(spec(1, batch.Options{}), 1, 1)
		good := m.submit(spec(1, batch.Options{}), 1, 1)
		start(t, m, procs(engine.Processor{Do: echo}))
		m.await(t, good)
	})
	bubble(t, "drops what was worked on under a lost lease", func(t *testing.T, m *memory) {
		var calls atomic.Int64
		start(t, m, procs(engine.Processor{Do: batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
			calls.Add(1)
			return c.Item, nap(ctx, 2*time.Second)
		})}))
		id := m.submit(spec(1, batch.Options{}), 10, 10)
		time.Sleep(time.Second)
		m.with(id, func(k *kept) { k.blocks[0].lease = nil })
		if k := m.await(t, id); k.Done.Succeeded != 10 || calls.Load() != 20 {
			t.Errorf("%+v after %d calls", k.Done, calls.Load())
		}
	})
	bubble(t, "ends the engine when the store does not know its state any more", func(t *testing.T, m *memory) {
		_, stop := start(t, m, procs(engine.Processor{Do: batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})}))
		m.submit(spec(1, batch.Options{}), 10, 10)
		time.Sleep(time.Second)
		m.fail(errors.New("sync failed"))
		if err := stop(); err == nil || !strings.Contains(err.Error(), "sync failed") {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestLeases(t *testing.T) {
	bubble(t, "that could not be renewed in time start nothing more", func(t *testing.T, m *memory) {
		var last atomic.Int64
		start(t, m, procs(engine.Processor{Concurrency: 1, Do: batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
			last.Store(time.Now().UnixNano())
			return c.Item, nap(ctx, 100*time.Millisecond)
		})}))
		id := m.submit(spec(1, batch.Options{}), 1000, 250)
		time.Sleep(time.Second)
		away := time.Now()
		m.with(id, func(*kept) { m.renewErr = errors.New("away") })
		time.Sleep(time.Minute)
		if late := time.Unix(0, last.Load()).Sub(away); late > batch.LeaseTime*2/3 {
			t.Errorf("an attempt started %v after the last renewal", late)
		}
		m.with(id, func(*kept) { m.renewErr = nil })
		m.await(t, id)
	})
	bubble(t, "are not asked for over and over when nothing can be had", func(t *testing.T, m *memory) {
		start(t, m, procs(engine.Processor{Concurrency: 1, Timeout: time.Hour, Do: slow(time.Minute)}))
		id := m.submit(spec(1, batch.Options{}), 30, 1)
		time.Sleep(10 * time.Minute)
		m.with(id, func(*kept) {
			if m.claims > 1000 {
				t.Errorf("%d claims in ten minutes", m.claims)
			}
		})
	})
}
