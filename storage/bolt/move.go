package bolt

import (
	"bytes"

	"github.com/callbatch/callbatch/batch"
)

// beginMove has the messages of a batch that wait in the lanes of another host
// moved to those of the one its callback URL names now, step by step.
func (t *txn) beginMove(s *Store, key []byte) error {
	t.after(func() { hint(s.ordersReady) })
	return bucketMoves.in(t.Tx).Put(key, make([]byte, 16))
}

// How much one step of a move looks at and takes, and fewer once what it has
// read is maxBytes.
const (
	moveLooks = 1000
	moveTakes = 200
)

// move takes the next messages of a batch to their new lane.
func (t *txn) move(s *Store, key []byte) error {
	b := bucketMoves.in(t.Tx)
	tenant, id := splitTenantKey(key)
	after := b.Get(key)
	e, err := t.batch(tenant, id)
	var spec *batch.Spec
	if err == nil {
		spec, err = t.spec(s, e)
	}
	if len(after) != 16 || s.missing(err, "batch", batch.ID(id)) {
		return b.Delete(key)
	}
	if err != nil {
		return err
	}
	host := batch.CallbackHost(spec.Options.CallbackURL)
	found, last, err := t.astray(s, tenant, messageKey(id, batch.MessageID(after)), host)
	if err != nil {
		return err
	}
	for _, m := range found {
		if err := t.leave(s, m); err != nil {
			return errBroken{err}
		}
		m.Host = host
		if err := t.wait(s, m); err != nil {
			return errBroken{err}
		}
	}
	if last == nil {
		return b.Delete(key)
	}
	return b.Put(key, last[16:])
}

// astray returns the next messages of a batch that wait for another host, and
// the key of the last that it looked at; nil if there are no more.
func (t *txn) astray(s *Store, tenant batch.TenantID, after []byte, host string) (found []batch.Message, last []byte, err error) {
	c := bucketByBatch.in(t.Tx).Cursor()
	n, size := 0, 0
	for k, _ := c.Seek(append(after, 0)); bytes.HasPrefix(k, after[:16]); k, _ = c.Next() {
		if n++; n > moveLooks || len(found) == moveTakes || size > maxBytes {
			return found, last, nil
		}
		last = bytes.Clone(k)
		m, err := readMessage(t.Tx, tenantKey(tenant, batch.MessageID(k[16:])))
		if s.missing(err, "message", batch.MessageID(k[16:])) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if size += m.Size(); m.State == batch.MessageWaiting && m.Host != host {
			found = append(found, m)
		}
	}
	return found, nil, nil
}

// readdress has a message that is to wait do so for the host that its batch's
// callback URL names now.
func (t *txn) readdress(s *Store, m *batch.Message) error {
	spec, err := t.specOf(s, *m)
	if s.missing(err, "batch", m.Batch) {
		return nil
	}
	if err == nil && spec.Options.CallbackURL != "" {
		m.Host = batch.CallbackHost(spec.Options.CallbackURL)
	}
	return err
}
