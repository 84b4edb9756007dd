package storagetest

import (
	"time"

	"github.com/callbatch/callbatch/batch"
)

// budgeting: no kind of message, and no host, takes the slots of another.
var budgeting = cases{
	{"without a budget for retries there are first attempts only, and nobody is sent in circles", func(s *fixture) {
		s.proven(batch.TenantID{}, hook)
		g := s.create(called(3, 1))
		s.complete()
		tried := s.takeOne()
		s.attempted(again(tried, now()))
		time.Sleep(2 * time.Millisecond)
		c := anyHost(10)
		c.Retries = 0
		ds := s.takeAll(2, c)
		for _, d := range ds {
			s.same("attempt", d.Made, 1)
		}
		s.none(c)
		s.notNow()
		s.same("with a budget", s.takeOne().ID, tried.ID)
		s.same("the end", s.terminal(g).Made, 0)
	}},
	{"a retry that waits for its time is awaited without a budget too", func(s *fixture) {
		s.create(called(1, 1))
		s.complete()
		hour := now().Add(time.Hour)
		s.attempted(again(s.takeOne(), hour))
		c := anyHost(10)
		c.Retries = 0
		s.none(c)
		at, some, err := s.NextMessage(s.ctx)
		s.ok(err)
		s.same("next message", []any{at.UTC(), some}, []any{hour, true})
	}},
	{"without a budget for trials nothing goes to a host that is not proven, and nobody is sent in circles", func(s *fixture) {
		s.proven(batch.TenantID{}, hook)
		m := called(1, 1)
		m.Options.CallbackURL = "https://unknown.example/"
		unknown := s.create(m)
		known := s.create(called(1, 1))
		c := anyHost(10)
		c.Trials = 0
		rec, err := s.Record(s.ctx, finishAll(s.claimAll()), c)
		s.ok(err)
		ds := append(rec.Deliveries, s.takeAll(1-len(rec.Deliveries), c)...)
		s.same("message", []any{ds[0].Batch, ds[0].Trial}, []any{known.ID, false})
		s.none(c)
		s.notNow()
		c.Trials = 1
		d := s.takeAll(1, c)[0]
		s.same("message", []any{d.Batch, d.Trial}, []any{unknown.ID, true})
	}},
	{"a host that nobody knows is sent four messages at once, and more with every answer", func(s *fixture) {
		s.create(called(60, 1))
		s.complete()
		flying := s.takeAll(4, anyHost(4))
		s.quiet()
		for _, room := range []int{8, 16, 32} {
			s.attempted(ended(flying[0], batch.MessageDelivered))
			flying = append(flying[1:], s.take(anyHost(60))...)
			s.same("in flight", len(flying), room)
			s.quiet()
		}
		s.same("trials at first", flying[0].Trial, true)
		s.same("trials in the end", flying[31].Trial, false)
	}},
	{"trials are counted by the message, over all hosts", func(s *fixture) {
		for _, url := range []string{"https://a.example/", "https://b.example/", "https://c.example/"} {
			m := called(4, 1)
			m.Options.CallbackURL = url
			s.create(m)
		}
		s.complete()
		time.Sleep(2 * time.Millisecond)
		c := anyHost(20)
		c.Trials = 5
		s.same("claimed", len(s.take(c)), 5)
		s.same("claimed", len(s.take(c)), 5)
		s.same("claimed", len(s.take(c)), 2)
	}},
	{"what is passed by for want of trials goes when its host is proven", func(s *fixture) {
		s.create(called(20, 1))
		s.complete()
		c := anyHost(20)
		c.Trials = 2
		ds := s.takeAll(2, c)
		c.Trials = 0
		s.none(c)
		s.notNow()
		s.attempted(ended(ds[0], batch.MessageDelivered), ended(ds[1], batch.MessageDelivered))
		at, some, err := s.NextMessage(s.ctx)
		s.ok(err)
		s.same("worth a claim", some && !at.After(time.Now()), true)
		s.same("claimed", len(s.take(c)), 16)
	}},
	{"who is passed by for want of trials has a turn, whoever has more", func(s *fixture) {
		for n := range 40 {
			m := mine(1)
			m.Options.CallbackURL = "https://" + string(rune('a'+n%26)) + string(rune('a'+n/26)) + ".example/"
			s.create(m)
		}
		small := s.create(called(1, 1))
		s.complete()
		c := anyHost(100)
		c.Trials = 0
		s.none(c)
		c.Trials = 1
		for range 8 {
			if s.take(c)[0].Batch == small.ID {
				return
			}
		}
		s.t.Fatalf("none of 8 messages was that of the other tenant")
	}},
	{"retries leave an eighth of a host's slots to first attempts", func(s *fixture) {
		s.proven(batch.TenantID{}, hook)
		g := s.create(called(12, 1))
		s.complete()
		var os []batch.AttemptOutcome
		for _, d := range s.takeAll(12, anyHost(12)) {
			os = append(os, again(d, now()))
		}
		s.attempted(os...)
		c := ask(20, 8)
		s.takeAll(7, c)
		s.none(c)
		s.create(called(2, 2))
		s.complete()
		d := s.takeAll(1, c)[0]
		s.same("attempt", []any{d.Made, d.Batch == g.ID}, []any{1, false})
		s.none(c)
	}},
	{"neither first attempts nor retries wait for all of the others, however few a claim takes", func(s *fixture) {
		for _, most := range []int{1, 3, 16} {
			s.proven(batch.TenantID{}, hook)
			s.create(called(60, 1))
			s.complete()
			var os []batch.AttemptOutcome
			for _, d := range s.takeAll(60, anyHost(60)) {
				os = append(os, again(d, now()))
			}
			s.attempted(os...)
			s.create(called(60, 1))
			s.complete()
			time.Sleep(2 * time.Millisecond)
			kinds := map[bool]int{}
			for n := 0; n < 48; n++ {
				for _, d := range s.take(anyHost(most)) {
					if n++; n <= 48 {
						kinds[d.Retry()]++
					}
				}
			}
			if kinds[true] < 3 || kinds[false] < 3 {
				s.t.Fatalf("of 48 messages, %d a claim, %d were tried before and %d never", most, kinds[true], kinds[false])
			}
			s.settleAll(batch.MessageDelivered)
		}
	}},
	{"what waits is not passed by for what is new", func(s *fixture) {
		g := s.create(called(6, 1))
		s.complete()
		c := ask(1, 1)
		d := s.takeAll(1, c)[0]
		for range 12 {
			s.attempted(ended(d, batch.MessageDelivered))
			s.create(called(1, 1))
			rec, err := s.Record(s.ctx, finishAll(s.claimAll()), c)
			s.ok(err)
			s.begun(rec.Deliveries)
			d = append(rec.Deliveries, s.takeAll(1-len(rec.Deliveries), c)...)[0]
		}
		m := s.batch(g).Messages
		s.same("owed and delivered", []any{m.Owed, m.Delivered >= 6}, []any{0, true})
	}},
	{"what waits for a slot goes when another's attempt has ended", func(s *fixture) {
		s.create(called(3, 1))
		s.complete()
		c := ask(10, 1)
		d := s.takeAll(1, c)[0]
		s.none(c)
		s.notNow()
		o := again(d, now().Add(time.Hour))
		o.Refund = true
		s.attempted(o)
		s.takeAll(1, c)
	}},
}

// notNow fails if a claim is said to be worthwhile at once.
func (s *fixture) notNow() {
	s.t.Helper()
	at, some, err := s.NextMessage(s.ctx)
	s.ok(err)
	if some && at.Before(time.Now().Add(time.Minute)) {
		s.t.Fatalf("a message is said to be due %v", at)
	}
}
