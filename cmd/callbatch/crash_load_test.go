package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"syscall"
	"time"
)

// load is what the server has to do while it is killed.
type load struct {
	clients  int
	watchers int
	kills    int   // in a round, which ends with an audit
	fill     int   // batches that a round ends with at least, without more kills
	backlog  int   // most batches that are known and not audited
	sizes    []int // of batches, each as likely as it is often here
	outages  bool  // of the receiver, in every other round
}

var mixedLoad = load{clients: 4, watchers: 2, kills: 25, backlog: 250, outages: true, sizes: []int{1, 1, 1, 1, 1, 10, 10, 10, 10, 700, 700, 3000}}

// smallLoad is many acknowledgements and messages for little work.
var smallLoad = load{clients: 6, watchers: 1, kills: 5, fill: 1000, backlog: 1200, sizes: []int{1, 1, 1, 300}}

// client submits batches, one after the other.
type client struct {
	trial *trial
	rnd   *rand.Rand
}

func (tr *trial) client(n int) *client {
	return &client{trial: tr, rnd: tr.rand(uint64(100 + n))}
}

func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil && !c.trial.ledger.broken() {
		if len(c.trial.ledger.unsettled()) >= c.trial.load.backlog {
			breathe(ctx, 20*time.Millisecond)
			continue
		}
		s := newSubmission(c.rnd, c.trial.load)
		c.trial.ledger.sent(s)
		if err := c.submit(ctx, s); err != nil {
			breathe(ctx, 3*time.Millisecond)
			continue
		}
		if c.rnd.IntN(12) == 0 {
			c.cancel(ctx, s)
		}
	}
}

// submit sends the batch. An error says that no complete answer arrived, or
// that the server cannot take it now.
func (c *client) submit(ctx context.Context, s *submission) error {
	if s.parts > 0 {
		return c.submitParts(ctx, s)
	}
	ans, err := c.send(ctx, s)
	if errors.Is(err, syscall.ECONNREFUSED) && !s.keyed { // with a key the transport may have sent it before
		c.trial.ledger.unsent(s)
	}
	for s.keyed && ctx.Err() == nil && (err != nil || ans.is(http.StatusConflict, "idempotency_in_progress")) {
		breathe(ctx, 10*time.Millisecond)
		if ans, err = c.send(ctx, s); err == nil && ans.header.Get("Idempotent-Replayed") != "" {
			c.trial.replayed.Add(1)
		}
	}
	if err != nil {
		return err // the whole batch exists or none of it: the list will tell
	}
	c.trial.trigger.hit("answered")
	switch ans.status {
	case http.StatusAccepted:
		var b batchDoc
		if err := json.Unmarshal(ans.body, &b); err != nil {
			c.trial.ledger.violate("202 with %q: %v", ans.body, err)
			return err
		}
		c.trial.ledger.exists(s, b.ID, true)
		c.trial.trigger.hit("accepted")
		return nil
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		c.trial.ledger.refuse(s, string(ans.body))
	default:
		c.trial.ledger.violate("a good submission is answered with %d %s", ans.status, ans.body)
	}
	return errors.New("refused")
}

func (c *client) send(ctx context.Context, s *submission) (answer, error) {
	path, contentType := c.target(s)
	body := s.body(c.trial.receiver.url())
	if c.rnd.IntN(6) == 0 {
		body = &dripping{ctx: ctx, rest: body}
	}
	if s.keyed {
		return c.trial.api.do(ctx, http.MethodPost, path, contentType, body, "Idempotency-Key", s.token)
	}
	return c.trial.api.do(ctx, http.MethodPost, path, contentType, body)
}

func (c *client) target(s *submission) (path, contentType string) {
	if !s.ndjson {
		return "/v1/batches", "application/json"
	}
	return "/v1/batches?" + s.query(c.trial.receiver.url()).Encode(), "application/x-ndjson"
}

// cancel asks for the end of a batch; once answered it must come, unless the
// answer is that the batch had ended.
func (c *client) cancel(ctx context.Context, s *submission) {
	id := s.batchID()
	ans, err := c.trial.api.do(ctx, http.MethodPost, "/v1/batches/"+id+"/cancel", "", nil)
	if err != nil {
		s.mu.Lock()
		s.mayCancel = true
		s.mu.Unlock()
		return
	}
	switch ans.status {
	case http.StatusAccepted:
		s.mu.Lock()
		s.canceled = true
		s.mu.Unlock()
	case http.StatusConflict, http.StatusServiceUnavailable:
	default:
		c.trial.ledger.violate("cancel of %s is answered with %d %s", s.name(), ans.status, ans.body)
	}
}

// dripping is a body that takes its time, so that kills hit its middle.
type dripping struct {
	ctx  context.Context
	rest io.Reader
}

func (d *dripping) Read(p []byte) (int, error) {
	breathe(d.ctx, 2*time.Millisecond)
	return d.rest.Read(p[:min(len(p), 8<<10)])
}

func breathe(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// watcher reads what is going on, and remembers it.
type watcher struct {
	trial *trial
	rnd   *rand.Rand
}

func (tr *trial) watcher(n int) *watcher {
	return &watcher{trial: tr, rnd: tr.rand(uint64(200 + n))}
}

func (w *watcher) run(ctx context.Context) {
	for ctx.Err() == nil && !w.trial.ledger.broken() {
		live := w.trial.ledger.unsettled()
		if len(live) == 0 {
			breathe(ctx, 5*time.Millisecond)
			continue
		}
		// Mostly the newest: those are moving.
		s := live[len(live)-1-min(len(live)-1, int(w.rnd.ExpFloat64()*8))]
		if err := w.trial.look(ctx, s, w.rnd.IntN(3) == 0); excuse(err) != nil {
			w.trial.ledger.violate("batch %s: %v", s.name(), err)
		} else if err == nil {
			w.trial.trigger.hit("shown")
		}
		breathe(ctx, time.Millisecond)
	}
}

// look reads a batch, and its results if asked to, and holds both against
// what was shown before.
func (tr *trial) look(ctx context.Context, s *submission, results bool) error {
	s.watching.Lock()
	defer s.watching.Unlock()
	b, err := tr.api.batch(ctx, s.batchID())
	if err != nil {
		return err
	}
	if err := s.advance(b); err != nil {
		return violation{err}
	}
	if !results {
		return nil
	}
	return tr.api.results(ctx, s.batchID(), func(line []byte) error {
		_, err := s.note(line)
		return err
	})
}
