package bolt

import (
	"time"

	"github.com/callbatch/callbatch/batch"
)

// live is what memory knows of a batch that has not ended: its leases, which
// a single owner of the file need not write down, and what is in flight. All
// of it is guarded by Store.mu and rebuilt at open.
type live struct {
	tenant    batch.TenantID
	id        batch.ID
	gate      batch.Gate // as committed, and lapsed from its deadline on
	round     int
	processor string
	spec      *batch.Spec // nil until wanted
	parts     batch.Layout
	leases    map[place]*lease
	damaged   map[place]bool // blocks that cannot be read: left alone
	failed    int            // items in the round, as committed
	started   time.Time      // of the first claim of this process
	inFlight  int
	waitingOn string
	pace      *batch.Pace // nil until it has results and goes on
}

// finished counts what a batch that goes on has got done, of which so many
// items have failed by now.
func (s *Store) finished(id batch.ID, now time.Time, items, failed int) {
	lv := s.live[id]
	if lv == nil || items == 0 {
		return
	}
	lv.failed = failed
	if lv.pace == nil {
		lv.pace = &batch.Pace{}
		lv.pace.Begin(lv.started)
	}
	lv.pace.Add(now, items)
}

// resumes notes that a batch of which nothing was held is worked on.
func (lv *live) resumes(now time.Time) {
	if lv.started.IsZero() {
		lv.started = now
	}
	if lv.pace != nil {
		lv.pace.Begin(now)
	}
}

// A place is a block within its batch.
type place struct{ part, number uint32 }

func placeOf(k batch.BlockKey) place { return place{k.Part, k.Number} }

// A lease is a block in somebody's hands.
type lease struct {
	batch.Lease
	first, count int
	round        int
	partial      bool // the open entry says so already
}

// specsKept bounds how many specs of batches without leases stay in memory.
const specsKept = 4096

// adopt makes a batch known that does not end with this start.
func (s *Store) adopt(spec *batch.Spec, p batch.Progress) *live {
	lv := &live{
		tenant: spec.Tenant, id: spec.ID, gate: p.Gate(spec.Options), round: p.Round, processor: spec.Options.Processor, parts: spec.Parts,
		leases: map[place]*lease{}, failed: p.Failed(),
	}
	if len(s.live) < specsKept {
		lv.spec = spec
	}
	s.live[spec.ID] = lv
	s.regate(lv, p)
	return lv
}

// regate takes over how a batch is steered: what may start is claimed, its
// deadline is waited for, and what has come to an end is ended.
func (s *Store) regate(lv *live, p batch.Progress) {
	lv.gate.Status, lv.gate.Lapsed, lv.gate.Expires = p.Status, p.Lapsed, p.Expires
	s.deadlines.forget(lv.id)
	if lv.gate.Ending() {
		if len(lv.leases) == 0 {
			s.queueEnd(lv.tenant, lv.id)
		}
		return
	}
	if !p.Expires.IsZero() {
		s.deadlines.sleep(lv.tenant, lv.id, p.Expires)
		hint(s.endsReady)
	}
	s.rota(lv.processor).wakeUp(lv.tenant, lv.id)
	hint(s.changed)
}

// rota returns whose turn it is among the batches of a processor.
func (s *Store) rota(processor string) *rota[batch.ID] {
	r := s.batches[processor]
	if r == nil {
		r = newRota[batch.ID]()
		s.batches[processor] = r
	}
	return r
}

// retire forgets a batch that has ended.
func (s *Store) retire(id batch.ID) {
	if lv := s.live[id]; lv != nil {
		s.rota(lv.processor).forget(id)
	}
	s.deadlines.forget(id)
	delete(s.live, id)
	delete(s.crowded, id)
}

// holder returns the lease a report speaks of if it still stands.
func (s *Store) holder(l batch.Lease) (*live, *lease) {
	lv := s.live[l.Block.Batch]
	if lv == nil || lv.tenant != l.Block.Tenant {
		return nil, nil
	}
	held := lv.leases[placeOf(l.Block)]
	if held == nil || held.Token != l.Token || held.Owner != l.Owner {
		return nil, nil
	}
	return lv, held
}

// release ends a lease; the batch may have something to claim again.
func (s *Store) release(k batch.BlockKey) {
	lv := s.live[k.Batch]
	if lv == nil {
		return
	}
	delete(lv.leases, placeOf(k))
	delete(s.crowded, lv.id)
	if len(lv.leases) == 0 {
		lv.inFlight, lv.waitingOn = 0, ""
		if len(s.live) > specsKept {
			lv.spec = nil
		}
	}
	if !lv.gate.Ending() {
		s.rota(lv.processor).wakeUp(lv.tenant, lv.id)
	} else if len(lv.leases) == 0 {
		s.queueEnd(lv.tenant, lv.id)
	}
}

// hint wakes whoever listens, without waiting.
func hint(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
