package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// breathe is how often a stream without news says that it lives, so that
// nobody on the way takes it for dead.
const breathe = 15 * time.Second

// eventID names a state of a batch: it is made of what the client is shown, so
// it outlives restarts.
func eventID(f frame) string { return strings.Trim(strings.TrimPrefix(f.tag, "W/"), `"`) }

// asEvent returns the frame as an event of a stream (HTML, server-sent events).
func (f frame) asEvent(id string) []byte {
	name := batch.TypeProgress
	if f.over() {
		name = "batch." + f.status.String()
	}
	return fmt.Appendf(nil, "id: %s\nevent: %s\ndata: %s\n", id, name, f.body)
}

// events follows one batch until it has ended.
func (s *server) events(w http.ResponseWriter, r *request) error {
	id, err := r.id()
	if err != nil {
		return err
	}
	leave, err := s.seats.sit(r.tenant, false)
	if err != nil {
		return err
	}
	defer leave()
	v, err := s.keep(r.Context(), r.tenant, id)
	if err != nil {
		return err
	}
	defer v.watch.Close()
	last := r.Header.Get("Last-Event-ID")
	if last == eventID(v.frame) && v.over() {
		w.WriteHeader(http.StatusNoContent) // which tells a browser not to come again
		return nil
	}
	return s.stream(w, r, func(ctx context.Context, out *stream) error {
		for shown, rated := last, v.rated; ; {
			if now := eventID(v.frame); now != shown || v.rated != rated {
				if err := out.send(v.eventBytes()); err != nil {
					return err
				}
				shown, rated = now, v.rated
			}
			if v.over() {
				return nil
			}
			switch ok, err := v.next(ctx, ctx); {
			case gone(err), !ok:
				return nil
			case err != nil:
				return fmt.Errorf("follow batch: %w", err)
			}
			if err := out.breathe(); err != nil {
				return err
			}
		}
	})
}

// eventBytes returns the frame as an event, rendered once for all who saw it
// on the board.
func (f frame) eventBytes() []byte {
	if f.event != nil {
		return f.event
	}
	return f.asEvent(eventID(f))
}

// gone reports whether a batch is no more, or not for this client.
func gone(err error) bool {
	code := batch.CodeOf(err)
	return code == batch.NotFound || code == batch.Gone
}

// A stream is an answer without an end of its own.
type stream struct {
	w    http.ResponseWriter
	last time.Time // something was sent
}

// longestStream is after how long a stream ends by itself: its client comes
// again, and his key is looked at again.
const longestStream = time.Hour

// stream answers with what run sends until its context ends. Nothing queues
// for a client that does not read: run waits for him, and he is given up after
// a while.
func (s *server) stream(w http.ResponseWriter, r *request, run func(context.Context, *stream) error) error {
	if s.stopping() {
		return batch.Refuse(batch.Unavailable, "draining", "the server is stopping: try again in a moment")
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	out := &stream{w: w}
	if err := out.send([]byte("retry: 2000\n\n")); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), longestStream)
	defer cancel()
	err := run(ctx, out)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// send gets bytes on their way. Between two of them nothing has a deadline.
func (out *stream) send(b []byte) error {
	if _, err := out.w.Write(b); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	if err := flush(out.w); err != nil {
		return fmt.Errorf("flush events: %w", err)
	}
	out.last = time.Now()
	return nil
}

// breathe sends a comment if nothing else was sent for long.
func (out *stream) breathe() error {
	if time.Since(out.last) < breathe {
		return nil
	}
	return out.send([]byte(":\n\n"))
}

// allEvents follows all batches of the tenant.
func (s *server) allEvents(w http.ResponseWriter, r *request) error {
	began := time.Now()
	since, resumes, err := lastEnd(r.Header, began)
	if err != nil {
		return err
	}
	leave, err := s.seats.sit(r.tenant, true)
	if err != nil {
		return err
	}
	defer leave()
	watch := s.Store.Watch(r.tenant, nil)
	defer watch.Close()
	return s.stream(w, r, func(ctx context.Context, out *stream) error {
		p := &parade{s: s, stream: out, tenant: r.tenant, watch: watch, since: since, sent: map[batch.ID]string{}, again: map[batch.ID]time.Time{}}
		if resumes {
			if err := p.ends(ctx); err != nil {
				return err
			}
		}
		err := p.underWay(ctx, began)
		for err == nil && p.wait(ctx) {
			err = p.round(ctx)
		}
		return err
	})
}

