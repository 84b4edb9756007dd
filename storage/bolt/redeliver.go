package bolt

import (
	"bytes"
	"context"
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// Redeliver has one message sent once more.
func (s *Store) Redeliver(ctx context.Context, tenant batch.TenantID, id batch.MessageID, once batch.Once) (m batch.Message, err error) {
	if err := s.ready(ctx); err != nil {
		return m, err
	}
	err = s.do(s.small, 0, func(t *txn) error {
		if m, err = readMessage(t.Tx, tenantKey(tenant, id)); err != nil {
			return err
		}
		if doomed(t.Tx, m) {
			return errNoMessage
		}
		if m, err = t.redeliver(s, m, true); err != nil {
			return err
		}
		return t.bind(tenant, once, m.Batch, 0)
	})
	return m, err
}

// errNoURL is what a message answers that cannot be sent anywhere.
var errNoURL = batch.Refuse(batch.Conflict, "no_callback_url", "the batch of the message has no callback_url: there is nowhere to send it")

// redeliver puts a message back to be sent once more. It refuses before it
// writes.
func (t *txn) redeliver(s *Store, m batch.Message, manual bool) (batch.Message, error) {
	spec, err := t.specOf(s, m)
	if err != nil {
		return m, err
	}
	if spec.Options.CallbackURL == "" {
		return m, errNoURL
	}
	from := m.State
	if from == batch.MessageSending {
		m.Redeliver(t.now, s.terms, manual)
		return m, t.putMessage(m)
	}
	if from == batch.MessageWaiting {
		err = t.leave(s, m)
	} else {
		err = t.reopen(m)
	}
	if err != nil {
		return m, errBroken{err}
	}
	m.Host = batch.CallbackHost(spec.Options.CallbackURL)
	m.Redeliver(t.now, s.terms, manual)
	if err := t.wait(s, m); err != nil {
		return m, errBroken{err}
	}
	return m, nil
}

// reopen counts a settled message as owed again.
func (t *txn) reopen(m batch.Message) error {
	e, err := t.batch(m.Tenant, m.Batch)
	if err != nil {
		return err
	}
	e.p.Reopen(m, m.State)
	t.change(e)
	return bucketDead.in(t.Tx).Delete(tenantKey(m.Tenant, m.ID))
}

// How much one step of a redelivery looks at and takes, and how many orders a
// tenant may have under way.
const (
	orderLooks = 1000
	orderTakes = 200
	mostOrders = 16
)

// RedeliverAll keeps the order to send many messages once more.
func (s *Store) RedeliverAll(ctx context.Context, o batch.Redelivery, once batch.Once) (wanted int, err error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	if !o.State.Settled() {
		return 0, batch.Errorf(batch.Invalid, "messages that are %s are on their way already", o.State)
	}
	o.Made = time.Now().UTC()
	o.After = batch.FirstMessageID(o.Since)
	if o.Wanted, err = s.countWanted(ctx, o); err != nil || o.Wanted == 0 && once.Key == "" {
		return 0, err
	}
	key := tenantKey(o.Tenant, batch.NewMessageID(o.Made))
	err = s.do(s.small, 0, func(t *txn) error {
		b := bucketOrders.in(t.Tx)
		if o.Wanted == 0 {
			return t.bind(o.Tenant, once, batch.ID{}, 0)
		}
		if n := countPrefix(b.Cursor(), o.Tenant[:], mostOrders); n == mostOrders {
			return batch.Refuse(batch.Conflict, "too_many_redeliveries", "%d redeliveries are under way: wait until one has ended", n)
		}
		if err := b.Put(key, record.EncodeRedelivery(key, o)); err != nil {
			return broken(err)
		}
		return t.bind(o.Tenant, once, batch.ID{}, o.Wanted)
	})
	if err != nil {
		return 0, err
	}
	hint(s.ordersReady)
	return o.Wanted, nil
}

// countPrefix counts keys with a prefix, up to most.
func countPrefix(c *cursor, prefix []byte, most int) (n int) {
	for k, _ := c.Seek(prefix); n < most && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		n++
	}
	return n
}

