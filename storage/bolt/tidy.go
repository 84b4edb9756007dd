package bolt

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
)

// tidyEvery is how often what was kept for a time is looked for: it is kept
// that much longer at most. The first look is tidyFirst after the start: by
// then a clock that was wrong at boot has mostly been set.
const (
	tidyFirst = time.Minute
	tidyEvery = 10 * time.Minute
)

// tidyLoop removes, at a slow pace, what was kept long enough: bindings of
// Idempotency-Keys, and open batches that nobody touches.
func (s *Store) tidyLoop() {
	var last []byte // among the open batches, where the pass is
	for pause := tidyFirst; s.rests(pause); {
		more, next, err := s.tidyStep(last)
		if err != nil && !errors.Is(err, errClosed) {
			s.log.Warn("what is old could not be removed yet", "error", err)
		}
		last, pause = next, tidyEvery
		if more && err == nil {
			pause = wipePause
		}
	}
}

// tidyStep removes some of what is old, of the open batches behind the last.
func (s *Store) tidyStep(last []byte) (more bool, next []byte, err error) {
	old, next, err := s.abandoned(last)
	for _, row := range old {
		if err == nil {
			err = s.removeAbandoned(row)
		}
	}
	if err != nil || s.noneOld() {
		return next != nil, next, err
	}
	err = s.do(s.bulk, 0, func(t *txn) (err error) {
		more, err = t.unbind()
		return err
	})
	return more || next != nil, next, err
}

// noneOld reports whether no binding is to be forgotten: most steps need write
// nothing.
func (s *Store) noneOld() (none bool) {
	err := s.view(context.Background(), func(tx *bbolt.Tx) error {
		k, _ := bucketBound.in(tx).Cursor().First()
		none = k == nil || !batch.Binding{Made: millisTime(be.Uint64(k))}.Old(time.Now())
		return nil
	})
	return none && err == nil
}

// tidyLooks is how many open batches one step looks at.
const tidyLooks = 500

// abandoned returns the keys of the open batches that were left alone for too
// long, among some of those behind the last. next is nil at the end.
func (s *Store) abandoned(last []byte) (old [][]byte, next []byte, err error) {
	err = s.view(context.Background(), func(tx *bbolt.Tx) error {
		c := bucketUploads.in(tx).Cursor()
		n := 0
		for k, _ := c.Seek(append(last, 0)); k != nil; k, _ = c.Next() {
			if n++; n > tidyLooks {
				return nil
			}
			next = append([]byte(nil), k...)
			tenant, id := splitTenantKey(k)
			b, err := readBatch(tx, tenant, id)
			if s.damaged(err, "batch", batch.ID(id)) {
				continue
			}
			if err != nil {
				return err
			}
			if b.Abandoned(time.Now()) {
				old = append(old, next)
			}
		}
		next = nil
		return nil
	})
	return old, next, err
}

// removeAbandoned removes the open batch under a key if nobody has touched it
// meanwhile.
func (s *Store) removeAbandoned(key []byte) error {
	tenant, id := splitTenantKey(key)
	return s.do(s.small, 0, func(t *txn) error {
		e, b, err := t.open(s, tenant, id)
		switch {
		case isAbsent(err), batch.CodeOf(err) == batch.Conflict, err == nil && !b.Abandoned(t.now):
			return nil
		case err != nil:
			return err
		}
		return t.remove(s, e)
	})
}
