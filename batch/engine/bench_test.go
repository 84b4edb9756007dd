package engine_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
	"github.com/callbatch/callbatch/callback"
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

	hooks   bool // each block makes a message
	waiting int  // of these, how many were not offered a slot
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

func (s *tap) Record(_ context.Context, reports []batch.Report, offer batch.MessageClaim) (rec batch.Recorded, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range reports {
		if r.Release {
			s.out[r.Lease.Token]--
		}
		switch {
		case !s.hooks:
			s.spend(len(r.Results))
		case len(rec.Deliveries) < offer.Max:
			rec.Deliveries = append(rec.Deliveries, delivery)
		default:
			s.waiting++
			raise(s.messagesChanged)
		}
	}
	return rec, nil
}

var delivery = batch.Delivery{
	Message: batch.Message{Type: batch.TypeCompleted, Host: "shop.example:443", State: batch.MessageSending, Made: 1, Head: []byte(`{}`)},
	URL:     hook,
}

// spend counts what was wanted.
func (s *tap) spend(n int) {
	if s.want > 0 {
		if s.want -= n; s.want <= 0 {
			close(s.done)
		}
	}
}

func (s *tap) ClaimMessages(_ context.Context, c batch.MessageClaim) (ds []batch.Delivery, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; s.waiting > 0 && len(ds) < c.Max; s.waiting-- {
		ds = append(ds, delivery)
	}
	return ds, nil
}

func (s *tap) Attempted(_ context.Context, outcomes []batch.AttemptOutcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spend(len(outcomes))
	return nil
}

func (s *tap) NextMessage(context.Context) (time.Time, bool, error) { return time.Time{}, false, nil }

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
			run(b, s, procs(engine.Processor{Do: echo, Trusted: c.trusted}))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
		})
	}
}

// run has an engine do all that is wanted of a tap.
func run(b *testing.B, s *tap, o engine.Options) {
	e := engine.New(s, o)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	b.ReportAllocs()
	b.ResetTimer()
	go func() { ended <- e.Run(ctx) }()
	<-s.done
	b.StopTimer()
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkEngineWebhook is what the engine itself costs a batch of one with a
// message, through a store and a sender that do nothing.
func BenchmarkEngineWebhook(b *testing.B) {
	s := newTap(1000, 1, b.N)
	s.hooks = true
	o := procs(engine.Processor{Do: echo, Trusted: true})
	sent := map[string][]string{
		"Callbatch-Attempt": {"1"}, "Content-Digest": {"sha-256=:x:"}, "Content-Type": {"application/json"}, "User-Agent": {"Callbatch/dev"},
		"Webhook-Id": {"msg_x"}, "Webhook-Signature": {"***"}, "Webhook-Timestamp": {"1"},
	}
	got := map[string][]string{"Content-Length": {"0"}, "Date": {"Mon, 23 Nov 2026 12:00:00 GMT"}}
	o.Sender = &nowhere{callback.Result{Verdict: callback.Delivered, Status: 204, RequestHeaders: sent, ResponseHeaders: got}}
	run(b, s, o)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// nowhere answers at once.
type nowhere struct{ callback.Result }

func (n *nowhere) Send(context.Context, callback.Message) callback.Result { return n.Result }
