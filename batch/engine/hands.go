package engine

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// What a node has in its hands: blocks it claimed, the batches they are of,
// and the tenants of these, each below its lane. All of it is guarded by the
// engine's lock unless it says otherwise.

// A tenant is one tenant's batches in one lane.
type tenant struct {
	id    batch.TenantID
	line  turn[*tenant] // among the lane's tenants
	ready ring[*job]    // batches that may have something to grant
	jobs  int
}

// A job is a batch of which this node holds blocks.
type job struct {
	spec   *batch.Spec
	until  time.Time // nothing is started from then on; zero: no such time
	lane   *lane
	tenant *tenant
	line   turn[*job] // among the tenant's batches
	blocks []*block   // in the order they were claimed
	runs   int        // under way: items of the batch in flight
	failed failures   // recorded or not
}

// first returns the job's first block with something to grant, or nil.
func (j *job) first(now time.Time) *block {
	if j.strained() {
		return nil
	}
	if !j.until.IsZero() && !now.Before(j.until) {
		return nil // the store will say to let go
	}
	if most := j.spec.Options.Concurrency; most > 0 && j.runs >= most {
		return nil
	}
	for _, b := range j.blocks {
		if len(b.todo) > 0 {
			return b
		}
	}
	return nil
}

// A span is a run of positions in a block's items.
type span struct{ from, to int }

// A block is a claimed block. It is released when every item the claim gave
// has an outcome, or earlier if it has to be given back.
type block struct {
	work    batch.Work
	job     *job
	size    int
	claimed time.Time
	started time.Time // of the first item; zero: none was
	todo    []span    // what no run has
	runs    []*run    // what is under way

	results []batch.Result // outcomes that are not recorded yet
	again   []batch.Again
	bytes   int       // of these outcomes
	since   time.Time // when the first of them came
	noted   bool      // the recorder knows that there is something to record
	urgent  bool      // and that it is to be recorded at once
	stopped bool      // nothing more of it begins
	closed  bool      // the last report is on its way, or the lease is lost: nothing more is kept
}

// over reports whether nothing more will come of the block.
func (b *block) over() bool { return len(b.todo) == 0 && len(b.runs) == 0 }

// take cuts at most n items off what is to be done.
func (b *block) take(n int) span {
	s := &b.todo[0]
	got := span{s.from, min(s.to, s.from+n)}
	if s.from = got.to; s.from == s.to {
		b.todo = slices.Delete(b.todo, 0, 1)
	}
	return got
}

// recall takes back what the block's runs have not begun.
func (b *block) recall() {
	for _, r := range b.runs {
		if rest := r.cut(); rest.from < rest.to {
			b.todo = append(b.todo, rest)
		}
	}
}

// stop lets nothing more of the block begin. Items in flight finish.
func (b *block) stop() {
	b.recall()
	b.todo, b.stopped = nil, true
}

// A run is some consecutive items of a block that one slot works through.
// The worker owns it between its grant and its return, but for next.
type run struct {
	block   *block
	probe   bool // to see whether the breaker may close
	free    bool // and at its expense
	bounded bool // its batch bears only so many failures: each counts at once
	started time.Time
	to      int
	next    atomic.Int64 // position of the first item not begun; safe for concurrent use

	results []batch.Result
	again   []batch.Again
	back    []span // to be granted anew
	bytes   int
	tried   int
	failed  int // that its batch does not count yet
	took    time.Duration
	up      bool      // somebody answered
	down    bool      // the last attempt had no answer
	hold    time.Time // the other side asked to be left alone until then
	urgent  bool      // what became of it is to be recorded at once
	places  int64     // it has of those inside the process
}

// begin returns the position of the next item; ok is false if the run is over.
func (r *run) begin() (pos int, ok bool) {
	pos = int(r.next.Add(1)) - 1
	return pos, pos < r.to
}

// cut ends the run after the items it has begun and returns the rest.
func (r *run) cut() span {
	return span{min(int(r.next.Swap(int64(r.to))), r.to), r.to}
}

// giveBack has items granted anew that the run did not try, or that its trying
// does not count for.
func (r *run) giveBack(s span) {
	if s.from < s.to {
		r.back = append(r.back, s)
	}
}

