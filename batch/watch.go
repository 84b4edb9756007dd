package batch

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A Change says what kind of change a batch has gone through.
type Change uint8

// The changes. What is settled of a batch's messages after its end is told to
// those who watch that batch alone.
const (
	Moved   Change = iota // it is another than before, and has not ended
	Ended                 // its round is over now: worth a look at once
	Settled               // it had ended before
)

// Watches are who waits for batches to change. They live in memory and carry
// nothing: whoever is hinted at a change reads the batch. Stores tell them of a
// change once it is durable. The zero value is ready. It is safe for
// concurrent use.
type Watches struct {
	open   atomic.Int32 // watches there are
	mu     sync.Mutex
	clock  uint64 // rises with every change that somebody may see
	topics map[subject]*topic
}

// A subject is a batch, or all of a tenant's.
type subject struct {
	tenant TenantID
	id     ID
	all    bool
}

// A topic is what is known of a subject that is watched.
type topic struct {
	watches        int
	last, lastEnd  uint64        // clock of the last change, and of the last end
	changed, ended chan struct{} // closed by the next; nil: nobody waits
	log            []Hint        // of a tenant's batches, the last watchLog in a ring
	count          int           // of changes ever in log
}

// watchLog is how many changes a tenant's watchers may be behind before they
// have to look at everything.
const watchLog = 4096

// A Hint names a batch that changed. Versions rise with time; those of one
// process compare.
type Hint struct {
	ID      ID
	Version uint64
}

// A Watch is a place from which to see the changes of a batch, or of all
// batches of a tenant. It is closed by its user, who is one goroutine.
type Watch struct {
	all   *Watches
	about subject
	topic *topic
	taken int // changes of the log taken so far
}

// Watch returns a new watch of a batch, or of the tenant's batches if id is
// nil. It sees what changes from now on.
func (ws *Watches) Watch(tenant TenantID, id *ID) *Watch {
	about := subject{tenant: tenant, all: id == nil}
	if id != nil {
		about.id = *id
	}
	ws.open.Add(1)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	t := ws.topics[about]
	if t == nil {
		t = &topic{last: ws.clock, lastEnd: ws.clock}
		if id == nil {
			t.log = make([]Hint, watchLog)
		}
		if ws.topics == nil {
			ws.topics = map[subject]*topic{}
		}
		ws.topics[about] = t
	}
	t.watches++
	return &Watch{all: ws, about: about, topic: t, taken: t.count}
}

// Any reports whether anybody watches.
func (ws *Watches) Any() bool { return ws.open.Load() > 0 }

// Tell hints at a change of a batch. It never waits for a watcher.
func (ws *Watches) Tell(tenant TenantID, id ID, c Change) {
	if !ws.Any() {
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	one, all := ws.topics[subject{tenant: tenant, id: id}], ws.topics[subject{tenant: tenant, all: true}]
	if one == nil && all == nil {
		return
	}
	ws.clock++
	if one != nil {
		one.note(Hint{id, ws.clock}, c)
	}
	if all != nil && c != Settled {
		all.note(Hint{id, ws.clock}, c)
	}
}

func (t *topic) note(h Hint, c Change) {
	if len(t.log) > 0 {
		t.log[t.count%len(t.log)] = h
		t.count++
	}
	t.last = h.Version
	wake(&t.changed)
	if c == Ended {
		t.lastEnd = h.Version
		wake(&t.ended)
	}
}

func wake(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// Version returns that of the last change: what is read afterwards contains
// it.
func (w *Watch) Version() uint64 {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	return w.topic.last
}

// After returns two channels: one that is closed once there is a change after
// a version, and one that is closed once there is an end. An end is a change
// as well.
func (w *Watch) After(version uint64) (changed, ended <-chan struct{}) {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	return later(w.topic.last > version, &w.topic.changed), later(w.topic.lastEnd > version, &w.topic.ended)
}

// happened is closed for ever.
var happened = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func later(already bool, c *chan struct{}) <-chan struct{} {
	if already {
		return happened
	}
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}

// LastEnd returns the version of the last end; whoever is to show it reads
// after that.
func (w *Watch) LastEnd() uint64 {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	return w.topic.lastEnd
}

// Take returns which of a tenant's batches have changed since the last call,
// each once with its last version, in the order of these. They are all only if
// missed is false: else there were too many to remember.
func (w *Watch) Take() (hints []Hint, missed bool) {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	t := w.topic
	from := w.taken
	w.taken = t.count
	if t.count-from > len(t.log) {
		return nil, true
	}
	seen := make(map[ID]struct{}, t.count-from)
	for n := t.count - 1; n >= from; n-- {
		h := t.log[n%len(t.log)]
		if _, again := seen[h.ID]; !again {
			seen[h.ID] = struct{}{}
			hints = append(hints, h)
		}
	}
	slices.Reverse(hints)
	return hints, false
}

// Close ends the watch. A second call does nothing.
func (w *Watch) Close() {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	if w.topic == nil {
		return
	}
	if w.topic.watches--; w.topic.watches == 0 {
		delete(w.all.topics, w.about)
	}
	w.topic = nil
	w.all.open.Add(-1)
}
