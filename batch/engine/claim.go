package engine

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/callbatch/callbatch/batch"
)

const (
	pollEvery  = time.Second // however silent the hints are
	claimMost  = 64          // blocks of one call, which the store reads in one transaction
	claimAhead = 20 * time.Millisecond
	mostAhead  = 64 // blocks of one batch
)

// claim keeps the lanes supplied until ctx ends. A call that has begun is
// waited for: what it leased is held from then on.
func (e *Engine) claim(ctx, keep context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		c := e.want()
		if c.Blocks > 0 {
			works, err := e.store.Claim(keep, c)
			e.keep(works)
			if err != nil {
				e.log.Warn("claim blocks", "error", err)
				sleep(ctx, pollEvery)
				continue
			}
			if len(works) > 0 {
				continue
			}
		}
		timer.Reset(until(e.store.NextDue(keep, c.Processors)))
		select {
		case <-ctx.Done():
		case <-e.store.Changed():
		case <-e.room:
		case <-timer.C:
		}
	}
}

// until returns how long to wait for what is next due if no hint comes. What
// is due by now and was not given is kept from us by a bound, and comes with
// a hint.
func until(at time.Time, ok bool, err error) time.Duration {
	if wait := time.Until(at); err == nil && ok && wait > 0 {
		return min(wait, pollEvery)
	}
	return pollEvery
}

// want returns what to ask for now: blocks for the lanes that have room. If
// that is any, keep has to be told what came of it.
func (e *Engine) want() batch.Claim {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := batch.Claim{Owner: e.o.Owner, PerBatch: e.o.PerBatch}
	if e.halted {
		return c
	}
	for _, l := range e.order {
		if room := l.room(); room > 0 {
			c.Processors = append(c.Processors, l.name)
			c.Blocks = max(c.Blocks, room)
			c.PerBatch = max(c.PerBatch, l.ahead())
		}
	}
	c.Blocks = min(c.Blocks, claimMost)
	e.asking = c.Blocks > 0
	return c
}

// room returns how many blocks the lane may claim. A lane may hold as much as
// it leaves free: one alone has half of all there is, two have a third each,
// and there is always something left for the next.
func (l *lane) room() int {
	blocks := (l.e.o.Blocks - l.e.held.blocks - l.held.blocks + 1) / 2
	bytes := (l.e.o.Bytes - l.e.held.bytes - l.held.bytes + 1) / 2
	if bytes <= 0 {
		return 0
	}
	return min(blocks, 1+bytes/batch.BlockBytes)
}

// ahead returns how many blocks of one batch keep the lane busy while others
// of it are recorded.
func (l *lane) ahead() int {
	if l.pace == 0 {
		return 0
	}
	block := l.pace * batch.BlockItems / time.Duration(min(l.p.Concurrency, runtime.GOMAXPROCS(0)))
	return int(min(claimAhead/max(1, block), mostAhead))
}

// crowded returns the names of the lanes that have no room.
func (e *Engine) crowded() (names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.order {
		if l.room() <= 0 {
			names = append(names, l.name)
		}
	}
	return names
}

// exchange gives some of what a full lane holds back to the store, so that
// others who wait there have their turn too. It is for lanes where that does
// not happen by itself, because blocks take long. Blocks with an item in
// flight stay, and those go first whose tenant holds most.
func (e *Engine) exchange(now time.Time) {
	for _, l := range e.order {
		n := (l.held.blocks+7)/8 - l.turnover
		l.turnover = 0
		if open, _, _ := l.gate.admit(now); n <= 0 || !open || l.room() > 0 {
			continue
		}
		idle := l.idle()
		for _, b := range idle[:min(n, len(idle))] {
			b.stop()
			e.note(b, now)
		}
	}
}

// idle returns the lane's blocks without an item in flight, those first that
// can be done without best: of the tenant who holds most, held longest.
func (l *lane) idle() []*block {
	held := map[*tenant]int{}
	var idle []*block
	for _, j := range l.e.jobs {
		if j.lane != l {
			continue
		}
		held[j.tenant] += len(j.blocks)
		for _, b := range j.blocks {
			if len(b.todo) > 0 && len(b.runs) == 0 {
				idle = append(idle, b)
			}
		}
	}
	slices.SortFunc(idle, func(a, b *block) int {
		return cmp.Or(cmp.Compare(held[b.job.tenant], held[a.job.tenant]), a.claimed.Compare(b.claimed))
	})
	return idle
}
