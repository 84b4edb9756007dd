package bolt

import (
	"bytes"
	"context"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// ClaimMessages takes due messages, a few from each lane in turn.
func (s *Store) ClaimMessages(ctx context.Context, c batch.MessageClaim) ([]batch.Delivery, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	// One claim at a time: what one has picked the next must not see.
	s.claiming.Lock()
	defer s.claiming.Unlock()
	picked, err := s.pickMessages(c)
	if err != nil || len(picked) == 0 {
		return nil, err
	}
	var out []batch.Delivery
	err = s.do(s.small, len(picked)<<10, func(t *txn) error {
		out = out[:0]
		for _, k := range picked {
			d, ok, err := t.claimMessage(s, k, c.PerHost)
			if err != nil {
				return errBroken{err}
			}
			if ok {
				out = append(out, d)
			}
		}
		return nil
	})
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, k := range picked {
			lane, _, _ := splitOutboxKey(k)
			s.lanes.spare(lane)
		}
		return nil, err
	}
	return out, nil
}

// laneTurn is how many messages a lane gives before the next has its turn.
const laneTurn = 8

// A picking chooses what one claim takes. The store is locked meanwhile.
type picking struct {
	*lanes
	claim  batch.MessageClaim
	cur    *cursor
	now    time.Time
	keys   [][]byte
	lapses [][]byte // of messages whose time is spent, besides
	looks  int      // at messages whose time may be
	got    [classes]int
	begun  demand
	trials int
	taken  map[laneKey][]byte // the last key of each lane
}

// pickMessages finds the outbox keys of messages that are due.
func (s *Store) pickMessages(c batch.MessageClaim) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx, err := s.db.Begin(false)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	p := picking{
		lanes: s.lanes, claim: c, cur: bucketOutbox.in(tx).Cursor(), now: time.Now(),
		begun: demand{}, taken: map[laneKey][]byte{},
	}
	for c := range p.turns {
		p.turns[c].rouse(p.now)
	}
	p.widen(c.PerHost)
	share := min(c.Retries, p.share())
	for more := true; more; more = p.recall() {
		p.pick(manual, share)
		p.pick(retry, share)
		p.pick(first, c.Max)
		p.pick(manual, c.Retries-p.got[retry])
		p.pick(retry, c.Retries-p.got[manual])
	}
	at, some := p.turns[retry].next()
	p.spent = some && at.IsZero() && p.got[retry]+p.got[manual] >= c.Retries
	return append(p.keys, p.lapses...), nil
}

// share returns how many retries, and how many that were asked for, go before
// what was never tried: an eighth of all each, or messages never tried could
// leave nothing to them. The others go before the rest, however few a claim
// takes.
func (p *picking) share() (n int) {
	p.ahead += p.claim.Max
	n, p.ahead = p.ahead/8, p.ahead%8
	return n
}

// recall has another look at lanes that earlier claims, or this one, had no
// budget for trials for. It reports whether there are any.
func (p *picking) recall() (some bool) {
	for n := p.claim.Trials - p.trials; n > 0 && len(p.keys) < p.claim.Max; n-- {
		lane, ok := p.short.take()
		if !ok {
			break
		}
		p.short.forget(lane)
		p.wakeUp(lane)
		some = true
	}
	return some
}

// pick takes messages of a class until there are most of it.
func (p *picking) pick(c class, most int) {
	for p.got[c] < most && len(p.keys) < p.claim.Max {
		lane, ok := p.turns[c].take()
		if !ok {
			break
		}
		p.visit(lane, most-p.got[c])
	}
}

// visit takes a turn's worth of messages from a lane, or says when to come
// back.
func (p *picking) visit(lane laneKey, most int) {
	room, until := p.room(lane, p.begun, p.claim.PerHost, p.now)
	if room == 0 {
		if !until.IsZero() {
			until = p.lapsed(lane, until)
		}
		p.hold(lane, until)
		return
	}
	most = min(most, room, laneTurn, p.claim.Max-len(p.keys))
	trial := !p.health(lane.host()).Proven()
	if trial {
		free := p.mayTry(lane.host(), p.begun)
		if free == 0 {
			p.host(lane.host().trials()).held[lane] = struct{}{}
			return
		}
		if most = min(most, free, p.claim.Trials-p.trials); most <= 0 {
			p.short.wakeUp(lane.tenant(), lane)
			return
		}
	}
	if p.health(lane.host()).Open() { // one goes: those whose time is spent do not wait for their turn to
		p.lapsed(lane, p.now)
	}
	keys, next := dueIn(p.cur, lane, p.taken[lane], most, p.now)
	if h := p.hosts[lane.host()]; len(keys) == 0 && h != nil {
		p.release(h) // those of another class that left it their place
	}
	switch {
	case len(keys) > 0:
		p.take(lane, keys, trial)
		p.wakeUp(lane)
	case !next.IsZero():
		p.sleep(lane, next)
	default:
		p.turns[lane.class()].forget(lane)
		delete(p.spans, lane)
	}
}

func (p *picking) take(lane laneKey, keys [][]byte, trial bool) {
	p.keys = append(p.keys, keys...)
	p.taken[lane] = keys[len(keys)-1]
	p.got[lane.class()] += len(keys)
	p.begun.add(flight{host: lane.host(), trial: trial, manual: lane.class() == manual}, len(keys))
	if trial {
		p.trials += len(keys)
	}
}

