package bolt

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
)

// The most one transaction takes in: a step touches at most about 1,000
// records, and while a small step waits an upload gets 1 MiB a commit.
const (
	maxSteps = 512
	maxBytes = 4 << 20
)

// A step is one change that somebody waits for. apply runs inside the
// transaction and may run again in another one, so it changes nothing
// outside; what memory must learn goes to txn.after. A refusal (a
// batch.Error) must come before the first write.
type step struct {
	apply func(*txn) error
	bytes int
	done  chan error
}

// A txn is one transaction over the steps of several callers.
type txn struct {
	*bbolt.Tx
	now      time.Time
	progress map[queued]*entry            // read once, written once
	released map[batch.BlockKey]struct{}  // leases that end with this transaction
	dues     map[batch.BlockKey]time.Time // of open blocks that moved
	begun    demand                       // attempts that begin with this transaction
	health   map[hostKey]batch.Health     // of hosts, where it changes
	kept     map[batch.TenantID]int       // hosts more on the disk
	posted   bool                         // a message was made
	touched  []queued                     // batches that came or went
	dirty    []*entry
	afters   []func()
}

// after has f run once the transaction is durable, with the store locked.
func (t *txn) after(f func()) { t.afters = append(t.afters, f) }

// do hands a step to the committer and waits for its end. A caller that goes
// away does not take its step back.
func (s *Store) do(lane chan *step, bytes int, apply func(*txn) error) error {
	st := &step{apply: apply, bytes: bytes, done: make(chan error, 1)}
	if err := s.submit(lane, st); err != nil {
		return err
	}
	return <-st.done
}

func (s *Store) submit(lane chan *step, st *step) error {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return errClosed
	}
	lane <- st
	return nil
}

var errClosed = batch.Errorf(batch.Unavailable, "the store is closed")

// commitLoop is the one goroutine that writes. While one group syncs the next
// gathers: a lone writer waits for one sync, and 64 share one.
func (s *Store) commitLoop() {
	defer close(s.committed)
	for {
		group, ok := s.gather()
		if len(group) > 0 {
			s.commit(group)
		}
		if !ok {
			return
		}
	}
}

// While large steps are made, a few small ones are not worth a commit of their
// own, for which the next large one would wait: they wait for it, for a moment.
const (
	largeBytes  = 512 << 10
	largeLately = 50 * time.Millisecond
	ridesAlong  = 5 * time.Millisecond
)

func (st *step) isLarge() bool { return st.bytes >= largeBytes }

// gather waits for a step and takes what else is there: small steps first,
// then uploads, of which just one while small steps wait.
func (s *Store) gather() (group []*step, ok bool) {
	st, open := s.next(nil)
	if !open {
		return s.drain(), false
	}
	runtime.Gosched() // whoever is about to submit a step shares this commit
	group = append(group, st)
	size := st.bytes
	var wait <-chan time.Time
	if size < largeBytes && time.Since(s.large) < largeLately {
		wait = time.After(ridesAlong)
	}
	for len(group) < maxSteps && size < maxBytes {
		if st, open = poll(s.small); st == nil && open && wait != nil && size < largeBytes {
			st, open = s.next(wait)
		}
		if !open {
			return append(group, s.drain()...), false
		}
		if st == nil {
			break
		}
		group, size = append(group, st), size+st.bytes
	}
	for bulk := 0; bulk == 0 || size < maxBytes && len(s.small) == 0; bulk++ {
		st, _ := poll(s.bulk)
		if st == nil {
			break
		}
		group, size = append(group, st), size+st.bytes
	}
	if slices.ContainsFunc(group, (*step).isLarge) {
		s.large = time.Now()
	}
	return group, true
}

// next waits for a step, but no longer than for wait; open is false if none
// will come any more.
func (s *Store) next(wait <-chan time.Time) (st *step, open bool) {
	select {
	case st, open = <-s.small:
		return st, open
	case st = <-s.bulk:
		return st, true
	case <-wait:
		return nil, true
	}
}

// poll takes a step if one waits; open is false if none will come any more.
func poll(lane chan *step) (st *step, open bool) {
	select {
	case st, open = <-lane:
		return st, open
	default:
		return nil, true
	}
}

