package engine

import (
	"time"

	"github.com/callbatch/callbatch/batch"
)

// Metrics is told what happens. Its methods are called from many goroutines
// at once and return at once.
type Metrics interface {
	// Items counts n attempts at items of a processor that took a time each,
	// by what became of the items: succeeded, failed, or pending if they are
	// to be tried again.
	Items(processor string, as batch.ItemStatus, n int, each time.Duration)

	// Recorded counts one transaction with so many blocks' reports.
	Recorded(reports int, took time.Duration)

	// Sent counts one attempt at a message, but no test: as "delivered", or by
	// its category of failure (dns, connect, tls, timeout, blocked, redirect,
	// status, too_large, interrupted; "other" if it has none of these).
	Sent(outcome string, took time.Duration)
}

type noMetrics struct{}

func (noMetrics) Items(string, batch.ItemStatus, int, time.Duration) {}
func (noMetrics) Recorded(int, time.Duration)                        {}
func (noMetrics) Sent(string, time.Duration)                         {}

// count tells the metrics about a run.
func (e *Engine) count(processor string, r *run) {
	if r.tried == 0 {
		return
	}
	failed := 0
	for i := range r.results {
		if r.results[i].Status == batch.ItemFailed {
			failed++
		}
	}
	each := r.took / time.Duration(r.tried)
	tell := func(as batch.ItemStatus, n int) {
		if n > 0 {
			e.o.Metrics.Items(processor, as, n, each)
		}
	}
	tell(batch.ItemSucceeded, len(r.results)-failed)
	tell(batch.ItemFailed, failed)
	tell(batch.ItemPending, r.tried-len(r.results))
}

// A Gauge is how full one lane is at a moment.
type Gauge struct {
	Processor string
	InFlight  int // slots in use
	Slots     int
	Blocks    int // held
	Bytes     int // of their items
}

// Gauges returns how full the lanes are, by the names of their processors.
func (e *Engine) Gauges() []Gauge {
	e.mu.Lock()
	defer e.mu.Unlock()
	gs := make([]Gauge, 0, len(e.order))
	for _, l := range e.order {
		gs = append(gs, Gauge{Processor: l.name, InFlight: l.slots, Slots: l.p.Concurrency, Blocks: l.held.blocks, Bytes: l.held.bytes})
	}
	return gs
}

// Sending returns how many messages are being sent.
func (e *Engine) Sending() int {
	e.courier.mu.Lock()
	defer e.courier.mu.Unlock()
	return e.courier.sending
}
