package bolt

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
)

// failed is a batch of one block that has ended, its items failed.
func failed(t *testing.T, s *Store, items int) batch.Batch {
	t.Helper()
	b := made(t, s, batch.TenantID{}, items)
	r := done(claimed(t, s, 1)[0], []byte(`{"code":"timeout","message":"too slow"}`))
	for i := range r.Results {
		r.Results[i].Status = batch.ItemFailed
	}
	recorded(t, s, r)
	return b
}

// ofDisk has the next commits refused for want of room, but for the first.
func ofDisk(s *Store, kept, refused int) {
	s.writing.Lock()
	defer s.writing.Unlock()
	n := 0
	s.sync = func(tx *bbolt.Tx) error {
		if n++; n > kept && n <= kept+refused {
			return errors.Join(tx.Rollback(), syscall.ENOSPC)
		}
		return tx.Commit()
	}
}

func TestARoundThatTheDiskRefused(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	b := failed(t, s, 3)
	noRoom(s, true)
	if _, err := s.Retry(t.Context(), b.Tenant, b.ID, batch.Retry{From: 1}, batch.Once{}); batch.CodeOf(err) != batch.Full {
		t.Errorf("got %v", err)
	}
	if got, err := s.Batch(t.Context(), b.Tenant, b.ID); err != nil || got.Round != 1 || got.Status != batch.Completed {
		t.Errorf("it is %s in round %d, %v", got.Status, got.Round, err)
	}
	ofDisk(s, 2, 1) // the round is kept, and what it has to do is not at first
	if _, err := s.Retry(t.Context(), b.Tenant, b.ID, batch.Retry{From: 1}, batch.Once{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		ws, err := s.Claim(t.Context(), batch.Claim{Owner: "n", Processors: []string{"p"}, Blocks: 1, PerBatch: 1})
		return err == nil && len(ws) == 1 && len(ws[0].Items) == 3 && ws[0].Round == 2
	})
}

func TestARemovalThatTheDiskRefusedGoesOn(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	b := failed(t, s, 3)
	ofDisk(s, 1, 1)
	if err := s.Delete(t.Context(), b.Tenant, b.ID, true); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return left(t, s, b.ID) == 0 })
}

