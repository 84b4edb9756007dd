package bolt

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
)

// Watch hints at changes of a batch, or of all batches of a tenant.
func (s *Store) Watch(tenant batch.TenantID, id *batch.ID) *batch.Watch {
	return s.watches.Watch(tenant, id)
}

// Active lists the batches of a tenant that have not ended.
func (s *Store) Active(ctx context.Context, tenant batch.TenantID, after batch.ID, limit int) ([]batch.Batch, *batch.ID, error) {
	l := standing{s: s, tenant: tenant, limit: limit}
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		c := bucketActive.in(tx).Cursor()
		for k, _ := c.Seek(append(tenantKey(tenant, after), 0)); bytes.HasPrefix(k, tenant[:]); k, _ = c.Next() {
			_, id := splitTenantKey(k)
			if more, err := l.add(tx, id, func(p batch.Progress) bool { return true }); err != nil || !more {
				return err
			}
		}
		l.end = true
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list active batches: %w", err)
	}
	list := l.shown()
	if l.end {
		return list, nil, nil
	}
	return list, &l.last, nil
}

// Ended lists the batches of a tenant in the order in which they ended.
func (s *Store) Ended(ctx context.Context, tenant batch.TenantID, after batch.EndedAt, limit int) ([]batch.Batch, *batch.EndedAt, error) {
	l := standing{s: s, tenant: tenant, limit: limit}
	next := after
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		c := bucketEnded.in(tx).Cursor()
		from := endedKey(tenant, after.Time, after.ID)
		if after.ID != (batch.ID{}) {
			from = append(from, 0)
		}
		for k, _ := c.Seek(from); bytes.HasPrefix(k, tenant[:]); k, _ = c.Next() {
			at := splitEndedKey(k)
			// A batch that went on in another round is among the others.
			more, err := l.add(tx, at.ID, func(p batch.Progress) bool {
				return p.Status.Terminal() && p.Finished.UnixMilli() == at.Time.UnixMilli()
			})
			if err != nil || !more {
				return err
			}
			next = at
		}
		l.end = true
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list ended batches: %w", err)
	}
	list := l.shown()
	if l.end {
		return list, nil, nil
	}
	return list, &next, nil
}

// standing is a page of batches that grows.
type standing struct {
	s      *Store
	tenant batch.TenantID
	limit  int
	list   []batch.Batch
	dues   []time.Time
	looks  int
	last   batch.ID
	end    bool
}

// add looks at the next batch, until it says no.
func (l *standing) add(tx *bbolt.Tx, id batch.ID, wanted func(batch.Progress) bool) (more bool, err error) {
	if l.looks++; len(l.list) == l.limit || l.looks > listSteps {
		return false, nil
	}
	l.last = id
	b, err := readBatch(tx, l.tenant, id)
	switch {
	case l.s.missing(err, "batch", id):
	case err != nil:
		return false, err
	case wanted(b.Progress):
		l.list, l.dues = append(l.list, b), append(l.dues, firstDue(tx, b))
	}
	return true, nil
}

// shown returns the page as it is to be shown.
func (l *standing) shown() []batch.Batch {
	for i := range l.list {
		l.s.overlay(&l.list[i], l.dues[i])
	}
	return l.list
}
