package bolt

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// A read transaction keeps every page that is freed meanwhile, so none lives
// longer than this or copies more than readBytes: what is longer is paged.
const (
	readTime  = 250 * time.Millisecond
	readBytes = 4 << 20
)

// view runs f in a read transaction. f must not lock the store.
func (s *Store) view(ctx context.Context, f func(tx *bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sn, err := s.enter()
	if err != nil {
		return err
	}
	defer sn.leave()
	return f(sn.tx)
}

// Batch returns a batch as it stands.
func (s *Store) Batch(ctx context.Context, tenant batch.TenantID, id batch.ID) (b batch.Batch, err error) {
	var due time.Time
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		b, err = readBatch(tx, tenant, id)
		due = firstDue(tx, b)
		return err
	})
	if err != nil {
		return batch.Batch{}, err
	}
	s.overlay(&b, due)
	return b, nil
}

// firstDue returns when the first of the open blocks of a batch is due.
func firstDue(tx *bbolt.Tx, b batch.Batch) time.Time {
	if !b.Status.Claimable() {
		return time.Time{}
	}
	k, _ := bucketOpen.in(tx).Cursor().Seek(b.ID[:])
	if !bytes.HasPrefix(k, b.ID[:]) {
		return time.Time{}
	}
	_, due := splitOpenKey(b.Tenant, k)
	return due
}

func readBatch(tx *bbolt.Tx, tenant batch.TenantID, id batch.ID) (b batch.Batch, err error) {
	if b.Progress, err = readProgress(tx, tenantKey(tenant, id)); err != nil {
		return b, err
	}
	b.Spec, err = readSpec(tx, tenant, id)
	return b, err
}

// overlay adds what only memory knows: what is in flight, how fast it goes or
// why it does not, and that a batch whose first results are not recorded yet
// has begun.
func (s *Store) overlay(b *batch.Batch, due time.Time) {
	if b.Status.Terminal() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lv := s.live[b.ID]
	if lv == nil {
		return
	}
	now := time.Now()
	b.InFlight = lv.inFlight
	b.Begin(lv.started)
	b.WaitingOn = batch.Standstill{Gate: lv.gate, InFlight: lv.inFlight, Held: len(lv.leases) > 0, Holder: lv.waitingOn, Due: due}.Why(now)
	if lv.pace != nil && b.WaitingOn == "" && b.Status == batch.Running {
		b.Rate = lv.pace.Rate(now)
	}
}

// listSteps bounds how many batches or messages one page looks at.
const listSteps = 4096

// Batches lists a tenant's batches, newest first.
func (s *Store) Batches(ctx context.Context, q batch.BatchQuery) (list []batch.Batch, next *batch.ID, err error) {
	var dues []time.Time
	late := time.Now().Add(readTime)
	size := 0
	stored := q
	stored.Status = 0 // which memory may know better
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		return backwards(bucketProgress.in(tx).Cursor(), q.Tenant[:], (*[16]byte)(q.Before), func(k []byte, steps int) (bool, error) {
			tenant, id := splitTenantKey(k)
			bid := batch.ID(id)
			if bytes.Compare(bid[:], q.Since[:]) < 0 {
				next = nil
				return false, nil
			}
			if len(list) == q.Limit || steps > listSteps || size > readBytes || steps > 1 && time.Now().After(late) {
				return false, nil
			}
			next = &bid
			b, err := readBatch(tx, tenant, id)
			if s.damaged(err, "batch", bid) {
				return true, nil
			}
			if err != nil {
				return false, err
			}
			if mayShow(b.Status, q.Status) && stored.Wants(b) {
				list, dues = append(list, b), append(dues, firstDue(tx, b))
				size += len(bucketBatches.in(tx).Get(k))
			}
			return true, nil
		}, func() { next = nil })
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list batches: %w", err)
	}
	kept := list[:0]
	for i, b := range list {
		if s.overlay(&b, dues[i]); q.Wants(b) {
			kept = append(kept, b)
		}
	}
	return kept, next, nil
}

// mayShow reports whether a batch that is kept with a status may be shown with
// the one that is wanted: the first items of a queued one may be under way.
func mayShow(kept, wanted batch.Status) bool {
	return wanted == 0 || wanted == kept || wanted == batch.Running && kept == batch.Queued
}

// backwards walks the keys under a 16-byte prefix from the newest to the
// oldest, beginning before a key if one is given, until f says no. end is
// called when there are no more.
func backwards(c *cursor, prefix []byte, before *[16]byte, f func(k []byte, steps int) (bool, error), end func()) error {
	var k []byte
	from := append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, 17)...)
	if before != nil {
		from = append(bytes.Clone(prefix), before[:]...)
	}
	if k, _ = c.Seek(from); k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	for steps := 0; bytes.HasPrefix(k, prefix); k, _ = c.Prev() {
		steps++
		if more, err := f(k, steps); err != nil || !more {
			return err
		}
	}
	end()
	return nil
}

