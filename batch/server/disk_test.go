package server

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage"
)

// left returns a disk with so many bytes free, as it was seen just now.
func left(free int64) *disk {
	return &disk{at: time.Now().Add(time.Hour), free: free, total: 100 << 30}
}

func TestDisk(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		d                  *disk
		accepting, working bool
	}{
		"much is left":                      {left(50 << 30), true, true},
		"less than a twentieth is left":     {left(4 << 30), false, true},
		"too little to work":                {left(200 * mib), false, false},
		"a setting for less refuses later":  {&disk{at: time.Now().Add(time.Hour), free: 300 * mib, minFree: 100 * mib}, true, true},
		"and does not let work start later": {&disk{at: time.Now().Add(time.Hour), free: 200 * mib, minFree: 100 * mib}, true, false},
		"that has a setting of its own":     {&disk{at: time.Now().Add(time.Hour), free: 200 * mib, minWork: 100 * mib}, false, true},
		"a disk that cannot be asked":       {&disk{dir: "/does/not/exist"}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.d.accepting(); (err == nil) != c.accepting || err != nil && batch.CodeOf(err) != batch.Full {
				t.Errorf("accepting: %v", err)
			}
			if got := c.d.working(); got != c.working {
				t.Errorf("working: %v", got)
			}
		})
	}
}

func TestAStoreOnAFullDisk(t *testing.T) {
	st, err := storage.Open(t.Context(), filepath.Join(t.TempDir(), "s.db"), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	roomy, full := cautious{st, left(50 << 30)}, cautious{st, left(1 << 20)}
	item := batch.Block{Items: []batch.Item{{Raw: []byte("1")}}}
	g := roomy.Stage(t.Context(), batch.TenantID{}, batch.NewID(time.Now()))
	if err := g.Append(t.Context(), item); err != nil {
		t.Fatal(err)
	}
	_, err = g.Create(t.Context(), batch.Spec{Created: time.Now(), Options: batch.Options{Processor: "p"}}, batch.Once{})
	if err != nil {
		t.Fatal(err)
	}
	g = full.Stage(t.Context(), batch.TenantID{}, batch.NewID(time.Now()))
	if err := g.Append(t.Context(), item); batch.CodeOf(err) != batch.Full {
		t.Errorf("an upload goes on: %v", err)
	}
	g.Discard()
	claim := batch.Claim{Owner: "n", Processors: []string{"p"}, Blocks: 1, PerBatch: 1}
	if ws, err := full.Claim(t.Context(), claim); err != nil || len(ws) != 0 {
		t.Errorf("%d blocks are claimed, %v", len(ws), err)
	}
	if ws, err := roomy.Claim(t.Context(), claim); err != nil || len(ws) != 1 {
		t.Errorf("%d blocks are claimed when there is room, %v", len(ws), err)
	}
}
