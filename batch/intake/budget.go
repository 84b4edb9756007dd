package intake

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/callbatch/callbatch/batch"
)

const (
	freeBytes      = 128 << 10 // what a body may hold beyond the buffer it is read through, and never asks for
	budgetStep     = 64 << 10  // what is asked for at once
	budgetPatience = 2 * time.Second

	stagedBytes = 1 << 20 // of what was appended, a stage holds so much before it puts it away
)

// A Budget bounds what all bodies that are read with it hold in memory
// together: how many they are, and what each needs beyond a fixed part: for a
// long line, a JSON value, a record of CSV, fields, ids, blocks, the window of
// zstd. The fixed part is enough for nearly every body of less than 32 KiB. It
// is safe for concurrent use.
type Budget struct{ bytes, bodies *semaphore.Weighted }

// NewBudget returns a budget of so many bytes for so many bodies.
func NewBudget(bytes int64, bodies int) *Budget {
	return &Budget{semaphore.NewWeighted(bytes), semaphore.NewWeighted(int64(bodies))}
}

// ReadAll reads a body that is not one of many items, and is small or rare. It
// does not count as one of the bodies.
func (b *Budget) ReadAll(ctx context.Context, r io.Reader) ([]byte, error) {
	s := &share{of: b, ctx: ctx}
	defer s.release()
	return io.ReadAll(&kept{r: r, share: s})
}

// A share is what one body holds of a budget. One that is of none may hold
// anything.
type share struct {
	of    *Budget         // nil: none
	ctx   context.Context // of the one reading it serves
	held  int             // by the body
	taken int64           // of the budget for that
}

// enter begins the reading of a body.
func (b *Budget) enter(ctx context.Context) (*share, error) {
	if b != nil && !b.bodies.TryAcquire(1) {
		return nil, batch.Refuse(batch.Unavailable, "overloaded", "so many bodies are being received that there is no place for one more: try again in a moment")
	}
	return &share{of: b, ctx: ctx}, nil
}

// leave ends the reading of a body.
func (s *share) leave() {
	s.release()
	if s.of != nil {
		s.of.bodies.Release(1)
	}
}

// release gives back what was taken.
func (s *share) release() {
	if s.of != nil {
		s.of.bytes.Release(s.taken)
	}
}

// grow says that a buffer of which *held was known will have size bytes, and
// waits a while if there is no room for that: [batch.Unavailable] if none comes
// free. What shrinks is not given back before the body is done.
func (s *share) grow(held *int, size int) error {
	if size <= *held || s.of == nil {
		return nil
	}
	s.held += size - *held
	*held = size
	lacks := int64(s.held-freeBytes) - s.taken
	if lacks <= 0 {
		return nil
	}
	more := (lacks + budgetStep - 1) / budgetStep * budgetStep
	ctx, cancel := context.WithTimeout(s.ctx, budgetPatience)
	defer cancel()
	if s.of.bytes.Acquire(ctx, more) == nil {
		s.taken += more
		return nil
	}
	if err := s.ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", errIncomplete(), err)
	}
	return batch.Refuse(batch.Unavailable, "overloaded", "so much is being received that there is no memory for more of this body: try again in a moment")
}

// kept reads what is kept as a whole, in a buffer that doubles.
type kept struct {
	r     io.Reader
	share *share
	held  int
	n     int // bytes read
}

func (k *kept) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	k.n += n
	if e := k.share.grow(&k.held, 2*k.n); e != nil {
		return n, e
	}
	return n, err
}