// Messages lists messages, newest first.
func (s *Store) Messages(ctx context.Context, q batch.MessageQuery) ([]batch.Message, *batch.MessageID, error) {
	l := listing{s: s, q: q, now: time.Now()}
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		l.tx = tx
		name, prefix := listOf(q.State), q.Tenant[:]
		if q.Batch != nil {
			if key := tenantKey(q.Tenant, *q.Batch); bucketProgress.in(tx).Get(key) == nil {
				return absent(tx, key)
			}
			name, prefix = bucketByBatch, q.Batch[:]
		} else if waits := q.State == batch.MessageWaiting || q.State == batch.MessageParked; waits {
			if ids, few := fewWaiting(tx, q); few {
				return l.pick(ids)
			}
		}
		return backwards(name.in(tx).Cursor(), prefix, (*[16]byte)(q.Before), func(k []byte, steps int) (bool, error) {
			return l.add(batch.MessageID(k[16:]), steps)
		}, l.end)
	})
	return l.list, l.next, err
}

// A listing is a page of messages that grows.
type listing struct {
	s    *Store
	tx   *bbolt.Tx
	q    batch.MessageQuery
	now  time.Time
	list []batch.Message
	next *batch.MessageID
}

// add looks at the next message, until it says no.
func (l *listing) add(id batch.MessageID, steps int) (more bool, err error) {
	if len(l.list) == l.q.Limit || steps > listSteps {
		return false, nil
	}
	l.next = &id
	m, err := readMessage(l.tx, tenantKey(l.q.Tenant, id))
	if err == nil {
		m, err = shown(l.tx, m, l.now)
	}
	if l.s.damaged(err, "message", id) || batch.CodeOf(err) == batch.NotFound { // check names it
		return true, nil
	}
	if err == nil && doomed(l.tx, m) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if (l.q.State == 0 || l.q.State == m.State) && (l.q.Host == "" || l.q.Host == m.Host) {
		l.list = append(l.list, m)
	}
	return true, nil
}

func (l *listing) end() { l.next = nil }

// pick looks at some messages only.
func (l *listing) pick(ids []batch.MessageID) error {
	for i, id := range ids {
		if more, err := l.add(id, i); err != nil || !more {
			return err
		}
	}
	l.end()
	return nil
}

// fewWaiting returns the messages of a tenant that wait, newest first, if they
// are so few that to sort them is less than to look for them among all.
func fewWaiting(tx *bbolt.Tx, q batch.MessageQuery) (ids []batch.MessageID, few bool) {
	c := bucketOutbox.in(tx).Cursor()
	n := 0
	for k, _ := c.Seek(q.Tenant[:]); bytes.HasPrefix(k, q.Tenant[:]); k, _ = c.Next() {
		if n++; n > listSteps {
			return nil, false
		}
		if _, _, id := splitOutboxKey(k); q.Before == nil || bytes.Compare(id[:], q.Before[:]) < 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b batch.MessageID) int { return bytes.Compare(b[:], a[:]) })
	return ids, true
}

// listOf returns the bucket that has all messages in a state, and as few
// others as possible.
func listOf(s batch.MessageState) table {
	switch s {
	case batch.MessageSending:
		return bucketSending
	case batch.MessageExhausted, batch.MessageCanceled, batch.MessageBlocked:
		return bucketDead
	default:
		return bucketMessages
	}
}

// Message returns a message with its attempts.
func (s *Store) Message(ctx context.Context, tenant batch.TenantID, id batch.MessageID) (m batch.Message, as []batch.Attempt, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		if m, err = readMessage(tx, tenantKey(tenant, id)); err != nil {
			return err
		}
		if doomed(tx, m) {
			return errNoMessage
		}
		if m, err = shown(tx, m, time.Now()); err != nil {
			return err
		}
		c := bucketAttempts.in(tx).Cursor()
		for k, v := c.Seek(id[:]); bytes.HasPrefix(k, id[:]); k, v = c.Next() {
			p, err := record.Open(record.KindAttempt, k, v)
			if err != nil {
				return err
			}
			a, err := record.DecodeAttempt(p)
			if err != nil {
				return err
			}
			as = append(as, a)
		}
		return nil
	})
	return m, as, err
}

// Body returns the body of a message from its frozen ends and the results it
// names, which never change.
func (s *Store) Body(ctx context.Context, m batch.Message) (body []byte, err error) {
	if len(m.Refs) == 0 {
		return batch.AppendBody(nil, m, nil), nil
	}
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		if key := tenantKey(m.Tenant, m.Batch); bucketProgress.in(tx).Get(key) == nil {
			return absent(tx, key) // what it would carry may be there in part
		}
		results, err := readRefs(tx, m)
		if err == nil {
			body = batch.AppendBody(nil, m, results)
		}
		return err
	})
	return body, err
}

// readRefs returns the results a message names, as readSegments does.
func readRefs(tx *bbolt.Tx, m batch.Message) (results []batch.Result, err error) {
	var spec batch.Spec
	for _, ref := range m.Refs {
		k := batch.BlockKey{Tenant: m.Tenant, Batch: m.Batch, Part: ref.Part, Number: ref.Number}
		if batch.PartNumber(k.Part) > 0 && len(spec.Parts) == 0 { // else the indexes of the part are those of the batch
			if spec, err = readSpec(tx, m.Tenant, m.Batch); err != nil {
				return nil, err
			}
		}
		first, _, err := readSpan(tx, &spec, k)
		if err != nil {
			return nil, err
		}
		rs, err := readSegments(tx, k, first, ref.Round, stretch{ref.From, ref.To})
		if err != nil {
			return nil, err
		}
		results = append(results, rs...)
	}
	return results, nil
}
