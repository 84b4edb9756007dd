package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// A Message is one webhook. Attempts and Body are there only if it was asked
// for by itself.
type Message struct {
	ID       string          `json:"id"`
	Batch    string          `json:"batch_id"`
	Type     string          `json:"type"`
	Round    int             `json:"round"`
	Status   string          `json:"status"`
	Reason   Text            `json:"reason"`
	Host     string          `json:"host"`
	Created  time.Time       `json:"created_at"`
	Ended    *time.Time      `json:"ended_at"` // nil while it is owed
	Next     *time.Time      `json:"next_attempt_at"`
	Made     int             `json:"attempts_made"`
	Attempts []batch.Attempt `json:"attempts,omitzero"`
	Body     json.RawMessage `json:"body,omitempty"`
}

// MessageOptions select messages.
type MessageOptions struct {
	Batch  string // only those of this batch; empty: of all
	Host   string // only those to this host:port; empty: any
	Status string // only what is so now; empty: any
	Limit  int    // at most in a page; default the server's
	Cursor string // what the page before gave as Next
}

// Messages returns a page of the messages, newest first. A page may be empty
// and not the last.
func (c *Client) Messages(ctx context.Context, o MessageOptions) (p Page[Message], err error) {
	q := pageQuery(o.Limit, o.Cursor)
	if o.Status != "" {
		q.Set("status", o.Status)
	}
	if o.Host != "" {
		q.Set("host", o.Host)
	}
	path := "/v1/messages"
	if o.Batch != "" {
		path = batchPath(o.Batch) + "/messages"
	}
	err = c.call(ctx, http.MethodGet, path, q, &p)
	return p, err
}

// AllMessages returns the messages one by one, newest first, page after page.
// After an error there is no more.
func (c *Client) AllMessages(ctx context.Context, o MessageOptions) iter.Seq2[Message, error] {
	return pages(func(cursor string) (Page[Message], error) {
		o.Cursor = cursor
		return c.Messages(ctx, o)
	}, o.Cursor)
}

// Message returns a message with its attempts and its body.
func (c *Client) Message(ctx context.Context, id string) (m Message, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/messages/"+url.PathEscape(id), nil, &m)
	return m, err
}

// Redeliver has a message sent once more, whatever its state, and returns it
// as it is now.
func (c *Client) Redeliver(ctx context.Context, id string) (m Message, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/messages/"+url.PathEscape(id)+"/redeliver", nil, &m)
	return m, err
}

// A Redelivery says which messages to send once more.
type Redelivery struct {
	Status string    `json:"status"`         // as they are settled: "exhausted"
	Host   string    `json:"host,omitempty"` // only those to this host:port; empty: any
	Since  time.Time `json:"since,omitzero"` // only those made then or later; zero: whenever
}

// RedeliverAll has messages sent once more and returns how many. The server
// has taken it upon itself when this returns.
func (c *Client) RedeliverAll(ctx context.Context, r Redelivery) (count int, err error) {
	var answer struct{ Count int }
	err = c.post(ctx, "/v1/messages/redeliver", r, &answer)
	return answer.Count, err
}

// FeedOptions say from where to pull messages.
type FeedOptions struct {
	After string        // what the page before gave as Next; empty: from the oldest on
	Wait  time.Duration // how long to wait for one, in whole seconds up to a minute; 0: not at all
	Limit int           // at most in a page; default the server's
}

// A FeedPage is a run of messages in the order in which they were made. It is
// empty if there are no more for now.
type FeedPage struct {
	Data []Event `json:"data"`
	Next string  `json:"next"` // never empty

	// RetryAfter is how long to leave the server alone: it is stopping. 0: go
	// on at once.
	RetryAfter time.Duration `json:"-"`
}

// An Event is a message as it is pulled.
type Event struct {
	ID      string          `json:"id"`
	Type    string          `json:"type"`
	Created time.Time       `json:"created_at"`
	Body    json.RawMessage `json:"body"` // the bytes a receiver is sent
}

// Feed pulls the next messages. Going on after each page's Next misses none.
func (c *Client) Feed(ctx context.Context, o FeedOptions) (p FeedPage, err error) {
	q := url.Values{}
	if o.After != "" {
		q.Set("after", o.After)
	}
	if seconds := int(o.Wait / time.Second); seconds > 0 {
		q.Set("wait", strconv.Itoa(seconds))
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout+o.Wait, errSlow)
	defer cancel()
	req, err := c.request(ctx, http.MethodGet, "/v1/messages/feed", q, nil)
	if err != nil {
		return p, err
	}
	res, err := c.decode(req, &p)
	if err != nil {
		return FeedPage{}, err
	}
	p.RetryAfter = retryAfter(res.Header)
	return p, nil
}
