package storagetest

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// steering: a batch is paused and goes on, and stops of too many failures;
// nothing that came in is lost over it.
var steering = cases{
	{"a paused batch gives out nothing, and what is in hand goes on", func(s *fixture) {
		g := s.create(called(8, 4))
		w := s.claim()
		p := s.pause(g)
		s.same("waiting on", p.WaitingOn, "paused")
		s.idle()
		h := batch.Holding{Tenant: g.Tenant, Batch: g.ID, Leases: []batch.Lease{w.Lease}, InFlight: 1}
		s.same("stop", s.renew(h), batch.Renewed{Stop: []batch.ID{g.ID}})
		s.record(partly(w, 1))
		s.same("begun", s.batch(g).Started.IsZero(), false)
		s.record(released(partly(w, 2)))
		s.idle()
		s.stands(g, batch.Paused, g.tally(1, 2))
		s.same("status", s.resume(g).Status, batch.Running)
		s.complete()
		s.ends(g, batch.Completed, g.tally(every(8)...))
	}},
	{"one that had not begun is queued again", func(s *fixture) {
		g := s.create(sample{Items: 2})
		s.pause(g)
		s.idle()
		s.same("status", s.resume(g).Status, batch.Queued)
		s.complete()
	}},
	{"both are idempotent", func(s *fixture) {
		g := s.create(sample{Items: 2})
		s.same("resumed", s.resume(g), s.batch(g))
		s.same("paused", s.pause(g), s.pause(g))
		s.same("resumed", s.resume(g), s.resume(g))
		s.complete()
	}},
	{"if the last in hand was the last of all, a paused batch completes", func(s *fixture) {
		for _, n := range []int{1, 2} {
			g := s.create(called(2, n))
			ws := s.claimAll()
			s.pause(g)
			s.record(finishAll(ws)...)
			s.ends(g, batch.Completed, g.tally(0, 1))
		}
	}},
	{"a paused batch can be canceled", func(s *fixture) {
		free, held := s.create(called(4, 2)), s.create(called(4, 2))
		s.pause(free)
		w := s.claim()
		s.same("the claimed batch", w.Lease.Block.Batch, held.ID)
		s.pause(held)
		s.cancel(free)
		s.ends(free, batch.Canceled, batch.Tally{Canceled: 4})
		s.same("status", s.cancel(held).Status, batch.Canceling)
		s.record(finish(w))
		done := held.tally(0, 1)
		done.Canceled = 2
		s.ends(held, batch.Canceled, done)
	}},
	{"what has ended, or is about to, is neither paused nor resumed", func(s *fixture) {
		completed := s.create(sample{Items: 2})
		s.complete()
		canceling := s.create(sample{Items: 2})
		w := s.claim()
		s.cancel(canceling)
		for _, g := range []*given{completed, canceling} {
			was := s.batch(g)
			_, err := s.Pause(s.ctx, g.Tenant, g.ID)
			s.wrongState(err)
			_, err = s.Resume(s.ctx, g.Tenant, g.ID)
			s.wrongState(err)
			s.same("the batch", s.batch(g), was)
		}
		s.record(letGo(w))
	}},
	{"an open batch is amended, not paused, and its deadline counts from its seal", func(s *fixture) {
		m := called(4, 1)
		m.PerPart = 2
		g := m.given()
		_, err := s.openBatch(g)
		s.ok(err)
		_, err = s.Pause(s.ctx, g.Tenant, g.ID)
		s.wrongState(err)
		_, err = s.Resume(s.ctx, g.Tenant, g.ID)
		s.wrongState(err)
		a := deadline(time.Hour)
		a.Concurrency = new(3)
		b, err := s.Amend(s.ctx, g.Tenant, g.ID, a)
		s.ok(err)
		s.same("deadline of an open batch", []any{b.Status, b.Expires, b.Options.Concurrency}, []any{batch.Open, time.Time{}, 3})
		for n := range g.parts {
			_, err = s.put(g, n)
			s.ok(err)
		}
		g.Options, g.Edition = b.Options, b.Edition
		time.Sleep(5 * time.Millisecond)
		b, err = s.seal(g)
		s.ok(err)
		s.made.add(g)
		if b.Expires.Before(g.Created.Add(time.Hour+5*time.Millisecond)) || b.Expires.After(time.Now().Add(time.Hour)) {
			s.t.Fatalf("a batch opened at %v expires at %v", g.Created, b.Expires)
		}
		s.complete()
		s.ends(g, batch.Completed, g.tally(every(4)...))
	}},
	{"of a pause, a resume and a cancel at once the cancel remains", func(s *fixture) {
		for range 10 {
			g := s.create(called(4, 2))
			s.together(3, func(n int) (err error) {
				switch n {
				case 0:
					_, err = s.Pause(s.ctx, g.Tenant, g.ID)
				case 1:
					_, err = s.Resume(s.ctx, g.Tenant, g.ID)
				default:
					_, err = s.Cancel(s.ctx, g.Tenant, g.ID)
				}
				if batch.CodeOf(err) == batch.Conflict && n < 2 {
					return nil
				}
				return err
			})
			s.ends(g, batch.Canceled, batch.Tally{Canceled: 4})
		}
	}},
	{"more failures than may be stop the batch, and what is in hand is kept", func(s *fixture) {
		g := s.create(bearing("0", 10, 5))
		ws := s.claimAll()
		s.record(partly(ws[0], 2))
		s.stands(g, batch.Running, g.tally(2))
		s.record(partly(ws[0], 3))
		s.stands(g, batch.Canceling, g.tally(2, 3))
		h := batch.Holding{Tenant: g.Tenant, Batch: g.ID, Leases: []batch.Lease{ws[1].Lease}}
		s.same("stop", s.renew(h).Stop, []batch.ID{g.ID})
		s.record(letGo(ws[0]))
		s.idle()
		s.record(released(partly(ws[1], 5, 8)))
		done := g.tally(2, 3, 5, 8)
		done.Canceled = 6
		s.ends(g, batch.Canceled, done)
		s.same("reason", s.batch(g).Reason, batch.CodeTooManyFailures)
		s.same("a result that never was", s.results(g, batch.ResultQuery{Limit: 1, Status: batch.ItemCanceled})[0],
			batch.EndedResult(0, "", batch.Progress{Status: batch.Canceled, Reason: batch.CodeTooManyFailures, Round: 1, Finished: s.batch(g).Finished}, 0))
	}},
	{"a claim says how many have failed by then, in its round", func(s *fixture) {
		g := s.create(bearing("90%", 20, 5)) // items 3, 8, 13 and 18 fail
		w := s.claim()
		s.same("failed", w.Failed, 0)
		s.record(partly(w, 3))
		s.same("failed", s.claim().Failed, 1)
		s.restart()
		ws := s.claimAll()
		s.same("failed", []int{ws[0].Failed, ws[3].Failed}, []int{1, 1})
		s.record(finishAll(ws)...)
		s.ends(g, batch.Completed, g.tally(every(20)...))
		s.retry(g, batch.Retry{Indexes: []int{8, 13}})
		ws = s.claimThose(2)
		s.same("failed", []int{ws[0].Failed, ws[1].Failed}, []int{0, 0})
		s.record(finish(ws[0]), letGo(ws[1]))
		s.same("failed", s.claim().Failed, 1)
	}},
	{"as many as may be do not", func(s *fixture) {
		for _, allowed := range []batch.Tolerance{"2", "20%", "100%"} {
			g := s.create(bearing(allowed, 10, 5))
			s.complete()
			s.ends(g, batch.Completed, g.tally(every(10)...))
		}
	}},
	{"the failure of the last item counts as well", func(s *fixture) {
		for _, blocks := range []int{1, 2} {
			g := s.create(bearing("0", 4, 4/blocks))
			s.complete()
			s.ends(g, batch.Canceled, g.tally(every(4)...))
			s.same("reason", s.batch(g).Reason, batch.CodeTooManyFailures)
		}
	}},
	{"a failure too many in a paused batch stops it too", func(s *fixture) {
		g := s.create(bearing("0", 8, 4))
		w := s.claim()
		s.pause(g)
		s.record(finish(w))
		done := g.tally(every(4)...)
		done.Canceled = 4
		s.ends(g, batch.Canceled, done)
	}},
	{"a deadline that an amendment has pass ends a batch once nothing of it is in hand", func(s *fixture) {
		g := s.create(called(8, 4))
		w := s.claim()
		s.same("status", s.expire(g).Status, batch.Running)
		s.idle()
		h := batch.Holding{Tenant: g.Tenant, Batch: g.ID, Leases: []batch.Lease{w.Lease}, Edition: 1}
		s.same("stop", s.renew(h), batch.Renewed{Stop: []batch.ID{g.ID}})
		for _, step := range []func() (batch.Batch, error){
			func() (batch.Batch, error) { return s.Cancel(s.ctx, g.Tenant, g.ID) },
			func() (batch.Batch, error) { return s.Pause(s.ctx, g.Tenant, g.ID) },
			func() (batch.Batch, error) { return s.Resume(s.ctx, g.Tenant, g.ID) },
			func() (batch.Batch, error) {
				return s.Amend(s.ctx, g.Tenant, g.ID, batch.Amendment{ExpiresIn: new(time.Duration)})
			},
		} {
			_, err := step()
			s.wrongState(err)
		}
		r := released(partly(w, 1, 3))
		r.Again = []batch.Again{{Index: 2, Attempts: 3, Due: now()}}
		s.record(r)
		done := g.tally(1, 3)
		done.Expired = 6
		s.ends(g, batch.Expired, done)
		s.same("type", s.terminal(g).Type, batch.TypeExpired)
		it, err := s.Item(s.ctx, g.Tenant, g.ID, 2)
		s.ok(err)
		s.same("what was tried", []any{it.Status, it.Attempts, it.Result.Attempts}, []any{batch.ItemExpired, 3, 3})
	}},
	{"a batch of which nothing is left completes after its deadline", func(s *fixture) {
		g := s.create(called(8, 4))
		ws := s.claimAll()
		s.expire(g)
		s.record(finish(ws[0]))
		s.stands(g, batch.Running, g.tally(every(4)...))
		s.record(finish(ws[1]))
		s.ends(g, batch.Completed, g.tally(every(8)...))
	}},
	{"many partly done blocks expire whole", func(s *fixture) {
		g := s.create(called(500, 2))
		for _, w := range s.claimAll() {
			s.record(released(partly(w, w.Items[0].Index)))
		}
		s.expire(g)
		done := s.batch(g).Done
		done.Expired = 250
		s.ends(g, batch.Expired, done)
	}},
	{"a cancel, a deadline and the last item at once have one winner, and the answers say which", func(s *fixture) {
		for range 20 {
			g := s.create(called(2, 2))
			w := s.claim()
			soon := g.Created.Add(2 * time.Millisecond)
			var late batch.Batch
			var canceled, lapsed error
			s.together(3, func(n int) (err error) {
				switch n {
				case 0:
					_, err = s.Record(s.ctx, []batch.Report{finish(w)}, batch.MessageClaim{})
					return err
				case 1:
					_, canceled = s.Cancel(s.ctx, g.Tenant, g.ID)
				default:
					time.Sleep(time.Until(soon))
					late, lapsed = s.Amend(s.ctx, g.Tenant, g.ID, deadline(time.Millisecond))
				}
				return nil
			})
			if lapsed == nil {
				g.Spec = late.Spec
			}
			for _, err := range []error{canceled, lapsed} {
				if batch.CodeOf(err) != batch.Conflict {
					s.ok(err)
				}
			}
			want := batch.Completed
			if canceled == nil {
				want = batch.Canceled
			}
			s.ends(g, want, g.tally(0, 1))
		}
	}},
}

