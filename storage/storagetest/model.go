package storagetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/callbatch/callbatch/batch"
)

// checkModel drives a store with random commands and holds it, after each,
// against a model that keeps the same promises in memory in the simplest
// way. In it nothing comes due by itself: what waits waits for an hour.
func checkModel(t *testing.T, open Opener) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{fixture: newFixture(rt, open(t))}
		m.patience = 3 * time.Second // a failure is tried again and again to make it small
		defer m.shut()
		rt.Repeat(map[string]func(*rapid.T){
			"create": m.create, "discard": m.discard, "claim": m.claim, "record": m.record, "cancel": m.cancel,
			"claim messages": m.take, "attempted": m.attempted, "restart": m.restart, "": m.compare,
		})
		m.inspect()
		m.audit()
	})
}

// model is what the store should hold.
type model struct {
	*fixture
	batches []*modelBatch
	held    []batch.Work     // in somebody's hands
	dropped []batch.Work     // that were
	flying  []batch.Delivery // in flight
	landed  []batch.Delivery // that were
}

type modelBatch struct {
	*given
	status   batch.Status
	claimed  bool // and so perhaps running, though nothing was reported yet
	items    []modelItem
	messages map[batch.MessageID]*modelMessage
}

type modelItem struct {
	result   *batch.Result
	attempts int
	later    bool // not due within the test
}

type modelMessage struct {
	result   bool
	state    batch.MessageState
	made     int
	attempts int
	later    bool
}

func (m *model) find(id batch.ID) *modelBatch {
	i := slices.IndexFunc(m.batches, func(b *modelBatch) bool { return b.ID == id })
	if i < 0 {
		m.t.Fatalf("batch %v is not of this test", id)
	}
	return m.batches[i]
}

// done counts the items that have a result, or had none at the end.
func (b *modelBatch) done() (t batch.Tally) {
	for _, it := range b.items {
		switch {
		case it.result != nil:
			t.Add(it.result.Status, 1)
		case b.status.Terminal():
			t.Canceled++
		}
	}
	return t
}

// span returns the items of a block, and with it how many have a result.
func (b *modelBatch) span(number int) (items []modelItem, recorded int) {
	blk := b.block(number)
	items = b.items[blk.First : blk.First+len(blk.Items)]
	for _, it := range items {
		if it.result != nil {
			recorded++
		}
	}
	return items, recorded
}

// tried returns how many items without a result have been attempted.
func tried(items []modelItem) (n int) {
	for _, it := range items {
		if it.result == nil && it.attempts > 0 {
			n++
		}
	}
	return n
}

// due returns which items of a block may be claimed.
func (b *modelBatch) due(number int) (is []int) {
	items, _ := b.span(number)
	for i, it := range items {
		if it.result == nil && !it.later {
			is = append(is, b.first[number]+i)
		}
	}
	return is
}

// ranges returns how many result messages there are at least and at most:
// while a batch is being canceled its unfinished blocks may be told of now or
// at the end.
func (b *modelBatch) ranges() (least, most int) {
	if b.Options.CallbackURL == "" || b.Options.CallbackMode != batch.ModeResults {
		return 0, 0
	}
	for n := range b.first {
		items, recorded := b.span(n)
		told := recorded
		if b.status == batch.Canceling || b.status == batch.Canceled {
			told += tried(items)
		}
		pages := (told + b.Options.CallbackPageItems - 1) / b.Options.CallbackPageItems
		if b.Blocks == 1 && (pages == 1 || !b.status.Terminal()) {
			return 0, 0
		}
		if recorded == len(items) || b.status.Terminal() {
			least += pages
		}
		if recorded == len(items) || b.status.Terminal() || b.status == batch.Canceling {
			most += pages
		}
	}
	return least, most
}

// settle moves the batch as far as its items and the blocks in hands allow.
func (m *model) settle(b *modelBatch) {
	held := slices.ContainsFunc(m.held, func(w batch.Work) bool { return w.Lease.Block.Batch == b.ID })
	switch {
	case b.status == batch.Canceling && !held:
		b.status = batch.Canceled
	case b.status == batch.Running && b.done().Sum() == b.Items:
		b.status = batch.Completed
	}
}

