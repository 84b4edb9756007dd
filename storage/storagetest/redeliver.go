package storagetest

import (
	"bytes"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// redelivering: whatever became of a message, it can be sent once more, and
// is the same.
var redelivering = cases{
	{"a message goes out again from every state in which nothing is owed", func(s *fixture) {
		g := s.create(called(4, 1))
		s.complete()
		as := []batch.MessageState{batch.MessageDelivered, batch.MessageExhausted, batch.MessageBlocked, batch.MessageCanceled}
		var os []batch.AttemptOutcome
		for i, d := range s.takeAll(4, anyHost(4)) {
			os = append(os, ended(d, as[i]))
		}
		s.attempted(os...)
		s.deliver(g)
		for _, o := range os {
			d := s.redeliver(o.Delivery.Message)
			s.same("attempt", []any{d.Made, d.Spared, d.URL, d.Manual, d.Retry()}, []any{2, 1, hook, true, true})
			out := ended(d, batch.MessageDelivered)
			s.attempted(out)
			m, kept := s.message(d.Message)
			s.same("attempts", kept, []batch.Attempt{o.Attempt, out.Attempt})
			s.same("message", []any{m.State, m.Reason, m.Manual}, []any{batch.MessageDelivered, "", false})
		}
		s.same("listed as given up", len(s.messages(batch.MessageQuery{State: batch.MessageExhausted}))+len(s.messages(batch.MessageQuery{State: batch.MessageBlocked})), 0)
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 4, Delivered: 5})
	}},
	{"of a message that is sent again and again the last attempts are kept", func(s *fixture) {
		g := s.create(called(1, 1))
		s.complete()
		s.deliver(g)
		for range batch.MostAttempts + 5 {
			s.attempted(ended(s.redeliver(s.terminal(g)), batch.MessageDelivered))
		}
		m, kept := s.message(s.terminal(g))
		s.same("attempts", []int{m.Made, len(kept), kept[0].Number}, []int{batch.MostAttempts + 6, batch.MostAttempts, 7})
	}},
	{"the ledger counts it as owed meanwhile, and the end does not wait for it", func(s *fixture) {
		g := s.create(called(2, 1))
		s.complete()
		ds := s.takeAll(2, anyHost(2))
		s.attempted(ended(ds[0], batch.MessageExhausted), ended(ds[1], batch.MessageDelivered))
		_, err := s.Redeliver(s.ctx, g.Tenant, ds[0].ID, batch.Once{})
		s.ok(err)
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 2, Waiting: 2, Delivered: 1})
		s.same("the end", s.terminal(g).Due.After(time.Now().Add(time.Second)), false)
		s.deliver(g)
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 2, Delivered: 3})
	}},
	{"one that waits for its next attempt goes out now", func(s *fixture) {
		g := s.create(called(1, 1))
		s.complete()
		s.attempted(again(s.takeOne(), now().Add(time.Hour)))
		s.quiet()
		d := s.redeliver(s.terminal(g))
		s.same("attempt", []any{d.Made, d.Spared}, []any{2, 1})
		s.attempted(again(d, now()))
		d = s.takeOne()
		s.same("attempt", []any{d.Made, d.Spared, d.Manual}, []any{3, 1, false})
		s.attempted(ended(d, batch.MessageDelivered))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Delivered: 1})
	}},
	{"a terminal message that is held back goes out now, and once", func(s *fixture) {
		g := s.create(called(2, 1))
		s.complete()
		ds := s.takeAll(2, anyHost(2))
		d := s.redeliver(s.terminal(g))
		s.same("type", d.Type, batch.TypeCompleted)
		s.attempted(ended(ds[0], batch.MessageDelivered), ended(d, batch.MessageDelivered), ended(ds[1], batch.MessageDelivered))
		s.quiet()
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 2, Delivered: 3})
	}},
	{"a terminal message that went before its time is not pulled to now once more", func(s *fixture) {
		g := s.create(called(2, 1))
		s.complete()
		ds := s.takeAll(2, anyHost(2))
		hour := now().Add(time.Hour)
		s.attempted(again(s.redeliver(s.terminal(g)), hour))
		s.attempted(ended(ds[0], batch.MessageDelivered), ended(ds[1], batch.MessageDelivered))
		s.same("due", s.terminal(g).Due.UTC(), hour)
		s.quiet()
	}},
	{"one that is being sent goes out again afterwards, however that ends", func(s *fixture) {
		for _, as := range []batch.MessageState{batch.MessageDelivered, batch.MessageExhausted, batch.MessageWaiting} {
			g := s.create(called(1, 1))
			s.complete()
			d := s.takeOne()
			for range 2 {
				m, err := s.Redeliver(s.ctx, g.Tenant, d.ID, batch.Once{})
				s.ok(err)
				s.same("message", []any{m.State, m.Again, m.Made}, []any{batch.MessageSending, true, 1})
			}
			s.quiet()
			o := ended(d, as)
			o.Due = now().Add(time.Hour)
			s.attempted(o)
			s.same("ledger", s.batch(g).Messages, batch.Ledger{Waiting: 1})
			next := s.takeOne()
			s.same("attempt", []any{next.ID, next.Made, next.Manual}, []any{d.ID, 2, true})
			s.attempted(ended(next, batch.MessageDelivered))
			s.quiet()
			_, kept := s.message(next.Message)
			s.same("attempts", len(kept), 2)
			s.same("ledger", s.batch(g).Messages, batch.Ledger{Delivered: 1})
		}
	}},
	{"one asked for while it was being sent goes out after a restart too", func(s *fixture) {
		for _, down := range s.endings() {
			g := s.create(called(1, 1))
			s.complete()
			d := s.takeOne()
			_, err := s.Redeliver(s.ctx, g.Tenant, d.ID, batch.Once{})
			s.ok(err)
			s.down = down
			s.restart()
			next := s.takeOne()
			s.same("attempt", []any{next.ID, next.Made, next.Manual}, []any{d.ID, 2, true})
			s.attempted(ended(next, batch.MessageDelivered))
			s.quiet()
			s.same("ledger", s.batch(g).Messages, batch.Ledger{Delivered: 1})
		}
	}},
	{"a redelivery that was answered survives a restart", func(s *fixture) {
		for _, down := range s.endings() {
			g := s.create(called(1, 1))
			s.complete()
			s.deliver(g)
			_, err := s.Redeliver(s.ctx, g.Tenant, s.terminal(g).ID, batch.Once{})
			s.ok(err)
			s.down = down
			s.restart()
			d := s.takeOne()
			s.same("attempt", []any{d.Made, d.Manual}, []any{2, true})
			s.attempted(ended(d, batch.MessageDelivered))
		}
	}},
	{"a message to be pulled is sent if there is somewhere to send it", func(s *fixture) {
		m := called(1, 1)
		m.Options.CallbackMode = batch.ModePull
		g := s.create(m)
		m.Options.CallbackURL = ""
		nowhere := s.create(m)
		s.complete()
		_, err := s.Redeliver(s.ctx, nowhere.Tenant, s.terminal(nowhere).ID, batch.Once{})
		s.refused(err, batch.Conflict)
		s.quiet()
		d := s.redeliver(s.terminal(g))
		s.same("attempt", []any{d.Made, d.URL, d.Host}, []any{1, hook, "shop.example:443"})
		s.same("callback", s.batch(g).CallbackStatus(), "delivering")
		s.attempted(ended(d, batch.MessageDelivered))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Delivered: 1})
		s.same("callback", s.batch(g).CallbackStatus(), "delivered")
		s.same("callback", s.batch(nowhere).CallbackStatus(), "none")
	}},
	{"another tenant's message is not there", func(s *fixture) {
		g := s.create(called(1, 1))
		s.complete()
		s.deliver(g)
		_, err := s.Redeliver(s.ctx, tenant(1), s.terminal(g).ID, batch.Once{})
		s.refused(err, batch.NotFound)
		_, err = s.Redeliver(s.ctx, g.Tenant, batch.NewMessageID(time.Now()), batch.Once{})
		s.refused(err, batch.NotFound)
		s.quiet()
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Delivered: 1})
	}},
	{"an order sends again what its state, host, time and tenant name, and nothing else", func(s *fixture) {
		other := mine(3)
		other.Options.CallbackURL = "https://other.example/"
		g, elsewhere, foreign := s.create(mine(6)), s.create(other), s.create(called(4, 1))
		s.complete()
		for range 3 {
			s.settleAll(batch.MessageExhausted)
		}
		since := time.Now()
		time.Sleep(2 * time.Millisecond)
		late := s.create(mine(2))
		s.complete()
		s.settleAll(batch.MessageDelivered)
		s.settleAll(batch.MessageDelivered)
		count := func(want int, r batch.Redelivery) {
			s.t.Helper()
			r.Tenant = tenant(1)
			n, err := s.RedeliverAll(s.ctx, r, batch.Once{})
			s.ok(err)
			s.same("wanted", n, want)
		}
		count(0, batch.Redelivery{State: batch.MessageBlocked})
		count(0, batch.Redelivery{State: batch.MessageExhausted, Host: "unheard.example:443"})
		count(0, batch.Redelivery{State: batch.MessageExhausted, Since: since})
		count(0, batch.Redelivery{State: batch.MessagePulled})
		s.order(batch.Redelivery{Tenant: tenant(1), State: batch.MessageExhausted, Host: "other.example:443"}, 4)
		s.same("ledger", s.batch(elsewhere).Messages, batch.Ledger{Round: 3, Waiting: 4})
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 6, Exhausted: 7})
		s.order(batch.Redelivery{Tenant: tenant(1), State: batch.MessageDelivered, Since: since}, 3)
		s.same("ledger", s.batch(late).Messages, batch.Ledger{Round: 2, Waiting: 3})
		s.same("ledger", s.batch(foreign).Messages, batch.Ledger{Round: 4, Exhausted: 5})
		for _, g := range []*given{elsewhere, late} {
			s.deliver(g)
		}
		s.quiet()
	}},
	{"messages that an order sends again are ordinary ones", func(s *fixture) {
		g := s.create(called(1, 1))
		s.complete()
		first := ended(s.takeOne(), batch.MessageExhausted)
		s.attempted(first)
		s.order(batch.Redelivery{State: batch.MessageExhausted}, 1)
		d := s.takeOne()
		s.same("attempt", []any{d.Made, d.Spared, d.Manual}, []any{2, 1, false})
		o := ended(d, batch.MessageDelivered)
		s.attempted(o)
		_, kept := s.message(d.Message)
		s.same("attempts", kept, []batch.Attempt{first.Attempt, o.Attempt})
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Delivered: 1})
	}},
	{"an order for messages that are on their way is refused", func(s *fixture) {
		for _, as := range []batch.MessageState{0, batch.MessageWaiting, batch.MessageSending, batch.MessageParked} {
			_, err := s.RedeliverAll(s.ctx, batch.Redelivery{State: as}, batch.Once{})
			s.refused(err, batch.Invalid)
		}
	}},
	{"what is settled while an order is carried out is not sent a third time", func(s *fixture) {
		s.proven(batch.TenantID{}, hook)
		g := s.create(called(600, 1))
		s.complete()
		s.deliver(g)
		since := s.messagesOf(g)[600].Created
		time.Sleep(2 * time.Millisecond) // times are kept by the millisecond
		wanted, err := s.RedeliverAll(s.ctx, batch.Redelivery{State: batch.MessageDelivered, Since: since}, batch.Once{})
		s.ok(err)
		s.same("wanted", wanted, 601)
		s.eventually("each is sent twice", func() bool {
			var os []batch.AttemptOutcome
			for _, d := range s.take(anyHost(50)) {
				os = append(os, ended(d, batch.MessageDelivered))
			}
			s.attempted(os...)
			return len(os) == 0 && allMade(s.messagesOf(g), 2)
		})
		s.restart() // whatever is left of the order is carried out
		s.quiet()
		s.same("made", allMade(s.messagesOf(g), 2), true)
	}},
	{"an order that was answered is carried out whatever happens", func(s *fixture) {
		s.proven(batch.TenantID{}, hook)
		g := s.create(called(700, 1))
		s.complete()
		s.deliver(g)
		for i, down := range s.endings() {
			_, err := s.RedeliverAll(s.ctx, batch.Redelivery{State: batch.MessageDelivered, Since: s.messagesOf(g)[700].Created}, batch.Once{})
			s.ok(err)
			s.down = down
			s.restart()
			s.eventually("all are sent again", func() bool {
				s.attempted(s.landing(batch.MessageDelivered)...)
				return allMade(s.messagesOf(g), i+2)
			})
		}
	}},
	{"orders of many tenants and hosts are all carried out", func(s *fixture) {
		for n := range byte(9) {
			m := called(5, 1)
			m.Tenant = tenant(n % 3)
			m.Options.CallbackURL = []string{"https://a.example/", "https://b.example/", "https://c.example/"}[n/3]
			s.create(m)
		}
		s.complete()
		s.settleAll(batch.MessageBlocked)
		s.settleAll(batch.MessageBlocked)
		s.settleAll(batch.MessageBlocked)
		s.together(9, func(n int) error {
			g := s.made.all()[n]
			wanted, err := s.RedeliverAll(s.ctx, batch.Redelivery{Tenant: g.Tenant, State: batch.MessageBlocked, Host: batch.CallbackHost(g.Options.CallbackURL)}, batch.Once{})
			if err == nil && wanted != 6 {
				err = batch.Errorf(batch.Damaged, "%d messages are wanted, not 6", wanted)
			}
			return err
		})
		for _, g := range s.made.all() {
			s.eventually("all wait", func() bool { return s.batch(g).Messages == batch.Ledger{Round: 5, Waiting: 6} })
		}
	}},
}

