package engine

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"github.com/callbatch/callbatch/batch"
)

// A run is as many items as take about runTime, so that the cost of sharing is
// spread over them where they are tiny, and one item where they are not.
const (
	runTime  = time.Millisecond
	runItems = 64
)

// A lane is all that one processor has on this node: its slots, what may be
// granted one, and in which order. Guarded by the engine's lock unless it
// says otherwise.
type lane struct {
	e        *Engine
	name     string
	p        Processor
	log      *slog.Logger
	complain rate.Sometimes // for what goes wrong item after item; safe for concurrent use
	wake     signal         // there may be something to grant; safe for concurrent use

	limit   *rate.Limiter // nil: unbounded
	gate    gate
	tenants map[batch.TenantID]*tenant
	ready   ring[*tenant]
	slots   int           // in use
	pace    time.Duration // what an item takes: rises at once and falls slowly; 0: unknown

	held     hands
	turnover int // blocks let go since the last tick
}

func newLane(e *Engine, name string, p Processor) *lane {
	l := &lane{
		e: e, name: name, p: p.WithDefaults(), wake: newSignal(),
		log:      e.o.Logger.With("processor", name),
		complain: rate.Sometimes{First: 1, Interval: 10 * time.Second},
		tenants:  map[batch.TenantID]*tenant{},
	}
	if p.Rate > 0 {
		l.limit = rate.NewLimiter(rate.Limit(p.Rate), max(1, int(p.Rate/100)))
	}
	return l
}

// open makes room for a batch this node held nothing of.
func (l *lane) open(s *batch.Spec) *job {
	t := l.tenants[s.Tenant]
	if t == nil {
		t = &tenant{id: s.Tenant}
		t.line.who = t
		l.tenants[s.Tenant] = t
	}
	t.jobs++
	j := &job{spec: s, lane: l, tenant: t}
	j.line.who = j
	l.e.jobs[s.ID] = j
	return j
}

// close forgets a batch of which nothing is held.
func (l *lane) close(j *job) {
	if l.e.asking && j.strained() {
		l.e.strained[j.spec.ID] = j.failed
	}
	delete(l.e.jobs, j.spec.ID)
	if j.tenant.jobs--; j.tenant.jobs == 0 {
		delete(l.tenants, j.tenant.id)
	}
}

// line puts a batch in line for slots.
func (l *lane) line(j *job) {
	j.tenant.ready.enter(&j.line)
	l.ready.enter(&j.tenant.line)
}

// next returns the batch whose turn it is and its block, or nil if there is
// nothing to grant. Whoever has nothing to be granted leaves the line here.
func (l *lane) next(now time.Time) (*job, *block) {
	for t := l.ready.head(); t != nil; t = l.ready.head() {
		for j := t.who.ready.head(); j != nil; j = t.who.ready.head() {
			if b := j.who.first(now); b != nil {
				return j.who, b
			}
			t.who.ready.leave()
		}
		l.ready.leave()
	}
	return nil, nil
}

// stride returns how many items make a run.
func (l *lane) stride() int {
	if l.pace == 0 {
		return 1
	}
	return max(1, min(runItems, int(runTime/l.pace)))
}

// grant gives r what is to be done next. If it gives nothing, wait says when
// to ask again even if nothing happens meanwhile; 0: then there is no need.
func (l *lane) grant(r *run, now time.Time) (ok bool, wait time.Duration) {
	if l.e.halted || l.e.stale || l.e.unrecorded > mostUnrecorded {
		return false, 0
	}
	j, b := l.next(now)
	if b == nil {
		return false, 0
	}
	ok, probe, wait := l.gate.admit(now)
	if !ok {
		return false, wait
	}
	stride := l.stride()
	n := stride
	if probe {
		n = 1
	}
	if l.limit != nil {
		tokens := l.limit.TokensAt(now)
		if tokens < 1 {
			return false, time.Duration((1-tokens)/l.p.Rate*float64(time.Second)) + time.Microsecond
		}
		n = min(n, int(tokens))
	}
	s := b.take(n)
	n = s.to - s.from
	if l.limit != nil {
		l.limit.AllowN(now, n)
	}
	l.gate.probing = l.gate.probing || probe
	l.ready.charge(n, stride)
	j.tenant.ready.charge(n, stride*j.spec.Options.Priority.Weight())

	if b.started.IsZero() {
		b.started = now
	}
	r.reset(b, s, now)
	r.probe, r.free = probe, probe && now.Sub(l.gate.opened) < freeProbes
	b.runs = append(b.runs, r)
	j.runs++
	return true, 0
}

// run starts workers for what there is to grant until ctx ends; work is the
// context of what they do. It is the lane's one long-lived goroutine.
func (l *lane) run(ctx, work context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if wait := l.fill(work); wait > 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
	}
}

// fill starts a worker for each free slot there is something for.
func (l *lane) fill(work context.Context) (wait time.Duration) {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	now := time.Now()
	for l.slots < l.p.Concurrency {
		r := new(run)
		ok, wait := l.grant(r, now)
		if !ok {
			return wait
		}
		l.slots++
		l.e.workers.Go(func() { l.work(work, r) })
	}
	return 0
}

// work is a worker: it holds one slot as long as there is something to do.
func (l *lane) work(ctx context.Context, r *run) {
	t := term{parent: ctx, length: l.p.Timeout}
	defer t.end()
	for {
		l.do(&t, r)
		if !l.finish(r) {
			return
		}
	}
}

// finish takes a run back, notes what became of it, and gives the slot the
// next one or, with false, frees it.
func (l *lane) finish(r *run) bool {
	now := time.Now()
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	l.learn(r, now)
	b := r.block
	l.e.unrecorded += r.settle()
	l.e.note(b, now)
	if b.job.strained() {
		l.e.letGo(b.job, now)
	}
	l.e.leave(r)
	l.line(b.job)
	ok, wait := l.grant(r, now)
	if !ok {
		l.slots--
	}
	if _, more := l.next(now); wait > 0 || more != nil && l.slots < l.p.Concurrency {
		l.wake.raise()
	}
	return ok
}

// learn keeps what a run says about the processor as a whole.
func (l *lane) learn(r *run, now time.Time) {
	if r.tried > 0 {
		if each := max(1, r.took/time.Duration(r.tried)); each > l.pace {
			l.pace = each
		} else {
			l.pace -= (l.pace - each) / 8
		}
	}
	if r.probe {
		l.gate.probing = false
	}
	if r.up {
		l.gate.up()
	}
	if r.down {
		l.gate.down(r.probe, now)
	}
	l.gate.hold(r.hold)
}
