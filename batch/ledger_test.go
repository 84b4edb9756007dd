package batch

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestLedger(t *testing.T) {
	part := func() *Message { return &Message{Type: TypeResults, Round: 1, State: MessageWaiting} }
	settle := func(p *Progress, m *Message, as MessageState) bool {
		m.End(as, "", made)
		return p.Deliver(m)
	}

	t.Run("the terminal message is released by the last result message", func(t *testing.T) {
		p := Progress{Status: Running, Round: 1}
		a, b, end := part(), part(), &Message{ID: MessageID{1}, Type: TypeCompleted, Round: 1}
		p.Post(*a)
		p.Post(*b)
		if settle(&p, a, MessageDelivered) {
			t.Error("one that is not there yet was released")
		}
		p.Post(*end)
		if !settle(&p, b, MessageExhausted) {
			t.Error("the last was settled and it was not released")
		}
		if settle(&p, end, MessageDelivered) {
			t.Error("it was released by itself")
		}
		if want := (Ledger{Round: 2, Delivered: 2, Exhausted: 1}); p.Messages != want || p.Terminal != end.ID {
			t.Errorf("got %+v, want %+v", p.Messages, want)
		}
	})
	t.Run("a redelivered message is owed to nobody twice", func(t *testing.T) {
		p := Progress{Status: Running, Round: 1}
		a, b := part(), part()
		p.Post(*a)
		p.Post(*b)
		p.Post(Message{ID: MessageID{1}, Type: TypeCompleted, Round: 1})
		settle(&p, a, MessageExhausted)
		a.Redeliver(made, terms, true)
		p.Reopen(*a, MessageExhausted)
		if want := (Ledger{Round: 2, Owed: 1, Waiting: 3}); p.Messages != want {
			t.Errorf("reopened: got %+v, want %+v", p.Messages, want)
		}
		if settle(&p, a, MessageDelivered) {
			t.Error("settled twice, it released the terminal message for another")
		}
		if !settle(&p, b, MessageBlocked) {
			t.Error("the last was settled and the terminal message not released")
		}
		if want := (Ledger{Round: 2, Waiting: 1, Delivered: 1, Other: 1}); p.Messages != want {
			t.Errorf("got %+v, want %+v", p.Messages, want)
		}
	})
	t.Run("a message that waited already is reopened without effect", func(t *testing.T) {
		p := Progress{Messages: Ledger{Round: 1, Owed: 1, Waiting: 1}}
		want := p.Messages
		for _, from := range []MessageState{MessageWaiting, MessageSending} {
			if p.Reopen(*part(), from); p.Messages != want {
				t.Errorf("from %s: got %+v", from, p.Messages)
			}
		}
	})
	t.Run("a message of an earlier round releases nothing", func(t *testing.T) {
		p := Progress{Round: 2, Terminal: MessageID{1}, Messages: Ledger{Round: 1, Owed: 1, Waiting: 3}}
		if settle(&p, part(), MessageDelivered) {
			t.Error("it did")
		}
		if want := (Ledger{Round: 1, Owed: 1, Waiting: 2, Delivered: 1}); p.Messages != want {
			t.Errorf("got %+v, want %+v", p.Messages, want)
		}
	})
	t.Run("word of the progress is counted nowhere, and remembered", func(t *testing.T) {
		p := Progress{Round: 1, Terminal: MessageID{1}}
		m := &Message{ID: MessageID{2}, Type: TypeProgress, Round: 1, State: MessageWaiting}
		p.Post(*m)
		if settle(&p, m, MessageExhausted) {
			t.Error("it released the terminal message")
		}
		p.Reopen(*m, MessageExhausted)
		if p.Messages != (Ledger{}) || p.Told.Message != m.ID || p.Terminal != (MessageID{1}) {
			t.Errorf("got %+v", p)
		}
	})
	t.Run("what is to be pulled is owed to nobody", func(t *testing.T) {
		p := Progress{Round: 1}
		p.Post(Message{Type: TypeResults, Round: 1, State: MessagePulled, Settled: true})
		p.Post(Message{ID: MessageID{1}, Type: TypeCanceled, Round: 1, State: MessagePulled, Settled: true})
		if want := (Ledger{Round: 1, Other: 2}); p.Messages != want || p.Terminal != (MessageID{1}) {
			t.Errorf("got %+v", p)
		}
	})
}

// books is a batch's messages kept one by one, beside the batch that counts
// them.
type books struct {
	spec     Spec
	p        Progress
	messages []*Message
	settled  map[*Message]bool // once
	atEnd    int               // result messages owed when the terminal message was made
	released int               // in this round
}

func (b *books) over() bool { return b.p.Terminal != MessageID{} }

