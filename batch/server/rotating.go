package server

import (
	"context"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
)

// rotating is a store whose rotations the engine knows of once they return.
// It hears of those that failed as well: one of them may have been kept.
type rotating struct {
	batch.Store
	engine *engine.Engine
}

func (r rotating) Rotate(ctx context.Context, tenant batch.TenantID, fresh batch.Secret, keep time.Duration) ([]batch.Secret, error) {
	defer r.engine.Rotated(tenant)
	return r.Store.Rotate(ctx, tenant, fresh, keep)
}
