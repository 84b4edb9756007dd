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
	fmt.Fprintf(w.stderr, "%s; asking again, which does nothing twice\n", printable(err.Error(), mostLine))
	const first, longest = 200 * time.Millisecond, 5 * time.Second
	begun := time.Now()
	for pause := first; ; pause = min(2*pause, longest) {
		select {
		case <-ctx.Done():
			return got, context.Cause(ctx)
		case <-time.After(pause):
		}
		if got, err = call(); !passes(err) || time.Since(begun) > persistence {
			return got, err
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
