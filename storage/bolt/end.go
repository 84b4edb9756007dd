package bolt

import (
	"bytes"
	"errors"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// A queued is a batch in a queue.
type queued struct {
	tenant batch.TenantID
	id     batch.ID
}

// queueEnd has the end of a batch seen to. The store is locked.
func (s *Store) queueEnd(tenant batch.TenantID, id batch.ID) {
	s.ends = append(s.ends, queued{tenant, id})
	hint(s.endsReady)
}

// dueEnds takes the batches whose end is to be seen to, and keeps new claims
// off those whose deadline has come. next is when another's does.
func (s *Store) dueEnds(now time.Time) (due []queued, next time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due, s.ends = s.ends, nil
	s.deadlines.rouse(now)
	for id, some := s.deadlines.take(); some; id, some = s.deadlines.take() {
		if lv := s.live[id]; lv != nil {
			lv.gate.Lapsed = true
			due = append(due, queued{lv.tenant, id})
		}
	}
	next, ok = s.deadlines.next()
	return due, next, ok
}

// tryAgain is how soon a loop tries again what failed, above all for want of
// room on the disk.
const tryAgain = time.Second

// endLoop ends what was stopped, by its owner, its deadline or its failures,
// once nobody holds blocks of it any more.
func (s *Store) endLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, next, timed := s.dueEnds(time.Now())
		var refused []queued
		for _, b := range due {
			switch err := s.endStopped(b); {
			case batch.CodeOf(err) == batch.Full:
				refused = append(refused, b)
			case err != nil && !errors.Is(err, errClosed) && batch.CodeOf(err) != batch.Gone: // it was deleted as soon as it had ended
				s.log.Error("a batch could not be ended", "batch_id", b.id, "error", err)
			}
		}
		s.mu.Lock()
		s.ends = append(s.ends, refused...)
		s.mu.Unlock()
		if len(due) > len(refused) {
			continue
		}
		if again := time.Now().Add(tryAgain); len(refused) > 0 && (!timed || again.Before(next)) {
			next, timed = again, true
		}
		var wait <-chan time.Time
		if timed {
			timer.Reset(time.Until(next))
			wait = timer.C
		}
		select {
		case <-s.endsReady:
		case <-wait:
		case <-s.stop:
			return
		}
	}
}

// closeChunk is how many partly done blocks one step of an end closes at most,
// and fewer once their results are maxBytes.
const closeChunk = 100

// endStopped closes the partly done blocks of a batch, some a step, so that
// what ran in them is told, ends the batch by arithmetic, and tidies up.
func (s *Store) endStopped(b queued) error {
	for {
		done := false
		err := s.do(s.small, stageBytes, func(t *txn) (err error) {
			done, err = t.closeSome(s, b)
			return err
		})
		if err != nil {
			return err
		}
		if done {
			break
		}
	}
	if s.known(b.id) {
		return nil
	}
	return s.clearOpen(b)
}

// known reports whether a batch has not ended.
func (s *Store) known(id batch.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[id] != nil
}

// clearChunk is how many places of blocks one step removes.
const clearChunk = 500

