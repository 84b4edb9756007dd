package storagetest

import (
	"encoding/json"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// telling: word of the progress comes now and then, is nothing that is owed,
// and ends with the batch.
var telling = cases{
	{"progress is told at a tenth, at once", func(s *fixture) {
		g, w := s.told(batch.ModeResults)
		s.record(partly(w, 0))
		s.same("messages at a twentieth", len(s.messagesOf(g)), 0)
		s.record(partly(w, 1))
		d := s.takeOne()
		s.same("type", d.Type, batch.TypeProgress)
		var body struct {
			Type string
			Data struct {
				ID      batch.ID `json:"batch_id"`
				Status  batch.Status
				Counts  batch.Counts
				Percent int
			}
		}
		s.ok(json.Unmarshal(s.body(d.Message), &body))
		s.same("body", []any{body.Type, body.Data.ID, body.Data.Status, body.Data.Percent}, []any{batch.TypeProgress, g.ID, batch.Running, 10})
		s.same("counts", body.Data.Counts, batch.Counts{Total: 20, Pending: 18, Succeeded: 2})
		s.attempted(ended(d, batch.MessageDelivered))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{})
	}},
	{"tenths within ten seconds are told together", func(s *fixture) {
		g, w := s.told(batch.ModeSummary)
		for i := range 8 {
			s.record(partly(w, 2*i, 2*i+1))
			time.Sleep(3 * time.Second)
		}
		var at []time.Time
		for _, m := range s.messagesOf(g) {
			at = append(at, m.Created)
		}
		s.same("messages", len(at), 2)
		if apart := at[0].Sub(at[1]); apart < 10*time.Second || apart > 13*time.Second {
			s.t.Fatalf("they are %v apart", apart)
		}
		s.record(finish(after(16, w)))
		s.same("messages with the end", len(s.messagesOf(g)), 3)
	}},
	{"the next replaces one that waits, and the end the last", func(s *fixture) {
		g, w := s.told(batch.ModeResults)
		for i := range 3 {
			s.record(partly(w, 2*i, 2*i+1))
			time.Sleep(11 * time.Second)
		}
		s.same("states", states(s.messagesOf(g)), []batch.MessageState{batch.MessageWaiting, batch.MessageCanceled, batch.MessageCanceled})
		d := s.takeOne()
		s.record(partly(w, 6, 7))
		s.attempted(ended(d, batch.MessageDelivered))
		s.record(finish(after(8, w)))
		as := map[batch.MessageState]int{}
		for _, m := range s.messagesOf(g) {
			as[m.State]++
			s.same("replaced", m.Reason == batch.ReasonReplaced, m.State == batch.MessageCanceled)
		}
		s.same("states", as, map[batch.MessageState]int{batch.MessageWaiting: 1, batch.MessageDelivered: 1, batch.MessageCanceled: 3})
		s.same("the end is not held for it", s.takeOne().Type, batch.TypeCompleted)
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Waiting: 1})
		s.quiet()
	}},
	{"it is tried once", func(s *fixture) {
		g, w := s.told(batch.ModeResults)
		s.record(partly(w, 0, 1))
		o := again(s.takeOne(), now())
		o.Refund = true
		s.attempted(o)
		s.attempted(again(s.takeOne(), now()))
		m := s.messagesOf(g)[0]
		s.same("message", []any{m.State, m.Reason, m.Made}, []any{batch.MessageExhausted, batch.ReasonOnce, 1})
		s.quiet()
		s.record(finish(after(2, w)))
		s.deliver(g)
	}},
	{"one that a restart cut short is not tried again", func(s *fixture) {
		for _, down := range s.endings() {
			g, w := s.told(batch.ModeResults)
			s.record(partly(w, 0, 1))
			s.takeOne()
			s.down = down
			s.restart()
			s.quiet()
			m := s.messagesOf(g)[0]
			s.same("message", []any{m.State, m.Reason}, []any{batch.MessageExhausted, batch.ReasonOnce})
			s.complete()
			s.deliver(g)
		}
	}},
	{"the time of the last outlives the store", func(s *fixture) {
		for _, down := range s.endings() {
			g, w := s.told(batch.ModeResults)
			s.record(released(partly(w, 0, 1)))
			s.down = down
			s.restart()
			w = s.claim()
			s.record(partly(w, 2, 3))
			s.same("messages within ten seconds", len(s.messagesOf(g)), 1)
			time.Sleep(10 * time.Second)
			s.record(partly(w, 4))
			s.same("states", states(s.messagesOf(g)), []batch.MessageState{batch.MessageWaiting, batch.MessageCanceled})
			s.cancel(g)
			s.record(letGo(w))
			s.ends(g, batch.Canceled, batch.Tally{Succeeded: 4, Failed: 1, Canceled: 15})
			for _, m := range s.messagesOf(g) {
				s.same("waits", m.State == batch.MessageWaiting, m.Owed())
			}
			s.deliver(g)
		}
	}},
	{"it can be sent again, and is tried once then too", func(s *fixture) {
		g, w := s.told(batch.ModeResults)
		s.record(partly(w, 0, 1))
		s.attempted(ended(s.takeOne(), batch.MessageDelivered))
		id := s.messagesOf(g)[0].ID
		_, err := s.Redeliver(s.ctx, g.Tenant, id, batch.Once{})
		s.ok(err)
		d := s.takeOne()
		s.same("attempt", []any{d.ID, d.Made}, []any{id, 2})
		s.attempted(again(d, now()))
		s.same("state", s.messagesOf(g)[0].State, batch.MessageExhausted)
		s.quiet()
	}},
	{"an order to send many again leaves it out", func(s *fixture) {
		g, w := s.told(batch.ModeResults)
		s.record(partly(w, 0, 1))
		s.attempted(ended(s.takeOne(), batch.MessageDelivered))
		wanted, err := s.RedeliverAll(s.ctx, batch.Redelivery{Tenant: g.Tenant, State: batch.MessageDelivered}, batch.Once{})
		s.ok(err)
		s.same("wanted", wanted, 0)
	}},
	{"a batch that nobody is called for tells nothing, one to be pulled from does", func(s *fixture) {
		m := sample{Items: 10, Options: batch.Options{CallbackEvents: []string{batch.TypeProgress}}}
		silent := s.create(m)
		m.Options.CallbackMode = batch.ModePull
		pulled := s.create(m)
		for _, w := range s.claimAll() {
			s.record(partly(w, 0, 1))
		}
		s.same("messages", len(s.messagesOf(silent)), 0)
		s.same("states", states(s.messagesOf(pulled)), []batch.MessageState{batch.MessagePulled})
		s.same("ledger", s.batch(pulled).Messages, batch.Ledger{})
		s.quiet()
	}},
}

// told makes a batch of 20 items that wants word of its progress, and claims
// it.
func (s *fixture) told(mode batch.Mode) (*given, batch.Work) {
	s.t.Helper()
	m := called(20, 20)
	m.Options.CallbackMode, m.Options.CallbackEvents = mode, []string{batch.TypeProgress}
	return s.create(m), s.claim()
}

// after leaves the first n items of work to others.
func after(n int, w batch.Work) batch.Work {
	w.Items = w.Items[n:]
	return w
}

func states(ms []batch.Message) []batch.MessageState {
	var as []batch.MessageState
	for _, m := range ms {
		as = append(as, m.State)
	}
	return as
}
