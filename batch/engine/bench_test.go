package engine_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
)

// tap is a store without end and without cost: so many batches of blocks of so
// many items, each as soon as it is released.
type tap struct {
	*memory
	batches, per, want int
	done               chan struct{}

	mu    sync.Mutex
	specs []*batch.Spec
	out   []int // blocks leased, by batch
	at    int
	items []batch.WorkItem
}

func newTap(batches, per, want int) *tap {
	s := &tap{memory: newMemory(), batches: batches, per: per, want: want, done: make(chan struct{}), out: make([]int, batches)}
	for i := range batches {
		id := batch.NewID(time.Now())
		id[0], id[1] = byte(i), byte(i>>8)
		s.specs = append(s.specs, &batch.Spec{ID: id, Options: batch.Options{Processor: "p"}})
	}
	for i := range per {
		s.items = append(s.items, batch.WorkItem{Index: i, Raw: []byte(`{"sku":"A-17","qty":3,"price":12.5}`)})
	}
	return s
}

func (s *tap) Claim(_ context.Context, c batch.Claim) (works []batch.Work, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for vain := 0; vain < s.batches && len(works) < c.Blocks; s.at = (s.at + 1) % s.batches {
		if s.out[s.at] >= c.PerBatch {
			vain++
			continue
		}
		vain = 0
		s.out[s.at]++
		works = append(works, batch.Work{
			Lease: batch.Lease{Token: uint64(s.at), Block: batch.BlockKey{Batch: s.specs[s.at].ID}}, Spec: s.specs[s.at], Items: s.items,
		})
	}
	return works, nil
}

func (s *tap) Record(_ context.Context, reports []batch.Report, _ batch.MessageClaim) (batch.Recorded, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range reports {
		if r.Release {
			s.out[r.Lease.Token]--
		}
		if s.want > 0 {
			if s.want -= len(r.Results); s.want <= 0 {
				close(s.done)
			}
		}
	}
	return batch.Recorded{}, nil
}

func (s *tap) Renew(context.Context, string, []batch.Holding) (batch.Renewed, error) {
	return batch.Renewed{}, nil
}

func (s *tap) NextDue(context.Context, []string) (time.Time, bool, error) {
	return time.Time{}, true, nil
}

// BenchmarkEngineNoop is what the engine itself costs: items a second through
// a store and a processor that do nothing.
func BenchmarkEngineNoop(b *testing.B) {
	for _, c := range []struct {
		name         string
		batches, per int
		trusted      bool
	}{
		{"one batch", 1, 256, true},
		{"hundred batches", 100, 256, true},
		{"hundred batches, outputs checked", 100, 256, false},
		{"batches of one", 1000, 1, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newTap(c.batches, c.per, b.N)
			e := engine.New(s, procs(engine.Processor{Do: echo, Trusted: c.trusted}))
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error)
			b.ReportAllocs()
			b.ResetTimer()
			go func() { ended <- e.Run(ctx) }()
			<-s.done
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
			cancel()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		})
	}
}
