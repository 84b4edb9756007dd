package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

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
	case !b.Status.Terminal() && b.Status != batch.Open && got.open+b.ToLayOut() != b.Open:
		return bad("open blocks", b.Open, got.open+b.ToLayOut())
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
		bk, _ := splitOpenKey(b.Tenant, k)
		if _, ours := b.Parts.At(bk.Part); ours {
			got.open++
		}
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
		c.removed()
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
		if (bucketUploads.in(c.tx).Get(k) != nil) != (b.Status == batch.Open) {
			c.bad("%s is %s, and its place among the open batches says otherwise", b.ID, b.Status)
		}
		c.parts(&b)
		a := audit{tx: c.tx, left: 1 << 62}
		c.report(a.batch(b))
		if b.Status != batch.Open {
			c.blocks(b)
		}
		c.index(b)
		c.ledger(b)
		return nil
	})
	c.each(bucketActive, func(k, _ []byte) error {
		_, err := readProgress(c.tx, k)
		return err
	})
	c.each(bucketEnded, func(k, _ []byte) error {
		tenant, _ := splitTenantKey(k)
		_, err := readProgress(c.tx, tenantKey(tenant, splitEndedKey(k).ID))
		return err
	})
}

// blocks checks that a batch's blocks follow each other without a gap, that
// each is open, finished or closed, and that their results are those the batch
// counts.
func (c *checker) blocks(b batch.Batch) {
	rounds, err := readRounds(c.tx, b)
	if err != nil {
		c.report(fmt.Errorf("%s: its rounds: %w", b.ID, err))
		return
	}
	next := 0
	var done batch.Tally
	for n := range b.Blocks {
		k := b.BlockAt(n)
		bl, err := readBlock(c.tx, &b.Spec, k)
		if err != nil {
			c.report(err)
			return
		}
		if bl.First != next {
			c.bad("%s: block %d begins at item %d, not %d", b.ID, n, bl.First, next)
		}
		next = bl.First + len(bl.Items)
		done = done.Plus(c.block(k, bl, rounds))
	}
	if next != b.Items {
		c.bad("%s has %d items in its blocks, not %d", b.ID, next, b.Items)
	}
	if done != b.Done {
		c.bad("%s counts its results as %+v, its blocks have %+v", b.ID, b.Done, done)
	}
}

// block checks one block and counts the results that its items have.
func (c *checker) block(k batch.BlockKey, bl batch.Block, rounds batch.Rounds) (done batch.Tally) {
	rs, err := collect(c.tx, blockKey(k), bl.First, whole)
	c.report(err)
	for i, r := range rs {
		if r.Index < bl.First || r.Index >= bl.First+len(bl.Items) {
			c.bad("%s: a result of item %d stands in block %d", k.Batch, r.Index, k.Number)
			return done
		}
		if i > 0 && rs[i-1].Index == r.Index && rs[i-1].Round == r.Round {
			c.bad("%s: item %d has two results in round %d", k.Batch, r.Index, r.Round)
		}
	}
	recorded := rounds // before what is left of a round that is over ended by arithmetic
	if rounds.Now.Status.Terminal() {
		recorded.Now.Status = batch.Running
	}
	st := c.state(k, rounds.Now.Round, len(bl.Items))
	rounds.Each(bl.First, len(bl.Items), rs, func(index int, own []batch.Result) {
		if r, ok := rounds.Outcome(index, "", own); ok {
			done.Add(r.Status, 1)
		}
		if st == nil {
			return
		}
		r, ok := recorded.Outcome(index, "", own)
		if is := st[index-bl.First].Status; ok && is != r.Status || !ok && is.Terminal() {
			c.bad("%s: item %d is %s in its block's state and %s in its result", k.Batch, index, is, r.Status)
		}
	})
	return done
}

// state returns where a block's state says that its items are, or nil if it
// says nothing of this round.
func (c *checker) state(k batch.BlockKey, round, items int) []batch.ItemState {
	key := blockKey(k)
	v := bucketStates.in(c.tx).Get(key)
	if v == nil {
		return nil
	}
	p, err := record.Open(record.KindState, key, v)
	if err == nil {
		var st batch.BlockState
		if st, err = record.DecodeState(p); err == nil && st.Round == round && len(st.Items) == items {
			return st.Items
		}
		if err == nil && (st.Round > round || len(st.Items) != items) {
			c.bad("%s: the state of block %d is of round %d and has %d items", k.Batch, k.Number, st.Round, len(st.Items))
		}
	}
	c.report(err)
	return nil
}

// removed checks that what is left of deleted batches is as it should be.
func (c *checker) removed() {
	progress, gone, by := bucketProgress.in(c.tx), bucketGone.in(c.tx), bucketGoneBy.in(c.tx)
	n := 0
	c.each(bucketGone, func(k, v []byte) error {
		n++
		_, id := splitTenantKey(k)
		deleted, err := openTombstone(k, v)
		if err != nil {
			return fmt.Errorf("the tombstone of %s: %w", batch.ID(id), err)
		}
		if by.Get(goneKey(k, deleted)) == nil {
			c.bad("%s was deleted, and has no place among the deleted", batch.ID(id))
		}
		if progress.Get(k) != nil {
			c.bad("%s was deleted and is there", batch.ID(id))
		}
		return nil
	})
	if there := len(keysOf(by)); there != n {
		c.bad("%d batches were deleted, and %d have a place among the deleted", n, there)
	}
	c.each(bucketDoomed, func(k, _ []byte) error {
		if _, id := splitTenantKey(k); gone.Get(k) == nil {
			c.bad("%s is to be removed and was not deleted", batch.ID(id))
		}
		return nil
	})
	c.each(bucketRounds, func(k, v []byte) error {
		p, err := record.Open(record.KindRound, k, v)
		if err == nil {
			_, err = record.DecodeRound(p)
		}
		return err
	})
}

