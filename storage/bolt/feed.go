package bolt

import (
	"bytes"
	"cmp"
	"context"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
)

// Feed returns messages in the order in which they were made durable. Places
// are given within the transaction that makes a message, and there is one
// transaction at a time, so none is ever filled behind one that is seen.
func (s *Store) Feed(ctx context.Context, q batch.FeedQuery) (batch.FeedPage, error) {
	page := batch.FeedPage{Next: q.After}
	most := cmp.Or(q.Bytes, 1<<20)
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketFeed).Cursor()
		size, begun := 0, time.Now()
		for k, v := c.Seek(append(feedKey(q.Tenant, q.After), 0)); bytes.HasPrefix(k, q.Tenant[:]); k, v = c.Next() {
			if len(page.Entries) == q.Limit || size >= most || page.Next > q.After && time.Since(begun) > readTime {
				return nil
			}
			e, err := readEntry(tx, q.Tenant, v)
			if err != nil && !s.damaged(err, "message", be.Uint64(k[16:])) {
				return err
			}
			page.Next = be.Uint64(k[16:])
			if err == nil {
				page.Entries = append(page.Entries, e)
				size += len(e.Body)
			}
		}
		return nil
	})
	return page, err
}

func readEntry(tx *bbolt.Tx, t batch.TenantID, id []byte) (e batch.FeedEntry, err error) {
	if len(id) != len(batch.MessageID{}) {
		return e, batch.Errorf(batch.Damaged, "a place of the feed names no message")
	}
	if e.Message, err = readMessage(tx, tenantKey(t, [16]byte(id))); err != nil {
		return e, err
	}
	results, err := readRefs(tx, e.Message)
	if err != nil {
		return e, err
	}
	e.Body = batch.AppendBody(nil, e.Message, results)
	return e, nil
}

// Posted returns a channel that is closed when the next message has been
// made.
func (s *Store) Posted() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posted
}
