package main_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"
)

// drain waits until everything that was promised has happened: every batch
// has ended, every message of it is delivered, and once more where that was
// called for. It gives up when nothing at all moves any more.
func (tr *trial) drain(ctx context.Context) {
	if tr.ledger.broken() {
		return
	}
	if err := tr.operator.finish(ctx); err != nil {
		tr.ledger.violate("operator: %v", err)
		return
	}
	if err := tr.adopt(ctx); err != nil {
		tr.ledger.violate("list: %v", err)
		return
	}
	waiting := tr.ledger.unsettled()
	moved, still := time.Now(), ""
	for len(waiting) > 0 && !tr.ledger.broken() {
		var left []*submission
		owed := tr.receiver.owed() // before the looks: what a call is for waits from then on
		state := fmt.Sprintf("once more: %v\n", owed)
		for _, s := range waiting {
			if err := tr.look(ctx, s, false); err != nil {
				tr.ledger.violate("drain, batch %s: %v", s.name(), err)
				return
			}
			if len(owed) > 0 || !s.over() {
				left = append(left, s)
				state += fmt.Sprintf("%s %+v %+v\n", s.name(), s.last.Counts, s.last.Callback)
			}
		}
		waiting = left
		if state != still {
			moved, still = time.Now(), state
		}
		if time.Since(moved) > tr.patience {
			tr.ledger.violate("nothing moved for %v, but this is owed:\n%s", tr.patience, still)
			return
		}
		breathe(ctx, 20*time.Millisecond)
	}
}

// over reports whether the batch has ended and nothing is owed for it.
func (s *submission) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	cb := s.last.Callback
	return s.last.terminal() && cb.Messages.Waiting == 0 && (cb.Status == "delivered" || cb.Status == "none" || cb.Status == "exhausted")
}

// adopt walks the list of batches: all that were acknowledged are there, none
// that was refused, and what was cut off is there once or not at all.
func (tr *trial) adopt(ctx context.Context) error {
	list, err := tr.api.batches(ctx)
	if err != nil {
		return err
	}
	listed := make(map[string]bool)
	for _, b := range list {
		if listed[b.ID] {
			return fmt.Errorf("%s is listed twice", b.ID)
		}
		listed[b.ID] = true
		s := tr.ledger.token(b.Metadata["token"])
		switch {
		case s == nil:
			return fmt.Errorf("%s: nobody sent that: %v", b.ID, b.Metadata)
		case s.refused != "":
			return fmt.Errorf("%s exists, though it was refused: %s", b.ID, s.refused)
		}
		if err := b.sound(s); err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
		tr.ledger.exists(s, b.ID, false)
	}
	for _, id := range tr.ledger.ids() {
		if !listed[id] {
			return fmt.Errorf("%s was acknowledged and is not listed", tr.ledger.batch(id).name())
		}
	}
	return nil
}

// audit holds every batch that has ended since the last audit against all
// that is known of it.
func (tr *trial) audit(ctx context.Context) {
	if tr.ledger.broken() {
		return
	}
	if err := tr.follower.catchUp(ctx); err != nil {
		tr.ledger.violate("feed: %v", err)
		return
	}
	done := tr.ledger.unsettled()
	for _, s := range done {
		if tr.ledger.broken() {
			return
		}
		if err := tr.auditBatch(ctx, s); err != nil {
			tr.ledger.violate("audit of %s: %v", s.name(), err)
		}
	}
	tr.ledger.settle(done)
}