// left counts the records that speak of a batch, but for its tombstone.
func left(t *testing.T, s *Store, id batch.ID) (n int) {
	t.Helper()
	err := s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			b := tx.Bucket([]byte(name))
			err := b.ForEach(func(k, v []byte) error {
				about := bytes.Contains(k, id[:])
				if name == "messages" {
					about = bytes.Contains(v, id[:])
				}
				if about && name != "gone" && !(name == "places" && k[0] == bucketGoneBy.mark) {
					n++
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestALargeBatchIsRemovedInSteps(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	kept := failed(t, s, 2)
	was := left(t, s, kept.ID)
	g := s.Stage(t.Context(), batch.TenantID{}, batch.NewID(time.Now()))
	const blocks = 2000
	for n := range blocks {
		if err := g.Append(t.Context(), batch.Block{First: n, Items: []batch.Item{{Raw: []byte("1")}}}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := g.Create(t.Context(), batch.Spec{Created: time.Now(), Options: batch.Options{Processor: "p", CallbackURL: "https://shop.example/"}.WithDefaults()}, batch.Once{})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < blocks; {
		ws, err := s.Claim(t.Context(), batch.Claim{Owner: "n", Processors: []string{"p"}, Blocks: blocks, PerBatch: blocks})
		if err != nil {
			t.Fatal(err)
		}
		var rs []batch.Report
		for _, w := range ws {
			rs = append(rs, done(w, []byte("1")))
		}
		for len(rs) > 0 {
			rs = rs[len(rs)-recorded(t, s, rs...).Left:]
		}
		n += len(ws)
	}
	if got := left(t, s, b.ID); got < 4*blocks {
		t.Fatalf("%d records of it: it is not large", got)
	}
	s.writing.Lock()
	commits := 0
	s.sync = func(tx *bbolt.Tx) error {
		commits++
		return tx.Commit()
	}
	s.writing.Unlock()
	if err := s.Delete(t.Context(), b.Tenant, b.ID, true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Batch(t.Context(), b.Tenant, b.ID); batch.CodeOf(err) != batch.Gone {
		t.Errorf("while it is removed it is %v", err)
	}
	waitFor(t, func() bool { return left(t, s, b.ID) == 0 })
	s.writing.Lock()
	if commits < 4*blocks/wipeRecords {
		t.Errorf("it took %d commits", commits)
	}
	s.writing.Unlock()
	if got := left(t, s, kept.ID); got != was {
		t.Errorf("of another batch %d records of %d are left", got, was)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCheckFindsDamagedRoundsAndTombstones(t *testing.T) {
	for name, harm := range map[string]func(*testing.T, *Store, batch.Batch){
		"a round": func(t *testing.T, s *Store, b batch.Batch) { damage(t, s, bucketRounds, roundKey(b.ID, 1)) },
		"no round": func(t *testing.T, s *Store, b batch.Batch) {
			alter(t, s, func(tx *bbolt.Tx) error { return bucketRounds.in(tx).Delete(roundKey(b.ID, 1)) })
		},
		"a round of nobody": func(t *testing.T, s *Store, b batch.Batch) {
			alter(t, s, func(tx *bbolt.Tx) error {
				return bucketRounds.in(tx).Put(roundKey(batch.ID{1}, 1), bucketRounds.in(tx).Get(roundKey(b.ID, 1)))
			})
		},
		"a block that is not laid out": func(t *testing.T, s *Store, b batch.Batch) {
			alter(t, s, func(tx *bbolt.Tx) error {
				return bucketOpen.in(tx).Delete(openKey(batch.BlockKey{Batch: b.ID}, time.Time{}))
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
			other := failed(t, s, 2)
			b := failed(t, s, 2)
			if _, err := s.Retry(t.Context(), b.Tenant, b.ID, batch.Retry{From: 1}, batch.Once{}); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool {
				got, err := s.Batch(t.Context(), b.Tenant, b.ID)
				return err == nil && got.ToLayOut() == 0
			})
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			harm(t, s, b)
			if err := s.Check(t.Context()); batch.CodeOf(err) != batch.Damaged {
				t.Errorf("check says %v", err)
			}
			if _, err := s.Results(t.Context(), other.Tenant, other.ID, batch.ResultQuery{Limit: 1}); err != nil {
				t.Errorf("another batch: %v", err)
			}
		})
	}
	for name, harm := range map[string]func(*testing.T, *Store, []byte){
		"a tombstone": func(t *testing.T, s *Store, key []byte) { damage(t, s, bucketGone, key) },
		"a tombstone that has no place": func(t *testing.T, s *Store, key []byte) {
			alter(t, s, func(tx *bbolt.Tx) error {
				_, err := bucketGoneBy.in(tx).deletePrefix(nil, 1)
				return err
			})
		},
		"a place that has no tombstone": func(t *testing.T, s *Store, key []byte) {
			alter(t, s, func(tx *bbolt.Tx) error { return bucketGone.in(tx).Delete(key) })
		},
		"a removal of what is there": func(t *testing.T, s *Store, key []byte) {
			alter(t, s, func(tx *bbolt.Tx) error { return bucketDoomed.in(tx).Put(make([]byte, 32), []byte{1}) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
			b := failed(t, s, 2)
			if err := s.Delete(t.Context(), b.Tenant, b.ID, true); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { return left(t, s, b.ID) == 0 })
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			harm(t, s, tenantKey(b.Tenant, b.ID))
			if err := s.Check(t.Context()); err == nil || strings.Contains(err.Error(), "panic") {
				t.Errorf("check says %v", err)
			}
			if name == "a tombstone" {
				if _, err := s.Batch(t.Context(), b.Tenant, b.ID); batch.CodeOf(err) != batch.Gone {
					t.Errorf("it is %v", err)
				}
			}
		})
	}
}
