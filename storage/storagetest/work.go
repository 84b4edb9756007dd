package storagetest

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// node is the owner that claims where a case does not care.
const node = "node-a"

// everything asks for as many blocks as there may be.
func everything(blocks int) batch.Claim {
	return batch.Claim{Owner: node, Processors: []string{work}, Blocks: blocks, PerBatch: 1 << 20}
}

// claimAs claims and holds what comes back against what was handed in.
func (s *fixture) claimAs(c batch.Claim) []batch.Work {
	s.t.Helper()
	ws, err := s.Claim(s.ctx, c)
	s.ok(err)
	if len(ws) > c.Blocks {
		s.t.Fatalf("claimed %d blocks, asked for %d", len(ws), c.Blocks)
	}
	for _, w := range ws {
		s.ok(s.made.holds(w))
	}
	return ws
}

// holds says what is wrong with claimed work, if anything is.
func (r *register) holds(w batch.Work) error {
	for _, g := range r.all() {
		if g.ID != w.Lease.Block.Batch {
			continue
		}
		if w.Spec == nil || w.Spec.ID != g.ID || w.Spec.Items != g.Items || w.Lease.Block.Tenant != g.Tenant || w.Round != g.round() {
			return fmt.Errorf("work of %v is said to be of round %d, lease %+v, spec %+v", g.ID, w.Round, w.Lease, w.Spec)
		}
		if len(w.Items) == 0 {
			return fmt.Errorf("block %d was claimed without an item", w.Lease.Block.Number)
		}
		for _, it := range w.Items {
			want := g.items[it.Index]
			if it.ID != want.ID || !bytes.Equal(it.Raw, want.Raw) {
				return fmt.Errorf("item %d was claimed as %q %.100s, want %q %.100s", it.Index, it.ID, it.Raw, want.ID, want.Raw)
			}
		}
		return nil
	}
	return fmt.Errorf("claimed work of batch %v, which nobody made", w.Lease.Block.Batch)
}

// claim claims one block and fails if none is due.
func (s *fixture) claim() batch.Work {
	s.t.Helper()
	ws := s.claimAs(everything(1))
	if len(ws) == 0 {
		s.t.Fatalf("nothing to claim")
	}
	return ws[0]
}

// claimAll claims until nothing is due and returns the work in its order.
func (s *fixture) claimAll() []batch.Work {
	s.t.Helper()
	var all []batch.Work
	for {
		ws := s.claimAs(everything(256))
		if len(ws) == 0 {
			break
		}
		all = append(all, ws...)
	}
	slices.SortStableFunc(all, func(a, b batch.Work) int { return cmp.Compare(a.Lease.Block.Number, b.Lease.Block.Number) })
	return all
}

// idle fails if there is anything to claim.
func (s *fixture) idle() {
	s.t.Helper()
	if ws := s.claimAs(everything(10)); len(ws) > 0 {
		s.t.Fatalf("claimed %d blocks, the first %+v; nothing should be due", len(ws), ws[0].Lease)
	}
}

// outcome is the result the suite records for an item. It follows from the
// index, so that every page can be foretold: each fifth item fails.
func outcome(index int, id string) batch.Result {
	r := batch.Result{
		Index: index, ID: id, Status: batch.ItemSucceeded, Attempts: 1, Payload: fmt.Appendf(nil, `{"out":%d}`, index),
		Finished: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(index) * time.Millisecond),
	}
	if index%5 == 3 {
		r.Status = batch.ItemFailed
		r.Payload = (&batch.Failure{Code: batch.CodeUpstreamStatus, Message: "<no> & no", UpstreamStatus: 422}).JSON()
	}
	return r
}

// expected returns the outcomes of the items as the store shows them.
func (g *given) expected(indexes ...int) []batch.Result {
	var rs []batch.Result
	for _, i := range indexes {
		r := outcome(i, g.items[i].ID)
		r.Round = 1
		rs = append(rs, r)
	}
	return rs
}

// every returns the numbers from 0 to n-1.
func every(n int) []int {
	is := make([]int, n)
	for i := range is {
		is[i] = i
	}
	return is
}

// tally counts how the items end if nothing but their outcome befalls them.
func (g *given) tally(indexes ...int) batch.Tally {
	var t batch.Tally
	for _, r := range g.expected(indexes...) {
		t.Add(r.Status, 1)
	}
	return t
}

// partly reports the outcomes of some items of w; the claim goes on.
func partly(w batch.Work, indexes ...int) batch.Report {
	r := batch.Report{Lease: w.Lease, Started: now()}
	for _, i := range indexes {
		id := ""
		for _, it := range w.Items {
			if it.Index == i {
				id = it.ID
			}
		}
		r.Results = append(r.Results, outcome(i, id))
	}
	return r
}

// finish reports the outcomes of every item of w.
func finish(w batch.Work) batch.Report {
	var is []int
	for _, it := range w.Items {
		is = append(is, it.Index)
	}
	return released(partly(w, is...))
}

// finishAll reports the outcomes of every item of all work.
func finishAll(ws []batch.Work) []batch.Report {
	var rs []batch.Report
	for _, w := range ws {
		rs = append(rs, finish(w))
	}
	return rs
}

func released(r batch.Report) batch.Report {
	r.Release = true
	return r
}

// letGo releases w as it is.
func letGo(w batch.Work) batch.Report { return batch.Report{Lease: w.Lease, Release: true} }

// record records reports that are all in their right.
func (s *fixture) record(reports ...batch.Report) batch.Recorded {
	s.t.Helper()
	rec, err := s.Record(s.ctx, reports, batch.MessageClaim{Owner: node})
	s.ok(err)
	s.same("lost reports", rec.Lost, []int(nil))
	return rec
}

// lost records reports and fails unless exactly those named are lost.
func (s *fixture) lost(want []int, reports ...batch.Report) {
	s.t.Helper()
	rec, err := s.Record(s.ctx, reports, batch.MessageClaim{Owner: node})
	s.ok(err)
	slices.Sort(rec.Lost)
	s.same("lost reports", rec.Lost, want)
}

// complete claims and finishes everything that is due.
func (s *fixture) complete() batch.Recorded {
	s.t.Helper()
	return s.record(finishAll(s.claimAll())...)
}

// results reads a batch's results to their end, page by page, and holds
// every page against the query's bounds.
func (s *fixture) results(g *given, q batch.ResultQuery) []batch.Result {
	s.t.Helper()
	if q.Limit == 0 {
		q.Limit = 1000
	}
	var all []batch.Result
	for {
		p := s.page(g, q)
		all = append(all, p.Results...)
		if p.Last {
			return all
		}
		if p.Next <= q.From {
			s.t.Fatalf("the page from %d is not the last and the next begins at %d", q.From, p.Next)
		}
		q.From = p.Next
	}
}

func (s *fixture) page(g *given, q batch.ResultQuery) batch.ResultPage {
	s.t.Helper()
	p, err := s.Results(s.ctx, g.Tenant, g.ID, q)
	s.ok(err)
	most := q.Bytes
	if most == 0 {
		most = 1 << 20
	}
	size, previous := 0, q.From-1
	for _, r := range p.Results {
		if size >= most {
			s.t.Fatalf("a page of at most %d bytes goes on after %d", most, size)
		}
		size += len(r.Payload)
		if r.Index <= previous || r.Index >= p.Next {
			s.t.Fatalf("result %d stands after %d in a page from %d to %d", r.Index, previous, q.From, p.Next)
		}
		previous = r.Index
	}
	if len(p.Results) > q.Limit {
		s.t.Fatalf("a page of at most %d results has %d", q.Limit, len(p.Results))
	}
	return p
}
