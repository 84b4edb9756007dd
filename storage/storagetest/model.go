package storagetest

import (
	"fmt"
	"maps"
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
		m := &model{fixture: newFixture(rt, open(t)), health: map[hostOf]batch.Health{}}
		m.patience = 3 * time.Second // a failure is tried again and again to make it small
		defer m.shut()
		rt.Repeat(map[string]func(*rapid.T){
			"open": m.openOne, "put": m.putOne, "half a part": m.halfPart, "drop": m.dropOne, "seal": m.sealOne,
			"create": m.create, "discard": m.discard, "claim": m.claim, "record": m.record, "cancel": m.cancel,
			"retry": m.retry, "delete": m.remove,
			"pause": m.pause, "resume": m.resume, "amend": m.amend, "expire": m.expire,
			"claim messages": m.take, "attempted": m.attempted, "redeliver": m.redeliver, "redeliver all": m.redeliverAll,
			"restart": m.restart, "": m.compare,
		})
		m.inspect()
		for _, d := range m.flying {
			if m.find(d.Batch).gone {
				m.stray++
			}
		}
		m.audit()
	})
}

// model is what the store should hold.
type model struct {
	*fixture
	batches []*modelBatch
	removed []*modelBatch // deleted; their messages may be in flight still
	open    []*modelOpen
	held    []batch.Work     // in somebody's hands
	dropped []batch.Work     // that were
	flying  []batch.Delivery // in flight
	landed  []batch.Delivery // that were
	health  map[hostOf]batch.Health
	watch   modelWatch
}

// modelOpen is a batch that is open, with the parts it has.
type modelOpen struct {
	*given
	there map[int]bool
}

// hostOf is a host as a tenant knows it, or as all do.
type hostOf struct {
	tenant batch.TenantID
	all    bool
	host   string
}

type modelBatch struct {
	*given
	status   batch.Status
	reason   string
	lapsed   bool // its deadline has passed
	begun    bool // an item of it was reported on
	kept     int  // failures of rounds before that stay
	claimed  bool // and so perhaps running, though nothing was reported yet
	items    []modelItem
	past     [][]batch.Result // as the rounds before left them
	messages map[batch.MessageID]*modelMessage
}

type modelItem struct {
	result   *batch.Result
	attempts int
	deaths   int
	later    bool // not due within the test
}

type modelMessage struct {
	typ      string
	round    int
	host     string
	state    batch.MessageState // parked is waiting
	made     int
	attempts int
	later    bool // not due within the test
	settled  bool // once
	manual   bool
	again    bool
}

func (msg *modelMessage) result() bool   { return msg.typ == batch.TypeResults }
func (msg *modelMessage) progress() bool { return msg.typ == batch.TypeProgress }

func (m *model) find(id batch.ID) *modelBatch {
	for _, b := range slices.Concat(m.batches, m.removed) {
		if b.ID == id {
			return b
		}
	}
	m.t.Fatalf("batch %v is not of this test", id)
	return nil
}

// done counts the items that have a result, or had none at the end.
func (b *modelBatch) done() (t batch.Tally) {
	for _, it := range b.items {
		switch {
		case it.result != nil:
			t.Add(it.result.Status, 1)
		case b.status == batch.Canceled:
			t.Canceled++
		case b.status == batch.Expired:
			t.Expired++
		}
	}
	return t
}

// ending reports whether the end of the batch has begun.
func (b *modelBatch) ending() bool { return b.lapsed || b.status == batch.Canceling }

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

