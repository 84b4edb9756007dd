package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"mime"
	"net/http"
	"time"

	"github.com/tmaxmax/go-sse"
)

// WatchOptions say how to watch.
type WatchOptions struct {
	Patience time.Duration // how long the server may be away or overloaded; default 1 min, negative: for ever
	Lost     func(error)   // called when the connection is lost, before it is made anew; nil: nobody is told
}

// Watch returns the batch with this id, or every batch of the tenant where id
// is empty, as it is and each time it has changed, as the server tells it. Of
// all it begins with those that have not ended. A connection that
// breaks is made anew and goes on where it was; where events do not come
// through at all, the server is asked again and again instead.
//
// Of one batch its end is the last; of all there is none. After an error there
// is no more.
func (c *Client) Watch(ctx context.Context, id string, o WatchOptions) iter.Seq2[Batch, error] {
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	return func(yield func(Batch, error) bool) {
		w := &watcher{c: c, id: id, o: o, heard: time.Now(), pause: firstPause}
		w.yield = func(b Batch) bool {
			w.over = !yield(b, nil) || id != "" && b.Terminal()
			return !w.over
		}
		if err := w.run(ctx); err != nil && !w.over {
			yield(Batch{}, err)
		}
	}
}

// A watcher is one watch.
type watcher struct {
	c     *Client
	id    string // of the batch; empty: all
	o     WatchOptions
	yield func(Batch) bool // what comes; false: no more is wanted
	over  bool             // no more is wanted

	last  string        // id of the last event
	heard time.Time     // when the server last said anything
	pause time.Duration // before the connection is made anew
}

// Of a watch: between two connections, and how long the server may say
// nothing, not even the comment that it sends every 15 s.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	silence      = 40 * time.Second
)

// errNoEvents says that no stream of events comes through.
var errNoEvents = errors.New("no events come through")

func (w *watcher) run(ctx context.Context) error {
	for {
		err := w.connect(ctx)
		switch {
		case w.over:
			return nil
		case errors.Is(err, errNoEvents):
			return w.ask(ctx)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		if err := w.rest(ctx, err); err != nil {
			return err
		}
	}
}

// rest waits before another try after err, or returns it if there is to be
// none.
func (w *watcher) rest(ctx context.Context, err error) error {
	if !passing(err) || w.o.Patience > 0 && time.Since(w.heard) > w.o.Patience {
		return err
	}
	if w.o.Lost != nil {
		w.o.Lost(err)
	}
	pause := w.pause
	var refused *Error
	if errors.As(err, &refused) {
		pause = max(pause, refused.RetryAfter)
	}
	w.pause = min(2*w.pause, longestPause)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pause):
		return nil
	}
}

// connect reads one connection's events until it breaks.
func (w *watcher) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(silence, func() { cancel(errSlow) })
	defer quiet.Stop()
	events, err := w.open(ctx)
	if err != nil {
		if context.Cause(ctx) == errSlow {
			return errNoEvents
		}
		return err
	}
	defer events.Close()
	said := false
	body := heard{events, func() {
		said, w.heard = true, time.Now()
		quiet.Reset(silence)
	}}
	const mostEvent = 1 << 20
	for e, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: mostEvent}) {
		if err != nil {
			if !said && context.Cause(ctx) == errSlow {
				return errNoEvents // somebody in between keeps them
			}
			return err
		}
		var b Batch
		if json.Unmarshal([]byte(e.Data), &b) != nil || b.ID == "" {
			continue // of a newer server
		}
		w.last, w.pause = e.LastEventID, firstPause
		if !w.yield(b) {
			return nil
		}
	}
	return unreachable(events.req, io.ErrUnexpectedEOF)
}

// open asks for the stream.
func (w *watcher) open(ctx context.Context) (*stream, error) {
	path := "/v1/events"
	if w.id != "" {
		path = batchPath(w.id) + "/events"
	}
	req, err := w.c.request(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if w.last != "" {
		req.Header.Set("Last-Event-ID", w.last)
	}
	res, err := w.c.send(req)
	var refused *Error
	if errors.As(err, &refused) {
		switch refused.Status {
		case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
			return nil, errNoEvents
		}
	}
	if err != nil {
		return nil, err
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != "text/event-stream" {
		res.Body.Close()
		return nil, errNoEvents
	}
	return &stream{ReadCloser: res.Body, req: req}, nil
}

// ask is what is left where events do not come through.
func (w *watcher) ask(ctx context.Context) error {
	if w.id == "" {
		return w.askAll(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, err := w.c.Wait(ctx, w.id, WaitOptions{Patience: w.o.Patience, Progress: func(b Batch) {
		if !w.over && !w.yield(b) {
			cancel()
		}
	}})
	return err
}

// askAll asks for the newest batches, over and over, and tells of what is
// another than before.
func (w *watcher) askAll(ctx context.Context) error {
	const most, pace = 200, 2 * time.Second
	before := make(map[string]string)
	for first := true; ; {
		p, err := w.c.List(ctx, ListOptions{Limit: most})
		if err != nil {
			if err := w.rest(ctx, err); err != nil {
				return err
			}
			continue
		}
		w.heard, w.pause = time.Now(), firstPause
		now := make(map[string]string)
		for i := range p.Data {
			b := p.Data[len(p.Data)-1-i]
			now[b.ID] = jsonText(b)
			if now[b.ID] != before[b.ID] && (!first || !b.Terminal()) && !w.yield(b) {
				return nil
			}
		}
		before, first = now, false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pace):
		}
	}
}

// heard calls on for all that is read.
type heard struct {
	io.Reader
	on func()
}

func (h heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if n > 0 {
		h.on()
	}
	return n, err
}
