package batch

import (
	"slices"
	"time"
)

// A BlockState says where each item of a block is. It is what a report
// changes; the items themselves never change. The zero value is a block that
// nobody has touched.
type BlockState struct {
	Round  int         // the round the items' states belong to
	Items  []ItemState // one an item, or none while nothing has happened
	Closed bool        // no item will change any more in this round
}

// An ItemState is one item's place in its life.
type ItemState struct {
	Status   ItemStatus
	Attempts int       // that were counted
	Deaths   int       // of workers at it, or of the process; 0 to 15, and 0 once there is a result
	Due      time.Time // earliest next attempt; zero: at once
}

// In returns the state as it counts in a round for a block of n items. What is
// there of an earlier round says nothing in a later one: that begins with a
// state of its own ([Rounds.Begin]).
func (s BlockState) In(round, n int) BlockState {
	if s.Items == nil || s.Round != round {
		return BlockState{Round: round, Items: make([]ItemState, n)}
	}
	return s
}

// Apply moves the block's items as a report says and returns what it
// finished. It fails, and leaves the state in an unknown shape, if the report
// names an item twice, one outside the block, or one that has its result.
func (s *BlockState) Apply(first int, r Report) (Tally, error) {
	var done Tally
	if s.Closed {
		return done, Errorf(Lost, "the block is closed")
	}
	for _, res := range r.Results {
		it, err := s.unfinished(first, res.Index)
		if err != nil {
			return done, err
		}
		if !res.Status.Terminal() {
			return done, Errorf(Invalid, "item %d: %s is not an outcome", res.Index, res.Status)
		}
		*it = ItemState{Status: res.Status, Attempts: res.Attempts}
		done.Add(res.Status, 1)
	}
	for _, a := range r.Again {
		it, err := s.unfinished(first, a.Index)
		if err != nil {
			return done, err
		}
		*it = ItemState{Status: ItemPending, Attempts: a.Attempts, Deaths: a.Deaths, Due: a.Due}
	}
	return done, nil
}

func (s *BlockState) unfinished(first, index int) (*ItemState, error) {
	pos := index - first
	if pos < 0 || pos >= len(s.Items) {
		return nil, Errorf(Invalid, "item %d is not in its block", index)
	}
	it := &s.Items[pos]
	if it.Status.Terminal() {
		return nil, Errorf(Lost, "item %d has its result already", index)
	}
	return it, nil
}

// Close lets no item of the block change any more in this round. An item that
// was tried and waits for its next attempt ends here, with a result of its
// own; those that never ran end by arithmetic. The results' ids are the
// caller's to fill in.
func (s *BlockState) Close(first int, p Progress, now time.Time) (stopped []Result) {
	s.Closed = true
	for i, it := range s.Items {
		if it.Status.Terminal() || it.Attempts == 0 {
			continue
		}
		r := EndedResult(first+i, "", p, it.Attempts)
		r.Finished = now
		s.Items[i] = ItemState{Status: r.Status, Attempts: it.Attempts}
		stopped = append(stopped, r)
	}
	return stopped
}

// Finished reports whether every item has its result.
func (s BlockState) Finished() bool {
	return len(s.Items) > 0 && !slices.ContainsFunc(s.Items, func(it ItemState) bool { return !it.Status.Terminal() })
}

// Due returns when the first unfinished item may be tried; the zero time if
// one may be tried at once.
func (s BlockState) Due() time.Time {
	var due time.Time
	for i, found := 0, false; i < len(s.Items); i++ {
		it := s.Items[i]
		if it.Status.Terminal() {
			continue
		}
		if !found || it.Due.Before(due) {
			due, found = it.Due, true
		}
	}
	return due
}

// Tally counts the block's results.
func (s BlockState) Tally() Tally {
	var t Tally
	for _, it := range s.Items {
		t.Add(it.Status, 1)
	}
	return t
}

// Begin notes the start of an item: with the first a queued batch runs.
func (p *Progress) Begin(at time.Time) {
	if at.IsZero() || p.Status.Terminal() || p.Status != Queued && !p.Started.IsZero() {
		return
	}
	if p.Status == Queued {
		p.Status = Running
	}
	if p.Started.IsZero() {
		p.Started = at
	}
	p.Version++
}

// Absorb adds what a step recorded: results, and blocks finished or closed.
func (p *Progress) Absorb(done Tally, digest uint64, blocks int) {
	p.Done = p.Done.Plus(done)
	p.Digest += digest
	p.Open -= blocks
	p.Version++
}

// Over says whether the round is over, and as what, while leased blocks of
// the batch are in somebody's hands. A cancel that was answered wins over a
// last item that comes in after it; after the deadline the batch still
// completes if nothing is left to expire.
func (p Progress) Over(leased int) (Status, bool) {
	switch {
	case p.Status.Terminal() || p.Status == Open:
		return 0, false
	case p.Status == Canceling:
		return Canceled, leased == 0
	case p.Open == 0:
		return Completed, true
	default:
		return Expired, p.Lapsed && leased == 0
	}
}

// End closes the round: whatever has no result gets, by arithmetic, the
// status that goes with the end.
func (p *Progress) End(as Status, items int, now time.Time) {
	left := items - p.Done.Sum()
	switch as {
	case Canceled:
		p.Done.Canceled += left
	case Expired:
		p.Done.Expired += left
	}
	p.Status, p.Finished, p.Open = as, now, 0
	if p.Started.IsZero() && as == Completed {
		p.Started = now
	}
	p.Version++
}
