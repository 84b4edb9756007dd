package bolt

import (
	"bytes"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// maxSegments is how many segments of a block and round stand before the next
// one folds them into one. Results are sorted by index when they are read, so
// folding never changes what anybody sees.
const maxSegments = 8

// putSegment adds results to a block. hadAny says that it may have some of
// this round already.
func putSegment(t *txn, k batch.BlockKey, first, round int, seg record.Segment, hadAny bool) error {
	b := bucket(t.Tx, bucketSegments)
	n := 0
	if hadAny {
		prefix := segmentKey(k, round, 0)[:28]
		c := b.Cursor()
		for key, _ := c.Seek(prefix); bytes.HasPrefix(key, prefix); key, _ = c.Next() {
			n++
		}
		if n >= maxSegments {
			old, err := readSegments(t.Tx, k, first, round)
			if err != nil {
				return err
			}
			for i := range n {
				if err := b.Delete(segmentKey(k, round, i)); err != nil {
					return err
				}
			}
			seg, n = record.NewSegment(append(old, seg.Results...)), 0
		}
	}
	key := segmentKey(k, round, n)
	return b.Put(key, record.EncodeSegment(key, first, seg))
}

// readSegments returns the results of a block in one round, by index. They
// are the caller's own.
func readSegments(tx *bbolt.Tx, k batch.BlockKey, first, round int) ([]batch.Result, error) {
	return collect(tx, segmentKey(k, round, 0)[:28], first)
}

// readResults returns the results of a block in all rounds: for each item the
// latest, by index.
func readResults(tx *bbolt.Tx, k batch.BlockKey, first int) ([]batch.Result, error) {
	all, err := collect(tx, blockKey(k), first)
	if err != nil {
		return nil, err
	}
	// Sorted by index and round: keep the last of each index.
	out := all[:0]
	for i, r := range all {
		if i+1 == len(all) || all[i+1].Index != r.Index {
			out = append(out, r)
		}
	}
	return out, nil
}

// collect returns the results under a prefix, by index, then round.
func collect(tx *bbolt.Tx, prefix []byte, first int) ([]batch.Result, error) {
	var all []batch.Result
	c := tx.Bucket(bucketSegments).Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		p, err := record.Open(record.KindSegment, k, v)
		if err != nil {
			return nil, err
		}
		seg, err := record.DecodeSegment(slices.Clone(p), first, segmentRound(k))
		if err != nil {
			return nil, err
		}
		all = append(all, seg.Results...)
	}
	slices.SortStableFunc(all, func(a, b batch.Result) int {
		if a.Index != b.Index {
			return a.Index - b.Index
		}
		return a.Round - b.Round
	})
	return all, nil
}
