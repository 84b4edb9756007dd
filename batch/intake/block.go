package intake

import (
	"bytes"
	"context"
	"fmt"

	"github.com/callbatch/callbatch/batch"
)

// A cutter cuts items into blocks of at most [batch.BlockItems] and
// [batch.BlockBytes]; a larger item is a block of its own. It gathers a block
// in buffers it keeps, so that a block costs one allocation for all its bytes
// and one for all its ids.
type cutter struct {
	stage batch.Sink
	share *share
	first int // index of the first item gathered
	raw   []byte
	ids   []byte
	ends  []end

	held   int // for raw and ids
	staged int // of what was appended, held by the stage
}

// An end is where an item's bytes and id end in the buffers.
type end struct{ raw, id int }

// add copies the next item.
func (c *cutter) add(ctx context.Context, raw, id []byte) error {
	if n := len(c.ends); n == batch.BlockItems || n > 0 && len(c.raw)+len(raw) > batch.BlockBytes {
		if err := c.flush(ctx); err != nil {
			return err
		}
	}
	if err := c.share.grow(&c.held, len(c.raw)+len(raw)+len(c.ids)+len(id)); err != nil {
		return err
	}
	c.raw = append(c.raw, raw...)
	c.ids = append(c.ids, id...)
	c.ends = append(c.ends, end{len(c.raw), len(c.ids)})
	return nil
}

// flush appends what is gathered, if anything, as a block.
func (c *cutter) flush(ctx context.Context) error {
	if len(c.ends) == 0 {
		return nil
	}
	if err := c.share.grow(&c.staged, min(c.staged+len(c.raw), stagedBytes)); err != nil {
		return err
	}
	raw, ids := bytes.Clone(c.raw), string(c.ids)
	items := make([]batch.Item, len(c.ends))
	var from end
	for i, to := range c.ends {
		items[i] = batch.Item{ID: ids[from.id:to.id], Raw: raw[from.raw:to.raw:to.raw]}
		from = to
	}
	b := batch.Block{First: c.first, Items: items}
	c.first += len(items)
	c.raw, c.ids, c.ends = c.raw[:0], c.ids[:0], c.ends[:0]
	if err := c.stage.Append(ctx, b); err != nil {
		return fmt.Errorf("append block: %w", err)
	}
	return nil
}
