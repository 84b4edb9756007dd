package bolt

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// Claim leases due blocks. It writes nothing: leases of the only owner live
// in memory, and what they lead to rides on the next Record.
func (s *Store) Claim(ctx context.Context, c batch.Claim) ([]batch.Work, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	// The transaction begins with the store locked: what a finished commit
	// changed in memory is then in the snapshot too, and a block that was just
	// finished cannot be claimed again.
	s.mu.Lock()
	tx, err := s.db.Begin(false)
	if err != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("claim: %w", err)
	}
	picked := s.pick(tx, c, time.Now())
	s.mu.Unlock()
	for _, p := range picked {
		if p.alone {
			s.watches.Tell(p.lease.Block.Tenant, p.lease.Block.Batch, batch.Moved)
		}
	}
	for i := range picked {
		picked[i].load(tx)
	}
	tx.Rollback()

	s.mu.Lock()
	defer s.mu.Unlock()
	works := make([]batch.Work, 0, len(picked))
	for _, p := range picked {
		if p.err != nil {
			s.setAside(p.lease.Block, p.err)
			continue
		}
		p.lease.first, p.lease.count = p.first, p.count
		switch lv := s.live[p.lease.Block.Batch]; {
		case lv == nil:
		case lv.spec == nil:
			lv.spec = p.work.Spec
		default: // it may have been amended since this one was read
			p.work.Spec, p.work.Expires = lv.spec, lv.gate.Expires
		}
		works = append(works, p.work)
	}
	return works, nil
}

// A pick is a block that was just leased and what is read about it.
type pick struct {
	lease        *lease
	work         batch.Work
	alone        bool // nothing else of its batch is held
	first, count int
	err          error
}

// pick leases one block of each batch whose turn it is, by turns over the
// processors, until it has enough.
func (s *Store) pick(tx *bbolt.Tx, c batch.Claim, now time.Time) (picked []pick) {
	s.recall(c)
	open := bucketOpen.in(tx).Cursor()
	dry := map[string]bool{}
	for len(picked) < c.Blocks && len(dry) < len(c.Processors) {
		s.turn++
		name := c.Processors[s.turn%len(c.Processors)]
		if dry[name] {
			continue
		}
		p, ok := s.pickOne(open, s.rota(name), c, now)
		if !ok {
			dry[name] = true
		} else if p.lease != nil {
			picked = append(picked, p)
		}
	}
	return picked
}

// pickOne gives the batch of a processor whose turn it is a chance; ok is
// false if there is none.
func (s *Store) pickOne(open *cursor, r *rota[batch.ID], c batch.Claim, now time.Time) (p pick, ok bool) {
	r.rouse(now)
	id, ok := r.take()
	if !ok {
		return p, false
	}
	lv := s.live[id]
	if lv == nil {
		r.forget(id)
		return p, true
	}
	may, until := lv.gate.Open(now)
	switch {
	case !may && !until.IsZero():
		r.sleep(lv.tenant, id, until)
	case !may:
	case len(lv.leases) >= max(1, c.PerBatch):
		s.crowded[id] = c.PerBatch
	default:
		l, due := s.pickBlock(open, lv, c.Owner, now)
		if l != nil {
			r.wakeUp(lv.tenant, id)
			p = pick{
				lease: l, alone: len(lv.leases) == 1,
				work: batch.Work{Lease: l.Lease, Spec: lv.spec, Round: l.round, Expires: lv.gate.Expires, Failed: lv.failed},
			}
		} else if !due.IsZero() {
			r.sleep(lv.tenant, id, due)
		}
	}
	return p, true
}

// recall makes ready what earlier claims passed by and this one may take:
// batches that had enough blocks out for them.
func (s *Store) recall(c batch.Claim) {
	for id, enough := range s.crowded {
		if lv := s.live[id]; lv != nil && c.PerBatch > enough {
			s.rota(lv.processor).wakeUp(lv.tenant, id)
			delete(s.crowded, id)
		}
	}
}

