package storagetest

import (
	"sync/atomic"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// asked is what a case asks for with a key.
func asked(key, what string) batch.Once {
	return batch.Once{Key: key, Content: batch.Content("POST /v1/batches", []byte(what))}
}

// reserve begins a request that is the first with its key.
func (s *fixture) reserve(key string) (release func()) {
	s.t.Helper()
	bound, release, err := s.Reserve(s.ctx, tenant(0), key)
	s.ok(err)
	if bound != nil {
		s.t.Fatalf("key %q is bound to %+v", key, bound)
	}
	return release
}

// bound returns what a key is bound to.
func (s *fixture) bound(of batch.TenantID, key string) batch.Binding {
	s.t.Helper()
	b, release, err := s.Reserve(s.ctx, of, key)
	s.ok(err)
	release()
	if b == nil {
		s.t.Fatalf("key %q is bound to nothing", key)
	}
	return *b
}

// acceptOnce makes g exist with a key.
func (s *fixture) acceptOnce(g *given, once batch.Once) error {
	st, err := s.stage(g)
	if err != nil {
		return err
	}
	defer st.Discard()
	if _, err = st.Create(s.ctx, batch.Spec{Options: g.Options, Created: g.Created}, once); err == nil {
		s.made.add(g)
	}
	return err
}

// binding: a request that comes again does its work one time.
var binding = cases{
	{"a key is bound with the batch, and to what was asked for", func(s *fixture) {
		release := s.reserve("k")
		g := sample{}.given()
		s.ok(s.acceptOnce(g, asked("k", "this")))
		release()
		b := s.bound(g.Tenant, "k")
		s.same("batch", b.Batch, g.ID)
		s.ok(b.Replays(asked("k", "this").Content))
		s.refused(b.Replays(asked("k", "that").Content), batch.Invalid)
		other, free, err := s.Reserve(s.ctx, tenant(1), "k")
		s.ok(err)
		free()
		s.same("another tenant's", other == nil, true)
	}},
	{"while the first is being received all others are refused", func(s *fixture) {
		var first atomic.Int32
		s.together(16, func(int) error {
			bound, _, err := s.Reserve(s.ctx, tenant(0), "k")
			switch {
			case err == nil && bound == nil:
				first.Add(1)
			case batch.CodeOf(err) != batch.Conflict:
				return err
			}
			return nil
		})
		s.same("first", first.Load(), int32(1))
		s.reserve("other")()
	}},
	{"a reservation that is given back leaves nothing", func(s *fixture) {
		s.reserve("k")()
		release := s.reserve("k")
		st, err := s.stage(sample{}.given())
		s.ok(err)
		st.Discard()
		release()
		s.reserve("k")()
	}},
	{"of twins that bind the same key one is kept", func(s *fixture) {
		var kept atomic.Int32
		s.together(8, func(int) error {
			switch err := s.acceptOnce(sample{}.given(), asked("k", "")); {
			case err == nil:
				kept.Add(1)
			case batch.CodeOf(err) != batch.Conflict:
				return err
			}
			return nil
		})
		s.same("kept", kept.Load(), int32(1))
		s.same("batches", len(s.list(batch.BatchQuery{Limit: 20})), 1)
		s.same("claimed blocks", len(s.claimAll()), 1)
	}},
	{"what is refused binds nothing", func(s *fixture) {
		g := s.create(sample{})
		again := sample{ID: g.ID}.given()
		s.refused(s.acceptOnce(again, asked("k", "")), batch.Conflict)
		_, err := s.Redeliver(s.ctx, g.Tenant, batch.NewMessageID(time.Now()), asked("k", ""))
		s.refused(err, batch.NotFound)
		_, err = s.Seal(s.ctx, batch.Sealing{Tenant: g.Tenant, Batch: g.ID, Parts: -1}, asked("k", ""))
		s.refused(err, batch.Conflict)
		s.reserve("k")()
	}},
	{"whatever is done with a key binds it", func(s *fixture) {
		g := inParts().given()
		_, err := s.OpenBatch(s.ctx, batch.Spec{ID: g.ID, Tenant: g.Tenant, Options: g.Options, Created: g.Created}, asked("open", ""))
		s.ok(err)
		s.same("open", s.bound(g.Tenant, "open").Batch, g.ID)
		for n := range g.parts {
			_, err := s.put(g, n)
			s.ok(err)
		}
		b, err := s.Seal(s.ctx, batch.Sealing{Tenant: g.Tenant, Batch: g.ID, Parts: 3}, asked("seal", ""))
		s.ok(err)
		s.ok(g.sealed(b))
		s.made.add(g)
		s.same("seal", s.bound(g.Tenant, "seal").Batch, g.ID)
		s.complete()
		m := s.messagesOf(g)[0]
		_, err = s.Redeliver(s.ctx, g.Tenant, m.ID, asked("one", ""))
		s.ok(err)
		s.same("one", s.bound(g.Tenant, "one").Batch, g.ID)
		d := s.takeOne()
		s.attempted(ended(d, batch.MessageExhausted))
		for _, as := range []batch.MessageState{batch.MessageExhausted, batch.MessageBlocked} {
			n, err := s.RedeliverAll(s.ctx, batch.Redelivery{State: as}, asked(as.String(), ""))
			s.ok(err)
			s.same("count", s.bound(g.Tenant, as.String()).Count, n)
		}
		s.eventually("what was given up goes again", func() bool {
			now, _, err := s.Message(s.ctx, g.Tenant, d.ID)
			s.ok(err)
			return !now.State.Settled()
		})
	}},
}

// reopenedOnce: a key that was bound is bound after a restart, and one that
// was only reserved is free.
var reopenedOnce = cases{
	{"keys stay bound, and those that were reserved are free", func(s *fixture) {
		s.reserve("half")
		g := sample{}.given()
		s.ok(s.acceptOnce(g, asked("k", "")))
		before := s.bound(g.Tenant, "k")
		s.restart()
		s.same("binding", s.bound(g.Tenant, "k"), before)
		s.reserve("half")()
	}},
}

// forgetting: a key is free again some time after a day.
var forgetting = cases{
	{"a key is bound for a day, and not for ever", func(s *fixture) {
		for _, key := range []string{"a", "b"} {
			s.ok(s.acceptOnce(sample{}.given(), asked(key, "")))
		}
		s.pass(time.Now().Add(batch.BindingKept - time.Minute))
		s.ok(s.acceptOnce(sample{}.given(), asked("late", "")))
		s.bound(tenant(0), "a")
		s.pass(time.Now().Add(time.Hour))
		s.reserve("a")()
		s.reserve("b")()
		s.bound(tenant(0), "late")
		s.same("batches", len(s.list(batch.BatchQuery{Limit: 20})), 3)
	}},
}
