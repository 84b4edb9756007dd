package batch

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// MaxOnceKey is how many characters an Idempotency-Key has at most, and
// BindingKept how long one is remembered at least.
const (
	MaxOnceKey  = 256
	BindingKept = 24 * time.Hour
)

// Once is what makes a request that comes again do its work one time only. The
// zero value asks for nothing.
type Once struct {
	Key     string            // the client's; empty: none
	Content [sha256.Size]byte // what is asked for, the operation included: see [Content]
}

// A Binding is what came of the first request with a key. It is kept in the
// transaction that does what the request asks for.
type Binding struct {
	Content [sha256.Size]byte
	Batch   ID  // it was about; zero: none
	Count   int // it answered with, if it did
	Made    time.Time
}

// Content returns the digest of what a request asks for: an operation, by
// method and path, and whatever goes with it. A key that is used on another
// operation is used for other content.
func Content(operation string, with []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(binary.AppendUvarint(nil, uint64(len(operation))))
	h.Write([]byte(operation))
	h.Write(with)
	h.Sum(sum[:0])
	return sum
}

// Replays says whether a request with the key of a binding is the same again:
// [Invalid] with reason idempotency_mismatch if it asks for something else.
func (b Binding) Replays(content [sha256.Size]byte) error {
	if b.Content != content {
		return Refuse(Invalid, "idempotency_mismatch", "the Idempotency-Key belongs to a request with other content: use a new one for each request")
	}
	return nil
}

// Binds returns the binding that a request leaves behind, given the one that
// is there: none may be.
func (o Once) Binds(there *Binding, batch ID, count int, now time.Time) (Binding, error) {
	if there != nil {
		return Binding{}, InProgress()
	}
	return Binding{Content: o.Content, Batch: batch, Count: count, Made: now}, nil
}

// InProgress is the refusal of a request whose key another one bears that has
// not been answered yet.
func InProgress() error {
	return Refuse(Conflict, "idempotency_in_progress", "a request with this Idempotency-Key is being received: ask again when it is answered, or its connection has ended")
}

// Old reports whether a binding has been remembered long enough.
func (b Binding) Old(now time.Time) bool { return !now.Before(b.Made.Add(BindingKept)) }
