package engine

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback"
)

// A courier delivers messages. A message has its slot from before it is
// claimed until its attempt has ended. The outcome then waits to be recorded;
// if too many do, nothing more is claimed.
type courier struct {
	store Store
	o     Options
	log   *slog.Logger
	keys  keyring
	sends sync.WaitGroup

	freed    signal // slots are free again
	outcomes signal // there is something to record

	mu     sync.Mutex // guards what follows
	used   [2]int     // slots, by class
	ended  []batch.AttemptOutcome
	owed   int // outcomes not recorded: those ended and those being recorded
	hosts  hosts
	halted bool
	alone  bool // what is still being sent is left to itself
}

// A class of messages has at most seven eighths of the slots, so that neither
// can take the last from the other: messages that were just made, and those
// that the store was asked for, which are mostly retries.
type class int

const (
	fresh class = iota
	asked
)

// outcomesPerSlot is how many outcomes may wait to be recorded.
const outcomesPerSlot = 4

func newCourier(s Store, o Options) *courier {
	return &courier{store: s, o: o, log: o.Logger, keys: keyring{store: s}, freed: newSignal(), outcomes: newSignal(), hosts: hosts{}}
}

// reserve takes up to n free slots of a class and returns how many.
func (c *courier) reserve(of class, n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.halted || c.o.Sender == nil {
		return 0
	}
	most := c.o.InFlight - c.o.InFlight/8
	n = max(0, min(n, c.o.InFlight-c.used[fresh]-c.used[asked], most-c.used[of], outcomesPerSlot*c.o.InFlight-c.owed))
	c.used[of] += n
	return n
}

// accept sends what came of a reservation of n slots and frees the rest.
func (c *courier) accept(work context.Context, of class, n int, ds []batch.Delivery) {
	for _, d := range ds {
		c.sends.Go(func() {
			c.settle(of, c.deliver(work, d))
		})
	}
	if len(ds) == n {
		return
	}
	c.mu.Lock()
	c.used[of] -= n - len(ds)
	c.mu.Unlock()
	c.outcomes.raise() // the recorder may have waited for this to be the last
	if of != asked {   // who asks knows what came of it
		c.freed.raise()
	}
}

// settle frees a slot and hands what came of it to the recorder.
func (c *courier) settle(of class, o batch.AttemptOutcome) {
	c.mu.Lock()
	c.used[of]--
	c.ended = append(c.ended, o)
	c.owed++
	c.mu.Unlock()
	c.outcomes.raise()
	c.freed.raise()
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
		if n := c.reserve(asked, c.o.InFlight); n > 0 {
			ds, err := c.store.ClaimMessages(keep, batch.MessageClaim{Owner: c.o.Owner, Max: n, PerHost: c.o.PerHost})
			c.accept(work, asked, n, ds)
			if err != nil {
				c.log.Warn("claim messages", "error", err)
				sleep(ctx, pollEvery)
				continue
			}
			if len(ds) > 0 {
				continue
			}
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

// record keeps how attempts ended until the courier is halted and has none
// under way. While one transaction is made the next gathers.
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
	return group, c.halted && c.owed == 0 && (c.alone || c.used == [2]int{})
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
	full := c.owed >= outcomesPerSlot*c.o.InFlight
	c.owed -= len(group)
	c.mu.Unlock()
	if full {
		c.freed.raise()
	}
	return nil
}

// deliver makes the attempt a message was claimed for.
func (c *courier) deliver(work context.Context, d batch.Delivery) batch.AttemptOutcome {
	if d.URL == "" {
		return batch.AttemptOutcome{Delivery: d, State: batch.MessageCanceled, Reason: "the batch has no callback_url any more"}
	}
	ok, probe, wait := c.admit(d)
	if !ok {
		return refund(d, min(wait, longestHeld))
	}
	m, err := c.message(work, d)
	if err != nil {
		c.answered(d, probe, callback.Result{Verdict: callback.Interrupted})
		return c.unreadable(d, err)
	}
	r := c.o.Sender.Send(work, m)
	c.answered(d, probe, r)
	o := c.judge(d, r)
	c.tell(o, r)
	return o
}

// message is what is sent for d.
func (c *courier) message(ctx context.Context, d batch.Delivery) (callback.Message, error) {
	body, err := c.store.Body(ctx, d.Message)
	if err != nil {
		return callback.Message{}, fmt.Errorf("body: %w", err)
	}
	secrets, err := c.keys.of(ctx, d.Tenant)
	if err != nil {
		return callback.Message{}, fmt.Errorf("secrets: %w", err)
	}
	return callback.Message{ID: d.ID.String(), Attempt: d.Made, URL: d.URL, Body: body, Secrets: secrets}, nil
}

// unreadable says what becomes of a message that could not be put together.
func (c *courier) unreadable(d batch.Delivery, err error) batch.AttemptOutcome {
	c.log.Error("message cannot be sent", "message_id", d.ID, "batch_id", d.Batch, "error", err)
	switch batch.CodeOf(err) {
	case batch.Damaged:
		return batch.AttemptOutcome{Delivery: d, State: batch.MessageExhausted, Reason: "what it would carry is damaged in the store"}
	case batch.NotFound, batch.Gone:
		return batch.AttemptOutcome{Delivery: d, State: batch.MessageCanceled, Reason: "what it would carry is gone"}
	default:
		return refund(d, longestBackoff)
	}
}

// longestHeld is how long a message is put off whose host is down, however
// long its breaker stays open: once the host is up again, what waited for it
// must not be passed by everything newer.
const longestHeld = 30 * time.Second

// refund puts a message off by about wait, as if its attempt had not been.
func refund(d batch.Delivery, wait time.Duration) batch.AttemptOutcome {
	return batch.AttemptOutcome{
		Delivery: d, State: batch.MessageWaiting, Refund: true,
		Due: time.Now().Add(wait + time.Duration(rand.Float64()*float64(wait)/4)),
	}
}