// reset makes the run one of b's s, keeping its memory.
func (r *run) reset(b *block, s span, now time.Time) {
	r.block, r.started, r.to = b, now, s.to
	r.next.Store(int64(s.from))
	r.results, r.again, r.back = r.results[:0], r.again[:0], r.back[:0]
	r.bytes, r.tried, r.failed, r.took = 0, 0, 0, 0
	r.bounded = b.job.spec.Options.MaxFailures != ""
	r.up, r.down, r.hold, r.urgent = false, false, time.Time{}, false
}

// settle gives what became of the run to its block and returns how many bytes
// the block has to record now that it had not.
func (r *run) settle() int {
	b := r.block
	b.job.runs--
	if i := slices.Index(b.runs, r); i >= 0 {
		b.runs = slices.Delete(b.runs, i, i+1)
	}
	if b.closed {
		b.job.failed.n -= failedOf(r.results) - r.failed
		return 0
	}
	r.count()
	if !b.stopped {
		b.todo = append(b.todo, r.back...)
	}
	if b.results == nil && len(r.results) > 0 {
		b.results = make([]batch.Result, 0, len(b.work.Items))
	}
	b.urgent = b.urgent || r.urgent
	b.results = append(b.results, r.results...)
	b.again = append(b.again, r.again...)
	b.bytes += r.bytes
	return r.bytes
}

// keep adds blocks that were claimed to what is in hand.
func (e *Engine) keep(works []batch.Work) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asking = false
	if len(works) > 0 {
		e.claimed.raise()
	}
	if e.halted {
		e.outcomes.raise()
	}
	for _, w := range works {
		l := e.lanes[w.Spec.Options.Processor]
		j := e.jobs[w.Spec.ID]
		if j == nil {
			j = l.open(w.Spec)
		}
		if w.Spec.Edition >= j.spec.Edition {
			j.spec, j.until = w.Spec, w.Expires
		}
		j.failed.learn(failures{w.Round, w.Failed})
		j.failed.learn(e.strained[w.Spec.ID])
		b := &block{work: w, job: j, size: sizeOf(w), claimed: now}
		j.blocks = append(j.blocks, b)
		for _, held := range []*hands{&e.held, &l.held} {
			held.blocks++
			held.bytes += b.size
		}
		if len(w.Items) > 0 && !e.halted {
			b.todo = []span{{0, len(w.Items)}}
			l.line(j)
			l.wake.raise()
		} else {
			b.stopped = true
			e.note(b, now)
		}
	}
	clear(e.strained)
}

// hands is how much is held.
type hands struct{ blocks, bytes int }

func sizeOf(w batch.Work) int {
	const overhead = 64
	n := 0
	for i := range w.Items {
		n += len(w.Items[i].Raw) + len(w.Items[i].ID) + overhead
	}
	return n
}

// lose gives up a block whose lease is another's.
func (e *Engine) lose(b *block) {
	b.stop()
	e.drop(b)
}

// drop forgets a block that was released or lost.
func (e *Engine) drop(b *block) {
	j := b.job
	i := slices.Index(j.blocks, b)
	if i < 0 {
		return
	}
	b.closed = true
	j.blocks = slices.Delete(j.blocks, i, i+1)
	for _, held := range []*hands{&e.held, &j.lane.held} {
		held.blocks--
		held.bytes -= b.size
	}
	e.unrecorded -= b.bytes
	j.failed.n -= failedOf(b.results)
	b.bytes, b.results, b.again = 0, nil, nil
	j.lane.turnover++
	e.room.raise()
	if e.halted { // the recorder may have waited for this to be the last
		e.outcomes.raise()
	}
	if len(j.blocks) == 0 {
		j.lane.close(j)
	}
}

// find returns the block held under a lease, or nil.
func (e *Engine) find(l batch.Lease) *block {
	j := e.jobs[l.Block.Batch]
	if j == nil {
		return nil
	}
	i := slices.IndexFunc(j.blocks, func(b *block) bool {
		return b.work.Lease.Block == l.Block && b.work.Lease.Token == l.Token
	})
	if i < 0 {
		return nil
	}
	return j.blocks[i]
}
