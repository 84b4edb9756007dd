package storagetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// plenty is more than the parts of any case hold.
var plenty = batch.Room{Items: 1 << 30, Bytes: 1 << 40}

// open makes g exist, open for its parts.
func (s *fixture) openBatch(g *given) (batch.Batch, error) {
	spec := batch.Spec{ID: g.ID, Tenant: g.Tenant, Options: g.Options, BaseURL: g.BaseURL, Created: g.Created}
	b, err := s.OpenBatch(s.ctx, spec, batch.Once{})
	if err != nil {
		return b, fmt.Errorf("open: %w", err)
	}
	return b, nil
}

// part returns the blocks of a part of g, with the indexes of the part, and
// its items.
func (g *given) part(n int) (blocks []batch.Block, items []batch.Item) {
	last := len(g.first)
	if n+1 < len(g.parts) {
		last = g.parts[n+1]
	}
	for i := g.parts[n]; i < last; i++ {
		b := g.block(i)
		items = append(items, b.Items...)
		b.First -= g.first[g.parts[n]]
		blocks = append(blocks, b)
	}
	return blocks, items
}

// sum stands for what the text of items would have.
func sum(items []batch.Item) [sha256.Size]byte {
	h := sha256.New()
	for _, it := range items {
		fmt.Fprintf(h, "%d %s", len(it.Raw), it.Raw)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// stagePart appends a part of g to a new stage.
func (s *fixture) stagePart(g *given, n int) (batch.PartStage, batch.Part, error) {
	st := s.StagePart(s.ctx, g.Tenant, g.ID, n)
	blocks, items := g.part(n)
	for _, b := range blocks {
		if err := st.Append(s.ctx, b); err != nil {
			st.Discard()
			return st, batch.Part{}, fmt.Errorf("append to part %d: %w", n, err)
		}
	}
	return st, batch.Part{Bytes: int64(n + 1), SHA256: sum(items[:1]), Content: sum(items)}, s.index(st, g, items)
}

// put sends a part of g.
func (s *fixture) put(g *given, n int) (batch.Part, error) {
	st, p, err := s.stagePart(g, n)
	if err != nil {
		return p, err
	}
	defer st.Discard()
	return st.Keep(s.ctx, p, plenty)
}

func (s *fixture) seal(g *given) (batch.Batch, error) {
	b, err := s.Seal(s.ctx, batch.Sealing{Tenant: g.Tenant, Batch: g.ID, Parts: len(g.parts)}, batch.Once{})
	if err != nil {
		return b, err
	}
	return b, g.sealed(b)
}

// sealed holds what Seal returned against g and takes over what is the
// store's to choose.
func (g *given) sealed(b batch.Batch) error {
	if len(b.Parts) != len(g.parts) {
		return fmt.Errorf("the batch has %d parts, not %d", len(b.Parts), len(g.parts))
	}
	for n, at := range b.Parts {
		if at.Block != g.parts[n] || at.Item != g.first[g.parts[n]] || batch.PartNumber(at.Key) != n {
			return fmt.Errorf("part %d begins at %+v, not with block %d and item %d", n, at, g.parts[n], g.first[g.parts[n]])
		}
	}
	if b.Accepted.Before(g.Created) || b.Accepted.After(time.Now()) || !b.Touched.IsZero() {
		return fmt.Errorf("the batch was accepted at %v, touched at %v", b.Accepted, b.Touched)
	}
	g.Parts = b.Parts
	return nil
}

// acceptParts makes g exist, sent in parts, the last first.
func (s *fixture) acceptParts(g *given) (batch.Batch, error) {
	if b, err := s.openBatch(g); err != nil {
		return b, err
	}
	for n := len(g.parts) - 1; n >= 0; n-- {
		if _, err := s.put(g, n); err != nil {
			return batch.Batch{}, fmt.Errorf("put part %d: %w", n, err)
		}
	}
	return s.seal(g)
}

// inParts describes a batch of three parts of 4, 4 and 2 items.
func inParts() sample {
	m := called(10, 3)
	m.PerPart = 4
	return m
}

// unsealed makes a batch exist that is open, with some of its parts.
func (s *fixture) unsealed(m sample, parts ...int) *given {
	s.t.Helper()
	g := m.given()
	_, err := s.openBatch(g)
	s.ok(err)
	for _, n := range parts {
		_, err := s.put(g, n)
		s.ok(err)
	}
	return g
}

// has fails unless g is open and has these parts.
func (s *fixture) has(g *given, parts ...int) {
	s.t.Helper()
	b := s.batch(g)
	s.same("status", b.Status, batch.Open)
	there, err := s.Parts(s.ctx, g.Tenant, g.ID)
	s.ok(err)
	var numbers []int
	items, blocks, size := 0, 0, int64(0)
	for _, p := range there {
		numbers = append(numbers, p.Number)
		of, all := g.part(p.Number)
		s.same("part", []any{p.Items, p.Blocks, p.Bytes, p.SHA256, p.Content}, []any{len(all), len(of), int64(p.Number + 1), sum(all[:1]), sum(all)})
		items, blocks, size = items+p.Items, blocks+p.Blocks, size+p.Size
	}
	s.same("parts", numbers, parts)
	s.same("what they hold", []any{b.Items, b.Blocks, b.Bytes, b.Open, b.Counts().Total}, []any{items, blocks, size, blocks, items})
}

// finishOpen seals g, with all its parts, and has it go its road.
func (s *fixture) finishOpen(g *given) {
	s.t.Helper()
	for n := range g.parts {
		_, err := s.put(g, n)
		s.ok(err)
	}
	b, err := s.seal(g)
	s.ok(err)
	s.same("spec", b.Spec, g.Spec)
	s.made.add(g)
	s.complete()
	s.ends(g, batch.Completed, g.tally(every(g.Items)...))
}

// parting: a batch comes in parts and is a batch like any other once it is
// sealed.
var parting = cases{
	{"a batch in parts is there whole, in the order of their numbers", func(s *fixture) {
		m := inParts()
		m.Item = strange
		g := s.create(m)
		for i, want := range g.items {
			it, err := s.Item(s.ctx, g.Tenant, g.ID, i)
			s.ok(err)
			s.same("item", it, batch.ItemView{Index: i, ID: want.ID, Input: want.Raw})
		}
		s.same("claimed blocks", len(s.claimAll()), 5)
	}},
	{"results, messages and bodies are those of the batch, not of its parts", func(s *fixture) {
		g := s.create(inParts())
		ws := s.claimAll()
		var rest []int
		for _, it := range ws[0].Items[1:] {
			rest = append(rest, it.Index)
		}
		s.record(partly(ws[0], ws[0].Items[0].Index), finish(ws[3]))
		s.record(released(partly(ws[0], rest...)), finish(ws[1]), finish(ws[2]), finish(ws[4]))
		s.stands(g, batch.Completed, g.tally(every(10)...))
		s.same("one page", indexesOf(s.results(g, batch.ResultQuery{})), every(10))
		s.same("pages", indexesOf(s.results(g, batch.ResultQuery{Limit: 3})), every(10))
		s.deliver(g)
	}},
	{"the finished prefix stops within a part", func(s *fixture) {
		g := s.create(inParts())
		for _, w := range s.claimAll() {
			if w.Items[0].Index != 4 {
				s.record(finish(w))
			}
		}
		s.same("prefix", indexesOf(s.results(g, batch.ResultQuery{Prefix: true})), every(4))
		p, err := s.Results(s.ctx, g.Tenant, g.ID, batch.ResultQuery{From: 7, Limit: 9})
		s.ok(err)
		s.same("from 7 on", indexesOf(p.Results), []int{7, 8, 9})
	}},
	{"a batch in parts is canceled as any other", func(s *fixture) {
		g := s.create(inParts())
		ws := s.claimAll()
		s.record(finish(ws[1]), partly(ws[2], ws[2].Items[0].Index))
		s.cancel(g)
		for i, w := range ws {
			if i != 1 && i != 2 {
				s.record(letGo(w))
			}
		}
		s.record(letGo(ws[2]))
		s.eventually("the batch ends", func() bool { return s.batch(g).Status.Terminal() })
		s.same("results", len(s.results(g, batch.ResultQuery{})), 10)
		s.deliver(g)
	}},
	{"nothing of an open batch is worked on, and it can be read", func(s *fixture) {
		g := s.unsealed(inParts(), 2, 0)
		s.idle()
		s.has(g, 0, 2)
		s.same("listed", s.list(batch.BatchQuery{Status: batch.Open, Limit: 5}), []batch.ID{g.ID})
		p, err := s.Results(s.ctx, g.Tenant, g.ID, batch.ResultQuery{Limit: 5})
		s.ok(err)
		s.same("results", []any{len(p.Results), p.Last}, []any{0, true})
		_, err = s.Item(s.ctx, g.Tenant, g.ID, 0)
		s.refused(err, batch.Conflict)
		_, err = s.FindItem(s.ctx, g.Tenant, g.ID, "of no item")
		s.refused(err, batch.Conflict)
		_, err = s.Cancel(s.ctx, g.Tenant, g.ID)
		s.refused(err, batch.Conflict)
		_, err = s.Parts(s.ctx, tenant(7), g.ID)
		s.refused(err, batch.NotFound)
		s.finishOpen(g)
	}},
	{"what is staged of a part is nobody's to see, and leaves nothing when it is discarded", func(s *fixture) {
		m := bulky()
		m.PerPart = 40
		g := s.unsealed(m, 1)
		st, p, err := s.stagePart(g, 0)
		s.ok(err)
		s.has(g, 1)
		st.Discard()
		st.Discard()
		s.has(g, 1)
		s.ok(s.Check(s.ctx))
		_, err = st.Keep(s.ctx, p, plenty)
		s.refused(err, batch.Conflict)
		s.finishOpen(g)
	}},
	{"the same part again is the part, with other content it is a conflict", func(s *fixture) {
		g := s.unsealed(inParts(), 0)
		first, err := s.put(g, 1)
		s.ok(err)
		again, err := s.put(g, 1)
		s.ok(err)
		s.same("the part", again, first)
		st, p, err := s.stagePart(g, 1)
		s.ok(err)
		s.same("the part that is there", *st.There(), first)
		s.ok(s.DropPart(s.ctx, g.Tenant, g.ID, 0))
		none := s.StagePart(s.ctx, g.Tenant, g.ID, 0)
		s.same("a part that is there no more", none.There() == nil, true)
		none.Discard()
		_, err = s.put(g, 0)
		s.ok(err)
		p.SHA256[0]++
		p.Bytes++
		again, err = st.Keep(s.ctx, p, plenty)
		s.ok(err)
		s.same("the part in another text", again, first)
		st.Discard()
		st, p, err = s.stagePart(g, 1)
		s.ok(err)
		p.Content[0]++
		_, err = st.Keep(s.ctx, p, plenty)
		s.refused(err, batch.Conflict)
		st.Discard()
		s.has(g, 0, 1)
		s.ok(s.Check(s.ctx))
		s.finishOpen(g)
	}},
	{"uploads of the same part at once leave one", func(s *fixture) {
		m := bulky()
		m.PerPart = 20
		g := s.unsealed(m)
		s.together(8, func(n int) error {
			_, err := s.put(g, n/2)
			return err
		})
		s.has(g, 0, 1, 2, 3)
		s.ok(s.Check(s.ctx))
		s.finishOpen(g)
	}},
	{"a part that is dropped can be sent again", func(s *fixture) {
		m := bulky()
		m.PerPart = 40
		g := s.unsealed(m, 0, 1)
		s.ok(s.DropPart(s.ctx, g.Tenant, g.ID, 0))
		s.ok(s.DropPart(s.ctx, g.Tenant, g.ID, 0))
		s.has(g, 1)
		s.refused(s.DropPart(s.ctx, tenant(7), g.ID, 1), batch.NotFound)
		s.ok(s.Check(s.ctx))
		s.finishOpen(g)
	}},
	{"a batch is sealed when its parts are complete, and then has no part more or less", func(s *fixture) {
		g := s.unsealed(inParts())
		sealing := batch.Sealing{Tenant: g.Tenant, Batch: g.ID, Parts: -1}
		_, err := s.Seal(s.ctx, sealing, batch.Once{})
		s.refused(err, batch.Invalid)
		_, err = s.put(g, 1)
		s.ok(err)
		_, err = s.Seal(s.ctx, sealing, batch.Once{})
		s.refused(err, batch.Conflict)
		_, err = s.put(g, 0)
		s.ok(err)
		_, err = s.seal(g)
		s.refused(err, batch.Conflict)
		foreign := sealing
		foreign.Tenant = tenant(7)
		_, err = s.Seal(s.ctx, foreign, batch.Once{})
		s.refused(err, batch.NotFound)
		late, p, err := s.stagePart(g, 2)
		s.ok(err)
		s.finishOpen(g)
		_, err = late.Keep(s.ctx, p, plenty)
		s.refused(err, batch.Conflict)
		late.Discard()
		s.refused(s.DropPart(s.ctx, g.Tenant, g.ID, 0), batch.Conflict)
		_, err = s.Seal(s.ctx, sealing, batch.Once{})
		s.refused(err, batch.Conflict)
	}},
	{"what is under way when a batch is sealed is no part of it", func(s *fixture) {
		m := bulky()
		m.PerPart = 40
		g := s.unsealed(m, 0, 1)
		again, _, err := s.stagePart(g, 0)
		s.ok(err)
		extra := s.StagePart(s.ctx, g.Tenant, g.ID, 2)
		for _, b := range func() []batch.Block { bs, _ := g.part(0); return bs }() {
			s.ok(extra.Append(s.ctx, b))
		}
		b, err := s.seal(g)
		s.ok(err)
		s.same("spec", b.Spec, g.Spec)
		s.made.add(g)
		ws := s.claimAll()
		s.same("claimed blocks", len(ws), g.Blocks)
		s.record(finishAll(ws)...)
		s.idle()
		s.stands(g, batch.Completed, g.tally(every(g.Items)...))
		again.Discard()
		extra.Discard()
	}},
	{"parts together are bounded", func(s *fixture) {
		g := s.unsealed(inParts(), 0)
		for _, room := range []batch.Room{{Items: 7, Bytes: 1 << 20}, {Items: 100, Bytes: s.batch(g).Bytes + 1}} {
			st, p, err := s.stagePart(g, 1)
			s.ok(err)
			_, err = st.Keep(s.ctx, p, room)
			s.refused(err, batch.TooLarge)
			st.Discard()
		}
		s.has(g, 0)
		st, p, err := s.stagePart(g, 1)
		s.ok(err)
		_, err = st.Keep(s.ctx, p, batch.Room{Items: 8, Bytes: 1 << 20})
		s.ok(err)
		s.finishOpen(g)
	}},
	{"an item is found by its id", func(s *fixture) {
		for _, perPart := range []int{0, 7, 150} {
			m := sample{Items: 450, PerPart: perPart, Options: batch.Options{IDField: "/id"}}
			g := s.create(m)
			for i := 0; i < g.Items; i += 11 {
				it, err := s.FindItem(s.ctx, g.Tenant, g.ID, g.items[i].ID)
				s.ok(err)
				s.same("item", []any{it.Index, it.ID}, []any{i, g.items[i].ID})
			}
			for _, none := range []string{"", "0", "id 450", "ID 1"} {
				_, err := s.FindItem(s.ctx, g.Tenant, g.ID, none)
				s.refused(err, batch.NotFound)
			}
			_, err := s.FindItem(s.ctx, tenant(7), g.ID, "id 0")
			s.refused(err, batch.NotFound)
		}
		g := s.create(sample{Items: 3})
		it, err := s.FindItem(s.ctx, g.Tenant, g.ID, "2")
		s.ok(err)
		s.same("index", it.Index, 2)
		for _, none := range []string{"", "02", "+1", "3", "-1", "id 1"} {
			_, err := s.FindItem(s.ctx, g.Tenant, g.ID, none)
			s.refused(err, batch.NotFound)
		}
	}},
	{"ids that come again in another part are named, and the batch stays open", func(s *fixture) {
		m := sample{Items: 10, PerPart: 4, Options: batch.Options{IDField: "/id"}}
		m.Item = func(i int) batch.Item {
			return batch.Item{ID: fmt.Sprint("id ", i%7), Raw: fmt.Appendf(nil, "%d", i)} // 7 is 0, 8 is 1, 9 is 2
		}
		g := s.unsealed(m, 0, 1, 2)
		_, err := s.seal(g)
		s.refused(err, batch.Invalid)
		var e *batch.Error
		errors.As(err, &e)
		s.same("reason", e.Reason, "duplicate_id")
		s.same("places", len(e.Places), 3)
		for i, p := range e.Places {
			place := 7 + i
			line := place%4 + 1
			if place%4%3 == 2 {
				line = -1
			}
			s.same("place", []any{*p.Part, p.Index, p.Line}, []any{place / 4, place % 4, line})
			if !strings.Contains(p.Detail, "part 0") {
				s.t.Fatalf("the first is not named: %s", p.Detail)
			}
		}
		s.has(g, 0, 1, 2)
	}},
	{"the first hundred of many repeats are listed", func(s *fixture) {
		m := sample{Items: 900, PerPart: 300, Options: batch.Options{IDField: "/id"}}
		m.Item = func(i int) batch.Item { return batch.Item{ID: fmt.Sprint(i % 300), Raw: []byte("1")} }
		g := s.unsealed(m, 0, 1, 2)
		_, err := s.seal(g)
		var e *batch.Error
		if !errors.As(err, &e) || len(e.Places) != batch.MaxProblems || e.More != 500 {
			s.t.Fatalf("error is %v", err)
		}
		for i, p := range e.Places {
			s.same("place", []int{*p.Part, p.Index}, []int{1, i})
		}
	}},
}

// indexesOf returns the indexes of results.
func indexesOf(rs []batch.Result) (is []int) {
	for _, r := range rs {
		is = append(is, r.Index)
	}
	return is
}

// reopenedParts: what was sent of a batch is there after a restart, and what
// was half sent is not. Each case is run as those of reopening.
var reopenedParts = cases{
	{"an upload in parts goes on where it was", func(s *fixture) {
		g := s.unsealed(inParts())
		s.restart()
		for _, n := range []int{2, 0, 1} {
			_, err := s.put(g, n)
			s.ok(err)
			s.restart()
		}
		s.has(g, 0, 1, 2)
		s.ok(s.DropPart(s.ctx, g.Tenant, g.ID, 1))
		s.restart()
		s.has(g, 0, 2)
		s.idle()
		_, err := s.put(g, 1)
		s.ok(err)
		b, err := s.seal(g)
		s.ok(err)
		s.same("spec", b.Spec, g.Spec)
		s.made.add(g)
		s.restart()
		s.complete()
		s.restart()
		s.stands(g, batch.Completed, g.tally(every(10)...))
		s.deliver(g)
	}},
	{"half a part is gone, and what the others hold is not", func(s *fixture) {
		m := bulky()
		m.PerPart = 40
		g := s.unsealed(m, 1)
		for range 2 {
			_, _, err := s.stagePart(g, 0)
			s.ok(err)
		}
		s.restart()
		s.has(g, 1)
		s.ok(s.Check(s.ctx))
		s.finishOpen(g)
	}},
	{"half a part is no part of a batch that was sealed beside it", func(s *fixture) {
		m := bulky()
		m.PerPart = 40
		g := s.unsealed(m, 0, 1)
		_, _, err := s.stagePart(g, 0)
		s.ok(err)
		_, err = s.seal(g)
		s.ok(err)
		s.made.add(g)
		s.restart()
		s.same("claimed blocks", len(s.claimAll()), g.Blocks)
		s.ok(s.Check(s.ctx))
	}},
}

// leftAlone: an open batch that nobody touches is removed.
var leftAlone = cases{
	{"an open batch is removed when nobody has touched it for a day", func(s *fixture) {
		old := s.unsealed(inParts(), 0, 1)
		touched := s.unsealed(inParts(), 0)
		sealed := s.create(inParts())
		s.pass(time.Now().Add(batch.OpenKept - time.Hour))
		_, err := s.put(touched, 2)
		s.ok(err)
		s.has(old, 0, 1)
		w := s.Watch(old.Tenant, &old.ID)
		defer w.Close()
		changed, _ := w.After(w.Version())
		s.pass(time.Now().Add(2 * time.Hour))
		select {
		case <-changed:
		default:
			s.t.Fatalf("who watches it is not told")
		}
		_, err = s.Batch(s.ctx, old.Tenant, old.ID)
		s.refused(err, batch.Gone)
		_, err = s.Parts(s.ctx, old.Tenant, old.ID)
		s.refused(err, batch.Gone)
		s.has(touched, 0, 2)
		s.ok(s.Check(s.ctx))
		s.stands(sealed, batch.Queued, batch.Tally{})
		s.finishOpen(touched)
		s.pass(time.Now().Add(2 * batch.OpenKept))
		s.same("parts", len(slices.Compact(touched.parts)), 3)
		s.stands(touched, batch.Completed, touched.tally(every(10)...))
	}},
}
