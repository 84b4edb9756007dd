package bolt

import (
	"context"
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
	some := s.prepare(reports)
	n, size := 0, 0
	for n < len(some) && (n == 0 || size+some[n].weight <= maxBytes) {
		size += some[n].weight
		n++
	}
	some = some[:n]
	var out batch.Recorded
	err := s.do(s.small, size, func(t *txn) error {
		r := recording{s: s, t: t, offer: offer}
		for i, p := range some {
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
	switch {
	case batch.CodeOf(err) == batch.Damaged && n == 1: // found after its first write
		s.mu.Lock()
		s.setAside(some[0].Lease.Block, err)
		s.mu.Unlock()
		out = batch.Recorded{Lost: []int{0}}
	case err != nil:
		return batch.Recorded{}, err
	}
	out.Left = len(reports) - n
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
	weight  int // about what it writes, in bytes
}

func (s *Store) prepare(reports []batch.Report) []prepared {
	ps := make([]prepared, len(reports))
	s.mu.Lock()
	for i, r := range reports {
		ps[i].Report = r
		var lv *live
		if lv, ps[i].held = s.holder(r.Lease); lv != nil && lv.spec != nil {
			ps[i].weight = messageWeight(lv.spec, len(r.Results))
		}
		if lv != nil && !lv.started.IsZero() && lv.started.Before(r.Started) { // as it has been shown
			ps[i].Started = lv.started
		}
	}
	s.mu.Unlock()
	for i := range ps {
		p := &ps[i]
		if p.held == nil {
			continue
		}
		for j := range p.Results {
			p.Results[j].Round = p.held.round
			p.weight += len(p.Results[j].Payload) + 32
		}
		p.segment = record.NewSegment(p.Results)
	}
	return ps
}

// messageWeight is about what the messages take that so many results may
// lead to: each has an envelope with the metadata.
func messageWeight(s *batch.Spec, results int) int {
	if !s.Options.Messages() {
		return 0
	}
	envelope := 1 << 10
	for k, v := range s.Options.Metadata {
		envelope += len(k) + len(v)
	}
	return envelope * (2 + results/max(1, s.Options.CallbackPageItems))
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
	spec, err := r.t.spec(r.s, e)
	if err != nil {
		return r.aside(p, err)
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
	hadState := bucketStates.in(r.t.Tx).Get(key) != nil
	if len(p.Results) > 0 {
		if err := putSegment(r.t, k, p.held.first, p.held.round, p.segment, hadState || p.held.round > 1); err != nil {
			return err
		}
	}
	r.t.change(e)
	if !p.Started.IsZero() {
		e.p.Begin(r.s.startOf(k.Batch)) // as it was shown
	}
	e.p.Absorb(tally, p.segment.Digest, 0)
	if e.p.Strain(*spec) {
		r.t.follow(r.s, e)
	}
	if state.Finished() {
		err = r.finishBlock(e, p, hadState)
	} else {
		err = r.leaveBlock(p, state, hadState)
	}
	if err != nil {
		return err
	}
	r.t.after(func() { r.s.finished(k.Batch, r.t.now, tally.Sum(), e.p.Failed()) })
	return r.t.tell(r.s, e, &r.offer, &r.out)
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
		if err := bucketStates.in(r.t.Tx).Delete(blockKey(k)); err != nil {
			return err
		}
	}
	if err := bucketOpen.in(r.t.Tx).Delete(openKey(k, r.due(p))); err != nil {
		return err
	}
	r.letGo(p)
	e.p.Absorb(batch.Tally{}, 0, 1)
	spec, err := r.t.spec(r.s, e)
	if err != nil {
		return err
	}
	rng := batch.Range{Key: k, Ordinal: spec.Ordinal(k), Results: p.Results}
	if len(p.Results) < p.held.count {
		if rng.Results, err = readSegments(r.t.Tx, k, p.held.first, p.held.round, whole); err != nil {
			return err
		}
	}
	if spec.Blocks > 1 {
		if err := r.t.post(r.s, e, batch.RangeMessages(*spec, e.p, rng, r.s.terms, r.t.now), &r.offer, &r.out); err != nil {
			return err
		}
	}
	// A batch that was stopped ends in a step of its own.
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
		if err := bucketStates.in(r.t.Tx).Put(key, record.EncodeState(key, state)); err != nil {
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
	open := bucketOpen.in(r.t.Tx)
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
	if err := bucketActive.in(t.Tx).Delete(e.key); err != nil {
		return err
	}
	if err := bucketEnded.in(t.Tx).Put(endedKey(spec.Tenant, e.p.Finished, spec.ID), []byte{1}); err != nil {
		return err
	}
	t.after(func() {
		s.retire(spec.ID)
		s.remember(spec)
	})
	if err := t.replace(s, e); err != nil {
		return err
	}
	if err := t.post(s, e, batch.EndMessages(*spec, e.p, only, s.terms, t.now), offer, out); err != nil {
		return err
	}
	out.Ended = append(out.Ended, batch.Batch{Spec: *spec, Progress: e.p})
	return nil
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
