package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/callbatch/callbatch/batch/client"
)

// outlast makes a call until the server is there and has time for it, less and
// less often, and says once that it waits. Any other error ends it, and so does
// ctx, with its cause.
func outlast[T any](ctx context.Context, w *world, call func() (T, error)) (T, error) {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	for pause := first; ; pause = min(2*pause, longest) {
		got, err := call()
		var away *client.Unreachable
		var refused *client.Error
		var asked time.Duration // to be left alone
		switch {
		case errors.As(err, &refused) && refused.Temporary():
			asked = refused.RetryAfter
		case !errors.As(err, &away):
			return got, err
		}
		if pause == first {
			fmt.Fprintf(w.stderr, "%s; asking again until that is over\n", printable(err.Error(), mostLine))
		}
		select {
		case <-ctx.Done():
			return got, context.Cause(ctx)
		case <-time.After(max(pause, asked)):
		}
	}
}
