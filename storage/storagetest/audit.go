package storagetest

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/callbatch/callbatch/batch"
)

// audit holds everything that was made against the rules that are the same
// in every state, as a client sees them; then the store looks at itself.
func (s *fixture) audit() {
	s.t.Helper()
	waiting, sending := 0, 0
	for _, g := range s.made.all() {
		if g.gone {
			s.auditGone(g)
			continue
		}
		b := s.batch(g)
		rs := s.auditResults(g, b)
		s.auditMessages(g, b, rs)
		for _, m := range s.messagesOf(g) {
			switch {
			case m.State == batch.MessageSending:
				sending++
			case !m.State.Settled():
				waiting++
			}
		}
	}
	s.eventually("nothing waits of batches that were deleted", func() bool { return s.Backlog().Waiting <= waiting })
	owed := s.Backlog()
	s.same("messages that wait and that are sent", []int{owed.Waiting, owed.Sending}, []int{waiting, sending + s.stray})
	if err := s.Check(s.ctx); err != nil {
		s.t.Fatalf("check: %v", err)
	}
	select {
	case <-s.Failed():
		s.t.Fatalf("the store has failed: %v", s.Err())
	default:
	}
}

// auditResults checks that counts and results say the same, and that a batch
// that has ended has a result of every item.
func (s *fixture) auditResults(g *given, b batch.Batch) []batch.Result {
	s.t.Helper()
	s.same("spec", b.Spec, g.Spec)
	c := b.Counts()
	sum := c.Pending + c.Running + c.Finished()
	if sum != g.Items || min(c.Pending, c.Running, c.Succeeded, c.Failed, c.Canceled, c.Expired) < 0 {
		s.t.Fatalf("counts %+v do not sum to %d", c, g.Items)
	}
	var done batch.Tally
	rs := s.results(g, batch.ResultQuery{})
	for _, r := range rs {
		done.Add(r.Status, 1)
		if r.Round < 1 || r.Round > b.Round || r.ID != g.items[r.Index].ID || !json.Valid(batch.AppendResult(nil, r)) {
			s.t.Fatalf("result %d is %+v", r.Index, r)
		}
	}
	s.same("what the results count up to", done, b.Done)
	if b.Status.Terminal() && (len(rs) != g.Items || b.Finished.IsZero() || b.Open != 0) {
		s.t.Fatalf("the batch is %v with %d results of %d, %d open blocks, finished %v", b.Status, len(rs), g.Items, b.Open, b.Finished)
	}
	return rs
}

// auditMessages checks the batch's ledger, that a batch has its terminal
// message exactly when it has ended, and that no result travels twice or,
// once the batch has ended, not at all.
func (s *fixture) auditMessages(g *given, b batch.Batch, rs []batch.Result) {
	s.t.Helper()
	var ledger batch.Ledger
	terminal := make([]batch.MessageID, b.Round+1)
	sent := make(map[[2]int]bool) // by round and index
	recorded := make([][]batch.Result, b.Round+1)
	for n := 1; n <= b.Round; n++ {
		if recorded[n] = rs; n < b.Round {
			recorded[n] = s.results(g, batch.ResultQuery{Round: n})
			s.same("results of a round that is over", len(recorded[n]), g.Items)
		}
		recorded[n] = slices.DeleteFunc(slices.Clone(recorded[n]), func(r batch.Result) bool { return r.Round != n || !ran(r) })
	}
	for _, m := range s.messagesOf(g) {
		count(&ledger, m, b.Round)
		if m.Owed() && !m.Result() {
			if terminal[m.Round] != (batch.MessageID{}) {
				s.t.Fatalf("batch %v has two terminal messages in round %d", g.ID, m.Round)
			}
			if terminal[m.Round] = m.ID; m.Round == b.Round {
				s.auditEnd(b, m)
			}
		}
		for _, index := range s.auditBody(g, m, recorded[m.Round]) {
			if sent[[2]int{m.Round, index}] {
				s.t.Fatalf("result %d travels twice", index)
			}
			sent[[2]int{m.Round, index}] = true
		}
	}
	s.same("ledger", b.Messages, ledger)
	s.same("the terminal message", b.Terminal, terminal[b.Round])
	for n, id := range terminal[1:] {
		if over := n+1 < b.Round || b.Status.Terminal(); over != (id != batch.MessageID{}) && g.Options.Messages() {
			s.t.Fatalf("the batch is %v in round %d and the terminal message of round %d is %v", b.Status, b.Round, n+1, id)
		}
	}
	if !g.Options.Messages() || g.Options.CallbackMode == batch.ModeSummary {
		return
	}
	for n, rs := range recorded {
		for _, r := range rs {
			if over := n < b.Round || b.Status.Terminal(); over && !sent[[2]int{n, r.Index}] {
				s.t.Fatalf("batch %v is %v in round %d and result %d of round %d travels in no message", g.ID, b.Status, b.Round, r.Index, n)
			}
		}
	}
}

