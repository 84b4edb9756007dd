package bolt

import (
	"context"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// post keeps new messages of a batch. Those that are due now are claimed in
// the same commit while the offer lasts: one sync less on the shortest road.
func (t *txn) post(s *Store, e *entry, ms []batch.Message, offer *batch.MessageClaim, out *batch.Recorded) error {
	for _, m := range ms {
		if dropMessage() {
			continue
		}
		e.p.Post(m)
		lane := laneOf(m.Tenant, m.Host)
		if err := t.Bucket(bucketByBatch).Put(messageKey(m.Batch, m.ID), []byte{1}); err != nil {
			return err
		}
		if offer.Max > 0 && !m.Due.After(t.now) && s.sendingIn(lane)+t.sending[lane] < max(1, offer.PerHost) {
			offer.Max--
			d, err := t.startSending(s, m)
			if err != nil {
				return err
			}
			out.Deliveries = append(out.Deliveries, d)
			continue
		}
		if err := t.wait(s, m); err != nil {
			return err
		}
	}
	if len(ms) > 0 {
		t.change(e)
	}
	return nil
}

// wait writes a message down as waiting in its lane.
func (t *txn) wait(s *Store, m batch.Message) error {
	m.Due = millisTime(dueMillis(m.Due)) // the key and the record say the same
	lane := laneOf(m.Tenant, m.Host)
	if err := t.Bucket(bucketOutbox).Put(outboxKey(lane, m.Due, m.ID), []byte{1}); err != nil {
		return err
	}
	t.after(func() {
		if m.Due.After(time.Now()) {
			s.lanes.sleep(m.Tenant, lane, m.Due)
		} else {
			s.lanes.wakeUp(m.Tenant, lane)
		}
		hint(s.messagesChanged)
	})
	return t.putMessage(m)
}

// startSending writes a message down as in its next attempt, before a byte of
// it leaves.
func (t *txn) startSending(s *Store, m batch.Message) (batch.Delivery, error) {
	m.State, m.Made, m.Started = batch.MessageSending, m.Made+1, t.now.UTC()
	e, err := t.batch(m.Tenant, m.Batch)
	if err != nil {
		return batch.Delivery{}, err
	}
	spec, err := t.spec(s, e)
	if err != nil {
		return batch.Delivery{}, err
	}
	if err := t.Bucket(bucketSending).Put(tenantKey(m.Tenant, m.ID), []byte{1}); err != nil {
		return batch.Delivery{}, err
	}
	lane, token := laneOf(m.Tenant, m.Host), s.token.Add(1)
	t.sending[lane]++
	t.after(func() {
		s.sending[lane]++
		s.flights[m.ID] = token
	})
	return batch.Delivery{Message: m, URL: spec.Options.CallbackURL, Token: token}, t.putMessage(m)
}

func (t *txn) putMessage(m batch.Message) error {
	k := tenantKey(m.Tenant, m.ID)
	return bucket(t.Tx, bucketMessages).Put(k, record.EncodeMessage(k, m))
}

// readMessage returns a message that is the caller's own.
func readMessage(tx *bbolt.Tx, key []byte) (batch.Message, error) {
	v := tx.Bucket(bucketMessages).Get(key)
	if v == nil {
		return batch.Message{}, errNoMessage
	}
	p, err := record.Open(record.KindMessage, key, v)
	if err != nil {
		return batch.Message{}, err
	}
	return record.DecodeMessage(slices.Clone(p))
}

// sendingIn returns how many attempts are under way in a lane.
func (s *Store) sendingIn(l laneKey) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sending[l]
}

// Attempted records how attempts ended.
func (s *Store) Attempted(ctx context.Context, outcomes []batch.AttemptOutcome) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	return s.do(s.small, len(outcomes)<<10, func(t *txn) error {
		for _, o := range outcomes {
			if err := t.settle(s, o); err != nil {
				return errBroken{err}
			}
		}
		return nil
	})
}

