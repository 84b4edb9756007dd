package bolt

import (
	"context"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// A stage receives a batch that does not exist yet.
type stage struct{ upload }

// Stage opens a place for the blocks of a batch that does not exist yet.
func (s *Store) Stage(_ context.Context, tenant batch.TenantID, id batch.ID) batch.Stage {
	return &stage{upload{s: s, key: batch.BlockKey{Tenant: tenant, Batch: id}, row: tenantKey(tenant, id)}}
}

// Create makes the batch exist: its last blocks, its records and its place
// among the active ones are one commit.
func (g *stage) Create(ctx context.Context, spec batch.Spec, once batch.Once) (batch.Batch, error) {
	if err := g.finish(ctx); err != nil {
		return batch.Batch{}, err
	}
	if g.items == 0 {
		return batch.Batch{}, batch.Refuse(batch.Invalid, "empty_batch", "a batch has at least one item")
	}
	spec.ID, spec.Tenant, spec.Items, spec.Blocks, spec.Bytes = g.key.Batch, g.key.Tenant, g.items, g.blocks, g.size
	spec.Created = spec.Created.Truncate(time.Millisecond)
	b := batch.Batch{Spec: spec, Progress: batch.Progress{Status: batch.Queued, Round: 1, Open: g.blocks, Version: 1}}
	b.Accept(spec.Options, spec.Created)
	err := acknowledge(func() error {
		return g.s.do(g.s.small, g.weight, func(t *txn) error {
			if err := t.begin(&b, once); err != nil {
				return err
			}
			t.after(func() { g.s.adopt(&b.Spec, b.Progress) })
			return broken(g.keep(t))
		})
	})
	if err != nil {
		return batch.Batch{}, err
	}
	g.over = true
	hint(g.s.changed)
	b.WaitingOn = b.Gate(spec.Options).WaitingOn(time.Now())
	return b, nil
}

// OpenBatch makes a batch exist that is sent in parts.
func (s *Store) OpenBatch(ctx context.Context, spec batch.Spec, once batch.Once) (batch.Batch, error) {
	if err := s.ready(ctx); err != nil {
		return batch.Batch{}, err
	}
	spec.Created = spec.Created.Truncate(time.Millisecond)
	spec.Touched = spec.Created
	b := batch.Batch{Spec: spec, Progress: batch.Progress{Status: batch.Open, Round: 1, Version: 1}}
	err := acknowledge(func() error {
		return s.do(s.small, 0, func(t *txn) error {
			if err := t.begin(&b, once); err != nil {
				return err
			}
			return broken(bucketUploads.in(t.Tx).Put(tenantKey(b.Tenant, b.ID), []byte{1}))
		})
	})
	if err != nil {
		return batch.Batch{}, err
	}
	return b, nil
}

// begin writes the records of a new batch down. It refuses before it writes.
func (t *txn) begin(b *batch.Batch, once batch.Once) error {
	key := tenantKey(b.Tenant, b.ID)
	batches := bucketBatches.in(t.Tx)
	if batches.Get(key) != nil {
		return batch.Errorf(batch.Conflict, "the batch exists already")
	}
	if err := batches.Put(key, record.EncodeSpec(key, b.Spec)); err != nil {
		return broken(err)
	}
	if err := bucketProgress.in(t.Tx).Put(key, record.EncodeProgress(key, b.Progress)); err != nil {
		return broken(err)
	}
	if err := bucketActive.in(t.Tx).Put(key, []byte{1}); err != nil {
		return broken(err)
	}
	t.touched = append(t.touched, queued{b.Tenant, b.ID})
	return t.bind(b.Tenant, once, b.ID, 0)
}

// broken marks the failure of a step that has written.
func broken(err error) error {
	if err == nil {
		return nil
	}
	return errBroken{err}
}
