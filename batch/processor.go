package batch

import (
	"context"
	"strconv"
)

// A Call is one attempt at one item, as a processor sees it.
type Call struct {
	Batch   ID
	Index   int
	ID      string // the client's own id of the item, or its index as text
	Round   int
	Attempt int    // from 1
	Item    []byte // the item's JSON; valid until Process returns, not to be changed
}

// Key returns the idempotency key of the item: the same for every attempt of
// a round.
func (c Call) Key() string {
	k := c.Batch.String() + "/" + strconv.Itoa(c.Index)
	if c.Round > 1 {
		k += "/r" + strconv.Itoa(c.Round)
	}
	return k
}

// A Processor works on one item. It is called from many goroutines at once.
//
// It returns exactly one JSON value, or an error: a [*Failure] says with
// which code the item fails or whether to try again; any other error is a
// processor_error whose text clients do not see. When ctx ends it returns
// soon; what it returns then is not recorded, and the attempt not counted.
type Processor interface {
	Process(ctx context.Context, c Call) (output []byte, err error)
}

// ProcessorFunc makes a function a [Processor].
type ProcessorFunc func(ctx context.Context, c Call) ([]byte, error)

// Process calls f.
func (f ProcessorFunc) Process(ctx context.Context, c Call) ([]byte, error) { return f(ctx, c) }
