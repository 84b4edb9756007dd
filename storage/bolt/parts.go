package bolt

import (
	"bytes"
	"context"
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// A partStage receives a part of an open batch.
type partStage struct {
	upload
	number int
	there  *batch.Part // when it began
}

// A partUpload is an upload of a part that is under way, or being swept.
type partUpload struct {
	id  batch.ID
	key uint32
}

// StagePart opens a place for a part of an open batch. Each upload has a key
// of its own, which no other has that may be on the disk.
func (s *Store) StagePart(ctx context.Context, tenant batch.TenantID, id batch.ID, number int) batch.PartStage {
	g := &partStage{upload: upload{s: s, key: batch.BlockKey{Tenant: tenant, Batch: id}}, number: number}
	for n := range batch.MaxUploads {
		g.key.Part = batch.PartKey(number, n)
		if !s.enrol(partUpload{id, g.key.Part}) {
			continue
		}
		g.row = partRow(tenant, id, g.key.Part)
		free := false
		g.err = s.view(ctx, func(tx *bbolt.Tx) (err error) {
			g.there, err = readPart(tx, id, number)
			free = bucketStaging.in(tx).Get(g.row) == nil && (g.there == nil || g.there.Key != g.key.Part)
			return err
		})
		if free || g.err != nil {
			return g
		}
		s.strike(partUpload{id, g.key.Part})
	}
	g.over, g.err = true, batch.Errorf(batch.Conflict, "part %d is being sent too often at once", number)
	return g
}

// There returns the part that was there already.
func (g *partStage) There() *batch.Part { return g.there }

// enrol reports whether an upload is the only one of its key in this process,
// and makes it that.
func (s *Store) enrol(u partUpload) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.uploads[u]; taken {
		return false
	}
	s.uploads[u] = struct{}{}
	return true
}

func (s *Store) strike(u partUpload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, u)
}

// Keep makes the upload a part of the batch: one commit.
func (g *partStage) Keep(ctx context.Context, p batch.Part, room batch.Room) (kept batch.Part, err error) {
	if err := g.finish(ctx); err != nil {
		return kept, err
	}
	if g.items == 0 {
		return kept, batch.Refuse(batch.Invalid, "empty_part", "a part has at least one item")
	}
	p.Number, p.Key, p.Items, p.Blocks, p.Size = g.number, g.key.Part, g.items, g.blocks, g.size
	err = acknowledge(func() error {
		return g.s.do(g.s.small, g.weight, func(t *txn) error {
			kept, err = g.join(t, p, room)
			return err
		})
	})
	if err == nil && kept.Key == p.Key {
		g.over = true
		g.s.strike(partUpload{g.key.Batch, p.Key})
	}
	return kept, err
}

// join adds the part to the batch, or returns the one that is there.
func (g *partStage) join(t *txn, p batch.Part, room batch.Room) (batch.Part, error) {
	e, b, err := t.open(g.s, g.key.Tenant, g.key.Batch)
	if err != nil {
		return p, err
	}
	there, err := readPart(t.Tx, b.ID, p.Number)
	if err != nil {
		return p, err
	}
	if there != nil {
		return *there, there.Again(p.Content)
	}
	p.Sent = t.now.UTC().Truncate(time.Millisecond)
	if err := b.Add(p, room); err != nil {
		return p, err
	}
	key := partKey(b.ID, p.Number)
	if err := bucketParts.in(t.Tx).Put(key, record.EncodePart(key, p)); err != nil {
		return p, broken(err)
	}
	t.rewrite(e, b)
	return p, broken(g.keep(t))
}

// Discard drops what was appended.
func (g *partStage) Discard() {
	if g.over {
		return
	}
	g.upload.Discard()
	g.s.strike(partUpload{g.key.Batch, g.key.Part})
}

// open returns a batch that is open, as the transaction sees it.
func (t *txn) open(s *Store, tenant batch.TenantID, id batch.ID) (*entry, batch.Batch, error) {
	e, err := t.batch(tenant, id)
	if err != nil {
		return nil, batch.Batch{}, err
	}
	spec, err := t.spec(s, e)
	if err != nil {
		return nil, batch.Batch{}, err
	}
	b := batch.Batch{Spec: *spec, Progress: e.p}
	return e, b, b.Accepts()
}

