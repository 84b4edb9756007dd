package engine

import (
	"context"
	"slices"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// tickEvery is how often the store hears what is in flight and says what to
// stop: a cancel that was answered takes effect within it.
const tickEvery = 250 * time.Millisecond

// overdue is how long a run may take before what it has not begun is given
// to others.
const overdue = 10 * runTime

// renew keeps the leases of what is held until ctx ends, and looks after what
// only time brings about.
func (e *Engine) renew(ctx context.Context) {
	renewed, idle := time.Now(), false
	for sleep(ctx, tickEvery) {
		held := e.holdings()
		if len(held) == 0 && idle {
			select {
			case <-ctx.Done():
			case <-e.claimed:
			}
			renewed = time.Now()
			continue
		}
		start := time.Now()
		call, cancel := context.WithTimeout(ctx, batch.LeaseTime/6)
		answer, err := e.store.Renew(call, e.o.Owner, held)
		cancel()
		switch {
		case err == nil:
			renewed, idle = start, len(held) == 0
			e.heed(answer)
		case ctx.Err() == nil:
			e.log.Warn("renew leases", "held", len(held), "error", err)
		}
		e.tick(time.Since(renewed) > batch.LeaseTime/2, e.othersWait(ctx, e.crowded()))
	}
}

// othersWait reports whether there is work for processors due in the store
// that nobody holds.
func (e *Engine) othersWait(ctx context.Context, processors []string) bool {
	at, ok, err := e.store.NextDue(ctx, processors)
	return err == nil && ok && !at.After(time.Now())
}

// tick is what time brings about: nothing starts under leases that may have
// run out, no item waits behind a slow one of its run, and no block here keeps
// others from coming in.
func (e *Engine) tick(stale, exchange bool) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stale = stale; !stale {
		e.wakeLanes()
	}
	for _, j := range e.jobs {
		for _, b := range j.blocks {
			if slices.ContainsFunc(b.runs, func(r *run) bool { return now.Sub(r.started) > overdue }) {
				b.recall()
			}
		}
		j.lane.line(j)
	}
	if exchange {
		e.exchange(now)
	}
}

// holdings returns what is in hand, for the store to know.
func (e *Engine) holdings() []batch.Holding {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	held := make([]batch.Holding, 0, len(e.jobs))
	for _, j := range e.jobs {
		h := batch.Holding{
			Tenant: j.spec.Tenant, Batch: j.spec.ID,
			Leases: make([]batch.Lease, 0, len(j.blocks)), Edition: j.spec.Edition, InFlight: j.runs, WaitingOn: j.waitingOn(now),
		}
		for _, b := range j.blocks {
			if !b.closed {
				h.Leases = append(h.Leases, b.work.Lease)
			}
		}
		held = append(held, h)
	}
	return held
}

// waitingOn says why nothing of the batch is in flight, in a word of the
// contract; empty if something is, or all of it is done.
func (j *job) waitingOn(now time.Time) string {
	switch ok, _, _ := j.lane.gate.breaker.admit(now); {
	case j.runs > 0 || j.first(now) == nil:
		return ""
	case !ok:
		return batch.WaitingUpstream
	case j.lane.gate.held.After(now) || j.lane.limit != nil && j.lane.limit.TokensAt(now) < 1:
		return batch.WaitingRateLimit
	default:
		return batch.WaitingCapacity
	}
}

// heed does what the store answered to a Renew.
func (e *Engine) heed(answer batch.Renewed) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range answer.Lost {
		// A block whose last report is on its way is not lost: it was let go.
		if b := e.find(l); b != nil && !b.closed {
			e.log.Debug("lease lost", "batch_id", l.Block.Batch, "token", l.Token)
			e.lose(b)
		}
	}
	for _, a := range answer.Amended {
		if j := e.jobs[a.Spec.ID]; j != nil {
			j.spec, j.until = a.Spec, a.Expires
			j.lane.line(j)
			j.lane.wake.raise()
		}
	}
	for _, id := range answer.Stop {
		if j := e.jobs[id]; j != nil {
			e.letGo(j, now)
		}
	}
}
