package storagetest

import (
	"sync/atomic"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// canceling: nothing new starts, nothing that came in is lost, and against
// the end there is one winner.
var canceling = cases{
	{"a batch that nobody works on is canceled by arithmetic", func(s *fixture) {
		g := s.create(called(600, 256))
		s.cancel(g)
		s.ends(g, batch.Canceled, batch.Tally{Canceled: 600})
		s.idle()
		var want []batch.Result
		for i := range 600 {
			want = append(want, batch.EndedResult(i, "", s.batch(g).Progress, 0))
		}
		s.same("results", s.results(g, batch.ResultQuery{}), want)
		s.same("type", s.terminal(g).Type, batch.TypeCanceled)
		s.same("messages", len(s.messagesOf(g)), 1)
		s.same("the end does not wait for anything", s.takeOne().Type, batch.TypeCanceled)
	}},
	{"it is idempotent", func(s *fixture) {
		held, free := s.create(called(2, 1)), s.create(called(2, 1))
		s.cancel(free)
		s.ends(free, batch.Canceled, batch.Tally{Canceled: 2})
		w := s.claim()
		s.same("the claimed batch", w.Lease.Block.Batch, held.ID)
		for range 2 {
			s.same("free", s.cancel(free), s.batch(free))
			s.same("held", s.cancel(held).Status, batch.Canceling)
		}
		s.record(letGo(w))
		s.ends(held, batch.Canceled, batch.Tally{Canceled: 2})
		s.same("held", s.cancel(held), s.batch(held))
		s.same("messages", len(s.messagesOf(held))+len(s.messagesOf(free)), 2)
	}},
	{"results that come in late are kept and the rest is canceled", func(s *fixture) {
		g := s.create(called(8, 4))
		w := s.claimAs(everything(1))[0]
		s.record(partly(w, 0))
		s.same("status", s.cancel(g).Status, batch.Canceling)
		s.idle()
		s.record(partly(w, 2))
		s.stands(g, batch.Canceling, g.tally(0, 2))
		s.record(released(partly(w, 3)))
		done := g.tally(0, 2, 3)
		done.Canceled = 5
		s.ends(g, batch.Canceled, done)
		derived := s.results(g, batch.ResultQuery{Status: batch.ItemCanceled})
		for i, index := range []int{1, 4, 5, 6, 7} {
			s.same("a result that never was", derived[i], batch.EndedResult(index, "", s.batch(g).Progress, 0))
		}
		s.same("results", s.results(g, batch.ResultQuery{From: 2, Limit: 2})[:2], g.expected(2, 3))
	}},
	{"what waits for its next attempt is canceled with the attempts it had", func(s *fixture) {
		g := s.create(called(3, 3))
		w := s.claim()
		s.record(batch.Report{Lease: w.Lease, Started: now(), Again: []batch.Again{{Index: 0, Attempts: 2, Due: now()}}})
		s.cancel(g)
		s.record(batch.Report{Lease: w.Lease, Started: now(), Release: true, Again: []batch.Again{{Index: 1, Attempts: 1, Due: now().Add(time.Hour)}}})
		s.ends(g, batch.Canceled, batch.Tally{Canceled: 3})
		for i, attempts := range []int{2, 1, 0} {
			it, err := s.Item(s.ctx, g.Tenant, g.ID, i)
			s.ok(err)
			s.same("attempts", []int{it.Attempts, it.Result.Attempts}, []int{attempts, attempts})
		}
	}},
	{"results of a block that is in nobody's hands travel too", func(s *fixture) {
		g := s.create(called(9, 3))
		ws := s.claimAll()
		hour := now().Add(time.Hour)
		waiting := released(partly(ws[0], 0, 1))
		waiting.Again = []batch.Again{{Index: 2, Attempts: 1, Due: hour}}
		s.record(waiting, released(partly(ws[1], 4)), letGo(ws[2]))
		s.cancel(g)
		done := g.tally(0, 1, 4)
		done.Canceled = 6
		s.ends(g, batch.Canceled, done)
	}},
	{"a batch is canceled when the last of its blocks is let go", func(s *fixture) {
		g := s.create(called(6, 2))
		ws := s.claimAll()
		s.cancel(g)
		s.record(finish(ws[0]), letGo(ws[2]))
		s.stands(g, batch.Canceling, g.tally(0, 1))
		s.idle()
		s.record(finish(ws[1]))
		done := g.tally(0, 1, 2, 3)
		done.Canceled = 2
		s.ends(g, batch.Canceled, done)
	}},
	{"a cancel that was answered wins over the last item", func(s *fixture) {
		g := s.create(called(2, 2))
		w := s.claim()
		s.cancel(g)
		s.record(finish(w))
		s.ends(g, batch.Canceled, g.tally(0, 1))
	}},
	{"a batch that has ended otherwise cannot be canceled", func(s *fixture) {
		g := s.create(called(2, 2))
		s.complete()
		_, err := s.Cancel(s.ctx, g.Tenant, g.ID)
		s.wrongState(err)
		s.stands(g, batch.Completed, g.tally(0, 1))
	}},
	{"whoever holds a block of it is told to stop", func(s *fixture) {
		g, other := s.create(sample{Items: 2}), s.create(sample{Items: 2})
		var hs []batch.Holding
		for _, w := range s.claimAll() {
			k := w.Lease.Block
			hs = append(hs, batch.Holding{Tenant: k.Tenant, Batch: k.Batch, Leases: []batch.Lease{w.Lease}, InFlight: 1})
		}
		s.same("stop", s.renew(hs...).Stop, []batch.ID(nil))
		s.cancel(g)
		r := s.renew(hs...)
		s.same("stop", r.Stop, []batch.ID{g.ID})
		s.same("lost", r.Lost, []batch.Lease(nil))
		s.same("running", s.batch(other).Counts().Running, 1)
	}},
	{"against the end there is one winner, and the answer says which", func(s *fixture) {
		for range 20 {
			g := s.create(called(2, 2))
			w := s.claim()
			var won atomic.Bool
			s.together(2, func(n int) error {
				if n == 0 {
					_, err := s.Record(s.ctx, []batch.Report{finish(w)}, batch.MessageClaim{})
					return err
				}
				_, err := s.Cancel(s.ctx, g.Tenant, g.ID)
				won.Store(err == nil)
				if batch.CodeOf(err) == batch.Conflict {
					return nil
				}
				return err
			})
			want := batch.Completed
			if won.Load() {
				want = batch.Canceled
			}
			s.ends(g, want, g.tally(0, 1))
		}
	}},
}
