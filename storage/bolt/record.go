package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// Record keeps what became of claimed items.
func (s *Store) Record(ctx context.Context, reports []batch.Report, offer batch.MessageClaim) (batch.Recorded, error) {
	if err := s.ready(ctx); err != nil {
		return batch.Recorded{}, err
	}
	prepared, size := s.prepare(reports)
	var out batch.Recorded
	err := s.do(s.small, size, func(t *txn) error {
		r := recording{s: s, t: t, offer: offer}
		for i, p := range prepared {
			switch err := r.report(p); {
			case batch.CodeOf(err) == batch.Lost:
				r.out.Lost = append(r.out.Lost, i)
			case err != nil:
				return errBroken{fmt.Errorf("record: %w", err)}
			}
		}
		out = r.out
		return nil
	})
	if err != nil {
		return batch.Recorded{}, err
	}
	s.hintDue()
	return out, nil
}

// hintDue hints at work if a batch has some, now or later.
func (s *Store) hintDue() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.batches {
		if _, ok := r.next(); ok {
			hint(s.changed)
			return
		}
	}
}

// A prepared report has what can be done outside the transaction done.
type prepared struct {
	batch.Report
	held    *lease // nil if the lease is another's
	segment record.Segment
}

func (s *Store) prepare(reports []batch.Report) ([]prepared, int) {
	ps := make([]prepared, len(reports))
	size := 0
	s.mu.Lock()
	for i, r := range reports {
		ps[i].Report = r
		_, ps[i].held = s.holder(r.Lease)
	}
	s.mu.Unlock()
	for i := range ps {
		p := &ps[i]
		if p.held == nil {
			continue
		}
		for j := range p.Results {
			p.Results[j].Round = p.held.round
			size += len(p.Results[j].Payload)
		}
		p.segment = record.NewSegment(p.Results)
	}
	return ps, size
}

// recording is one Record within its transaction.
type recording struct {
	s     *Store
	t     *txn
	offer batch.MessageClaim
	out   batch.Recorded
}

var errLost = batch.Errorf(batch.Lost, "the block is in other hands")

// report keeps one report. It refuses with Lost before it writes anything.
func (r *recording) report(p prepared) error {
	k := p.Lease.Block
	if p.held == nil || !r.holds(p) {
		return errLost
	}
	e, err := r.t.batch(k.Tenant, k.Batch)
	if err != nil {
		return r.aside(p, err)
	}
	if e.p.Status.Terminal() {
		return errLost
	}
	key := blockKey(k)
	state, err := readState(r.t.Tx, key, p.held.round, p.held.count)
	if err != nil {
		return r.aside(p, err)
	}
	tally, err := state.Apply(p.held.first, p.Report)
	if err != nil {
		return err
	}
	hadState := r.t.Bucket(bucketStates).Get(key) != nil
	if len(p.Results) > 0 {
		if err := putSegment(r.t, k, p.held.first, p.held.round, p.segment, hadState || p.held.round > 1); err != nil {
			return err
		}
	}
	r.t.change(e)
	e.p.Begin(p.Started)
	e.p.Absorb(tally, p.segment.Digest, 0)
	if state.Finished() {
		return r.finishBlock(e, p, hadState)
	}
	return r.leaveBlock(p, state, hadState)
}

// aside gives up a block that cannot be read; nothing of it was written.
func (r *recording) aside(p prepared, err error) error {
	if batch.CodeOf(err) != batch.Damaged {
		return err
	}
	r.t.after(func() { r.s.setAside(p.Lease.Block, err) })
	return errLost
}

