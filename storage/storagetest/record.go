package storagetest

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// recording: every outcome is kept once, whoever reports it and in whatever
// order, and the last one ends the batch.
var recording = cases{
	{"counts follow every report and sum to the total", func(s *fixture) {
		g := s.create(sample{Items: 10, PerBlock: 6})
		ws := s.claimAll()
		s.record(partly(ws[0], 1))
		s.stands(g, batch.Running, g.tally(1))
		s.record(partly(ws[0], 3, 0), partly(ws[1], 8, 9))
		s.stands(g, batch.Running, g.tally(0, 1, 3, 8, 9))
		s.same("results", s.results(g, batch.ResultQuery{}), g.expected(0, 1, 3, 8, 9))
		rec := s.record(released(partly(ws[1], 6, 7)), released(partly(ws[0], 2, 4, 5)))
		s.stands(g, batch.Completed, g.tally(every(10)...))
		s.same("ended", rec.Ended, []batch.Batch{s.batch(g)})
	}},
	{"a batch runs from the start that was first shown of it", func(s *fixture) {
		g := s.create(sample{Items: 2})
		w := s.claim()
		shown := s.batch(g).Started.UTC()
		r := partly(w, 0)
		r.Started = shown.Add(time.Second)
		s.record(r)
		b := s.batch(g)
		s.same("running", []any{b.Status, b.Started.UTC()}, []any{batch.Running, shown})
		last := released(partly(w, 1))
		last.Started = shown.Add(2 * time.Second)
		s.record(last)
		s.same("started", s.batch(g).Started.UTC(), shown)
	}},
	{"the order of recording and its pieces do not show", func(s *fixture) {
		var lines [6][]byte
		for i := range lines {
			m := called(256, 256)
			m.Item, m.Options.CallbackPageItems = strange, 100
			g := s.create(m)
			s.inPieces(s.claim(), []int{1, 20}[i/3], i%3)
			s.stands(g, batch.Completed, g.tally(every(256)...))
			s.same("results", s.results(g, batch.ResultQuery{Limit: 100}), g.expected(every(256)...))
			for _, r := range s.results(g, batch.ResultQuery{}) {
				lines[i] = append(batch.AppendResult(lines[i], r), '\n')
			}
		}
		for i := range lines {
			if !bytes.Equal(lines[i], lines[0]) {
				s.t.Fatalf("the lines of way %d are not those of the first", i)
			}
		}
	}},
	{"results in pieces can be read after each of them", func(s *fixture) {
		g := s.create(sample{Items: 30})
		w := s.claim()
		for i := range 29 {
			s.record(partly(w, i))
			s.same("results", s.results(g, batch.ResultQuery{Prefix: true}), g.expected(every(i+1)...))
		}
	}},
	{"an item that has its result keeps it, and the rest of the call is kept", func(s *fixture) {
		g := s.create(sample{Items: 12, PerBlock: 4})
		ws := s.claimAll()
		other := func(r batch.Report) batch.Report {
			for i := range r.Results {
				r.Results[i].Payload, r.Results[i].Attempts = []byte(`"another"`), 7
			}
			return r
		}
		s.record(partly(ws[0], 0))
		s.lost([]int{0, 3, 4}, other(partly(ws[0], 1, 0)), partly(ws[1], 4), partly(ws[2], 8), other(partly(ws[1], 5, 4)), other(partly(ws[2], 9, 9)))
		s.same("results", s.results(g, batch.ResultQuery{}), g.expected(0, 4, 8))
		back := batch.Report{Lease: ws[0].Lease, Again: []batch.Again{{Index: 0, Attempts: 1, Due: now()}}}
		s.lost([]int{0}, back)
		s.record(released(partly(ws[0], 1, 2, 3)), released(partly(ws[1], 5, 6, 7)), released(partly(ws[2], 9, 10, 11)))
		s.same("results", s.results(g, batch.ResultQuery{}), g.expected(every(12)...))
	}},
	{"a lease that is lost or made up changes nothing, and the rest of the call is kept", func(s *fixture) {
		g := s.create(sample{Items: 8, PerBlock: 2})
		ws := s.claimAll()
		s.record(letGo(ws[0]))
		fresh := s.claim()
		forged := func(change func(l *batch.Lease)) batch.Report {
			r := finish(ws[1])
			change(&r.Lease)
			return r
		}
		s.lost([]int{0, 2, 3, 4, 5, 6}, finish(ws[0]), finish(ws[2]), letGo(ws[0]),
			forged(func(l *batch.Lease) { l.Token++ }),
			forged(func(l *batch.Lease) { l.Block.Number = 99 }),
			forged(func(l *batch.Lease) { l.Block.Batch = batch.NewID(time.Now()) }),
			forged(func(l *batch.Lease) { l.Block.Tenant = tenant(66) }))
		s.same("results", s.results(g, batch.ResultQuery{}), g.expected(4, 5))
		s.record(finish(fresh), finish(ws[1]), finish(ws[3]))
		s.lost([]int{0, 1}, finish(fresh), letGo(ws[3]))
		s.stands(g, batch.Completed, g.tally(every(8)...))
	}},
	{"a report that makes no sense keeps nothing", func(s *fixture) {
		g := s.create(sample{Items: 6, PerBlock: 3})
		w := s.claimAll()[0]
		outside := partly(w, 0)
		outside.Results = append(outside.Results, outcome(3, ""))
		pending := partly(w, 1)
		pending.Results[0].Status = batch.ItemRunning
		for _, r := range []batch.Report{outside, pending} {
			rec, err := s.Record(s.ctx, []batch.Report{r}, batch.MessageClaim{})
			if err == nil && !slices.Equal(rec.Lost, []int{0}) {
				s.t.Fatalf("kept %+v", r)
			}
		}
		s.same("done", s.batch(g).Done, batch.Tally{})
		s.record(finish(w))
	}},
	{"an item to be tried again comes back with its attempts", func(s *fixture) {
		g := s.create(sample{Items: 2})
		for n := range 4 {
			w := s.claim()
			s.same("attempts", w.Items[0].Attempts, n)
			r := released(partly(w))
			for _, it := range w.Items {
				r.Again = append(r.Again, batch.Again{Index: it.Index, Attempts: n + 1, Due: now()})
			}
			s.record(r)
		}
		s.stands(g, batch.Running, batch.Tally{})
		s.record(finish(s.claim()))
		s.stands(g, batch.Completed, g.tally(0, 1))
	}},
	{"reports of one claim in one call count one after the other", func(s *fixture) {
		g := s.create(sample{Items: 3})
		w := s.claim()
		hour := now().Add(time.Hour)
		waits := partly(w, 0)
		waits.Again = []batch.Again{{Index: 1, Attempts: 1, Due: hour}, {Index: 2, Attempts: 2, Due: hour.Add(time.Hour)}}
		s.record(waits, letGo(w))
		s.idle()
		at, some, err := s.NextDue(s.ctx, []string{work})
		s.ok(err)
		s.same("next due", []any{at.UTC(), some}, []any{hour, true})
		s.stands(g, batch.Running, g.tally(0))
	}},
	{"the last item ends the batch once, whoever of fifty brings it", func(s *fixture) {
		g := s.create(called(100, 2))
		s.same("times ended", s.racing(g), 1)
		s.stands(g, batch.Completed, g.tally(every(100)...))
		s.terminal(g)
	}},
	{"two who finish the last two blocks at once end the batch once", func(s *fixture) {
		for range 20 {
			g := s.create(called(4, 2))
			s.same("times ended", s.racing(g), 1)
			s.stands(g, batch.Completed, g.tally(every(4)...))
			s.terminal(g)
		}
	}},
	{"the last result ends the batch although its claim goes on", func(s *fixture) {
		g := s.create(called(3, 3))
		w := s.claim()
		s.record(partly(w, 0, 2))
		rec := s.record(partly(w, 1))
		s.same("ended", len(rec.Ended), 1)
		s.stands(g, batch.Completed, g.tally(every(3)...))
		s.idle()
	}},
	{"one call ends many batches of many tenants", func(s *fixture) {
		for n := range 40 {
			m := called(2, 1)
			m.Tenant = tenant(byte(n % 4))
			s.create(m)
		}
		s.same("ended", len(s.complete().Ended), 40)
		for _, g := range s.made.all() {
			s.stands(g, batch.Completed, g.tally(0, 1))
		}
	}},
	{"what was handed in may be used again", func(s *fixture) {
		g := s.create(sample{Items: 20})
		r := finish(s.claim())
		s.record(r)
		for i := range r.Results {
			clear(r.Results[i].Payload)
		}
		s.same("results", s.results(g, batch.ResultQuery{}), g.expected(every(20)...))
	}},
	{"who reads while it runs sees counts that only rise, and an end only with its message", func(s *fixture) {
		g := s.create(called(150, 1))
		ws := s.claimAll()
		var workers atomic.Int32
		s.together(5, func(n int) error {
			if n < 3 {
				defer workers.Add(1)
				return s.each(ws[n*50:(n+1)*50], 1)
			}
			return s.watch(g, func() bool { return workers.Load() == 3 })
		})
		s.stands(g, batch.Completed, g.tally(every(150)...))
	}},
}

