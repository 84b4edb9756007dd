package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// A courier delivers messages. A message has its slot from before it is
// claimed until its attempt has ended. The outcome then waits to be recorded;
// if too many do, nothing more is claimed. Which hosts may be sent to the
// store knows: the courier tells it how each attempt did.
type courier struct {
	store  Store
	o      Options
	log    *slog.Logger
	keys   keyring
	bodies bodies
	sends  sync.WaitGroup

	freed    signal // slots are free again that a claim found none of
	outcomes signal // there is something to record

	mu      sync.Mutex // guards what follows
	budget  budget
	sending int
	ended   []batch.AttemptOutcome
	owed    int // outcomes not recorded: those ended and those being recorded
	tests   tests
	halted  bool
	alone   bool // what is still being sent is left to itself
}

// outcomesPerSlot is how many outcomes may wait to be recorded.
const outcomesPerSlot = 4

func newCourier(s Store, o Options) *courier {
	return &courier{
		store: s, o: o, log: o.Logger, keys: keyring{store: s, known: map[batch.TenantID]*keys{}},
		bodies: bodies{hosts: map[address]int{}}, tests: tests{of: map[batch.TenantID]int{}},
		freed: newSignal(), outcomes: newSignal(), budget: newBudget(o.InFlight),
	}
}

// room returns how many messages more may be taken on if there are slots.
func (c *courier) room() int {
	if c.halted || c.o.Sender == nil {
		return 0
	}
	return max(0, outcomesPerSlot*c.o.InFlight-c.owed-c.budget.used.all)
}

// offer reserves slots for at most n messages that a transaction is to make.
func (c *courier) offer(n int) batch.MessageClaim {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ask(c.budget.offer(min(n, c.room())))
}

// reserve reserves slots for messages that wait.
func (c *courier) reserve() batch.MessageClaim {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ask(c.budget.claim(c.room()))
}

func (c *courier) ask(s slots) batch.MessageClaim {
	return batch.MessageClaim{Owner: c.o.Owner, Max: s.all, Retries: s.retries, Trials: s.trials, PerHost: c.o.PerHost}
}

// accept sends what came of a reservation and frees the rest.
func (c *courier) accept(work context.Context, asked batch.MessageClaim, ds []batch.Delivery) {
	rest := slots{asked.Max, asked.Retries, asked.Trials}
	for i := range ds {
		rest = rest.minus(slotsOf(&ds[i]))
	}
	c.mu.Lock()
	c.sending += len(ds)
	c.free(rest)
	if c.halted { // the recorder may have waited for this to be the last
		c.outcomes.raise()
	}
	c.mu.Unlock()
	for i := range ds {
		c.sends.Go(func() { c.settle(c.deliver(work, &ds[i])) })
	}
}

// settle frees a slot and hands what came of it to the recorder.
func (c *courier) settle(o batch.AttemptOutcome) {
	c.mu.Lock()
	c.sending--
	c.ended = append(c.ended, o)
	c.owed++
	c.free(slotsOf(&o.Delivery))
	c.mu.Unlock()
	c.outcomes.raise()
}

// free gives slots back. Its caller holds the lock.
func (c *courier) free(s slots) {
	if c.budget.free(s) {
		c.freed.raise()
	}
}

// halt lets nothing more start.
func (c *courier) halt() {
	c.mu.Lock()
	c.halted = true
	c.mu.Unlock()
	c.outcomes.raise()
}

// abandon waits no longer for what is being sent. The store takes it for
// interrupted at its next start.
func (c *courier) abandon() {
	c.mu.Lock()
	c.alone = true
	c.mu.Unlock()
	c.outcomes.raise()
}

// claim takes messages that are due until ctx ends. A call that has begun is
// waited for: what it claimed is sent or given back.
func (c *courier) claim(ctx, keep, work context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		n, err := c.fetch(keep, work)
		if err != nil {
			c.log.Warn("claim messages", "error", err)
			sleep(ctx, pollEvery)
			continue
		}
		if n > 0 {
			continue
		}
		timer.Reset(until(c.store.NextMessage(keep)))
		select {
		case <-ctx.Done():
		case <-c.store.MessagesChanged():
		case <-c.freed:
		case <-timer.C:
		}
	}
}

// fetch claims once and returns how many messages came.
func (c *courier) fetch(keep, work context.Context) (int, error) {
	asked := c.reserve()
	if asked.Max == 0 {
		return 0, nil
	}
	ds, err := c.store.ClaimMessages(keep, asked)
	c.accept(work, asked, ds)
	return len(ds), err
}

// record keeps how attempts ended until the courier is halted and has none
// under way, and no test. While one transaction is made the next gathers.
func (c *courier) record(ctx context.Context) error {
	for {
		group, last := c.gather()
		switch {
		case len(group) > 0:
			if err := c.commit(ctx, group); err != nil {
				return err
			}
			continue
		case last:
			return nil
		}
		select {
		case <-c.outcomes:
		case <-ctx.Done():
			return fmt.Errorf("record attempts: %w", ctx.Err())
		}
	}
}

// gather takes what is to be recorded now, within the bounds of a transaction.
func (c *courier) gather() (group []batch.AttemptOutcome, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, bytes := 0, 0
	for ; n < min(len(c.ended), groupReports) && bytes < groupBytes; n++ {
		if r := c.ended[n].Attempt.Response; r != nil {
			bytes += len(r.Body)
		}
	}
	group, c.ended = c.ended[:n:n], c.ended[n:]
	return group, c.halted && c.owed == 0 && (c.alone || c.budget.used == slots{} && c.tests.all == 0)
}

// commit records a group, however often it takes.
func (c *courier) commit(ctx context.Context, group []batch.AttemptOutcome) error {
	for pause := shortestBackoff; ; pause = min(2*pause, longestBackoff) {
		err := c.store.Attempted(ctx, group)
		if err == nil {
			break
		}
		if !passing(batch.CodeOf(err)) {
			return fmt.Errorf("record attempts: %w", err)
		}
		c.log.Warn("attempts wait for the store", "attempts", len(group), "error", err)
		if !sleep(ctx, pause) {
			return fmt.Errorf("record attempts: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owed -= len(group)
	if c.budget.lacked.all > 0 { // for want of room, perhaps
		c.freed.raise()
	}
	return nil
}
