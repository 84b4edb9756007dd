// Package engine claims blocks of items, has processors work on them, and
// delivers the messages that come of it.
//
// One goroutine claims and one records; both only ask the store, which is the
// only one that knows what is due. In between stand the lanes, one a
// processor: a lane grants its slots to runs of items, by turns over tenants
// and over the batches of each, and keeps what an upstream asked for. An item
// that waits for its next attempt goes back to the store and holds nothing
// here.
//
// All that is in hand is guarded by one lock, taken once or twice a run. No
// call of a processor, a receiver or the store is made under it.
package engine

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback"
)

// A Store is what the engine needs of a [batch.Store].
type Store interface {
	batch.Queue
	ClaimMessages(ctx context.Context, c batch.MessageClaim) ([]batch.Delivery, error)
	Attempted(ctx context.Context, outcomes []batch.AttemptOutcome) error
	NextMessage(ctx context.Context) (at time.Time, ok bool, err error)
	MessagesChanged() <-chan struct{}
	Body(ctx context.Context, m batch.Message) ([]byte, error)
	Secrets(ctx context.Context, tenant batch.TenantID, fresh batch.Secret) ([]batch.Secret, error)
	Crashed() bool
	Failed() <-chan struct{}
	Err() error
}

// A Sender makes one attempt to deliver a message.
type Sender interface {
	Send(ctx context.Context, m callback.Message) callback.Result
}

// Options say how an engine runs. The zero value has no processor and sends
// no messages.
type Options struct {
	Owner      string // this node's name, its own among all that share the store; default "local"
	Processors map[string]Processor
	MaxOutput  int // bytes of one output; default 1 MiB

	// Messages. Schedule's window is not asked: each message says until when it
	// may be tried. Of InFlight at most seven eighths are sent again, and at
	// most half go to hosts that are not known to answer; whatever it is, their
	// bodies take at most 64 MiB.
	Sender   Sender // nil: messages are left to others
	Schedule callback.Schedule
	InFlight int // most messages being sent; default 512; a connection each
	PerHost  int // most of these to one tenant and host; default 128

	// Drain is how long in-flight work may go on once the engine is to stop;
	// default 20 s. What has not ended then is canceled, and not counted.
	Drain time.Duration

	// Blocks and Bytes bound what is held in memory; defaults 2048, or four
	// times the largest concurrency if that is more, and 64 MiB. One lane
	// alone has half. PerBatch is how many blocks of one batch are claimed at
	// least, while there are; default 4: two worked on, two being recorded.
	Blocks   int
	Bytes    int
	PerBatch int

	Logger  *slog.Logger // default: discards
	Metrics Metrics      // default: none
}

func (o Options) withDefaults() Options {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	most := 0
	for _, p := range o.Processors {
		most = max(most, p.WithDefaults().Concurrency)
	}
	def(&o.Blocks, max(2048, 4*most))
	def(&o.Bytes, 64<<20)
	def(&o.PerBatch, 4)
	def(&o.MaxOutput, DefaultMaxOutput)
	def(&o.InFlight, 512)
	def(&o.PerHost, 128)
	if o.Owner == "" {
		o.Owner = "local"
	}
	if o.Drain == 0 {
		o.Drain = 20 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = noMetrics{}
	}
	return o
}

// An Engine works for one node. It is made by New and runs once.
type Engine struct {
	store   Store
	o       Options
	log     *slog.Logger
	lanes   map[string]*lane
	order   []*lane // by name
	courier *courier
	workers sync.WaitGroup

	// life ends when what is in flight is to end. It is here for Test, which
	// others call.
	life context.Context
	end  context.CancelFunc

	outcomes signal // there is something to record
	room     signal // there may be room for more blocks
	claimed  signal // there is something to renew

	watching time.Time           // until then runs inside the process are on record before they begin
	inside   *semaphore.Weighted // a place for each run inside the process, all of them for one that is to be alone

	mu         sync.Mutex // guards what follows, and what it says of lanes and hands
	jobs       map[batch.ID]*job
	strained   map[batch.ID]failures // of batches whose last block went while a claim was under way
	held       hands
	noted      []*block // with something to record
	charges    []*charge
	charged    bool // the last group was one of charges
	unrecorded int  // bytes of outcomes
	asking     bool // a claim is under way
	halted     bool // nothing starts any more
	stale      bool // nothing starts until leases are renewed
}

// New returns an engine over a store. It panics if a processor lacks its Do.
func New(s Store, o Options) *Engine {
	o = o.withDefaults()
	e := &Engine{
		store: s, o: o, log: o.Logger, lanes: map[string]*lane{}, jobs: map[batch.ID]*job{}, strained: map[batch.ID]failures{},
		outcomes: newSignal(), room: newSignal(), claimed: newSignal(),
	}
	for _, name := range slices.Sorted(maps.Keys(o.Processors)) {
		p := o.Processors[name]
		if p.Do == nil {
			panic("engine: processor " + name + " has no Do")
		}
		e.lanes[name] = newLane(e, name, p)
		e.order = append(e.order, e.lanes[name])
	}
	e.inside = semaphore.NewWeighted(everyPlace)
	if s.Crashed() {
		e.watching = time.Now().Add(watchTime)
	}
	e.courier = newCourier(s, o)
	e.life, e.end = context.WithCancel(context.Background())
	return e
}

// Health says how a processor's upstream stands: "ok", "open" while its
// breaker keeps attempts off it, "paused" while it asked to be left alone.
func (e *Engine) Health(processor string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lanes[processor]
	switch {
	case l == nil:
		return ""
	case l.gate.open():
		return "open"
	case l.gate.held.After(time.Now()):
		return "paused"
	default:
		return "ok"
	}
}

// Rotated says that the secrets of a tenant are others now: every attempt that
// begins after it returned is signed by those the store has. Without it, by
// another node's rotation say, they are known within a second.
func (e *Engine) Rotated(tenant batch.TenantID) { e.courier.keys.forget(tenant) }

// wakeLanes has every lane look for what it may grant.
func (e *Engine) wakeLanes() {
	for _, l := range e.order {
		l.wake.raise()
	}
}

// halt lets nothing more start and has all that is idle released.
func (e *Engine) halt() {
	e.courier.halt()
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.halted = true
	for _, j := range e.jobs {
		e.letGo(j, now)
	}
	e.outcomes.raise()
}

// abandon lets go of what did not end although its context did.
func (e *Engine) abandon() {
	e.courier.abandon()
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range e.jobs {
		if j.runs > 0 {
			e.log.Warn("items left behind", "processor", j.lane.name, "batch_id", j.spec.ID, "in_flight", j.runs)
		}
		for _, b := range j.blocks {
			b.runs = nil
			e.note(b, now)
		}
	}
}

// A signal says that something may have changed. It never carries.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) raise() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// The waits between tries of a store that is away.
const (
	shortestBackoff = 50 * time.Millisecond
	longestBackoff  = 5 * time.Second
)

// passing reports whether what the store refused with code may succeed later.
func passing(c batch.Code) bool { return c == batch.Unavailable || c == batch.Full }

// sleep waits, and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