// countWanted counts the messages an order means, in short reads.
func (s *Store) countWanted(ctx context.Context, o batch.Redelivery) (n int, err error) {
	for more := true; more; {
		err := s.view(ctx, func(tx *bbolt.Tx) (err error) {
			more, err = s.walkWanted(tx, &o, orderLooks, func(batch.Message) (bool, error) {
				n++
				return true, nil
			})
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// walkWanted calls f for the next messages an order means until it says no,
// and notes how far it came. It stops sooner once what it has read is maxBytes.
// more is false at the end.
func (s *Store) walkWanted(tx *bbolt.Tx, o *batch.Redelivery, looks int, f func(batch.Message) (bool, error)) (more bool, err error) {
	c := listOf(o.State).in(tx).Cursor()
	from := append(tenantKey(o.Tenant, o.After), 0)
	size := 0
	for k, _ := c.Seek(from); bytes.HasPrefix(k, o.Tenant[:]); k, _ = c.Next() {
		if looks--; looks < 0 || size > maxBytes {
			return true, nil
		}
		_, id := splitTenantKey(k)
		m, err := readMessage(tx, k)
		if err != nil && !s.damaged(err, "message", batch.MessageID(id)) {
			return false, err
		}
		if size += m.Size(); err == nil && o.Wants(m) && !doomed(tx, m) && (m.State != batch.MessagePulled || hasURL(tx, m)) {
			if ok, err := f(m); err != nil || !ok {
				return true, err
			}
		}
		o.After = id
	}
	return false, nil
}

// hasURL reports whether a message that was made to be pulled can be sent as
// well.
func hasURL(tx *bbolt.Tx, m batch.Message) bool {
	spec, err := readSpec(tx, m.Tenant, m.Batch)
	return err == nil && spec.Options.CallbackURL != ""
}

// orderLoop carries out what was ordered, redeliveries and moves, one step at
// a time, until the store closes. What is left then goes on at the next start.
func (s *Store) orderLoop() {
	kinds := []*chores{{in: bucketOrders, advance: (*txn).advance}, {in: bucketMoves, advance: (*txn).move}}
	for {
		var wait <-chan time.Time
		for _, o := range kinds {
			switch more, err := o.step(s); {
			case s.Err() != nil, errors.Is(err, errClosed):
				return
			case err != nil:
				s.log.Error("an order is put off", "in", o.in, "error", err)
				wait = time.After(tryAgain)
			case more && wait == nil:
				wait = time.After(0)
			}
		}
		select {
		case <-s.stop:
			return
		case <-s.ordersReady:
		case <-wait:
		}
	}
}

// chores are the orders of one kind, which have their turns.
type chores struct {
	in      table
	advance func(t *txn, s *Store, key []byte) error
	last    []byte // the key of the one that had its turn last
}

// step does the next step of the order whose turn it is. more is false if
// there is none.
func (o *chores) step(s *Store) (more bool, err error) {
	var turn []byte
	err = s.view(context.Background(), func(tx *bbolt.Tx) error {
		c := o.in.in(tx).Cursor()
		k, _ := c.Seek(append(bytes.Clone(o.last), 0))
		if k == nil {
			k, _ = c.First()
		}
		turn = bytes.Clone(k)
		return nil
	})
	if err != nil || turn == nil {
		return false, err
	}
	o.last = turn
	return true, s.do(s.bulk, orderTakes<<10, func(t *txn) error { return o.advance(t, s, turn) })
}

// advance does the next step of an order.
func (t *txn) advance(s *Store, key []byte) error {
	b := bucketOrders.in(t.Tx)
	v := b.Get(key)
	if v == nil {
		return nil
	}
	o, err := openOrder(key, v)
	if s.damaged(err, "redelivery", key) {
		return b.Delete(key)
	}
	if err != nil {
		return err
	}
	more, err := t.carryOut(s, &o)
	if err != nil {
		return errBroken{err}
	}
	if more {
		return b.Put(key, record.EncodeRedelivery(key, o))
	}
	t.after(func() {
		s.log.Info("redelivery", "tenant_id", o.Tenant, "status", o.State, "host", o.Host, "wanted", o.Wanted, "reached", o.Reached)
	})
	return b.Delete(key)
}

func openOrder(k, v []byte) (batch.Redelivery, error) {
	p, err := record.Open(record.KindRedelivery, k, v)
	if err != nil {
		return batch.Redelivery{}, err
	}
	return record.DecodeRedelivery(p)
}

// carryOut takes the next messages of an order. What it changes it first
// finds, for a cursor does not stand still while its bucket changes.
func (t *txn) carryOut(s *Store, o *batch.Redelivery) (more bool, err error) {
	var found []batch.Message
	more, err = s.walkWanted(t.Tx, o, orderLooks, func(m batch.Message) (bool, error) {
		if len(found) == orderTakes {
			return false, nil
		}
		found = append(found, m)
		return true, nil
	})
	if err != nil {
		return false, err
	}
	for _, m := range found {
		switch _, err := t.redeliver(s, m, false); {
		case err == nil:
			o.Reached++
		case batch.CodeOf(err) == batch.Conflict || isAbsent(err) || batch.CodeOf(err) == batch.Damaged:
		default:
			return false, err
		}
	}
	return more, nil
}
