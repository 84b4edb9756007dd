package bolt

import (
	"bytes"
	"context"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// A flight is an attempt under way.
type flight struct {
	token  uint64
	host   hostKey
	trial  bool // its host was not proven
	manual bool // it was asked for
	landed bool // it has ended, and that is on its way to the disk
}

// post keeps new messages of a batch. Those that are due now are claimed in
// the same commit while the offer lasts: one sync less on the shortest road.
func (t *txn) post(s *Store, e *entry, ms []batch.Message, offer *batch.MessageClaim, out *batch.Recorded) error {
	for _, m := range ms {
		if dropMessage() {
			continue
		}
		s.lastMessage = batch.NextMessageID(s.lastMessage, t.now)
		m.ID = s.lastMessage
		e.p.Post(m)
		err := bucketByBatch.in(t.Tx).Put(messageKey(m.Batch, m.ID), []byte{1})
		switch {
		case err != nil:
		case m.State.Settled():
			err = t.putMessage(m)
		case t.mayTake(s, m, offer):
			err = t.take(s, e, m, offer, out)
		default:
			t.atHand(s, m)
			err = t.wait(s, m)
		}
		if err != nil {
			return err
		}
	}
	if len(ms) > 0 {
		t.change(e)
		t.posted = true
	}
	return nil
}

// mayTake reports whether a message of the lane of a new one may be claimed in
// the commit that makes it: it is due, and its host allows it.
func (t *txn) mayTake(s *Store, m batch.Message, offer *batch.MessageClaim) bool {
	if offer.Max <= 0 || m.Due.After(t.now) {
		return false
	}
	lane := laneOf(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.lanes.health(lane.host()).Proven() && (offer.Trials <= 0 || s.lanes.mayTry(lane.host(), t.begun) == 0) {
		return false
	}
	n, _ := s.lanes.room(lane, t.begun, offer.PerHost, t.now)
	return n > 0
}

// take claims a new message, or in its place the one of its lane that has
// waited longest.
func (t *txn) take(s *Store, e *entry, m batch.Message, offer *batch.MessageClaim, out *batch.Recorded) (err error) {
	var d batch.Delivery
	ok := true
	if older := t.longest(laneOf(m)); older != nil {
		t.atHand(s, m)
		if err := t.wait(s, m); err != nil {
			return err
		}
		d, ok, err = t.claimMessage(s, older, offer.PerHost)
	} else if spec, err := t.spec(s, e); err != nil {
		return err
	} else if d, err = t.startSending(s, m, spec); err != nil {
		return err
	}
	if err != nil || !ok {
		return err
	}
	if offer.Max--; d.Trial {
		offer.Trials--
	}
	out.Deliveries = append(out.Deliveries, d)
	return nil
}

// longest returns the key of the message of a lane that is due for longest,
// or nil if none is.
func (t *txn) longest(lane laneKey) []byte {
	k, _ := bucketOutbox.in(t.Tx).Cursor().Seek(lane[:])
	if !bytes.HasPrefix(k, lane[:]) {
		return nil
	}
	if _, due, _ := splitOutboxKey(k); due.After(t.now) {
		return nil
	}
	return bytes.Clone(k)
}

// wait writes a message down as waiting in its lane.
func (t *txn) wait(s *Store, m batch.Message) error {
	m.Due = millisTime(dueMillis(m.Due)) // the key and the record say the same
	lane := laneOf(m)
	if err := bucketOutbox.in(t.Tx).Put(outboxKey(lane, m.Due, m.ID), be.AppendUint64(nil, dueMillis(m.Lapses()))); err != nil {
		return err
	}
	t.after(func() {
		s.lanes.waiting++
		if sp := s.lanes.spans[lane]; sp != nil && (sp.earliest.IsZero() || m.Lapses().Before(sp.earliest)) {
			sp.earliest = m.Lapses()
		}
		if m.Due.After(time.Now()) {
			s.lanes.sleep(lane, m.Due)
		} else {
			s.lanes.wakeUp(lane)
		}
		hint(s.messagesChanged)
	})
	return t.putMessage(m)
}

// startSending writes a message down as in its next attempt, before a byte of
// it leaves.
func (t *txn) startSending(s *Store, m batch.Message, spec *batch.Spec) (batch.Delivery, error) {
	m.Begin(t.now)
	body := smallBody(m)
	m.Carried = nil // they are not ours
	if body == nil && m.Made == 1 {
		body = s.fromHand(m.ID)
	}
	if err := bucketSending.in(t.Tx).Put(tenantKey(m.Tenant, m.ID), []byte{1}); err != nil {
		return batch.Delivery{}, err
	}
	f := flight{token: s.token.Add(1), host: hostOf(m.Tenant, m.Host), manual: m.Manual}
	f.trial = !s.healthOf(f.host).Proven()
	t.begun.add(f, 1)
	t.after(func() {
		s.lanes.depart(f)
		s.flights[m.ID] = f
	})
	return batch.Delivery{
		Message: m, Body: body, URL: spec.Options.CallbackURL, Headers: spec.Options.CallbackHeaders, Token: f.token, Trial: f.trial,
	}, t.putMessage(m)
}

func (s *Store) healthOf(k hostKey) batch.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lanes.health(k)
}

func (t *txn) putMessage(m batch.Message) error {
	k := tenantKey(m.Tenant, m.ID)
	return bucketMessages.in(t.Tx).Put(k, record.EncodeMessage(k, m))
}

// readMessage returns a message that is the caller's own.
func readMessage(tx *bbolt.Tx, key []byte) (batch.Message, error) {
	v := bucketMessages.in(tx).Get(key)
	if v == nil {
		return batch.Message{}, errNoMessage
	}
	p, err := record.Open(record.KindMessage, key, v)
	if err != nil {
		return batch.Message{}, err
	}
	return record.DecodeMessage(slices.Clone(p))
}

// Attempted records how attempts ended.
func (s *Store) Attempted(ctx context.Context, outcomes []batch.AttemptOutcome) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	s.land(outcomes)
	attempts := make([][]byte, len(outcomes))
	size := 0
	for i, o := range outcomes {
		if !o.Refund {
			attempts[i] = encodeAttempt(o.Delivery.Message, o.Attempt)
		}
		size += len(attempts[i]) + 1<<10
	}
	return s.do(s.small, size, func(t *txn) error {
		for i, o := range outcomes {
			if err := t.settle(s, o, attempts[i]); err != nil {
				return errBroken{err}
			}
		}
		return nil
	})
}

