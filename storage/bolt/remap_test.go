package bolt

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// A file that outgrows its address space is mapped anew while readers come
// and go; nobody waits for ever.
func TestTheFileOutgrowsItsMap(t *testing.T) {
	ctx := t.Context()
	s, err := Open(filepath.Join(t.TempDir(), "callbatch.db"), Options{MmapBytes: 1 << 20, GrowBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ids := make(chan batch.ID, 1)
	go func() {
		defer close(ids)
		raw := bytes.Repeat([]byte("7"), 200<<10)
		for range 20 {
			id := batch.NewID(time.Now())
			g := s.Stage(ctx, batch.TenantID{}, id)
			for n := range 20 {
				if err := g.Append(ctx, batch.Block{First: n, Items: []batch.Item{{Raw: raw}}}); err != nil {
					t.Error(err)
				}
			}
			if _, err := g.Create(ctx, batch.Spec{Created: time.Now()}, batch.Once{}); err != nil {
				t.Error(err)
			}
			ids <- id
		}
	}()
	for id := range ids {
		for n := range 20 {
			v, err := s.Item(ctx, batch.TenantID{}, id, n)
			if err != nil || len(v.Input) != 200<<10 {
				t.Fatalf("item %d: %d bytes, %v", n, len(v.Input), err)
			}
		}
	}
	if err := s.Check(context.Background()); err != nil {
		t.Error(err)
	}
}