// lastEnd reads the id of the last event a client has got: all batches that
// ended before were shown to him.
func lastEnd(h http.Header, now time.Time) (since time.Time, resumes bool, err error) {
	last := h.Get("Last-Event-ID")
	if last == "" {
		return now, false, nil
	}
	ms, err := strconv.ParseInt(last, 10, 64)
	if err != nil || ms < 0 {
		return now, false, badParam("bad_last_event_id", "Last-Event-ID is the id of an event of this stream")
	}
	return time.UnixMilli(min(ms, now.UnixMilli())), true, nil
}

// A parade shows a client the batches of a tenant as they change. What he does
// not take in time is not kept: he is shown how they stand when he does.
type parade struct {
	*stream
	s      *server
	tenant batch.TenantID
	watch  *batch.Watch
	seen   uint64                 // version up to which changes were taken
	since  time.Time              // what ended before was shown
	sent   map[batch.ID]string    // what was shown of batches lately
	again  map[batch.ID]time.Time // batches to look at again, and when
	looked time.Time
}

const (
	mostSent   = 4096 // what is shown twice once there are more is no harm
	paradePage = 100
	endSlack   = 5 * time.Second // by which the end of a batch may be older than what is shown before
)

// ends shows what has ended since.
func (p *parade) ends(ctx context.Context) error {
	for at := (&batch.EndedAt{Time: p.since.Add(-endSlack)}); at != nil; {
		list, next, err := p.s.Store.Ended(ctx, p.tenant, *at, paradePage)
		if err != nil {
			return fmt.Errorf("batches that ended: %w", err)
		}
		if err := p.showAll(list); err != nil {
			return err
		}
		if at = next; next != nil && next.Time.After(p.since) {
			p.since = next.Time
		}
	}
	return nil
}

// underWay shows everything that has not ended, after what had ended by now.
func (p *parade) underWay(ctx context.Context, now time.Time) error {
	p.since = now
	for id := (&batch.ID{}); id != nil; {
		list, next, err := p.s.Store.Active(ctx, p.tenant, *id, paradePage)
		if err != nil {
			return fmt.Errorf("batches under way: %w", err)
		}
		if err := p.showAll(list); err != nil {
			return err
		}
		id = next
	}
	p.looked = time.Now()
	return nil
}

func (p *parade) showAll(list []batch.Batch) error {
	for _, b := range list {
		if err := p.show(p.s.render(b, time.Now())); err != nil {
			return err
		}
	}
	return nil
}

// show sends a batch if it is another than when it was shown last. The end of a
// round is shown once, whatever becomes of its messages.
func (p *parade) show(f frame) error {
	if f.late {
		p.again[f.id] = f.at.Add(tagPause)
	}
	what := f.tag
	if f.over() {
		what = "end of " + strconv.Itoa(f.round)
	}
	if p.sent[f.id] == what {
		return nil
	}
	if len(p.sent) >= mostSent {
		clear(p.sent)
	}
	p.sent[f.id] = what
	return p.send(f.asEvent(strconv.FormatInt(p.since.UnixMilli(), 10)))
}

// wait lets time pass until something has changed, and breathes meanwhile. It
// reports whether the parade goes on.
func (p *parade) wait(ctx context.Context) bool {
	changed, _ := p.watch.After(p.seen)
	pause := breathe - time.Since(p.last)
	if len(p.again) > 0 {
		pause = min(pause, tagPause)
	}
	return p.s.idle(ctx, changed, pause) && p.s.idle(ctx, nil, tagPause-time.Since(p.looked))
}

// round shows what has changed since the last.
func (p *parade) round(ctx context.Context) error {
	p.looked = time.Now()
	p.seen = p.watch.Version()
	hints, missed := p.watch.Take()
	if missed { // too much has changed to be named
		clear(p.again)
		if err := p.ends(ctx); err != nil {
			return err
		}
		return p.underWay(ctx, p.looked)
	}
	again := p.again
	p.again = map[batch.ID]time.Time{}
	for _, h := range hints {
		delete(again, h.ID)
		if err := p.look(ctx, h.ID, h.Version, time.Time{}); err != nil {
			return err
		}
	}
	for id, since := range again {
		if err := p.look(ctx, id, 0, since); err != nil {
			return err
		}
	}
	p.since = p.looked
	return p.breathe()
}

// look shows a batch as it is after a change and since a time.
func (p *parade) look(ctx context.Context, id batch.ID, version uint64, since time.Time) error {
	f, err := p.s.glance(ctx, paneKey{p.tenant, id}, version, since, p.seen)
	switch {
	case gone(err):
		return nil
	case err != nil:
		return fmt.Errorf("follow batches: %w", err)
	default:
		return p.show(f)
	}
}
