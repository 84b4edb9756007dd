package storagetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// watching: whoever watches is hinted at what changes, once it can be read,
// and may make up for what he missed.
var watching = cases{
	{"a batch is hinted at from its beginning to its end", func(s *fixture) {
		all := s.Watch(tenant(1), nil)
		defer all.Close()
		m := mine(2)
		g := m.given()
		s.hinted(all, false, func() { s.ok(s.submit(g)) })
		s.took(all, g)
		one := s.Watch(g.Tenant, &g.ID)
		defer one.Close()
		var w batch.Work
		s.hinted(one, false, func() { w = s.claim() })
		s.same("status", s.batch(g).Status, batch.Running)
		h := batch.Holding{Tenant: g.Tenant, Batch: g.ID, Leases: []batch.Lease{w.Lease}, InFlight: 1}
		s.hinted(one, false, func() { s.renew(h) })
		s.hinted(one, false, func() { s.record(partly(w, w.Items[0].Index)) })
		s.took(all, g)
		s.hinted(one, true, func() { s.record(finishAll(s.claimAll())...) })
		s.took(all, g)
	}},
	{"so is how it is steered", func(s *fixture) {
		g := s.create(mine(2))
		one := s.Watch(g.Tenant, &g.ID)
		defer one.Close()
		s.hinted(one, false, func() { s.pause(g) })
		s.hinted(one, false, func() { s.resume(g) })
		low := batch.PriorityLow
		s.hinted(one, false, func() { s.amend(g, batch.Amendment{Priority: &low}) })
		s.hinted(one, true, func() { s.cancel(g) })
		s.same("ended", s.batch(g).Status, batch.Canceled)
	}},
	{"what becomes of its messages after the end is told to its own watchers", func(s *fixture) {
		g := s.create(mine(1))
		s.complete()
		all, one := s.Watch(g.Tenant, nil), s.Watch(g.Tenant, &g.ID)
		defer all.Close()
		defer one.Close()
		s.hinted(one, false, func() { s.attempted(ended(s.takeOne(), batch.MessageDelivered)) })
		s.same("delivered", s.batch(g).Messages.Delivered, 1)
		s.took(all)
	}},
	{"another's batch is not hinted at", func(s *fixture) {
		g, other := s.create(mine(1)), tenant(2)
		all, one := s.Watch(other, nil), s.Watch(other, &g.ID)
		defer all.Close()
		defer one.Close()
		before := one.Version()
		s.create(mine(1))
		s.complete()
		s.took(all)
		s.same("version", one.Version(), before)
	}},
	{"who is hinted at an end can read it", func(s *fixture) {
		for range 20 {
			g := s.create(mine(1))
			one := s.Watch(g.Tenant, &g.ID)
			_, over := one.After(one.Version())
			s.together(2, func(n int) error {
				if n == 0 {
					_, err := s.Record(s.ctx, finishAll(s.claimAll()), batch.MessageClaim{})
					return err
				}
				<-over
				b, err := s.Batch(s.ctx, g.Tenant, g.ID)
				s.same("status", b.Status, batch.Completed)
				return err
			})
			one.Close()
		}
	}},
	{"the batches under way are listed, each tenant its own", func(s *fixture) {
		var want []batch.ID
		for n := range 7 {
			g := s.create(mine(1))
			s.create(sample{Tenant: tenant(2)})
			if n%3 == 0 {
				s.cancel(g)
				s.ends(g, batch.Canceled, batch.Tally{Canceled: 1})
			} else {
				want = append(want, g.ID)
			}
		}
		slices.SortFunc(want, func(a, b batch.ID) int { return slices.Compare(a[:], b[:]) })
		for _, limit := range []int{1, 3, 100} {
			s.same("under way", s.active(tenant(1), limit), want)
		}
		s.restart()
		s.same("after a restart", s.active(tenant(1), 2), want)
		s.complete()
		s.same("at the end", len(s.active(tenant(1), 2)), 0)
	}},
	{"the batches that ended are listed in that order, from a time on", func(s *fixture) {
		var want []batch.ID
		var at []time.Time
		for n := range 6 {
			s.create(sample{Tenant: tenant(2)})
			g := s.create(mine(1))
			if n%2 == 0 {
				s.complete()
			} else {
				s.cancel(g)
				s.ends(g, batch.Canceled, batch.Tally{Canceled: 1})
				s.complete()
			}
			want, at = append(want, g.ID), append(at, s.batch(g).Finished)
			time.Sleep(3 * time.Millisecond)
		}
		s.create(mine(1))
		for _, limit := range []int{1, 2, 100} {
			s.same("ended", s.over(tenant(1), time.Time{}, limit), want)
			for n := range want {
				s.same("from a time on", s.over(tenant(1), at[n], limit), want[n:])
			}
			s.same("after all", len(s.over(tenant(1), at[5].Add(time.Millisecond), limit)), 0)
		}
		s.restart()
		s.same("after a restart", s.over(tenant(1), at[2], 2), want[2:])
	}},
	{"one that goes on in another round is under way, and one that is deleted nowhere", func(s *fixture) {
		g := s.create(mine(5))
		s.complete()
		all, one := s.Watch(g.Tenant, nil), s.Watch(g.Tenant, &g.ID)
		defer all.Close()
		defer one.Close()
		s.hinted(one, false, func() { s.retry(g, batch.Retry{From: 1}) })
		s.took(all, g)
		s.same("under way", s.active(g.Tenant, 2), []batch.ID{g.ID})
		s.same("ended", len(s.over(g.Tenant, time.Time{}, 2)), 0)
		s.hinted(one, true, func() { s.cancel(g) })
		s.same("under way", len(s.active(g.Tenant, 2)), 0)
		s.same("ended", s.over(g.Tenant, time.Time{}, 2), []batch.ID{g.ID})
		s.hinted(one, false, func() { s.remove(g, true) })
		s.same("ended", len(s.over(g.Tenant, time.Time{}, 2)), 0)
	}},
	{"a batch of which all waits for its next attempt says so, whoever looked", func(s *fixture) {
		g := s.create(sample{Items: 2, PerBlock: 1})
		s.same("waiting on, when others are served", s.batch(g).WaitingOn, batch.WaitingCapacity)
		ws := s.claimAll()
		s.same("waiting on, in hand", s.batch(g).WaitingOn, "")
		s.record(released(again1(ws[0], 0, time.Hour)))
		s.same("waiting on, half of it in hand", s.batch(g).WaitingOn, "")
		s.record(released(again1(ws[1], 1, time.Millisecond)))
		time.Sleep(5 * time.Millisecond)
		s.same("waiting on, when one is due", s.batch(g).WaitingOn, batch.WaitingCapacity)
		s.record(released(again1(s.claim(), 1, time.Hour)))
		s.same("waiting on, when none is due", s.batch(g).WaitingOn, batch.WaitingBackoff)
		list, _, err := s.Active(s.ctx, g.Tenant, batch.ID{}, 5)
		s.ok(err)
		s.same("in the list", list[0].WaitingOn, batch.WaitingBackoff)
		s.pause(g)
		s.same("waiting on, paused", s.batch(g).WaitingOn, batch.WaitingPaused)
	}},
}