// clearOpen removes, in steps, what an ended batch leaves among the open
// blocks. What it does not get to is in nobody's way: before another round
// begins it is done once more.
func (s *Store) clearOpen(b queued) error {
	for more := true; more; {
		err := s.do(s.bulk, 0, func(t *txn) error {
			e, err := t.batch(b.tenant, b.id)
			if err != nil {
				return err
			}
			if more = e.p.Status.Terminal(); !more {
				return nil // another round began
			}
			n, err := bucketOpen.in(t.Tx).deletePrefix(b.id[:], clearChunk)
			more = n == clearChunk
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) closeSome(s *Store, b queued) (done bool, err error) {
	e, err := t.batch(b.tenant, b.id)
	if err != nil {
		return false, err
	}
	if e.p.Lapse(t.now) {
		t.change(e)
	}
	as, over := e.p.Over(s.leased(b.id))
	if !over {
		if !e.p.Status.Terminal() {
			t.follow(s, e) // its deadline may be another by now
		}
		return true, nil
	}
	spec, err := t.spec(s, e)
	if err != nil {
		return false, errBroken{err}
	}
	e.p.Begin(s.startOf(b.id)) // as it was shown
	if more, err := t.closePartly(s, e, spec, b); err != nil || more {
		return false, err
	}
	only, err := t.onlyRange(s, e, spec)
	if err == nil {
		err = t.end(s, e, spec, as, only, &batch.MessageClaim{}, &batch.Recorded{})
	}
	return true, broken(err)
}

// closePartly closes partly done blocks of a batch that is about to end, and
// tells what ran in them. It reports whether there are more.
func (t *txn) closePartly(s *Store, e *entry, spec *batch.Spec, b queued) (more bool, err error) {
	partial, more := partlyDone(bucketOpen.in(t.Tx).Cursor(), b, closeChunk)
	size := 0
	for _, p := range partial {
		if size > maxBytes {
			return true, nil
		}
		rng, err := t.closeBlock(e, spec, p)
		if s.damaged(err, "block of batch", b.id) { // what ran in it cannot be told
			err = t.dropOpen(e, p)
		}
		if err == nil && spec.Blocks > 1 { // else its results go with the terminal message
			err = t.post(s, e, batch.RangeMessages(*spec, e.p, rng, s.terms, t.now), &batch.MessageClaim{}, &batch.Recorded{})
		}
		if err != nil {
			return false, errBroken{err}
		}
		for _, r := range rng.Results {
			size += len(r.Payload)
		}
	}
	return more, nil
}

// onlyRange returns the range of a batch that has just one, with its results;
// else nil.
func (t *txn) onlyRange(s *Store, e *entry, spec *batch.Spec) (*batch.Range, error) {
	if spec.Blocks > 1 {
		return nil, nil
	}
	only := batch.Range{Key: spec.BlockAt(0)}
	var err error
	if only.Results, err = readSegments(t.Tx, only.Key, 0, e.p.Round, whole); s.damaged(err, "block of batch", spec.ID) {
		err = nil
	}
	return &only, err
}

// leased returns how many blocks of a batch are in somebody's hands.
func (s *Store) leased(id batch.ID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lv := s.live[id]; lv != nil {
		return len(lv.leases)
	}
	return 0
}

// startOf returns when a batch that has not ended was first claimed by this
// process.
func (s *Store) startOf(id batch.ID) (at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lv := s.live[id]; lv != nil {
		at = lv.started
	}
	return at
}

// partlyDone finds open blocks that have results or attempts.
func partlyDone(c *cursor, b queued, most int) (found [][]byte, more bool) {
	for k, v := c.Seek(b.id[:]); bytes.HasPrefix(k, b.id[:]); k, v = c.Next() {
		if len(v) == 0 || v[0] != 1 {
			continue
		}
		if len(found) == most {
			return found, true
		}
		found = append(found, bytes.Clone(k))
	}
	return found, false
}

// dropOpen takes a block out of the open ones, if it is among them still.
func (t *txn) dropOpen(e *entry, open []byte) error {
	b := bucketOpen.in(t.Tx)
	if b.Get(open) == nil {
		return nil
	}
	e.p.Absorb(batch.Tally{}, 0, 1)
	t.change(e)
	return b.Delete(open)
}

// closeBlock takes a partly done block out of the open ones for good and
// returns what ran in it.
func (t *txn) closeBlock(e *entry, spec *batch.Spec, open []byte) (batch.Range, error) {
	tenant, _ := splitTenantKey(e.key)
	k, _ := splitOpenKey(tenant, open)
	key := blockKey(k)
	rng := batch.Range{Key: k, Ordinal: spec.Ordinal(k)}
	b, err := peekBlock(t.Tx, spec, k)
	if err != nil {
		return rng, err
	}
	state, err := readState(t.Tx, key, e.p.Round, len(b.Items))
	if err != nil {
		return rng, err
	}
	stopped := state.Close(b.First, e.p, t.now.UTC())
	if len(stopped) > 0 { // they ran, so they have a result to be told
		for i := range stopped {
			stopped[i].ID = b.Items[stopped[i].Index-b.First].ID
		}
		seg := record.NewSegment(stopped)
		if err := putSegment(t, k, b.First, e.p.Round, seg, true); err != nil {
			return rng, err
		}
		e.p.Absorb(seg.Tally, seg.Digest, 0)
	}
	if err := bucketStates.in(t.Tx).Put(key, record.EncodeState(key, state)); err != nil {
		return rng, err
	}
	if err := t.dropOpen(e, open); err != nil {
		return rng, err
	}
	rng.Results, err = readSegments(t.Tx, k, b.First, e.p.Round, whole)
	return rng, err
}
