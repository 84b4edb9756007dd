package storagetest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// claiming: a due block is in one pair of hands, and nobody is passed by.
var claiming = cases{
	{"nobody holds a block that another holds", func(s *fixture) {
		s.create(sample{Items: 100, PerBlock: 1})
		s.create(sample{Items: 100, PerBlock: 1})
		var held sync.Map
		s.together(8, func(n int) error { return s.claimInto(fmt.Sprint("node-", n), &held) })
		blocks := 0
		held.Range(func(any, any) bool { blocks++; return true })
		s.same("blocks held", blocks, 200)
	}},
	{"a released block is claimed again, its items as they were", func(s *fixture) {
		g := s.create(sample{Items: 4})
		w := s.claim()
		s.idle()
		s.record(released(partly(w, 1)))
		next := s.claim()
		s.same("items", indexes(next), []int{0, 2, 3})
		if next.Lease == w.Lease {
			s.t.Fatalf("the lease of a released block was given out again: %+v", w.Lease)
		}
		s.record(finish(next))
		s.stands(g, batch.Completed, g.tally(every(4)...))
	}},
	{"an owner has no more than PerBatch blocks of a batch in its hands", func(s *fixture) {
		s.create(sample{Items: 10, PerBlock: 1})
		c := batch.Claim{Owner: "node-a", Processors: []string{work}, Blocks: 10, PerBatch: 3}
		ws := s.claimAs(c)
		s.same("blocks at first", len(ws), 3)
		s.same("blocks with three in hand", len(s.claimAs(c)), 0)
		s.record(letGo(ws[0]), finish(ws[1]))
		s.same("blocks after two were released", len(s.claimAs(c)), 2)
		s.same("blocks with three in hand", len(s.claimAs(c)), 0)
		c.PerBatch = 4
		s.same("blocks with more room", len(s.claimAs(c)), 1)
	}},
	{"batches of processors that are not asked for are left alone", func(s *fixture) {
		s.create(sample{Options: batch.Options{Processor: "other"}})
		g := s.create(sample{})
		s.create(sample{Options: batch.Options{Processor: "workshop"}})
		w := s.claim()
		s.same("batch", w.Lease.Block.Batch, g.ID)
		s.idle()
		c := everything(10)
		c.Processors = []string{"workshop", "unheard of", "other"}
		s.same("blocks for those who serve them", len(s.claimAs(c)), 2)
		c.Processors = nil
		s.same("blocks for who serves nothing", len(s.claimAs(c)), 0)
	}},
	{"a batch of one item is not passed by for one of thousands of blocks", func(s *fixture) {
		s.create(sample{Items: 2000, PerBlock: 1})
		s.claimAs(everything(1))
		small := s.create(sample{})
		s.soon(small, 16)
	}},
	{"tenants take turns, however much one of them has", func(s *fixture) {
		for range 30 {
			s.create(sample{Tenant: tenant(1), Items: 4, PerBlock: 1})
		}
		s.claimAs(everything(1))
		small := s.create(sample{Tenant: tenant(2)})
		s.soon(small, 16)
	}},
	{"a call for many blocks takes them from every batch there is", func(s *fixture) {
		for range 4 {
			s.create(sample{Items: 40, PerBlock: 1})
		}
		seen := map[batch.ID]int{}
		for _, w := range s.claimAs(everything(40)) {
			seen[w.Lease.Block.Batch]++
		}
		s.same("batches with a block claimed", len(seen), 4)
	}},
	{"an item waits for its time and the rest of its block does not", func(s *fixture) {
		g := s.create(sample{Items: 4})
		hour := now().Add(time.Hour)
		r := released(partly(s.claim(), 0))
		r.Again = []batch.Again{{Index: 2, Attempts: 1, Due: hour}}
		s.record(r)
		w := s.claim()
		s.same("items", indexes(w), []int{1, 3})
		s.record(finish(w))
		s.idle()
		at, some, err := s.NextDue(s.ctx, []string{work})
		s.ok(err)
		s.same("next due", []any{at.UTC(), some}, []any{hour, true})
		s.stands(g, batch.Running, g.tally(0, 1, 3))
	}},
	{"an item comes with its attempts, and how many of them were deaths", func(s *fixture) {
		s.create(sample{Items: 3})
		s.record(batch.Report{Lease: s.claim().Lease, Started: now(), Release: true, Again: []batch.Again{
			{Index: 0, Attempts: 2, Deaths: 2, Due: now()}, {Index: 2, Attempts: 1, Due: now()},
		}})
		tried := func() (made [][2]int) {
			w := s.claim()
			for _, it := range w.Items {
				made = append(made, [2]int{it.Attempts, it.Deaths})
			}
			s.record(letGo(w))
			return made
		}
		want := [][2]int{{2, 2}, {0, 0}, {1, 0}}
		s.same("made", tried(), want)
		s.restart()
		s.same("made, after a restart", tried(), want)
	}},
	{"a block whose items all wait is claimed when the first of them is due", func(s *fixture) {
		s.create(sample{Items: 2})
		soon := now().Add(60 * time.Millisecond)
		s.record(batch.Report{Lease: s.claim().Lease, Started: now(), Release: true, Again: []batch.Again{
			{Index: 0, Attempts: 1, Due: now().Add(time.Hour)}, {Index: 1, Attempts: 2, Due: soon},
		}})
		at, some, err := s.NextDue(s.ctx, []string{work})
		s.ok(err)
		if !some || !at.IsZero() && !at.Equal(soon) {
			s.t.Fatalf("next due is %v, %v; want %v", at, some, soon)
		}
		var ws []batch.Work
		s.eventually("the item is due", func() bool {
			ws = s.claimAs(everything(1))
			return len(ws) > 0
		})
		if time.Now().Before(soon) {
			s.t.Fatalf("claimed before %v", soon)
		}
		s.same("items", indexes(ws[0]), []int{1})
		s.same("attempts", ws[0].Items[0].Attempts, 2)
	}},
	{"NextDue knows what is due at once, and sends nobody in circles", func(s *fixture) {
		_, some, err := s.NextDue(s.ctx, []string{work})
		s.ok(err)
		s.same("due in an empty store", some, false)
		s.create(sample{})
		at, some, err := s.NextDue(s.ctx, []string{work})
		s.ok(err)
		s.same("due with a new batch", []any{at.IsZero(), some}, []any{true, true})
		w := s.claim()
		s.idle()
		_, some, err = s.NextDue(s.ctx, []string{work})
		s.ok(err)
		s.same("due while it is held", some, false)
		s.record(finish(w))
		s.idle()
		_, some, err = s.NextDue(s.ctx, []string{work})
		s.ok(err)
		s.same("due when it is finished", some, false)
	}},
	{"what is in flight is shown, and why nothing is", func(s *fixture) {
		g := s.create(sample{Items: 5})
		w := s.claim()
		s.renew(batch.Holding{Tenant: g.Tenant, Batch: g.ID, Leases: []batch.Lease{w.Lease}, InFlight: 3})
		s.same("counts", s.batch(g).Counts(), batch.Counts{Total: 5, Pending: 2, Running: 3})
		s.renew(batch.Holding{Tenant: g.Tenant, Batch: g.ID, Leases: []batch.Lease{w.Lease}, WaitingOn: "rate_limit"})
		b := s.batch(g)
		s.same("counts", b.Counts(), batch.Counts{Total: 5, Pending: 5})
		s.same("waiting on", b.WaitingOn, "rate_limit")
		s.record(finish(w))
		s.same("waiting on", s.batch(g).WaitingOn, "")
	}},
	{"Renew names the leases that are lost", func(s *fixture) {
		g := s.create(sample{Items: 3, PerBlock: 1})
		ws := s.claimAll()
		s.record(letGo(ws[0]), finish(ws[1]))
		s.claim()
		r := s.renew(batch.Holding{Tenant: g.Tenant, Batch: g.ID, Leases: []batch.Lease{ws[0].Lease, ws[2].Lease, ws[1].Lease}})
		lost := map[batch.BlockKey]bool{}
		for _, l := range r.Lost {
			lost[l.Block] = true
		}
		s.same("lost", lost, map[batch.BlockKey]bool{ws[0].Lease.Block: true, ws[1].Lease.Block: true})
		s.same("stop", r.Stop, []batch.ID(nil))
		s.record(finish(ws[2]))
	}},
	{"what a claim returned is the caller's own", func(s *fixture) {
		g := s.create(sample{Items: 20, Item: strange})
		w := s.claim()
		for _, it := range w.Items {
			clear(it.Raw)
		}
		s.record(letGo(w))
		s.same("items", len(s.claim().Items), g.Items)
	}},
}

