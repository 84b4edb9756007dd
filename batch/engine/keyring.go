package engine

import (
	"context"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback/signature"
)

// How long and of how many tenants secrets are remembered: a rotation takes
// effect within the time.
const (
	keysFor  = 5 * time.Second
	mostKeys = 1000
)

// A keyring remembers the signing secrets of tenants for a moment.
type keyring struct {
	store Store
	mu    sync.Mutex
	known map[batch.TenantID]keys
}

type keys struct {
	secrets []signature.Secret
	at      time.Time
}

// of returns the tenant's live secrets, newest first. A tenant without any
// gets its first.
func (r *keyring) of(ctx context.Context, t batch.TenantID) ([]signature.Secret, error) {
	r.mu.Lock()
	k := r.known[t]
	r.mu.Unlock()
	now := time.Now()
	if k.secrets != nil && now.Sub(k.at) < keysFor {
		return k.secrets, nil
	}
	kept, err := r.store.Secrets(ctx, t, batch.Secret{Text: signature.NewSecret().Reveal(), Created: now.UTC()})
	if err != nil {
		return nil, err
	}
	k = keys{at: now}
	for _, s := range kept {
		if !s.Until.IsZero() && !now.Before(s.Until) {
			continue
		}
		secret, err := signature.ParseSecret(s.Text)
		if err != nil {
			return nil, err
		}
		k.secrets = append(k.secrets, secret)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil || len(r.known) >= mostKeys {
		r.known = map[batch.TenantID]keys{}
	}
	r.known[t] = k
	return k.secrets, nil
}