// fresh returns how many items have a result of the round they are in.
func (b *modelBatch) fresh(items []modelItem) (n int) {
	for _, it := range items {
		if it.result != nil && it.result.Round == b.round() {
			n++
		}
	}
	return n
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
// while a batch is being ended its unfinished blocks may be told of now or
// at the end.
func (b *modelBatch) ranges() (least, most int) {
	if !b.Options.Messages() || b.Options.CallbackMode == batch.ModeSummary {
		return 0, 0
	}
	for n := range b.first {
		items, recorded := b.span(n)
		told := b.fresh(items)
		if b.ending() || b.status == batch.Canceled {
			told += tried(items)
		}
		pages := (told + b.Options.CallbackPageItems - 1) / b.Options.CallbackPageItems
		if b.Blocks == 1 && (pages == 1 || !b.status.Terminal()) {
			return 0, 0
		}
		if recorded == len(items) || b.status.Terminal() {
			least += pages
		}
		if recorded == len(items) || b.status.Terminal() || b.ending() {
			most += pages
		}
	}
	return least, most
}

// settle moves the batch as far as its items and the blocks in hands allow.
func (m *model) settle(b *modelBatch) {
	held := slices.ContainsFunc(m.held, func(w batch.Work) bool { return w.Lease.Block.Batch == b.ID })
	switch {
	case b.status.Terminal():
	case b.status == batch.Canceling:
		if !held {
			b.status = batch.Canceled
		}
	case b.done().Sum() == b.Items:
		b.status = batch.Completed
	case b.lapsed && !held:
		b.status = batch.Expired
	}
}

// claimable says why a block may not be claimed now, or nothing.
func (m *model) claimable(c batch.Claim, b *modelBatch, number int) string {
	mine := 0
	for _, w := range m.held {
		if w.Lease.Block.Batch != b.ID {
			continue
		}
		if b.Ordinal(w.Lease.Block) == number {
			return "it is held"
		}
		mine++
	}
	switch {
	case !b.status.Claimable() || b.lapsed:
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

// sendable says why a message may not be claimed at a time, or nothing.
func (m *model) sendable(c batch.MessageClaim, b *modelBatch, id batch.MessageID, now time.Time) string {
	msg := b.messages[id]
	own, all := b.hosts()
	flying, asked := m.inFlight(own, false), m.inFlight(own, true)
	everybodys := m.inFlight(all, false) - m.inFlight(all, true)
	places := min(c.PerHost, m.health[own].Allows(0, now)+asked)
	switch {
	case msg == nil:
		return "nobody knows it"
	case msg.state != batch.MessageWaiting || msg.later:
		return fmt.Sprintf("it is %v, due later: %v", msg.state, msg.later)
	case flying >= c.PerHost:
		return fmt.Sprintf("%d are in flight", flying)
	case !m.health[own].Proven() && c.Trials == 0:
		return "its host is not proven"
	case (msg.manual || msg.made > 0) && c.Retries == 0:
		return "it was tried before"
	case msg.manual:
		return ""
	case msg.made > 0 && places > 1 && flying >= places-max(1, places/8):
		return "the last place is left to what was never tried"
	case msg.made > 0 && c.PerHost == 1 && m.anyFresh(own):
		return "the only place is left to what was never tried"
	case m.health[own].Allows(flying-asked, now) == 0:
		return fmt.Sprintf("with %d in flight its host stands %+v", flying, m.health[own])
	case m.health[all].Recovering() && m.health[all].Allows(everybodys, now) == 0:
		return fmt.Sprintf("with %d in flight its host stands %+v with all", everybodys, m.health[all])
	}
	return ""
}

// hosts returns where the messages of b go, as its tenant knows it and as all
// do.
func (b *modelBatch) hosts() (own, all hostOf) {
	h := batch.CallbackHost(b.Options.CallbackURL)
	return hostOf{tenant: b.Tenant, host: h}, hostOf{all: true, host: h}
}

// anyFresh reports whether a message waits that was never tried.
func (m *model) anyFresh(h hostOf) bool {
	for _, b := range m.batches {
		own, _ := b.hosts()
		for _, msg := range b.messages {
			if own == h && msg.state == batch.MessageWaiting && !msg.later && !msg.manual && msg.made == 0 {
				return true
			}
		}
	}
	return false
}

// inFlight counts attempts to a host, or only those that were asked for.
func (m *model) inFlight(h hostOf, manual bool) (n int) {
	for _, d := range m.flying {
		if d.Host == h.host && (h.all || d.Tenant == h.tenant) && (d.Manual || !manual) {
			n++
		}
	}
	return n
}

// heal moves what is known of a host by the end of an attempt.
func (m *model) heal(b *modelBatch, o batch.AttemptOutcome) {
	if o.Refund || o.Delivery.Manual || o.Host == batch.HostUnknown {
		return
	}
	own, all := b.hosts()
	own.host, all.host = o.Delivery.Host, o.Delivery.Host // its URL may be another by now
	m.health[own] = m.health[own].After(o.Host, o.Delivery.Started, time.Now())
	if o.Host == batch.HostDown {
		o.Host = batch.HostUp
	}
	m.health[all] = m.health[all].After(o.Host, o.Delivery.Started, time.Now())
}

// learn takes in the messages that a step has made.
func (m *model) learn() {
	for _, b := range m.batches {
		if b.status.Terminal() {
			m.eventually("a batch that was stopped ends", func() bool { return m.batch(b.given).Status.Terminal() })
		}
		owed := 0
		var end *modelMessage
		for _, msg := range m.messagesOf(b.given) {
			known := b.messages[msg.ID]
			if known == nil {
				known = &modelMessage{typ: msg.Type, round: msg.Round, host: msg.Host, state: batch.MessageWaiting}
				if b.Options.CallbackMode == batch.ModePull {
					known.state, known.settled = batch.MessagePulled, msg.Owed()
				}
				b.messages[msg.ID] = known
				if msg.Owed() && !known.result() {
					end = known
				}
			}
			if known.progress() && known.state == batch.MessageWaiting && msg.State == batch.MessageCanceled {
				known.state, known.manual = batch.MessageCanceled, false // another, or the end, replaced it
			}
			if known.result() && !known.settled && known.round == b.round() {
				owed++
			}
		}
		if end != nil {
			end.later = owed > 0 && !end.settled
		}
	}
}

// begin takes in the attempts that a step has begun.
func (m *model) begin(c batch.MessageClaim, ds []batch.Delivery) {
	for _, d := range ds {
		b := m.find(d.Batch)
		if why := m.sendable(c, b, d.ID, time.Now().Add(time.Second)); why != "" {
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
	for _, o := range m.open {
		m.has(o.given, slices.Sorted(maps.Keys(o.there))...)
	}
	m.learn()
	m.watched()
	for _, b := range m.batches {
		got := m.batch(b.given)
		m.same("done", got.Done, b.done())
		m.same("reason", got.Reason, b.reason)
		if claimed := b.claimed && b.status == batch.Queued && got.Status == batch.Running; !claimed {
			m.same("status", got.Status, b.status)
		}
		var ledger batch.Ledger
		for _, msg := range m.messagesOf(b.given) {
			known := b.messages[msg.ID]
			state := msg.State
			if state == batch.MessageParked {
				m.same("parked though its host is open to it", m.closed(b) && !known.manual && !known.later, true)
				state = batch.MessageWaiting
			}
			if !known.state.Settled() {
				m.same("host", msg.Host, known.host)
			}
			m.same("message", []any{state, msg.Made, msg.Manual, msg.Again, msg.Owed() && msg.Settled}, []any{known.state, known.made, known.manual, known.again, known.settled})
			count(&ledger, msg, b.round())
		}
		m.same("ledger", got.Messages, ledger)
		if least, most := b.ranges(); ledger.Round < least || ledger.Round > most {
			m.t.Fatalf("%d result messages of a batch that is %v, want %d to %d", ledger.Round, b.status, least, most)
		}
		ends := 0
		for _, msg := range b.messages {
			if !msg.result() && !msg.progress() && msg.round == b.round() {
				ends++
			}
		}
		m.same("terminal messages", ends == 1, b.status.Terminal() && b.Options.Messages())
	}
}

// closed reports whether the breaker of a batch's host is open.
func (m *model) closed(b *modelBatch) bool {
	own, all := b.hosts()
	return m.health[own].Open() || m.health[all].Open()
}

// inspect holds every result and attempt against the model.
func (m *model) inspect() {
	for _, b := range m.batches {
		m.same("results", m.results(b.given, batch.ResultQuery{Limit: 5}), m.standing(b))
		for n, want := range b.past {
			m.same("results of an earlier round", m.results(b.given, batch.ResultQuery{Limit: 5, Round: n + 1}), want)
		}
		for _, msg := range m.messagesOf(b.given) {
			_, as := m.message(msg)
			m.same("attempts on record", len(as), b.messages[msg.ID].attempts)
		}
	}
}

// standing returns the results that a batch has.
func (m *model) standing(b *modelBatch) (rs []batch.Result) {
	p := m.batch(b.given).Progress
	for i, it := range b.items {
		switch {
		case it.result != nil:
			rs = append(rs, *it.result)
		case b.status.Terminal():
			rs = append(rs, batch.EndedResult(i, b.given.items[i].ID, p, it.attempts))
		}
	}
	return rs
}
