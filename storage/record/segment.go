package record

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/callbatch/callbatch/batch"
)

// A Segment is some results of one block and round, as they were recorded
// together.
type Segment struct {
	Tally   batch.Tally
	Digest  uint64 // sum of the results' digests
	Results []batch.Result
}

// NewSegment returns results as a segment: sorted by index, counted and
// digested. It sorts in place.
func NewSegment(results []batch.Result) Segment {
	slices.SortFunc(results, func(a, b batch.Result) int { return a.Index - b.Index })
	s := Segment{Results: results}
	for _, r := range results {
		s.Tally.Add(r.Status, 1)
		s.Digest += digest(r)
	}
	return s
}

// digest hashes what must never change of a result. The sum of the digests
// does not depend on the order in which results were recorded or folded.
func digest(r batch.Result) uint64 {
	var head [64]byte
	b := appendInt(head[:0], r.Round)
	b = appendInt(b, r.Index)
	b = append(b, byte(r.Status))
	b = appendInt(b, r.Attempts)
	b = appendTime(b, r.Finished)
	b = binary.BigEndian.AppendUint64(b, xxhash.Sum64(r.Payload))
	return xxhash.Sum64(b)
}

// EncodeSegment returns a segment as it stands under key; first is the index
// of the block's first item.
func EncodeSegment(key []byte, first int, s Segment) []byte {
	n := 64
	for _, r := range s.Results {
		n += len(r.ID) + len(r.Payload) + 24
	}
	p := begin(KindSegment, n)
	p = binary.BigEndian.AppendUint64(p, s.Digest)
	p = appendTally(p, s.Tally)
	p = appendInt(p, len(s.Results))
	for _, r := range s.Results {
		p = appendInt(p, r.Index-first)
		p = append(p, byte(r.Status))
		p = appendInt(p, r.Attempts)
		p = appendTime(p, r.Finished)
		p = appendBytes(p, r.ID)
		p = appendBytes(p, r.Payload)
	}
	return seal(key, p)
}

// DecodeSegment reads a segment of a block that begins at first and of a
// round; its results share payload, which must be the caller's own.
func DecodeSegment(payload []byte, first, round int) (Segment, error) {
	r := reader{b: payload}
	s := Segment{Digest: r.fixed64(), Tally: r.tally()}
	n := r.count()
	s.Results = make([]batch.Result, n)
	for i := range s.Results {
		res := &s.Results[i]
		res.Index, res.Round = first+r.int(), round
		res.Status = batch.ItemStatus(r.byte())
		res.Attempts, res.Finished = r.int(), r.time()
		res.ID, res.Payload = r.string(), r.bytes()
	}
	return s, r.err()
}

// SegmentSums reads only a segment's tally and digest.
func SegmentSums(payload []byte) (batch.Tally, uint64, error) {
	r := reader{b: payload}
	d, t := r.fixed64(), r.tally()
	if r.bad {
		return t, d, errShape
	}
	return t, d, nil
}

func appendTally(p []byte, t batch.Tally) []byte {
	for _, n := range []int{t.Succeeded, t.Failed, t.Canceled, t.Expired} {
		p = appendInt(p, n)
	}
	return p
}

func (r *reader) tally() batch.Tally {
	return batch.Tally{Succeeded: r.int(), Failed: r.int(), Canceled: r.int(), Expired: r.int()}
}