// holds reports whether the lease stands within this transaction too.
func (r *recording) holds(p prepared) bool {
	if _, gone := r.t.released[p.Lease.Block]; gone {
		return false
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	_, l := r.s.holder(p.Lease)
	return l == p.held
}

// finishBlock takes a finished block out of the open ones, makes its messages
// and, if it was the last, ends the batch.
func (r *recording) finishBlock(e *entry, p prepared, hadState bool) error {
	k := p.Lease.Block
	if hadState {
		if err := r.t.Bucket(bucketStates).Delete(blockKey(k)); err != nil {
			return err
		}
	}
	if err := r.t.Bucket(bucketOpen).Delete(openKey(k, r.due(p))); err != nil {
		return err
	}
	r.letGo(p)
	e.p.Absorb(batch.Tally{}, 0, 1)
	spec, err := r.t.spec(r.s, e)
	if err != nil {
		return err
	}
	rng := batch.Range{Key: k, Ordinal: int(k.Number), Results: p.Results}
	if len(p.Results) < p.held.count {
		if rng.Results, err = readSegments(r.t.Tx, k, p.held.first, p.held.round, whole); err != nil {
			return err
		}
	}
	if spec.Blocks > 1 {
		if err := r.t.post(r.s, e, batch.RangeMessages(*spec, e.p, rng, r.t.now), &r.offer, &r.out); err != nil {
			return err
		}
	}
	// A batch that is being canceled ends in a step of its own.
	as, over := e.p.Over(1)
	if !over {
		return nil
	}
	only := &rng
	if spec.Blocks > 1 {
		only = nil
	}
	return r.t.end(r.s, e, spec, as, only, &r.offer, &r.out)
}

// leaveBlock writes down a block that is not finished: still held, or back
// among the open ones, due when the first of its items is.
func (r *recording) leaveBlock(p prepared, state batch.BlockState, hadState bool) error {
	k := p.Lease.Block
	touched := len(p.Results)+len(p.Again) > 0
	if touched {
		key := blockKey(k)
		if err := r.t.Bucket(bucketStates).Put(key, record.EncodeState(key, state)); err != nil {
			return err
		}
	}
	if p.Release {
		r.letGo(p)
	}
	partial := touched || hadState
	was, due := r.due(p), r.due(p)
	if partial {
		due = state.Due()
	}
	open := bucket(r.t.Tx, bucketOpen)
	if !was.Equal(due) {
		if err := open.Delete(openKey(k, was)); err != nil {
			return err
		}
	} else if !touched || p.held.partial {
		return nil
	}
	held := p.held
	r.t.dues[k] = due
	r.t.after(func() { held.partial, held.Due = partial, due })
	return open.Put(openKey(k, due), []byte{boolByte(partial)})
}

// due returns under which due time the block stands among the open ones
// within this transaction.
func (r *recording) due(p prepared) time.Time {
	if due, moved := r.t.dues[p.Lease.Block]; moved {
		return due
	}
	return p.held.Due
}

// letGo ends the lease with the transaction.
func (r *recording) letGo(p prepared) {
	k := p.Lease.Block
	r.t.released[k] = struct{}{}
	r.t.after(func() { r.s.release(k) })
}

// end closes the round of a batch with its terminal message: one commit.
func (t *txn) end(s *Store, e *entry, spec *batch.Spec, as batch.Status, only *batch.Range, offer *batch.MessageClaim, out *batch.Recorded) error {
	e.p.End(as, spec.Items, t.now.UTC())
	t.change(e)
	if err := t.Bucket(bucketActive).Delete(e.key); err != nil {
		return err
	}
	t.after(func() { s.retire(spec.ID) })
	if err := t.post(s, e, batch.EndMessages(*spec, e.p, only, s.hold, t.now), offer, out); err != nil {
		return err
	}
	out.Ended = append(out.Ended, batch.Batch{Spec: *spec, Progress: e.p})
	return nil
}

// Cancel begins the end of a batch.
func (s *Store) Cancel(ctx context.Context, tenant batch.TenantID, id batch.ID) (batch.Batch, error) {
	if err := s.ready(ctx); err != nil {
		return batch.Batch{}, err
	}
	s.stopping(tenant, id)
	err := s.do(s.small, 0, func(t *txn) error {
		e, err := t.batch(tenant, id)
		if err != nil {
			return err
		}
		changed, err := e.p.Cancel()
		if changed {
			t.change(e)
		}
		return err
	})
	s.mu.Lock()
	lv := s.live[id]
	if err == nil && lv != nil && len(lv.leases) == 0 {
		s.queueEnd(tenant, id)
	}
	s.mu.Unlock()
	if err != nil {
		return batch.Batch{}, err
	}
	hint(s.changed)
	return s.Batch(ctx, tenant, id)
}

// stopping keeps new claims off a batch from before its cancel is durable:
// a claim that sneaked in would run items of a batch that has ended.
func (s *Store) stopping(tenant batch.TenantID, id batch.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lv := s.live[id]; lv != nil && lv.tenant == tenant {
		lv.status = batch.Canceling
	}
}

// A queued is a batch in a queue.
type queued struct {
	tenant batch.TenantID
	id     batch.ID
}

// queueEnd has the end of a canceled batch seen to. The store is locked.
func (s *Store) queueEnd(tenant batch.TenantID, id batch.ID) {
	s.ends = append(s.ends, queued{tenant, id})
	hint(s.endsReady)
}

// endLoop ends canceled batches that nobody holds blocks of any more.
func (s *Store) endLoop() {
	defer close(s.ended)
	for {
		s.mu.Lock()
		var next []queued
		next, s.ends = s.ends, nil
		s.mu.Unlock()
		for _, b := range next {
			err := s.endCanceled(b)
			if err != nil && !errors.Is(err, errClosed) {
				s.log.Error("a canceled batch could not be ended", "batch_id", b.id, "error", err)
			}
		}
		if len(next) > 0 {
			continue
		}
		select {
		case <-s.endsReady:
		case <-s.stop:
			return
		}
	}
}

// closeChunk is how many partly done blocks one step of an end closes.
const closeChunk = 100

// endCanceled closes the partly done blocks of a batch, some a step, so that
// what ran in them is told, ends the batch by arithmetic, and tidies up.
func (s *Store) endCanceled(b queued) error {
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

// clearOpen removes, in steps, what an ended batch leaves among the open
// blocks. What it does not get to is in nobody's way.
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
			n, err := deletePrefix(t, bucketOpen, b.id[:], closeChunk)
			more = n == closeChunk
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
	as, over := e.p.Over(s.leased(b.id))
	if !over {
		return true, nil
	}
	spec, err := t.spec(s, e)
	if err != nil {
		return false, errBroken{err}
	}
	var none batch.MessageClaim
	var out batch.Recorded
	partial, more := partlyDone(t.Bucket(bucketOpen).Cursor(), b, closeChunk)
	for _, p := range partial {
		rng, err := t.closeBlock(e, p)
		if err != nil {
			return false, errBroken{err}
		}
		if spec.Blocks == 1 {
			break // its results go with the terminal message
		}
		if err := t.post(s, e, batch.RangeMessages(*spec, e.p, rng, t.now), &none, &out); err != nil {
			return false, errBroken{err}
		}
	}
	if more {
		return false, nil
	}
	var only *batch.Range
	if spec.Blocks == 1 {
		k := batch.BlockKey{Tenant: b.tenant, Batch: b.id}
		only = &batch.Range{Key: k}
		if only.Results, err = readSegments(t.Tx, k, 0, e.p.Round, whole); err != nil {
			return false, errBroken{err}
		}
	}
	if err := t.end(s, e, spec, as, only, &none, &out); err != nil {
		return false, errBroken{err}
	}
	return true, nil
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

// partlyDone finds open blocks that have results or attempts.
func partlyDone(c cursor, b queued, most int) (found [][]byte, more bool) {
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

type cursor interface {
	Seek([]byte) ([]byte, []byte)
	Next() ([]byte, []byte)
}

// closeBlock takes a partly done block out of the open ones for good and
// returns what ran in it.
func (t *txn) closeBlock(e *entry, open []byte) (batch.Range, error) {
	tenant, _ := splitTenantKey(e.key)
	k, _ := splitOpenKey(tenant, open)
	key := blockKey(k)
	rng := batch.Range{Key: k, Ordinal: int(k.Number)}
	p, err := record.Open(record.KindBlock, key, t.Bucket(bucketBlocks).Get(key))
	if err != nil {
		return rng, err
	}
	first, count, err := record.BlockSpan(p)
	if err != nil {
		return rng, err
	}
	state, err := readState(t.Tx, key, e.p.Round, count)
	if err != nil {
		return rng, err
	}
	state.Closed = true
	if err := t.Bucket(bucketStates).Put(key, record.EncodeState(key, state)); err != nil {
		return rng, err
	}
	if err := t.Bucket(bucketOpen).Delete(open); err != nil {
		return rng, err
	}
	e.p.Absorb(batch.Tally{}, 0, 1)
	t.change(e)
	rng.Results, err = readSegments(t.Tx, k, first, e.p.Round, whole)
	return rng, err
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
