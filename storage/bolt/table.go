package bolt

import (
	"bytes"

	"go.etcd.io/bbolt"
)

// A table is a bucket, or the keys of one that begin with a mark, which its
// users neither write nor see.
type table struct {
	name string
	mark byte    // 0: the whole bucket
	fill float64 // how full pages are made that split; 0: half, for keys that come in no order
}

func (t table) String() string {
	if t.mark == 0 {
		return t.name
	}
	return t.name + " " + string(t.mark)
}

// in returns the table's rows as a transaction sees them.
func (t table) in(tx *bbolt.Tx) rows {
	b := tx.Bucket([]byte(t.name))
	if t.fill > 0 {
		b.FillPercent = t.fill
	}
	return rows{b, t.mark}
}

// rows are what a table holds.
type rows struct {
	b    *bbolt.Bucket
	mark byte
}

func (r rows) key(k []byte) []byte {
	if r.mark == 0 {
		return k
	}
	return append(append(make([]byte, 0, 1+len(k)), r.mark), k...)
}

func (r rows) Get(k []byte) []byte           { return r.b.Get(r.key(k)) }
func (r rows) Put(k, v []byte) error         { return r.b.Put(r.key(k), v) }
func (r rows) Delete(k []byte) error         { return r.b.Delete(r.key(k)) }
func (r rows) NextSequence() (uint64, error) { return r.b.NextSequence() }
func (r rows) Cursor() *cursor               { return &cursor{r.b.Cursor(), r} }

// ForEach calls f for every row, in order, until it fails.
func (r rows) ForEach(f func(k, v []byte) error) error {
	c := r.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if err := f(k, v); err != nil {
			return err
		}
	}
	return nil
}

// A cursor walks the rows of a table.
type cursor struct {
	c *bbolt.Cursor
	r rows
}

// own returns a row without its mark, or nothing if it is another table's.
func (c *cursor) own(k, v []byte) ([]byte, []byte) {
	switch {
	case c.r.mark == 0:
		return k, v
	case len(k) == 0 || k[0] != c.r.mark:
		return nil, nil
	default:
		return k[1:], v
	}
}

func (c *cursor) First() (k, v []byte)         { return c.Seek(nil) }
func (c *cursor) Seek(at []byte) (k, v []byte) { return c.own(c.c.Seek(c.r.key(at))) }
func (c *cursor) Next() (k, v []byte)          { return c.own(c.c.Next()) }
func (c *cursor) Prev() (k, v []byte)          { return c.own(c.c.Prev()) }

// Last goes to the last row.
func (c *cursor) Last() (k, v []byte) {
	if c.r.mark == 0 {
		return c.c.Last()
	}
	if k, _ := c.c.Seek([]byte{c.r.mark + 1}); k == nil {
		return c.own(c.c.Last())
	}
	return c.Prev()
}

// deletePrefix deletes up to most rows whose keys have a prefix and says how
// many.
func (r rows) deletePrefix(prefix []byte, most int) (int, error) {
	var keys [][]byte
	c := r.Cursor()
	for k, _ := c.Seek(prefix); len(keys) < most && k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := r.Delete(k); err != nil {
			return 0, err
		}
	}
	return len(keys), nil
}
