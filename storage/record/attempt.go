package record

import (
	"maps"
	"slices"

	"github.com/callbatch/callbatch/batch"
)

// EncodeAttempt returns an attempt as it stands under key. Its start is kept
// to the millisecond.
func EncodeAttempt(key []byte, a batch.Attempt) []byte {
	n := 256
	if a.Response != nil {
		n += len(a.Response.Body)
	}
	b := begin(KindAttempt, n)
	b = appendInt(b, a.Number)
	b = appendTime(b, a.Started)
	for _, ms := range []int64{a.Took.DNS, a.Took.Connect, a.Took.TLS, a.Took.FirstByte, a.Took.Total} {
		b = appendInt(b, int(ms))
	}
	b = appendBytes(b, a.RemoteAddr)
	b = append(b, flags(a.Response != nil, a.Error != nil))
	b = appendPairs(b, a.RequestHeaders)
	if r := a.Response; r != nil {
		b = appendInt(b, r.Status)
		b = appendPairs(b, r.Headers)
		b = appendBytes(b, r.Body)
		b = append(b, flag(r.Truncated))
	}
	if e := a.Error; e != nil {
		b = appendBytes(b, e.Category)
		b = appendBytes(b, e.Detail)
	}
	return seal(key, b)
}

// DecodeAttempt reads an attempt.
func DecodeAttempt(payload []byte) (batch.Attempt, error) {
	r := reader{b: payload}
	a := batch.Attempt{Number: r.int(), Started: r.time()}
	for _, ms := range []*int64{&a.Took.DNS, &a.Took.Connect, &a.Took.TLS, &a.Took.FirstByte, &a.Took.Total} {
		*ms = int64(r.int())
	}
	a.RemoteAddr = r.string()
	f := r.byte()
	a.RequestHeaders = r.pairs()
	if f&1 != 0 {
		a.Response = &batch.Response{Status: r.int(), Headers: r.pairs(), Body: r.string(), Truncated: r.byte() == 1}
	}
	if f&2 != 0 {
		a.Error = &batch.AttemptError{Category: r.string(), Detail: r.string()}
	}
	return a, r.err()
}

// appendPairs appends a map in the order of its keys.
func appendPairs(b []byte, m map[string]string) []byte {
	b = appendInt(b, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b = appendBytes(appendBytes(b, k), m[k])
	}
	return b
}

// pairs reads a map; an empty one is nil.
func (r *reader) pairs() map[string]string {
	n := r.count()
	if n == 0 {
		return nil
	}
	m := make(map[string]string, min(n, 16))
	for range n {
		k := r.string()
		m[k] = r.string()
	}
	return m
}
