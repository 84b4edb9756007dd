package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// auditRecords bounds how many records of open batches the audit at a start
// reads; the rest is for Check, and for the checksum at first read.
const auditRecords = 20_000

// An audit compares what a batch's progress says with what is there.
type audit struct {
	tx   *bbolt.Tx
	left int // records it may still read
}

// sums are what an audit counted of a batch.
type sums struct {
	done   batch.Tally
	digest uint64
	open   int
}

func (a *audit) batch(b batch.Batch) error {
	if a.left <= 0 {
		return nil
	}
	var got sums
	if err := errors.Join(a.segments(b, &got), a.open(b, &got)); err != nil {
		return fmt.Errorf("%s: %w", b.ID, err)
	}
	if a.left <= 0 {
		return nil
	}
	return compare(b, got)
}

func compare(b batch.Batch, got sums) error {
	bad := func(what string, says, is any) error {
		return batch.Errorf(batch.Damaged, "%s: its record says %v %s, the file has %v: keep the file, restore a backup", b.ID, says, what, is)
	}
	done := b.Done
	if b.Status.Terminal() { // the rest ended by arithmetic
		done.Canceled, done.Expired = got.done.Canceled, got.done.Expired
	}
	switch {
	case b.Round == 1 && got.done != done:
		return bad("results", done, got.done)
	case got.digest != b.Digest:
		return bad("digest", b.Digest, got.digest)
	case !b.Status.Terminal() && got.open != b.Open:
		return bad("open blocks", b.Open, got.open)
	case b.Counts().Pending < 0 || b.Done.Sum() > b.Items:
		return bad("items", b.Items, b.Done.Sum())
	case b.Status.Terminal() && b.Done.Sum() != b.Items:
		return bad("ended items", b.Items, b.Done.Sum())
	}
	return nil
}

func (a *audit) segments(b batch.Batch, got *sums) error {
	c := bucketSegments.in(a.tx).Cursor()
	for k, v := c.Seek(b.ID[:]); bytes.HasPrefix(k, b.ID[:]) && a.left > 0; k, v = c.Next() {
		a.left--
		p, err := record.Open(record.KindSegment, k, v)
		if err != nil {
			return err
		}
		t, d, err := record.SegmentSums(p)
		if err != nil {
			return err
		}
		got.done, got.digest = got.done.Plus(t), got.digest+d
	}
	return nil
}

func (a *audit) open(b batch.Batch, got *sums) error {
	c := bucketOpen.in(a.tx).Cursor()
	for k, _ := c.Seek(b.ID[:]); bytes.HasPrefix(k, b.ID[:]) && a.left > 0; k, _ = c.Next() {
		a.left--
		got.open++
	}
	return nil
}

// Check walks every record and every invariant. Nothing is written meanwhile,
// so use it on a store at rest, or on a copy.
func (s *Store) Check(ctx context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.view(ctx, func(tx *bbolt.Tx) (err error) {
		c := checker{tx: tx}
		defer func() {
			if p := recover(); p != nil { // what bbolt meets in a damaged tree
				c.bad("the file is damaged: %v", p)
				err = errors.Join(c.problems...)
			}
		}()
		for err := range tx.Check() {
			c.report(err)
		}
		c.batches()
		c.orphans()
		c.messages()
		c.vault()
		return errors.Join(c.problems...)
	})
}

// checkMost bounds what one Check lists.
const checkMost = 100

type checker struct {
	tx       *bbolt.Tx
	problems []error
}

func (c *checker) report(err error) {
	if err != nil && len(c.problems) < checkMost {
		c.problems = append(c.problems, err)
	}
}

func (c *checker) bad(format string, args ...any) {
	c.report(batch.Errorf(batch.Damaged, format, args...))
}

func (c *checker) each(name table, f func(k, v []byte) error) {
	c.report(name.in(c.tx).ForEach(func(k, v []byte) error {
		c.report(f(k, v))
		return nil
	}))
}

func (c *checker) batches() {
	active := bucketActive.in(c.tx)
	c.each(bucketProgress, func(k, _ []byte) error {
		tenant, id := splitTenantKey(k)
		b, err := readBatch(c.tx, tenant, id)
		if err != nil {
			return err
		}
		if (active.Get(k) != nil) == b.Status.Terminal() {
			c.bad("%s is %s, and its place among the active batches says otherwise", b.ID, b.Status)
		}
		a := audit{tx: c.tx, left: 1 << 62}
		c.report(a.batch(b))
		c.blocks(b)
		c.ledger(b)
		return nil
	})
	for _, name := range []table{bucketActive, bucketMoves} {
		c.each(name, func(k, _ []byte) error {
			_, err := readProgress(c.tx, k)
			return err
		})
	}
}

// blocks checks that a batch's blocks follow each other without a gap and
// that each is open, finished or closed.
func (c *checker) blocks(b batch.Batch) {
	next := 0
	for n := range b.Blocks {
		k := batch.BlockKey{Tenant: b.Tenant, Batch: b.ID, Number: uint32(n)}
		bl, err := readBlock(c.tx, blockKey(k))
		if err != nil {
			c.report(err)
			return
		}
		if bl.First != next {
			c.bad("%s: block %d begins at item %d, not %d", b.ID, n, bl.First, next)
		}
		next = bl.First + len(bl.Items)
		c.block(b, k, bl)
	}
	if next != b.Items {
		c.bad("%s has %d items in its blocks, not %d", b.ID, next, b.Items)
	}
}

