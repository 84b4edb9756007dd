package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// retrying: a round is for what did not succeed, or for what is named of it;
// what has its result keeps it, and every round stays as it ended.
var retrying = cases{
	{"the next round is for what did not succeed", func(s *fixture) {
		g := s.create(called(9, 3)) // items 3 and 8 fail
		s.complete()
		before := s.results(g, batch.ResultQuery{})
		b := s.retry(g, batch.Retry{})
		s.same("done", b.Done, batch.Tally{Succeeded: 7})
		s.same("started, finished", []bool{b.Started.IsZero(), b.Finished.IsZero()}, []bool{true, true})
		ws := s.claimThose(2)
		s.same("items", [][]int{indexes(ws[0]), indexes(ws[1])}, [][]int{{3}, {8}})
		s.same("attempts", []int{ws[0].Items[0].Attempts, ws[0].Round}, []int{0, 2})
		s.same("results meanwhile", len(s.results(g, batch.ResultQuery{})), 7)
		it, err := s.Item(s.ctx, g.Tenant, g.ID, 3)
		s.ok(err)
		s.same("item", []any{it.Status, it.Result == nil, it.Attempts}, []any{batch.ItemPending, true, 0})
		s.record(succeed(ws[0]), finish(ws[1]))
		s.stands(g, batch.Completed, batch.Tally{Succeeded: 8, Failed: 1})
		rs := s.results(g, batch.ResultQuery{})
		s.same("rounds", []int{rs[2].Round, rs[3].Round, rs[8].Round}, []int{1, 2, 2})
		s.same("round 1", s.results(g, batch.ResultQuery{Round: 1}), before)
		s.same("round 2", s.results(g, batch.ResultQuery{Round: 2}), rs)
		s.same("failed in round 1", len(s.results(g, batch.ResultQuery{Round: 1, Status: batch.ItemFailed})), 2)
	}},
	{"only those named run again, by id and by index, and the others stay as they are", func(s *fixture) {
		m := called(20, 4) // items 3, 8, 13 and 18 fail
		m.Options.IDField = "/id"
		g := s.create(m)
		s.complete()
		b := s.retry(g, batch.Retry{IDs: []string{"id 13", "id 18"}, Indexes: []int{8, 8, 13}})
		s.same("done", b.Done, batch.Tally{Succeeded: 16, Failed: 1})
		ws := s.claimThose(3)
		s.same("items", [][]int{indexes(ws[0]), indexes(ws[1]), indexes(ws[2])}, [][]int{{8}, {13}, {18}})
		s.same("results meanwhile", len(s.results(g, batch.ResultQuery{})), 17)
		s.record(succeed(ws[0]), succeed(ws[1]), succeed(ws[2]))
		s.stands(g, batch.Completed, batch.Tally{Succeeded: 19, Failed: 1})
		s.same("the one not named", s.results(g, batch.ResultQuery{Status: batch.ItemFailed}), g.expected(3))
		s.retry(g, batch.Retry{})
		s.same("items", indexes(s.claimThose(1)[0]), []int{3})
	}},
	{"what was canceled before it ran runs in the next round, and keeps the end of its own", func(s *fixture) {
		g := s.create(called(8, 4))
		w := s.claim()
		r := released(partly(w, 0, 3))
		r.Again = []batch.Again{{Index: 1, Attempts: 2, Due: now().Add(time.Hour)}}
		s.record(r)
		s.cancel(g)
		s.ends(g, batch.Canceled, batch.Tally{Succeeded: 1, Failed: 1, Canceled: 6})
		first := s.results(g, batch.ResultQuery{})
		s.retry(g, batch.Retry{Indexes: []int{1, 2, 6}})
		s.stands(g, batch.Queued, batch.Tally{Succeeded: 1, Failed: 1, Canceled: 3})
		s.same("results that stay", len(s.results(g, batch.ResultQuery{})), 5)
		ws := s.claimThose(2)
		s.same("items", [][]int{indexes(ws[0]), indexes(ws[1])}, [][]int{{1, 2}, {6}})
		s.record(released(partly(ws[0], 1)), letGo(ws[1]))
		s.cancel(g)
		s.ends(g, batch.Canceled, batch.Tally{Succeeded: 2, Failed: 1, Canceled: 5})
		s.same("round 1", s.results(g, batch.ResultQuery{Round: 1}), first)
		rs := s.results(g, batch.ResultQuery{})
		s.same("a round that none was", []int{rs[1].Round, rs[2].Round, rs[4].Round, rs[6].Round}, []int{2, 2, 1, 2})
		s.same("the end of the round it was in", rs[4], first[4])
		s.retry(g, batch.Retry{})
		s.same("left", s.batch(g).Done, batch.Tally{Succeeded: 2})
		ws = s.claimThose(2)
		s.same("items", [][]int{indexes(ws[0]), indexes(ws[1])}, [][]int{{2, 3}, {4, 5, 6, 7}})
	}},
	{"messages of a round carry its items only, and its end is told again", func(s *fixture) {
		for _, blocks := range []int{1, 3} {
			g := s.create(called(6, 6/blocks))
			s.complete()
			s.deliver(g)
			first := s.terminal(g)
			s.retry(g, batch.Retry{})
			s.record(succeed(s.claimThose(1)[0]))
			s.same("ledger", s.batch(g).Messages.Round, min(1, blocks-1))
			s.deliver(g)
			end := s.terminalOf(g, 2)
			s.same("another message", end.ID != first.ID && end.Type == batch.TypeCompleted, true)
			carried := 0
			for _, m := range s.messagesOf(g) {
				if m.Round == 2 {
					carried += bytes.Count(s.body(m), []byte(`"index":`))
				}
			}
			s.same("results carried", carried, 1)
		}
	}},
	{"messages of the round before are still sent, and hold nothing back", func(s *fixture) {
		g := s.create(called(4, 1)) // item 3 fails
		s.complete()
		s.retry(g, batch.Retry{})
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Waiting: 5})
		s.record(succeed(s.claimThose(1)[0]))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 1, Owed: 1, Waiting: 7})
		for range 5 {
			s.attempted(ended(s.takeOne(), batch.MessageDelivered))
		}
		d := s.takeOne()
		s.same("the end of round 2", []any{d.Type, d.Round}, []any{batch.TypeCompleted, 2})
		s.attempted(ended(d, batch.MessageDelivered))
	}},
	{"of many blocks only those with something to do are worked on", func(s *fixture) {
		m := sample{Items: 3000, PerBlock: 1}
		g := s.create(m)
		var rs []batch.Report
		for _, w := range s.claimAll() {
			if i := w.Items[0].Index; i == 0 || i == 1777 || i == 2999 {
				rs = append(rs, fail(w))
			} else {
				rs = append(rs, succeed(w))
			}
		}
		s.record(rs...)
		s.retry(g, batch.Retry{})
		var is []int
		for _, w := range s.claimThose(3) {
			is = append(is, indexes(w)...)
			s.record(succeed(w))
		}
		s.same("items", is, []int{0, 1777, 2999})
		s.ends(g, batch.Completed, batch.Tally{Succeeded: 3000})
	}},
	{"a round is canceled while it is laid out, and another opened at once", func(s *fixture) {
		g := s.create(sample{Items: 2000, PerBlock: 1})
		s.cancel(g)
		s.ends(g, batch.Canceled, batch.Tally{Canceled: 2000})
		for range 4 {
			s.retry(g, batch.Retry{})
			s.cancel(g)
			s.ends(g, batch.Canceled, batch.Tally{Canceled: 2000})
			s.idle()
		}
		s.retry(g, batch.Retry{Indexes: []int{1999}})
		w := s.claimThose(1)[0]
		s.same("items", []any{indexes(w), w.Round}, []any{[]int{1999}, 6})
		s.record(succeed(w))
		s.ends(g, batch.Completed, batch.Tally{Succeeded: 1, Canceled: 1999})
		s.idle()
	}},
	{"it goes on after a restart, wherever it was", func(s *fixture) {
		for _, s.down = range s.endings() {
			var rs []batch.Report
			g := s.create(called(1200, 1)) // each fifth fails
			s.complete()
			s.retry(g, batch.Retry{})
			s.restart()
			ws := s.claimThose(240)
			s.record(succeed(ws[0]))
			s.restart()
			for _, w := range s.claimThose(239) {
				rs = append(rs, succeed(w))
			}
			s.record(rs...)
			s.ends(g, batch.Completed, batch.Tally{Succeeded: 1200})
			s.restart()
			s.same("status", s.batch(g).Status, batch.Completed)
			s.ok(s.Check(s.ctx))
		}
	}},
	{"a report of the round before is lost", func(s *fixture) {
		g := s.create(sample{Items: 2})
		w := s.claim()
		s.record(fail(w))
		s.retry(g, batch.Retry{})
		s.claimThose(1)
		s.lost([]int{0}, finish(w))
	}},
	{"what cannot be retried is refused, and nothing changes", func(s *fixture) {
		m := sample{Items: 5, PerBlock: 2, Options: batch.Options{IDField: "/id"}} // item 3 fails
		g := s.create(m)
		refused := func(word string, r batch.Retry) {
			s.t.Helper()
			before := s.batch(g)
			_, err := s.Retry(s.ctx, g.Tenant, g.ID, r, batch.Once{})
			var e *batch.Error
			if !errors.As(err, &e) || e.Word() != word {
				s.t.Fatalf("got %v, want a refusal %q", err, word)
			}
			s.same("batch", s.batch(g), before)
		}
		refused("wrong_state", batch.Retry{From: 1})
		s.complete()
		refused("wrong_round", batch.Retry{})
		refused("wrong_round", batch.Retry{From: 2})
		refused("unknown_item", batch.Retry{From: 1, IDs: []string{"nobody"}, Indexes: []int{3}})
		refused("unknown_item", batch.Retry{From: 1, Indexes: []int{5}})
		refused("unknown_item", batch.Retry{From: 1, Indexes: []int{-1}})
		refused("unknown_item", batch.Retry{From: 1, IDs: []string{"3"}}) // it has an id of its own
		refused("succeeded", batch.Retry{From: 1, Indexes: []int{3, 4}})
		_, err := s.Retry(s.ctx, tenant(9), g.ID, batch.Retry{From: 1}, batch.Once{})
		s.refused(err, batch.NotFound)
		for _, round := range []int{-1, 2} {
			_, err = s.Results(s.ctx, g.Tenant, g.ID, batch.ResultQuery{Round: round, Limit: 1})
			s.refused(err, batch.NotFound)
		}
		s.retry(g, batch.Retry{IDs: []string{"id 3"}})
		s.record(succeed(s.claimThose(1)[0]))
		refused("nothing_to_retry", batch.Retry{From: 2})
	}},
	{"of two retries of one round one wins", func(s *fixture) {
		for range 10 {
			g := s.create(sample{Items: 3})
			s.record(fail(s.claim()))
			var won atomic.Int32
			s.together(4, func(int) error {
				_, err := s.Retry(s.ctx, g.Tenant, g.ID, batch.Retry{From: 1}, batch.Once{})
				if err == nil {
					won.Add(1)
				}
				if batch.CodeOf(err) == batch.Conflict {
					return nil
				}
				return err
			})
			s.same("won", won.Load(), int32(1))
			g.again++
			s.record(succeed(s.claimThose(1)[0]))
			s.stands(g, batch.Completed, batch.Tally{Succeeded: 3})
		}
	}},
	{"items of a batch that came in parts are retried by index and by id", func(s *fixture) {
		for _, field := range []string{"", "/id"} {
			m := sample{Items: 20, PerBlock: 3, PerPart: 7, Options: batch.Options{IDField: field}}
			id := "id 13"
			if field == "" {
				id = "13"
			}
			g := s.create(m) // items 3, 8, 13 and 18 fail
			s.complete()
			s.retry(g, batch.Retry{IDs: []string{id}, Indexes: []int{8}})
			ws := s.claimThose(2)
			s.same("items", [][]int{indexes(ws[0]), indexes(ws[1])}, [][]int{{8}, {13}})
			s.record(succeed(ws[0]), succeed(ws[1]))
			s.stands(g, batch.Completed, batch.Tally{Succeeded: 18, Failed: 2})
			s.same("the others", s.results(g, batch.ResultQuery{Status: batch.ItemFailed}), g.expected(3, 18))
		}
	}},
	{"its key is bound with the round", func(s *fixture) {
		g := s.create(sample{Items: 1})
		s.record(fail(s.claim()))
		once := batch.Once{Key: "again", Content: batch.Content("retry", nil)}
		_, err := s.Retry(s.ctx, g.Tenant, g.ID, batch.Retry{From: 7}, once)
		s.refused(err, batch.Conflict)
		bound, release, err := s.Reserve(s.ctx, g.Tenant, once.Key)
		s.ok(err)
		s.same("bound by what was refused", bound == nil, true)
		release()
		_, err = s.Retry(s.ctx, g.Tenant, g.ID, batch.Retry{From: 1}, once)
		s.ok(err)
		g.again++
		bound, release, err = s.Reserve(s.ctx, g.Tenant, once.Key)
		s.ok(err)
		release()
		s.same("bound", []any{bound.Batch, bound.Content == once.Content}, []any{g.ID, true})
	}},
	{"there are at most 100 rounds", func(s *fixture) {
		g := s.create(sample{Items: 1})
		for n := 1; ; n++ {
			s.record(fail(s.claimThose(1)[0]))
			if n == batch.MaxRounds {
				break
			}
			s.retry(g, batch.Retry{})
		}
		_, err := s.Retry(s.ctx, g.Tenant, g.ID, batch.Retry{From: batch.MaxRounds}, batch.Once{})
		s.refused(err, batch.Conflict)
		s.same("round", s.results(g, batch.ResultQuery{Round: 57})[0].Round, 57)
	}},
}

