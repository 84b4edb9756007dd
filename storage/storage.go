// Package storage opens a store by its name.
package storage

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/bolt"
)

// Options say how a store works; the zero value is right for a server.
type Options struct {
	Terms  batch.Terms  // of batches and messages; Links.Key is the store's own
	Logger *slog.Logger // default: discards
}

// Open opens the store that dsn names: the path of a file, which is made if
// it does not exist.
func Open(ctx context.Context, dsn string, o Options) (batch.Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if scheme, _, ok := strings.Cut(dsn, "://"); ok {
		return nil, fmt.Errorf("store %q: this version keeps its store in a file: give a path", scheme+"://…")
	}
	return bolt.Open(dsn, bolt.Options{Terms: o.Terms, Logger: o.Logger})
}