// inPieces records w in n reports: in order, backwards, or shuffled.
func (s *fixture) inPieces(w batch.Work, n, order int) {
	s.t.Helper()
	is := indexes(w)
	switch order {
	case 1:
		slices.Reverse(is)
	case 2:
		rand.Shuffle(len(is), func(i, j int) { is[i], is[j] = is[j], is[i] })
	}
	size := (len(is) + n - 1) / n
	for part := range slices.Chunk(is, size) {
		s.record(partly(w, part...))
	}
}

// racing lets one goroutine a block of g finish it, all at once, and returns
// how often g ended.
func (s *fixture) racing(g *given) int {
	s.t.Helper()
	ws := s.claimAll()
	var ended atomic.Int32
	s.together(len(ws), func(i int) error {
		rec, err := s.Record(s.ctx, []batch.Report{finish(ws[i])}, batch.MessageClaim{})
		for _, b := range rec.Ended {
			if b.ID == g.ID {
				ended.Add(1)
			}
		}
		return err
	})
	return int(ended.Load())
}

// each finishes work, so many blocks a call.
func (s *fixture) each(ws []batch.Work, size int) error {
	for part := range slices.Chunk(ws, size) {
		if _, err := s.Record(s.ctx, finishAll(part), batch.MessageClaim{}); err != nil {
			return err
		}
	}
	return nil
}

// watch reads g until done says that nothing more is coming and holds each
// view against the one before.
func (s *fixture) watch(g *given, done func() bool) error {
	before := 0
	for last := false; ; {
		b, err := s.Batch(s.ctx, g.Tenant, g.ID)
		if err != nil {
			return err
		}
		n := b.Counts().Finished()
		if n < before {
			return batch.Errorf(batch.Damaged, "finished items fell from %d to %d", before, n)
		}
		if over := b.Status.Terminal(); over != (n == g.Items) || over != (b.Terminal != batch.MessageID{}) {
			return batch.Errorf(batch.Damaged, "the batch is %v with %d items finished and the message %v", b.Status, n, b.Terminal)
		}
		if last {
			return nil
		}
		before, last = n, done()
	}
}