// auditGone checks that nothing is shown of a batch that was deleted.
func (s *fixture) auditGone(g *given) {
	s.t.Helper()
	_, err := s.Batch(s.ctx, g.Tenant, g.ID)
	s.refused(err, batch.Gone)
	_, err = s.Results(s.ctx, g.Tenant, g.ID, batch.ResultQuery{Limit: 1})
	s.refused(err, batch.Gone)
	_, err = s.Item(s.ctx, g.Tenant, g.ID, 0)
	s.refused(err, batch.Gone)
	_, _, err = s.Messages(s.ctx, batch.MessageQuery{Tenant: g.Tenant, Batch: &g.ID, Limit: 1})
	s.refused(err, batch.Gone)
	for _, m := range s.messages(batch.MessageQuery{Tenant: g.Tenant}) {
		if m.Batch == g.ID {
			s.t.Fatalf("message %v of a batch that was deleted is listed", m.ID)
		}
	}
	if slices.Contains(s.list(batch.BatchQuery{Tenant: g.Tenant, Limit: 100}), g.ID) {
		s.t.Fatalf("batch %v was deleted and is listed", g.ID)
	}
}

// ran reports whether the item of a result ever ran: then the result travels,
// else it is derived from the end.
func ran(r batch.Result) bool { return r.Attempts > 0 }

// count adds a message to the ledger of a batch in a round, by where it stands.
func count(l *batch.Ledger, m batch.Message, round int) {
	if !m.Owed() {
		return
	}
	if m.Result() && m.Round == round {
		l.Round++
		if !m.Settled {
			l.Owed++
		}
	}
	switch {
	case !m.State.Settled():
		l.Waiting++
	case m.State == batch.MessageDelivered:
		l.Delivered++
	case m.State == batch.MessageExhausted:
		l.Exhausted++
	default:
		l.Other++
	}
}

// auditBody checks that a body is what its refs name of the results that were
// recorded in its round, each ref within its block, and returns which results
// are in it.
func (s *fixture) auditBody(g *given, m batch.Message, rs []batch.Result) (in []int) {
	s.t.Helper()
	var named []batch.Result
	for _, ref := range m.Refs {
		k := batch.BlockKey{Part: ref.Part, Number: ref.Number}
		b := g.block(g.Ordinal(k))
		if _, ours := g.Parts.At(ref.Part); ref.From < b.First || ref.To > b.First+len(b.Items) || !ours {
			s.t.Fatalf("a message names the results %d to %d of block %d, which is %d to %d",
				ref.From, ref.To, ref.Number, b.First, b.First+len(b.Items))
		}
		for _, r := range rs {
			if r.Index >= ref.From && r.Index < ref.To {
				named = append(named, r)
			}
		}
	}
	got := s.body(m)
	if want := batch.AppendBody(nil, m, named); !bytes.Equal(got, want) {
		s.t.Fatalf("body of %v, a %s:\n%.1000s\nwant:\n%.1000s", m.ID, m.Type, got, want)
	}
	whole, as := s.message(m)
	s.same("the message alone and in the list", whole, m)
	if len(as) > m.Made {
		s.t.Fatalf("message %v has %d attempts, %d were begun", m.ID, len(as), m.Made)
	}
	var body struct {
		Data struct{ Results []struct{ Index int } }
	}
	s.ok(json.Unmarshal(got, &body))
	for _, r := range body.Data.Results {
		in = append(in, r.Index)
	}
	return in
}

// auditEnd checks that a terminal message says what the batch says.
func (s *fixture) auditEnd(b batch.Batch, m batch.Message) {
	s.t.Helper()
	var body struct {
		Type string
		Data struct {
			ID       batch.ID `json:"batch_id"`
			Status   batch.Status
			Counts   batch.Counts
			Messages int
			Metadata map[string]string
			Finished string `json:"finished_at"`
		}
	}
	s.ok(json.Unmarshal(s.body(m), &body))
	s.same("type", []string{body.Type, m.Type}, []string{"batch." + b.Status.String(), "batch." + b.Status.String()})
	s.same("batch", body.Data.ID, b.ID)
	s.same("status", body.Data.Status, b.Status)
	s.same("counts", body.Data.Counts, b.Counts())
	s.same("result messages", body.Data.Messages, b.Messages.Round)
	s.same("metadata", body.Data.Metadata, b.Options.Metadata)
	s.same("end", body.Data.Finished, batch.FormatTime(b.Finished))
}
