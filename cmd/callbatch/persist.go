package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/callbatch/callbatch/batch/client"
)

// persistence is how long a call whose connection broke is made again.
const persistence = time.Minute

// persist makes a call that can be made twice without harm. If its connection
// breaks before the answer it is made again, for a while; a server that was
// never there, or that refuses, ends it at once.
func persist[T any](ctx context.Context, w *world, call func() (T, error)) (T, error) {
	got, err := call()
	var away *client.Unreachable
	if !errors.As(err, &away) || !away.Unknown {
		return got, err
	}
	anew(w, err)
	return endure(ctx, persistence, func(error) {}, call)
}

// anew says that a call is made once more.
func anew(w *world, err error) {
	fmt.Fprintf(w.stderr, "%s; trying again, which does nothing twice\n", printable(err.Error(), mostLine))
}

// endure makes a call again and again while the server is away or has no time,
// less and less often, until that has lasted for most, or for ever if that is
// 0. Any other error ends it, and so does ctx, with its cause. It tells lost
// what each call failed with.
func endure[T any](ctx context.Context, most time.Duration, lost func(error), call func() (T, error)) (T, error) {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	var failing time.Time // since when
	for pause := first; ; pause = min(2*pause, longest) {
		begun := time.Now()
		got, err := call()
		if !passes(err) {
			return got, err
		}
		lost(err)
		if now := time.Now(); failing.IsZero() || now.Sub(begun) > most/2 { // it was there for a while
			failing = now
		}
		if most > 0 && time.Since(failing) > most {
			return got, err
		}
		select {
		case <-ctx.Done():
			return got, context.Cause(ctx)
		case <-time.After(max(pause, asked(err))):
		}
	}
}

// passes reports whether an error may pass by itself: the server is away, has
// no time, or has not noticed yet that the first call's connection broke.
func passes(err error) bool {
	var away *client.Unreachable
	var refused *client.Error
	switch {
	case errors.As(err, &away):
		return true
	case errors.As(err, &refused):
		return refused.Temporary() || refused.Code == "idempotency_in_progress"
	}
	return false
}

// asked is how long the server wants to be left alone.
func asked(err error) time.Duration {
	var refused *client.Error
	if errors.As(err, &refused) {
		return refused.RetryAfter
	}
	return 0
}
