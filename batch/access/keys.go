package access

import (
	"context"
	"crypto/subtle"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// A Vault is where keys are kept.
type Vault interface {
	Keys(ctx context.Context) ([]batch.Key, error)
	AddKey(ctx context.Context, k batch.Key, onlyFirst bool) error
}

const (
	// staleAfter is how long a revoked key may still be good.
	staleAfter = 5 * time.Second

	// missAfter is how long a new key may still be unknown, and how often
	// strangers with made-up keys can make us ask the vault.
	missAfter = time.Second
)

// Keys knows the keys of a vault, as they were at most five seconds ago.
type Keys struct {
	vault Vault
	load  sync.Mutex // one reader of the vault at a time
	known atomic.Pointer[snapshot]
}

type snapshot struct {
	keys []batch.Key
	at   time.Time
}

// NewKeys returns the keys of a vault. It reads them when it is first asked.
func NewKeys(v Vault) *Keys { return &Keys{vault: v} }

// Find returns the key whose text this is. ok is false for a text that is no
// key, was never one or is one no longer: nobody is told which. An error
// means that the vault could not be read.
func (k *Keys) Find(ctx context.Context, text string) (key batch.Key, ok bool, err error) {
	if !WellFormed(text) {
		return batch.Key{}, false, nil
	}
	h := Hash(text)
	for _, age := range []time.Duration{staleAfter, missAfter} {
		s, err := k.younger(ctx, age)
		if err != nil {
			return batch.Key{}, false, err
		}
		if key, ok := s.find(h); ok {
			return key, key.Expires.IsZero() || time.Now().Before(key.Expires), nil
		}
	}
	return batch.Key{}, false, nil
}

// younger returns the keys as they were at most age ago.
func (k *Keys) younger(ctx context.Context, age time.Duration) (*snapshot, error) {
	if s := k.known.Load(); s != nil && time.Since(s.at) < age {
		return s, nil
	}
	k.load.Lock()
	defer k.load.Unlock()
	if s := k.known.Load(); s != nil && time.Since(s.at) < age {
		return s, nil
	}
	s := &snapshot{at: time.Now()}
	var err error
	if s.keys, err = k.vault.Keys(ctx); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	k.known.Store(s)
	return s, nil
}

// find looks at every key however soon it knows, so that its time says
// nothing.
func (s *snapshot) find(h []byte) (key batch.Key, ok bool) {
	for _, k := range s.keys {
		if subtle.ConstantTimeCompare(k.Hash, h) == 1 {
			key, ok = k, true
		}
	}
	return key, ok
}
