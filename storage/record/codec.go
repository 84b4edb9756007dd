package record

import (
	"encoding/binary"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// errShape is what a payload gives that passed its checksum and still is not
// of its shape: another program wrote it.
var errShape = batch.Errorf(batch.Damaged, "a record is not of its shape: it was written by another version")

func appendInt(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) }

func appendBytes[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(appendInt(b, len(s)), s...)
}

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(t.UnixMilli()))
}

// A reader takes a payload apart. The first thing that does not fit stops it;
// err says so at the end.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) int() int { return int(r.uint()) }

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte   { return r.take(r.int()) }
func (r *reader) string() string  { return string(r.bytes()) }
func (r *reader) fixed64() uint64 { return binary.BigEndian.Uint64(pad8(r.take(8))) }

func (r *reader) byte() byte {
	b := r.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (r *reader) id() (id [16]byte) {
	copy(id[:], r.take(16))
	return id
}

func (r *reader) time() time.Time {
	ms := r.uint()
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

// count reads how many elements follow, each of at least one byte, so that a
// bad count cannot ask for more memory than the record has.
func (r *reader) count() int {
	n := r.int()
	if n < 0 || n > len(r.b) {
		r.b, r.bad = nil, true
		return 0
	}
	return n
}

func (r *reader) err() error {
	if r.bad || len(r.b) != 0 {
		return errShape
	}
	return nil
}

func pad8(b []byte) []byte {
	if b == nil {
		return make([]byte, 8)
	}
	return b
}