// pacing: how fast a batch moves is told, and nothing while it does not.
var pacing = cases{
	{"the rate is that of late", func(s *fixture) {
		g := s.create(sample{Items: 100})
		s.same("rate before the start", s.batch(g).Rate, 0.0)
		w := s.claim()
		for i := range 20 {
			time.Sleep(500 * time.Millisecond)
			s.record(partly(w, 2*i, 2*i+1))
		}
		b := s.batch(g)
		if b.Rate < 3.5 || b.Rate > 4.5 {
			s.t.Fatalf("the rate is %v, it is 4 a second", b.Rate)
		}
		if left := time.Until(b.ETA(time.Now())); left < 13*time.Second || left > 17*time.Second {
			s.t.Fatalf("60 at 4 a second are left and take %v", left)
		}
		s.record(letGo(w))
		s.same("rate when nobody holds it", s.batch(g).Rate, 0.0)
		w = s.claim()
		time.Sleep(2 * time.Minute)
		s.same("rate when nothing was finished for long", s.batch(g).Rate, 0.0)
		s.record(finish(w))
		s.same("rate when it has ended", s.batch(g).Rate, 0.0)
	}},
}

// again1 reports that an item is tried again after a while.
func again1(w batch.Work, index int, after time.Duration) batch.Report {
	return batch.Report{Lease: w.Lease, Started: now(), Again: []batch.Again{{Index: index, Attempts: 1, Due: now().Add(after)}}}
}

