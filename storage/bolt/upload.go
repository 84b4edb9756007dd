package bolt

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// An upload of up to stageBytes becomes durable in one commit with what it is
// for; a larger one is staged in chunks of that size, at most stageAhead of
// them under way.
const (
	stageBytes = 1 << 20
	stageAhead = 4
)

// An upload receives the items of a batch, or of a part of one.
type upload struct {
	s   *Store
	key batch.BlockKey // of the next block
	row []byte         // its key among those under way

	items, blocks int
	size          int64 // of the items

	chunk   []put   // not handed to the committer yet
	weight  int     // of chunk
	pending []*step // handed over, not answered
	staged  bool    // something may be on disk
	over    bool    // kept or discarded
	err     error
}

// A put is a row to be written.
type put struct {
	to         table
	key, value []byte
}

// Append adds the next block.
func (u *upload) Append(ctx context.Context, b batch.Block) error {
	key := blockKey(u.key)
	if err := u.add(ctx, put{bucketBlocks, key, record.EncodeBlock(key, b)}); err != nil {
		return err
	}
	u.chunk = append(u.chunk, put{bucketOpen, openKey(u.key, time.Time{}), []byte{0}})
	u.items, u.blocks = u.items+len(b.Items), u.blocks+1
	u.key.Number++
	for _, it := range b.Items {
		u.size += int64(len(it.Raw))
	}
	return nil
}

// Index adds the next entries of the index.
func (u *upload) Index(ctx context.Context, entries []batch.IndexEntry) error {
	if len(entries) == 0 {
		return nil
	}
	key := indexKey(u.key.Batch, u.key.Part, entries[0].Hash)
	return u.add(ctx, put{bucketIndex, key, record.EncodeIndex(key, entries)})
}

func (u *upload) add(ctx context.Context, p put) error {
	if u.err != nil {
		return u.err
	}
	if err := u.s.ready(ctx); err != nil {
		return err
	}
	if u.weight > 0 && u.weight+len(p.value) > stageBytes {
		if err := u.handOver(); err != nil {
			return err
		}
	}
	u.chunk, u.weight = append(u.chunk, p), u.weight+len(p.value)
	return nil
}

// handOver gives the chunk to the committer and waits if too much is on its
// way.
func (u *upload) handOver() error {
	chunk, row := u.chunk, u.row
	u.chunk, u.weight, u.staged = nil, 0, true
	st := &step{bytes: stageBytes, done: make(chan error, 1), apply: func(t *txn) error {
		if err := bucketStaging.in(t.Tx).Put(row, []byte{1}); err != nil {
			return err
		}
		return putAll(t, chunk)
	}}
	if u.err = u.s.submit(u.s.bulk, st); u.err != nil {
		return u.err
	}
	u.pending = append(u.pending, st)
	return u.await(stageAhead)
}

// await waits until fewer than n chunks are under way.
func (u *upload) await(n int) error {
	for len(u.pending) >= n && len(u.pending) > 0 {
		if err := <-u.pending[0].done; err != nil && u.err == nil {
			u.err = fmt.Errorf("stage: %w", err)
		}
		u.pending = u.pending[1:]
	}
	return u.err
}

func putAll(t *txn, chunk []put) error {
	tables := map[table]rows{}
	for _, p := range chunk {
		to, known := tables[p.to]
		if !known {
			to = p.to.in(t.Tx)
			tables[p.to] = to
		}
		if err := to.Put(p.key, p.value); err != nil {
			return err
		}
	}
	return nil
}

// finish waits for what is under way before the upload is kept.
func (u *upload) finish(ctx context.Context) error {
	if u.over {
		return batch.Errorf(batch.Conflict, "the upload is over")
	}
	if err := u.await(1); err != nil {
		return err
	}
	return u.s.ready(ctx)
}

// keep writes what was not staged, within the transaction that makes it all
// part of something.
func (u *upload) keep(t *txn) error {
	if err := putAll(t, u.chunk); err != nil {
		return err
	}
	if !u.staged {
		return nil
	}
	return bucketStaging.in(t.Tx).Delete(u.row)
}

// Discard drops what was appended.
func (u *upload) Discard() {
	if u.over {
		return
	}
	u.over, u.chunk = true, nil
	_ = u.await(1)
	if u.staged {
		u.s.sweep(u.row)
	}
}

// sweepChunk is how many rows of each table go in one step of a sweep.
const sweepChunk = 64

// sweep removes, in steps, what stands under a row of bucketStaging: an upload
// that was given up, or a part that was dropped. What it does not get to, the
// next start does.
func (s *Store) sweep(row []byte) {
	_, id := splitTenantKey(row)
	for more := true; more; {
		err := s.do(s.bulk, stageBytes, func(t *txn) (err error) {
			more, err = t.sweep(row)
			return err
		})
		if err != nil {
			s.log.Warn("what is to be removed stays until the next start", "batch_id", batch.ID(id), "error", err)
			return
		}
	}
}

func (t *txn) sweep(row []byte) (more bool, err error) {
	staging := bucketStaging.in(t.Tx)
	if staging.Get(row) == nil {
		return false, nil // it was kept, or is gone
	}
	of := row[16:] // the batch, or a part of it
	prefixes := map[table][]byte{bucketBlocks: of, bucketIndex: of, bucketOpen: of}
	if len(of) > 16 { // nobody has worked on it: its blocks are due as they were
		prefixes[bucketOpen] = slices.Concat(of[:16], make([]byte, 8), of[16:])
	}
	for from, prefix := range prefixes {
		n, err := from.in(t.Tx).deletePrefix(prefix, sweepChunk)
		if err != nil {
			return false, err
		}
		more = more || n == sweepChunk
	}
	if more {
		return true, nil
	}
	return false, staging.Delete(row)
}
