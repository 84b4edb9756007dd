package engine_test

import (
	"context"
	"errors"
	"hash/fnv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
	"github.com/callbatch/callbatch/callback"
)

// A mishap happens to a running engine or its store.
type mishap struct {
	After time.Duration
	Kind  string
	Batch int
}

// moody does something else with each item, always the same with one: so the
// end can be told beforehand.
func moody(seed uint32) batch.Processor {
	return batch.ProcessorFunc(func(ctx context.Context, c batch.Call) ([]byte, error) {
		h := fnv.New32a()
		h.Write(append(c.Item, byte(seed), byte(seed>>8)))
		mood := h.Sum32() >> 8
		if err := nap(ctx, time.Duration(mood%5)*time.Duration(mood%700)*time.Millisecond); err != nil {
			return nil, err
		}
		switch mood % 10 {
		case 0:
			return nil, &batch.Failure{Code: "app.no"}
		case 1:
			panic("mood")
		case 2:
			if c.Attempt == 1 {
				return nil, &batch.Failure{Code: "upstream_status", Retry: true, RetryAfter: 2 * time.Second}
			}
		case 3:
			if c.Attempt < 3 {
				return nil, &batch.Failure{Code: "upstream_unreachable", Retry: true, Down: true}
			}
		case 4:
			return nil, errors.New("mood")
		}
		return c.Item, nil
	})
}

// fickle answers each attempt in its own way.
func fickle(ctx context.Context, m callback.Message) callback.Result {
	mood := int(m.ID[len(m.ID)-1]) + m.Attempt
	if nap(ctx, time.Duration(mood%4)*time.Second) != nil {
		return callback.Result{Verdict: callback.Interrupted, Category: callback.CategoryInterrupted}
	}
	return []callback.Result{unavailable, unreachable, {Verdict: callback.Delivered, Status: 200}}[mood%3]
}

func TestWhateverHappensEveryItemEndsWithOneResult(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint32().Draw(rt, "seed")
		concurrency := rapid.IntRange(1, 20).Draw(rt, "concurrency")
		rate := rapid.SampledFrom([]float64{0, 0, 50}).Draw(rt, "rate")
		sizes := rapid.SliceOfN(rapid.IntRange(1, 80), 1, 8).Draw(rt, "sizes")
		per := rapid.IntRange(1, 40).Draw(rt, "per block")
		most := rapid.IntRange(0, 3).Draw(rt, "batch concurrency")
		bears := rapid.SampledFrom([]batch.Tolerance{"", "", "0", "3", "10%"}).Draw(rt, "max failures")
		crashed := rapid.Bool().Draw(rt, "crashed")
		deaths := rapid.MapOfN(rapid.IntRange(0, 79), rapid.IntRange(0, 3), 0, 8).Draw(rt, "deaths")
		mishaps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) mishap {
			return mishap{
				After: time.Duration(rapid.IntRange(0, 5000).Draw(rt, "after")) * time.Millisecond,
				Kind:  rapid.SampledFrom([]string{"stop", "lose", "cancel", "away", "refuse"}).Draw(rt, "kind"),
				Batch: rapid.IntRange(0, len(sizes)-1).Draw(rt, "batch"),
			}
		}), 0, 6).Draw(rt, "mishaps")

		synctest.Test(t, func(t *testing.T) {
			m := newMemory()
			m.crashed = crashed
			var ids []batch.ID
			for i, n := range sizes {
				ids = append(ids, m.submit(spec(byte(i%3), batch.Options{Concurrency: most, MaxAttempts: 4, MaxFailures: bears, CallbackURL: hook}), n, per))
				m.blame(ids[i], deaths)
			}
			o := procs(engine.Processor{Do: moody(seed), Concurrency: concurrency, Rate: rate})
			o.Blocks, o.Drain = 8, time.Second
			o.Sender, o.Schedule = &receiver{answer: fickle}, callback.Schedule{Steps: []time.Duration{0, time.Second, 5 * time.Second, 20 * time.Second}}
			_, stop := start(t, m, o)
			canceled := map[batch.ID]bool{}
			for _, h := range mishaps {
				time.Sleep(h.After)
				switch h.Kind {
				case "stop":
					if err := stop(); err != nil {
						t.Fatalf("stop: %v, after %+v", err, mishaps)
					}
					_, stop = start(t, m, o)
				case "lose":
					m.with(ids[h.Batch], func(k *kept) { k.blocks[0].lease = nil })
				case "cancel":
					canceled[ids[h.Batch]] = true
					m.cancel(ids[h.Batch])
				default:
					code, left := map[string]batch.Code{"away": batch.Unavailable, "refuse": batch.Invalid}[h.Kind], 3
					m.with(ids[h.Batch], func(*kept) {
						m.onRecord = func([]batch.Report) error {
							if left--; left < 0 {
								return nil
							}
							return batch.Errorf(code, "no")
						}
					})
				}
			}
			time.Sleep(time.Minute)
			// What a store refused stays leased until the node is gone.
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				m.with(id, func(k *kept) {
					m.onRecord = nil
					for _, b := range k.blocks {
						b.lease = nil
					}
					m.end(k, &batch.MessageClaim{}, &batch.Recorded{})
				})
			}
			start(t, m, o)
			for _, id := range ids {
				k := m.await(t, id)
				if k.Done.Sum() != k.Items || k.Done.Succeeded+k.Done.Failed != len(k.results) {
					t.Fatalf("%+v of %d items with %d results", k.Done, k.Items, len(k.results))
				}
				if may := k.Options.MaxFailures.Allows(k.Items); k.Failed() > may+concurrency {
					t.Fatalf("%d failed of %d that may, %d at once", k.Failed(), may, concurrency)
				}
				if k.Reason == batch.CodeTooManyFailures {
					canceled[id] = !k.Bears(k.Failed())
				}
				if !canceled[id] && (k.Status != batch.Completed || len(k.results) != k.Items) {
					t.Fatalf("%s with %d results of %d", k.Status, len(k.results), k.Items)
				}
				for _, r := range k.results {
					if r.Attempts < 1 || r.Attempts > 4 {
						t.Fatalf("item %d had %d attempts", r.Index, r.Attempts)
					}
				}
			}
			time.Sleep(time.Hour)
			for id := range m.messages {
				if l := m.message(id); !l.State.Settled() || l.Made != len(l.attempts) {
					t.Fatalf("a message is %s, %d attempts made and %d kept", l.State, l.Made, len(l.attempts))
				}
			}
		})
	})
}
