package storagetest

import (
	"time"

	"github.com/callbatch/callbatch/batch"
)

// healing: a host that fails is left alone for a while, by whom it fails, and
// comes back step by step.
var healing = cases{
	{"five failures in a row close a host for one tenant, and for nobody else", func(s *fixture) {
		g := s.create(mine(6))
		s.complete()
		s.breaks(g, batch.HostDown)
		s.create(called(1, 1))
		other := mine(1)
		other.Options.CallbackURL = "https://other.example/"
		s.create(other)
		s.complete()
		for _, d := range s.takeAll(2, anyHost(2)) {
			if d.Batch == g.ID {
				s.t.Fatalf("a message was claimed for a host whose breaker is open")
			}
		}
		s.quiet()
		s.same("hosts of the others", len(s.hosts(batch.TenantID{})), 0)
	}},
	{"what waits for a breaker is parked, until when is shown, and costs no attempt", func(s *fixture) {
		g := s.create(mine(6))
		s.complete()
		s.breaks(g, batch.HostDown)
		h := s.host(g)
		s.same("health", []any{h.Host, h.Failures, h.Pause, h.Open()}, []any{"shop.example:443", 5, 5 * time.Second, true})
		before := s.messagesOf(g)
		for _, m := range s.resultsOf(g) {
			s.same("message", []any{m.State, m.Due}, []any{batch.MessageParked, h.Until})
		}
		s.same("listed as parked", len(s.messages(batch.MessageQuery{Tenant: g.Tenant, State: batch.MessageParked, Limit: 2})), 6)
		s.same("listed as waiting", len(s.messages(batch.MessageQuery{Tenant: g.Tenant, State: batch.MessageWaiting})), 1)
		s.same("callback", s.batch(g).CallbackStatus(), "delivering")
		s.pass(h.Until.Add(-time.Second))
		s.quiet()
		at, some, err := s.NextMessage(s.ctx)
		s.ok(err)
		if !some || at.IsZero() || at.After(h.Until.Add(time.Millisecond)) {
			s.t.Fatalf("the next message is due %v, %v; the breaker lets one through at %v", at, some, h.Until)
		}
		s.same("messages", s.messagesOf(g), before)
	}},
	{"those never tried and those tried before are let through by turns", func(s *fixture) {
		bad := s.create(called(6, 1))
		s.complete()
		for range 5 { // of six messages, each again at once
			s.attempted(fails(s.takeOf(bad), batch.HostDown))
		}
		s.create(called(1, 1))
		s.complete()
		s.pass(s.host(bad).Until)
		d := s.take(anyHost(10))
		s.same("let through first", []int{len(d), d[0].Made}, []int{1, 1})
		s.attempted(fails(d[0], batch.HostDown))
		s.pass(s.host(bad).Until)
		d = s.take(anyHost(10))
		s.same("let through next", []any{len(d), d[0].Retry()}, []any{1, true})
		s.attempted(fails(d[0], batch.HostDown))
	}},
	{"how many are closed is told, also after a restart, until long after the last news", func(s *fixture) {
		g := s.create(mine(6))
		s.complete()
		s.breaks(g, batch.HostUnreachable)
		s.same("closed", s.Backlog().HostsOpen, 1)
		s.restart()
		s.same("closed", s.Backlog().HostsOpen, 1)
		s.pass(time.Now().Add(31 * 24 * time.Hour))
		s.restart()
		s.same("closed", s.Backlog().HostsOpen, 0)
		s.same("hosts", len(s.hosts(g.Tenant)), 0)
	}},
	{"a host that cannot be reached is so for every tenant", func(s *fixture) {
		g, foreign := s.create(mine(6)), s.create(called(1, 1))
		other := mine(1)
		other.Options.CallbackURL = "https://other.example/"
		free := s.create(other)
		s.complete()
		// The breaker of one and that of all open with the same failure.
		for range 5 {
			s.attempted(fails(s.takeOf(g), batch.HostUnreachable))
		}
		s.same("another tenant's message", s.terminal(foreign).State, batch.MessageParked)
		s.same("message", s.takeOne().Batch, free.ID)
		s.quiet()
	}},
	{"a host that answers one tenant, however badly, can be reached", func(s *fixture) {
		g, foreign := s.create(mine(3)), s.create(called(4, 1))
		s.complete()
		for range 4 {
			s.attempted(fails(s.takeOf(foreign), batch.HostUnreachable))
		}
		s.attempted(fails(s.takeOf(g), batch.HostDown))
		s.attempted(fails(s.takeOf(foreign), batch.HostUnreachable))
		s.same("closed to who did not reach it", s.host(foreign).Open(), true)
		s.same("closed to who did", s.host(g).Open(), false)
		s.takeOf(g)
	}},
	{"after the pause one is let through, and its failure doubles the pause up to five minutes", func(s *fixture) {
		g := s.create(mine(6))
		s.complete()
		s.breaks(g, batch.HostDown)
		for _, pause := range []int{5, 10, 20, 40, 80, 160, 300, 300} {
			h := s.host(g)
			s.same("pause", h.Pause, time.Duration(pause)*time.Second)
			s.pass(h.Until)
			ds := s.take(anyHost(10))
			s.same("let through", len(ds), 1)
			time.Sleep(time.Minute)
			s.quiet()
			s.attempted(fails(ds[0], batch.HostDown))
			s.quiet()
		}
	}},
	{"a success lets two through, then four, then eight, until the host is proven again", func(s *fixture) {
		g := s.create(mine(40))
		s.complete()
		s.breaks(g, batch.HostDown)
		s.pass(s.host(g).Until)
		flying := s.take(anyHost(40))
		s.same("let through", len(flying), 1)
		for _, room := range []int{2, 4, 8} {
			s.attempted(ended(flying[0], batch.MessageDelivered))
			flying = append(flying[1:], s.take(anyHost(40))...)
			s.same("in flight", len(flying), room)
			s.same("still on record", s.host(g).Recovering(), true)
		}
		s.attempted(ended(flying[0], batch.MessageDelivered))
		s.same("hosts", len(s.hosts(g.Tenant)), 0)
		s.same("in flight", len(flying[1:])+len(s.take(anyHost(40))), 16)
	}},
	{"five failures in a row while it recovers open it again, for longer", func(s *fixture) {
		g := s.create(mine(12))
		s.complete()
		s.breaks(g, batch.HostDown)
		s.pass(s.host(g).Until)
		s.attempted(ended(s.takeOf(g), batch.MessageDelivered))
		for range 5 {
			s.same("open", s.host(g).Open(), false)
			s.attempted(fails(s.takeOf(g), batch.HostDown))
		}
		s.same("pause", s.host(g).Pause, 10*time.Second)
		s.quiet()
	}},
	{"failures count in a row", func(s *fixture) {
		g := s.create(mine(12))
		s.complete()
		for range 2 {
			for range 4 {
				s.attempted(fails(s.takeOf(g), batch.HostDown))
			}
			s.attempted(ended(s.takeOf(g), batch.MessageDelivered))
		}
		s.same("hosts", len(s.hosts(g.Tenant)), 0)
		s.breaks(g, batch.HostDown)
	}},
	{"what was in flight when the breaker opened does not make the pause longer", func(s *fixture) {
		s.proven(tenant(1), hook)
		g := s.create(mine(12))
		s.complete()
		ds := s.takeAll(12, anyHost(12))
		for _, d := range ds {
			s.attempted(fails(d, batch.HostDown))
		}
		h := s.host(g)
		s.same("health", []any{h.Failures, h.Pause}, []any{5, 5 * time.Second})
	}},
	{"an attempt that says nothing of its host, or never was, changes nothing", func(s *fixture) {
		g := s.create(mine(8))
		s.complete()
		for range 6 {
			s.attempted(fails(s.takeOf(g), batch.HostUnknown))
			o := fails(s.takeOf(g), batch.HostDown)
			o.Refund = true
			s.attempted(o)
		}
		s.same("hosts", len(s.hosts(g.Tenant)), 0)
	}},
	{"how a host stands outlives the store", func(s *fixture) {
		for _, down := range s.endings() {
			m := mine(20)
			m.Options.CallbackURL = []string{"https://a.example/", "https://b.example/"}[down]
			g := s.create(m)
			s.complete()
			s.breaks(g, batch.HostUnreachable)
			m.Tenant = tenant(2)
			foreign := s.create(m)
			s.complete()
			h := s.host(g)
			s.down = down
			s.restart()
			s.same("health", s.host(g), h)
			s.quiet()
			s.same("of another tenant", s.resultsOf(foreign)[0].State, batch.MessageParked)
			s.pass(h.Until)
			flying := s.take(anyHost(10))
			s.same("let through", len(flying), 1)
			s.attempted(ended(flying[0], batch.MessageDelivered))
			s.restart()
			s.same("in flight", len(s.take(anyHost(10))), 2)
			s.restart()
			s.deliver(g)
			s.deliver(foreign)
		}
	}},
	{"a message that its owner asks for goes out while the breaker is open, without effect on it", func(s *fixture) {
		g := s.create(mine(8))
		s.complete()
		s.breaks(g, batch.HostDown)
		h := s.host(g)
		ms := s.resultsOf(g)
		for i, as := range []batch.HostState{batch.HostDown, batch.HostUp, batch.HostUnreachable} {
			m, err := s.Redeliver(s.ctx, g.Tenant, ms[i].ID, batch.Once{})
			s.ok(err)
			s.same("state", m.State, batch.MessageWaiting)
			d := s.takeOne()
			s.same("message", d.ID, ms[i].ID)
			o := ended(d, batch.MessageExhausted)
			o.Host = as
			s.attempted(o)
			s.same("health", s.host(g), h)
			s.quiet()
		}
	}},
	{"a message sent by hand again is an ordinary one", func(s *fixture) {
		g := s.create(mine(6))
		s.complete()
		s.breaks(g, batch.HostDown)
		m := s.resultsOf(g)[0]
		_, err := s.Redeliver(s.ctx, g.Tenant, m.ID, batch.Once{})
		s.ok(err)
		o := fails(s.takeOne(), batch.HostDown)
		o.Refund = true
		s.attempted(o)
		s.attempted(fails(s.takeOne(), batch.HostDown)) // our own stop does not use up the asking
		s.quiet()
		m, _ = s.message(m)
		s.same("state", m.State, batch.MessageParked)
	}},
}