// pickBlock leases the first due block of a batch that nobody holds. Without
// one it returns when the next is due, or the zero time if there is none.
func (s *Store) pickBlock(open *cursor, lv *live, owner string, now time.Time) (*lease, time.Time) {
	k, v := open.Seek(lv.id[:])
	for bytes.HasPrefix(k, lv.id[:]) {
		bk, due := splitOpenKey(lv.tenant, k)
		if _, ours := lv.parts.At(bk.Part); !ours { // an upload that was not kept, or a part that was dropped
			k, v = open.Seek(openKey(batch.BlockKey{Batch: lv.id, Part: bk.Part + 1}, due))
			continue
		}
		at := placeOf(bk)
		if lv.leases[at] != nil || lv.damaged[at] {
			k, v = open.Next()
			continue
		}
		if due.After(now) {
			return nil, due
		}
		l := &lease{
			Lease: batch.Lease{Block: bk, Owner: owner, Token: s.token.Add(1), Due: due},
			round: lv.round, partial: len(v) > 0 && v[0] == 1,
		}
		lv.leases[at] = l
		lv.waitingOn = ""
		if len(lv.leases) == 1 {
			lv.resumes(now)
		}
		return l, time.Time{}
	}
	return nil, time.Time{}
}

// load reads what a lease is about, without the store locked.
func (p *pick) load(tx *bbolt.Tx) {
	l, w := p.lease, &p.work
	if w.Spec == nil {
		spec, err := readSpec(tx, l.Block.Tenant, l.Block.Batch)
		if p.err = err; err != nil {
			return
		}
		w.Spec = &spec
	}
	key := blockKey(l.Block)
	b, err := readBlock(tx, w.Spec, l.Block)
	if p.err = err; err != nil {
		return
	}
	st, err := readState(tx, key, l.round, len(b.Items))
	if p.err = err; err != nil {
		return
	}
	p.first, p.count = b.First, len(b.Items)
	w.Items = make([]batch.WorkItem, 0, len(b.Items))
	now := time.Now()
	for i, it := range b.Items {
		is := st.Items[i]
		if !is.Status.Terminal() && !is.Due.After(now) {
			w.Items = append(w.Items, batch.WorkItem{Index: b.First + i, ID: it.ID, Raw: it.Raw, Attempts: is.Attempts, Deaths: is.Deaths})
		}
	}
}

// setAside takes a block out of circulation that cannot be read. Its batch
// will not end; check names the record.
func (s *Store) setAside(k batch.BlockKey, err error) {
	s.log.Error("block set aside", "batch_id", k.Batch, "part", k.Part, "block", k.Number, "error", err)
	if lv := s.live[k.Batch]; lv != nil {
		if lv.damaged == nil {
			lv.damaged = map[place]bool{}
		}
		lv.damaged[placeOf(k)] = true
		s.release(k)
	}
}

// damaged logs a record that cannot be read and reports whether that is what
// err says: what it stood for is left out then, and everything else goes on.
// Check names the record.
func (s *Store) damaged(err error, what string, id any) bool {
	if batch.CodeOf(err) != batch.Damaged {
		return false
	}
	s.log.Error("a damaged record is left out", "of", what, "id", id, "error", err)
	return true
}

// missing is damaged, or a record that is not there at all: its key is damaged,
// if it was not deleted.
func (s *Store) missing(err error, what string, id any) bool {
	switch {
	case batch.CodeOf(err) == batch.Gone:
		return true
	case batch.CodeOf(err) != batch.NotFound:
		return s.damaged(err, what, id)
	}
	s.log.Error("a record is missing, and what needs it is left out", "of", what, "id", id)
	return true
}

func readSpec(tx *bbolt.Tx, t batch.TenantID, id batch.ID) (batch.Spec, error) {
	k := tenantKey(t, id)
	v := bucketBatches.in(tx).Get(k)
	if v == nil {
		return batch.Spec{}, errNoBatch
	}
	p, err := record.Open(record.KindSpec, k, v)
	if err != nil {
		return batch.Spec{}, err
	}
	return record.DecodeSpec(p)
}

var (
	errNoBatch   = batch.Errorf(batch.NotFound, "there is no such batch")
	errNoMessage = batch.Errorf(batch.NotFound, "there is no such message")
)

