package bolt

import (
	"bytes"
	"cmp"
	"context"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// Feed returns messages in the order of their ids. These are given within the
// transaction that makes a message, each greater than the last, and there is
// one transaction at a time: so none ever appears behind one that is seen.
func (s *Store) Feed(ctx context.Context, q batch.FeedQuery) (batch.FeedPage, error) {
	page := batch.FeedPage{Next: q.After}
	most := cmp.Or(q.Bytes, 1<<20)
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		c := bucketMessages.in(tx).Cursor()
		size, begun := 0, time.Now()
		for k, _ := c.Seek(append(tenantKey(q.Tenant, q.After), 0)); bytes.HasPrefix(k, q.Tenant[:]); k, _ = c.Next() {
			if len(page.Entries) == q.Limit || size >= most || page.Next != q.After && time.Since(begun) > readTime {
				return nil
			}
			_, id := splitTenantKey(k)
			e, err := readEntry(tx, k)
			if err != nil && !isAbsent(err) && !s.damaged(err, "message", batch.MessageID(id)) {
				return err
			}
			page.Next = id
			if err == nil {
				page.Entries = append(page.Entries, e)
				size += len(e.Body)
			}
		}
		return nil
	})
	return page, err
}

func readEntry(tx *bbolt.Tx, key []byte) (e batch.FeedEntry, err error) {
	if e.Message, err = readMessage(tx, key); err != nil {
		return e, err
	}
	if doomed(tx, e.Message) {
		return e, errNoMessage
	}
	results, err := readRefs(tx, e.Message)
	if err != nil {
		return e, err
	}
	e.Body = batch.AppendBody(nil, e.Message, results)
	return e, nil
}

// lastMessage returns the greatest id of a message there is, or was.
func lastMessage(tx *bbolt.Tx) (last batch.MessageID, err error) {
	if v := bucketMeta.in(tx).Get(metaMessage); v != nil {
		p, err := record.Open(record.KindMeta, metaMessage, v)
		if err != nil {
			return last, err
		}
		copy(last[:], p)
	}
	c := bucketMessages.in(tx).Cursor()
	for k, _ := c.Last(); k != nil; k, _ = c.Prev() {
		tenant, id := splitTenantKey(k)
		if bytes.Compare(id[:], last[:]) > 0 {
			last = id
		}
		c.Seek(tenant[:]) // the first of this tenant: before it stands the last of another
	}
	return last, nil
}

// Posted returns a channel that is closed when the next message has been
// made.
func (s *Store) Posted() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posted
}
