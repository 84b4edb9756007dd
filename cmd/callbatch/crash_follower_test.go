package main_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// follower reads the feed of messages over all crashes and keeps its place:
// it is shown every message, each once.
type follower struct {
	ledger  *ledger
	trigger *trigger
	api     *api

	place string

	mu      sync.Mutex // guards what follows
	log     []*letter  // in the order of the feed
	known   map[string]*letter
	byBatch map[string][]*letter
}

func newFollower(l *ledger, tg *trigger, a *api) *follower {
	return &follower{ledger: l, trigger: tg, api: a, known: make(map[string]*letter), byBatch: make(map[string][]*letter)}
}

func (f *follower) run(ctx context.Context) {
	for ctx.Err() == nil && !f.ledger.broken() {
		n, err := f.step(ctx, 1)
		switch {
		case excuse(err) != nil:
			f.ledger.violate("feed after %q: %v", f.place, err)
		case n > 0:
			f.trigger.hit("fed")
		default:
			breathe(ctx, 3*time.Millisecond)
		}
	}
}

// step reads the next page, for which it waits so many seconds. Its place
// moves with a complete answer only.
func (f *follower) step(ctx context.Context, wait int) (n int, err error) {
	const page = 25 // so that there are many pages
	p, err := f.api.feed(ctx, f.place, page, wait)
	if err != nil {
		return 0, err
	}
	for _, e := range p.Data {
		if err := f.take(e); err != nil {
			return 0, violation{fmt.Errorf("message %s: %w", e.ID, err)}
		}
	}
	f.place = p.Next
	return len(p.Data), nil
}

func (f *follower) take(e fedDoc) error {
	m, err := f.ledger.read(e.ID, e.Body)
	if err != nil {
		return err
	}
	if m.doc.Type != e.Type {
		return fmt.Errorf("it is a %s, and its body a %s", e.Type, m.doc.Type)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known[m.id] != nil {
		return errors.New("it is shown a second time")
	}
	f.log = append(f.log, &m)
	f.known[m.id] = &m
	f.byBatch[m.doc.Data.BatchID] = append(f.byBatch[m.doc.Data.BatchID], &m)
	return nil
}

// catchUp reads what there is.
func (f *follower) catchUp(ctx context.Context) error {
	for {
		if n, err := f.step(ctx, 0); err != nil || n == 0 {
			return err
		}
	}
}

// again reads the whole feed once more: it is what it was.
func (f *follower) again(ctx context.Context) error {
	const page = 200
	n := 0
	for place := ""; ; {
		p, err := f.api.feed(ctx, place, page, 0)
		switch {
		case err != nil:
			return err
		case len(p.Data) == 0 && n < len(f.log):
			return fmt.Errorf("%d messages were shown, now there are %d", len(f.log), n)
		case len(p.Data) == 0:
			return nil
		}
		for _, e := range p.Data {
			if n == len(f.log) || e.ID != f.log[n].id || sha256.Sum256(e.Body) != f.log[n].body {
				return fmt.Errorf("message %s stands at %d, where it did not", e.ID, n)
			}
			n++
		}
		place = p.Next
	}
}

// of returns what was shown about a batch.
func (f *follower) of(id string) []*letter {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.byBatch[id])
}

// pick returns any message, half the time one of the last; nil if there is
// none yet.
func (f *follower) pick(rnd *rand.Rand) *letter {
	const last = 50
	f.mu.Lock()
	defer f.mu.Unlock()
	from := f.log
	if rnd.IntN(2) == 0 {
		from = from[max(0, len(from)-last):]
	}
	if len(from) == 0 {
		return nil
	}
	return from[rnd.IntN(len(from))]
}

func (f *follower) summary() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	told := 0
	for _, m := range f.log {
		if m.doc.Type == typeProgress {
			told++
		}
	}
	return fmt.Sprintf("%d in the feed (%d of progress)", len(f.log), told)
}

// fedDoc is a message as the feed shows it.
type fedDoc struct {
	ID   string          `json:"id"`
	Type string          `json:"type"`
	Body json.RawMessage `json:"body"`
}

type feedPage struct {
	Data []fedDoc
	Next string
}

func (a *api) feed(ctx context.Context, after string, limit, wait int) (p feedPage, err error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}, "wait": {strconv.Itoa(wait)}}
	if after != "" {
		q.Set("after", after)
	}
	return p, a.get(ctx, "/v1/messages/feed?"+q.Encode(), &p)
}
