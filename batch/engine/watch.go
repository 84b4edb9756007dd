package engine

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// An item that is worked on inside this process may take it down, and would
// again and again. What was in flight is not known then, so after a crash it is
// written down beforehand, for a while, as a death of the items: first of all
// items of a run, at the next death of each item by itself, and after that of
// an item that has the process to itself. What survives has its result, or the
// death taken back. Whoever was alone with three is poison.
//
// Somebody who kills the process may hit an item that does nothing while it is
// alone, or before its death is taken back. That this happens to one item three
// times leaves no doubt.

// watchTime is for how long after a crash runs are on record before they begin.
const watchTime = 5 * time.Minute

// everyPlace is what a run takes that is to be alone.
const everyPlace = math.MaxInt64

// A charge is a report that items are about to begin. done says whether it is
// kept: if not they do not begin.
type charge struct {
	block *block
	again []batch.Again
	done  chan bool
}

// A watch sees to it that it is known which items of a run were in flight,
// should the process end.
type watch struct {
	l       *lane
	r       *run
	careful bool          // also of items that nothing is held against
	charged int           // items before this position are on record as begun
	waited  time.Duration // for places and for the record
}

func (l *lane) watch(r *run, now time.Time) watch {
	return watch{l: l, r: r, careful: now.Before(l.e.watching)}
}

func (w *watch) items() []batch.WorkItem { return w.r.block.work.Items }

// minds reports whether begin is to be asked about an item: not of most.
func (w *watch) minds(it *batch.WorkItem) bool {
	return !w.l.p.Outside && (it.Deaths > 0 || w.careful || w.r.places != 1)
}

// begin is called before the item at pos is tried, and reports whether it may
// be.
func (w *watch) begin(ctx context.Context, pos int) bool {
	deaths := w.items()[pos].Deaths
	places := int64(1)
	if batch.Alone(deaths) {
		places = everyPlace
	}
	fit := pos < w.charged || deaths == 0 && !w.careful
	if fit && places == w.r.places {
		return true
	}
	start := time.Now()
	defer func() { w.waited += time.Since(start) }()
	if places != w.r.places {
		w.l.e.leave(w.r)
		if w.l.e.inside.Acquire(ctx, places) != nil {
			return false
		}
		w.r.places = places
	}
	return fit || w.charge(ctx, pos)
}

// alone reports whether the process is the run's for one item.
func (r *run) alone() bool { return r.places == everyPlace }

// leave gives the places of a run back.
func (e *Engine) leave(r *run) {
	if r.places > 0 {
		e.inside.Release(r.places)
		r.places = 0
	}
}

// charge has it written down that the item at pos begins and, if nothing is
// held against it, those behind it of which the same is true.
func (w *watch) charge(ctx context.Context, pos int) bool {
	c := &charge{block: w.r.block, done: make(chan bool, 1)}
	e := w.l.e
	e.mu.Lock()
	end := pos + 1
	if w.items()[pos].Deaths == 0 && int(w.r.next.Load()) == end { // nobody has taken the rest
		for end < w.r.to && w.items()[end].Deaths == 0 {
			end++
		}
	}
	for i := pos; i < end; i++ {
		c.again = append(c.again, w.as(i, w.items()[i].Deaths+1))
	}
	e.charges = append(e.charges, c)
	e.outcomes.raise()
	e.mu.Unlock()
	w.charged = end
	select {
	case kept := <-c.done:
		return kept
	case <-ctx.Done():
		return false
	}
}

// as is the item at pos as it waits, with so many deaths.
func (w *watch) as(pos, deaths int) batch.Again {
	it := w.items()[pos]
	return batch.Again{Index: it.Index, Attempts: it.Attempts, Deaths: deaths, Due: time.Now()}
}

// stop takes back the deaths of the item at pos, and of those of the run behind
// it, which our own stop keeps from their end.
func (w *watch) stop(pos int) {
	rest := w.r.cut()
	for _, s := range []span{{pos, pos + 1}, rest} {
		for i := s.from; i < min(s.to, w.charged); i++ {
			w.r.again = append(w.r.again, w.as(i, w.items()[i].Deaths))
		}
	}
}

// gatherCharges takes the charges that go into one transaction: one a block.
// There are none while the outcome of an item that was alone is to be recorded:
// who is next begins when that is done.
func (e *Engine) gatherCharges() (g group) {
	if slices.ContainsFunc(e.noted, func(b *block) bool { return b.urgent && !b.closed }) {
		return g
	}
	later := e.charges[:0]
	for _, c := range e.charges {
		switch {
		case c.block.closed:
			c.done <- false
		case len(g.reports) == groupReports || slices.Contains(g.blocks, c.block):
			later = append(later, c)
		default:
			g.blocks = append(g.blocks, c.block)
			g.charges = append(g.charges, c)
			g.reports = append(g.reports, batch.Report{Lease: c.block.work.Lease, Started: c.block.started, Again: c.again})
		}
	}
	clear(e.charges[len(later):])
	e.charges = later
	return g
}

// charging reports whether a charge of the block waits.
func (e *Engine) charging(b *block) bool {
	return len(e.charges) > 0 && slices.ContainsFunc(e.charges, func(c *charge) bool { return c.block == b })
}

// answer tells those who wait for the charges of a group what became of them.
func (g *group) answer(lost []int) {
	for i, c := range g.charges {
		c.done <- !slices.Contains(lost, i)
	}
}
