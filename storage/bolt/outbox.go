package bolt

import (
	"bytes"
	"context"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
)

// ClaimMessages takes due messages, a few from each lane in turn.
func (s *Store) ClaimMessages(ctx context.Context, c batch.MessageClaim) ([]batch.Delivery, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	// One claim at a time: what one has picked the next must not see.
	s.claiming.Lock()
	defer s.claiming.Unlock()
	picked, err := s.pickMessages(c)
	if err != nil || len(picked) == 0 {
		return nil, err
	}
	var out []batch.Delivery
	err = s.do(s.small, len(picked)<<10, func(t *txn) error {
		out = out[:0]
		for _, k := range picked {
			d, ok, err := t.claimMessage(s, k, c.PerHost)
			if err != nil {
				return errBroken{err}
			}
			if ok {
				out = append(out, d)
			}
		}
		return nil
	})
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, k := range picked {
			lane, _, _ := splitOutboxKey(k)
			s.wakeLane(lane)
		}
		return nil, err
	}
	return out, nil
}

// laneTurn is how many messages a lane gives before the next has its turn.
const laneTurn = 8

// pickMessages finds the outbox keys of messages that are due.
func (s *Store) pickMessages(c batch.MessageClaim) (picked [][]byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx, err := s.db.Begin(false)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	now := time.Now()
	s.lanes.rouse(now)
	for lane, enough := range s.full {
		if c.PerHost > enough {
			delete(s.full, lane)
			s.wakeLane(lane)
		}
	}
	cur := tx.Bucket(bucketOutbox).Cursor()
	taken := map[laneKey][][]byte{}
	for len(picked) < c.Max {
		lane, ok := s.lanes.take()
		if !ok {
			break
		}
		room := min(laneTurn, c.Max-len(picked), max(1, c.PerHost)-s.sending[lane]-len(taken[lane]))
		if room <= 0 {
			s.full[lane] = c.PerHost
			continue
		}
		keys, next := dueIn(cur, lane, taken[lane], room, now)
		switch {
		case len(keys) > 0:
			picked, taken[lane] = append(picked, keys...), append(taken[lane], keys...)
			s.wakeLane(lane)
		case !next.IsZero():
			s.lanes.sleep(laneTenant(lane), lane, next)
		default:
			s.lanes.forget(lane)
		}
	}
	return picked, nil
}

// dueIn returns up to most due keys of a lane behind those taken already.
// Without one it says when the next is due.
func dueIn(c *bbolt.Cursor, lane laneKey, taken [][]byte, most int, now time.Time) (keys [][]byte, next time.Time) {
	from := lane[:]
	if n := len(taken); n > 0 {
		from = append(bytes.Clone(taken[n-1]), 0)
	}
	for k, _ := c.Seek(from); len(keys) < most && bytes.HasPrefix(k, lane[:]); k, _ = c.Next() {
		if _, due, _ := splitOutboxKey(k); due.After(now) {
			return keys, due
		}
		keys = append(keys, bytes.Clone(k))
	}
	return keys, next
}

func laneTenant(l laneKey) (t batch.TenantID) {
	copy(t[:], l[:])
	return t
}

// wakeLane lets a lane be looked at again. The store is locked.
func (s *Store) wakeLane(l laneKey) { s.lanes.wakeUp(laneTenant(l), l) }

// claimMessage starts the attempt of a message if it still waits under key.
func (t *txn) claimMessage(s *Store, key []byte, perHost int) (d batch.Delivery, ok bool, err error) {
	b := t.Bucket(bucketOutbox)
	lane, _, id := splitOutboxKey(key)
	// Whatever is not claimed here, its lane is to be looked at again.
	defer func() {
		if !ok {
			t.after(func() {
				s.wakeLane(lane)
				hint(s.messagesChanged)
			})
		}
	}()
	if b.Get(key) == nil {
		return d, false, nil
	}
	if s.sendingIn(lane)+t.sending[lane] >= max(1, perHost) {
		return d, false, nil
	}
	m, err := readMessage(t.Tx, tenantKey(laneTenant(lane), id))
	if err == nil {
		err = t.deliverable(s, m)
	}
	if err != nil && !s.damaged(err, "message", id) {
		return d, false, err
	}
	if e := b.Delete(key); e != nil || err != nil {
		return d, false, e
	}
	d, err = t.startSending(s, m)
	return d, err == nil, err
}

// deliverable reads what starting an attempt will need.
func (t *txn) deliverable(s *Store, m batch.Message) error {
	e, err := t.batch(m.Tenant, m.Batch)
	if err == nil {
		_, err = t.spec(s, e)
	}
	return err
}

// NextMessage returns when a waiting message is next due.
func (s *Store) NextMessage(context.Context) (time.Time, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes.rouse(time.Now())
	at, ok := s.lanes.next()
	return at, ok, s.Err()
}

// MessagesChanged hints that ClaimMessages may find more.
func (s *Store) MessagesChanged() <-chan struct{} { return s.messagesChanged }
