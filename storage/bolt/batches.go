package bolt

import (
	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
	"go.etcd.io/bbolt"
)

// An entry is a batch as a transaction sees and changes it: read at most
// once, written at most once, whatever the number of steps.
type entry struct {
	spec   *batch.Spec // nil until wanted
	p      batch.Progress
	over   bool // it had ended before this transaction
	key    []byte
	mark   bool // is to be written
	respec bool // the spec as well
	gone   bool // the batch was removed
}

// how says how the transaction changed the batch.
func (e *entry) how() batch.Change {
	switch {
	case !e.p.Status.Terminal():
		return batch.Moved
	case e.over:
		return batch.Settled
	default:
		return batch.Ended
	}
}

// batch returns the entry of a batch. One that is not there is NotFound, or
// Gone if it was.
func (t *txn) batch(tenant batch.TenantID, id batch.ID) (*entry, error) {
	if e := t.progress[queued{tenant, id}]; e != nil {
		if e.gone {
			return nil, errGone
		}
		return e, nil
	}
	k := tenantKey(tenant, id)
	p, err := readProgress(t.Tx, k)
	if err != nil {
		return nil, err
	}
	e := &entry{p: p, over: p.Status.Terminal(), key: k}
	t.progress[queued{tenant, id}] = e
	return e, nil
}

// spec returns the spec of a batch that the store may have in memory.
func (t *txn) spec(s *Store, e *entry) (*batch.Spec, error) {
	if e.spec != nil {
		return e.spec, nil
	}
	tenant, id := splitTenantKey(e.key)
	s.mu.Lock()
	if lv := s.live[id]; lv != nil {
		e.spec = lv.spec
	} else {
		e.spec = s.recent[id]
	}
	s.mu.Unlock()
	if e.spec == nil {
		spec, err := readSpec(t.Tx, tenant, id)
		if err != nil {
			return nil, err
		}
		e.spec = &spec
	}
	return e.spec, nil
}

// remember keeps the spec of a batch that has ended in memory for a while:
// its messages are still to be sent. The store is locked.
func (s *Store) remember(spec *batch.Spec) {
	for id := range s.recent {
		if len(s.recent) < specsKept {
			break
		}
		delete(s.recent, id)
	}
	s.recent[spec.ID] = spec
}

// change marks an entry to be written at the end of the transaction.
func (t *txn) change(e *entry) {
	if !e.mark {
		e.mark = true
		t.dirty = append(t.dirty, e)
	}
}

// flush writes what changed.
func (t *txn) flush() error {
	b := bucketProgress.in(t.Tx)
	for _, e := range t.dirty {
		if e.gone {
			continue
		}
		if err := b.Put(e.key, record.EncodeProgress(e.key, e.p)); err != nil {
			return err
		}
		if !e.respec {
			continue
		}
		if err := bucketBatches.in(t.Tx).Put(e.key, record.EncodeSpec(e.key, *e.spec)); err != nil {
			return err
		}
	}
	return nil
}

func readProgress(tx *bbolt.Tx, key []byte) (batch.Progress, error) {
	v := bucketProgress.in(tx).Get(key)
	if v == nil {
		return batch.Progress{}, absent(tx, key)
	}
	return decodeProgress(key, v)
}

func decodeProgress(key, v []byte) (batch.Progress, error) {
	p, err := record.Open(record.KindProgress, key, v)
	if err != nil {
		return batch.Progress{}, err
	}
	return record.DecodeProgress(p)
}
