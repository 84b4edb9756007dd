package bolt_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/callbatch/callbatch/batch"
)

// view returns all that a store shows of what it has promised, as text. What
// a start may change is left out: it interrupts attempts that were under way,
// ends batches that were stopped, lays out rounds, and goes on moving messages
// to other hosts.
func view(ctx context.Context, s batch.Reader, tenants []batch.TenantID) (string, error) {
	v := viewer{ctx: ctx, store: s}
	for _, t := range tenants {
		if err := v.tenant(t); err != nil {
			return "", err
		}
	}
	return v.text.String(), nil
}

type viewer struct {
	ctx   context.Context
	store batch.Reader
	text  strings.Builder
}

func (v *viewer) line(format string, args ...any) { fmt.Fprintf(&v.text, format+"\n", args...) }

func (v *viewer) tenant(t batch.TenantID) error {
	hosts, err := v.store.Hosts(v.ctx, t)
	if err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	for _, h := range hosts {
		v.line("host %+v", h)
	}
	if err := v.batches(t); err != nil {
		return err
	}
	return v.feed(t)
}

func (v *viewer) batches(t batch.TenantID) error {
	q := batch.BatchQuery{Tenant: t, Limit: 100}
	for {
		list, next, err := v.store.Batches(v.ctx, q)
		if err != nil {
			return fmt.Errorf("batches: %w", err)
		}
		for _, b := range list {
			if err := v.batch(b); err != nil {
				return fmt.Errorf("%s: %w", b.ID, err)
			}
		}
		if next == nil {
			return nil
		}
		q.Before = next
	}
}

func (v *viewer) batch(b batch.Batch) error {
	v.line("%s items %d blocks %d bytes %d created %s options %+v", b.ID, b.Items, b.Blocks, b.Bytes, b.Created, b.Options)
	if b.Status == batch.Open {
		return v.parts(b)
	}
	if moving(b) {
		v.line("  round %d succeeded %d failed %d", b.Round, b.Done.Succeeded, b.Done.Failed)
	} else {
		v.line("  %s %q round %d %+v open %d finished %s messages %+v terminal %s digest %x",
			startless(b.Status), b.Reason, b.Round, b.Done, b.Open, b.Finished, b.Messages, b.Terminal, b.Digest)
	}
	if err := v.results(b); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	if err := v.items(b); err != nil {
		return fmt.Errorf("items: %w", err)
	}
	if moving(b) {
		return nil // their messages are made at the end
	}
	return v.messages(b)
}

// moving reports whether a store goes on with a batch by itself: it is being
// stopped, or was, or is in a later round.
func moving(b batch.Batch) bool {
	return b.Lapsed || b.Status == batch.Canceling || b.Status == batch.Canceled || b.Round > 1
}

// startless makes one of queued and running: memory may know of a start that
// the disk does not, and need not.
func startless(s batch.Status) batch.Status {
	if s == batch.Running {
		return batch.Queued
	}
	return s
}

// results shows those of every round; of the current one only what surely
// stays.
func (v *viewer) results(b batch.Batch) error {
	for n := 1; n <= b.Round; n++ {
		if err := v.round(b, n); err != nil {
			return err
		}
	}
	return nil
}

func (v *viewer) round(b batch.Batch, n int) error {
	q := batch.ResultQuery{Limit: math.MaxInt, Round: n}
	for {
		page, err := v.store.Results(v.ctx, b.Tenant, b.ID, q)
		if err != nil {
			return err
		}
		for _, r := range page.Results {
			if n < b.Round || r.Status != batch.ItemCanceled && r.Status != batch.ItemExpired {
				v.line("  result of round %d %s %x", n, r.Finished, sha256.Sum256(batch.AppendResult(nil, r)))
			}
		}
		if page.Last {
			return nil
		}
		q.From = page.Next
	}
}

// items looks at some of the items: each costs the reading of its block.
func (v *viewer) items(b batch.Batch) error {
	for i := 0; i < b.Items; i += 37 {
		it, err := v.store.Item(v.ctx, b.Tenant, b.ID, i)
		if err != nil {
			return err
		}
		if it.Status == batch.ItemRunning || it.Status == batch.ItemCanceled || it.Status == batch.ItemExpired {
			it.Status = batch.ItemPending
		}
		v.line("  item %d %q %s attempts %d %x", it.Index, it.ID, it.Status, it.Attempts, sha256.Sum256(it.Input))
	}
	return nil
}

func (v *viewer) messages(b batch.Batch) error {
	q := batch.MessageQuery{Tenant: b.Tenant, Batch: &b.ID, Limit: 100}
	for {
		list, next, err := v.store.Messages(v.ctx, q)
		if err != nil {
			return fmt.Errorf("messages: %w", err)
		}
		for _, m := range list {
			if err := v.message(m); err != nil {
				return fmt.Errorf("%s: %w", m.ID, err)
			}
		}
		if next == nil {
			return nil
		}
		q.Before = next
	}
}

func (v *viewer) message(m batch.Message) error {
	body, err := v.store.Body(v.ctx, m)
	if err != nil {
		return err
	}
	_, attempts, err := v.store.Message(v.ctx, m.Tenant, m.ID)
	if err != nil {
		return err
	}
	attempts = slices.DeleteFunc(attempts, func(a batch.Attempt) bool {
		return a.Error != nil && a.Error.Category == batch.Interrupted
	})
	if m.Type == batch.TypeProgress { // an attempt of it that was cut short is its last
		v.line("  %s %s round %d, body %x", m.ID, m.Type, m.Round, sha256.Sum256(body))
		return nil
	}
	state := m.State
	if state == batch.MessageSending || state == batch.MessageParked {
		state = batch.MessageWaiting
	}
	if state == batch.MessageWaiting {
		m.Host = ""
	}
	v.line("  %s %s round %d to %s, %s %q after %d, created %s, body %x", m.ID, m.Type, m.Round, m.Host, state, m.Reason, m.Made, m.Created, sha256.Sum256(body))
	for _, a := range attempts {
		v.line("    attempt %d started %s", a.Number, a.Started)
	}
	return nil
}

// feed shows the order of the messages, but for those of batches that were
// stopped.
func (v *viewer) feed(t batch.TenantID) error {
	q := batch.FeedQuery{Tenant: t, Limit: 100}
	for {
		page, err := v.store.Feed(v.ctx, q)
		if err != nil {
			return fmt.Errorf("feed: %w", err)
		}
		for _, e := range page.Entries {
			b, err := v.store.Batch(v.ctx, t, e.Batch)
			if err != nil {
				return err
			}
			if !moving(b) {
				v.line("feed %s %x", e.ID, sha256.Sum256(e.Body))
			}
		}
		if page.Next == q.After {
			return nil
		}
		q.After = page.Next
	}
}
