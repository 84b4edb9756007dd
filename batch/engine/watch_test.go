package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
)

// deaths returns how many deaths the store has of the items of a batch.
func (m *memory) deaths(id batch.ID) (all []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.batches[id].blocks {
		for i := range b.Items {
			n := 0
			if i < len(b.state.Items) {
				n = b.state.Items[i].Deaths
			}
			all = append(all, n)
		}
	}
	return all
}

// blame writes down deaths of items of a batch that nobody has claimed.
func (m *memory) blame(id batch.ID, deaths map[int]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.batches[id].blocks {
		b.state = b.state.In(1, len(b.Items))
		for i := range b.Items {
			b.state.Items[i].Deaths = deaths[b.First+i]
		}
	}
}

func TestWhatMayTakeTheProcessDown(t *testing.T) {
	bubble(t, "is on record before it begins, after a crash", func(t *testing.T, m *memory) {
		m.crashed = true
		seen := make(chan []int, 100)
		start(t, m, procs(engine.Processor{Concurrency: 1, Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			seen <- m.deaths(c.Batch)
			return c.Item, nil
		})}))
		id := m.submit(spec(1, batch.Options{}), 40, 20)
		k := m.await(t, id)
		for i := range 40 {
			if got := <-seen; got[i] != 1 {
				t.Fatalf("item %d begins with %v on record", i, got)
			}
		}
		for i, n := range m.deaths(id) {
			if n != 0 {
				t.Errorf("item %d has its result and %d deaths", i, n)
			}
		}
		if k.Done.Succeeded != 40 {
			t.Errorf("ended with %+v", k.Done)
		}
	})
	bubble(t, "is not, without one, for long after it, or if others do the work", func(t *testing.T, m *memory) {
		for name, how := range map[string]struct{ crashed, outside bool }{"clean": {}, "outside": {true, true}, "long after": {true, false}} {
			m := newMemory()
			m.crashed = how.crashed
			_, stop := start(t, m, procs(engine.Processor{Outside: how.outside, Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
				for i, n := range m.deaths(c.Batch) {
					if n != 0 {
						t.Errorf("%s: item %d has %d deaths on record", name, i, n)
					}
				}
				return c.Item, nil
			})}))
			if name == "long after" {
				time.Sleep(6 * time.Minute)
			}
			m.await(t, m.submit(spec(1, batch.Options{}), 40, 20))
			stop()
		}
	})
	bubble(t, "is tried alone when it has been there twice, and no more after three times alone", func(t *testing.T, m *memory) {
		var inFlight, most, tried atomic.Int64
		var mu sync.Mutex
		begun := map[int][]int{}
		do := batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
			now := inFlight.Add(1)
			defer inFlight.Add(-1)
			record := m.deaths(c.Batch)
			mu.Lock()
			begun[c.Index] = record
			mu.Unlock()
			tried.Add(1)
			if c.Index == 7 || c.Index == 33 {
				most.Store(max(most.Load(), now))
				time.Sleep(time.Second) // whoever joins it is seen
				most.Store(max(most.Load(), inFlight.Load()))
			}
			return c.Item, nap(ctx, 10*time.Millisecond)
		})
		id := m.submit(spec(1, batch.Options{}), 60, 20)
		blamed := map[int]int{3: 1, 7: 2, 33: 4, 12: 5}
		m.blame(id, blamed)
		start(t, m, procs(engine.Processor{Concurrency: 8, Do: do}))
		k := m.await(t, id)
		if most.Load() != 1 {
			t.Errorf("it was alone with %d", most.Load())
		}
		for i, want := range map[int]int{3: 2, 7: 3, 33: 5, 4: 0} {
			if got := begun[i]; got == nil || got[i] != want {
				t.Errorf("item %d began with %v on record, want %d", i, got, want)
			}
		}
		for _, i := range []int{7, 33} { // whoever is next begins when the last is cleared
			for j, n := range begun[i] {
				if j != i && (j == 7 || j == 33) && n > blamed[j] {
					t.Errorf("item %d begins when %d is still charged", i, j)
				}
			}
		}
		if r := k.results[12]; r.Status != batch.ItemFailed || r.Attempts != 5 || !strings.Contains(string(r.Payload), `{"code":"poison","message":"the process died 5 times while it was worked on, at last 3 times while nothing else was"}`) {
			t.Errorf("got %+v %s", r, r.Payload)
		}
		if tried.Load() != 59 || k.Done.Succeeded != 59 {
			t.Errorf("%d were tried, ended with %+v", tried.Load(), k.Done)
		}
	})
	bubble(t, "is the only one with three deaths on record while it is tried", func(t *testing.T, m *memory) {
		all := map[int]int{}
		for i := range 100 {
			all[i] = 2
		}
		id := m.submit(spec(1, batch.Options{}), 100, 10)
		m.blame(id, all)
		start(t, m, procs(engine.Processor{Concurrency: 4, Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			for i, n := range m.deaths(c.Batch) {
				if (n == 3) != (i == c.Index) {
					t.Errorf("item %d has %d deaths when %d begins", i, n, c.Index)
				}
			}
			return c.Item, nil
		})}))
		if k := m.await(t, id); k.Done.Succeeded != 100 {
			t.Errorf("ended with %+v", k.Done)
		}
	})
	bubble(t, "loses the death when it is tried again", func(t *testing.T, m *memory) {
		m.crashed = true
		start(t, m, procs(engine.Processor{Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
			if c.Attempt < 4 {
				return nil, &batch.Failure{Code: "timeout", Retry: true}
			}
			return c.Item, nil
		})}))
		id := m.submit(spec(1, batch.Options{}), 5, 5)
		if k := m.await(t, id); k.Done.Succeeded != 5 {
			t.Errorf("ended with %+v: %v", k.Done, k.results)
		}
	})
	bubble(t, "loses it when our own stop cuts it short", func(t *testing.T, m *memory) {
		m.crashed = true
		begun := make(chan int, 100)
		o := procs(engine.Processor{Concurrency: 2, Do: batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
			begun <- c.Index
			<-ctx.Done()
			return nil, ctx.Err()
		})})
		o.Drain = time.Second
		id := m.submit(spec(1, batch.Options{}), 10, 5)
		m.blame(id, map[int]int{5: 1})
		_, stop := start(t, m, o)
		<-begun
		<-begun
		time.Sleep(time.Second)
		if got := fmt.Sprint(m.deaths(id)); !strings.Contains(got, "1") {
			t.Fatalf("nothing is on record: %s", got)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		for i, n := range m.deaths(id) {
			if n != 0 && (i != 5 || n != 1) {
				t.Errorf("item %d has %d deaths", i, n)
			}
		}
	})
	bubble(t, "is slower, and nothing else", func(t *testing.T, m *memory) {
		m.crashed = true
		start(t, m, procs(engine.Processor{Concurrency: 8, Do: slow(time.Millisecond)}))
		var ids []batch.ID
		for i := range 20 {
			id := m.submit(spec(byte(i%3), batch.Options{}), 100, 10)
			m.blame(id, map[int]int{i: 1, 2 * i: 2, 99: 5})
			ids = append(ids, id)
		}
		for _, id := range ids {
			if k := m.await(t, id); k.Done.Succeeded != 99 || k.Done.Failed != 1 {
				t.Errorf("ended with %+v", k.Done)
			}
		}
	})
}