// land lets others take the places of attempts that have ended before that is
// recorded, unless their host lets just a few through: what these say is
// waited for.
func (s *Store) land(outcomes []batch.AttemptOutcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range outcomes {
		f, ok := s.flights[o.Delivery.ID]
		if !ok || f.landed || f.token != o.Delivery.Token || s.lanes.health(f.host).Recovering() || s.lanes.health(f.host.shared()).Recovering() {
			continue
		}
		f.landed = true
		s.flights[o.Delivery.ID] = f
		s.lanes.arrive(f)
	}
	hint(s.messagesChanged)
}

// settle ends one attempt: its record, the message's next state, the ledger
// of its batch, the terminal message's release if it waited for this one, and
// what is known of the host.
func (t *txn) settle(s *Store, o batch.AttemptOutcome, attempt []byte) error {
	key := tenantKey(o.Delivery.Tenant, o.Delivery.ID)
	f, ok := s.flying(o.Delivery)
	m, err := readMessage(t.Tx, key)
	removed := isAbsent(err) || err == nil && doomed(t.Tx, m)
	if !ok || bucketSending.in(t.Tx).Get(key) == nil && !removed {
		return nil
	}
	if err != nil && !removed && !s.damaged(err, "message", o.Delivery.ID) {
		return err
	}
	if err := bucketSending.in(t.Tx).Delete(key); err != nil {
		return err
	}
	if !o.Delivery.Manual && !o.Refund {
		if err := t.judge(s, f.host, o.Delivery, o.Host); err != nil {
			return err
		}
	}
	t.after(func() {
		delete(s.flights, o.Delivery.ID)
		if !f.landed {
			s.lanes.arrive(f)
			hint(s.messagesChanged)
		}
	})
	if m.State != batch.MessageSending || removed { // or damaged: the attempt is over, and that is all
		return nil
	}
	if !o.Refund {
		if err := t.putAttempt(m, attempt); err != nil {
			return err
		}
	}
	m.Close(o, t.now, s.terms)
	return t.land(s, m)
}

// putAttempt keeps the record of a message's last attempt. Of one that its
// owner has sent again and again the oldest attempts are given up.
func (t *txn) putAttempt(m batch.Message, attempt []byte) error {
	b := bucketAttempts.in(t.Tx)
	if old := m.Made - batch.MostAttempts; old > 0 {
		if err := b.Delete(attemptKey(m.ID, old)); err != nil {
			return err
		}
	}
	return b.Put(attemptKey(m.ID, m.Made), attempt)
}

// land brings a message whose attempt has ended to its next place.
func (t *txn) land(s *Store, m batch.Message) error {
	if m.State != batch.MessageWaiting {
		return t.settled(s, m)
	}
	if err := t.readdress(s, &m); err != nil {
		return err
	}
	return t.wait(s, m)
}

