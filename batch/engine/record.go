package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// What one call of Record carries. A finished block is recorded at once, and so
// is all there is of a batch with too many failures. What comes of another block
// that is not finished is gathered for a while, because every report on a part
// of a block costs the store a segment.
const (
	gatherTime   = 50 * time.Millisecond
	gatherMost   = 128     // of one block: no need to wait for more
	groupReports = 512     // most reports
	groupBytes   = 4 << 20 // no further report once there are so many bytes

	messagesPerReport = 2 // slots that are offered: for the results of a range, and for the end of its batch

	mostUnrecorded = 32 << 20 // bytes of outcomes beyond which nothing more is started
)

// note tells the recorder about a block with something to record.
func (e *Engine) note(b *block, now time.Time) {
	switch {
	case b.closed || !b.over() && len(b.results)+len(b.again) == 0:
	case !b.noted:
		b.noted, b.since = true, now
		e.noted = append(e.noted, b)
		e.outcomes.raise()
	case b.over():
		e.outcomes.raise()
	}
}

// A group is what goes into one transaction.
type group struct {
	blocks  []*block
	reports []batch.Report
	charges []*charge // one a report, or none: then they are outcomes
	bytes   int
}

// record keeps outcomes until the engine is halted and holds nothing more.
// It is the only one that calls Record. The messages that come of it are sent
// at once, for as long as work does not end.
func (e *Engine) record(ctx, work context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		g, wait, last := e.gather(time.Now())
		if len(g.reports) > 0 {
			if err := e.commit(ctx, work, g); err != nil {
				return err
			}
			continue
		}
		if last {
			return nil
		}
		timer.Reset(wait)
		select {
		case <-e.outcomes:
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// gather takes what is to be recorded now: charges and outcomes by turns. If
// that is nothing, wait says when it will be something at the latest, and last
// whether there is nothing more to come.
func (e *Engine) gather(now time.Time) (g group, wait time.Duration, last bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.charged {
		if g = e.gatherCharges(); len(g.reports) > 0 {
			e.charged = true
			return g, 0, false
		}
	}
	g, wait = e.gatherOutcomes(now)
	if e.charged {
		wait = 0 // charges may have come meanwhile
	}
	e.charged = false
	return g, wait, e.halted && !e.asking && e.held.blocks == 0
}

// gatherOutcomes takes the outcomes that are to be recorded now. Those of a
// block wait for its charges, which may be older.
func (e *Engine) gatherOutcomes(now time.Time) (g group, wait time.Duration) {
	wait = time.Hour
	later := e.noted[:0]
	for _, b := range e.noted {
		left := gatherTime - now.Sub(b.since)
		ready := b.urgent || !e.charging(b) && (b.over() || b.job.strained() || left <= 0 || len(b.results)+len(b.again) >= gatherMost)
		switch {
		case b.closed:
		case ready && len(g.reports) < groupReports && g.bytes < groupBytes:
			g.add(b)
		default:
			later = append(later, b)
			wait = min(wait, max(left, 0))
		}
	}
	clear(e.noted[len(later):])
	e.noted = later
	return g, wait
}

// add makes a block's outcomes a report.
func (g *group) add(b *block) {
	g.blocks = append(g.blocks, b)
	g.reports = append(g.reports, batch.Report{
		Lease: b.work.Lease, Started: b.started, Results: b.results, Again: b.again, Release: b.over(),
	})
	g.bytes += b.bytes
	b.closed = b.over()
	b.urgent, b.noted, b.bytes, b.results, b.again = false, false, 0, nil, nil
}

// commit records a group, however often it takes while the store says that
// nothing has changed and that it may be asked again.
func (e *Engine) commit(ctx, work context.Context, g group) error {
	for pause := shortestBackoff; ; pause = min(2*pause, longestBackoff) {
		offer := e.courier.offer(messagesPerReport * len(g.reports))
		start := time.Now()
		rec, err := e.store.Record(ctx, g.reports, offer)
		e.courier.accept(work, offer, rec.Deliveries)
		switch code := batch.CodeOf(err); {
		case err == nil:
			kept := g.cut(len(g.reports) - rec.Left)
			e.recorded(kept, rec)
			e.o.Metrics.Recorded(len(kept.reports), time.Since(start))
			if rec.Left == 0 {
				return nil
			}
		case passing(code):
			e.log.Warn("outcomes wait for the store", "reports", len(g.reports), "error", err)
			if !sleep(ctx, pause) {
				return fmt.Errorf("record outcomes: %w", err)
			}
		case code != "":
			return e.commitApart(ctx, work, g, err)
		default:
			return fmt.Errorf("record outcomes: %w", err)
		}
	}
}

// commitApart finds the report that the store refuses, and lets go of its
// block: what the store holds of it stays as it is.
func (e *Engine) commitApart(ctx, work context.Context, g group, refusal error) error {
	if len(g.reports) == 1 {
		e.log.Error("outcomes refused by the store", "batch_id", g.reports[0].Lease.Block.Batch, "error", refusal)
		e.recorded(g, batch.Recorded{Lost: []int{0}})
		return nil
	}
	for len(g.reports) > 0 {
		if err := e.commit(ctx, work, g.cut(1)); err != nil {
			return err
		}
	}
	return nil
}

// cut takes the first n reports off the group and returns them as one.
func (g *group) cut(n int) group {
	first := group{blocks: g.blocks[:n], reports: g.reports[:n]}
	for _, r := range first.reports {
		for _, res := range r.Results {
			first.bytes += len(res.Payload)
		}
	}
	if g.charges != nil {
		first.charges, g.charges = g.charges[:n], g.charges[n:]
	}
	g.blocks, g.reports, g.bytes = g.blocks[n:], g.reports[n:], g.bytes-first.bytes
	return first
}

// recorded lets go of what a group finished or lost.
func (e *Engine) recorded(g group, rec batch.Recorded) {
	defer g.answer(rec.Lost)
	for _, b := range rec.Ended {
		e.log.Debug("batch ended", "batch_id", b.ID, "status", b.Status, "items", b.Items, "failed", b.Done.Failed)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, i := range rec.Lost {
		e.log.Debug("lease lost", "batch_id", g.reports[i].Lease.Block.Batch, "token", g.reports[i].Lease.Token)
		g.blocks[i].job.failed.n -= failedOf(g.reports[i].Results)
		e.lose(g.blocks[i])
	}
	for i, b := range g.blocks {
		if g.reports[i].Release {
			e.drop(b)
		}
	}
	was := e.unrecorded
	e.unrecorded -= g.bytes
	if was > mostUnrecorded && e.unrecorded <= mostUnrecorded {
		e.wakeLanes()
	}
}