// mine is a batch of the suite's callback and of tenant 1, whose items are
// told of one by one.
func mine(items int) sample {
	m := called(items, 1)
	m.Tenant = tenant(1)
	return m
}

// fails is the outcome of an attempt that is to be made again at once, and
// what it says about its host.
func fails(d batch.Delivery, as batch.HostState) batch.AttemptOutcome {
	o := again(d, now())
	o.Host = as
	return o
}

// takeOf claims one message of g; it must be the turn of one.
func (s *fixture) takeOf(g *given) batch.Delivery {
	s.t.Helper()
	var mine *batch.Delivery
	var others []batch.AttemptOutcome
	s.eventually("a message of the batch is due", func() bool {
		for _, d := range s.take(anyHost(1)) {
			if d.Batch == g.ID {
				mine = &d
				continue
			}
			o := again(d, now())
			o.Refund = true
			others = append(others, o)
		}
		return mine != nil
	})
	s.attempted(others...)
	return *mine
}

// breaks has the host of g fail until its breaker opens.
func (s *fixture) breaks(g *given, as batch.HostState) {
	s.t.Helper()
	for n := range 5 {
		s.same("open after fewer than five failures", n == 4 && s.host(g).Open(), false)
		s.attempted(fails(s.takeOf(g), as))
	}
	if h := s.host(g); !h.Open() || h.Failures != 5 {
		s.t.Fatalf("after five failures the host stands %+v", h)
	}
}

func (s *fixture) hosts(t batch.TenantID) []batch.Health {
	s.t.Helper()
	hs, err := s.Hosts(s.ctx, t)
	s.ok(err)
	return hs
}

// host returns how the host of g stands with its tenant.
func (s *fixture) host(g *given) batch.Health {
	s.t.Helper()
	for _, h := range s.hosts(g.Tenant) {
		if h.Host == batch.CallbackHost(g.Options.CallbackURL) {
			return h
		}
	}
	return batch.Health{}
}
