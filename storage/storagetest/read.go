package storagetest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// reading: what is shown is what is kept, in pages that neither skip nor
// repeat, and only to whom it belongs.
var reading = cases{
	{"batches are listed newest first, each tenant its own", func(s *fixture) {
		var want []batch.ID
		for n := range 7 {
			g := s.create(nth(n))
			s.create(sample{Tenant: tenant(2)})
			want = slices.Insert(want, 0, g.ID)
		}
		for _, limit := range []int{1, 3, 7, 100} {
			s.same("list", s.list(batch.BatchQuery{Tenant: tenant(1), Limit: limit}), want)
		}
		s.same("list of a tenant without batches", len(s.list(batch.BatchQuery{Tenant: tenant(3), Limit: 5})), 0)
	}},
	{"pages neither skip nor repeat while new batches come in", func(s *fixture) {
		var want, got []batch.ID
		for n := range 9 {
			want = slices.Insert(want, 0, s.create(nth(n)).ID)
		}
		q := batch.BatchQuery{Tenant: tenant(1), Limit: 2}
		for n := 0; ; n++ {
			list, next, err := s.Batches(s.ctx, q)
			s.ok(err)
			for _, b := range list {
				got = append(got, b.ID)
			}
			if next == nil {
				break
			}
			q.Before = next
			s.create(nth(100 + n))
		}
		s.same("list", got, want)
	}},
	{"batches are listed by status", func(s *fixture) {
		done, stopped, running := s.create(nth(0)), s.create(nth(1)), s.create(nth(2))
		s.cancel(stopped)
		s.ends(stopped, batch.Canceled, batch.Tally{Canceled: 1})
		for _, w := range s.claimAll() {
			switch w.Lease.Block.Batch {
			case done.ID:
				s.record(finish(w))
			case running.ID:
				s.record(batch.Report{Lease: w.Lease, Started: now()})
			}
		}
		queued := s.create(nth(3))
		q := batch.BatchQuery{Tenant: tenant(1), Limit: 1}
		for as, g := range map[batch.Status]*given{
			batch.Completed: done, batch.Canceled: stopped, batch.Queued: queued, batch.Running: running,
		} {
			q.Status = as
			s.same(as.String(), s.list(q), []batch.ID{g.ID})
		}
		q.Status = batch.Expired
		s.same("expired", len(s.list(q)), 0)
	}},
	{"results come by index, from where they are asked, as many as are asked", func(s *fixture) {
		g, _ := s.halfway()
		has := []int{0, 1, 2, 5, 8, 9}
		for _, limit := range []int{1, 2, 5, 100} {
			for from := range 12 {
				at, _ := slices.BinarySearch(has, from)
				s.same("results", s.results(g, batch.ResultQuery{From: from, Limit: limit}), g.expected(has[at:]...))
			}
		}
		s.same("failed", s.results(g, batch.ResultQuery{Status: batch.ItemFailed, Limit: 1}), g.expected(8))
		s.same("succeeded", s.results(g, batch.ResultQuery{Status: batch.ItemSucceeded, Limit: 2}), g.expected(0, 1, 2, 5, 9))
		s.same("canceled", len(s.results(g, batch.ResultQuery{Status: batch.ItemCanceled})), 0)
		p := s.page(g, batch.ResultQuery{Limit: 1})
		s.same("the batch of a page", p.Batch, s.batch(g))
		s.same("beyond the end", s.page(g, batch.ResultQuery{From: 50, Limit: 5}).Last, true)
	}},
	{"a walk of the prefix never passes an unfinished item", func(s *fixture) {
		g, w := s.halfway()
		q := batch.ResultQuery{Limit: 2, Prefix: true}
		var all []batch.Result
		for range 3 {
			p := s.page(g, q)
			all = append(all, p.Results...)
			q.From = p.Next
		}
		s.same("prefix", all, g.expected(0, 1, 2))
		p := s.page(g, q)
		s.same("at the unfinished item", []any{len(p.Results), p.Next, p.Last}, []any{0, 3, true})
		s.same("failed in the prefix", len(s.results(g, batch.ResultQuery{Prefix: true, Status: batch.ItemFailed})), 0)
		s.record(released(partly(w, 3, 4)))
		s.same("the rest of the prefix", s.results(g, batch.ResultQuery{From: q.From, Prefix: true}), g.expected(3, 4, 5))
		s.same("failed in the prefix", s.results(g, batch.ResultQuery{Prefix: true, Status: batch.ItemFailed}), g.expected(3))
		s.same("from beyond the prefix", len(s.results(g, batch.ResultQuery{From: 6, Prefix: true})), 0)
	}},
	{"pages stop at their bytes and go on", func(s *fixture) {
		g := s.create(sample{Items: 40, PerBlock: 16})
		for _, w := range s.claimAll() {
			r := finish(w)
			for i := range r.Results {
				r.Results[i].Payload = fmt.Appendf(nil, `"%d%s"`, r.Results[i].Index, strings.Repeat("y", 995))
			}
			s.record(r)
		}
		for _, most := range []int{1, 1000, 2500, 20_000} {
			rs := s.results(g, batch.ResultQuery{Bytes: most})
			s.same("results", len(rs), 40)
			if n := len(s.page(g, batch.ResultQuery{Bytes: most, Limit: 100}).Results); n > most/1000+1 {
				s.t.Fatalf("a page of at most %d bytes has %d results of 1,000", most, n)
			}
		}
	}},
	{"an item is shown as it stands", func(s *fixture) {
		g := s.create(sample{Items: 8, PerBlock: 4, Item: strange})
		ws := s.claimAll()
		r := released(partly(ws[0], 0, 3))
		r.Again = []batch.Again{{Index: 1, Attempts: 2, Due: now().Add(time.Hour)}}
		s.record(r)
		s.item(g, 0, batch.ItemSucceeded, 1)
		s.item(g, 1, batch.ItemPending, 2)
		s.item(g, 2, batch.ItemPending, 0)
		s.item(g, 3, batch.ItemFailed, 1)
		s.record(letGo(ws[1]))
		s.item(g, 4, batch.ItemPending, 0)
		s.cancel(g)
		done := g.tally(0, 3)
		done.Canceled = 6
		s.ends(g, batch.Canceled, done)
		s.item(g, 0, batch.ItemSucceeded, 1)
		s.item(g, 1, batch.ItemCanceled, 2)
		s.item(g, 7, batch.ItemCanceled, 0)
		for _, outside := range []int{-1, 8, 1 << 40} {
			_, err := s.Item(s.ctx, g.Tenant, g.ID, outside)
			s.refused(err, batch.NotFound)
		}
	}},
	{"messages are listed newest first, by batch or all, without gaps", func(s *fixture) {
		five, four := nth(0), nth(1)
		five.Items, four.Items, five.PerBlock, four.PerBlock = 5, 4, 1, 1
		five.Options.CallbackURL, four.Options.CallbackURL = hook, hook
		a, b := s.create(five), s.create(four)
		s.create(called(3, 1))
		s.complete()
		all := s.messages(batch.MessageQuery{Tenant: tenant(1)})
		s.same("messages", []int{len(all), len(s.messagesOf(a)), len(s.messagesOf(b))}, []int{11, 6, 5})
		if !slices.IsSortedFunc(all, func(m, n batch.Message) int { return n.Created.Compare(m.Created) }) {
			s.t.Fatalf("the messages are not newest first")
		}
		for _, limit := range []int{1, 4, 11} {
			s.same("all", ids(s.messages(batch.MessageQuery{Tenant: tenant(1), Limit: limit})), ids(all))
			s.same("of a batch", ids(s.messages(batch.MessageQuery{Tenant: tenant(1), Batch: &a.ID, Limit: limit})), ids(s.messagesOf(a)))
		}
		d := s.takeOne()
		s.same("sending", ids(s.messages(batch.MessageQuery{Tenant: d.Tenant, State: batch.MessageSending, Limit: 1})), []batch.MessageID{d.ID})
	}},
	{"messages are listed by state and host, and in a batch", func(s *fixture) {
		as := []batch.MessageState{batch.MessageDelivered, batch.MessageExhausted, batch.MessageBlocked, batch.MessageCanceled, batch.MessageWaiting, batch.MessageSending}
		want := map[string][]batch.MessageID{}
		for n, url := range []string{"https://a.example/", "https://b.example/"} {
			for i, state := range as {
				m := nth(n*len(as) + i)
				m.Options.CallbackURL = url
				g := s.create(m)
				s.complete()
				d := s.takeOf(g)
				o := ended(d, state)
				o.Due = now().Add(time.Hour)
				if state != batch.MessageSending {
					s.attempted(o)
				}
				for _, key := range []string{d.Host, state.String(), d.Host + state.String(), g.ID.String() + state.String()} {
					want[key] = append([]batch.MessageID{d.ID}, want[key]...)
				}
				time.Sleep(2 * time.Millisecond) // ids are in order of the millisecond
				q := batch.MessageQuery{Tenant: tenant(1), Batch: &g.ID, State: state}
				s.same("in its batch", ids(s.messages(q)), want[g.ID.String()+state.String()])
				q.State = batch.MessageParked
				s.same("in its batch by another state", len(s.messages(q)), 0)
			}
		}
		for _, limit := range []int{1, 5} {
			for _, host := range []string{"a.example:443", "b.example:443"} {
				s.same(host, ids(s.messages(batch.MessageQuery{Tenant: tenant(1), Host: host, Limit: limit})), want[host])
				for _, state := range as {
					s.same(state.String(), ids(s.messages(batch.MessageQuery{Tenant: tenant(1), State: state, Limit: limit})), want[state.String()])
					s.same(host+state.String(), ids(s.messages(batch.MessageQuery{Tenant: tenant(1), State: state, Host: host, Limit: limit})), want[host+state.String()])
				}
			}
		}
		for _, state := range as {
			s.same("another tenant's", len(s.messages(batch.MessageQuery{State: state})), 0)
		}
		s.same("of an unknown host", len(s.messages(batch.MessageQuery{Tenant: tenant(1), Host: "c.example:443"})), 0)
	}},
	{"batches are listed by what they asked for and by when they were made", func(s *fixture) {
		var made []batch.ID // newest first
		for n := range 8 {
			m := nth(n)
			m.Options.Processor = []string{work, "play"}[n%2]
			m.Options.Metadata = map[string]string{"run": []string{"nightly", ""}[n/4], "n": strconv.Itoa(n)}
			made = slices.Insert(made, 0, s.create(m).ID)
		}
		for _, limit := range []int{1, 3, 100} {
			for _, c := range []struct {
				q    batch.BatchQuery
				want []batch.ID
			}{
				{batch.BatchQuery{Processor: "play"}, []batch.ID{made[0], made[2], made[4], made[6]}},
				{batch.BatchQuery{Metadata: map[string]string{"run": ""}}, made[:4]},
				{batch.BatchQuery{Metadata: map[string]string{"run": "nightly", "n": "1"}, Status: batch.Queued}, made[6:7]},
				{batch.BatchQuery{Metadata: map[string]string{"run": "nightly"}, Status: batch.Paused}, nil},
				{batch.BatchQuery{Since: made[2]}, made[:3]},
				{batch.BatchQuery{Since: batch.FirstID(made[2].Time()), Before: &made[0]}, made[1:3]},
				{batch.BatchQuery{Since: batch.FirstID(made[0].Time().Add(time.Millisecond))}, nil},
				{batch.BatchQuery{Since: made[7], Before: &made[7]}, nil},
				{batch.BatchQuery{Since: made[5], Processor: work}, []batch.ID{made[1], made[3], made[5]}},
			} {
				c.q.Tenant, c.q.Limit = tenant(1), limit
				s.same("list", s.list(c.q), c.want)
			}
		}
	}},
	{"what is made while a list is walked moves no page of it", func(s *fixture) {
		var want, got []batch.ID
		for n := range 5 {
			want = slices.Insert(want, 0, s.create(nth(n)).ID)
		}
		q := batch.BatchQuery{Tenant: tenant(1), Limit: 2}
		for more := true; more; {
			list, next, err := s.Batches(s.ctx, q)
			s.ok(err)
			for _, b := range list {
				got = append(got, b.ID)
			}
			s.create(nth(10 + len(got)))
			q.Before, more = next, next != nil
		}
		s.same("list", got, want)
	}},
	{"another tenant's is not there", func(s *fixture) {
		m := called(2, 1)
		m.Tenant = tenant(1)
		g := s.create(m)
		s.complete()
		s.foreign(tenant(2), g.ID)
		s.foreign(batch.TenantID{}, g.ID)
		s.foreign(g.Tenant, batch.NewID(time.Now()))
		s.same("batches", len(s.list(batch.BatchQuery{Tenant: tenant(2), Limit: 10})), 0)
		s.same("messages", len(s.messages(batch.MessageQuery{Tenant: tenant(2)})), 0)
		for _, m := range s.messagesOf(g) {
			_, _, err := s.Message(s.ctx, tenant(2), m.ID)
			s.refused(err, batch.NotFound)
		}
		_, _, err := s.Message(s.ctx, g.Tenant, batch.NewMessageID(time.Now()))
		s.refused(err, batch.NotFound)
		s.stands(g, batch.Completed, g.tally(0, 1))
	}},
	{"what a read returned is the caller's own", func(s *fixture) {
		g := s.create(called(5, 5))
		s.complete()
		for range 2 {
			rs := s.results(g, batch.ResultQuery{})
			s.same("results", rs, g.expected(every(5)...))
			for _, r := range rs {
				clear(r.Payload)
			}
			it, err := s.Item(s.ctx, g.Tenant, g.ID, 2)
			s.ok(err)
			s.same("input", string(it.Input), string(g.items[2].Raw))
			clear(it.Input)
			clear(it.Result.Payload)
			m := s.terminal(g)
			clear(m.Head)
			clear(m.Tail)
		}
	}},
}

