package record

import (
	"encoding/binary"

	"github.com/callbatch/callbatch/batch"
)

// EncodePart returns a part of a batch as it stands under key.
func EncodePart(key []byte, p batch.Part) []byte {
	b := begin(KindPart, 112)
	for _, n := range []int{p.Number, int(p.Key), p.Items, p.Blocks, int(p.Size), int(p.Bytes)} {
		b = appendInt(b, n)
	}
	b = append(append(b, p.SHA256[:]...), p.Content[:]...)
	b = appendTime(b, p.Sent)
	return seal(key, b)
}

// DecodePart reads a part of a batch.
func DecodePart(payload []byte) (batch.Part, error) {
	r := reader{b: payload}
	p := batch.Part{
		Number: r.int(), Key: uint32(r.int()), Items: r.int(), Blocks: r.int(), Size: int64(r.int()), Bytes: int64(r.int()),
	}
	copy(p.SHA256[:], r.take(len(p.SHA256)))
	copy(p.Content[:], r.take(len(p.Content)))
	p.Sent = r.time()
	return p, r.err()
}

// EncodeIndex returns entries of an index, by hash, as they stand under key.
func EncodeIndex(key []byte, entries []batch.IndexEntry) []byte {
	b := begin(KindIndex, 12*len(entries)+4)
	b = appendInt(b, len(entries))
	last := uint64(0)
	for _, e := range entries {
		b = binary.AppendUvarint(b, e.Hash-last)
		b = appendInt(b, e.Index)
		b = appendInt(b, max(0, e.Line-e.Index)) // a line is behind its index, mostly by one
		last = e.Hash
	}
	return seal(key, b)
}

// EachEntry calls f with the entries of an index, in order, until it says no.
func EachEntry(payload []byte, f func(batch.IndexEntry) bool) error {
	r := reader{b: payload}
	n := r.count()
	e := batch.IndexEntry{}
	for range n {
		e.Hash += r.uint()
		e.Index, e.Line = r.int(), r.int()
		if e.Line > 0 {
			e.Line += e.Index
		} else {
			e.Line = -1
		}
		if r.bad {
			return errShape
		}
		if !f(e) {
			return nil
		}
	}
	return r.err()
}

// EncodeBinding returns what an Idempotency-Key is bound to.
func EncodeBinding(key []byte, b batch.Binding) []byte {
	p := begin(KindBinding, 64)
	p = append(append(p, b.Content[:]...), b.Batch[:]...)
	p = appendInt(p, b.Count)
	p = appendTime(p, b.Made)
	return seal(key, p)
}

// DecodeBinding reads what an Idempotency-Key is bound to.
func DecodeBinding(payload []byte) (b batch.Binding, err error) {
	r := reader{b: payload}
	copy(b.Content[:], r.take(len(b.Content)))
	b.Batch, b.Count, b.Made = r.id(), r.int(), r.time()
	return b, r.err()
}
