package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/callbatch/callbatch/callback/signature"
)

// A keyring holds the secret of a server, and asks for it anew when a
// signature does not fit: it may have been rotated.
type keyring struct {
	fetch func(context.Context) (string, error)
	log   io.Writer // told of a new secret, and why there is none

	asking chan struct{} // has room for the one who asks
	asked  time.Time     // when that was begun the last time; his alone

	mu      sync.Mutex
	current signature.Secret
	former  []former
}

// A former secret is one that was the server's until it was found to have
// another.
type former struct {
	secret signature.Secret
	until  time.Time // from when on it is not accepted
}

func newKeyring(fetch func(context.Context) (string, error), log io.Writer) *keyring {
	return &keyring{fetch: fetch, log: log, asking: make(chan struct{}, 1)}
}

// Of a keyring: how long a former secret is still accepted, for what was under
// way; how often at most the server is asked, and how long it has to answer,
// which together leave time to answer the webhook.
const (
	formerFor     = 5 * time.Minute
	fetchPause    = time.Second
	fetchPatience = 3 * time.Second
)

// verify verifies a webhook that was received now.
func (k *keyring) verify(ctx context.Context, header http.Header, body []byte, now time.Time) error {
	err := signature.Verify(header, body, now, 0, k.secrets()...)
	if !errors.Is(err, signature.ErrNoMatch) {
		return err
	}
	k.renew(ctx)
	return signature.Verify(header, body, now, 0, k.secrets()...)
}

// secrets returns those that are accepted now.
func (k *keyring) secrets() []signature.Secret {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := []signature.Secret{k.current}
	for _, f := range k.former {
		if time.Now().Before(f.until) {
			all = append(all, f.secret)
		}
	}
	return all
}

// renew returns when the server has been asked, by whomever, since it was
// called, or when ctx is over.
func (k *keyring) renew(ctx context.Context) {
	called := time.Now()
	select {
	case <-ctx.Done():
		return
	case k.asking <- struct{}{}:
	}
	defer func() { <-k.asking }()
	if k.asked.After(called) {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(time.Until(k.asked.Add(fetchPause))):
	}
	k.asked = time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, fetchPatience, errWaited)
	defer cancel()
	if err := k.learn(ctx); err != nil {
		fmt.Fprintf(k.log, "no signature fits, and the server does not tell its secret: %s\n", printable(err.Error(), mostLine))
	}
}

// learn asks the server for its secret.
func (k *keyring) learn(ctx context.Context) error {
	text, err := k.fetch(ctx)
	if err != nil {
		return err
	}
	secrets, err := parseSecrets([]string{text})
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current.IsZero() {
		k.current = secrets[0]
		return nil
	}
	if k.current.Reveal() == text {
		return nil
	}
	now := time.Now()
	kept := []former{{k.current, now.Add(formerFor)}}
	for _, f := range k.former {
		if now.Before(f.until) {
			kept = append(kept, f)
		}
	}
	k.current, k.former = secrets[0], kept
	fmt.Fprintln(k.log, "the server has a new secret")
	return nil
}
