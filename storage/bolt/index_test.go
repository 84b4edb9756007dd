package bolt

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
)

func TestSealsThatCompareIDsWaitForEachOther(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "store"))
	b, err := s.OpenBatch(t.Context(), batch.Spec{ID: batch.NewID(time.Now()), Created: time.Now(), Options: batch.Options{IDField: "/id"}}, batch.Once{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		g := s.StagePart(t.Context(), b.Tenant, b.ID, n)
		id := fmt.Sprint(n)
		err := errors.Join(
			g.Append(t.Context(), batch.Block{Items: []batch.Item{{ID: id, Raw: []byte(`{"id":"` + id + `"}`)}}}),
			g.Index(t.Context(), []batch.IndexEntry{{Hash: batch.HashID([]byte(id)), Line: -1}}),
		)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Keep(t.Context(), batch.Part{}, batch.Room{Items: 9, Bytes: 999}); err != nil {
			t.Fatal(err)
		}
	}
	for range mostCompare {
		s.comparing <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Seal(ctx, batch.Sealing{Batch: b.ID, Parts: 2}, batch.Once{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more than may compares ids: %v", err)
	}
	<-s.comparing
	if _, err := s.Seal(t.Context(), batch.Sealing{Batch: b.ID, Parts: 2}, batch.Once{}); err != nil || len(s.comparing) != mostCompare-1 {
		t.Errorf("%v, and %d places are taken", err, len(s.comparing))
	}
}
