package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback/signature"
)

// How long and of how many tenants secrets are remembered: a rotation takes
// effect within the time.
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
	k := r.keys(t)
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := time.Now(); !now.Before(k.until) {
		kept, err := r.store.Secrets(ctx, t, batch.Secret{Text: signature.NewSecret().Reveal(), Created: now.UTC()})
		if err != nil {
			return nil, err
		}
		if err := k.set(kept, now); err != nil {
			return nil, err
		}
	}
	return k.secrets, nil
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
