// Package bolt keeps everything in one bbolt file that one process owns.
//
// One goroutine writes: it takes the steps that callers have queued, makes
// one transaction of them and answers all once it is on the disk. Reads are
// short transactions beside it and wait for nobody. Leases live in memory,
// for the file lock lets no second owner in; everything else that decides
// what happens next is in the file.
package bolt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// Options say how a store works. The zero value is right for a server.
type Options struct {
	Hold   time.Duration // longest wait of a terminal message for the others; default 60 s
	Logger *slog.Logger  // default: discards

	// MmapBytes is the address space set aside for the file. A file that
	// outgrows it is mapped anew, which waits for all readers. It costs no
	// memory. Default 256 GiB.
	MmapBytes int

	// GrowBytes is how much the file grows at a time; default 16 MiB.
	GrowBytes int
}

const defaultMmap = 256 << 30

// Store is a [batch.Store] in one file.
type Store struct {
	db    *bbolt.DB
	log   *slog.Logger
	hold  time.Duration
	token atomic.Uint64 // of the last lease or attempt; its upper half counts the starts of the store

	small, bulk chan *step
	closing     sync.RWMutex
	closed      bool
	committed   chan struct{} // closed when the committer is done
	sync        func(*bbolt.Tx) error

	writing sync.Mutex // held over a transaction that writes, and by Check

	mapped  int64      // address space set aside for the file
	reading sync.Mutex // guards before
	before  *snapshot  // the durable state while a commit syncs, else nil

	failOnce sync.Once
	failed   chan struct{}
	failure  atomic.Pointer[error]

	changed, messagesChanged chan struct{}

	claiming sync.Mutex // held over ClaimMessages

	mu      sync.Mutex // guards what follows
	live    map[batch.ID]*live
	batches map[string]*rota[batch.ID] // by processor
	turn    int                        // of the processors
	lanes   *rota[laneKey]
	crowded map[batch.ID]int           // batches passed by for having so many blocks out
	full    map[laneKey]int            // lanes passed by for having so many attempts under way
	sending map[laneKey]int            // attempts under way
	flights map[batch.MessageID]uint64 // their tokens
	ends    []queued

	endsReady chan struct{}
	stop      chan struct{}
	ended     chan struct{}
}

var _ batch.Store = (*Store)(nil)

// Open opens the store at path, or makes it. A file that another process has
// open, of another schema, or damaged is refused; a damaged file is never
// made anew.
func Open(path string, o Options) (*Store, error) {
	s, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", path, err)
	}
	return s, nil
}

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
	go s.endLoop()
	if err := s.resume(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func newStore(db *bbolt.DB, o Options) *Store {
	o.MmapBytes = cmp.Or(o.MmapBytes, defaultMmap)
	if o.Hold == 0 {
		o.Hold = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{
		db: db, log: o.Logger, hold: o.Hold, mapped: int64(o.MmapBytes),
		small: make(chan *step, maxSteps), bulk: make(chan *step, 2*stageAhead),
		committed: make(chan struct{}), sync: syncTx, failed: make(chan struct{}),
		changed: make(chan struct{}, 1), messagesChanged: make(chan struct{}, 1),
		live: map[batch.ID]*live{}, batches: map[string]*rota[batch.ID]{}, lanes: newRota[laneKey](), sending: map[laneKey]int{}, full: map[laneKey]int{},
		flights: map[batch.MessageID]uint64{}, crowded: map[batch.ID]int{},
		endsReady: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
	}
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
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
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
	var starts uint64
	err = s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if tx.Bucket(name) == nil {
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
		starts, err = getMeta(tx, metaStarts)
		return err
	})
	if err != nil {
		return err
	}
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
	err := tx.Bucket(bucketActive).ForEach(func(k, _ []byte) error {
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
		s.adopt(&b.Spec, b.Progress)
		if b.Status == batch.Canceling {
			s.queueEnd(tenant, id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c := tx.Bucket(bucketOutbox).Cursor()
	for k, _ := c.First(); k != nil; {
		lane, due, _ := splitOutboxKey(k)
		s.lanes.sleep(laneTenant(lane), lane, due)
		k, _ = c.Seek(append(lane[:], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)) // the next lane
	}
	return nil
}

// resumeChunk is how many interrupted attempts one step of a start settles.
const resumeChunk = 500

// resume settles what the last process left in the middle: attempts that were
// under way, and uploads that never became a batch.
func (s *Store) resume() error {
	var sending, staged [][]byte
	err := s.db.View(func(tx *bbolt.Tx) error {
		sending, staged = keysOf(tx.Bucket(bucketSending)), keysOf(tx.Bucket(bucketStaging))
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
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	for _, k := range staged {
		tenant, id := splitTenantKey(k)
		s.sweep(tenant, id)
	}
	return nil
}

func keysOf(b *bbolt.Bucket) (keys [][]byte) {
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		keys = append(keys, append([]byte(nil), k...))
	}
	return keys
}

func putMeta(tx *bbolt.Tx, name []byte, v uint64) error {
	return tx.Bucket(bucketMeta).Put(name, record.Seal(record.KindMeta, name, be.AppendUint64(nil, v)))
}

func getMeta(tx *bbolt.Tx, name []byte) (uint64, error) {
	v := tx.Bucket(bucketMeta).Get(name)
	if v == nil {
		return 0, nil
	}
	p, err := record.Open(record.KindMeta, name, v)
	if err != nil || len(p) != 8 {
		return 0, errors.Join(err, batch.Errorf(batch.Damaged, "the meta record %s is damaged", name))
	}
	return be.Uint64(p), nil
}

// ready refuses callers whose context is over and a store that failed.
func (s *Store) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.Err()
}

// Close lets what was submitted finish and closes the file.
func (s *Store) Close() error {
	s.closing.Lock()
	if s.closed {
		s.closing.Unlock()
		return nil
	}
	s.closed = true
	close(s.small)
	s.closing.Unlock()
	close(s.stop)
	<-s.committed
	<-s.ended
	if s.before != nil { // a commit failed
		s.before.leave()
	}
	return s.db.Close()
}
