package record

import "github.com/callbatch/callbatch/batch"

// EncodeState returns a block's state as it stands under key: runs of equal
// item states, so that a block which went as expected takes a few bytes. Status and deaths share a byte.
func EncodeState(key []byte, s batch.BlockState) []byte {
	p := begin(KindState, 32)
	p = appendInt(p, s.Round)
	p = append(p, flag(s.Closed))
	for i := 0; i < len(s.Items); {
		n := 1
		for i+n < len(s.Items) && s.Items[i+n] == s.Items[i] {
			n++
		}
		p = appendInt(p, n)
		p = append(p, byte(s.Items[i].Status)|byte(s.Items[i].Deaths)<<4)
		p = appendInt(p, s.Items[i].Attempts)
		p = appendTime(p, s.Items[i].Due)
		i += n
	}
	return seal(key, p)
}

// DecodeState reads a block's state.
func DecodeState(payload []byte) (batch.BlockState, error) {
	r := reader{b: payload}
	s := batch.BlockState{Round: r.int(), Closed: r.byte() == 1}
	for len(r.b) > 0 {
		n := r.int()
		b := r.byte()
		it := batch.ItemState{Status: batch.ItemStatus(b & 0xf), Deaths: int(b >> 4), Attempts: r.int(), Due: r.time()}
		if n < 1 || len(s.Items)+n > batch.BlockItems {
			return s, errShape
		}
		for range n {
			s.Items = append(s.Items, it)
		}
	}
	return s, r.err()
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// flags packs up to eight, the first into the lowest bit.
func flags(bs ...bool) (f byte) {
	for i, b := range bs {
		f |= flag(b) << i
	}
	return f
}
