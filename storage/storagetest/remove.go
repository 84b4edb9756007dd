package storagetest

import (
	"bytes"
	"errors"
	"sync/atomic"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// removing: a batch that was deleted is gone at once, with all it had, and
// nothing else is.
var removing = cases{
	{"a deleted batch is gone, its items, results and messages with it", func(s *fixture) {
		g, other := s.create(called(600, 100)), s.create(called(2, 1))
		s.complete()
		s.deliver(g)
		s.deliver(other)
		s.retry(g, batch.Retry{Indexes: []int{3}})
		s.record(succeed(s.claimThose(1)[0]))
		s.deliver(g)
		m := s.messagesOf(g)[0]
		s.remove(g, false)
		s.auditGone(g)
		_, _, err := s.Message(s.ctx, m.Tenant, m.ID)
		s.refused(err, batch.NotFound)
		_, err = s.Redeliver(s.ctx, m.Tenant, m.ID, batch.Once{})
		s.refused(err, batch.NotFound)
		s.same("in the feed", len(s.feedAll(batch.FeedQuery{Tenant: g.Tenant, Limit: 100})), 3)
		for _, err := range []error{
			errOf(s.Cancel(s.ctx, g.Tenant, g.ID)), errOf(s.Retry(s.ctx, g.Tenant, g.ID, batch.Retry{From: 1}, batch.Once{})),
			s.Delete(s.ctx, g.Tenant, g.ID, true),
		} {
			s.refused(err, batch.Gone)
		}
		s.refused(errOf(s.Batch(s.ctx, tenant(9), g.ID)), batch.NotFound)
		s.same("the other", s.batch(other).Messages, batch.Ledger{Round: 2, Delivered: 3})
		s.ok(s.Check(s.ctx))
		for _, s.down = range s.endings() {
			s.restart()
			s.auditGone(g)
			s.ok(s.Check(s.ctx))
		}
	}},
	{"an open batch is deleted with its parts, and an upload that is under way comes to nothing", func(s *fixture) {
		for _, s.down = range s.endings() {
			g := s.unsealed(sample{Items: 60, PerBlock: 2, PerPart: 20, Options: batch.Options{IDField: "/id"}}, 0)
			st, p, err := s.stagePart(g, 1)
			s.ok(err)
			s.remove(g, false)
			_, err = st.Keep(s.ctx, p, batch.Room{})
			s.refused(err, batch.Gone)
			st.Discard()
			_, err = s.Parts(s.ctx, g.Tenant, g.ID)
			s.refused(err, batch.Gone)
			s.auditGone(g)
			s.restart()
			s.auditGone(g)
			s.ok(s.Check(s.ctx))
		}
	}},
	{"what cannot be deleted stays", func(s *fixture) {
		refused := func(g *given, force bool, word string) {
			s.t.Helper()
			err := s.Delete(s.ctx, g.Tenant, g.ID, force)
			var e *batch.Error
			if !errors.As(err, &e) || e.Code != batch.Conflict || e.Word() != word {
				s.t.Fatalf("got %v, want %q", err, word)
			}
		}
		g := s.create(called(2, 1))
		refused(g, true, "wrong_state")
		ws := s.claimAll()
		s.record(finish(ws[0]))
		refused(g, true, "wrong_state")
		s.cancel(g)
		refused(g, true, "wrong_state")
		s.record(letGo(ws[1]))
		s.ends(g, batch.Canceled, batch.Tally{Succeeded: 1, Canceled: 1})
		refused(g, false, "messages_pending")
		s.refused(s.Delete(s.ctx, tenant(9), g.ID, true), batch.NotFound)
		s.deliver(g)
		s.remove(g, false)
	}},
	{"messages that wait go with a batch that is deleted by force", func(s *fixture) {
		g, other := s.create(called(50, 1)), s.create(called(1, 1))
		s.complete()
		s.remove(g, true)
		for range 2 {
			ds := s.takeAll(1, anyHost(100))
			s.same("batch", ds[0].Batch, other.ID)
			s.attempted(again(ds[0], now()))
			s.restart()
		}
	}},
	{"what is being sent then ends without effect", func(s *fixture) {
		for _, how := range []string{"delivered", "again", "refund", "exhausted", "restart"} {
			g := s.create(called(1, 1))
			s.complete()
			d := s.takeOne()
			s.remove(g, true)
			if len(d.Refs) > 0 {
				_, err := s.Body(s.ctx, d.Message)
				s.refused(err, batch.Gone)
			}
			o := ended(d, batch.MessageDelivered)
			switch how {
			case "again":
				o = again(d, now())
			case "refund":
				o = again(d, now())
				o.Refund = true
			case "exhausted":
				o = ended(d, batch.MessageExhausted)
			case "restart":
				s.restart()
			}
			s.attempted(o)
			s.quiet()
			s.auditGone(g)
			s.ok(s.Check(s.ctx))
			fresh := s.create(called(1, 1)) // its place to the host is free again
			s.complete()
			s.attempted(ended(s.takeAll(1, ask(1, 1))[0], batch.MessageDelivered))
			s.same("ledger", s.batch(fresh).Messages, batch.Ledger{Delivered: 1})
		}
	}},
	{"an order to send many again leaves it out", func(s *fixture) {
		g, other := s.create(called(1, 1)), s.create(called(1, 1))
		s.complete()
		for _, d := range s.takeAll(2, anyHost(2)) {
			s.attempted(ended(d, batch.MessageExhausted))
		}
		s.remove(g, false)
		s.order(batch.Redelivery{State: batch.MessageExhausted}, 1)
		s.same("sent again", s.takeOne().Batch, other.ID)
	}},
	{"messages that are made later come behind those that are gone", func(s *fixture) {
		g := s.create(called(1, 1))
		s.complete()
		s.deliver(g)
		last := s.terminal(g).ID
		s.remove(g, false)
		s.restart()
		next := s.create(called(1, 1))
		s.complete()
		id := s.terminal(next).ID
		s.same("it is greater", bytes.Compare(id[:], last[:]) > 0, true)
	}},
	{"a batch can be deleted as soon as it has ended", func(s *fixture) {
		for range 10 {
			g := s.create(sample{Items: 3000, PerBlock: 10})
			s.cancel(g)
			s.eventually("it can be deleted", func() bool {
				err := s.Delete(s.ctx, g.Tenant, g.ID, false)
				if err != nil {
					s.refused(err, batch.Conflict)
				}
				return err == nil
			})
			g.gone = true
		}
		s.idle()
	}},
	{"against a retry and another delete there is one winner", func(s *fixture) {
		for range 10 {
			g := s.create(sample{Items: 3})
			s.record(fail(s.claim()))
			var deleted, retried atomic.Int32
			s.together(4, func(n int) error {
				var err error
				if n%2 == 0 {
					if err = s.Delete(s.ctx, g.Tenant, g.ID, false); err == nil {
						deleted.Add(1)
					}
				} else if _, err = s.Retry(s.ctx, g.Tenant, g.ID, batch.Retry{From: 1}, batch.Once{}); err == nil {
					retried.Add(1)
				}
				if code := batch.CodeOf(err); code == batch.Conflict || code == batch.Gone {
					return nil
				}
				return err
			})
			s.same("won", deleted.Load()+retried.Load(), int32(1))
			if g.gone = deleted.Load() == 1; !g.gone {
				g.again++
				s.record(succeed(s.claimThose(1)[0]))
			}
		}
	}},
}

func errOf(_ batch.Batch, err error) error { return err }

// retaining: a batch stays for as long as it has to, and no longer.
var retaining = cases{
	{"a batch is removed when its time is over, and forgotten 90 days later", func(s *fixture) {
		s.keeps(batch.DefaultRetention)
		g := s.create(called(1, 1))
		s.complete()
		s.deliver(g)
		ended := s.batch(g).Finished
		s.pass(ended.Add(batch.DefaultRetention - time.Minute))
		s.same("status", s.batch(g).Status, batch.Completed)
		s.pass(ended.Add(batch.DefaultRetention + 2*time.Minute))
		g.gone = true
		s.auditGone(g)
		s.pass(ended.Add(batch.DefaultRetention + batch.TombstoneTime - time.Minute))
		s.restart()
		s.auditGone(g)
		s.pass(ended.Add(batch.DefaultRetention + batch.TombstoneTime + 5*time.Minute))
		s.refused(errOf(s.Batch(s.ctx, g.Tenant, g.ID)), batch.NotFound)
		s.made.drop(g)
	}},
	{"a store that was told no time keeps batches", func(s *fixture) {
		g := s.create(sample{Items: 1})
		s.complete()
		s.pass(time.Now().Add(400 * 24 * time.Hour))
		s.same("status", s.batch(g).Status, batch.Completed)
	}},
	{"its time is counted from its end, and begins anew with a round", func(s *fixture) {
		s.keeps(time.Hour)
		g := s.create(sample{Items: 1})
		s.pass(time.Now().Add(3 * time.Hour))
		s.record(fail(s.claim()))
		s.pass(time.Now().Add(50 * time.Minute))
		s.retry(g, batch.Retry{})
		w := s.claimThose(1)[0]
		s.pass(time.Now().Add(3 * time.Hour))
		s.record(succeed(w))
		s.pass(time.Now().Add(50 * time.Minute))
		s.same("status", s.batch(g).Status, batch.Completed)
		s.pass(time.Now().Add(12 * time.Minute))
		g.gone = true
	}},
	{"no batch is removed while a message of it is owed", func(s *fixture) {
		s.keeps(time.Hour)
		g := s.create(called(1, 1))
		s.complete()
		s.pass(time.Now().Add(5 * time.Hour))
		s.deliver(g)
		m, err := s.Redeliver(s.ctx, g.Tenant, s.terminal(g).ID, batch.Once{})
		s.ok(err)
		s.pass(time.Now().Add(5 * time.Hour))
		s.same("state", s.batch(g).Messages, batch.Ledger{Waiting: 1})
		d := s.takeOne()
		s.same("message", d.ID, m.ID)
		s.attempted(ended(d, batch.MessageDelivered))
		s.pass(time.Now().Add(2 * time.Minute))
		g.gone = true
	}},
	{"many go, of every tenant, and those that are younger or not over stay", func(s *fixture) {
		s.keeps(time.Hour)
		var old []*given
		for n := range 150 {
			old = append(old, s.create(sample{Tenant: tenant(byte(n % 3))}))
		}
		s.complete()
		running := s.create(sample{Tenant: tenant(1)})
		s.pass(time.Now().Add(50 * time.Minute))
		w := s.claim()
		young := s.create(sample{Tenant: tenant(1)})
		s.complete()
		s.pass(time.Now().Add(20 * time.Minute))
		for _, g := range old {
			g.gone = true
		}
		s.same("those that stay", len(s.list(batch.BatchQuery{Tenant: tenant(1), Limit: 100})), 2)
		s.stands(young, batch.Completed, young.tally(0))
		s.record(finish(w))
		s.same("status", s.batch(running).Status, batch.Completed)
	}},
}

// keeps has the store keep batches for a time.
func (s *fixture) keeps(d time.Duration) {
	s.t.Helper()
	s.terms.Retention = d
	s.restart()
}

// drop forgets what the suite made.
func (r *register) drop(g *given) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, o := range r.list {
		if o == g {
			r.list = append(r.list[:i:i], r.list[i+1:]...)
			return
		}
	}
}
