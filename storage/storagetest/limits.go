package storagetest

import (
	"bytes"
	"slices"
	"strings"

	"github.com/callbatch/callbatch/batch"
)

// mebi is the most one item and one output may have.
const mebi = 1 << 20

// big returns a JSON string of n bytes.
func big(n int, fill string) []byte {
	return []byte(`"` + strings.Repeat(fill, (n-2)/len(fill)+1)[:n-2] + `"`)
}

// limits: the largest of everything that may be asked for.
var limits = cases{
	{"an item and an output of 1 MiB are kept byte for byte", func(s *fixture) {
		m := called(3, 1)
		m.Options.CallbackPageBytes = batch.MaxPageBytes
		m.Item = func(i int) batch.Item {
			return batch.Item{ID: strings.Repeat("i", batch.MaxItemID), Raw: big(mebi, string('a'+rune(i)))}
		}
		g := s.create(m)
		for _, w := range s.claimAll() {
			r := finish(w)
			r.Results[0].Status, r.Results[0].Payload = batch.ItemSucceeded, big(mebi, "output ")
			s.record(r)
		}
		for i := range 3 {
			it, err := s.Item(s.ctx, g.Tenant, g.ID, i)
			s.ok(err)
			if !bytes.Equal(it.Input, g.items[i].Raw) || !bytes.Equal(it.Result.Payload, big(mebi, "output ")) {
				s.t.Fatalf("item %d is not what it was", i)
			}
		}
	}},
	{"a page of outputs of 1 MiB is bounded and the walk complete", func(s *fixture) {
		g := s.create(sample{Items: 6})
		w := s.claim()
		for i := range 6 {
			r := partly(w, i)
			r.Results[0].Status, r.Results[0].Payload = batch.ItemSucceeded, big(mebi, "output ")
			r.Release = i == 5
			s.record(r)
		}
		if n := len(s.page(g, batch.ResultQuery{Limit: 1000}).Results); n > 2 {
			s.t.Fatalf("a page of at most 1 MiB has %d results of 1 MiB", n)
		}
		rs := s.results(g, batch.ResultQuery{})
		s.same("results", len(rs), 6)
		if slices.ContainsFunc(rs, func(r batch.Result) bool { return !bytes.Equal(r.Payload, big(mebi, "output ")) }) {
			s.t.Fatalf("an output is not what it was")
		}
	}},
	{"a block of 256 items of 1 KiB is one claim and one record", func(s *fixture) {
		g := s.create(sample{Items: batch.BlockItems, Item: func(int) batch.Item { return batch.Item{Raw: big(batch.BlockBytes/batch.BlockItems, "x")} }})
		w := s.claim()
		s.same("items", len(w.Items), batch.BlockItems)
		s.record(finish(w))
		s.stands(g, batch.Completed, g.tally(every(batch.BlockItems)...))
	}},
	{"a batch of 100,000 items goes its whole road", func(s *fixture) {
		g := s.create(sample{Items: 100_000, Options: batch.Options{CallbackURL: hook, CallbackMode: batch.ModeSummary}})
		ws := s.claimAll()
		s.same("blocks", len(ws), 391)
		s.ok(s.each(ws, 64))
		s.stands(g, batch.Completed, batch.Tally{Succeeded: 80_000, Failed: 20_000})
		s.same("the last results", s.results(g, batch.ResultQuery{From: 99_990}), g.expected(every(100_000)[99_990:]...))
		s.same("message", s.takeOne().Batch, g.ID)
	}},
	{"a batch of 100,000 items is canceled by arithmetic", func(s *fixture) {
		g := s.create(called(100_000, batch.BlockItems))
		s.record(finish(s.claim()))
		s.cancel(g)
		done := g.tally(every(batch.BlockItems)...)
		done.Canceled = 100_000 - batch.BlockItems
		s.ends(g, batch.Canceled, done)
	}},
}
