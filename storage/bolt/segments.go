package bolt

import (
	"bytes"
	"math"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// Segments of a block and round are folded into one when there are maxSegments
// of them, unless they are so large together that it would not pay. Results
// are sorted by index when they are read, so folding never changes what
// anybody sees.
const (
	maxSegments = 8
	foldBytes   = 1 << 20
)

// putSegment adds results to a block. hadAny says that it may have some of
// this round already.
func putSegment(t *txn, k batch.BlockKey, first, round int, seg record.Segment, hadAny bool) error {
	b := bucketSegments.in(t.Tx)
	n := 0
	if hadAny {
		size := 0
		prefix := segmentKey(k, round, 0)[:28]
		c := b.Cursor()
		for key, v := c.Seek(prefix); bytes.HasPrefix(key, prefix); key, v = c.Next() {
			n, size = n+1, size+len(v)
		}
		if n >= maxSegments && size <= foldBytes {
			old, err := readSegments(t.Tx, k, first, round, whole)
			if err != nil {
				return err
			}
			for i := range old { // what they share is about to be deleted
				old[i].Payload = bytes.Clone(old[i].Payload)
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

// A stretch is the items with from <= index < to.
type stretch struct{ from, to int }

var whole = stretch{0, math.MaxInt}

// readSegments returns the results of a block in one round, by index. Their
// payloads are part of the mapped file: whoever keeps one clones it.
func readSegments(tx *bbolt.Tx, k batch.BlockKey, first, round int, in stretch) ([]batch.Result, error) {
	return collect(tx, segmentKey(k, round, 0)[:28], first, in)
}

// readTally counts the results of a block in all rounds.
func readTally(tx *bbolt.Tx, k batch.BlockKey) (done batch.Tally, err error) {
	prefix := blockKey(k)
	c := bucketSegments.in(tx).Cursor()
	for key, v := c.Seek(prefix); bytes.HasPrefix(key, prefix); key, v = c.Next() {
		p, err := record.Open(record.KindSegment, key, v)
		if err != nil {
			return done, err
		}
		t, _, err := record.SegmentSums(p)
		if err != nil {
			return done, err
		}
		done = done.Plus(t)
	}
	return done, nil
}

// collect returns the results under a prefix, by index, then round. Their
// payloads are part of the mapped file: whoever keeps one clones it.
func collect(tx *bbolt.Tx, prefix []byte, first int, in stretch) ([]batch.Result, error) {
	var all []batch.Result
	c := bucketSegments.in(tx).Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		p, err := record.Open(record.KindSegment, k, v)
		if err != nil {
			return nil, err
		}
		seg, err := record.DecodeSegment(p, first, segmentRound(k))
		if err != nil {
			return nil, err
		}
		for _, r := range seg.Results {
			if r.Index >= in.from && r.Index < in.to {
				all = append(all, r)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b batch.Result) int {
		if a.Index != b.Index {
			return a.Index - b.Index
		}
		return a.Round - b.Round
	})
	return all, nil
}
