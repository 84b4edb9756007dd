package storagetest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// RunShared runs what two nodes over one database promise each other. open
// returns a node each, of a new and empty database; an engine that has one
// owner returns one store twice.
func RunShared(t *testing.T, open func(t testing.TB) (a, b batch.Store)) {
	for _, c := range sharing {
		t.Run(c.says, func(t *testing.T) {
			one, two := open(t)
			a := &fixture{Store: one, t: t, ctx: t.Context(), made: &register{}, patience: patience}
			defer a.shut()
			b := &fixture{Store: two, t: t, ctx: t.Context(), made: a.made, patience: patience}
			if one != two {
				defer b.shut()
			}
			c.so(a, b)
			a.audit()
		})
	}
}

// sharing: two nodes are one store.
var sharing = []struct {
	says string
	so   func(a, b *fixture)
}{
	{"what one node accepts the other works on and shows", func(a, b *fixture) {
		g := a.create(called(4, 2))
		b.complete()
		a.stands(g, batch.Completed, g.tally(every(4)...))
		a.deliver(g)
		b.same("ledger", b.batch(g).Messages, batch.Ledger{Round: 2, Delivered: 3})
	}},
	{"no block is in the hands of both", func(a, b *fixture) {
		a.create(sample{Items: 60, PerBlock: 1})
		b.create(sample{Items: 60, PerBlock: 1})
		var held sync.Map
		a.together(8, func(n int) error {
			node := []*fixture{a, b}[n%2]
			return node.claimInto(fmt.Sprint("node-", n), &held)
		})
		blocks := 0
		held.Range(func(any, any) bool { blocks++; return true })
		a.same("blocks held", blocks, 120)
	}},
	{"each has PerBatch blocks of a batch in its hands", func(a, b *fixture) {
		if a.Store == b.Store {
			return // one owner, whatever it calls itself
		}
		a.create(sample{Items: 10, PerBlock: 1})
		c := batch.Claim{Owner: "node-a", Processors: []string{work}, Blocks: 10, PerBatch: 3}
		a.same("blocks of one node", len(a.claimAs(c)), 3)
		c.Owner = "node-b"
		a.same("blocks of the other", len(b.claimAs(c)), 3)
		a.same("blocks with three in hand", len(b.claimAs(c)), 0)
	}},
	{"a key that one node has reserved the other refuses, and then replays", func(a, b *fixture) {
		release := a.reserve("k")
		_, _, err := b.Reserve(b.ctx, tenant(0), "k")
		b.refused(err, batch.Conflict)
		g := sample{}.given()
		a.ok(a.acceptOnce(g, asked("k", "")))
		release()
		b.same("batch", b.bound(tenant(0), "k").Batch, g.ID)
	}},
	{"the parts of a batch come through both nodes", func(a, b *fixture) {
		m := sample{Items: 40, PerPart: 5, Options: batch.Options{IDField: "/id"}}
		g := a.unsealed(m)
		a.together(16, func(n int) error {
			s := []*fixture{a, b}[n%2]
			_, err := s.put(g, n/2) // each part through both
			return err
		})
		b.has(g, every(8)...)
		a.finishOpen(g)
		it, err := b.FindItem(b.ctx, g.Tenant, g.ID, "id 33")
		b.ok(err)
		b.same("index", it.Index, 33)
	}},
	{"two nodes that finish the last two blocks at once end the batch once", func(a, b *fixture) {
		for range 20 {
			g := a.create(called(4, 2))
			first, second := a.claim(), b.claim()
			var ended atomic.Int32
			a.together(2, func(n int) error {
				s, w := a, first
				if n == 1 {
					s, w = b, second
				}
				rec, err := s.Record(s.ctx, []batch.Report{finish(w)}, batch.MessageClaim{})
				ended.Add(int32(len(rec.Ended)))
				return err
			})
			a.same("times ended", ended.Load(), int32(1))
			b.stands(g, batch.Completed, g.tally(every(4)...))
		}
	}},
	{"a message is sent by one of them", func(a, b *fixture) {
		a.proven(batch.TenantID{}, hook)
		a.create(called(40, 1))
		a.complete()
		time.Sleep(2 * time.Millisecond) // all of them are due
		var sent sync.Map
		a.together(6, func(n int) error {
			s := []*fixture{a, b}[n%2]
			for {
				ds, err := s.ClaimMessages(s.ctx, ask(2, 1000))
				if err != nil || len(ds) == 0 {
					return err
				}
				for _, d := range ds {
					if _, twice := sent.LoadOrStore(d.ID, n); twice {
						return fmt.Errorf("message %v was claimed twice", d.ID)
					}
				}
			}
		})
		messages := 0
		sent.Range(func(any, any) bool { messages++; return true })
		a.same("messages", messages, 40)
	}},
	{"a cancel on one node stops the work of the other", func(a, b *fixture) {
		g := a.create(called(2, 2))
		w := a.claim()
		b.cancel(g)
		r := a.renew(batch.Holding{Tenant: g.Tenant, Batch: g.ID, Leases: []batch.Lease{w.Lease}, InFlight: 1})
		a.same("stop", r.Stop, []batch.ID{g.ID})
		a.record(released(partly(w, 0)))
		b.ends(g, batch.Canceled, batch.Tally{Succeeded: 1, Canceled: 1})
	}},
	{"what is made once is made once between them", func(a, b *fixture) {
		var added atomic.Int32
		var got [10][]batch.Secret
		a.together(10, func(n int) (err error) {
			s := []*fixture{a, b}[n%2]
			if s.AddKey(s.ctx, key(n), true) == nil {
				added.Add(1)
			}
			got[n], err = s.Secrets(s.ctx, tenant(1), batch.Secret{Text: fmt.Sprint("whsec_", n), Created: now()})
			return err
		})
		a.same("first keys", added.Load(), int32(1))
		for n := range got {
			a.same("secret", got[n], got[0])
		}
	}},
}
