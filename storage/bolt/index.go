package bolt

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// eachChunk calls f with the chunks of the index of a part that may hold
// hashes of from and up, in order, until it says no.
func eachChunk(tx *bbolt.Tx, id batch.ID, part uint32, from uint64, f func(least uint64, chunk []byte) (more bool, err error)) error {
	c := bucketIndex.in(tx).Cursor()
	prefix := indexKey(id, part, 0)[:20]
	// Hashes of from and up may stand in the chunk before the one that begins
	// with it or behind it.
	k, v := c.Last()
	if at, _ := c.Seek(indexKey(id, part, from)); at != nil {
		k, v = c.Prev()
	}
	if !bytes.HasPrefix(k, prefix) {
		k, v = c.Seek(indexKey(id, part, from))
	}
	for ; bytes.HasPrefix(k, prefix); k, v = c.Next() {
		p, err := record.Open(record.KindIndex, k, v)
		if err != nil {
			return err
		}
		if more, err := f(be.Uint64(k[20:]), p); err != nil || !more {
			return err
		}
	}
	return nil
}

// entriesIn calls f with the entries of a part whose hash is from to through,
// until it says no.
func entriesIn(tx *bbolt.Tx, id batch.ID, part uint32, from, through uint64, f func(batch.IndexEntry) bool) error {
	return eachChunk(tx, id, part, from, func(least uint64, chunk []byte) (bool, error) {
		if least > through {
			return false, nil
		}
		more := true
		err := record.EachEntry(chunk, func(e batch.IndexEntry) bool {
			if more = e.Hash <= through; more && e.Hash >= from {
				more = f(e)
			}
			return more
		})
		return more, err
	})
}

// FindItem returns the item with an id.
func (s *Store) FindItem(ctx context.Context, tenant batch.TenantID, id batch.ID, item string) (batch.ItemView, error) {
	var b batch.Batch
	err := s.view(ctx, func(tx *bbolt.Tx) (err error) {
		b, err = readBatch(tx, tenant, id)
		return err
	})
	if err == nil {
		err = b.Readable()
	}
	if err != nil {
		return batch.ItemView{}, err
	}
	if b.Options.IDField == "" {
		index, err := strconv.Atoi(item)
		if err != nil || strconv.Itoa(index) != item {
			return batch.ItemView{}, errNoItem
		}
		return s.Item(ctx, tenant, id, index)
	}
	parts := b.Parts
	if len(parts) == 0 {
		parts = batch.Layout{{}}
	}
	for len(parts) > 0 {
		var found *batch.ItemView
		err := s.view(ctx, func(tx *bbolt.Tx) (err error) {
			for until := time.Now().Add(readTime); len(parts) > 0 && found == nil && err == nil && time.Now().Before(until); parts = parts[1:] {
				found, err = findIn(tx, b, parts[0], item)
			}
			return err
		})
		if err != nil {
			return batch.ItemView{}, err
		}
		if found != nil {
			return *found, nil
		}
	}
	return batch.ItemView{}, errNoItem
}

var errNoItem = batch.Errorf(batch.NotFound, "the batch has no item with this id")

// findIn returns the item with an id in one part, nil if that has none.
func findIn(tx *bbolt.Tx, b batch.Batch, part batch.Start, item string) (found *batch.ItemView, err error) {
	var failed error
	hash := batch.HashID([]byte(item))
	err = entriesIn(tx, b.ID, part.Key, hash, hash, func(e batch.IndexEntry) bool {
		v, err := readItem(tx, b.Tenant, b.ID, part.Item+e.Index)
		if failed = err; err == nil && v.ID == item {
			found = &v
		}
		return err == nil && found == nil
	})
	return found, cmp.Or(err, failed)
}

// gathered is how many entries of an index are compared at a time at most, 24
// bytes each, and mostCompare how many batches at a time.
const (
	gathered    = 1 << 20
	mostCompare = 4
)