// rewrite changes the whole of a batch.
func (t *txn) rewrite(e *entry, b batch.Batch) {
	e.spec, e.p, e.respec = &b.Spec, b.Progress, true
	t.change(e)
}

// DropPart takes a part out of an open batch, and then sweeps it.
func (s *Store) DropPart(ctx context.Context, tenant batch.TenantID, id batch.ID, number int) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	var row []byte
	err := s.do(s.small, 0, func(t *txn) error {
		row = nil
		e, b, err := t.open(s, tenant, id)
		if err != nil {
			return err
		}
		p, err := readPart(t.Tx, id, number)
		if err != nil || p == nil {
			return err
		}
		if err := b.Remove(*p, t.now.UTC().Truncate(time.Millisecond)); err != nil {
			return err
		}
		row = partRow(tenant, id, p.Key)
		t.rewrite(e, b)
		return broken(errors.Join(bucketParts.in(t.Tx).Delete(partKey(id, number)), bucketStaging.in(t.Tx).Put(row, []byte{1})))
	})
	if err == nil && row != nil {
		s.sweep(row)
	}
	return err
}

// readPart returns a part of a batch, nil if it has none of the number.
func readPart(tx *bbolt.Tx, id batch.ID, number int) (*batch.Part, error) {
	key := partKey(id, number)
	v := bucketParts.in(tx).Get(key)
	if v == nil {
		return nil, nil
	}
	p, err := openPart(key, v)
	return &p, err
}

func openPart(k, v []byte) (batch.Part, error) {
	p, err := record.Open(record.KindPart, k, v)
	if err != nil {
		return batch.Part{}, err
	}
	return record.DecodePart(p)
}

// readParts returns the parts of a batch, by number. There are at most
// [batch.MaxParts], small ones.
func readParts(tx *bbolt.Tx, id batch.ID) (parts []batch.Part, err error) {
	c := bucketParts.in(tx).Cursor()
	for k, v := c.Seek(id[:]); bytes.HasPrefix(k, id[:]); k, v = c.Next() {
		p, err := openPart(k, v)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// Parts returns the parts of a batch.
func (s *Store) Parts(ctx context.Context, tenant batch.TenantID, id batch.ID) (parts []batch.Part, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		if _, err := readProgress(tx, tenantKey(tenant, id)); err != nil {
			return err
		}
		parts, err = readParts(tx, id)
		return err
	})
	return parts, err
}

// Seal ends the sending of parts. What takes long is looked at before; the
// commit makes sure that nothing has changed meanwhile.
func (s *Store) Seal(ctx context.Context, r batch.Sealing, once batch.Once) (b batch.Batch, err error) {
	if err := s.ready(ctx); err != nil {
		return b, err
	}
	var parts []batch.Part
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		if b, err = readBatch(tx, r.Tenant, r.Batch); err != nil {
			return err
		}
		parts, err = readParts(tx, r.Batch)
		return err
	})
	if err == nil {
		err = b.Accepts()
	}
	if err == nil {
		err = batch.CheckParts(parts, r.Parts)
	}
	if err == nil && b.Options.IDField != "" && len(parts) > 1 {
		err = s.repeats(ctx, b.Spec, parts)
	}
	if err != nil {
		return batch.Batch{}, err
	}
	seen, layout := b.Version, batch.NewLayout(parts)
	err = acknowledge(func() error {
		return s.do(s.small, 0, func(t *txn) error {
			e, sealed, err := t.open(s, r.Tenant, r.Batch)
			if err != nil {
				return err
			}
			if sealed.Version != seen {
				return batch.Refuse(batch.Conflict, "parts_changed", "a part came or went, or the batch was changed, while it was being sealed: seal it again")
			}
			if err := sealed.Seal(layout, t.now.UTC().Truncate(time.Millisecond)); err != nil {
				return err
			}
			b = sealed
			t.rewrite(e, sealed)
			t.after(func() { s.adopt(&sealed.Spec, sealed.Progress) })
			if err := bucketUploads.in(t.Tx).Delete(e.key); err != nil {
				return broken(err)
			}
			return t.bind(r.Tenant, once, r.Batch, 0)
		})
	})
	if err != nil {
		return batch.Batch{}, err
	}
	hint(s.changed)
	b.WaitingOn = b.Gate(b.Options).WaitingOn(time.Now())
	return b, nil
}