// hinted fails unless a watch is hinted at what do does, and whether that is an
// end.
func (s *fixture) hinted(w *batch.Watch, end bool, do func()) {
	s.t.Helper()
	changed, over := w.After(w.Version())
	do()
	if end {
		changed = over
	}
	select {
	case <-changed:
	case <-time.After(s.patience):
		s.t.Fatalf("nobody was hinted at it within %v", s.patience)
	}
	select {
	case <-over:
		s.same("it was an end", true, end)
	default:
	}
}

// took fails unless a watch was hinted at exactly these since the last time.
func (s *fixture) took(w *batch.Watch, want ...*given) {
	s.t.Helper()
	hints, missed := w.Take()
	var got, ids []batch.ID
	for _, h := range hints {
		got = append(got, h.ID)
	}
	for _, g := range want {
		ids = append(ids, g.ID)
	}
	s.same("hinted at", got, ids)
	s.same("missed", missed, false)
}

// active lists what is under way, page by page.
func (s *fixture) active(t batch.TenantID, limit int) (ids []batch.ID) {
	s.t.Helper()
	for after := (&batch.ID{}); after != nil; {
		list, next, err := s.Active(s.ctx, t, *after, limit)
		s.ok(err)
		for _, b := range list {
			ids = append(ids, b.ID)
		}
		after = next
	}
	return ids
}

// over lists what has ended, page by page.
func (s *fixture) over(t batch.TenantID, since time.Time, limit int) (ids []batch.ID) {
	s.t.Helper()
	for after := (&batch.EndedAt{Time: since}); after != nil; {
		list, next, err := s.Ended(s.ctx, t, *after, limit)
		s.ok(err)
		for _, b := range list {
			ids = append(ids, b.ID)
		}
		after = next
	}
	return ids
}

// modelWatch is a watcher of every tenant of the model, and what he knows.
type modelWatch struct {
	store  batch.Store // that he watches
	of     map[batch.TenantID]*batch.Watch
	known  map[batch.ID]string
	hinted map[batch.ID]bool
}

// watched fails unless the watcher was hinted at every batch that is another
// now, and can find all of them.
func (m *model) watched() {
	m.t.Helper()
	w, anew := &m.watch, m.watch.store != m.Store
	if anew {
		*w = modelWatch{store: m.Store, of: map[batch.TenantID]*batch.Watch{}, known: map[batch.ID]string{}}
		for n := range byte(2) {
			w.of[tenant(n)] = m.Watch(tenant(n), nil)
		}
	}
	w.hinted = map[batch.ID]bool{}
	active, ended := map[batch.TenantID][]batch.ID{}, map[batch.TenantID][]batch.ID{}
	for _, o := range m.open {
		active[o.Tenant] = append(active[o.Tenant], o.ID)
	}
	for _, b := range m.batches {
		got := m.batch(b.given)
		if got.Status.Terminal() {
			ended[b.Tenant] = append(ended[b.Tenant], b.ID)
		} else {
			active[b.Tenant] = append(active[b.Tenant], b.ID)
		}
		now := fmt.Sprint(got.Status, got.Round, got.Done)
		if w.known[b.ID] != now && !anew {
			m.eventually("a hint at "+b.ID.String(), func() bool { return w.sees(b.given) })
		}
		w.known[b.ID] = now
	}
	for n := range byte(2) {
		m.same("under way", m.active(tenant(n), 2), inOrder(active[tenant(n)]))
		m.same("ended", inOrder(m.over(tenant(n), time.Time{}, 2)), inOrder(ended[tenant(n)]))
	}
}

// sees reports whether the watcher was hinted at a batch.
func (w *modelWatch) sees(g *given) bool {
	hints, _ := w.of[g.Tenant].Take()
	for _, h := range hints {
		w.hinted[h.ID] = true
	}
	return w.hinted[g.ID]
}
