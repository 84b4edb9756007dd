package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
)

// What a disk, a damaged record or a foreign tenant does to one must not
// reach the others.

func openAt(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// made is a batch of one block with a callback.
func made(t *testing.T, s *Store, tenant batch.TenantID, items int) batch.Batch {
	t.Helper()
	g := s.Stage(t.Context(), tenant, batch.NewID(time.Now()))
	var b batch.Block
	for i := range items {
		b.Items = append(b.Items, batch.Item{Raw: fmt.Appendf(nil, "%d", i)})
	}
	if err := g.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	o := batch.Options{Processor: "p", CallbackURL: "https://shop.example/", CallbackPageItems: 1}.WithDefaults()
	got, err := g.Create(t.Context(), batch.Spec{Created: time.Now(), Options: o}, batch.Once{})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func claimed(t *testing.T, s *Store, blocks int) []batch.Work {
	t.Helper()
	ws, err := s.Claim(t.Context(), batch.Claim{Owner: "n", Processors: []string{"p"}, Blocks: blocks, PerBatch: 4})
	if err != nil || len(ws) != blocks {
		t.Fatalf("claimed %d blocks of %d, %v", len(ws), blocks, err)
	}
	return ws
}

func done(w batch.Work, payload []byte) batch.Report {
	r := batch.Report{Lease: w.Lease, Started: time.Now(), Release: true}
	for _, it := range w.Items {
		r.Results = append(r.Results, batch.Result{Index: it.Index, Status: batch.ItemSucceeded, Attempts: 1, Finished: time.Now(), Payload: payload})
	}
	return r
}

func recorded(t *testing.T, s *Store, rs ...batch.Report) batch.Recorded {
	t.Helper()
	out, err := s.Record(t.Context(), rs, batch.MessageClaim{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// anything asks for messages of any kind.
func anything(most int) batch.MessageClaim {
	return batch.MessageClaim{Owner: "n", Max: most, Retries: most, Trials: most, PerHost: most}
}

func TestACancelOfAnotherTenantsBatchIsNotFoundEvenInOneCommitWithIt(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	mine, foreign := batch.TenantID{1}, batch.TenantID{2}
	b := made(t, s, mine, 2)
	w := claimed(t, s, 1)[0]
	part := done(w, []byte("1"))
	part.Results, part.Release = part.Results[:1], false

	// Hold the committer over a first step, so that the next two share one
	// transaction, the owner's first.
	s.writing.Lock()
	first, record, cancel := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() { first <- s.do(s.small, 0, func(*txn) error { return errNoBatch }) }()
	waitFor(t, func() bool { return len(s.small) == 0 && len(first) == 0 })
	go func() {
		_, err := s.Record(context.Background(), []batch.Report{part}, batch.MessageClaim{})
		record <- err
	}()
	waitFor(t, func() bool { return len(s.small) >= 1 })
	go func() {
		_, err := s.Cancel(context.Background(), foreign, b.ID)
		cancel <- err
	}()
	waitFor(t, func() bool { return len(s.small) >= 2 })
	s.writing.Unlock()
	<-first

	if err := <-record; err != nil {
		t.Error(err)
	}
	if err := <-cancel; batch.CodeOf(err) != batch.NotFound {
		t.Errorf("the foreign cancel gave %v", err)
	}
	got, err := s.Batch(t.Context(), mine, b.ID)
	if err != nil || got.Status != batch.Running {
		t.Errorf("it is %s, %v", got.Status, err)
	}
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if what() {
			time.Sleep(5 * time.Millisecond)
			return
		}
	}
	t.Fatal("it never came")
}

func TestAFullDiskRefusesAndGoesOn(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	before := made(t, s, batch.TenantID{}, 1)
	s.sync = func(tx *bbolt.Tx) error {
		return errors.Join(tx.Rollback(), fmt.Errorf("write: %w", syscall.ENOSPC))
	}
	g := s.Stage(t.Context(), batch.TenantID{}, batch.NewID(time.Now()))
	if err := g.Append(t.Context(), batch.Block{Items: []batch.Item{{Raw: []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Create(t.Context(), batch.Spec{Created: time.Now()}, batch.Once{}); batch.CodeOf(err) != batch.Full {
		t.Errorf("got %v", err)
	}
	if s.Err() != nil {
		t.Fatalf("the store gave up: %v", s.Err())
	}
	s.sync = syncTx
	recorded(t, s, done(claimed(t, s, 1)[0], []byte("1")))
	if b, err := s.Batch(t.Context(), batch.TenantID{}, before.ID); err != nil || b.Status != batch.Completed {
		t.Errorf("it is %s, %v", b.Status, err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAfterAFailedSyncNothingOfItIsShown(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	b := made(t, s, batch.TenantID{}, 1)
	w := claimed(t, s, 1)[0]
	s.sync = func(tx *bbolt.Tx) error { return errors.Join(tx.Commit(), syscall.EIO) }
	if _, err := s.Record(t.Context(), []batch.Report{done(w, []byte("1"))}, batch.MessageClaim{}); err == nil {
		t.Fatal("the record was acknowledged")
	}
	<-s.Failed()
	if got, err := s.Batch(t.Context(), batch.TenantID{}, b.ID); err != nil || got.Done.Sum() != 0 || got.Status.Terminal() {
		t.Errorf("it shows %s %+v, %v", got.Status, got.Done, err)
	}
}

func TestAPartOfALargeBlockIsReadWithoutTheRest(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	b := made(t, s, batch.TenantID{}, 64)
	recorded(t, s, done(claimed(t, s, 1)[0], append(bytes.Repeat([]byte("7"), 512<<10), '1')))
	ms, _, err := s.Messages(t.Context(), batch.MessageQuery{Batch: &b.ID, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func() error{
		"item": func() error { _, err := s.Item(t.Context(), batch.TenantID{}, b.ID, 63); return err },
		"page": func() error {
			p, err := s.Results(t.Context(), batch.TenantID{}, b.ID, batch.ResultQuery{From: 60, Limit: 1})
			if err == nil && len(p.Results) != 1 {
				err = fmt.Errorf("%d results", len(p.Results))
			}
			return err
		},
		"body": func() error { _, err := s.Body(t.Context(), ms[1]); return err },
	} {
		var was, is runtime.MemStats
		runtime.ReadMemStats(&was)
		if err := read(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&is)
		if got := is.TotalAlloc - was.TotalAlloc; got > 8<<20 {
			t.Errorf("%s allocated %d MiB", name, got>>20)
		}
	}
}

// damage flips a byte of a record.
func damage(t *testing.T, s *Store, in table, key []byte) {
	t.Helper()
	s.writing.Lock()
	defer s.writing.Unlock()
	err := s.db.Update(func(tx *bbolt.Tx) error {
		v := bytes.Clone(in.in(tx).Get(key))
		if len(v) == 0 {
			return fmt.Errorf("no record under %x", key)
		}
		v[len(v)/2] ^= 1
		return in.in(tx).Put(key, v)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.recent)
}

func TestADamagedRecordStopsNobodyElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := openAt(t, path)
	var bs []batch.Batch
	for range 3 {
		bs = append(bs, made(t, s, batch.TenantID{}, 1))
	}
	for _, w := range claimed(t, s, 3) {
		recorded(t, s, done(w, []byte("1")))
	}
	end := func(b batch.Batch) batch.MessageID {
		got, err := s.Batch(t.Context(), batch.TenantID{}, b.ID)
		if err != nil {
			t.Fatal(err)
		}
		return got.Terminal
	}
	damage(t, s, bucketMessages, tenantKey(batch.TenantID{}, end(bs[0])))
	open := made(t, s, batch.TenantID{}, 2)
	damage(t, s, bucketProgress, tenantKey(batch.TenantID{}, open.ID))

	var ds []batch.Delivery
	waitFor(t, func() bool { // due times are whole milliseconds, rounded up
		more, err := s.ClaimMessages(t.Context(), anything(10))
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, more...)
		return len(ds) >= 2
	})
	if len(ds) != 2 {
		t.Fatalf("%d messages were claimed", len(ds))
	}
	if list, _, err := s.Messages(t.Context(), batch.MessageQuery{Limit: 10}); err != nil || len(list) != 2 {
		t.Errorf("%d messages are listed, %v", len(list), err)
	}
	if list, _, err := s.Batches(t.Context(), batch.BatchQuery{Limit: 10}); err != nil || len(list) != 3 {
		t.Errorf("%d batches are listed, %v", len(list), err)
	}
	w := claimed(t, s, 1)[0]
	whole := made(t, s, batch.TenantID{}, 1)
	out := recorded(t, s, done(w, []byte("1")), done(claimed(t, s, 1)[0], []byte("1")))
	if len(out.Lost) != 1 || out.Lost[0] != 0 {
		t.Errorf("lost %v", out.Lost)
	}
	damage(t, s, bucketMessages, tenantKey(batch.TenantID{}, ds[0].ID))
	err := s.Attempted(t.Context(), []batch.AttemptOutcome{{Delivery: ds[0], State: batch.MessageDelivered}})
	if err != nil {
		t.Errorf("the outcome of a damaged message gave %v", err)
	}
	damage(t, s, bucketMessages, tenantKey(batch.TenantID{}, ds[1].ID)) // it is being sent
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, path)
	if b, err := s.Batch(t.Context(), batch.TenantID{}, whole.ID); err != nil || b.Status != batch.Completed {
		t.Errorf("it is %s, %v", b.Status, err)
	}
	if err := s.Check(t.Context()); batch.CodeOf(err) != batch.Damaged {
		t.Errorf("check says %v", err)
	}
}

// noRoom makes the next commits fail as on a full disk until it is called
// again with false.
func noRoom(s *Store, full bool) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.sync = syncTx
	if full {
		s.sync = func(tx *bbolt.Tx) error { return errors.Join(tx.Rollback(), syscall.ENOSPC) }
	}
}

func TestACancelThatTheDiskRefusedLeavesTheBatchAtWork(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	b := made(t, s, batch.TenantID{}, 1)
	noRoom(s, true)
	if _, err := s.Cancel(t.Context(), batch.TenantID{}, b.ID); batch.CodeOf(err) != batch.Full {
		t.Errorf("got %v", err)
	}
	noRoom(s, false)
	claimed(t, s, 1)
}

func TestAnEndThatTheDiskRefusedIsTriedAgain(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	b := made(t, s, batch.TenantID{}, 1)
	w := claimed(t, s, 1)[0]
	if _, err := s.Cancel(t.Context(), batch.TenantID{}, b.ID); err != nil {
		t.Fatal(err)
	}
	// The release is kept and the end after it is not.
	s.writing.Lock()
	commits := 0
	s.sync = func(tx *bbolt.Tx) error {
		if commits++; commits == 2 {
			return errors.Join(tx.Rollback(), syscall.ENOSPC)
		}
		return tx.Commit()
	}
	s.writing.Unlock()
	recorded(t, s, batch.Report{Lease: w.Lease, Started: time.Now(), Release: true})
	waitFor(t, func() bool {
		got, err := s.Batch(t.Context(), batch.TenantID{}, b.ID)
		return err == nil && got.Status == batch.Canceled
	})
	s.writing.Lock()
	defer s.writing.Unlock()
	if commits < 3 {
		t.Errorf("%d commits: the disk refused nothing", commits)
	}
}

func TestARecordTakesWhatFitsOneTransaction(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	for range 4 {
		made(t, s, batch.TenantID{}, 3)
	}
	var rs []batch.Report
	for _, w := range claimed(t, s, 4) {
		rs = append(rs, done(w, append(bytes.Repeat([]byte("7"), 1<<20-1), '1')))
	}
	calls := 0
	for ; len(rs) > 0; calls++ {
		out := recorded(t, s, rs...)
		if len(out.Lost) > 0 || out.Left >= len(rs) {
			t.Fatalf("of %d reports %d are left, lost %v", len(rs), out.Left, out.Lost)
		}
		rs = rs[len(rs)-out.Left:]
	}
	if calls < 2 {
		t.Errorf("12 MiB went in %d transactions", calls)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestADamagedMessageOrBatchParksNoLane(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	var bs []batch.Batch
	for range 4 {
		bs = append(bs, made(t, s, batch.TenantID{}, 1))
	}
	for _, w := range claimed(t, s, 4) {
		recorded(t, s, done(w, []byte("1")))
	}
	first, err := s.Batch(t.Context(), batch.TenantID{}, bs[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	damage(t, s, bucketMessages, tenantKey(batch.TenantID{}, first.Terminal))
	damage(t, s, bucketProgress, tenantKey(batch.TenantID{}, bs[1].ID))
	damage(t, s, bucketBatches, tenantKey(batch.TenantID{}, bs[2].ID))
	waitFor(t, func() bool {
		ds, err := s.ClaimMessages(t.Context(), anything(1))
		if err != nil {
			t.Fatal(err)
		}
		return len(ds) == 1 && ds[0].Batch == bs[3].ID
	})
}

func TestAReadAfterTheEndOfAFailedStoreIsRefused(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	b := made(t, s, batch.TenantID{}, 1)
	s.sync = func(tx *bbolt.Tx) error { return errors.Join(tx.Rollback(), syscall.EIO) }
	if _, err := s.Cancel(t.Context(), batch.TenantID{}, b.ID); err == nil {
		t.Fatal("the cancel was acknowledged")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Batch(t.Context(), batch.TenantID{}, b.ID); err == nil {
		t.Error("it was read")
	}
}
