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

// A batch goes in two parts. One small step takes its records and leaves a
// tombstone: from then on nothing of it is shown or sent. Its blocks, results
// and messages go afterwards, some a step, whatever crashes.

// ofBatch are the tables whose keys begin with the id of a batch and that go
// with it, but for its messages.
var ofBatch = []table{bucketBlocks, bucketStates, bucketSegments, bucketOpen, bucketRounds, bucketParts, bucketIndex}

var errGone = batch.Errorf(batch.Gone, "the batch was deleted, or its retention is over")

// Delete takes a batch away.
func (s *Store) Delete(ctx context.Context, tenant batch.TenantID, id batch.ID, force bool) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	return s.do(s.small, 0, func(t *txn) error {
		e, err := t.batch(tenant, id)
		if err != nil {
			return err
		}
		if err := e.p.Delete(force); err != nil {
			return err
		}
		return t.remove(s, e)
	})
}

// remove takes the records of a batch and leaves a tombstone.
func (t *txn) remove(s *Store, e *entry) error {
	tenant, id := splitTenantKey(e.key)
	e.gone = true
	for _, name := range []table{bucketProgress, bucketBatches, bucketActive, bucketUploads, bucketMoves} {
		if err := name.in(t.Tx).Delete(e.key); err != nil {
			return errBroken{err}
		}
	}
	if err := bucketEnded.in(t.Tx).Delete(endedKey(tenant, e.p.Finished, id)); err != nil {
		return errBroken{err}
	}
	t.touched = append(t.touched, queued{tenant, id})
	deleted := millisTime(dueMillis(t.now)) // the record and the key say the same
	if err := bucketGone.in(t.Tx).Put(e.key, record.EncodeTombstone(e.key, deleted)); err != nil {
		return errBroken{err}
	}
	for name, key := range map[table][]byte{bucketDoomed: e.key, bucketGoneBy: goneKey(e.key, deleted)} {
		if err := name.in(t.Tx).Put(key, []byte{1}); err != nil {
			return errBroken{err}
		}
	}
	t.after(func() {
		s.retire(id)
		delete(s.recent, id)
		s.log.Debug("batch removed", "tenant_id", tenant, "batch_id", batch.ID(id))
		hint(s.doomedReady)
	})
	return nil
}

// absent says of a batch that is not there whether it was.
func absent(tx *bbolt.Tx, key []byte) error {
	v := bucketGone.in(tx).Get(key)
	if v == nil {
		return errNoBatch
	}
	deleted, err := openTombstone(key, v)
	if err == nil && batch.Forgotten(deleted, time.Now()) {
		return errNoBatch
	}
	return errGone // a damaged one too: check names it
}

func openTombstone(key, v []byte) (time.Time, error) {
	p, err := record.Open(record.KindTombstone, key, v)
	if err != nil {
		return time.Time{}, err
	}
	return record.DecodeTombstone(p)
}

// isAbsent reports whether err says that a batch or a message is not there.
func isAbsent(err error) bool {
	code := batch.CodeOf(err)
	return code == batch.NotFound || code == batch.Gone
}

// doomed reports whether the batch of a message was deleted: the message is
// not there any more, though its record may be.
func doomed(tx *bbolt.Tx, m batch.Message) bool {
	return bucketDoomed.in(tx).Get(tenantKey(m.Tenant, m.Batch)) != nil
}

// How much one step of a removal takes, and how long after it the next comes.
const (
	wipeRecords = 500
	wipePause   = 20 * time.Millisecond
)

// A wiping is one step of a removal: what it may still take.
type wiping struct {
	s              *Store
	t              *txn
	records, bytes int
	messages       bool // it took some
}

func (w *wiping) spent() bool { return w.records <= 0 || w.bytes <= 0 }