func (c *checker) block(b batch.Batch, k batch.BlockKey, bl batch.Block) {
	st, err := readState(c.tx, blockKey(k), b.Round, len(bl.Items))
	c.report(err)
	rs, err := collect(c.tx, blockKey(k), bl.First, whole)
	c.report(err)
	for i, r := range rs {
		if r.Index < bl.First || r.Index >= bl.First+len(bl.Items) {
			c.bad("%s: a result of item %d stands in block %d", b.ID, r.Index, k.Number)
		}
		if i > 0 && rs[i-1].Index == r.Index && rs[i-1].Round == r.Round {
			c.bad("%s: item %d has two results in round %d", b.ID, r.Index, r.Round)
		}
	}
	stated := bucketStates.in(c.tx).Get(blockKey(k)) != nil
	if stated && err == nil {
		done := 0
		for _, r := range current(rs, b.Progress) {
			if st.Items[r.Index-bl.First].Status != r.Status {
				c.bad("%s: item %d is %s in its block's state and %s in its result", b.ID, r.Index, st.Items[r.Index-bl.First].Status, r.Status)
			}
			done++
		}
		if st.Tally().Sum() != done {
			c.bad("%s: block %d has %d results, its state says %d", b.ID, k.Number, done, st.Tally().Sum())
		}
	}
}

// orphans finds blocks, segments and states that no batch owns.
func (c *checker) orphans() {
	owned := map[batch.ID]bool{}
	for _, name := range []table{bucketProgress, bucketStaging} {
		c.each(name, func(k, _ []byte) error {
			_, id := splitTenantKey(k)
			owned[id] = true
			return nil
		})
	}
	for _, name := range []table{bucketBlocks, bucketStates, bucketSegments, bucketOpen, bucketByBatch} {
		c.each(name, func(k, _ []byte) error {
			if id := batch.ID(k[:16]); !owned[id] {
				return batch.Errorf(batch.Damaged, "a record in %s belongs to %s, which does not exist", name, id)
			}
			return nil
		})
	}
}

// ledger checks that the messages of a batch are as it counts them.
func (c *checker) ledger(b batch.Batch) {
	var got batch.Ledger
	ends := 0
	cur := bucketByBatch.in(c.tx).Cursor()
	for k, _ := cur.Seek(b.ID[:]); bytes.HasPrefix(k, b.ID[:]); k, _ = cur.Next() {
		m, err := readMessage(c.tx, tenantKey(b.Tenant, [16]byte(k[16:])))
		if err != nil {
			c.report(fmt.Errorf("%s: %w", b.ID, err))
			continue
		}
		if !m.Owed() {
			continue
		}
		if m.Result() && m.Round == b.Round {
			if got.Round++; !m.Settled {
				got.Owed++
			}
		}
		if !m.Result() && m.Round == b.Round {
			ends++
		}
		switch {
		case !m.State.Settled():
			got.Waiting++
		case m.State == batch.MessageDelivered:
			got.Delivered++
		case m.State == batch.MessageExhausted:
			got.Exhausted++
		default:
			got.Other++
		}
		_, err = readRefs(c.tx, m)
		c.report(err)
	}
	if got != b.Messages {
		c.bad("%s counts its messages as %+v, the file has %+v", b.ID, b.Messages, got)
	}
	if want := boolByte(b.Status.Terminal() && b.Options.Messages()); ends != int(want) {
		c.bad("%s is %s and has %d terminal messages", b.ID, b.Status, ends)
	}
}

// messages checks that a message stands where its state says.
func (c *checker) messages() {
	outbox, sending, dead := bucketOutbox.in(c.tx), bucketSending.in(c.tx), bucketDead.in(c.tx)
	var waiting, sent, given int
	c.each(bucketMessages, func(k, _ []byte) error {
		m, err := readMessage(c.tx, k)
		if err != nil {
			return err
		}
		places := map[batch.MessageState]bool{
			batch.MessageWaiting: outbox.Get(outboxKey(laneOf(m), m.Due, m.ID)) != nil,
			batch.MessageSending: sending.Get(k) != nil,
		}
		for state, there := range places {
			if there != (m.State == state) {
				c.bad("%s is %s, and its place among those that are %s says otherwise", m.ID, m.State, state)
			}
		}
		if (dead.Get(k) != nil) != isDead(m.State) {
			c.bad("%s is %s, and its place among those given up says otherwise", m.ID, m.State)
		}
		switch {
		case m.State == batch.MessageWaiting:
			waiting++
		case m.State == batch.MessageSending:
			sent++
		case isDead(m.State):
			given++
		}
		return nil
	})
	for name, n := range map[table]int{bucketOutbox: waiting, bucketSending: sent, bucketDead: given} {
		if there := len(keysOf(name.in(c.tx))); there != n {
			c.bad("%d messages belong into %s and %d are there", n, name, there)
		}
	}
	c.sealed(bucketAttempts, record.KindAttempt)
	c.sealed(bucketHosts, record.KindHealth)
	c.sealed(bucketOrders, record.KindRedelivery)
}

// sealed checks the checksums of a bucket's records.
func (c *checker) sealed(name table, kind record.Kind) {
	c.each(name, func(k, v []byte) error {
		_, err := record.Open(kind, k, v)
		return err
	})
}

func (c *checker) vault() {
	c.sealed(bucketKeys, record.KindKey)
	c.sealed(bucketSecrets, record.KindSecrets)
	_, err := readLinkKey(c.tx)
	c.report(err)
	for _, name := range [][]byte{metaVersion, metaStarts} {
		_, err := getMeta(c.tx, name)
		c.report(err)
	}
}
