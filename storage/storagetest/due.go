package storagetest

import (
	"time"

	"github.com/callbatch/callbatch/batch"
)

// timing: a batch begins when it may and ends when it must, by itself,
// whatever restarts in between.
var timing = cases{
	{"nothing is claimed before its time, and at it everything", func(s *fixture) {
		at := now().Add(time.Hour)
		m := sample{Items: 4, PerBlock: 2}
		m.Options.NotBefore = at
		g := s.create(m)
		for range 2 {
			s.idle()
			s.same("waiting on", []any{s.batch(g).Status, s.batch(g).WaitingOn}, []any{batch.Queued, "not_before"})
			due, some, err := s.NextDue(s.ctx, []string{work})
			s.ok(err)
			s.same("next due", []any{due.UTC(), some}, []any{at, true})
			s.restart()
		}
		s.pass(at)
		s.same("waiting on", s.batch(g).WaitingOn == "not_before", false)
		s.complete()
		s.ends(g, batch.Completed, g.tally(every(4)...))
	}},
	{"a batch that is sealed before its time says so at once", func(s *fixture) {
		m := inParts()
		m.Options.NotBefore = now().Add(time.Hour)
		g := s.unsealed(m, 0, 1, 2)
		b, err := s.seal(g)
		s.ok(err)
		s.made.add(g)
		s.same("waiting on", b.WaitingOn, "not_before")
		s.pass(m.Options.NotBefore)
		s.complete()
		s.stands(g, batch.Completed, g.tally(every(10)...))
	}},
	{"a batch expires at its deadline", func(s *fixture) {
		g := s.create(limited(time.Hour))
		s.same("deadline", s.batch(g).Expires, g.Created.Add(time.Hour))
		w := s.claim()
		s.same("nothing is to be started from", w.Expires, g.Created.Add(time.Hour))
		s.record(released(partly(w, 0)))
		s.pass(g.Created.Add(time.Hour - time.Second))
		s.stands(g, batch.Running, g.tally(0))
		s.pass(g.Created.Add(time.Hour))
		done := g.tally(0)
		done.Expired = 5
		s.ends(g, batch.Expired, done)
		s.same("reason", s.batch(g).Reason, "")
		if late := s.batch(g).Finished.Sub(g.Created.Add(time.Hour)); late < 0 || late > 100*time.Millisecond {
			s.t.Fatalf("it ended %v after its deadline", late)
		}
		want := batch.EndedResult(5, "", s.batch(g).Progress, 0)
		s.same("a result that never was", s.results(g, batch.ResultQuery{From: 5})[0], want)
	}},
	{"what is in hand then is waited for, and nothing more is given out", func(s *fixture) {
		g := s.create(limited(time.Hour))
		w := s.claim()
		s.pass(g.Created.Add(time.Hour))
		s.idle()
		h := batch.Holding{Tenant: g.Tenant, Batch: g.ID, Leases: []batch.Lease{w.Lease}, InFlight: 1}
		s.same("stop", s.renew(h), batch.Renewed{Stop: []batch.ID{g.ID}})
		time.Sleep(time.Minute)
		s.stands(g, batch.Running, batch.Tally{})
		_, err := s.Cancel(s.ctx, g.Tenant, g.ID)
		s.wrongState(err)
		s.record(finish(w))
		done := g.tally(0, 1, 2)
		done.Expired = 3
		s.ends(g, batch.Expired, done)
	}},
	{"a cancel that came before wins", func(s *fixture) {
		g := s.create(limited(time.Hour))
		w := s.claim()
		s.cancel(g)
		s.pass(g.Created.Add(time.Hour))
		s.record(letGo(w))
		s.ends(g, batch.Canceled, batch.Tally{Canceled: 6})
	}},
	{"a paused batch expires, and one that may not begin yet", func(s *fixture) {
		paused, early := s.create(limited(time.Hour)), limited(time.Hour)
		early.Options.NotBefore = now().Add(24 * time.Hour)
		waiting := s.create(early)
		s.pause(paused)
		s.pass(paused.Created.Add(time.Hour))
		s.ends(paused, batch.Expired, batch.Tally{Expired: 6})
		s.ends(waiting, batch.Expired, batch.Tally{Expired: 6})
	}},
	{"a deadline that passed while the store was closed is met when it opens", func(s *fixture) {
		g, later := s.create(limited(time.Hour)), s.create(limited(3*time.Hour))
		s.claim()
		s.ok(s.Close())
		s.Store = nil
		s.pass(g.Created.Add(2 * time.Hour))
		s.open()
		s.ends(g, batch.Expired, batch.Tally{Expired: 6})
		s.stands(later, batch.Queued, batch.Tally{})
		s.pass(later.Created.Add(3 * time.Hour))
		s.ends(later, batch.Expired, batch.Tally{Expired: 6})
	}},
	{"a restart while the last is in hand loses neither the deadline nor the batch", func(s *fixture) {
		g := s.create(limited(time.Hour))
		s.claim()
		s.pass(g.Created.Add(time.Hour))
		s.restart()
		s.ends(g, batch.Expired, batch.Tally{Expired: 6})
	}},
	{"a deadline that is moved is met where it is now", func(s *fixture) {
		later, sooner, never := s.create(limited(time.Hour)), s.create(limited(time.Hour)), s.create(limited(time.Hour))
		w := s.claim()
		s.same("the claimed batch", w.Lease.Block.Batch, later.ID)
		s.same("deadline", s.amend(later, deadline(2*time.Hour)).Expires, later.Created.Add(2*time.Hour))
		h := batch.Holding{Tenant: later.Tenant, Batch: later.ID, Leases: []batch.Lease{w.Lease}}
		s.same("amended", s.renew(h).Amended, []batch.Amended{{Spec: &later.Spec, Expires: later.Created.Add(2 * time.Hour)}})
		s.record(letGo(w))
		s.amend(sooner, deadline(30*time.Minute))
		s.same("deadline", s.amend(never, deadline(0)).Expires, time.Time{})
		s.pass(sooner.Created.Add(30 * time.Minute))
		s.ends(sooner, batch.Expired, batch.Tally{Expired: 6})
		s.pass(later.Created.Add(2*time.Hour - time.Second))
		s.stands(later, batch.Running, batch.Tally{})
		s.pass(later.Created.Add(2 * time.Hour))
		s.ends(later, batch.Expired, batch.Tally{Expired: 6})
		s.pass(never.Created.Add(1000 * time.Hour))
		s.stands(never, batch.Queued, batch.Tally{})
	}},
	{"many deadlines at once are all met", func(s *fixture) {
		var gs []*given
		for range 200 {
			gs = append(gs, s.create(limited(time.Hour)))
		}
		s.pass(gs[199].Created.Add(time.Hour))
		for _, g := range gs {
			s.ends(g, batch.Expired, batch.Tally{Expired: 6})
		}
	}},
}

// limited is a sample of six items in two blocks with a deadline.
func limited(in time.Duration) sample {
	m := called(6, 3)
	m.Options.ExpiresIn = in
	return m
}