// claimInto claims as owner until nothing is due, by a few blocks a call.
func (s *fixture) claimInto(owner string, held *sync.Map) error {
	c := everything(3)
	c.Owner = owner
	for {
		ws, err := s.Claim(s.ctx, c)
		if err != nil || len(ws) == 0 {
			return err
		}
		for _, w := range ws {
			if other, taken := held.LoadOrStore(w.Lease.Block, owner); taken {
				return fmt.Errorf("%s and %v hold block %d", owner, other, w.Lease.Block.Number)
			}
			err = errors.Join(err, s.made.holds(w))
		}
		if err != nil {
			return err
		}
	}
}

// soon claims one block at a time and fails if none of the first n is g's.
func (s *fixture) soon(g *given, n int) {
	s.t.Helper()
	for range n {
		if s.claim().Lease.Block.Batch == g.ID {
			return
		}
	}
	s.t.Fatalf("none of %d blocks was of the batch that came last", n)
}

func (s *fixture) renew(h ...batch.Holding) batch.Renewed {
	s.t.Helper()
	r, err := s.Renew(s.ctx, node, h)
	s.ok(err)
	return r
}

// indexes returns which items work is about.
func indexes(w batch.Work) []int {
	var is []int
	for _, it := range w.Items {
		is = append(is, it.Index)
	}
	return is
}
