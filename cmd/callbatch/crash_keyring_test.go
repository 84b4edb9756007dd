package main_test

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// keyring holds the signing secrets that the API has shown, and says which of
// them have to sign, and which may not.
type keyring struct {
	mu    sync.Mutex // guards what follows
	keys  []key      // oldest first
	doubt bool       // a rotation was asked for, and what became of it is unknown
	live  int        // most secrets that may sign by now
}

type key struct {
	secret string
	hooks  *standardwebhooks.Webhook
	shown  time.Time
	ended  time.Time // zero: it signs
}

// A rotation takes effect within keyDelay: a second by its promise, and one
// for an attempt that has its secrets and waits for its turn.
const keyDelay = 2 * time.Second

// mostLive is how many secrets sign at once here; the server allows 10.
const mostLive = 9

// trust takes the current secret as the API shows it. It changes by rotations
// only, of which one may have happened that was not answered.
func (r *keyring) trust(secret string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.keys)
	switch {
	case n > 0 && r.keys[n-1].secret == secret:
	case n > 0 && !r.doubt:
		return errors.New("it is another than before")
	case slices.ContainsFunc(r.keys, func(k key) bool { return k.secret == secret }):
		return errors.New("it is an older one")
	default:
		if err := r.add(secret); err != nil {
			return err
		}
	}
	r.doubt = false
	r.live = max(r.live, 1)
	return nil
}

func (r *keyring) add(secret string) error {
	hooks, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return err
	}
	r.keys = append(r.keys, key{secret: secret, hooks: hooks, shown: time.Now()})
	return nil
}

// rotate begins a rotation, which leaves the others signing unless it is to
// end them. It reports whether there may be one.
func (r *keyring) rotate(alone bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live >= mostLive && !alone {
		return false
	}
	r.doubt = true
	r.live++
	return true
}

// rotated takes the secret that a rotation made; alone if it ended the others.
func (r *keyring) rotated(secret string, alone bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.keys, func(k key) bool { return k.secret == secret }) {
		return errors.New("it is not a new one")
	}
	r.doubt = false
	if alone {
		r.live = 1
		r.keys = slices.DeleteFunc(r.keys, func(k key) bool { return !k.ended.IsZero() })
		for i := range r.keys {
			r.keys[i].ended = time.Now()
		}
	}
	return r.add(secret)
}

// crowded reports whether it is time to end the older secrets.
func (r *keyring) crowded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live > mostLive/2
}

// verify says what is wrong with the signatures of an attempt that began then
// or later.
func (r *keyring) verify(h http.Header, body []byte, began time.Time) error {
	r.mu.Lock()
	keys := slices.Clone(r.keys)
	r.mu.Unlock()
	misfit := errors.New("there is no secret")
	fits, newest := false, true
	for _, k := range keys {
		misfit = k.hooks.Verify(body, h)
		fits = fits || misfit == nil
		switch {
		case !k.ended.IsZero():
			if misfit == nil && began.After(k.ended.Add(keyDelay)) {
				return errors.New("a secret signs that was ended")
			}
		case began.After(k.shown.Add(keyDelay)):
			newest = misfit == nil
		}
	}
	switch {
	case !fits:
		return misfit
	case !newest:
		return errors.New("the newest secret does not sign")
	}
	return nil
}
