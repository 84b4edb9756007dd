package bolt

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

func open(path string, o Options) (*Store, error) {
	if err := create(path); err != nil {
		return nil, err
	}
	db, err := openDB(path, o)
	if err != nil {
		return nil, err
	}
	s := newStore(db, o)
	if err := s.recover(); err != nil {
		db.Close()
		return nil, err
	}
	go s.commitLoop()
	for _, loop := range []func(){s.endLoop, s.orderLoop, s.roundLoop, s.removeLoop, s.retainLoop, s.tidyLoop} {
		s.loops.Go(loop)
	}
	if err := s.resume(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// create makes an empty store under another name and moves it to its place,
// so that a crash in between leaves nothing half made.
func create(path string) error {
	switch st, err := os.Stat(path); {
	case err == nil && st.Size() == 0: // bbolt would take it for one to be filled
		return batch.Errorf(batch.Damaged, "the file is empty: it is not a Callbatch store; remove it to have one made")
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("its folder: %w", err)
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	f.Close()
	db, err := openDB(f.Name(), Options{})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		if err := bucketMeta.in(tx).Put(metaLinks, record.Seal(record.KindMeta, metaLinks, newLinkKey())); err != nil {
			return err
		}
		return putMeta(tx, metaVersion, record.Version)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	switch err := os.Link(f.Name(), path); { // unlike a rename it never replaces a store that just came
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.EPERM):
		if err := os.Rename(f.Name(), path); err != nil {
			return err
		}
	case err != nil && !errors.Is(err, fs.ErrExist):
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openDB opens the file; what bbolt panics about in a damaged file comes back
// as an error.
func openDB(path string, o Options) (db *bbolt.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = batch.Errorf(batch.Damaged, "the file is damaged (%v): keep it, restore a backup", p)
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: time.Second, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true,
		InitialMmapSize: cmp.Or(o.MmapBytes, defaultMmap), NoStatistics: true,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, batch.Errorf(batch.Unavailable, "another process has it open: stop that one first, or use its API")
	}
	if err == nil && o.GrowBytes > 0 {
		db.AllocSize = o.GrowBytes
	}
	return db, err
}

// recover checks that the file is ours, counts the start and reads what
// memory must know.
func (s *Store) recover() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = batch.Errorf(batch.Damaged, "the file is damaged (%v): keep it, restore a backup", p)
		}
	}()
	var starts, closed uint64
	err = s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if tx.Bucket([]byte(name)) == nil {
				return batch.Errorf(batch.Damaged, "it is not a Callbatch store: it has no %s", name)
			}
		}
		v, err := getMeta(tx, metaVersion)
		if err != nil {
			return err
		}
		if v != record.Version {
			return batch.Errorf(batch.Damaged, "it has schema %d and this program reads %d: use the version that wrote it", v, record.Version)
		}
		if s.terms.Links.Key, err = readLinkKey(tx); err != nil {
			return err
		}
		if closed, err = getMeta(tx, metaClosed); err != nil {
			return err
		}
		starts, err = getMeta(tx, metaStarts)
		return err
	})
	if err != nil {
		return err
	}
	s.crashed = starts != closed
	starts++
	s.token.Store(starts << 32)
	if err := s.db.Update(func(tx *bbolt.Tx) error { return putMeta(tx, metaStarts, starts) }); err != nil {
		return err
	}
	return s.db.View(s.readActive)
}

// readActive makes the batches that have not ended known, and audits them:
// what their progress says must be what their segments and open blocks say.
func (s *Store) readActive(tx *bbolt.Tx) error {
	a := audit{tx: tx, left: auditRecords}
	err := bucketActive.in(tx).ForEach(func(k, _ []byte) error {
		tenant, id := splitTenantKey(k)
		b, err := readBatch(tx, tenant, id)
		if err == nil {
			err = a.batch(b)
		}
		if s.damaged(err, "batch", batch.ID(id)) { // set aside: nothing of it is worked on
			return nil
		}
		if err != nil {
			return err
		}
		if b.Status == batch.Open { // nothing of it is to be worked on
			return nil
		}
		s.adopt(&b.Spec, b.Progress)
		if b.ToLayOut() > 0 {
			s.queueRound(queued{tenant, id})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if s.stale, err = s.readHosts(tx); err != nil {
		return err
	}
	if s.lastMessage, err = lastMessage(tx); err != nil {
		return err
	}
	var last laneKey
	c := bucketOutbox.in(tx).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if s.lanes.waiting++; s.lanes.waiting > 1 && bytes.HasPrefix(k, last[:]) {
			continue
		}
		lane, due, _ := splitOutboxKey(k)
		s.lanes.sleep(lane, due)
		last = lane
	}
	return nil
}

// resumeChunk is how many interrupted attempts one step of a start settles.
const resumeChunk = 500

// resume settles what the last process left in the middle: attempts that were
// under way, uploads that never became a batch or a part, and what was being
// removed.
func (s *Store) resume() error {
	var sending, staged [][]byte
	err := s.db.View(func(tx *bbolt.Tx) error {
		sending, staged = keysOf(bucketSending.in(tx)), keysOf(bucketStaging.in(tx))
		return nil
	})
	for len(sending) > 0 && err == nil {
		n := min(len(sending), resumeChunk)
		chunk := sending[:n]
		sending = sending[n:]
		err = s.do(s.small, n<<10, func(t *txn) error {
			for _, k := range chunk {
				if err := t.interrupt(s, k); err != nil {
					return errBroken{err}
				}
			}
			return nil
		})
	}
	if err == nil {
		err, s.stale = s.forgetHosts(s.stale), nil
	}
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	for _, row := range staged {
		s.sweep(row)
	}
	return nil
}

func keysOf(b rows) (keys [][]byte) {
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		keys = append(keys, append([]byte(nil), k...))
	}
	return keys
}

func putMeta(tx *bbolt.Tx, name []byte, v uint64) error {
	return bucketMeta.in(tx).Put(name, record.Seal(record.KindMeta, name, be.AppendUint64(nil, v)))
}

func getMeta(tx *bbolt.Tx, name []byte) (uint64, error) {
	v := bucketMeta.in(tx).Get(name)
	if v == nil {
		return 0, nil
	}
	p, err := record.Open(record.KindMeta, name, v)
	if err != nil || len(p) != 8 {
		return 0, errors.Join(err, batch.Errorf(batch.Damaged, "the meta record %s is damaged", name))
	}
	return be.Uint64(p), nil
}