// wipe removes what is left of deleted batches, as much as fits in one step.
func (s *Store) wipe() (more bool, err error) {
	some := false
	err = s.view(context.Background(), func(tx *bbolt.Tx) error {
		k, _ := bucketDoomed.in(tx).Cursor().First()
		some = k != nil
		return nil
	})
	if err != nil || !some {
		return false, err
	}
	err = s.do(s.bulk, stageBytes, func(t *txn) error {
		w := wiping{s: s, t: t, records: wipeRecords, bytes: maxBytes}
		more, err = w.run()
		if err == nil && w.messages { // the ids of messages go on behind the greatest there was
			err = bucketMeta.in(t.Tx).Put(metaMessage, record.Seal(record.KindMeta, metaMessage, s.lastMessage[:]))
		}
		if err != nil {
			return errBroken{err}
		}
		return nil
	})
	return more, err
}

func (w *wiping) run() (more bool, err error) {
	rows := bucketDoomed.in(w.t.Tx)
	for {
		k, _ := rows.Cursor().First()
		if k == nil {
			return false, nil
		}
		if w.spent() {
			return true, nil
		}
		key := bytes.Clone(k)
		if done, err := w.batch(splitTenantKey(key)); err != nil || !done {
			return true, err
		}
		w.records--
		if err := rows.Delete(key); err != nil {
			return true, err
		}
	}
}

// batch removes what is left of one batch.
func (w *wiping) batch(tenant batch.TenantID, id [16]byte) (done bool, err error) {
	for c := bucketByBatch.in(w.t.Tx).Cursor(); ; {
		k, _ := c.Seek(id[:])
		if !bytes.HasPrefix(k, id[:]) {
			break
		}
		if w.spent() {
			return false, nil
		}
		if done, err := w.message(tenant, bytes.Clone(k)); err != nil || !done {
			return false, err
		}
	}
	for _, name := range ofBatch {
		if done, err := w.rows(name, id[:]); err != nil || !done {
			return false, err
		}
	}
	return true, nil
}

// message removes a message that stands under a key of bucketByBatch, its
// attempts first.
func (w *wiping) message(tenant batch.TenantID, byBatch []byte) (done bool, err error) {
	id := [16]byte(byBatch[16:])
	if done, err := w.rows(bucketAttempts, id[:]); err != nil || !done {
		return false, err
	}
	key := tenantKey(tenant, id)
	m, err := readMessage(w.t.Tx, key) // a damaged one a claim takes out of its lane
	if err == nil && m.State == batch.MessageWaiting && bucketOutbox.in(w.t.Tx).Get(outboxKey(laneOf(m), m.Due, m.ID)) != nil {
		if err := w.t.leave(w.s, m); err != nil {
			return false, err
		}
	}
	w.messages = true
	w.records -= 5
	for _, name := range []table{bucketSending, bucketDead, bucketMessages} {
		if err := name.in(w.t.Tx).Delete(key); err != nil {
			return false, err
		}
	}
	return true, bucketByBatch.in(w.t.Tx).Delete(byBatch)
}

// rows removes the rows of a table whose keys have a prefix.
func (w *wiping) rows(name table, prefix []byte) (done bool, err error) {
	rows := name.in(w.t.Tx)
	var keys [][]byte
	c := rows.Cursor()
	k, v := c.Seek(prefix)
	for ; bytes.HasPrefix(k, prefix) && !w.spent(); k, v = c.Next() {
		keys = append(keys, bytes.Clone(k))
		w.records, w.bytes = w.records-1, w.bytes-len(v)
	}
	done = !bytes.HasPrefix(k, prefix)
	for _, k := range keys {
		if err := rows.Delete(k); err != nil {
			return false, err
		}
	}
	return done, nil
}

// removeLoop removes what is left of deleted batches, a step at a time, until
// the store closes. What is left then goes with the next start.
func (s *Store) removeLoop() {
	for {
		var wait <-chan time.Time
		more, err := s.wipe()
		switch {
		case s.Err() != nil, errors.Is(err, errClosed):
			return
		case err != nil:
			s.log.Error("what is left of deleted batches stays for now", "error", err)
			wait = time.After(tryAgain)
		case more:
			wait = time.After(wipePause)
		}
		select {
		case <-s.stop:
			return
		case <-s.doomedReady:
		case <-wait:
		}
	}
}