// flying returns the attempt under way that a delivery is.
func (s *Store) flying(d batch.Delivery) (flight, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.flights[d.ID]
	return f, ok && f.token == d.Token
}

// encodeAttempt returns the record of a message's last attempt.
func encodeAttempt(m batch.Message, a batch.Attempt) []byte {
	a.Number = m.Made
	return record.EncodeAttempt(attemptKey(m.ID, m.Made), a)
}

// settled keeps a message for which nothing is owed any more and counts it.
func (t *txn) settled(s *Store, m batch.Message) error {
	if isDead(m.State) {
		if err := bucketDead.in(t.Tx).Put(tenantKey(m.Tenant, m.ID), []byte{1}); err != nil {
			return err
		}
	}
	e, err := t.batch(m.Tenant, m.Batch)
	if s.missing(err, "batch", m.Batch) {
		return t.putMessage(m)
	}
	if err != nil {
		return err
	}
	t.change(e)
	released := e.p.Deliver(&m)
	if err := t.putMessage(m); err != nil || !released {
		return err
	}
	return t.hasten(s, m.Tenant, e.p.Terminal)
}

// isDead reports whether a message was given up.
func isDead(s batch.MessageState) bool {
	return s == batch.MessageExhausted || s == batch.MessageCanceled || s == batch.MessageBlocked
}

// hasten lets a terminal message go that was held back for others.
func (t *txn) hasten(s *Store, tenant batch.TenantID, id batch.MessageID) error {
	last, err := readMessage(t.Tx, tenantKey(tenant, id))
	if s.missing(err, "message", id) {
		return nil
	}
	if err != nil {
		return err
	}
	if last.State != batch.MessageWaiting || last.Made > 0 || !last.Due.After(t.now) {
		return nil
	}
	if err := t.leave(s, last); err != nil {
		return err
	}
	last.Due = t.now.UTC()
	return t.wait(s, last)
}

// leave takes a waiting message out of its lane.
func (t *txn) leave(s *Store, m batch.Message) error {
	return t.unqueue(s, outboxKey(laneOf(m), m.Due, m.ID))
}

// unqueue takes the entry of a waiting message out of its lane.
func (t *txn) unqueue(s *Store, key []byte) error {
	t.after(func() { s.lanes.waiting-- })
	return bucketOutbox.in(t.Tx).Delete(key)
}

// tell makes word of a batch's progress if it is time.
func (t *txn) tell(s *Store, e *entry, offer *batch.MessageClaim, out *batch.Recorded) error {
	spec, err := t.spec(s, e)
	if err != nil {
		return err
	}
	m, told, ok := batch.ProgressMessage(*spec, e.p, s.terms, t.now)
	if !ok {
		return nil
	}
	if err := t.replace(s, e); err != nil {
		return err
	}
	e.p.Told = told
	return t.post(s, e, []batch.Message{m}, offer, out)
}

// replace cancels the last word of a batch's progress if it was not sent yet.
func (t *txn) replace(s *Store, e *entry) error {
	if e.p.Told.Message == (batch.MessageID{}) {
		return nil
	}
	tenant, _ := splitTenantKey(e.key)
	m, err := readMessage(t.Tx, tenantKey(tenant, e.p.Told.Message))
	if s.missing(err, "message", e.p.Told.Message) {
		return nil
	}
	if err != nil {
		return err
	}
	if m.State != batch.MessageWaiting {
		return nil
	}
	if err := t.leave(s, m); err != nil {
		return err
	}
	m.End(batch.MessageCanceled, batch.ReasonReplaced, t.now)
	return t.settled(s, m)
}

// interrupt ends the attempts that a crash cut short: they are counted, and
// their messages are due again at once, with the same id and the same bytes.
func (t *txn) interrupt(s *Store, key []byte) error {
	_, id := splitTenantKey(key)
	m, err := readMessage(t.Tx, key)
	if err != nil && !isAbsent(err) && !s.damaged(err, "message", batch.MessageID(id)) {
		return err
	}
	if err := bucketSending.in(t.Tx).Delete(key); err != nil || m.State != batch.MessageSending || doomed(t.Tx, m) {
		return err
	}
	a := batch.Attempt{Started: m.Started, Error: &batch.AttemptError{
		Category: batch.Interrupted, Detail: "the server stopped while the attempt was under way; whether it arrived is unknown",
	}}
	if err := t.putAttempt(m, encodeAttempt(m, a)); err != nil {
		return err
	}
	m.Interrupt(t.now, s.terms)
	return t.land(s, m)
}
