package main_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// trigger does something when an event has happened so many times.
type trigger struct {
	mu    sync.Mutex
	event string
	left  int
	do    func()
}

// hit says that the event happens now.
func (t *trigger) hit(event string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.do == nil || t.event != event {
		return
	}
	if t.left--; t.left <= 0 {
		t.do()
		t.do = nil
	}
}

// arm replaces what was armed before.
func (t *trigger) arm(event string, times int, do func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.event, t.left, t.do = event, times, do
}

// nemesis chooses when the server dies: half the time within 30 ms of the
// first work after a start, half the time at an event, now and then while it
// starts or stops. Uniform moments mostly hit idle code; events hit what
// matters.
type nemesis struct {
	rnd     *rand.Rand
	trigger *trigger
}

var events = []struct {
	name string
	most int
}{{"accepted", 12}, {"upstream call", 1500}, {"callback", 20}, {"callback answered", 20}, {"shown", 20}, {"asked", 4}, {"fed", 8}}

// eventWait bounds the wait for an event that does not come, as when nothing
// is left to deliver.
const eventWait = time.Second

// strike kills the server.
func (n *nemesis) strike(ctx context.Context, v *victim) {
	defer v.kill()
	switch n.rnd.IntN(20) {
	case 0, 1:
		n.pause(ctx, 80*time.Millisecond) // while it starts
	case 2:
		n.await(ctx, "accepted", 1+n.rnd.IntN(8), v.terminate)
		n.pause(ctx, 80*time.Millisecond) // while it stops
	case 3, 4, 5, 6, 7, 8, 9:
		n.await(ctx, "answered", 1)
		n.pause(ctx, 30*time.Millisecond)
	default:
		e := events[n.rnd.IntN(len(events))]
		n.await(ctx, e.name, 1+n.rnd.IntN(e.most), v.kill)
	}
}

// await returns when the event has happened so many times, having called then
// at once, or when it does not come.
func (n *nemesis) await(ctx context.Context, event string, times int, then ...func()) {
	happened := make(chan struct{})
	n.trigger.arm(event, times, func() {
		for _, f := range then {
			f()
		}
		close(happened)
	})
	defer n.trigger.arm("", 0, nil)
	select {
	case <-happened:
	case <-time.After(eventWait):
	case <-ctx.Done():
	}
}

func (n *nemesis) pause(ctx context.Context, most time.Duration) {
	select {
	case <-time.After(time.Duration(n.rnd.Int64N(int64(most)))):
	case <-ctx.Done():
	}
}