// amending: what a batch asked for is changed, and whoever works for it from
// then on does as it is.
var amending = cases{
	{"claims bear what is asked for now, and holders hear of it", func(s *fixture) {
		g := s.create(called(8, 4))
		w := s.claim()
		high, three := batch.PriorityHigh, 3
		was := *w.Spec
		b := s.amend(g, batch.Amendment{Priority: &high, Concurrency: &three})
		s.same("asked for", []any{b.Options.Priority, b.Options.Concurrency, b.Edition}, []any{high, three, 1})
		s.same("what is in hand", *w.Spec, was)
		h := batch.Holding{Tenant: g.Tenant, Batch: g.ID, Leases: []batch.Lease{w.Lease}}
		s.same("amended", s.renew(h).Amended, []batch.Amended{{Spec: &g.Spec}})
		h.Edition = 1
		s.same("amended", s.renew(h), batch.Renewed{})
		s.same("claimed", *s.claim().Spec, g.Spec)
	}},
	{"a claim that follows on the answer bears it, whatever claims were under way", func(s *fixture) {
		g := s.create(sample{Items: 4, PerBlock: 1})
		stop := make(chan struct{})
		s.together(2, func(n int) error {
			if n == 1 {
				defer close(stop)
				for bound := range 200 {
					s.amend(g, batch.Amendment{Concurrency: new(bound + 1)})
					ws, err := s.Claim(s.ctx, batch.Claim{Owner: "other", Processors: []string{work}, Blocks: 1, PerBatch: 4})
					if err != nil {
						return err
					}
					for _, w := range ws {
						if w.Spec.Options.Concurrency != bound+1 {
							return fmt.Errorf("claimed with a bound of %d after it was %d", w.Spec.Options.Concurrency, bound+1)
						}
						s.record(letGo(w))
					}
				}
				return nil
			}
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				ws, err := s.Claim(s.ctx, batch.Claim{Owner: node, Processors: []string{work}, Blocks: 2, PerBatch: 2})
				if err != nil {
					return err
				}
				for _, w := range ws {
					s.record(letGo(w))
				}
			}
		})
	}},
	{"what is what it was changes nothing", func(s *fixture) {
		g := s.create(called(2, 2))
		was := s.batch(g)
		url := hook
		s.same("batch", s.amend(g, batch.Amendment{CallbackURL: &url, CallbackHeaders: map[string]*string{"x": nil}}), was)
		s.same("batch", s.amend(g, batch.Amendment{}), was)
	}},
	{"messages that wait go to the new host, and one in flight follows", func(s *fixture) {
		g := s.create(called(6, 1))
		s.complete()
		flying := s.takeOne()
		url, key := "http://other.example/hooks?x=1", "Bearer 7"
		s.amend(g, batch.Amendment{CallbackURL: &url, CallbackHeaders: map[string]*string{"authorization": &key}})
		s.moved(g, "other.example:80", 6)
		s.same("waiting for the old one", len(s.messages(batch.MessageQuery{Tenant: g.Tenant, Host: flying.Host, State: batch.MessageWaiting})), 0)
		s.attempted(again(flying, now()))
		m, _ := s.message(flying.Message)
		s.same("host of what was in flight", m.Host, "other.example:80")
		n := 0
		for s.batch(g).Messages.Waiting > 0 {
			d := s.takeOne()
			s.same("goes to", []any{d.URL, d.Headers, d.Host}, []any{url, map[string]string{"authorization": key}, "other.example:80"})
			s.attempted(ended(d, batch.MessageDelivered))
			n++
		}
		s.same("delivered", n, 7)
	}},
	{"they do not wait for the breaker of the old one", func(s *fixture) {
		g := s.create(called(600, 1))
		s.record(finishAll(s.claimAs(everything(300)))...)
		s.breaks(g, batch.HostUnreachable)
		s.quiet()
		url := "https://other.example/"
		s.amend(g, batch.Amendment{CallbackURL: &url})
		s.complete()
		s.moved(g, "other.example:443", 601)
		s.deliver(g)
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 600, Delivered: 601})
	}},
	{"so it is once the batch has ended, also for what is sent again", func(s *fixture) {
		g := s.create(called(2, 2))
		s.complete()
		s.attempted(ended(s.takeOne(), batch.MessageExhausted))
		url := "https://other.example/"
		s.amend(g, batch.Amendment{CallbackURL: &url})
		m := s.terminal(g)
		s.same("where it was sent", m.Host, batch.CallbackHost(hook))
		d := s.redeliver(m)
		s.same("where it is sent", []string{d.URL, d.Host}, []string{url, "other.example:443"})
	}},
	{"metadata goes with the messages that are made from then on", func(s *fixture) {
		m := called(2, 1)
		m.Options.Metadata = map[string]string{"a": "1", "b": "2"}
		g := s.create(m)
		three := "3"
		b := s.amend(g, batch.Amendment{Metadata: map[string]*string{"a": nil, "c": &three}})
		s.same("metadata", b.Options.Metadata, map[string]string{"b": "2", "c": "3"})
		s.complete()
		s.same("batches that have it", s.list(batch.BatchQuery{Tenant: g.Tenant, Metadata: map[string]string{"c": "3"}, Limit: 1}), []batch.ID{g.ID})
		s.same("that had", len(s.list(batch.BatchQuery{Tenant: g.Tenant, Metadata: map[string]string{"a": "1"}, Limit: 1})), 0)
	}},
	{"fewer failures than there are stop it at once", func(s *fixture) {
		g := s.create(bearing("100%", 10, 5))
		w := s.claim()
		s.record(finish(w))
		two, none := batch.Tolerance("10%"), batch.Tolerance("0")
		s.same("status", s.amend(g, batch.Amendment{MaxFailures: &two}).Status, batch.Running)
		s.amend(g, batch.Amendment{MaxFailures: &none})
		done := g.tally(every(5)...)
		done.Canceled = 5
		s.ends(g, batch.Canceled, done)
		s.same("reason", s.batch(g).Reason, batch.CodeTooManyFailures)
	}},
	{"a batch of which nothing has finished may be given a callback", func(s *fixture) {
		g := s.create(sample{Items: 4, PerBlock: 2})
		url := "https://other.example/"
		s.amend(g, batch.Amendment{CallbackURL: &url})
		s.complete()
		s.same("messages", len(s.messagesOf(g)), 3)
		for _, d := range s.takeAll(2, anyHost(2)) {
			s.same("to", d.URL, url)
			s.attempted(ended(d, batch.MessageDelivered))
		}
		s.deliver(g)
	}},
	{"what is refused changes nothing", func(s *fixture) {
		polled, over := s.create(sample{Items: 2, PerBlock: 1}), s.create(called(2, 2))
		s.record(finish(s.claim()))
		s.pause(polled)
		s.complete()
		url, five, bad := "https://other.example/", 5, -1
		for _, c := range []struct {
			g    *given
			a    batch.Amendment
			code batch.Code
		}{
			{polled, batch.Amendment{CallbackURL: &url}, batch.Conflict},
			{polled, batch.Amendment{CallbackHeaders: map[string]*string{"x": &url}}, batch.Invalid},
			{polled, batch.Amendment{Concurrency: &bad}, batch.Invalid},
			{over, batch.Amendment{Concurrency: &five, CallbackURL: &url}, batch.Conflict},
		} {
			was := s.batch(c.g)
			_, err := s.Amend(s.ctx, c.g.Tenant, c.g.ID, c.a)
			s.refused(err, c.code)
			s.same("batch", s.batch(c.g), was)
		}
	}},
}

