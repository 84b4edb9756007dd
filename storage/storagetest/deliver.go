package storagetest

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// delivering: messages are made with what they tell of, go out one attempt
// at a time, and stay the same bytes.
var delivering = cases{
	{"a batch of one range ends with one message that holds its results", func(s *fixture) {
		g := s.create(called(10, 10))
		rec := s.complete()
		s.same("ended", len(rec.Ended), 1)
		ms := s.messagesOf(g)
		s.same("messages", len(ms), 1)
		m := ms[0]
		s.same("type", m.Type, batch.TypeCompleted)
		s.same("state", m.State, batch.MessageWaiting)
		s.same("host", m.Host, "shop.example:443")
		s.same("batch", []any{m.Batch, m.Tenant, m.Round, m.Made}, []any{g.ID, g.Tenant, 1, 0})
		s.same("results within", bytes.Count(s.body(m), []byte(`"finished_at"`)), 11)
		d := s.takeOne()
		s.same("message", d.ID, m.ID)
		s.same("URL", d.URL, hook)
	}},
	{"a batch without a callback has no messages", func(s *fixture) {
		g := s.create(sample{Items: 4, PerBlock: 2})
		s.complete()
		s.same("messages", len(s.messagesOf(g)), 0)
		s.same("callback", s.batch(g).CallbackStatus(), "none")
		_, some, err := s.NextMessage(s.ctx)
		s.ok(err)
		s.same("a message is due", some, false)
	}},
	{"a summary is one message without results", func(s *fixture) {
		m := called(6, 2)
		m.Options.CallbackMode = batch.ModeSummary
		g := s.create(m)
		s.complete()
		s.same("messages", len(s.messagesOf(g)), 1)
		s.same("result messages", s.batch(g).Messages, batch.Ledger{Waiting: 1})
		s.same("message", s.takeOne().Type, batch.TypeCompleted)
	}},
	{"ranges are sent while the batch runs", func(s *fixture) {
		g := s.create(called(6, 2))
		ws := s.claimAll()
		s.record(partly(ws[1], 2))
		s.same("messages of an unfinished range", len(s.messagesOf(g)), 0)
		s.record(released(partly(ws[1], 3)))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 1, Owed: 1, Waiting: 1})
		d := s.takeOne()
		s.same("type", d.Type, batch.TypeResults)
		s.attempted(ended(d, batch.MessageDelivered))
		s.stands(g, batch.Running, g.tally(2, 3))
		s.record(finish(ws[0]), finish(ws[2]))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 3, Owed: 2, Waiting: 3, Delivered: 1})
	}},
	{"the terminal message waits for the others, however they are settled", func(s *fixture) {
		g := s.create(called(8, 2))
		s.complete()
		end := s.terminal(g)
		if wait := end.Due.Sub(s.batch(g).Finished); wait < hold-time.Millisecond || wait > hold+time.Millisecond {
			s.t.Fatalf("the terminal message is due %v after the end, not %v", wait, hold)
		}
		for _, as := range []batch.MessageState{batch.MessageDelivered, batch.MessageExhausted, batch.MessageBlocked, batch.MessageCanceled} {
			s.same("due", s.terminal(g).Due.UTC(), end.Due.UTC())
			d := s.takeOne()
			s.same("type", d.Type, batch.TypeResults)
			s.attempted(ended(d, as))
		}
		if due := s.terminal(g).Due; due.After(time.Now().Add(time.Millisecond)) {
			s.t.Fatalf("the terminal message is still due %v", due)
		}
		d := s.takeOne()
		s.same("message", d.ID, end.ID)
		s.attempted(ended(d, batch.MessageDelivered))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 4, Delivered: 2, Exhausted: 1, Other: 2})
	}},
	{"the terminal message does not wait for results that were settled before the end", func(s *fixture) {
		g := s.create(called(4, 2))
		ws := s.claimAll()
		s.record(finish(ws[0]))
		s.attempted(ended(s.takeOne(), batch.MessageDelivered))
		s.record(finish(ws[1]))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 2, Owed: 1, Waiting: 2, Delivered: 1})
		s.deliver(g)
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 2, Delivered: 3})
	}},
	{"the terminal message goes when its hold is over, settled or not", func(s *fixture) {
		s.terms.Hold = 50 * time.Millisecond
		s.restart()
		g := s.create(called(4, 2))
		s.complete()
		s.takeAll(2, anyHost(2))
		d := s.takeOne()
		s.same("message", d.ID, s.terminal(g).ID)
		if time.Now().Before(s.batch(g).Finished.Add(s.terms.Hold)) {
			s.t.Fatalf("claimed before the end and %v", s.terms.Hold)
		}
	}},
	{"a range of many results travels in parts, a result of its own size without its output", func(s *fixture) {
		m := called(22, 11)
		m.Options.CallbackPageItems = 4
		m.Options.CallbackPageBytes = 2048
		g := s.create(m)
		ws := s.claimAll()
		r := finish(ws[0])
		r.Results[5].Payload = []byte(`"` + strings.Repeat("x", 5000) + `"`)
		s.record(r)
		parts := len(s.messagesOf(g))
		if parts != 3 {
			s.t.Fatalf("%d messages for a range with one oversized result", parts)
		}
		for _, m := range s.messagesOf(g) {
			if n := len(s.body(m)); n > 2048 {
				s.t.Fatalf("a body has %d bytes", n)
			}
		}
		s.record(finish(ws[1]))
	}},
	{"the only range of a batch goes before the end if it does not fit", func(s *fixture) {
		m := called(10, 10)
		m.Options.CallbackPageItems = 4
		g := s.create(m)
		s.complete()
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 3, Owed: 3, Waiting: 4})
		s.deliver(g)
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 3, Delivered: 4})
	}},
	{"Record offers what is due at once, already claimed", func(s *fixture) {
		g := s.create(called(1, 1))
		rec, err := s.Record(s.ctx, []batch.Report{finish(s.claim())}, anyHost(1))
		s.ok(err)
		s.same("deliveries", len(rec.Deliveries), 1)
		s.begun(rec.Deliveries)
		d := rec.Deliveries[0]
		s.same("offer", []any{d.ID, d.URL, d.Made}, []any{s.terminal(g).ID, hook, 1})
		s.quiet()
		s.attempted(ended(d, batch.MessageDelivered))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Delivered: 1})
	}},
	{"Record offers no more than Max and nothing that is held back", func(s *fixture) {
		g := s.create(called(6, 2))
		ws := s.claimAll()
		rec, err := s.Record(s.ctx, finishAll(ws), anyHost(2))
		s.ok(err)
		s.begun(rec.Deliveries)
		if n := len(rec.Deliveries); n > 2 {
			s.t.Fatalf("offered %d, asked for 2", n)
		}
		for _, d := range append(rec.Deliveries, s.takeAll(3-len(rec.Deliveries), anyHost(3))...) {
			s.same("type", d.Type, batch.TypeResults)
		}
		s.quiet()
		s.same("the end", s.terminal(g).State, batch.MessageWaiting)
	}},
	{"one host has no more than PerHost in flight, offers included", func(s *fixture) {
		s.create(called(6, 1))
		c := ask(10, 2)
		rec, err := s.Record(s.ctx, finishAll(s.claimAll()), c)
		s.ok(err)
		ds := append(rec.Deliveries, s.takeAll(2-len(rec.Deliveries), c)...)
		full := func() { s.same("more than PerHost", len(s.take(c)), 0) }
		full()
		s.attempted(ended(ds[0], batch.MessageDelivered))
		s.takeAll(1, c)
		full()
		s.attempted(again(ds[1], now().Add(time.Hour)))
		s.takeAll(1, c)
		full()
		c.PerHost = 3
		s.takeAll(1, c)
		full()
	}},
	{"tenants do not share the lane of a host, and a port is another lane", func(s *fixture) {
		for n, url := range []string{"https://a.example/1", "https://a.example/2", "https://a.example:8443/", "https://b.example/"} {
			for t := range byte(2) {
				m := called(1, 1)
				m.Tenant, m.Options.CallbackURL = tenant(t), fmt.Sprint(url, "?n=", n)
				s.create(m)
			}
		}
		s.complete()
		one := ask(10, 1)
		s.takeAll(6, one)
		s.same("a second of a lane", len(s.take(one)), 0)
	}},
	{"a host with hundreds of messages does not hold up another's one", func(s *fixture) {
		s.proven(batch.TenantID{}, hook)
		s.create(called(300, 1))
		s.complete()
		s.takeOne()
		m := called(1, 1)
		m.Options.CallbackURL = "https://small.example/"
		small := s.create(m)
		s.complete()
		for range 16 {
			if s.takeOne().Batch == small.ID {
				return
			}
		}
		s.t.Fatalf("none of 16 messages was the one of the other host")
	}},
	{"a message is in one pair of hands", func(s *fixture) {
		s.proven(batch.TenantID{}, hook)
		g := s.create(called(100, 1))
		s.complete()
		took := make([][]batch.Delivery, 8)
		time.Sleep(2 * time.Millisecond) // all of them are due
		s.together(8, func(n int) error {
			for {
				ds, err := s.ClaimMessages(s.ctx, ask(3, 1000))
				if err != nil || len(ds) == 0 {
					return err
				}
				took[n] = append(took[n], ds...)
			}
		})
		seen := map[batch.MessageID]bool{}
		for _, ds := range took {
			for _, d := range ds {
				if seen[d.ID] || d.Batch != g.ID {
					s.t.Fatalf("message %v was claimed twice", d.ID)
				}
				seen[d.ID] = true
			}
		}
		s.same("messages", len(seen), 100)
	}},
	{"a message that is to be tried again waits until then", func(s *fixture) {
		g := s.create(called(1, 1))
		s.complete()
		d := s.takeOne()
		hour := now().Add(time.Hour)
		s.attempted(again(d, hour))
		s.quiet()
		at, some, err := s.NextMessage(s.ctx)
		s.ok(err)
		s.same("next message", []any{at.UTC(), some}, []any{hour, true})
		m := s.terminal(g)
		s.same("message", []any{m.State, m.Due.UTC(), m.Made}, []any{batch.MessageWaiting, hour, 1})
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Waiting: 1})
	}},
	{"attempts are kept in order, and the body stays the same", func(s *fixture) {
		s.create(called(3, 3))
		s.complete()
		var want []batch.Attempt
		var body []byte
		for n := 1; n <= 3; n++ {
			d := s.takeOne()
			s.same("attempt", d.Made, n)
			if b := s.body(d.Message); body == nil {
				body = b
			} else if !bytes.Equal(b, body) {
				s.t.Fatalf("attempt %d has another body", n)
			}
			o := again(d, now().Add(30*time.Millisecond))
			if n == 3 {
				o.State, o.Reason, o.Due = batch.MessageExhausted, "the receiver is gone", time.Time{}
			}
			s.attempted(o)
			want = append(want, o.Attempt)
			m, got := s.message(d.Message)
			s.same("attempts", got, want)
			s.same("reason", m.Reason, o.Reason)
		}
		s.quiet()
		_, some, err := s.NextMessage(s.ctx)
		s.ok(err)
		s.same("a message is due", some, false)
	}},
	{"a message settled in each way stands so in list and ledger", func(s *fixture) {
		g := s.create(called(5, 1))
		s.complete()
		as := []batch.MessageState{batch.MessageDelivered, batch.MessageExhausted, batch.MessageBlocked, batch.MessageCanceled}
		var os []batch.AttemptOutcome
		for i, d := range s.takeAll(4, anyHost(4)) {
			os = append(os, ended(d, as[i]))
		}
		s.attempted(os...)
		for i, o := range os {
			m, _ := s.message(o.Delivery.Message)
			s.same("state", m.State, as[i])
			found := s.messages(batch.MessageQuery{Tenant: g.Tenant, State: as[i], Limit: 2})
			s.same("listed by state", ids(found), []batch.MessageID{m.ID})
		}
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 5, Owed: 1, Waiting: 2, Delivered: 1, Exhausted: 1, Other: 2})
	}},
	{"the outcome of an attempt that is over changes nothing, and the rest of the call is kept", func(s *fixture) {
		g := s.create(called(2, 1))
		s.complete()
		ds := s.takeAll(2, anyHost(2))
		first := ds[0]
		s.attempted(again(first, now()))
		second := s.takeOne()
		s.same("message", second.ID, first.ID)
		s.attempted(ended(first, batch.MessageExhausted), ended(ds[1], batch.MessageDelivered))
		m, as := s.message(first.Message)
		s.same("message", []any{m.State, m.Made}, []any{batch.MessageSending, 2})
		s.same("first attempt", as[0].Response.Status, 503)
		s.attempted(ended(second, batch.MessageDelivered))
		s.attempted(ended(second, batch.MessageExhausted), again(first, now()), again(second, now()))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Round: 2, Waiting: 1, Delivered: 2})
		forged := s.takeOne()
		forged.Token++
		s.attempted(ended(forged, batch.MessageExhausted))
		s.same("the end", s.terminal(g).State, batch.MessageSending)
	}},
	{"an attempt that our own stop cut short never was", func(s *fixture) {
		g := s.create(called(1, 1))
		s.complete()
		first := s.takeOne()
		s.attempted(again(first, now()))
		o := again(s.takeOne(), now())
		o.Refund = true
		s.attempted(o)
		m, as := s.message(first.Message)
		s.same("attempts begun", m.Made, 1)
		s.same("attempts kept", len(as), 1)
		d := s.takeOne()
		s.same("next attempt", d.Made, 2)
		s.attempted(ended(o.Delivery, batch.MessageExhausted))
		s.attempted(ended(d, batch.MessageDelivered))
		s.same("ledger", s.batch(g).Messages, batch.Ledger{Delivered: 1})
	}},
	{"the body of a range stays the same while its neighbours come in and the batch ends", func(s *fixture) {
		g := s.create(called(90, 30))
		ws := s.claimAll()
		s.inPieces(ws[1], 12, 2)
		m := s.messagesOf(g)[0]
		before := s.body(m)
		s.inPieces(ws[0], 12, 1)
		s.inPieces(ws[2], 9, 2)
		s.deliver(g)
		if after := s.body(m); !bytes.Equal(after, before) {
			s.t.Fatalf("the body was\n%s\nand is\n%s", before, after)
		}
	}},
	{"who waits for MessagesChanged is woken by a new message", func(s *fixture) {
		s.create(called(1, 1))
		select {
		case <-s.MessagesChanged():
		default:
		}
		s.complete()
		select {
		case <-s.MessagesChanged():
		case <-time.After(patience):
			s.t.Fatalf("no hint within %v", patience)
		}
	}},
}

func ids(ms []batch.Message) []batch.MessageID {
	var is []batch.MessageID
	for _, m := range ms {
		is = append(is, m.ID)
	}
	return is
}
