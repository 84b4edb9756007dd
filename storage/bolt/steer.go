package bolt

import (
	"context"

	"github.com/callbatch/callbatch/batch"
)

// Cancel begins the end of a batch.
func (s *Store) Cancel(ctx context.Context, tenant batch.TenantID, id batch.ID) (batch.Batch, error) {
	return s.steer(ctx, tenant, id, (*batch.Progress).Cancel)
}

// Pause lets nothing more of a batch be claimed.
func (s *Store) Pause(ctx context.Context, tenant batch.TenantID, id batch.ID) (batch.Batch, error) {
	return s.steer(ctx, tenant, id, (*batch.Progress).Pause)
}

// Resume lets a paused batch go on.
func (s *Store) Resume(ctx context.Context, tenant batch.TenantID, id batch.ID) (batch.Batch, error) {
	return s.steer(ctx, tenant, id, (*batch.Progress).Resume)
}

// steer changes where a batch goes, in one small step, and returns it as it is
// now. Whatever is claimed while the step is under way is told to stop.
func (s *Store) steer(ctx context.Context, tenant batch.TenantID, id batch.ID, change func(*batch.Progress) (bool, error)) (batch.Batch, error) {
	return s.change(ctx, tenant, id, 0, func(t *txn, e *entry) error {
		changed, err := change(&e.p)
		if changed {
			t.change(e)
			t.follow(s, e)
		}
		return err
	})
}

// change does a step about one batch, of so many bytes at most, and returns the
// batch as it is then.
func (s *Store) change(ctx context.Context, tenant batch.TenantID, id batch.ID, bytes int, f func(*txn, *entry) error) (batch.Batch, error) {
	if err := s.ready(ctx); err != nil {
		return batch.Batch{}, err
	}
	err := s.do(s.small, bytes, func(t *txn) error {
		e, err := t.batch(tenant, id)
		if err != nil {
			return err
		}
		return f(t, e)
	})
	if err != nil {
		return batch.Batch{}, err
	}
	return s.Batch(ctx, tenant, id)
}

// follow has memory know, once it is durable, how a batch is steered.
func (t *txn) follow(s *Store, e *entry) {
	_, id := splitTenantKey(e.key)
	t.after(func() {
		if lv := s.live[id]; lv != nil {
			s.regate(lv, e.p)
		}
	})
}

// specBytes is about what the largest spec takes.
const specBytes = 128 << 10

// Amend changes a batch as its owner wants.
func (s *Store) Amend(ctx context.Context, tenant batch.TenantID, id batch.ID, a batch.Amendment) (batch.Batch, error) {
	return s.change(ctx, tenant, id, specBytes, func(t *txn, e *entry) error {
		was, err := t.spec(s, e)
		if err != nil {
			return err
		}
		spec, changed, err := e.p.Amend(*was, a, t.now)
		if err != nil || !changed {
			return err
		}
		return t.amend(s, e, was, &spec)
	})
}

// amend keeps another edition of a spec. Who has the last one in hand goes on
// with it: specs are replaced, never changed.
func (t *txn) amend(s *Store, e *entry, was, spec *batch.Spec) error {
	if batch.CallbackHost(spec.Options.CallbackURL) != batch.CallbackHost(was.Options.CallbackURL) {
		if err := t.beginMove(s, e.key); err != nil {
			return errBroken{err}
		}
	}
	e.spec, e.respec = spec, true
	t.change(e)
	t.after(func() {
		if lv := s.live[spec.ID]; lv != nil && (lv.spec != nil || len(lv.leases) > 0) {
			lv.spec = spec // also of a claim that is reading it: see Claim
		}
		if s.recent[spec.ID] != nil {
			s.recent[spec.ID] = spec
		}
	})
	t.follow(s, e)
	return nil
}
