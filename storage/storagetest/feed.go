package storagetest

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// feeding: whoever pulls sees every message once, in one order.
var feeding = cases{
	{"messages are fed with their bodies in the order they were made, whatever became of them", func(s *fixture) {
		var want []batch.MessageID
		for n, as := range []batch.MessageState{batch.MessageDelivered, batch.MessageExhausted, batch.MessageWaiting} {
			g := s.create(mine(1))
			s.complete()
			m := s.terminal(g)
			want = append(want, m.ID)
			o := ended(s.takeOf(g), as)
			o.Due = now().Add(time.Duration(n) * time.Hour)
			s.attempted(o)
		}
		page := s.feed(batch.FeedQuery{Tenant: tenant(1), Limit: 10})
		s.same("messages", idsOf(page), want)
		for _, e := range page.Entries {
			m, _ := s.message(e.Message)
			s.same("message", e.Message, m)
			if !bytes.Equal(e.Body, s.body(m)) {
				s.t.Fatalf("the body of %v is another in the feed", m.ID)
			}
		}
		s.same("the place of the last", page.Next, page.Entries[2].ID)
		end := s.feed(batch.FeedQuery{Tenant: tenant(1), After: page.Next, Limit: 10})
		s.same("at the end", []any{len(end.Entries), end.Next}, []any{0, page.Next})
		past := s.feed(batch.FeedQuery{Tenant: tenant(1), After: greatest, Limit: 10})
		s.same("past the end", []any{len(past.Entries), past.Next}, []any{0, greatest})
	}},
	{"pages are as long as is asked, and never empty before the end", func(s *fixture) {
		s.create(mine(30))
		s.complete()
		all := s.feedAll(batch.FeedQuery{Tenant: tenant(1), Limit: 100})
		s.same("messages", len(all), 31)
		for _, limit := range []int{1, 7, 31} {
			s.same("by number", s.feedAll(batch.FeedQuery{Tenant: tenant(1), Limit: limit}), all)
		}
		page := s.feed(batch.FeedQuery{Tenant: tenant(1), Limit: 100, Bytes: 1})
		s.same("messages of a page of one byte", len(page.Entries), 1)
		size := len(page.Entries[0].Body)
		page = s.feed(batch.FeedQuery{Tenant: tenant(1), Limit: 100, Bytes: 5 * size})
		if n := len(page.Entries); n < 3 || n > 6 {
			s.t.Fatalf("a page of the bytes of 5 messages has %d", n)
		}
		s.same("by bytes", s.feedAll(batch.FeedQuery{Tenant: tenant(1), Limit: 100, Bytes: 3 * size}), all)
	}},
	{"each tenant has a feed of its own", func(s *fixture) {
		for n := range 9 {
			m := called(2, 1)
			m.Tenant = tenant(byte(n % 3))
			s.create(m)
			s.complete()
		}
		for n := range byte(3) {
			s.same("messages", len(s.feedAll(batch.FeedQuery{Tenant: tenant(n), Limit: 4})), 9)
		}
		s.same("of who has none", len(s.feedAll(batch.FeedQuery{Tenant: tenant(3), Limit: 4})), 0)
	}},
	{"who follows it misses nothing and sees nothing twice, however many write", func(s *fixture) {
		const writers, each = 6, 8
		var left atomic.Int32
		left.Store(writers)
		var seen []batch.MessageID
		s.together(writers+1, func(n int) error {
			if n < writers {
				defer left.Add(-1)
				return s.endSome(each)
			}
			var err error
			seen, err = s.follow(func() bool { return left.Load() == 0 })
			return err
		})
		s.same("again", s.feedAll(batch.FeedQuery{Tenant: tenant(1), Limit: 5}), seen)
		listed := s.messages(batch.MessageQuery{Tenant: tenant(1)})
		s.same("messages", len(seen), len(listed))
		s.restart()
		s.same("after a restart", s.feedAll(batch.FeedQuery{Tenant: tenant(1), Limit: 50}), seen)
		s.create(mine(1))
		s.complete()
		all := s.feedAll(batch.FeedQuery{Tenant: tenant(1), Limit: 50})
		s.same("with a new one", all[:len(all)-1], seen)
	}},
	{"who waits for Posted is woken by a message, which is there then", func(s *fixture) {
		g := s.create(mine(1))
		w := s.claim()
		posted := s.Posted()
		select {
		case <-posted:
			posted = s.Posted() // a hint
		default:
		}
		s.record(finish(w))
		select {
		case <-posted:
		case <-time.After(patience):
			s.t.Fatalf("not woken within %v", patience)
		}
		s.same("messages", idsOf(s.feed(batch.FeedQuery{Tenant: tenant(1), Limit: 5})), []batch.MessageID{s.terminal(g).ID})
	}},
}