// dueIn returns up to most due keys of a lane behind the last taken. Without
// one it says when the next is due.
func dueIn(c *cursor, lane laneKey, last []byte, most int, now time.Time) (keys [][]byte, next time.Time) {
	from := lane[:]
	if last != nil {
		from = append(bytes.Clone(last), 0)
	}
	for k, _ := c.Seek(from); len(keys) < most && bytes.HasPrefix(k, lane[:]); k, _ = c.Next() {
		if _, due, _ := splitOutboxKey(k); due.After(now) {
			return keys, due
		}
		keys = append(keys, bytes.Clone(k))
	}
	return keys, next
}

// A span is how far a lane whose breaker is open was searched for messages
// whose time is spent. What joins the lane later lapses later, so a search
// that came to the end says when the next is worth it.
type span struct {
	from     []byte    // where to go on; nil: at the beginning
	earliest time.Time // among what was passed
	done     bool
}

// How much of the lanes one claim searches, how many it takes, and how soon
// the next goes on.
const (
	lapseKeys  = 2000
	lapseTurn  = 200
	lapsePause = 100 * time.Millisecond
)

// lapsed takes messages of a lane that nothing is sent from until a time and
// whose own time is spent, and returns when to come back.
func (p *picking) lapsed(lane laneKey, until time.Time) (wake time.Time) {
	sp := p.spans[lane]
	if sp == nil || sp.done && !sp.earliest.IsZero() && !sp.earliest.After(p.now) {
		sp = &span{}
		p.spans[lane] = sp
	}
	if !sp.done && p.looks < lapseKeys && len(p.lapses) < lapseTurn {
		keys, looks := sp.search(p.cur, lane, p.now)
		p.lapses, p.looks = append(p.lapses, keys...), p.looks+looks
	}
	switch {
	case !sp.done:
		return earlier(p.now.Add(lapsePause), until)
	case !sp.earliest.IsZero():
		return earlier(sp.earliest, until)
	default:
		return until
	}
}

func (sp *span) search(c *cursor, lane laneKey, now time.Time) (keys [][]byte, n int) {
	from := sp.from
	if from == nil {
		from = lane[:]
	}
	for k, v := c.Seek(from); bytes.HasPrefix(k, lane[:]); k, v = c.Next() {
		if n++; n > lapseKeys || len(keys) == lapseTurn {
			sp.from = bytes.Clone(k)
			return keys, n
		}
		until := lapseOf(v)
		switch {
		case until.IsZero():
		case !until.After(now):
			keys = append(keys, bytes.Clone(k))
		case sp.earliest.IsZero() || until.Before(sp.earliest):
			sp.earliest = until
		}
	}
	sp.done = true
	return keys, n
}

// lapseOf reads the value of an outbox entry.
func lapseOf(v []byte) time.Time {
	if len(v) != 8 {
		return time.Time{}
	}
	return millisTime(be.Uint64(v))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// claimMessage starts the attempt of a message if it still waits under key.
func (t *txn) claimMessage(s *Store, key []byte, perHost int) (d batch.Delivery, ok bool, err error) {
	lane, _, id := splitOutboxKey(key)
	// Whatever is not claimed here, its lane is to be looked at again.
	defer func() {
		if !ok {
			t.after(func() {
				s.lanes.spare(lane)
				hint(s.messagesChanged)
			})
		}
	}()
	if bucketOutbox.in(t.Tx).Get(key) == nil {
		return d, false, nil
	}
	m, err := readMessage(t.Tx, tenantKey(lane.tenant(), id))
	var spec *batch.Spec
	if err == nil {
		spec, err = t.specOf(s, m)
	}
	if err != nil {
		if !isAbsent(err) && !s.damaged(err, "message", id) {
			return d, false, err
		}
		return d, false, t.unqueue(s, key)
	}
	host := batch.CallbackHost(spec.Options.CallbackURL)
	switch {
	case m.Lapsed(t.now):
		if err := t.unqueue(s, key); err != nil {
			return d, false, err
		}
		m.End(batch.MessageExhausted, batch.ReasonWindow, t.now)
		return d, false, t.settled(s, m)
	case host != "" && host != m.Host: // the URL is another by now
		if err := t.unqueue(s, key); err != nil {
			return d, false, err
		}
		m.Host = host
		return d, false, t.wait(s, m)
	case !t.mayStart(s, lane, perHost):
		return d, false, nil
	}
	if err := t.unqueue(s, key); err != nil {
		return d, false, err
	}
	d, err = t.startSending(s, m, spec)
	return d, err == nil, err
}

// mayStart reports whether an attempt in a lane may start within this
// transaction.
func (t *txn) mayStart(s *Store, lane laneKey, perHost int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, _ := s.lanes.room(lane, t.begun, perHost, t.now)
	return n > 0
}

// specOf returns the spec of a message's batch.
func (t *txn) specOf(s *Store, m batch.Message) (*batch.Spec, error) {
	e, err := t.batch(m.Tenant, m.Batch)
	if err != nil {
		return nil, err
	}
	return t.spec(s, e)
}

// NextMessage returns when ClaimMessages may next find something.
func (s *Store) NextMessage(context.Context) (time.Time, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.lanes.next(time.Now())
	return at, ok, s.Err()
}

// Backlog returns how much is owed.
func (s *Store) Backlog() batch.Backlog {
	s.mu.Lock()
	defer s.mu.Unlock()
	return batch.Backlog{Waiting: s.lanes.waiting, Sending: len(s.flights), HostsOpen: s.lanes.open()}
}

// MessagesChanged hints that ClaimMessages may find more.
func (s *Store) MessagesChanged() <-chan struct{} { return s.messagesChanged }
