package api

import (
	"context"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// A frame is a batch as it was rendered once, for however many clients.
type frame struct {
	id     batch.ID
	status batch.Status
	round  int
	body   []byte // a line of JSON
	tag    string
	late   bool      // the tag stands for an earlier content, and may be replaced in a while
	rated  bool      // it has a rate
	at     time.Time // it was asked for
	seen   uint64    // version of the last change that it is known to contain
	event  []byte    // as it is sent to those who follow; nil until somebody does
}

func (f frame) over() bool { return f.status.Terminal() }

// render makes a frame of a batch that was asked for at a time.
func (s *server) render(b batch.Batch, at time.Time) frame {
	f := frame{id: b.ID, status: b.Status, round: b.Round, at: at}
	v := s.viewBatch(b)
	rate, eta := v.Rate, v.ETA
	v.Rate, v.ETA = nil, nil // which are not in the tag
	f.body = encode(v)
	f.tag, f.late = s.tags.tag(b.ID, f.body, f.over(), at)
	if f.rated = rate != nil; f.rated {
		v.Rate, v.ETA = rate, eta
		f.body = encode(v)
	}
	return f
}

// look reads a batch.
func (s *server) look(ctx context.Context, tenant batch.TenantID, id batch.ID) (frame, error) {
	at := time.Now()
	b, err := s.Store.Batch(ctx, tenant, id)
	if err != nil {
		return frame{}, err
	}
	return s.render(b, at), nil
}

// A board shows the last frames of batches that are watched, so that one of
// the watchers reads and renders and the others see what he saw. It is a cache
// and forgets what was not asked for lately once that is much.
type board struct {
	mu         sync.Mutex
	young, old map[paneKey]*pane // together at most two times manyPanes
}

const manyPanes = 4096

type paneKey struct {
	tenant batch.TenantID
	id     batch.ID
}

// A pane shows one batch.
type pane struct {
	mu sync.Mutex
	frame
}

func (b *board) pane(k paneKey) *pane {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.young[k]
	if p == nil {
		if p = b.old[k]; p == nil {
			p = &pane{}
		}
		if b.young == nil || len(b.young) >= manyPanes {
			b.young, b.old = map[paneKey]*pane{}, b.young
		}
		b.young[k] = p
	}
	return p
}

// glance returns a frame of a batch that contains the change of a version and
// is not older than since: the one on the board or, if that is another, a new
// one, which contains what was seen by now.
func (s *server) glance(ctx context.Context, k paneKey, version uint64, since time.Time, seen uint64) (frame, error) {
	p := s.board.pane(k)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.event != nil && p.seen >= version && !p.at.Before(since) {
		return p.frame, nil
	}
	f, err := s.look(ctx, k.tenant, k.id)
	if err != nil {
		return frame{}, err
	}
	f.seen, f.event = seen, f.asEvent(eventID(f))
	p.frame = f
	return f, nil
}

// watchPoll is how soon a watcher looks although nobody hinted at a change:
// what waiting_on says may depend on what is no change of a batch.
const watchPoll = 3 * time.Second

// A vigil is one client's way through the states of a batch.
type vigil struct {
	frame
	s     *server
	key   paneKey
	watch *batch.Watch
}

// keep begins a vigil with a fresh look.
func (s *server) keep(ctx context.Context, tenant batch.TenantID, id batch.ID) (v *vigil, err error) {
	v = &vigil{s: s, key: paneKey{tenant, id}, watch: s.Store.Watch(tenant, &id)}
	seen := v.watch.Version() // before the look: nothing falls in between
	if v.frame, err = s.look(ctx, tenant, id); err != nil {
		v.watch.Close()
		return nil, err
	}
	v.seen = seen
	return v, nil
}

// next waits until the batch may be another, at least a while after the last
// look unless it has ended. ok is false if the wait is over before.
func (v *vigil) next(ctx, waiting context.Context) (ok bool, err error) {
	changed, ended := v.watch.After(v.seen)
	poll := watchPoll
	if v.late {
		poll = tagPause
	}
	if !v.s.idle(waiting, changed, poll) || !v.s.idle(waiting, ended, tagPause-time.Since(v.at)) {
		return false, nil
	}
	version, since, seen := v.seen+1, time.Time{}, v.watch.Version()
	switch end := v.watch.LastEnd(); {
	case end > v.seen:
		version = end
	case seen == v.seen: // nobody hinted at anything
		version, since = 0, v.at.Add(tagPause)
	}
	f, err := v.s.glance(ctx, v.key, version, since, max(seen, version))
	if err == nil {
		v.frame = f
	}
	return true, err
}

// attend returns a batch once it is enough, or as it is when the wait is over,
// the server stops or the client is gone.
func (s *server) attend(ctx context.Context, tenant batch.TenantID, id batch.ID, wait time.Duration, enough func(frame) bool) (frame, error) {
	if wait == 0 {
		return s.look(ctx, tenant, id)
	}
	leave, err := s.seats.sit(tenant, false)
	if err != nil {
		return frame{}, err
	}
	defer leave()
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	v, err := s.keep(ctx, tenant, id)
	if err != nil {
		return frame{}, err
	}
	defer v.watch.Close()
	for !enough(v.frame) {
		switch ok, err := v.next(ctx, waiting); {
		case err != nil:
			return frame{}, err
		case !ok:
			return s.look(ctx, tenant, id)
		}
	}
	return v.frame, nil
}
