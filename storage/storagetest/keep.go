package storagetest

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/callbatch/callbatch/batch"
)

func key(n int) batch.Key {
	return batch.Key{
		ID: batch.NewKeyID(time.Now()), Tenant: tenant(byte(n)), Name: fmt.Sprint("key ", n), Hash: []byte{31: byte(n)},
		Scopes: []string{"submit", "read"}, Created: now(),
	}
}

// keeping: keys and secrets are there once they were said to be.
var keeping = cases{
	{"keys come back as they were", func(s *fixture) {
		s.same("keys at first", len(s.keys()), 0)
		a, b := key(1), key(2)
		b.Expires = now().Add(time.Hour)
		s.ok(s.AddKey(s.ctx, a, false))
		s.ok(s.AddKey(s.ctx, b, false))
		want := map[batch.KeyID]batch.Key{a.ID: a, b.ID: b}
		s.same("keys", s.keys(), want)
		s.restart()
		s.same("keys after a restart", s.keys(), want)
	}},
	{"the first key is added once", func(s *fixture) {
		var added atomic.Int32
		s.together(10, func(n int) error {
			err := s.AddKey(s.ctx, key(n), true)
			switch {
			case err == nil:
				added.Add(1)
			case batch.CodeOf(err) != batch.Conflict:
				return err
			}
			return nil
		})
		s.same("keys added", added.Load(), int32(1))
		s.refused(s.AddKey(s.ctx, key(11), true), batch.Conflict)
		s.ok(s.AddKey(s.ctx, key(12), false))
		s.same("keys", len(s.keys()), 2)
	}},
	{"a tenant's first secret is made once, and each tenant has its own", func(s *fixture) {
		var got [20][]batch.Secret
		s.together(20, func(n int) (err error) {
			got[n], err = s.Secrets(s.ctx, tenant(byte(n%2)), batch.Secret{Text: fmt.Sprint("whsec_", n), Created: now()})
			return err
		})
		for n := range got {
			s.same("secret", got[n], got[n%2])
		}
		if len(got[0]) != 1 || got[0][0].Text == got[1][0].Text {
			s.t.Fatalf("secrets are %v and %v", got[0], got[1])
		}
		s.restart()
		again, err := s.Secrets(s.ctx, tenant(0), batch.Secret{Text: "whsec_another", Created: now()})
		s.ok(err)
		s.same("secret after a restart", again, got[0])
	}},
	{"a rotation makes another secret current and lets the one before sign for a while", func(s *fixture) {
		first := s.secrets(tenant(1), "whsec_first")
		s.same("first", texts(first), []string{"whsec_first"})
		s.secrets(tenant(2), "whsec_foreign")
		got := s.rotate(tenant(1), "whsec_second", time.Hour)
		s.same("secrets", texts(got), []string{"whsec_second", "whsec_first"})
		s.same("current", got[0].Until.IsZero(), true)
		if left := time.Until(got[1].Until); left < 50*time.Minute || left > time.Hour {
			s.t.Fatalf("the secret before signs for %v more", left)
		}
		s.same("read again", s.secrets(tenant(1), "whsec_unused"), got)
		s.restart()
		s.same("after a restart", s.secrets(tenant(1), "whsec_unused"), got)
		s.same("another tenant's", texts(s.secrets(tenant(2), "whsec_unused")), []string{"whsec_foreign"})
	}},
	{"secrets overlap until each has ended", func(s *fixture) {
		s.secrets(tenant(1), "whsec_0")
		s.rotate(tenant(1), "whsec_1", time.Hour)
		s.same("three", texts(s.rotate(tenant(1), "whsec_2", 2*time.Hour)), []string{"whsec_2", "whsec_1", "whsec_0"})
		s.same("with nothing kept", texts(s.rotate(tenant(1), "whsec_3", 0)), []string{"whsec_3"})
		s.rotate(tenant(1), "whsec_4", 50*time.Millisecond)
		s.eventually("the one before has ended", func() bool { return len(s.secrets(tenant(1), "whsec_unused")) == 1 })
		s.same("left", texts(s.secrets(tenant(1), "whsec_unused")), []string{"whsec_4"})
	}},
	{"a rotation makes the first secret where there is none", func(s *fixture) {
		s.same("secrets", texts(s.rotate(tenant(1), "whsec_1", time.Hour)), []string{"whsec_1"})
	}},
	{"no more secrets sign at once than there may be", func(s *fixture) {
		for n := range batch.MaxSecrets {
			s.rotate(tenant(1), fmt.Sprint("whsec_", n), time.Hour)
		}
		before := s.secrets(tenant(1), "whsec_unused")
		s.same("secrets", len(before), batch.MaxSecrets)
		_, err := s.Rotate(s.ctx, tenant(1), batch.Secret{Text: "whsec_one_more", Created: now()}, time.Hour)
		s.refused(err, batch.Conflict)
		s.same("secrets", s.secrets(tenant(1), "whsec_unused"), before)
		s.rotate(tenant(1), "whsec_last", 0)
	}},
	{"the key of the links is made with the store", func(s *fixture) {
		key, err := s.LinkKey(s.ctx)
		s.ok(err)
		s.same("bytes", []any{len(key), bytes.Equal(key, make([]byte, 32))}, []any{32, false})
		clear(key)
		key, err = s.LinkKey(s.ctx)
		s.ok(err)
		m := sample{Options: batch.Options{CallbackURL: hook, CallbackMode: batch.ModeSummary}, BaseURL: "https://batch.example"}
		g := s.create(m)
		s.complete()
		link := batch.Links{Key: key}.ResultsURL(g.Spec)
		s.same("the link in a message", bytes.Contains(s.body(s.terminal(g)), []byte(link)), true)
		s.restart()
		again, err := s.LinkKey(s.ctx)
		s.ok(err)
		s.same("after a restart", again, key)
	}},
	{"a store that was closed refuses and does not hang", func(s *fixture) {
		g := s.create(called(2, 1))
		w := s.claim()
		s.ok(s.Close())
		_, err := s.Batch(s.ctx, g.Tenant, g.ID)
		_, claimed := s.Claim(s.ctx, everything(1))
		_, recorded := s.Record(s.ctx, []batch.Report{finish(w)}, batch.MessageClaim{})
		_, canceled := s.Cancel(s.ctx, g.Tenant, g.ID)
		created := s.submit(sample{}.given())
		_, again := s.Redeliver(s.ctx, g.Tenant, batch.NewMessageID(time.Now()), batch.Once{})
		_, ordered := s.RedeliverAll(s.ctx, batch.Redelivery{State: batch.MessageExhausted}, batch.Once{})
		_, fed := s.Feed(s.ctx, batch.FeedQuery{Limit: 1})
		_, rotated := s.Rotate(s.ctx, g.Tenant, batch.Secret{}, 0)
		for i, err := range []error{err, claimed, recorded, canceled, created, again, ordered, fed, rotated} {
			if err == nil {
				s.t.Fatalf("call %d after Close was answered", i)
			}
		}
		s.open()
		s.stands(g, batch.Queued, batch.Tally{})
	}},
	{"Close finishes what is under way", func(s *fixture) {
		gs := make([]*given, 64)
		var kept [64]bool
		s.together(len(gs)+1, func(n int) error {
			if n == len(gs) {
				return s.Close()
			}
			gs[n] = sample{Items: 3, PerBlock: 1}.given()
			kept[n] = s.submit(gs[n]) == nil
			return nil
		})
		s.open()
		for n, g := range gs {
			_, err := s.Batch(s.ctx, g.Tenant, g.ID)
			if missing := batch.CodeOf(err) == batch.NotFound; missing && kept[n] || !missing && err != nil {
				s.t.Fatalf("a batch that was accepted (%v): %v", kept[n], err)
			}
		}
	}},
}

// secrets returns what signs for a tenant; fresh is made if nothing does.
func (s *fixture) secrets(t batch.TenantID, fresh string) []batch.Secret {
	s.t.Helper()
	all, err := s.Secrets(s.ctx, t, batch.Secret{Text: fresh, Created: now()})
	s.ok(err)
	return all
}

func (s *fixture) rotate(t batch.TenantID, fresh string, keep time.Duration) []batch.Secret {
	s.t.Helper()
	all, err := s.Rotate(s.ctx, t, batch.Secret{Text: fresh, Created: now()}, keep)
	s.ok(err)
	return all
}

func texts(all []batch.Secret) (ts []string) {
	for _, s := range all {
		ts = append(ts, s.Text)
	}
	return ts
}

// keys returns the keys by their id.
func (s *fixture) keys() map[batch.KeyID]batch.Key {
	s.t.Helper()
	list, err := s.Keys(s.ctx)
	s.ok(err)
	all := make(map[batch.KeyID]batch.Key, len(list))
	for _, k := range list {
		all[k.ID] = k
	}
	if len(all) != len(list) {
		s.t.Fatalf("a key is there twice: %v", list)
	}
	return all
}