// redeliver has m sent again and claims it: the same id and the same bytes.
func (s *fixture) redeliver(m batch.Message) batch.Delivery {
	s.t.Helper()
	body := s.body(m)
	got, err := s.Redeliver(s.ctx, m.Tenant, m.ID, batch.Once{})
	s.ok(err)
	s.same("redelivered", []any{got.ID, got.State, got.Made}, []any{m.ID, batch.MessageWaiting, got.Spared})
	d := s.takeOne()
	s.same("message", d.ID, m.ID)
	if !bytes.Equal(s.body(d.Message), body) {
		s.t.Fatalf("the body is another")
	}
	return d
}

// order has so many messages sent again and waits until they are.
func (s *fixture) order(r batch.Redelivery, want int) {
	s.t.Helper()
	before := s.messages(batch.MessageQuery{Tenant: r.Tenant, State: r.State})
	wanted, err := s.RedeliverAll(s.ctx, r, batch.Once{})
	s.ok(err)
	s.same("wanted", wanted, want)
	s.eventually("the order is carried out", func() bool {
		left := s.messages(batch.MessageQuery{Tenant: r.Tenant, State: r.State})
		return len(left) == len(before)-want
	})
}

// landing claims what is due and returns the outcomes by which it is settled.
func (s *fixture) landing(as batch.MessageState) (os []batch.AttemptOutcome) {
	s.t.Helper()
	for _, d := range s.take(anyHost(100)) {
		os = append(os, ended(d, as))
	}
	return os
}

// settleAll settles every message that is due.
func (s *fixture) settleAll(as batch.MessageState) {
	s.t.Helper()
	time.Sleep(2 * time.Millisecond) // they are due by then
	for {
		os := s.landing(as)
		if len(os) == 0 {
			return
		}
		s.attempted(os...)
	}
}

// allMade reports whether each message is delivered, by that attempt.
func allMade(ms []batch.Message, made int) bool {
	for _, m := range ms {
		if m.State != batch.MessageDelivered || m.Made != made {
			return false
		}
	}
	return true
}
