package record

import (
	"github.com/callbatch/callbatch/batch"
)

// EncodeBlock returns a block as it stands under key.
func EncodeBlock(key []byte, b batch.Block) []byte {
	n := 20
	for _, it := range b.Items {
		n += len(it.ID) + len(it.Raw) + 10
	}
	p := begin(KindBlock, n)
	p = appendInt(p, b.First)
	p = appendInt(p, len(b.Items))
	for _, it := range b.Items {
		p = appendBytes(p, it.ID)
		p = appendBytes(p, it.Raw)
	}
	return seal(key, p)
}

// DecodeBlock reads a block; its items share payload, which must be the
// caller's own.
func DecodeBlock(payload []byte) (batch.Block, error) {
	r := reader{b: payload}
	b := batch.Block{First: r.int()}
	n := r.count()
	b.Items = make([]batch.Item, n)
	for i := range b.Items {
		b.Items[i] = batch.Item{ID: r.string(), Raw: r.bytes()}
	}
	return b, r.err()
}

// BlockSpan reads only where a block begins and how many items it has.
func BlockSpan(payload []byte) (first, count int, err error) {
	r := reader{b: payload}
	first, count = r.int(), r.int()
	if r.bad {
		return 0, 0, errShape
	}
	return first, count, nil
}
