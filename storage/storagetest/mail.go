package storagetest

import (
	"bytes"
	"slices"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// ask asks for messages of every kind, with a bound for each lane.
func ask(most, perHost int) batch.MessageClaim {
	return batch.MessageClaim{Owner: node, Max: most, Retries: 1 << 20, Trials: 1 << 20, PerHost: perHost}
}

// anyHost asks for as many messages as their hosts allow.
func anyHost(most int) batch.MessageClaim { return ask(most, 1<<20) }

// take claims messages and holds them against the promise of a claim.
func (s *fixture) take(c batch.MessageClaim) []batch.Delivery {
	s.t.Helper()
	ds, err := s.ClaimMessages(s.ctx, c)
	s.ok(err)
	s.within(c, ds)
	s.begun(ds)
	return ds
}

// within fails unless deliveries are as many of each kind as were asked for.
func (s *fixture) within(c batch.MessageClaim, ds []batch.Delivery) {
	s.t.Helper()
	var retries, trials int
	for _, d := range ds {
		if d.Retry() && !d.Manual {
			retries++
		}
		if d.Trial {
			trials++
		}
	}
	if len(ds) > c.Max || retries > c.Retries || trials > c.Trials {
		s.t.Fatalf("claimed %d messages, %d of them tried before and %d to hosts not proven; asked for %+v", len(ds), retries, trials, c)
	}
}

// begun fails unless the attempts of the deliveries are recorded as begun.
func (s *fixture) begun(ds []batch.Delivery) {
	s.t.Helper()
	for _, d := range ds {
		m, _ := s.message(d.Message)
		if m.State != batch.MessageSending || m.Made != d.Made || d.Made < 1 || m.Started.IsZero() {
			s.t.Fatalf("message %v was claimed for attempt %d and stands %v at attempt %d, started %v", d.ID, d.Made, m.State, m.Made, m.Started)
		}
	}
}

// takeAll claims messages until there are n. A store that keeps times by the
// millisecond may give out what is due now within the next.
func (s *fixture) takeAll(n int, c batch.MessageClaim) []batch.Delivery {
	s.t.Helper()
	var ds []batch.Delivery
	s.eventually("the messages are due", func() bool {
		c.Max = n - len(ds)
		ds = append(ds, s.take(c)...)
		return len(ds) == n
	})
	return ds
}

func (s *fixture) takeOne() batch.Delivery {
	s.t.Helper()
	return s.takeAll(1, anyHost(1))[0]
}

// proven makes a host known to answer, however many messages it is sent at
// once. A batch of that tenant remains, its messages delivered.
func (s *fixture) proven(t batch.TenantID, url string) {
	s.t.Helper()
	m := called(16, 1)
	m.Tenant, m.Options.CallbackURL = t, url
	g := s.create(m)
	s.complete()
	s.deliver(g)
}

// quiet fails if there is any message to claim.
func (s *fixture) quiet() {
	s.t.Helper()
	s.none(anyHost(10))
}

// none fails if a claim finds anything, now or a moment later.
func (s *fixture) none(c batch.MessageClaim) {
	s.t.Helper()
	time.Sleep(2 * time.Millisecond)
	if ds := s.take(c); len(ds) > 0 {
		s.t.Fatalf("claimed %d messages, the first a %s; none should be due", len(ds), ds[0].Type)
	}
}

// attempt returns a full account of how the delivery's attempt went.
func attempt(d batch.Delivery, status int) batch.Attempt {
	return batch.Attempt{
		Number: d.Made, Started: now(), Took: batch.Took{DNS: 1, Connect: 9, TLS: 20, FirstByte: 31, Total: 33},
		RemoteAddr: "203.0.113.9:443", RequestHeaders: map[string]string{"webhook-id": d.ID.String()},
		Response: &batch.Response{Status: status, Headers: map[string]string{"server": "x"}, Body: "a\u2028b"},
		Error:    &batch.AttemptError{Category: "status", Detail: "the receiver said so"},
	}
}

// ended is the outcome of an attempt after which the message stands as to. A
// host that took it is one that answers.
func ended(d batch.Delivery, to batch.MessageState) batch.AttemptOutcome {
	o := batch.AttemptOutcome{Delivery: d, Attempt: attempt(d, 299), State: to}
	if to == batch.MessageDelivered {
		o.Host = batch.HostUp
	}
	return o
}

// again is the outcome of an attempt that is followed by another at due.
func again(d batch.Delivery, due time.Time) batch.AttemptOutcome {
	return batch.AttemptOutcome{Delivery: d, Attempt: attempt(d, 503), State: batch.MessageWaiting, Due: due}
}

func (s *fixture) attempted(os ...batch.AttemptOutcome) {
	s.t.Helper()
	s.ok(s.Attempted(s.ctx, os))
}

// deliver claims and acknowledges messages until the batch has none waiting.
func (s *fixture) deliver(g *given) {
	s.t.Helper()
	s.eventually("the messages are settled", func() bool {
		var os []batch.AttemptOutcome
		for _, d := range s.take(anyHost(100)) {
			os = append(os, ended(d, batch.MessageDelivered))
		}
		s.attempted(os...)
		return s.batch(g).Messages.Waiting == 0
	})
}

// message returns m as it is now, with its attempts.
func (s *fixture) message(m batch.Message) (batch.Message, []batch.Attempt) {
	s.t.Helper()
	m, as, err := s.Message(s.ctx, m.Tenant, m.ID)
	s.ok(err)
	return m, as
}

// messages lists messages to the end, page by page.
func (s *fixture) messages(q batch.MessageQuery) []batch.Message {
	s.t.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	var all []batch.Message
	for {
		list, next, err := s.Messages(s.ctx, q)
		s.ok(err)
		if len(list) > q.Limit {
			s.t.Fatalf("a page of at most %d messages has %d", q.Limit, len(list))
		}
		all = append(all, list...)
		if next == nil {
			return all
		}
		if q.Before != nil && *q.Before == *next {
			s.t.Fatalf("the list of messages stands still at %v", *next)
		}
		q.Before = next
	}
}

func (s *fixture) messagesOf(g *given) []batch.Message {
	s.t.Helper()
	return s.messages(batch.MessageQuery{Tenant: g.Tenant, Batch: &g.ID})
}

// resultsOf returns the messages that carry results of g.
func (s *fixture) resultsOf(g *given) []batch.Message {
	s.t.Helper()
	return slices.DeleteFunc(s.messagesOf(g), func(m batch.Message) bool { return !m.Result() })
}

// terminal returns the batch's one terminal message.
func (s *fixture) terminal(g *given) batch.Message {
	s.t.Helper()
	for _, m := range s.messagesOf(g) {
		if m.Owed() && !m.Result() {
			return m
		}
	}
	s.t.Fatalf("batch %v has no terminal message", g.ID)
	return batch.Message{}
}

// body returns the body of a message, which is the same whenever it is asked.
func (s *fixture) body(m batch.Message) []byte {
	s.t.Helper()
	b, err := s.Body(s.ctx, m)
	s.ok(err)
	first := bytes.Clone(b)
	clear(b)
	b, err = s.Body(s.ctx, m)
	s.ok(err)
	if !bytes.Equal(first, b) {
		s.t.Fatalf("a second read of the body of %v differs:\n%.400s\n%.400s", m.ID, first, b)
	}
	return b
}
