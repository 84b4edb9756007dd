package storagetest

import (
	"bytes"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// reopening: whatever the step at which a store goes down, the next one
// begins with what was kept and with nothing else. Each case is run with a
// store that is closed and with one that is killed.
var reopening = cases{
	{"a batch goes its road with a restart after every step", func(s *fixture) {
		g := s.create(called(6, 3))
		s.restart()
		s.stands(g, batch.Queued, batch.Tally{})
		s.claim()
		s.restart()
		ws := s.claimAll()
		s.same("blocks", len(ws), 2)
		s.record(partly(ws[0], 1))
		s.restart()
		s.stands(g, batch.Running, g.tally(1))
		ws = s.claimAll()
		s.same("items", [][]int{indexes(ws[0]), indexes(ws[1])}, [][]int{{0, 2}, {3, 4, 5}})
		s.record(finish(ws[0]))
		s.restart()
		s.complete()
		s.restart()
		s.stands(g, batch.Completed, g.tally(every(6)...))
		for range 2 {
			d := s.takeOne()
			s.same("type", d.Type, batch.TypeResults)
			s.attempted(ended(d, batch.MessageDelivered))
			s.restart()
		}
		s.attempted(ended(s.takeOne(), batch.MessageDelivered))
		s.restart()
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 2, Delivered: 3})
		s.quiet()
		s.idle()
	}},
	{"a store knows whether it was closed the last time", func(s *fixture) {
		s.same("a new one crashed", s.Crashed(), false)
		s.create(called(2, 1))
		s.restart()
		s.same("crashed", s.Crashed(), s.down == killed)
		s.restart()
		s.same("crashed again", s.Crashed(), s.down == killed)
	}},
	{"a report for a claim of before is lost", func(s *fixture) {
		g := s.create(sample{Items: 4, PerBlock: 2})
		old := s.claimAll()
		s.restart()
		s.lost([]int{0, 1}, finishAll(old)...)
		fresh := s.claimAll()
		s.lost([]int{0, 2}, finish(old[0]), finish(fresh[1]), letGo(old[1]))
		s.stands(g, batch.Running, g.tally(2, 3))
		s.record(finish(fresh[0]))
	}},
	{"what waits for its time still waits for it", func(s *fixture) {
		s.create(called(2, 1))
		hour := now().Add(time.Hour)
		ws := s.claimAll()
		s.record(finish(ws[0]), batch.Report{Lease: ws[1].Lease, Release: true, Again: []batch.Again{{Index: 1, Attempts: 3, Due: hour}}})
		s.attempted(again(s.takeOne(), hour))
		s.restart()
		s.idle()
		s.quiet()
		at, some, err := s.NextDue(s.ctx, []string{work})
		s.ok(err)
		s.same("next due", []any{at.UTC(), some}, []any{hour, true})
		at, some, err = s.NextMessage(s.ctx)
		s.ok(err)
		s.same("next message", []any{at.UTC(), some}, []any{hour, true})
	}},
	{"a pause lasts, and so does what was amended", func(s *fixture) {
		g := s.create(called(6, 3))
		w := s.claim()
		s.record(partly(w, 0))
		s.pause(g)
		three := 3
		s.amend(g, batch.Amendment{Concurrency: &three})
		s.restart()
		s.idle()
		s.stands(g, batch.Paused, g.tally(0))
		s.same("waiting on", s.batch(g).WaitingOn, "paused")
		s.same("status", s.resume(g).Status, batch.Running)
		s.restart()
		s.same("spec", *s.claim().Spec, g.Spec)
		s.restart()
		s.complete()
		s.ends(g, batch.Completed, g.tally(every(6)...))
	}},
	{"what was stopped ends, for the reason it was stopped for", func(s *fixture) {
		failing, late := s.create(bearing("0", 6, 3)), s.create(called(6, 3))
		ws := s.claimAll()
		for _, w := range ws {
			if w.Lease.Block.Batch == failing.ID && w.Lease.Block.Number == 1 {
				s.record(partly(w, 3))
			}
		}
		s.expire(late)
		s.stands(failing, batch.Canceling, failing.tally(3))
		s.restart()
		done := failing.tally(3)
		done.Canceled = 5
		s.ends(failing, batch.Canceled, done)
		s.same("reason", s.batch(failing).Reason, batch.CodeTooManyFailures)
		s.ends(late, batch.Expired, batch.Tally{Expired: 6})
	}},
	{"messages go on moving to another host", func(s *fixture) {
		g := s.create(called(1000, 1))
		s.complete()
		flying := s.takeOne()
		url := "https://other.example/"
		s.amend(g, batch.Amendment{CallbackURL: &url})
		s.restart()
		s.moved(g, "other.example:443", 1001)
		m, _ := s.message(flying.Message)
		s.same("attempts", m.Made, 1)
		s.same("goes to", s.takeOne().URL, url)
	}},
	{"an attempt that was in flight is on record as interrupted, and the message goes out again", func(s *fixture) {
		s.create(called(3, 3))
		s.complete()
		d := s.takeOne()
		body := s.body(d.Message)
		s.restart()
		m, as := s.message(d.Message)
		s.same("state", m.State, batch.MessageWaiting)
		if len(as) != 1 || as[0].Number != 1 || as[0].Error == nil || as[0].Error.Category != batch.Interrupted {
			s.t.Fatalf("attempts are %+v", as)
		}
		next := s.takeOne()
		s.same("attempt", []any{next.ID, next.Made}, []any{d.ID, 2})
		if !bytes.Equal(s.body(next.Message), body) {
			s.t.Fatalf("the body is another")
		}
		s.attempted(ended(d, batch.MessageExhausted))
		s.same("after a word from before", s.messages(batch.MessageQuery{State: batch.MessageSending, Limit: 5})[0].ID, d.ID)
		o := ended(next, batch.MessageDelivered)
		s.attempted(o)
		_, as = s.message(d.Message)
		s.same("the second attempt", as[1], o.Attempt)
	}},
	{"an offer that was in flight is interrupted too", func(s *fixture) {
		g := s.create(called(1, 1))
		rec, err := s.Record(s.ctx, []batch.Report{finish(s.claim())}, anyHost(1))
		s.ok(err)
		s.same("offers", len(rec.Deliveries), 1)
		s.restart()
		d := s.takeOne()
		s.same("attempt", []any{d.ID, d.Made}, []any{rec.Deliveries[0].ID, 2})
		s.attempted(ended(d, batch.MessageDelivered))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Delivered: 1})
	}},
	{"what was staged is gone, even where its id is used again", func(s *fixture) {
		g := bulky().given()
		_, err := s.stage(g)
		s.ok(err)
		s.restart()
		s.absent(g)
		s.ok(s.Check(s.ctx))
		s.create(sample{ID: g.ID, Items: 3, PerBlock: 2, Item: strange})
		s.same("blocks", len(s.claimAll()), 2)
	}},
	{"a batch whose last blocks were held while it was canceled ends", func(s *fixture) {
		g := s.create(called(6, 2))
		ws := s.claimAll()
		s.record(finish(ws[0]), partly(ws[1], 2))
		s.cancel(g)
		s.restart()
		done := g.tally(0, 1, 2)
		done.Canceled = 3
		s.ends(g, batch.Canceled, done)
		s.idle()
		s.deliver(g)
	}},
	{"a canceled batch stays canceled", func(s *fixture) {
		g := s.create(called(6, 2))
		s.record(finish(s.claim()))
		s.cancel(g)
		done := g.tally(0, 1)
		done.Canceled = 4
		s.ends(g, batch.Canceled, done)
		b := s.batch(g)
		s.restart()
		s.same("batch", s.batch(g), b)
		s.idle()
		s.deliver(g)
	}},
	{"the terminal message is pulled to now although its others were settled in two lives", func(s *fixture) {
		g := s.create(called(4, 2))
		s.complete()
		s.attempted(ended(s.takeOne(), batch.MessageDelivered))
		s.restart()
		s.attempted(ended(s.takeOne(), batch.MessageExhausted))
		s.restart()
		s.same("message", s.takeOne().ID, s.terminal(g).ID)
	}},
	{"results in pieces and the bodies made of them are the same bytes", func(s *fixture) {
		g := s.create(called(60, 30))
		ws := s.claimAll()
		s.inPieces(ws[0], 12, 2)
		s.inPieces(ws[1], 7, 1)
		read := func() (all []byte) {
			for _, r := range s.results(g, batch.ResultQuery{}) {
				all = batch.AppendResult(all, r)
			}
			for _, m := range s.messagesOf(g) {
				all = append(all, s.body(m)...)
			}
			return all
		}
		before := read()
		s.restart()
		if !bytes.Equal(before, read()) {
			s.t.Fatalf("results or bodies differ after the restart")
		}
	}},
	{"the turns of a lane and of a batch begin anew", func(s *fixture) {
		s.create(called(6, 1))
		c := batch.Claim{Owner: node, Processors: []string{work}, Blocks: 10, PerBatch: 2}
		s.same("blocks", len(s.claimAs(c)), 2)
		s.restart()
		s.same("blocks", len(s.claimAs(c)), 2)
		s.restart()
		s.complete()
		s.takeAll(2, ask(0, 2))
		s.restart()
		s.takeAll(2, ask(0, 2))
	}},
	{"lists are the same", func(s *fixture) {
		for n := range 12 {
			m := nth(n)
			m.Options.CallbackURL = hook
			s.create(m)
		}
		s.complete()
		q := batch.BatchQuery{Tenant: tenant(1), Status: batch.Completed, Limit: 5}
		all, sent := s.list(q), s.messages(batch.MessageQuery{Tenant: tenant(1)})
		s.same("batches", len(all), 12)
		s.restart()
		s.same("batches", s.list(q), all)
		s.same("messages", ids(s.messages(batch.MessageQuery{Tenant: tenant(1)})), ids(sent))
	}},
}