// nth is a sample of tenant 1 with an id of its own millisecond: lists are in
// order by these.
func nth(n int) sample {
	return sample{Tenant: tenant(1), ID: batch.NewID(time.Date(2026, 1, 2, 3, 4, 5, n*1_000_000, time.UTC))}
}

// list lists batches to the end, page by page.
func (s *fixture) list(q batch.BatchQuery) []batch.ID {
	s.t.Helper()
	var all []batch.ID
	for {
		list, next, err := s.Batches(s.ctx, q)
		s.ok(err)
		if len(list) > q.Limit {
			s.t.Fatalf("a page of at most %d batches has %d", q.Limit, len(list))
		}
		for _, b := range list {
			if b.Tenant != q.Tenant || q.Status != 0 && b.Status != q.Status {
				s.t.Fatalf("a batch of %v that is %v is in the list of %v by %v", b.Tenant, b.Status, q.Tenant, q.Status)
			}
			all = append(all, b.ID)
		}
		if next == nil {
			return all
		}
		if q.Before != nil && *q.Before == *next {
			s.t.Fatalf("the list of batches stands still at %v", *next)
		}
		q.Before = next
	}
}

// halfway makes ten items in two blocks, of which 3, 4, 6 and 7 are
// unfinished, and returns the work that holds 3 and 4.
func (s *fixture) halfway() (*given, batch.Work) {
	s.t.Helper()
	g := s.create(sample{Items: 10, PerBlock: 5, Item: strange})
	ws := s.claimAll()
	s.record(partly(ws[0], 2, 0), partly(ws[1], 9, 5))
	s.record(partly(ws[0], 1), partly(ws[1], 8))
	return g, ws[0]
}

