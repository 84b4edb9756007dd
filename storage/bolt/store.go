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
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
)

// Options say how a store works. The zero value is right for a server.
type Options struct {
	Terms  batch.Terms  // of batches and messages; Links.Key is the store's own
	Logger *slog.Logger // default: discards

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
	terms batch.Terms
	token atomic.Uint64 // of the last lease or attempt; its upper half counts the starts of the store

	small, bulk chan *step
	closing     sync.RWMutex
	closed      bool
	committed   chan struct{} // closed when the committer is done
	sync        func(*bbolt.Tx) error
	large       time.Time // when a commit last took much; the committer's
	crashed     bool      // it was not closed the last time

	lastMessage batch.MessageID // the greatest id there is; the committer's

	writing sync.Mutex // held over a transaction that writes, and by Check

	mapped  int64      // address space set aside for the file
	reading sync.Mutex // guards before
	before  *snapshot  // the durable state while a commit syncs, else nil

	failOnce sync.Once
	failed   chan struct{}
	failure  atomic.Pointer[error]

	changed, messagesChanged chan struct{}

	claiming  sync.Mutex    // held over ClaimMessages
	comparing chan struct{} // has a place for each that compares the ids of a batch's parts

	watches batch.Watches

	mu        sync.Mutex // guards what follows
	live      map[batch.ID]*live
	batches   map[string]*rota[batch.ID] // by processor
	turn      int                        // of the processors
	lanes     *lanes
	flights   map[batch.MessageID]flight
	hand      map[batch.MessageID][]byte // bodies, together handBytes
	handBytes int
	posted    chan struct{}            // closed when the next message has been made
	recent    map[batch.ID]*batch.Spec // of batches that ended lately
	crowded   map[batch.ID]int         // batches passed by for having so many blocks out
	ends      []queued                 // batches whose end is to be seen to
	rounds    []queued                 // batches whose round is to be laid out
	deadlines *rota[batch.ID]          // of batches that have one to come

	reserved map[string]struct{}     // Idempotency-Keys of requests that are being received
	uploads  map[partUpload]struct{} // of parts

	stale [][]byte // hosts found at the start that are to be forgotten

	endsReady   chan struct{}
	roundsReady chan struct{}
	doomedReady chan struct{}
	ordersReady chan struct{}
	stop        chan struct{}
	loops       sync.WaitGroup // all but the committer
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

func newStore(db *bbolt.DB, o Options) *Store {
	o.MmapBytes = cmp.Or(o.MmapBytes, defaultMmap)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{
		db: db, log: o.Logger, terms: o.Terms.WithDefaults(), mapped: int64(o.MmapBytes),
		small: make(chan *step, maxSteps), bulk: make(chan *step, 2*stageAhead),
		committed: make(chan struct{}), sync: syncTx, failed: make(chan struct{}),
		changed: make(chan struct{}, 1), messagesChanged: make(chan struct{}, 1),
		live: map[batch.ID]*live{}, batches: map[string]*rota[batch.ID]{}, lanes: newLanes(),
		flights: map[batch.MessageID]flight{}, hand: map[batch.MessageID][]byte{}, posted: make(chan struct{}), crowded: map[batch.ID]int{}, recent: map[batch.ID]*batch.Spec{}, deadlines: newRota[batch.ID](),
		comparing: make(chan struct{}, mostCompare), reserved: map[string]struct{}{}, uploads: map[partUpload]struct{}{},
		endsReady: make(chan struct{}, 1), roundsReady: make(chan struct{}, 1), doomedReady: make(chan struct{}, 1), ordersReady: make(chan struct{}, 1), stop: make(chan struct{}),
	}
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
	s.loops.Wait()
	if kept := s.before; kept != nil { // a commit failed
		s.show(nil)
		kept.leave()
	}
	s.bow()
	return s.db.Close()
}

// bow writes down that the store is closed. If it cannot, the next start takes
// it for a crash.
func (s *Store) bow() {
	if s.Err() != nil {
		return
	}
	if err := s.db.Update(func(tx *bbolt.Tx) error { return putMeta(tx, metaClosed, s.token.Load()>>32) }); err != nil {
		s.log.Warn("the end is not on record", "error", err)
	}
}

// Crashed reports whether the store was not closed the last time.
func (s *Store) Crashed() bool { return s.crashed }
