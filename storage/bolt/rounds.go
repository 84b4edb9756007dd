package bolt

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// Retry opens the next round of a batch that has ended.
func (s *Store) Retry(ctx context.Context, tenant batch.TenantID, id batch.ID, r batch.Retry, once batch.Once) (batch.Batch, error) {
	if err := s.ready(ctx); err != nil {
		return batch.Batch{}, err
	}
	c, err := s.choose(ctx, tenant, id, r)
	if err != nil {
		return batch.Batch{}, err
	}
	b := queued{tenant, id}
	if err := s.clearOpen(b); err != nil { // what the round that ended left would be claimed in the next
		return batch.Batch{}, err
	}
	err = s.do(s.small, 3*len(c.Items)+1<<10, func(t *txn) error {
		e, err := t.batch(tenant, id)
		if err != nil {
			return err
		}
		old, err := t.spec(s, e)
		if err != nil {
			return err
		}
		ended := endedKey(tenant, e.p.Finished, id)
		spec, was, err := e.p.Retry(*old, r, c, t.now.UTC())
		if err != nil {
			return err
		}
		t.change(e)
		if spec.Edition != old.Edition {
			if err := t.amend(s, e, old, &spec); err != nil {
				return err
			}
		}
		key := roundKey(id, was.Number)
		if err := bucketRounds.in(t.Tx).Put(key, record.EncodeRound(key, was)); err != nil {
			return errBroken{err}
		}
		if err := errors.Join(bucketEnded.in(t.Tx).Delete(ended), bucketActive.in(t.Tx).Put(e.key, []byte{1})); err != nil {
			return errBroken{err}
		}
		t.after(func() {
			s.adopt(e.spec, e.p)
			s.queueRound(b)
		})
		return t.bind(tenant, once, id, 0)
	})
	if err != nil {
		return batch.Batch{}, err
	}
	hint(s.changed)
	return s.Batch(ctx, tenant, id)
}

// choose finds the items that a retry names. It reads before the step that
// opens the round: what a round that has ended says of an item never changes.
func (s *Store) choose(ctx context.Context, tenant batch.TenantID, id batch.ID, r batch.Retry) (c batch.Choice, err error) {
	var b batch.Batch
	var rounds batch.Rounds
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		if b, err = readBatch(tx, tenant, id); err != nil {
			return err
		}
		if err := b.Retriable(r.From); err != nil {
			return err
		}
		rounds, err = readRounds(tx, b)
		return err
	})
	if err != nil || !r.Named() {
		return c, err
	}
	found, unknown, err := s.findItems(ctx, b, r)
	if err != nil {
		return c, err
	}
	slices.Sort(found)
	found = slices.Compact(found)
	var succeeded []int
	for rest := found; len(rest) > 0; {
		err = s.view(ctx, func(tx *bbolt.Tx) error {
			if _, err := readProgress(tx, tenantKey(tenant, id)); err != nil { // it may be deleted meanwhile
				return err
			}
			for until := time.Now().Add(readTime); len(rest) > 0 && time.Now().Before(until); rest = rest[1:] {
				res, err := readOutcome(tx, b, rounds, rest[0])
				if err != nil {
					return err
				}
				if c.Were.Add(res.Status, 1); res.Status == batch.ItemSucceeded {
					succeeded = append(succeeded, res.Index)
				}
			}
			return nil
		})
		if err != nil {
			return c, err
		}
	}
	c.Items = found
	return c, batch.CheckNamed(unknown, succeeded)
}

// findItems returns the indexes of the items that a retry names, and the names
// of those that are not there.
func (s *Store) findItems(ctx context.Context, b batch.Batch, r batch.Retry) (found []int, unknown []string, err error) {
	for _, index := range r.Indexes {
		if index < 0 || index >= b.Items {
			unknown = append(unknown, strconv.Itoa(index))
			continue
		}
		found = append(found, index)
	}
	for _, id := range r.IDs {
		switch it, err := s.FindItem(ctx, b.Tenant, b.ID, id); {
		case err == nil:
			found = append(found, it.Index)
		case batch.CodeOf(err) == batch.NotFound:
			unknown = append(unknown, id)
		default:
			return nil, nil, err
		}
	}
	return found, unknown, nil
}

// readOutcome returns the result of one item of a batch that has ended.
func readOutcome(tx *bbolt.Tx, b batch.Batch, rounds batch.Rounds, index int) (r batch.Result, err error) {
	n, err := findBlock(tx, b, index)
	if err != nil {
		return r, err
	}
	k := b.BlockAt(n)
	first, _, err := readSpan(tx, &b.Spec, k)
	if err != nil {
		return r, err
	}
	rs, err := collect(tx, blockKey(k), first, stretch{index, index + 1})
	if err != nil {
		return r, err
	}
	r, _ = rounds.Outcome(index, "", rs)
	return r, nil
}

// readRounds returns the rounds of a batch.
func readRounds(tx *bbolt.Tx, b batch.Batch) (batch.Rounds, error) {
	rs := batch.Rounds{Now: b.Progress}
	for n := 1; n < b.Round; n++ {
		key := roundKey(b.ID, n)
		p, err := record.Open(record.KindRound, key, bucketRounds.in(tx).Get(key))
		if err != nil {
			return rs, err
		}
		was, err := record.DecodeRound(p)
		if err != nil {
			return rs, err
		}
		rs.Past = append(rs.Past, was)
	}
	return rs, nil
}