// item holds an item against its state.
func (s *fixture) item(g *given, index int, as batch.ItemStatus, attempts int) {
	s.t.Helper()
	want := batch.ItemView{Index: index, ID: g.items[index].ID, Status: as, Attempts: attempts, Input: g.items[index].Raw}
	switch {
	case as == batch.ItemCanceled:
		r := batch.EndedResult(index, want.ID, s.batch(g).Progress, attempts)
		want.Result = &r
	case as.Terminal():
		want.Result = &g.expected(index)[0]
	}
	got, err := s.Item(s.ctx, g.Tenant, g.ID, index)
	s.ok(err)
	s.same("item", got, want)
}

// foreign fails unless every call about the batch says that who asks knows
// no such batch.
func (s *fixture) foreign(who batch.TenantID, id batch.ID) {
	s.t.Helper()
	_, err := s.Batch(s.ctx, who, id)
	s.refused(err, batch.NotFound)
	_, err = s.Results(s.ctx, who, id, batch.ResultQuery{Limit: 1})
	s.refused(err, batch.NotFound)
	_, err = s.Item(s.ctx, who, id, 0)
	s.refused(err, batch.NotFound)
	for _, steer := range []func(context.Context, batch.TenantID, batch.ID) (batch.Batch, error){s.Cancel, s.Pause, s.Resume} {
		_, err = steer(s.ctx, who, id)
		s.refused(err, batch.NotFound)
	}
	_, err = s.Amend(s.ctx, who, id, batch.Amendment{BareMetadata: true})
	s.refused(err, batch.NotFound)
	list, _, err := s.Messages(s.ctx, batch.MessageQuery{Tenant: who, Batch: &id, Limit: 10})
	if batch.CodeOf(err) != batch.NotFound {
		s.ok(err)
	}
	s.same("messages of a batch that "+who.String()+" does not have", len(list), 0)
}