// post makes a message, as long as the round is not over.
func (b *books) post(typ string) {
	if b.over() {
		return
	}
	m := newMessage(b.spec, b.p, typ, terms, made)
	b.messages = append(b.messages, &m)
	if typ == TypeCompleted {
		b.atEnd = b.count().Owed
	}
	b.p.Post(m)
	b.settled[&m] = m.State.Settled()
}

// change does what a store does around a change of a message.
func (b *books) change(m *Message, f func()) {
	was := m.State
	f()
	switch {
	case m.State.Settled() && !was.Settled():
		if b.p.Deliver(m) {
			b.released++
		}
		b.settled[m] = true
	case was.Settled() && !m.State.Settled():
		b.p.Reopen(*m, was)
	}
}

// count is the ledger by counting.
func (b *books) count() (l Ledger) {
	for _, m := range b.messages {
		if m.Type == TypeProgress {
			continue
		}
		switch {
		case !m.State.Settled():
			l.Waiting++
		case m.State == MessageDelivered:
			l.Delivered++
		case m.State == MessageExhausted:
			l.Exhausted++
		default:
			l.Other++
		}
		if m.Type == TypeResults && m.Round == b.p.Round {
			l.Round++
			if !b.settled[m] {
				l.Owed++
			}
		}
	}
	return l
}

// check compares the ledger with the messages, and how often the terminal
// message was released with how often it was held.
func (b *books) check(t *rapid.T) {
	if diff := cmp.Diff(b.count(), b.p.Messages); diff != "" {
		t.Fatalf("ledger (-counted +kept):\n%s", diff)
	}
	want := 0
	if b.over() && b.atEnd > 0 && b.p.Messages.Owed == 0 {
		want = 1
	}
	if b.released != want {
		t.Fatalf("released %d times, not %d, with %d owed at the end and %d now", b.released, want, b.atEnd, b.p.Messages.Owed)
	}
}

// one returns a step that changes a message in one of the states, if there is
// one.
func (b *books) one(change func(*rapid.T, *Message), states ...MessageState) func(*rapid.T) {
	return func(t *rapid.T) {
		var fit []*Message
		for _, m := range b.messages {
			if len(states) == 0 || slices.Contains(states, m.State) {
				fit = append(fit, m)
			}
		}
		if len(fit) > 0 {
			m := rapid.SampledFrom(fit).Draw(t, "message")
			b.change(m, func() { change(t, m) })
		}
	}
}

// Whatever happens to the messages of a batch, its ledger is what counting
// them gives, and the terminal message is released once.
func TestLedgerIsWhatCountingGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &books{spec: spec, p: Progress{Status: Running, Round: 1}, settled: map[*Message]bool{}}
		b.spec.Options.CallbackMode = rapid.SampledFrom([]Mode{ModeResults, ModeResults, ModePull}).Draw(t, "mode")
		t.Repeat(map[string]func(*rapid.T){
			"":              b.check,
			"post results":  func(*rapid.T) { b.post(TypeResults) },
			"tell":          func(*rapid.T) { b.post(TypeProgress) },
			"end the round": func(*rapid.T) { b.post(TypeCompleted) },
			"open the next": func(*rapid.T) {
				if b.over() {
					b.p.Round++
					b.p.Messages.Round, b.p.Messages.Owed, b.p.Terminal = 0, 0, MessageID{}
					b.atEnd, b.released = 0, 0
				}
			},
			"begin an attempt": b.one(func(_ *rapid.T, m *Message) { m.Begin(made) }, MessageWaiting),
			"end an attempt": b.one(func(t *rapid.T, m *Message) {
				o := AttemptOutcome{State: rapid.SampledFrom(outcomes).Draw(t, "outcome"), Due: made}
				o.Refund = o.State == MessageWaiting && rapid.Bool().Draw(t, "refund")
				m.Close(o, made, terms)
			}, MessageSending),
			"spend the time": b.one(func(_ *rapid.T, m *Message) { m.End(MessageExhausted, ReasonWindow, made) }, MessageWaiting),
			"redeliver":      b.one(func(_ *rapid.T, m *Message) { m.Redeliver(made, terms, true) }),
		})

		b.post(TypeCompleted)
		for _, m := range b.messages {
			for !m.State.Settled() { // once more if it was asked for while being sent
				b.change(m, func() {
					if m.State == MessageWaiting {
						m.Begin(made)
					}
					m.Close(AttemptOutcome{State: MessageDelivered}, made, terms)
				})
				b.check(t)
			}
		}
		if b.p.Messages.Owed != 0 || b.p.Messages.Waiting != 0 {
			t.Fatalf("all is settled, and the ledger says %+v", b.p.Messages)
		}
	})
}
