package bolt

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// Keys returns all API keys.
func (s *Store) Keys(ctx context.Context) (keys []batch.Key, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		return bucketKeys.in(tx).ForEach(func(k, v []byte) error {
			p, err := record.Open(record.KindKey, k, v)
			if err != nil {
				return err
			}
			key, err := record.DecodeKey(p)
			keys = append(keys, key)
			return err
		})
	})
	return keys, err
}

// AddKey keeps a new API key.
func (s *Store) AddKey(ctx context.Context, k batch.Key, onlyFirst bool) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	return s.do(s.small, 0, func(t *txn) error {
		b := bucketKeys.in(t.Tx)
		if first, _ := b.Cursor().First(); onlyFirst && first != nil {
			return batch.Errorf(batch.Conflict, "there is a key already")
		}
		key := tenantKey(k.Tenant, k.ID)
		return b.Put(key, record.EncodeKey(key, k))
	})
}

// Secrets returns the signing secrets of a tenant; the first call makes the
// first secret.
func (s *Store) Secrets(ctx context.Context, tenant batch.TenantID, fresh batch.Secret) ([]batch.Secret, error) {
	var found []batch.Secret
	err := s.view(ctx, func(tx *bbolt.Tx) (err error) {
		found, err = readSecrets(tx, tenant)
		return err
	})
	if err != nil || len(found) > 0 {
		return alive(found), err
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	err = s.do(s.small, 0, func(t *txn) (err error) {
		if found, err = readSecrets(t.Tx, tenant); err != nil || len(found) > 0 {
			return err
		}
		found = []batch.Secret{fresh}
		return bucketSecrets.in(t.Tx).Put(tenant[:], record.EncodeSecrets(tenant[:], found))
	})
	return found, err
}

// Rotate makes fresh the current secret.
func (s *Store) Rotate(ctx context.Context, tenant batch.TenantID, fresh batch.Secret, keep time.Duration) (secrets []batch.Secret, err error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	err = s.do(s.small, 0, func(t *txn) error {
		found, err := readSecrets(t.Tx, tenant)
		if err != nil {
			return err
		}
		secrets = []batch.Secret{fresh}
		until := t.now.Add(keep).UTC()
		for _, old := range alive(found) {
			if old.Until.IsZero() || old.Until.After(until) {
				old.Until = until
			}
			if old.Until.After(t.now) {
				secrets = append(secrets, old)
			}
		}
		if len(secrets) > batch.MaxSecrets {
			return batch.Refuse(batch.Conflict, "too_many_secrets", "%d secrets sign already: wait until one has ended, or keep none", len(secrets)-1)
		}
		return bucketSecrets.in(t.Tx).Put(tenant[:], record.EncodeSecrets(tenant[:], secrets))
	})
	return secrets, err
}

func readSecrets(tx *bbolt.Tx, tenant batch.TenantID) ([]batch.Secret, error) {
	v := bucketSecrets.in(tx).Get(tenant[:])
	if v == nil {
		return nil, nil
	}
	p, err := record.Open(record.KindSecrets, tenant[:], v)
	if err != nil {
		return nil, err
	}
	return record.DecodeSecrets(p)
}

// alive leaves out what signs no longer.
func alive(all []batch.Secret) (live []batch.Secret) {
	for _, s := range all {
		if s.Until.IsZero() || s.Until.After(time.Now()) {
			live = append(live, s)
		}
	}
	return live
}

// linkKeyBytes is the length of the key that signs links.
const linkKeyBytes = 32

func newLinkKey() []byte {
	k := make([]byte, linkKeyBytes)
	rand.Read(k) // never fails: see crypto/rand
	return k
}

func readLinkKey(tx *bbolt.Tx) ([]byte, error) {
	p, err := record.Open(record.KindMeta, metaLinks, bucketMeta.in(tx).Get(metaLinks))
	if err != nil || len(p) != linkKeyBytes {
		return nil, errors.Join(err, batch.Errorf(batch.Damaged, "the meta record %s is damaged", metaLinks))
	}
	return bytes.Clone(p), nil
}

// LinkKey returns the key that signs links.
func (s *Store) LinkKey(context.Context) ([]byte, error) {
	return bytes.Clone(s.terms.Links.Key), nil
}
