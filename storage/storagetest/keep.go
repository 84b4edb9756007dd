package storagetest

import (
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
	{"a store that was closed refuses and does not hang", func(s *fixture) {
		g := s.create(called(2, 1))
		w := s.claim()
		s.ok(s.Close())
		_, err := s.Batch(s.ctx, g.Tenant, g.ID)
		_, claimed := s.Claim(s.ctx, everything(1))
		_, recorded := s.Record(s.ctx, []batch.Report{finish(w)}, batch.MessageClaim{})
		_, canceled := s.Cancel(s.ctx, g.Tenant, g.ID)
		created := s.submit(sample{}.given())
		for i, err := range []error{err, claimed, recorded, canceled, created} {
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