// endSome makes batches of tenant 1, works on whatever there is, and cancels
// some.
func (s *fixture) endSome(batches int) error {
	for n := range batches {
		g := mine(3).given()
		if err := s.submit(g); err != nil {
			return err
		}
		if n%4 == 3 {
			if _, err := s.Cancel(s.ctx, g.Tenant, g.ID); err != nil && batch.CodeOf(err) != batch.Conflict {
				return err
			}
		}
		for {
			ws, err := s.Claim(s.ctx, everything(2))
			if err != nil {
				return err
			}
			if len(ws) == 0 {
				break
			}
			if _, err := s.Record(s.ctx, finishAll(ws), batch.MessageClaim{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// follow reads the feed of tenant 1 as it grows, until done says that no more
// is made and all there is was read.
func (s *fixture) follow(done func() bool) (seen []batch.MessageID, err error) {
	q := batch.FeedQuery{Tenant: tenant(1), Limit: 3}
	for {
		last, posted := done() && s.allEnded(), s.Posted()
		page, err := s.Feed(s.ctx, q)
		if err != nil {
			return seen, err
		}
		seen = append(seen, idsOf(page)...)
		switch {
		case page.Next != q.After:
			q.After = page.Next
			continue
		case last:
			return seen, nil
		}
		select {
		case <-posted:
		case <-time.After(5 * time.Millisecond): // done may be what changed
		}
	}
}

// allEnded reports whether every batch of tenant 1 has ended.
func (s *fixture) allEnded() bool {
	for _, g := range s.made.all() {
		if b, err := s.Batch(s.ctx, g.Tenant, g.ID); err != nil || !b.Status.Terminal() {
			return false
		}
	}
	return true
}

// greatest is behind every message.
var greatest = batch.MessageID(bytes.Repeat([]byte{0xff}, 16))

func (s *fixture) feed(q batch.FeedQuery) batch.FeedPage {
	s.t.Helper()
	p, err := s.Feed(s.ctx, q)
	s.ok(err)
	if len(p.Entries) > q.Limit {
		s.t.Fatalf("a page of at most %d messages has %d", q.Limit, len(p.Entries))
	}
	at := q.After
	for _, e := range p.Entries {
		if bytes.Compare(e.ID[:], at[:]) <= 0 || bytes.Compare(e.ID[:], p.Next[:]) > 0 || e.Tenant != q.Tenant {
			s.t.Fatalf("message %v of %v stands after %v in a page to %v", e.ID, e.Tenant, at, p.Next)
		}
		at = e.ID
	}
	return p
}

// feedAll reads a feed to its end.
func (s *fixture) feedAll(q batch.FeedQuery) (all []batch.MessageID) {
	s.t.Helper()
	for {
		p := s.feed(q)
		if p.Next == q.After {
			return all
		}
		all = append(all, idsOf(p)...)
		q.After = p.Next
	}
}

func idsOf(p batch.FeedPage) []batch.MessageID {
	var is []batch.MessageID
	for _, e := range p.Entries {
		is = append(is, e.ID)
	}
	return is
}
