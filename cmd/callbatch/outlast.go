package main

import (
	"context"
	"fmt"
)

// outlast makes a call until the server is there and has time for it, however
// long that takes, and says once that it waits.
func outlast[T any](ctx context.Context, w *world, call func() (T, error)) (T, error) {
	said := false
	return endure(ctx, 0, func(err error) {
		if !said {
			fmt.Fprintf(w.stderr, "%s; asking again until that is over\n", printable(err.Error(), mostLine))
		}
		said = true
	}, call)
}
