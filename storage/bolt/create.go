package bolt

import (
	"context"
	"fmt"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// An upload of up to stageBytes becomes durable in one commit with its batch;
// a larger one is staged in chunks of that size, at most stageAhead of them
// under way.
const (
	stageBytes = 1 << 20
	stageAhead = 4
)

// A stage receives the blocks of one batch.
type stage struct {
	s      *Store
	tenant batch.TenantID
	id     batch.ID

	items, blocks int
	bytes         int64

	chunk   []put   // not handed to the committer yet
	size    int     // of chunk
	pending []*step // handed over, not answered
	staged  bool    // something may be on disk under the id
	over    bool    // created or discarded
	err     error
}

type put struct{ key, value []byte }

// Stage opens a place for the blocks of a batch that does not exist yet.
func (s *Store) Stage(_ context.Context, tenant batch.TenantID, id batch.ID) batch.Stage {
	return &stage{s: s, tenant: tenant, id: id}
}

// Append adds the next block.
func (g *stage) Append(ctx context.Context, b batch.Block) error {
	if g.err != nil {
		return g.err
	}
	if err := g.s.ready(ctx); err != nil {
		return err
	}
	key := blockKey(batch.BlockKey{Batch: g.id, Number: uint32(g.blocks)})
	v := record.EncodeBlock(key, b)
	if g.size > 0 && g.size+len(v) > stageBytes {
		if err := g.handOver(); err != nil {
			return err
		}
	}
	g.chunk, g.size = append(g.chunk, put{key, v}), g.size+len(v)
	g.items, g.blocks = g.items+len(b.Items), g.blocks+1
	for _, it := range b.Items {
		g.bytes += int64(len(it.Raw))
	}
	return nil
}

// handOver gives the chunk to the committer and waits if too much is on its
// way.
func (g *stage) handOver() error {
	chunk, tenant, id := g.chunk, g.tenant, g.id
	g.chunk, g.size, g.staged = nil, 0, true
	st := &step{bytes: stageBytes, done: make(chan error, 1), apply: func(t *txn) error {
		if err := bucketStaging.in(t.Tx).Put(tenantKey(tenant, id), []byte{1}); err != nil {
			return err
		}
		return putBlocks(t, chunk)
	}}
	if g.err = g.s.submit(g.s.bulk, st); g.err != nil {
		return g.err
	}
	g.pending = append(g.pending, st)
	return g.await(stageAhead)
}

// await waits until fewer than n chunks are under way.
func (g *stage) await(n int) error {
	for len(g.pending) >= n && len(g.pending) > 0 {
		if err := <-g.pending[0].done; err != nil && g.err == nil {
			g.err = fmt.Errorf("stage: %w", err)
		}
		g.pending = g.pending[1:]
	}
	return g.err
}

func putBlocks(t *txn, chunk []put) error {
	blocks, open := bucketBlocks.in(t.Tx), bucketOpen.in(t.Tx)
	for _, p := range chunk {
		if err := blocks.Put(p.key, p.value); err != nil {
			return err
		}
		k := batch.BlockKey{Part: be.Uint32(p.key[16:]), Number: be.Uint32(p.key[20:])}
		copy(k.Batch[:], p.key)
		if err := open.Put(openKey(k, time.Time{}), []byte{0}); err != nil {
			return err
		}
	}
	return nil
}

// Create makes the batch exist: its last blocks, its records and its place
// among the active ones are one commit.
func (g *stage) Create(ctx context.Context, spec batch.Spec) (batch.Batch, error) {
	if g.over {
		return batch.Batch{}, batch.Errorf(batch.Conflict, "the upload is over")
	}
	if err := g.await(1); err != nil {
		return batch.Batch{}, err
	}
	if err := g.s.ready(ctx); err != nil {
		return batch.Batch{}, err
	}
	if g.items == 0 {
		return batch.Batch{}, batch.Refuse(batch.Invalid, "empty_batch", "a batch has at least one item")
	}
	spec.ID, spec.Tenant, spec.Items, spec.Blocks, spec.Bytes = g.id, g.tenant, g.items, g.blocks, g.bytes
	spec.Created = spec.Created.Truncate(time.Millisecond)
	p := batch.Progress{Status: batch.Queued, Round: 1, Open: g.blocks, Version: 1}
	p.Accept(spec.Options, spec.Created)
	key := tenantKey(g.tenant, g.id)
	specRec := record.EncodeSpec(key, spec)
	err := acknowledge(func() error {
		return g.s.do(g.s.small, g.size, func(t *txn) error { return g.create(t, key, specRec, &spec, p) })
	})
	if err != nil {
		return batch.Batch{}, err
	}
	g.over = true
	return batch.Batch{Spec: spec, Progress: p, WaitingOn: p.Gate(spec.Options).WaitingOn(time.Now())}, nil
}

func (g *stage) create(t *txn, key, specRec []byte, spec *batch.Spec, p batch.Progress) error {
	batches := bucketBatches.in(t.Tx)
	if batches.Get(key) != nil {
		return batch.Errorf(batch.Conflict, "the batch exists already")
	}
	if err := putBlocks(t, g.chunk); err != nil {
		return err
	}
	if err := batches.Put(key, specRec); err != nil {
		return err
	}
	if err := bucketProgress.in(t.Tx).Put(key, record.EncodeProgress(key, p)); err != nil {
		return err
	}
	if err := bucketActive.in(t.Tx).Put(key, []byte{1}); err != nil {
		return err
	}
	if g.staged {
		if err := bucketStaging.in(t.Tx).Delete(key); err != nil {
			return err
		}
	}
	t.after(func() { g.s.adopt(spec, p) })
	return nil
}

// Discard drops what was appended.
func (g *stage) Discard() {
	if g.over {
		return
	}
	g.over, g.chunk = true, nil
	_ = g.await(1)
	if g.staged {
		g.s.sweep(g.tenant, g.id)
	}
}

// sweepChunk is how many blocks of an abandoned upload go in one step.
const sweepChunk = 64

// sweep removes an abandoned upload, in steps. What it does not get to, the
// next start does.
func (s *Store) sweep(tenant batch.TenantID, id batch.ID) {
	for more := true; more; {
		err := s.do(s.bulk, stageBytes, func(t *txn) error {
			if staged := bucketStaging.in(t.Tx).Get(tenantKey(tenant, id)); staged == nil {
				more = false // it became a batch, or is gone
				return nil
			}
			n, err := bucketBlocks.in(t.Tx).deletePrefix(id[:], sweepChunk)
			if err != nil {
				return err
			}
			if _, err := bucketOpen.in(t.Tx).deletePrefix(id[:], sweepChunk); err != nil {
				return err
			}
			if more = n == sweepChunk; more {
				return nil
			}
			return bucketStaging.in(t.Tx).Delete(tenantKey(tenant, id))
		})
		if err != nil {
			s.log.Warn("an abandoned upload stays until the next start", "batch_id", id, "error", err)
			return
		}
	}
}