// repeats refuses a batch in which an id comes again in another part. Entries
// of all parts are gathered by ranges of their hash, so that memory stays flat
// however many there are; ids of one hash are compared as they are.
func (s *Store) repeats(ctx context.Context, spec batch.Spec, parts []batch.Part) error {
	select {
	case s.comparing <- struct{}{}:
		defer func() { <-s.comparing }()
	case <-s.stop:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	found := batch.Repeats{Field: spec.Options.IDField}
	span := math.MaxUint64 / uint64(spec.Items/(gathered/2)+1)
	var entries []entryOf
	for from := uint64(0); ; {
		through := from + min(span, math.MaxUint64-from)
		var err error
		entries, err = s.entriesOf(ctx, spec.ID, parts, from, through, entries[:0])
		if err != nil {
			return err
		}
		if len(entries) > gathered && through > from {
			span = (through - from) / 2 // more of them are here than there should be
			continue
		}
		if err := s.compareIDs(ctx, spec, parts, entries, &found); err != nil {
			return err
		}
		if through == math.MaxUint64 {
			return found.Err()
		}
		from = through + 1
	}
}

// An entryOf is an entry of the index of one of the parts.
type entryOf struct {
	hash              uint64
	part, index, line int32
}

func (e entryOf) place() batch.Place {
	return batch.Place{Part: int(e.part), Index: int(e.index), Line: int(e.line)}
}

// entriesOf returns the entries of all parts whose hash is from to through, in
// short reads, by hash, part and index. It stops behind the most there may be.
func (s *Store) entriesOf(ctx context.Context, id batch.ID, parts []batch.Part, from, through uint64, entries []entryOf) ([]entryOf, error) {
	for n := 0; n < len(parts) && len(entries) <= gathered; {
		err := s.view(ctx, func(tx *bbolt.Tx) error {
			for until := time.Now().Add(readTime); n < len(parts) && len(entries) <= gathered && time.Now().Before(until); n++ {
				err := entriesIn(tx, id, parts[n].Key, from, through, func(e batch.IndexEntry) bool {
					entries = append(entries, entryOf{e.Hash, int32(parts[n].Number), int32(e.Index), int32(e.Line)})
					return len(entries) <= gathered
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(entries, func(a, b entryOf) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.part, b.part), cmp.Compare(a.index, b.index))
	})
	return entries, nil
}

// compareIDs notes which of the sorted entries have an id that came before.
func (s *Store) compareIDs(ctx context.Context, spec batch.Spec, parts []batch.Part, entries []entryOf, found *batch.Repeats) error {
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && entries[n].hash == entries[0].hash {
			n++
		}
		if n > 1 {
			if err := s.compareRun(ctx, spec, parts, entries[:n], found); err != nil {
				return err
			}
		}
		entries = entries[n:]
	}
	return nil
}

// compareRun compares the ids of entries that have the same hash. Those that
// would only be counted are taken for the same.
func (s *Store) compareRun(ctx context.Context, spec batch.Spec, parts []batch.Part, run []entryOf, found *batch.Repeats) error {
	firsts := map[string]entryOf{}
	for i, e := range run {
		if i > 0 && !found.Lists(e.place()) {
			found.Count()
			continue
		}
		id, err := s.idOf(ctx, spec, parts[e.part], int(e.index))
		if err != nil {
			return err
		}
		if first, again := firsts[id]; again {
			found.Add(first.place(), e.place())
		} else {
			firsts[id] = e
		}
	}
	return nil
}

// idOf returns the id of an item of a part.
func (s *Store) idOf(ctx context.Context, spec batch.Spec, p batch.Part, index int) (id string, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		one := batch.Batch{Spec: batch.Spec{ID: spec.ID, Tenant: spec.Tenant, Items: p.Items, Blocks: p.Blocks}}
		one.Parts = batch.Layout{{Key: p.Key}}
		n, err := findBlock(tx, one, index)
		if err != nil {
			return err
		}
		b, err := peekBlock(tx, &one.Spec, one.BlockAt(n))
		if err != nil {
			return err
		}
		id = b.Items[index-b.First].ID
		return nil
	})
	return id, err
}
