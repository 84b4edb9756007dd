package storagetest

import (
	"time"

	"github.com/callbatch/callbatch/batch"
)

// lapsing: when the time for its attempts is spent a message is given up,
// whatever kept it from going.
var lapsing = cases{
	{"a message is tried until its window is over, and not after", func(s *fixture) {
		g := s.windowed(time.Hour)
		d := s.takeOne()
		s.same("until", d.Until, d.Created.Add(time.Hour))
		s.attempted(again(d, d.Until))
		s.pass(d.Lapses())
		s.lapsed(g, d.ID)
		_, as := s.message(d.Message)
		s.same("attempts", len(as), 1)
	}},
	{"a parked message is given up when its window is over, its breaker still open", func(s *fixture) {
		g := s.windowed(3 * time.Second)
		for range 5 {
			s.attempted(fails(s.takeOf(g), batch.HostDown))
		}
		m := s.terminal(g)
		s.same("state", m.State, batch.MessageParked)
		s.same("breaker", s.host(g).Until.After(m.Until.Add(time.Second)), true)
		s.pass(m.Lapses())
		s.lapsed(g, m.ID)
		s.same("made", s.terminal(g).Made, 5)
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Exhausted: 1})
	}},
	{"so are those behind it, however many", func(s *fixture) {
		s.terms.Window = 10 * time.Minute
		s.restart()
		g := s.create(mine(300))
		s.complete()
		s.breaks(g, batch.HostDown)
		for s.host(g).Pause < 5*time.Minute {
			s.pass(s.host(g).Until)
			s.attempted(fails(s.takeOf(g), batch.HostDown))
		}
		s.pass(s.resultsOf(g)[0].Lapses())
		s.same("breaker", s.host(g).Until.After(time.Now()), true)
		s.eventually("all are given up", func() bool {
			s.same("claimed", len(s.take(anyHost(10))), 0)
			return s.batch(g).Messages.Exhausted == 300
		})
	}},
	{"so are those behind one that is let through, many at a time", func(s *fixture) {
		s.terms.Window = 10 * time.Minute
		s.restart()
		g := s.create(mine(300))
		s.complete()
		s.breaks(g, batch.HostDown)
		s.pass(s.resultsOf(g)[0].Lapses())
		s.same("let through", !s.host(g).Until.After(time.Now()), true)
		for range 10 {
			s.take(anyHost(10)) // nothing, or the end of the batch, which has more time
		}
		s.same("given up", s.batch(g).Messages.Exhausted, 300)
	}},
	{"a message that waits for a slot is given up when it would have its turn", func(s *fixture) {
		s.terms.Window = time.Minute
		s.restart()
		g := s.create(mine(2))
		s.complete()
		d := s.takeAll(1, ask(1, 1))[0]
		s.same("behind it", len(s.take(ask(10, 1))), 0)
		s.pass(d.Lapses())
		s.attempted(ended(d, batch.MessageDelivered))
		s.eventually("it is given up", func() bool {
			s.same("claimed", len(s.take(ask(10, 1))), 0)
			return s.batch(g).Messages.Exhausted == 1
		})
	}},
	{"an attempt under way at the end of the window counts", func(s *fixture) {
		g := s.windowed(time.Minute)
		d := s.takeOne()
		s.pass(d.Lapses())
		s.attempted(ended(d, batch.MessageDelivered))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Delivered: 1})
	}},
	{"a redelivery begins the window anew", func(s *fixture) {
		g := s.windowed(time.Minute)
		m := s.terminal(g)
		s.pass(m.Lapses())
		s.lapsed(g, m.ID)
		m, err := s.Redeliver(s.ctx, g.Tenant, m.ID, batch.Once{})
		s.ok(err)
		s.same("until", m.Until.After(time.Now().Add(59*time.Second)), true)
		s.attempted(ended(s.takeOne(), batch.MessageDelivered))
	}},
	{"an order to send many again begins the window anew", func(s *fixture) {
		g := s.windowed(time.Minute)
		m := s.terminal(g)
		s.pass(m.Lapses())
		s.lapsed(g, m.ID)
		s.order(batch.Redelivery{State: batch.MessageExhausted}, 1)
		d := s.takeOne()
		s.same("until", d.Until.After(time.Now().Add(59*time.Second)), true)
	}},
}

// windowed makes a batch that has ended with one message, in a store whose
// messages have so much time.
func (s *fixture) windowed(w time.Duration) *given {
	s.t.Helper()
	s.terms.Window = w
	s.restart()
	g := s.create(called(1, 1))
	s.complete()
	return g
}

// lapsed fails unless a claim finds nothing but that a message's time is
// spent.
func (s *fixture) lapsed(g *given, id batch.MessageID) {
	s.t.Helper()
	s.eventually("its time is spent", func() bool {
		s.same("claimed", len(s.take(anyHost(10))), 0)
		m, _, err := s.Message(s.ctx, g.Tenant, id)
		s.ok(err)
		return m.State == batch.MessageExhausted && m.Reason == batch.ReasonWindow && m.Due.IsZero()
	})
}