func (tr *trial) auditBatch(ctx context.Context, s *submission) error {
	sum, counts, err := tr.auditResults(ctx, s)
	if err != nil {
		return err
	}
	if s.audited != [sha256.Size]byte{} && s.audited != sum {
		return errors.New("the results are not what they were")
	}
	s.audited = sum
	b := s.last
	if counts.Succeeded != b.Counts.Succeeded || counts.Failed != b.Counts.Failed || counts.Canceled != b.Counts.Canceled || counts.finished() != s.items {
		return fmt.Errorf("the counts say %+v, the results %+v", b.Counts, counts)
	}
	switch {
	case s.canceled && b.Status != "canceled":
		return fmt.Errorf("a cancel was answered with 202, but it is %s", b.Status)
	case !s.canceled && !s.mayCancel && b.Status != "completed":
		return fmt.Errorf("it is %s, and nobody asked for that", b.Status)
	case b.Status == "completed" && counts.Canceled > 0:
		return fmt.Errorf("completed, with canceled items: %+v", counts)
	}
	if err := tr.auditItems(ctx, s); err != nil {
		return err
	}
	if err := tr.auditMessages(ctx, s); err != nil {
		return err
	}
	tr.upstream.forget(s.id)
	tr.receiver.close(s.id)
	return nil
}

// auditResults reads all results: one an item, in order, each as it was shown
// before.
func (tr *trial) auditResults(ctx context.Context, s *submission) (sum [sha256.Size]byte, c countsDoc, err error) {
	var h hash.Hash = sha256.New()
	next := 0
	err = tr.api.results(ctx, s.id, func(line []byte) error {
		h.Write(line)
		r, err := s.note(line)
		if err != nil {
			return err
		}
		if r.Index != next {
			return fmt.Errorf("result %d stands where %d should", r.Index, next)
		}
		next++
		switch r.Status {
		case "succeeded":
			c.Succeeded++
		case "failed":
			c.Failed++
		case "canceled":
			c.Canceled++
		}
		if r.Status != "canceled" && s.processor == "twice" && tr.upstream.called(s.id, r.Index) == 0 && s.audited == [sha256.Size]byte{} {
			return fmt.Errorf("item %d has a result, but the upstream never saw it", r.Index)
		}
		return nil
	})
	return [sha256.Size]byte(h.Sum(nil)), c, err
}

// auditItems looks at a few items one by one: input and result as they were.
func (tr *trial) auditItems(ctx context.Context, s *submission) error {
	for _, i := range []int{0, s.items / 3, s.items - 1} {
		it, err := tr.api.item(ctx, s.id, i)
		if err != nil {
			return err
		}
		if string(it.Input) != string(s.item(i)) || it.ID != s.itemID(i) {
			return fmt.Errorf("item %d is %s %s, not %s", i, it.ID, it.Input, s.item(i))
		}
		if _, err := s.note(it.Result); err != nil {
			return fmt.Errorf("item %d: %w", i, err)
		}
	}
	return nil
}

// auditMessages holds what the receiver got and what the feed showed against
// what the API says it sent, and all of them against the results.
func (tr *trial) auditMessages(ctx context.Context, s *submission) error {
	got, fed := tr.receiver.of(s.id), tr.follower.of(s.id)
	if !s.messages() {
		if len(got)+len(fed) > 0 {
			return fmt.Errorf("it wants no messages, but %d came and the feed shows %d", len(got), len(fed))
		}
		return nil
	}
	switch cb := s.last.Callback; {
	case cb.Status == "delivered":
	case cb.Status == "none" && s.mode == "pull":
	default:
		return fmt.Errorf("its callback is %s: %+v", cb.Status, cb)
	}
	listed, err := tr.api.messages(ctx, s.id)
	if err != nil {
		return err
	}
	if err := s.sameMessages(listed, fed, got); err != nil {
		return err
	}
	return s.covered(fed)
}