// claimThose claims blocks until there are n: those of a later round come
// little by little.
func (s *fixture) claimThose(n int) (ws []batch.Work) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d blocks are due", n), func() bool {
		ws = append(ws, s.claimAll()...)
		return len(ws) >= n
	})
	s.same("blocks", len(ws), n)
	slices.SortFunc(ws, func(a, b batch.Work) int { return a.Items[0].Index - b.Items[0].Index })
	return ws
}

// succeed and fail report that every item of w did.
func succeed(w batch.Work) batch.Report { return all(w, batch.ItemSucceeded, []byte(`"better"`)) }

func fail(w batch.Work) batch.Report {
	return all(w, batch.ItemFailed, (&batch.Failure{Code: batch.CodeTimeout, Message: "too slow"}).JSON())
}

func all(w batch.Work, as batch.ItemStatus, payload []byte) batch.Report {
	r := finish(w)
	for i := range r.Results {
		r.Results[i].Status, r.Results[i].Payload = as, payload
	}
	return r
}

// terminalOf returns the terminal message of a round.
func (s *fixture) terminalOf(g *given, round int) batch.Message {
	s.t.Helper()
	for _, m := range s.messagesOf(g) {
		if m.Owed() && !m.Result() && m.Round == round {
			return m
		}
	}
	s.t.Fatalf("batch %v has no terminal message in round %d", g.ID, round)
	return batch.Message{}
}
