package storagetest

import (
	"time"

	"github.com/callbatch/callbatch/batch"
)

// pulling: messages to be pulled are made as the others are, and not sent.
var pulling = cases{
	{"messages to be pulled are settled as they are made", func(s *fixture) {
		for _, url := range []string{"", hook} {
			m := mine(3)
			m.Options.CallbackMode, m.Options.CallbackURL = batch.ModePull, url
			g := s.create(m)
			ws := s.claimAll()
			s.record(finish(ws[0]))
			s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 1, Other: 1})
			rec, err := s.Record(s.ctx, finishAll(ws[1:]), anyHost(10))
			s.ok(err)
			s.same("offers", len(rec.Deliveries), 0)
			s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 3, Other: 4})
			s.same("callback", s.batch(g).CallbackStatus(), "none")
			for _, m := range s.messagesOf(g) {
				s.same("message", []any{m.State, m.Made, m.Due.IsZero(), m.Ended.IsZero()}, []any{batch.MessagePulled, 0, true, false})
			}
			s.same("the end is not held back", s.terminal(g).Created.After(time.Now()), false)
		}
		s.quiet()
		_, some, err := s.NextMessage(s.ctx)
		s.ok(err)
		s.same("a message is due", some, false)
		s.same("listed", len(s.messages(batch.MessageQuery{Tenant: tenant(1), State: batch.MessagePulled, Limit: 3})), 8)
		s.same("in the feed", len(s.feedAll(batch.FeedQuery{Tenant: tenant(1), Limit: 3})), 8)
	}},
	{"a batch of one range is one message to be pulled", func(s *fixture) {
		g := s.create(sample{Items: 3, Options: batch.Options{CallbackMode: batch.ModePull}})
		s.complete()
		s.same("messages", states(s.messagesOf(g)), []batch.MessageState{batch.MessagePulled})
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Other: 1})
	}},
	{"a canceled batch tells those who pull", func(s *fixture) {
		g := s.create(sample{Items: 6, PerBlock: 2, Options: batch.Options{CallbackMode: batch.ModePull}})
		ws := s.claimAll()
		s.record(finish(ws[0]), released(partly(ws[1], 2)), letGo(ws[2]))
		s.cancel(g)
		done := g.tally(0, 1, 2)
		done.Canceled = 3
		s.ends(g, batch.Canceled, done)
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 2, Other: 3})
	}},
	{"it outlives the store", func(s *fixture) {
		m := mine(3)
		m.Options.CallbackMode = batch.ModePull
		g := s.create(m)
		s.complete()
		before, fed := s.messagesOf(g), s.feedAll(batch.FeedQuery{Tenant: tenant(1), Limit: 9})
		s.restart()
		s.same("messages", s.messagesOf(g), before)
		s.same("in the feed", s.feedAll(batch.FeedQuery{Tenant: tenant(1), Limit: 9}), fed)
		s.quiet()
	}},
}
