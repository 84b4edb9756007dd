package engine

import (
	"cmp"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// The store knows of a failure once it is recorded, and until then much more
// may fail. So a node counts what fails of a batch it has in hand, on top of
// what the store knew when its blocks were claimed, and lets nothing more begin
// as soon as that is more than the batch bears. What is in flight finishes, all
// outcomes are recorded at once, and with them the store stops the batch.

// failures are how many items of a batch have failed in a round.
type failures struct{ round, n int }

// learn takes over what is known elsewhere if it is of a later round, or more.
func (f *failures) learn(g failures) {
	if cmp.Or(cmp.Compare(g.round, f.round), cmp.Compare(g.n, f.n)) > 0 {
		*f = g
	}
}

// strained reports whether more of the batch has failed than it bears: nothing
// of it begins then. Its owner may let it bear more.
func (j *job) strained() bool { return !j.spec.Bears(j.failed.n) }

// count counts the run's failures for its batch.
func (r *run) count() {
	r.block.job.failed.n += r.failed
	r.failed = 0
}

// failed counts what failed in a run while it goes on. If that is too much it
// and all other runs of the batch end with the items they have begun.
func (e *Engine) failed(r *run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j := r.block.job
	if r.block.closed {
		return
	}
	if r.count(); !j.strained() {
		return
	}
	for _, b := range j.blocks {
		b.recall()
	}
}

// failedOf returns how many results say failed. Of those that are not kept
// nothing counts.
func failedOf(results []batch.Result) (n int) {
	for i := range results {
		if results[i].Status == batch.ItemFailed {
			n++
		}
	}
	return n
}

// letGo gives the blocks of a batch back to the store. What is in flight
// finishes.
func (e *Engine) letGo(j *job, now time.Time) {
	for _, b := range j.blocks {
		b.stop()
		e.note(b, now)
	}
	e.outcomes.raise()
}
