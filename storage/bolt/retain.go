package bolt

import (
	"bytes"
	"context"
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
)

// How often the store looks for batches whose time is over, and how many it
// removes in one step. The first look comes that long after the start: by then
// a clock that was wrong at boot has mostly been set.
const (
	retainEvery = time.Minute
	retainChunk = 100
)

// retainLoop removes batches that were kept long enough, the oldest of each
// tenant first, and forgets those deleted long ago, until the store closes.
// However many it has to pass by, it takes a twentieth of the time at most.
func (s *Store) retainLoop() {
	for pause := retainEvery; s.rests(pause); {
		begun := time.Now()
		err := s.forgetRemoved()
		if s.terms.Retention > 0 {
			err = errors.Join(err, s.retain())
		}
		switch {
		case s.Err() != nil, errors.Is(err, errClosed):
			return
		case err != nil:
			s.log.Error("batches whose time is over stay for now", "error", err)
		}
		pause = max(retainEvery, 20*time.Since(begun))
	}
}

// retain looks at every batch that was made before those whose time can be
// over. Ids are in the order in which batches were made, so all others are
// passed by; and those that are old and stay, because they have not ended or
// did late, are few.
func (s *Store) retain() error {
	for from := []byte{}; from != nil; {
		if !s.rests(wipePause) {
			return nil
		}
		var due [][]byte
		err := s.view(context.Background(), func(tx *bbolt.Tx) error {
			due, from = outlived(bucketProgress.in(tx).Cursor(), from, s.terms.Retention, time.Now())
			return nil
		})
		if err != nil {
			return err
		}
		if len(due) == 0 {
			continue
		}
		err = s.do(s.bulk, 0, func(t *txn) error {
			for _, k := range due {
				tenant, id := splitTenantKey(k)
				e, err := t.batch(tenant, id)
				if err != nil || !e.p.Outlived(s.terms.Retention, t.now) {
					continue
				}
				if err := t.remove(s, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rests waits a moment, so that others have their turn. It reports whether the
// store is still open then.
func (s *Store) rests(d time.Duration) bool {
	select {
	case <-s.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// outlived returns the keys of some batches whose time is over, and from where
// to go on; nil at the end.
func outlived(c *cursor, from []byte, keep time.Duration, now time.Time) (due [][]byte, next []byte) {
	steps := 0
	for k, v := c.Seek(from); k != nil; {
		if steps++; steps > listSteps || len(due) == retainChunk || time.Since(now) > readTime {
			return due, bytes.Clone(k)
		}
		tenant, id := splitTenantKey(k)
		if batch.ID(id).Time().Add(keep).After(now) { // and so are all behind it
			k, v = c.Seek(append(tenant[:], bytes.Repeat([]byte{0xff}, 17)...))
			continue
		}
		if p, err := decodeProgress(k, v); err == nil && p.Outlived(keep, now) { // a damaged one stays: check names it
			due = append(due, bytes.Clone(k))
		}
		k, v = c.Next()
	}
	return due, nil
}

// forgetRemoved drops the tombstones whose time is over.
func (s *Store) forgetRemoved() error {
	for more := true; more; {
		some := false
		err := s.view(context.Background(), func(tx *bbolt.Tx) error {
			k, _ := bucketGoneBy.in(tx).Cursor().First()
			some = forgettable(k, time.Now())
			return nil
		})
		if err != nil || !some {
			return err
		}
		err = s.do(s.bulk, 0, func(t *txn) error {
			more, err = t.forgetRemoved()
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// forgettable reports whether a key of bucketGoneBy says that its time is over.
func forgettable(k []byte, now time.Time) bool {
	return len(k) == 40 && batch.Forgotten(millisTime(be.Uint64(k)), now)
}

func (t *txn) forgetRemoved() (more bool, err error) {
	var keys [][]byte
	c := bucketGoneBy.in(t.Tx).Cursor()
	k, _ := c.First()
	for ; forgettable(k, t.now) && len(keys) < wipeRecords/2; k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	more = forgettable(k, t.now)
	for _, k := range keys {
		if err := errors.Join(bucketGoneBy.in(t.Tx).Delete(k), bucketGone.in(t.Tx).Delete(k[8:])); err != nil {
			return false, errBroken{err}
		}
	}
	return more, nil
}