// claimable says why a block may not be claimed now, or nothing.
func (m *model) claimable(c batch.Claim, b *modelBatch, number int) string {
	mine := 0
	for _, w := range m.held {
		if w.Lease.Block.Batch != b.ID {
			continue
		}
		if int(w.Lease.Block.Number) == number {
			return "it is held"
		}
		mine++
	}
	switch {
	case !b.status.Claimable():
		return "the batch is " + b.status.String()
	case !slices.Contains(c.Processors, b.Options.Processor):
		return "its processor was not asked for"
	case mine >= c.PerBatch:
		return fmt.Sprintf("%d blocks of the batch are held", mine)
	case len(b.due(number)) == 0:
		return "none of its items is due"
	}
	return ""
}

// sendable says why a message may not be claimed now, or nothing.
func (m *model) sendable(c batch.MessageClaim, b *modelBatch, id batch.MessageID) string {
	flying := 0
	for _, d := range m.flying {
		if d.Tenant == b.Tenant && d.Host == batch.CallbackHost(b.Options.CallbackURL) {
			flying++
		}
	}
	msg := b.messages[id]
	switch {
	case msg == nil:
		return "nobody knows it"
	case msg.state != batch.MessageWaiting || msg.later:
		return fmt.Sprintf("it is %v, due later: %v", msg.state, msg.later)
	case flying >= c.PerHost:
		return fmt.Sprintf("%d are in flight", flying)
	}
	return ""
}

// learn takes in the messages that a step has made.
func (m *model) learn() {
	for _, b := range m.batches {
		if b.status == batch.Canceled {
			m.eventually("a canceled batch ends", func() bool { return m.batch(b.given).Status.Terminal() })
		}
		if b.Options.CallbackURL == "" {
			continue
		}
		made := m.messagesOf(b.given)
		slices.Reverse(made)
		owed := 0
		var end *modelMessage
		for _, msg := range made {
			known := b.messages[msg.ID]
			if known == nil {
				known = &modelMessage{result: msg.Result(), state: batch.MessageWaiting}
				b.messages[msg.ID] = known
				if !known.result {
					end = known
				}
			}
			if known.result && !known.state.Settled() {
				owed++
			}
		}
		if end != nil {
			end.later = owed > 0
		}
	}
}

// begin takes in the attempts that a step has begun.
func (m *model) begin(c batch.MessageClaim, ds []batch.Delivery) {
	for _, d := range ds {
		b := m.find(d.Batch)
		if why := m.sendable(c, b, d.ID); why != "" {
			m.t.Fatalf("message %v was claimed although %s", d.ID, why)
		}
		msg := b.messages[d.ID]
		msg.made++
		msg.state = batch.MessageSending
		m.same("attempt", []any{d.Made, d.URL}, []any{msg.made, b.Options.CallbackURL})
		m.flying = append(m.flying, d)
	}
}

// compare holds every batch and message against the model.
func (m *model) compare(*rapid.T) {
	m.learn()
	for _, b := range m.batches {
		got := m.batch(b.given)
		m.same("done", got.Done, b.done())
		if claimed := b.claimed && b.status == batch.Queued && got.Status == batch.Running; !claimed {
			m.same("status", got.Status, b.status)
		}
		var ledger batch.Ledger
		for _, msg := range m.messagesOf(b.given) {
			known := b.messages[msg.ID]
			m.same("message", []any{msg.State, msg.Made}, []any{known.state, known.made})
			count(&ledger, msg)
		}
		m.same("ledger", got.Messages, ledger)
		if least, most := b.ranges(); ledger.Round < least || ledger.Round > most {
			m.t.Fatalf("%d result messages of a batch that is %v, want %d to %d", ledger.Round, b.status, least, most)
		}
		ends := len(b.messages) - ledger.Round
		m.same("terminal messages", ends == 1, b.status.Terminal() && b.Options.CallbackURL != "")
	}
}

// inspect holds every result and attempt against the model.
func (m *model) inspect() {
	for _, b := range m.batches {
		var want []batch.Result
		p := m.batch(b.given).Progress
		for i, it := range b.items {
			switch {
			case it.result != nil:
				want = append(want, *it.result)
			case b.status.Terminal():
				want = append(want, batch.EndedResult(i, b.given.items[i].ID, p, it.attempts))
			}
		}
		m.same("results", m.results(b.given, batch.ResultQuery{Limit: 5}), want)
		for _, msg := range m.messagesOf(b.given) {
			_, as := m.message(msg)
			m.same("attempts on record", len(as), b.messages[msg.ID].attempts)
		}
	}
}
