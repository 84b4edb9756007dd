package bolt

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// Reserve begins a request that bears an Idempotency-Key. Who has begun is
// known in memory: a file has one owner.
func (s *Store) Reserve(ctx context.Context, tenant batch.TenantID, key string) (bound *batch.Binding, release func(), err error) {
	if err := s.ready(ctx); err != nil {
		return nil, nil, err
	}
	at := string(bindingKey(tenant, key))
	s.mu.Lock()
	_, taken := s.reserved[at]
	if !taken {
		s.reserved[at] = struct{}{}
	}
	s.mu.Unlock()
	if taken {
		return nil, nil, batch.InProgress()
	}
	release = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.reserved, at)
	}
	// What the one before bound was durable before it let go.
	err = s.view(ctx, func(tx *bbolt.Tx) (err error) {
		bound, err = readBinding(tx, []byte(at))
		return err
	})
	if bound == nil && err == nil {
		return nil, release, nil
	}
	release()
	return bound, func() {}, err
}

// readBinding returns what a key is bound to, nil if nothing.
func readBinding(tx *bbolt.Tx, key []byte) (*batch.Binding, error) {
	v := bucketBindings.in(tx).Get(key)
	if v == nil {
		return nil, nil
	}
	p, err := record.Open(record.KindBinding, key, v)
	if err != nil {
		return nil, err
	}
	b, err := record.DecodeBinding(p)
	return &b, err
}

// bind keeps what came of a request with an Idempotency-Key, as the last write
// of its step.
func (t *txn) bind(tenant batch.TenantID, once batch.Once, id batch.ID, count int) error {
	if once.Key == "" {
		return nil
	}
	key := bindingKey(tenant, once.Key)
	there, err := readBinding(t.Tx, key)
	if err != nil {
		return broken(err)
	}
	b, err := once.Binds(there, id, count, t.now.UTC().Truncate(time.Millisecond))
	if err != nil {
		return broken(err)
	}
	return broken(errors.Join(
		bucketBindings.in(t.Tx).Put(key, record.EncodeBinding(key, b)),
		bucketBound.in(t.Tx).Put(boundKey(b.Made, key), []byte{1}),
	))
}

// unbindChunk is how many old bindings go in one step.
const unbindChunk = 500

// unbind removes some of the bindings that have been kept long enough.
func (t *txn) unbind() (more bool, err error) {
	var old [][]byte
	c := bucketBound.in(t.Tx).Cursor()
	for k, _ := c.First(); k != nil && len(old) < unbindChunk; k, _ = c.Next() {
		if b := (batch.Binding{Made: millisTime(be.Uint64(k))}); !b.Old(t.now) {
			break
		}
		old = append(old, append([]byte(nil), k...))
	}
	for _, k := range old {
		if err := errors.Join(bucketBound.in(t.Tx).Delete(k), bucketBindings.in(t.Tx).Delete(k[8:])); err != nil {
			return false, broken(err)
		}
	}
	return len(old) == unbindChunk, nil
}
