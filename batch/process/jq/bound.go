package jq

import (
	"encoding/json"
	"math/big"
)

// maxDepth is how deep an output may be nested: what readers of JSON take.
const maxDepth = 10_000

// A bound adds up the least a value takes as JSON, and stops once there is no
// room. Parts of a value may be shared, so its text can be exponentially
// larger than its memory: it must be known to fit before it is written.
type bound struct {
	room  int // bytes left; negative: it does not fit
	depth int
	deep  bool // deeper than maxDepth
}

func (b *bound) take(value any) {
	switch v := value.(type) {
	case string:
		b.room -= len(v) + 2
	case json.Number:
		b.room -= len(v)
	case *big.Int:
		b.room -= v.BitLen() * 3 / 10 // a digit is a little more than 3.3 bits
	case []any:
		b.room -= len(v) + 1
		b.enter()
		for i := 0; i < len(v) && !b.over(); i++ {
			b.take(v[i])
		}
		b.depth--
	case map[string]any:
		b.room--
		b.enter()
		for name, member := range v {
			if b.over() {
				break
			}
			b.room -= len(name) + 4
			b.take(member)
		}
		b.depth--
	default:
		b.room--
	}
}

func (b *bound) enter() {
	b.depth++
	b.deep = b.deep || b.depth > maxDepth
}

func (b *bound) over() bool { return b.deep || b.room < 0 }
