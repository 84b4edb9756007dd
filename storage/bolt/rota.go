package bolt

import (
	"container/heap"
	"container/list"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// A rota says where to look next for work: round robin over tenants, then
// over the members (batches, or lanes of messages) of each. It is a cache of
// what the store's due indexes say and carries nothing: a member that is
// looked at in vain costs one seek, and all of it is rebuilt at open.
type rota[K comparable] struct {
	seats  map[K]*seat[K]
	groups map[batch.TenantID]*group[K]
	turn   list.List // of *group[K]: tenants with a ready member
	asleep sleepers[K]
}

type group[K comparable] struct {
	ready list.List // of *seat[K]
	turn  *list.Element
}

// A seat is a member's place: ready, asleep until a time, or neither, which
// is until somebody says ready or sleep again.
type seat[K comparable] struct {
	key    K
	tenant batch.TenantID
	ready  *list.Element
	wake   time.Time
	pos    int // among the sleepers; -1 if awake
}

func newRota[K comparable]() *rota[K] {
	return &rota[K]{seats: map[K]*seat[K]{}, groups: map[batch.TenantID]*group[K]{}}
}

func (r *rota[K]) seat(t batch.TenantID, k K) *seat[K] {
	s := r.seats[k]
	if s == nil {
		s = &seat[K]{key: k, tenant: t, pos: -1}
		r.seats[k] = s
	}
	return s
}

// wakeUp makes a member ready, behind the ready members of its tenant.
func (r *rota[K]) wakeUp(t batch.TenantID, k K) {
	s := r.seat(t, k)
	if s.pos >= 0 {
		heap.Remove(&r.asleep, s.pos)
	}
	if s.ready != nil {
		return
	}
	g := r.groups[t]
	if g == nil {
		g = &group[K]{}
		r.groups[t] = g
	}
	s.ready = g.ready.PushBack(s)
	if g.turn == nil {
		g.turn = r.turn.PushBack(g)
	}
}

// sleep makes a member ready at a time, unless it is ready before.
func (r *rota[K]) sleep(t batch.TenantID, k K, until time.Time) {
	s := r.seat(t, k)
	switch {
	case s.ready != nil:
	case s.pos < 0:
		s.wake = until
		heap.Push(&r.asleep, s)
	case until.Before(s.wake):
		s.wake = until
		heap.Fix(&r.asleep, s.pos)
	}
}

// rouse makes ready whoever's time has come.
func (r *rota[K]) rouse(now time.Time) {
	for len(r.asleep) > 0 && !r.asleep[0].wake.After(now) {
		s := r.asleep[0]
		r.wakeUp(s.tenant, s.key)
	}
}

// take returns the member whose turn it is and takes its readiness away.
func (r *rota[K]) take() (k K, ok bool) {
	e := r.turn.Front()
	if e == nil {
		return k, false
	}
	g := e.Value.(*group[K])
	s := g.ready.Remove(g.ready.Front()).(*seat[K])
	s.ready = nil
	if g.ready.Len() > 0 {
		r.turn.MoveToBack(e)
	} else {
		r.turn.Remove(e)
		g.turn = nil
		delete(r.groups, s.tenant)
	}
	return s.key, true
}

// next returns when somebody is ready: the zero time if somebody is.
func (r *rota[K]) next() (at time.Time, ok bool) {
	if r.turn.Len() > 0 {
		return time.Time{}, true
	}
	if len(r.asleep) > 0 {
		return r.asleep[0].wake, true
	}
	return at, false
}

// forget takes a member out.
func (r *rota[K]) forget(k K) {
	s := r.seats[k]
	if s == nil {
		return
	}
	if s.pos >= 0 {
		heap.Remove(&r.asleep, s.pos)
	}
	if s.ready != nil {
		g := r.groups[s.tenant]
		g.ready.Remove(s.ready)
		if g.ready.Len() == 0 {
			r.turn.Remove(g.turn)
			delete(r.groups, s.tenant)
		}
	}
	delete(r.seats, k)
}

// sleepers is a heap by wake time.
type sleepers[K comparable] []*seat[K]

func (h sleepers[K]) Len() int           { return len(h) }
func (h sleepers[K]) Less(i, j int) bool { return h[i].wake.Before(h[j].wake) }
func (h sleepers[K]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h *sleepers[K]) Push(x any) {
	s := x.(*seat[K])
	s.pos = len(*h)
	*h = append(*h, s)
}

func (h *sleepers[K]) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	s.pos = -1
	return s
}

// queues reports whether a member is ready and waits for its turn.
func (r *rota[K]) queues(k K) bool {
	s := r.seats[k]
	return s != nil && s.ready != nil
}