// drain takes the uploads that were submitted before the store closed.
func (s *Store) drain() (group []*step) {
	for st, _ := poll(s.bulk); st != nil; st, _ = poll(s.bulk) {
		group = append(group, st)
	}
	return group
}

// commit makes one transaction of the group and answers everyone in it.
func (s *Store) commit(group []*step) {
	results := make([]error, len(group))
	if err := s.Err(); err != nil {
		answer(group, results, err)
		return
	}
	for {
		again, err := s.try(group, results)
		if err != nil {
			s.fail(err)
			answer(group, results, err)
			return
		}
		if !again {
			answer(group, results, nil)
			return
		}
	}
}

func answer(group []*step, results []error, err error) {
	refuse(results, err)
	for i, st := range group {
		st.done <- results[i]
	}
}

// errBroken marks a step that failed in a way no refusal does: it may have
// written, so its transaction is given up and the others run again.
type errBroken struct{ error }

// try runs the steps that have no result yet in one transaction. An error is
// one after which nobody knows what is on the disk.
func (s *Store) try(group []*step, results []error) (again bool, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	tx, err := s.db.Begin(true)
	if err != nil {
		return false, fmt.Errorf("begin: %w", err)
	}
	t := &txn{
		Tx: tx, now: time.Now(), progress: map[queued]*entry{}, released: map[batch.BlockKey]struct{}{},
		dues: map[batch.BlockKey]time.Time{}, begun: demand{}, health: map[hostKey]batch.Health{},
		kept: map[batch.TenantID]int{},
	}
	wrote := false
	for i, st := range group {
		if results[i] != nil {
			continue
		}
		if err := runStep(t, st); err != nil {
			results[i] = err
			var broken errBroken
			if errors.As(err, &broken) {
				results[i] = broken.error
				return true, tx.Rollback()
			}
			continue
		}
		wrote = true
	}
	if !wrote {
		return false, tx.Rollback()
	}
	if err := t.flush(); err != nil {
		tx.Rollback()
		return false, err
	}
	switch err := s.makeDurable(tx); {
	case errors.Is(err, errNoSpace):
		refuse(results, batch.Refuse(batch.Full, "disk_full", "the store's disk is full: nothing was kept, try again when there is room"))
		return false, nil
	case err != nil:
		tx.Rollback() // in case it was not even tried
		return false, fmt.Errorf("commit: %w", err)
	}
	s.mu.Lock()
	for _, f := range t.afters {
		f()
	}
	if t.posted {
		close(s.posted)
		s.posted = make(chan struct{})
	}
	s.mu.Unlock()
	s.tell(t)
	return false, nil
}

// tell hints at the batches that a transaction changed.
func (s *Store) tell(t *txn) {
	if !s.watches.Any() {
		return
	}
	for _, b := range t.touched {
		s.watches.Tell(b.tenant, b.id, batch.Moved)
	}
	for _, e := range t.dirty {
		tenant, id := splitTenantKey(e.key)
		s.watches.Tell(tenant, id, e.how())
	}
}

// refuse answers every step that has no answer yet.
func refuse(results []error, err error) {
	for i := range results {
		if results[i] == nil {
			results[i] = err
		}
	}
}

// runStep tells a refusal from a step that broke half way.
func runStep(t *txn, st *step) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errBroken{fmt.Errorf("step: %v", p)}
		}
	}()
	err = st.apply(t)
	var broken errBroken
	var refusal *batch.Error
	switch {
	case errors.As(err, &broken):
		return broken
	case err == nil || errors.As(err, &refusal):
		return err
	default:
		return errBroken{err}
	}
}

// fail is for a disk that did not do what it was told: the state is unknown
// until the file is read anew.
func (s *Store) fail(err error) {
	s.failure.CompareAndSwap(nil, &err)
	s.failOnce.Do(func() { close(s.failed) })
}

// Failed is closed when a commit failed.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err says why Failed was closed.
func (s *Store) Err() error {
	if p := s.failure.Load(); p != nil {
		return *p
	}
	return nil
}