// readBlock returns a block that is the caller's own.
func readBlock(tx *bbolt.Tx, spec *batch.Spec, k batch.BlockKey) (batch.Block, error) {
	p, err := openBlock(tx, k)
	if err != nil {
		return batch.Block{}, err
	}
	return decodeBlock(slices.Clone(p), spec, k)
}

// peekBlock returns a block whose items are part of the mapped file.
func peekBlock(tx *bbolt.Tx, spec *batch.Spec, k batch.BlockKey) (batch.Block, error) {
	p, err := openBlock(tx, k)
	if err != nil {
		return batch.Block{}, err
	}
	return decodeBlock(p, spec, k)
}

// readSpan returns where a block begins in its batch and how many items it
// has.
func readSpan(tx *bbolt.Tx, spec *batch.Spec, k batch.BlockKey) (first, count int, err error) {
	p, err := openBlock(tx, k)
	if err != nil {
		return 0, 0, err
	}
	first, count, err = record.BlockSpan(p)
	return first + firstOf(spec, k), count, err
}

func openBlock(tx *bbolt.Tx, k batch.BlockKey) ([]byte, error) {
	key := blockKey(k)
	return record.Open(record.KindBlock, key, bucketBlocks.in(tx).Get(key))
}

// decodeBlock reads a block, which is kept with the indexes of its part.
func decodeBlock(p []byte, spec *batch.Spec, k batch.BlockKey) (batch.Block, error) {
	b, err := record.DecodeBlock(p)
	b.First += firstOf(spec, k)
	return b, err
}

// firstOf returns the index of the first item of a block's part.
func firstOf(spec *batch.Spec, k batch.BlockKey) int {
	at, _ := spec.Parts.At(k.Part)
	return at.Item
}

// readState returns a block's state as it counts in a round. Without a record
// of its own a block is either untouched or finished; which of the two its
// open entry says.
func readState(tx *bbolt.Tx, key []byte, round, items int) (batch.BlockState, error) {
	v := bucketStates.in(tx).Get(key)
	if v == nil {
		return batch.BlockState{}.In(round, items), nil
	}
	p, err := record.Open(record.KindState, key, v)
	if err != nil {
		return batch.BlockState{}, err
	}
	st, err := record.DecodeState(p)
	if err != nil {
		return st, err
	}
	return st.In(round, items), nil
}

// NextDue returns when a block that is not leased is next due.
func (s *Store) NextDue(_ context.Context, processors []string) (at time.Time, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range processors {
		r := s.rota(name)
		r.rouse(time.Now())
		if next, some := r.next(); some && (!ok || next.Before(at)) {
			at, ok = next, true
		}
	}
	return at, ok, s.Err()
}

// Changed hints that Claim may find more.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// Renew keeps what the caller says is in flight, for Batch to show. Leases of
// the only owner do not run out.
func (s *Store) Renew(ctx context.Context, owner string, held []batch.Holding) (batch.Renewed, error) {
	if err := s.ready(ctx); err != nil {
		return batch.Renewed{}, err
	}
	var r batch.Renewed
	var moved []queued
	now := time.Now()
	s.mu.Lock()
	for _, h := range held {
		lv := s.live[h.Batch]
		if lv == nil {
			r.Lost = append(r.Lost, h.Leases...)
			continue
		}
		if lv.inFlight != h.InFlight || lv.waitingOn != h.WaitingOn {
			moved = append(moved, queued{lv.tenant, lv.id})
		}
		lv.inFlight, lv.waitingOn = h.InFlight, h.WaitingOn
		if may, _ := lv.gate.Open(now); !may {
			r.Stop = append(r.Stop, h.Batch)
		}
		if lv.spec != nil && lv.spec.Edition != h.Edition {
			r.Amended = append(r.Amended, batch.Amended{Spec: lv.spec, Expires: lv.gate.Expires})
		}
		for _, l := range h.Leases {
			if _, ok := s.holder(l); ok == nil {
				r.Lost = append(r.Lost, l)
			}
		}
	}
	s.mu.Unlock()
	for _, b := range moved {
		s.watches.Tell(b.tenant, b.id, batch.Moved)
	}
	return r, nil
}
