package api

import (
	"context"
	"net/http"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// How a client waits for a message: the store's hint wakes it, at most so
// often, and where no hint comes it looks by itself.
const (
	longestWait = 60 // seconds
	feedPause   = 50 * time.Millisecond
	feedPoll    = time.Second
)

// feedEntry is a message as it is pulled, without its body.
type feedEntry struct {
	ID      batch.MessageID `json:"id"`
	Type    string          `json:"type"`
	Created string          `json:"created_at"`
}

// feed shows messages in the order in which they were made. An empty answer is
// held back as long as the client likes to wait.
func (s *server) feed(w http.ResponseWriter, r *request) error {
	q, wait, err := feedQuery(r)
	if err != nil {
		return err
	}
	page, err := s.await(r.Context(), q, wait)
	if err != nil {
		return err
	}
	if len(page.Entries) == 0 && wait > 0 && s.stopping() {
		w.Header().Set("Retry-After", pollSeconds) // it was cut short, and the next would be as well
	}
	body := []byte(`{"data":[`)
	for i, e := range page.Entries {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, unclosed(feedEntry{e.ID, e.Type, batch.FormatTime(e.Created)})...)
		body = append(append(append(body, `,"body":`...), e.Body...), '}')
	}
	body = append(append(body, `],"next":"`...), cursorAt(messageFeed, page.Next)...)
	return writeJSON(w, http.StatusOK, append(body, "\"}\n"...))
}

func feedQuery(r *request) (q batch.FeedQuery, wait time.Duration, err error) {
	q.Tenant = r.tenant
	after, err := cursor(r.query, "after", messageFeed)
	if err != nil {
		return q, 0, err
	}
	if after != nil {
		q.After = *after
	}
	if q.Limit, err = pageLimit(r.query); err != nil {
		return q, 0, err
	}
	seconds, err := number(r.query, "wait", 0, 0)
	return q, time.Duration(min(seconds, longestWait)) * time.Second, err
}

// await returns the next page, or an empty one once the wait is over, the
// server stops or the client is gone. Whatever ends the wait, it looks once
// more.
func (s *server) await(ctx context.Context, q batch.FeedQuery, wait time.Duration) (batch.FeedPage, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for over := wait == 0; ; {
		posted, looked := s.Store.Posted(), time.Now() // before the look: nothing falls in between
		page, err := s.Store.Feed(ctx, q)
		if err != nil || len(page.Entries) > 0 || over {
			return page, err
		}
		q.After = page.Next // past what could not be shown
		over = !s.idle(waiting, posted, feedPoll) || !s.idle(waiting, nil, feedPause-time.Since(looked))
	}
}

// idle lets time pass, d or less if the hint comes. It reports whether the
// wait goes on.
func (s *server) idle(waiting context.Context, hint <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-hint:
	case <-t.C:
	case <-s.Stopping:
		return false
	case <-waiting.Done():
		return false
	}
	return true
}

func (s *server) stopping() bool {
	select {
	case <-s.Stopping:
		return true
	default:
		return false
	}
}