// bearing is a sample of which so many items may fail; each fifth does.
func bearing(t batch.Tolerance, items, perBlock int) sample {
	m := called(items, perBlock)
	m.Options.MaxFailures = t
	return m
}

// deadline is an amendment that sets one.
func deadline(d time.Duration) batch.Amendment { return batch.Amendment{ExpiresIn: &d} }

func (s *fixture) pause(g *given) batch.Batch {
	s.t.Helper()
	b, err := s.Pause(s.ctx, g.Tenant, g.ID)
	s.ok(err)
	s.same("a paused batch", b.Status, batch.Paused)
	return b
}

func (s *fixture) resume(g *given) batch.Batch {
	s.t.Helper()
	b, err := s.Resume(s.ctx, g.Tenant, g.ID)
	s.ok(err)
	if !b.Status.Claimable() {
		s.t.Fatalf("a resumed batch is %v", b.Status)
	}
	return b
}

// amend changes g, and with it what the store is held to.
func (s *fixture) amend(g *given, a batch.Amendment) batch.Batch {
	s.t.Helper()
	b, err := s.Amend(s.ctx, g.Tenant, g.ID, a)
	s.ok(err)
	if id := b.Spec.ID; id != g.ID || b.Items != g.Items || b.Blocks != g.Blocks || b.Bytes != g.Bytes || !b.Created.Equal(g.Created) {
		s.t.Fatalf("an amendment made %+v of %+v", b.Spec, g.Spec)
	}
	g.Spec = b.Spec
	return b
}

// expire has the deadline of g pass.
func (s *fixture) expire(g *given) batch.Batch {
	s.t.Helper()
	time.Sleep(time.Until(s.batch(g).Accepted.Add(2 * time.Millisecond)))
	return s.amend(g, deadline(time.Millisecond))
}

// moved waits until so many messages of g wait for a host, and none for
// another.
func (s *fixture) moved(g *given, host string, n int) {
	s.t.Helper()
	s.eventually("messages move to "+host, func() bool {
		at := map[string]int{}
		for _, m := range s.messagesOf(g) {
			if !m.State.Settled() && m.State != batch.MessageSending {
				at[m.Host]++
			}
		}
		return maps.Equal(at, map[string]int{host: n})
	})
}

func (s *fixture) wrongState(err error) {
	s.t.Helper()
	s.refused(err, batch.Conflict)
	var refusal *batch.Error
	errors.As(err, &refusal)
	s.same("reason", refusal.Word(), "wrong_state")
}
