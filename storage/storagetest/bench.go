package storagetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/callbatch/callbatch/batch"
)

// Bench measures the roads that carry the load. Besides the time of an
// operation each gives its items a second.
func Bench(b *testing.B, open Opener) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("create one item, callers=%d", callers), func(b *testing.B) {
			s := newBench(b, open)
			s.callers(b, callers, 1, func() error { return s.enter(sample{}) })
		})
	}
	b.Run("create 10,000 items", func(b *testing.B) {
		s := newBench(b, open)
		s.callers(b, 1, 10_000, func() error { return s.enter(sample{Items: 10_000, Item: typical}) })
	})
	b.Run("claim and record whole blocks", benchBlocks(open))
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("create, claim, record, attempted, callers=%d", callers), func(b *testing.B) {
			s := newBench(b, open)
			s.proven(batch.TenantID{}, hook)
			s.callers(b, callers, 1, s.road)
		})
	}
}

// typical is an item of about 200 bytes.
func typical(i int) batch.Item {
	return batch.Item{Raw: fmt.Appendf(nil, `{"n":%d,"text":"%0180d"}`, i, i)}
}

func newBench(b *testing.B, open Opener) *fixture {
	b.Helper()
	s := newFixture(b, open(b))
	b.Cleanup(s.shut)
	return s
}

// enter creates a batch and forgets it.
func (s *fixture) enter(m sample) error {
	_, err := s.accept(m.given())
	return err
}

// callers does do b.N times, shared by n callers.
func (s *fixture) callers(b *testing.B, n, items int, do func() error) {
	b.Helper()
	b.ReportAllocs()
	errs := make(chan error, n)
	jobs := make(chan struct{})
	var all sync.WaitGroup
	b.ResetTimer()
	for range n {
		all.Go(func() {
			for range jobs {
				if err := do(); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	for range b.N {
		jobs <- struct{}{}
	}
	close(jobs)
	all.Wait()
	b.ReportMetric(float64(b.N*items)/b.Elapsed().Seconds(), "items/s")
	select {
	case err := <-errs:
		b.Fatal(err)
	default:
	}
}

// benchBlocks claims and finishes blocks of 256 items, 16 blocks a call.
func benchBlocks(open Opener) func(b *testing.B) {
	return func(b *testing.B) {
		s := newBench(b, open)
		var ws []batch.Work
		s.callers(b, 1, batch.BlockItems, func() (err error) {
			if len(ws) > 0 {
				ws = ws[1:]
				return nil
			}
			b.StopTimer()
			err = s.enter(sample{Items: 16 * batch.BlockItems, Item: typical})
			b.StartTimer()
			if err != nil {
				return err
			}
			if ws, err = s.Claim(s.ctx, everything(16)); err != nil {
				return err
			}
			_, err = s.Record(s.ctx, finishAll(ws), batch.MessageClaim{})
			ws = ws[1:]
			return err
		})
	}
}

// road takes a batch of one item from its acceptance to its acknowledged
// message. Among many callers it may be another's batch.
func (s *fixture) road() error {
	if err := s.enter(called(1, 1)); err != nil {
		return err
	}
	var ws []batch.Work
	for len(ws) == 0 {
		var err error
		if ws, err = s.Claim(s.ctx, everything(1)); err != nil {
			return err
		}
	}
	rec, err := s.Record(s.ctx, []batch.Report{finish(ws[0])}, anyHost(1))
	if err != nil {
		return err
	}
	ds := rec.Deliveries
	for len(ds) == 0 {
		if ds, err = s.ClaimMessages(s.ctx, anyHost(1)); err != nil {
			return err
		}
	}
	return s.Attempted(s.ctx, []batch.AttemptOutcome{ended(ds[0], batch.MessageDelivered)})
}
