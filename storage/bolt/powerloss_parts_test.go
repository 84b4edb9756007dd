package bolt_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// parts takes one step on the way of a batch that is sent in parts: it is
// opened, has a part put, put again or taken out, and is sealed, or left open
// for good.
func (w *worker) parts(ctx context.Context) error {
	if w.open.ID == (batch.ID{}) {
		spec := batch.Spec{
			ID: batch.NewID(time.Now()), Tenant: tenants[w.rnd.IntN(len(tenants))], Created: time.Now(),
			Options: batch.Options{Processor: "p", IDField: "/n", CallbackURL: "https://receiver-1.example/"}.WithDefaults(),
		}
		var err error
		if w.open, err = w.store.OpenBatch(ctx, spec, w.once("open")); err != nil {
			return fmt.Errorf("open: %w", err)
		}
		return nil
	}
	b := w.open
	switch k := w.rnd.IntN(10); {
	case k < 6:
		return w.part(ctx, b, w.rnd.IntN(3))
	case k < 7:
		if err := w.store.DropPart(ctx, b.Tenant, b.ID, w.rnd.IntN(3)); err != nil {
			return fmt.Errorf("drop part: %w", err)
		}
		return nil
	case k < 8:
		w.open = batch.Batch{}
		return nil
	default:
		sealed, err := w.store.Seal(ctx, batch.Sealing{Tenant: b.Tenant, Batch: b.ID, Parts: -1}, w.once("seal"))
		if code := batch.CodeOf(err); code == batch.Conflict || code == batch.Invalid {
			return nil // parts are missing
		}
		if err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		w.made, w.open = append(w.made, sealed), batch.Batch{}
		return nil
	}
}

func (w *worker) once(what string) batch.Once {
	if w.rnd.IntN(2) == 0 {
		return batch.Once{}
	}
	return batch.Once{Key: fmt.Sprint(what, w.n), Content: batch.Content(what, nil)}
}

// part sends a part. Whether it was there already makes no difference.
func (w *worker) part(ctx context.Context, b batch.Batch, number int) error {
	st := w.store.StagePart(ctx, b.Tenant, b.ID, number)
	defer st.Discard()
	size := sizes[w.rnd.IntN(len(sizes))]
	var index []batch.IndexEntry
	for first, left := 0, size.items; left > 0; {
		bl := batch.Block{First: first}
		for range min(left, batch.BlockItems) {
			it := w.item(first+len(bl.Items), size.bytes)
			bl.Items = append(bl.Items, it)
			index = append(index, batch.IndexEntry{Hash: uint64(len(index)), Index: len(index), Line: -1}) // a hash as good as any
		}
		if err := st.Append(ctx, bl); err != nil {
			return fmt.Errorf("append to part: %w", err)
		}
		first, left = first+len(bl.Items), left-len(bl.Items)
	}
	if err := st.Index(ctx, index); err != nil {
		return fmt.Errorf("append index: %w", err)
	}
	if w.rnd.IntN(6) == 0 {
		return nil // the client went away
	}
	sum := sha256.Sum256(fmt.Append(nil, w.n))
	p := batch.Part{Bytes: 1, SHA256: sum, Content: sum}
	_, err := st.Keep(ctx, p, batch.Room{Items: 1 << 30, Bytes: 1 << 40})
	if err != nil && batch.CodeOf(err) != batch.Conflict {
		return fmt.Errorf("keep part: %w", err)
	}
	return nil
}

// parts shows what there is of a batch that is open.
func (v *viewer) parts(b batch.Batch) error {
	list, err := v.store.Parts(v.ctx, b.Tenant, b.ID)
	if err != nil {
		return fmt.Errorf("parts: %w", err)
	}
	v.line("  open, touched %s", b.Touched)
	for _, p := range list {
		v.line("  part %+v", p)
	}
	return nil
}
