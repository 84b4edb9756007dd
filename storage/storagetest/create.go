package storagetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// strange returns items whose bytes a store might be tempted to tidy.
func strange(i int) batch.Item {
	raws := []string{
		`{"b":1,"a":2,"b2":{"x":[ ]}}`, `"` + strings.Repeat("é\u2028", 40) + `"`, `1e400`, `-0.0`, `null`, `"\u0000\ud83d\ude00"`,
		`[1, 2,	3]`, `{"html":"<script>&</script>"}`, `12345678901234567890123`, `"` + strings.Repeat("x", 3000) + `"`, `""`,
	}
	it := batch.Item{Raw: []byte(raws[i%len(raws)])}
	if i%3 > 0 {
		it.ID = fmt.Sprintf("A-%d \"ü\"\n", i)
	}
	return it
}

// bulky describes an upload of 5 MiB in many blocks: more than a store would
// keep in memory.
func bulky() sample {
	return sample{Items: 80, PerBlock: 2, Item: func(i int) batch.Item {
		return batch.Item{Raw: fmt.Appendf(nil, `"%d %s"`, i, strings.Repeat("b", 64<<10))}
	}}
}

// creating: a batch is there whole or not at all.
var creating = cases{
	{"a batch is there whole, with every byte of its items", func(s *fixture) {
		g := s.create(sample{Items: 600, Item: strange})
		b := s.batch(g)
		s.same("status", b.Status, batch.Queued)
		s.same("round", b.Round, 1)
		s.same("open blocks", b.Open, 3)
		s.same("counts", b.Counts(), batch.Counts{Total: 600, Pending: 600})
		for i, want := range g.items {
			it, err := s.Item(s.ctx, g.Tenant, g.ID, i)
			s.ok(err)
			s.same("item", it, batch.ItemView{Index: i, ID: want.ID, Input: want.Raw})
		}
		s.same("claimed blocks", len(s.claimAll()), 3)
	}},
	{"what was asked for comes back as it was asked", func(s *fixture) {
		s.create(sample{
			Tenant: tenant(9), Items: 3, PerBlock: 2, BaseURL: "https://batch.example/x",
			Options: batch.Options{
				CallbackURL: hook, CallbackMode: batch.ModeSummary, CallbackPageBytes: 4096, CallbackPageItems: 7, IDField: "/a~1b",
				Metadata: map[string]string{"run": "nightly", "é\x00\"": "\u2028 <&>", "empty": ""},
				Priority: batch.PriorityHigh, MaxAttempts: 3, Concurrency: 12,
			},
		})
	}},
	{"what is staged is nobody's to see before Create", func(s *fixture) {
		g := bulky().given()
		st, err := s.stage(g)
		s.ok(err)
		defer st.Discard()
		s.absent(g)
		_, err = st.Create(s.ctx, batch.Spec{Options: g.Options, Created: g.Created}, batch.Once{})
		s.ok(err)
		s.made.add(g)
		s.same("claimed blocks", len(s.claimAll()), 40)
	}},
	{"a discarded stage leaves nothing, not even where its id is used again", func(s *fixture) {
		g := bulky().given()
		st, err := s.stage(g)
		s.ok(err)
		st.Discard()
		st.Discard()
		s.absent(g)
		s.create(sample{ID: g.ID, Items: 3, PerBlock: 2, Item: strange})
		s.same("claimed blocks", len(s.claimAll()), 2)
	}},
	{"Discard after Create does nothing", func(s *fixture) {
		g := bulky().given()
		st, err := s.stage(g)
		s.ok(err)
		_, err = st.Create(s.ctx, batch.Spec{Options: g.Options, Created: g.Created}, batch.Once{})
		s.ok(err)
		s.made.add(g)
		st.Discard()
		s.same("claimed blocks", len(s.claimAll()), 40)
	}},
	{"uploads of many blocks side by side do not mix", func(s *fixture) {
		s.together(8, func(n int) error {
			m := bulky()
			m.Tenant = tenant(byte(n % 3))
			m.Item = func(i int) batch.Item {
				return batch.Item{ID: fmt.Sprint(n, "/", i), Raw: fmt.Appendf(nil, `"%d %d %s"`, n, i, strings.Repeat("z", 32<<10))}
			}
			return s.submit(m.given())
		})
		s.same("claimed blocks", len(s.claimAll()), 8*40)
	}},
	{"small batches of many callers at once are all kept", func(s *fixture) {
		s.together(64, func(n int) error {
			for range 4 {
				if err := s.submit(sample{Tenant: tenant(byte(n % 2))}.given()); err != nil {
					return err
				}
			}
			return nil
		})
		s.same("batches", len(s.made.all()), 256)
		s.same("claimed blocks", len(s.claimAll()), 256)
	}},
	{"who waits for Changed is woken by a new batch", func(s *fixture) {
		select {
		case <-s.Changed():
		default:
		}
		s.create(sample{})
		select {
		case <-s.Changed():
		case <-time.After(patience):
			s.t.Fatalf("no hint within %v", patience)
		}
	}},
}

// absent fails if anything of g can be seen.
func (s *fixture) absent(g *given) {
	s.t.Helper()
	_, err := s.Batch(s.ctx, g.Tenant, g.ID)
	s.refused(err, batch.NotFound)
	_, err = s.Item(s.ctx, g.Tenant, g.ID, 0)
	s.refused(err, batch.NotFound)
	s.same("batches", s.list(batch.BatchQuery{Tenant: g.Tenant, Limit: 10}), []batch.ID(nil))
	s.idle()
	_, due, err := s.NextDue(s.ctx, []string{work})
	s.ok(err)
	s.same("something is due", due, false)
}