// sameMessages says how what is listed differs from what was fed and got.
func (s *submission) sameMessages(listed []messageDoc, fed []*letter, got map[string]received) error {
	shown := make(map[string]*letter)
	for _, m := range fed {
		shown[m.id] = m
	}
	for _, m := range listed {
		f, g := shown[m.ID], got[m.ID]
		switch {
		case f == nil:
			return fmt.Errorf("message %s is %s, but not in the feed", m.ID, m.Status)
		case m.Type != f.doc.Type:
			return fmt.Errorf("message %s is a %s, but %s is in the feed", m.ID, m.Type, f.doc.Type)
		case len(g.numbers) > 0 && (g.body != f.body || m.Made < slices.Max(g.numbers)):
			return fmt.Errorf("message %s came otherwise than the feed shows it, or more often: %d attempts were made, %v came", m.ID, m.Made, g.numbers)
		}
		if err := m.ended(s, g); err != nil {
			return fmt.Errorf("message %s is %s after %d attempts (acknowledged: %d): %w", m.ID, m.Status, m.Made, g.acked, err)
		}
		delete(shown, m.ID)
		delete(got, m.ID)
	}
	for id := range shown {
		return fmt.Errorf("message %s is in the feed, but not in the list", id)
	}
	for id := range got {
		return fmt.Errorf("message %s came, but the API does not know it", id)
	}
	return nil
}

// ended says how the end of a message is not what it should be.
func (m messageDoc) ended(s *submission, g received) error {
	switch {
	case m.Type == typeProgress && !s.progress:
		return errors.New("nobody asked to be told")
	case m.Status == "pulled" && s.mode == "pull":
		if len(g.numbers) > 0 {
			return errors.New("it came")
		}
		return nil
	case m.Type == typeProgress && m.Made > 1:
		return errors.New("progress is told once")
	case m.Type == typeProgress && (m.Status == "exhausted" || m.Status == "sending"):
		return nil
	case m.Type == typeProgress && m.Status == "canceled" && len(g.numbers) == 0:
		return nil
	case m.Status != "delivered" || g.acked == 0:
		return errors.New("that is no end for it")
	}
	return nil
}

// covered says what is missing from the messages or is in them twice. A
// canceled item that never ran is in none.
func (s *submission) covered(all []*letter) error {
	var end *letter
	carried := make([]bool, s.items)
	n, results := 0, 0
	for _, m := range all {
		switch {
		case m.doc.Type == typeProgress:
			if c := m.doc.Data.Counts; c.Total != s.items || c.finished() > s.items || len(m.indexes) > 0 {
				return fmt.Errorf("progress %s says %+v", m.id, c)
			}
		case m.doc.Type == typeResults:
			results++
		case end != nil:
			return fmt.Errorf("two messages say that it ended: %s and %s", end.id, m.id)
		default:
			end = m
		}
		for _, index := range m.indexes {
			if carried[index] {
				return fmt.Errorf("result %d is in two messages", index)
			}
			carried[index] = true
			n++
		}
	}
	if end == nil {
		return errors.New("no message says that it ended")
	}
	d, c := end.doc.Data, s.last.Counts
	switch {
	case end.doc.Type != "batch."+s.last.Status || d.Counts != c:
		return fmt.Errorf("%s says %+v, the API %s %+v", end.doc.Type, d.Counts, s.last.Status, c)
	case d.Messages != results:
		return fmt.Errorf("the last message counts %d messages, there are %d", d.Messages, results)
	case s.mode == "summary" && n > 0:
		return fmt.Errorf("a summary is wanted, and %d results are in the messages", n)
	case s.mode != "summary" && n < c.Succeeded+c.Failed:
		return fmt.Errorf("%d results are in the messages, %d items ran", n, c.Succeeded+c.Failed)
	}
	return nil
}

// auditAgain looks at everything once more: what was audited is as it was.
func (tr *trial) auditAgain(ctx context.Context) {
	if err := tr.adopt(ctx); err != nil {
		tr.ledger.violate("list at the end: %v", err)
		return
	}
	if err := tr.follower.again(ctx); err != nil {
		tr.ledger.violate("feed at the end: %v", err)
		return
	}
	for _, s := range tr.ledger.audited() {
		if tr.ledger.broken() {
			return
		}
		if err := tr.look(ctx, s, false); err != nil {
			tr.ledger.violate("at the end, batch %s: %v", s.name(), err)
			continue
		}
		if sum, _, err := tr.auditResults(ctx, s); err != nil || sum != s.audited {
			tr.ledger.violate("at the end, the results of %s are not what they were (%v)", s.name(), err)
		}
	}
}
