package bolt

import (
	"bytes"
	"cmp"
	"context"
	"sort"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
)

const defaultPage = 1 << 20

// Results returns a page of results in input order.
func (s *Store) Results(ctx context.Context, tenant batch.TenantID, id batch.ID, q batch.ResultQuery) (batch.ResultPage, error) {
	if q.Bytes <= 0 {
		q.Bytes = defaultPage
	}
	q.Bytes = min(q.Bytes, readBytes)
	var page batch.ResultPage
	var due time.Time
	err := s.view(ctx, func(tx *bbolt.Tx) (err error) {
		if page.Batch, err = readBatch(tx, tenant, id); err != nil {
			return err
		}
		rounds, err := readRounds(tx, page.Batch)
		if err != nil {
			return err
		}
		if rounds, err = rounds.At(cmp.Or(q.Round, page.Batch.Round)); err != nil {
			return err
		}
		due = firstDue(tx, page.Batch)
		w := walk{tx: tx, q: q, page: &page, rounds: rounds, until: time.Now().Add(readTime)}
		return w.run()
	})
	if err != nil {
		return batch.ResultPage{}, err
	}
	s.overlay(&page.Batch, due)
	return page, nil
}

// A walk fills one page.
type walk struct {
	tx     *bbolt.Tx
	q      batch.ResultQuery
	page   *batch.ResultPage
	rounds batch.Rounds
	bytes  int
	until  time.Time
}

func (w *walk) run() error {
	b := w.page.Batch
	w.page.Next = max(0, w.q.From)
	if w.page.Next >= b.Items || b.Status == batch.Open {
		w.page.Last = true
		return nil
	}
	n, err := findBlock(w.tx, b, w.page.Next)
	if err != nil {
		return err
	}
	for ; n < b.Blocks; n++ {
		more, err := w.block(b.BlockAt(n))
		if err != nil || !more {
			return err
		}
		if time.Now().After(w.until) {
			return nil
		}
	}
	w.page.Last = true
	return nil
}

// block adds the results of one block; more is false when the page is full or
// nothing may follow.
func (w *walk) block(k batch.BlockKey) (more bool, err error) {
	first, count, err := readSpan(w.tx, &w.page.Batch.Spec, k)
	if err != nil {
		return false, err
	}
	results, err := w.results(k, first, count)
	if err != nil {
		return false, err
	}
	for _, r := range results {
		if r.Index < w.page.Next {
			continue
		}
		if w.q.Prefix && r.Index > w.page.Next {
			w.page.Last = true
			return false, nil
		}
		if len(w.page.Results) >= max(1, w.q.Limit) || w.bytes >= w.q.Bytes {
			return false, nil
		}
		w.page.Next = r.Index + 1
		if w.q.Status != 0 && w.q.Status != r.Status {
			continue
		}
		r.Payload = bytes.Clone(r.Payload)
		w.page.Results = append(w.page.Results, r)
		w.bytes += len(r.Payload)
	}
	if w.q.Prefix && w.page.Next < first+count {
		w.page.Last = true
		return false, nil
	}
	w.page.Next = first + count
	return true, nil
}

// results returns what there is of a block: once the round is over that is a
// result for every item.
func (w *walk) results(k batch.BlockKey, first, count int) ([]batch.Result, error) {
	rs, err := collect(w.tx, blockKey(k), first, whole)
	if err != nil {
		return nil, err
	}
	if w.page.Batch.Round == 1 && (len(rs) == count || !w.rounds.Now.Status.Terminal()) {
		return rs, nil
	}
	b, err := peekBlock(w.tx, &w.page.Batch.Spec, k)
	if err != nil {
		return nil, err
	}
	all := make([]batch.Result, 0, count)
	w.rounds.Each(first, len(b.Items), rs, func(index int, own []batch.Result) {
		if r, ok := w.rounds.Outcome(index, b.Items[index-first].ID, own); ok {
			all = append(all, r)
		}
	})
	return all, nil
}

// findBlock returns the number of the block that holds an index.
func findBlock(tx *bbolt.Tx, b batch.Batch, index int) (int, error) {
	var failed error
	n := sort.Search(b.Blocks, func(n int) bool {
		first, _, err := readSpan(tx, &b.Spec, b.BlockAt(n))
		if err != nil {
			failed = err
		}
		return first > index
	})
	return n - 1, failed
}

// Item returns one item as it stands.
func (s *Store) Item(ctx context.Context, tenant batch.TenantID, id batch.ID, index int) (v batch.ItemView, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		v, err = readItem(tx, tenant, id, index)
		return err
	})
	return v, err
}

func readItem(tx *bbolt.Tx, tenant batch.TenantID, id batch.ID, index int) (v batch.ItemView, err error) {
	b, err := readBatch(tx, tenant, id)
	if err != nil {
		return v, err
	}
	if err := b.Readable(); err != nil {
		return v, err
	}
	if index < 0 || index >= b.Items {
		return v, batch.Errorf(batch.NotFound, "the batch has no item %d: its items are 0 to %d", index, b.Items-1)
	}
	n, err := findBlock(tx, b, index)
	if err != nil {
		return v, err
	}
	rounds, err := readRounds(tx, b)
	if err != nil {
		return v, err
	}
	k := b.BlockAt(n)
	bl, err := peekBlock(tx, &b.Spec, k)
	if err != nil {
		return v, err
	}
	st, err := readState(tx, blockKey(k), b.Round, len(bl.Items))
	if err != nil {
		return v, err
	}
	rs, err := collect(tx, blockKey(k), bl.First, stretch{index, index + 1})
	if err != nil {
		return v, err
	}
	it, is := bl.Items[index-bl.First], st.Items[index-bl.First]
	v = batch.ItemView{Index: index, ID: it.ID, Status: is.Status, Attempts: is.Attempts, Input: bytes.Clone(it.Raw)}
	if r, ok := rounds.Outcome(index, it.ID, rs); ok {
		r.Payload = bytes.Clone(r.Payload)
		v.Status, v.Attempts, v.Result = r.Status, r.Attempts, &r
	}
	return v, nil
}