// settle ends one attempt: its record, the message's next state, the ledger
// of its batch, and the terminal message's release if it waited for this one.
func (t *txn) settle(s *Store, o batch.AttemptOutcome) error {
	key := tenantKey(o.Delivery.Tenant, o.Delivery.ID)
	if !s.flying(o.Delivery) || t.Bucket(bucketSending).Get(key) == nil {
		return nil
	}
	m, err := readMessage(t.Tx, key)
	if err != nil && !s.damaged(err, "message", o.Delivery.ID) {
		return err
	}
	if err := t.Bucket(bucketSending).Delete(key); err != nil {
		return err
	}
	lane := laneOf(o.Delivery.Tenant, o.Delivery.Host)
	t.after(func() {
		delete(s.flights, o.Delivery.ID)
		if s.sending[lane]--; s.sending[lane] <= 0 {
			delete(s.sending, lane)
		}
		if _, full := s.full[lane]; full {
			delete(s.full, lane)
			s.wakeLane(lane)
			hint(s.messagesChanged)
		}
	})
	if m.State != batch.MessageSending { // damaged: the attempt is over, and that is all
		return nil
	}
	if o.Refund {
		m.Made--
	} else if err := t.putAttempt(m, o.Attempt); err != nil {
		return err
	}
	m.State, m.Reason, m.Started = o.State, o.Reason, time.Time{}
	if m.State == batch.MessageWaiting {
		m.Due = o.Due.UTC()
		return t.wait(s, m)
	}
	m.Due = time.Time{}
	if err := t.putMessage(m); err != nil {
		return err
	}
	return t.settled(s, m)
}

// flying reports whether a delivery is the one under way of its message.
func (s *Store) flying(d batch.Delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flights[d.ID] == d.Token
}

func (t *txn) putAttempt(m batch.Message, a batch.Attempt) error {
	a.Number = m.Made
	k := attemptKey(m.ID, a.Number)
	return bucket(t.Tx, bucketAttempts).Put(k, record.EncodeAttempt(k, a))
}

// settled counts a message for which nothing is owed any more.
func (t *txn) settled(s *Store, m batch.Message) error {
	e, err := t.batch(m.Tenant, m.Batch)
	if s.damaged(err, "batch", m.Batch) {
		return nil
	}
	if err != nil {
		return err
	}
	t.change(e)
	if !e.p.Deliver(m, m.State) {
		return nil
	}
	last, err := readMessage(t.Tx, tenantKey(m.Tenant, e.p.Terminal))
	if s.damaged(err, "message", e.p.Terminal) {
		return nil
	}
	if err != nil {
		return err
	}
	if last.State != batch.MessageWaiting || !last.Due.After(t.now) {
		return nil
	}
	if err := t.Bucket(bucketOutbox).Delete(outboxKey(laneOf(last.Tenant, last.Host), last.Due, last.ID)); err != nil {
		return err
	}
	last.Due = t.now.UTC()
	return t.wait(s, last)
}

// interrupt ends the attempts that a crash cut short: they are counted, and
// their messages are due again at once, with the same id and the same bytes.
func (t *txn) interrupt(s *Store, key []byte) error {
	_, id := splitTenantKey(key)
	m, err := readMessage(t.Tx, key)
	if err != nil && !s.damaged(err, "message", batch.MessageID(id)) {
		return err
	}
	if err := t.Bucket(bucketSending).Delete(key); err != nil || m.State != batch.MessageSending {
		return err
	}
	a := batch.Attempt{Started: m.Started, Error: &batch.AttemptError{
		Category: batch.Interrupted, Detail: "the server stopped while the attempt was under way; whether it arrived is unknown",
	}}
	if err := t.putAttempt(m, a); err != nil {
		return err
	}
	m.State, m.Started, m.Due = batch.MessageWaiting, time.Time{}, t.now.UTC()
	return t.wait(s, m)
}