// parts checks that what a batch says of its parts is what they say. While it
// is open they may have gaps, and are looked at as if they had none.
func (c *checker) parts(b *batch.Batch) {
	parts, err := readParts(c.tx, b.ID)
	if err != nil {
		c.report(err)
		return
	}
	if b.Status != batch.Open && len(parts) == 0 && len(b.Parts) == 0 {
		return
	}
	var sum batch.Part
	for i, p := range parts {
		sum.Items, sum.Blocks, sum.Size = sum.Items+p.Items, sum.Blocks+p.Blocks, sum.Size+p.Size
		if b.Status != batch.Open && i >= len(b.Parts) || b.Status != batch.Open && b.Parts[i].Key != p.Key {
			c.bad("%s: part %d is not where its layout says", b.ID, p.Number)
		}
		if b.Status == batch.Open {
			c.part(*b, p)
		}
	}
	if sum.Items != b.Items || sum.Blocks != b.Blocks || sum.Size != b.Bytes || b.Status != batch.Open && len(parts) != len(b.Parts) {
		c.bad("%s: its %d parts have %d items in %d blocks and %d bytes, its record says %d, %d and %d",
			b.ID, len(parts), sum.Items, sum.Blocks, sum.Size, b.Items, b.Blocks, b.Bytes)
	}
}

// part checks the blocks of a part of an open batch.
func (c *checker) part(b batch.Batch, p batch.Part) {
	next := 0
	for n := range p.Blocks {
		k := batch.BlockKey{Tenant: b.Tenant, Batch: b.ID, Part: p.Key, Number: uint32(n)}
		bl, err := readBlock(c.tx, &batch.Spec{}, k)
		if err != nil {
			c.report(err)
			return
		}
		if bl.First != next {
			c.bad("%s: block %d of part %d begins at item %d, not %d", b.ID, n, p.Number, bl.First, next)
		}
		next = bl.First + len(bl.Items)
		if bucketOpen.in(c.tx).Get(openKey(k, time.Time{})) == nil {
			c.bad("%s: block %d of part %d is not among the open ones", b.ID, n, p.Number)
		}
	}
	if next != p.Items {
		c.bad("%s: part %d has %d items in its blocks, not %d", b.ID, p.Number, next, p.Items)
	}
}

// index checks that the index of a batch's ids has an entry for each item, in
// order.
func (c *checker) index(b batch.Batch) {
	if b.Options.IDField == "" {
		return
	}
	n := 0
	var last []byte
	var hash uint64
	cur := bucketIndex.in(c.tx).Cursor()
	for k, v := cur.Seek(b.ID[:]); bytes.HasPrefix(k, b.ID[:]); k, v = cur.Next() {
		if part := be.Uint32(k[16:]); !c.holds(b, part) {
			continue
		}
		if len(last) == 0 || !bytes.Equal(last[:20], k[:20]) {
			hash = 0
		}
		last = k
		p, err := record.Open(record.KindIndex, k, v)
		if err == nil {
			err = record.EachEntry(p, func(e batch.IndexEntry) bool {
				if e.Hash < hash {
					c.bad("%s: the index of its ids is out of order", b.ID)
				}
				n, hash = n+1, e.Hash
				return true
			})
		}
		c.report(err)
	}
	if n != b.Items {
		c.bad("%s has %d items, and the index of their ids has %d", b.ID, b.Items, n)
	}
}

// holds reports whether a key is that of one of the batch's parts.
func (c *checker) holds(b batch.Batch, key uint32) bool {
	if b.Status != batch.Open {
		_, ours := b.Parts.At(key)
		return ours
	}
	p, err := readPart(c.tx, b.ID, batch.PartNumber(key))
	c.report(err)
	return p != nil && p.Key == key
}

// orphans finds blocks, segments and states that no batch owns.
func (c *checker) orphans() {
	owned := map[batch.ID]bool{}
	for _, name := range []table{bucketProgress, bucketStaging, bucketDoomed} {
		c.each(name, func(k, _ []byte) error {
			_, id := splitTenantKey(k)
			owned[id] = true
			return nil
		})
	}
	for _, name := range append([]table{bucketByBatch}, ofBatch...) {
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
		if there, has := places[m.State]; has && !there && doomed(c.tx, m) { // it lost its place, and goes next
			return nil
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
	c.sealed(bucketParts, record.KindPart)
	c.sealed(bucketIndex, record.KindIndex)
	c.bindings()
}

// bindings checks that each binding is there, and once among those to be
// removed.
func (c *checker) bindings() {
	n := 0
	c.each(bucketBound, func(k, _ []byte) error {
		n++
		b, err := readBinding(c.tx, k[8:])
		if err == nil && (b == nil || !bytes.Equal(boundKey(b.Made, k[8:]), k)) {
			c.bad("a binding of an Idempotency-Key is not what is to be removed at its time")
		}
		return err
	})
	if all := len(keysOf(bucketBindings.in(c.tx))); all != n {
		c.bad("%d Idempotency-Keys are bound and %d are to be removed", all, n)
	}
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
	_, err = lastMessage(c.tx)
	c.report(err)
	for _, name := range [][]byte{metaVersion, metaStarts, metaClosed} {
		_, err := getMeta(c.tx, name)
		c.report(err)
	}
}
