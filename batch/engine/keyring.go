package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback/signature"
)

// How long and of how many tenants secrets are remembered: a rotation that
// another node makes takes effect within the time, one of this node at once.
const (
	keysFor  = time.Second
	mostKeys = 1000
)

// A keyring remembers the signing secrets of tenants for a moment.
type keyring struct {
	store Store
	mu    sync.Mutex
	known map[batch.TenantID]*keys
}

// keys are the live secrets of one tenant.
type keys struct {
	mu      sync.Mutex // guards what follows; held while they are read, once for all who ask
	secrets []signature.Secret
	until   time.Time // when they are to be read again
}

// of returns the tenant's live secrets, newest first. A tenant without any
// gets its first. They are not to be changed.
func (r *keyring) of(ctx context.Context, t batch.TenantID) ([]signature.Secret, error) {
	for {
		k := r.keys(t)
		secrets, err := k.live(ctx, r.store, t)
		if err != nil || r.keys(t) == k { // or they were forgotten while they were read
			return secrets, err
		}
	}
}

// forget makes what is known of the tenant unknown, also to those who are
// reading it.
func (r *keyring) forget(t batch.TenantID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, t)
}

func (r *keyring) keys(t batch.TenantID) *keys {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.known[t]
	if k == nil {
		if len(r.known) >= mostKeys {
			clear(r.known)
		}
		k = new(keys)
		r.known[t] = k
	}
	return k
}

// live returns the secrets, read anew if it is time.
func (k *keys) live(ctx context.Context, s Store, t batch.TenantID) ([]signature.Secret, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := time.Now(); !now.Before(k.until) {
		kept, err := s.Secrets(ctx, t, batch.Secret{Text: signature.NewSecret().Reveal(), Created: now.UTC()})
		if err != nil {
			return nil, err
		}
		if err := k.set(kept, now); err != nil {
			return nil, err
		}
	}
	return k.secrets, nil
}

// set remembers those of the secrets, asked for at now, that sign: for the
// time, or until one signs no longer.
func (k *keys) set(kept []batch.Secret, now time.Time) error {
	var live []signature.Secret
	until := now.Add(keysFor)
	for _, s := range kept {
		if !s.Until.IsZero() {
			if !now.Before(s.Until) {
				continue
			}
			if s.Until.Before(until) {
				until = s.Until
			}
		}
		secret, err := signature.ParseSecret(s.Text)
		if err != nil {
			return err
		}
		live = append(live, secret)
	}
	if len(live) == 0 {
		return errors.New("the tenant has no secret that signs")
	}
	k.secrets, k.until = live, until
	return nil
}
