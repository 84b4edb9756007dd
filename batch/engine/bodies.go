package engine

import (
	"context"
	"sync"

	"github.com/callbatch/callbatch/batch"
)

// mostBodies is how many bytes of bodies are held at once while they are sent.
const mostBodies = 64 << 20

// bodies bounds what the bodies of messages take in memory. What goes to one
// host of a tenant may take as much as it leaves free: one alone has half of
// all there is, two have a third each, and there is something left for the
// next however many hang. Hosts that are not proven have half together.
type bodies struct {
	mu     sync.Mutex // guards what follows
	held   int
	trials int // of that
	hosts  map[address]int
	eased  chan struct{} // closed once less is held; nil: nobody waits for it
}

// An address is a receiver's host as one tenant knows it.
type address struct {
	tenant batch.TenantID
	host   string
}

// take waits until n bytes may be held for d. It fails if ctx ends before.
func (b *bodies) take(ctx context.Context, d *batch.Delivery, n int) error {
	for {
		eased, ok := b.try(d, n)
		if ok {
			return nil
		}
		select {
		case <-eased:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *bodies) try(d *batch.Delivery, n int) (eased <-chan struct{}, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := b.hosts[address{d.Tenant, d.Host}]
	if b.held+own+n <= mostBodies && (!d.Trial || b.trials+n <= mostBodies/2) {
		b.add(d, n)
		return nil, true
	}
	if b.eased == nil {
		b.eased = make(chan struct{})
	}
	return b.eased, false
}

// give lets go of n bytes of d; if n is negative, it turned out to be larger.
func (b *bodies) give(d *batch.Delivery, n int) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(d, -n)
	if b.eased != nil {
		close(b.eased)
		b.eased = nil
	}
}

func (b *bodies) add(d *batch.Delivery, n int) {
	b.held += n
	if d.Trial {
		b.trials += n
	}
	to := address{d.Tenant, d.Host}
	if b.hosts[to] += n; b.hosts[to] == 0 {
		delete(b.hosts, to)
	}
}