// queueRound has a new round laid out. The store is locked.
func (s *Store) queueRound(b queued) {
	s.rounds = append(s.rounds, b)
	hint(s.roundsReady)
}

// roundLoop lays out rounds, a step of each in turn, until the store closes.
// What is left then goes on at the next start.
func (s *Store) roundLoop() {
	for {
		s.mu.Lock()
		var turn *queued
		if len(s.rounds) > 0 {
			turn = &queued{s.rounds[0].tenant, s.rounds[0].id}
			s.rounds = s.rounds[1:]
		}
		s.mu.Unlock()
		var wait <-chan time.Time
		if turn != nil {
			more, err := s.layOut(*turn)
			switch code := batch.CodeOf(err); {
			case s.Err() != nil, errors.Is(err, errClosed):
				return
			case code == batch.Full:
				more, wait = true, time.After(tryAgain)
			case err != nil && code != batch.Gone:
				s.log.Error("a round is not laid out: cancel the batch", "batch_id", turn.id, "error", err)
			}
			if more {
				s.mu.Lock()
				s.rounds = append(s.rounds, *turn)
				s.mu.Unlock()
			}
			if wait == nil {
				continue
			}
		}
		select {
		case <-s.stop:
			return
		case <-s.roundsReady:
		case <-wait:
		}
	}
}

// layChunk is how many blocks of a round one step lays out at most.
const layChunk = 256

// A layout is what a round has to do in some consecutive blocks of a batch.
type layout struct {
	round, from, to int
	states          []laid // of the blocks where it is anything
}

type laid struct {
	key   batch.BlockKey
	state batch.BlockState
}

// layOut does the next step of a round: it reads first, without keeping the
// committer, what cannot change before the step that keeps what it found.
func (s *Store) layOut(b queued) (more bool, err error) {
	var l layout
	err = s.view(context.Background(), func(tx *bbolt.Tx) error {
		l, err = readLayout(tx, b)
		return err
	})
	if err != nil || l.from == l.to {
		return false, err
	}
	err = s.do(s.bulk, len(l.states)<<10, func(t *txn) error {
		more, err = t.layOut(s, b, l)
		return err
	})
	return more, err
}

func readLayout(tx *bbolt.Tx, b queued) (l layout, err error) {
	whole, err := readBatch(tx, b.tenant, b.id)
	if err != nil || whole.ToLayOut() == 0 {
		return l, err
	}
	rounds, err := readRounds(tx, whole)
	if err != nil {
		return l, err
	}
	l = layout{round: whole.Round, from: whole.LaidOut, to: whole.LaidOut}
	for until := time.Now().Add(readTime); l.to < whole.Blocks && l.to-l.from < layChunk && time.Now().Before(until); l.to++ {
		k := whole.BlockAt(l.to)
		state, left, err := readBeginning(tx, &whole.Spec, k, rounds)
		if err != nil {
			return l, err
		}
		if left > 0 {
			l.states = append(l.states, laid{k, state})
		}
	}
	return l, nil
}

// readBeginning returns the state in which a block enters a round, and how
// many items of it are to be worked on. Where that is none it reads as little
// as it can.
func readBeginning(tx *bbolt.Tx, spec *batch.Spec, k batch.BlockKey, rounds batch.Rounds) (st batch.BlockState, left int, err error) {
	first, count, err := readSpan(tx, spec, k)
	if err != nil || rounds.Idle(first, count) {
		return st, 0, err
	}
	done, err := readTally(tx, k)
	if err != nil || done.Succeeded == count {
		return st, 0, err
	}
	rs, err := collect(tx, blockKey(k), first, whole)
	if err != nil {
		return st, 0, err
	}
	st, left = rounds.Begin(first, count, rs)
	return st, left, nil
}

// layOut puts the blocks of a layout among the open ones, each with its state.
func (t *txn) layOut(s *Store, b queued, l layout) (more bool, err error) {
	e, err := t.batch(b.tenant, b.id)
	if err != nil {
		return false, err
	}
	if e.p.Round != l.round || e.p.LaidOut != l.from || e.p.Status.Terminal() || e.p.Gate(batch.Options{}).Ending() {
		return false, nil
	}
	spec, err := t.spec(s, e)
	if err != nil {
		return false, errBroken{err}
	}
	states, open := bucketStates.in(t.Tx), bucketOpen.in(t.Tx)
	for _, o := range l.states {
		key := blockKey(o.key)
		if err := states.Put(key, record.EncodeState(key, o.state)); err != nil {
			return false, errBroken{err}
		}
		if err := open.Put(openKey(o.key, time.Time{}), []byte{0}); err != nil {
			return false, errBroken{err}
		}
	}
	e.p.LayOut(l.to-l.from, l.to-l.from-len(l.states))
	t.change(e)
	t.after(func() {
		if lv := s.live[b.id]; lv != nil {
			s.rota(lv.processor).wakeUp(b.tenant, b.id)
			hint(s.changed)
		}
	})
	as, over := e.p.Over(1)
	if !over {
		return e.p.LaidOut < spec.Blocks, nil
	}
	if err := t.end(s, e, spec, as, nil, &batch.MessageClaim{}, &batch.Recorded{}); err != nil {
		return false, errBroken{err}
	}
	return false, nil
}
