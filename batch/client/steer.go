package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Cancel begins the end of a batch and returns it as it is now.
func (c *Client) Cancel(ctx context.Context, id string) (b Batch, err error) {
	err = c.call(ctx, http.MethodPost, batchPath(id)+"/cancel", nil, &b)
	return b, err
}

// Pause has no item of a batch started until it is resumed, and returns the
// batch as it is now.
func (c *Client) Pause(ctx context.Context, id string) (b Batch, err error) {
	err = c.call(ctx, http.MethodPost, batchPath(id)+"/pause", nil, &b)
	return b, err
}

// Resume ends a pause and returns the batch as it is now.
func (c *Client) Resume(ctx context.Context, id string) (b Batch, err error) {
	err = c.call(ctx, http.MethodPost, batchPath(id)+"/resume", nil, &b)
	return b, err
}

// RetryOptions say what the next round of a batch is for: without IDs and
// Indexes for all that did not succeed.
type RetryOptions struct {
	FromRound int           // the round that has ended; another is a conflict
	IDs       []string      // of items
	Indexes   []int         // of items
	ExpiresIn time.Duration // its deadline, from now; 0: the batch's own, anew

	IdempotencyKey string // makes it safe to ask again; default none
}

// Retry opens the next round of a batch that has ended and returns the batch
// as it is now.
func (c *Client) Retry(ctx context.Context, id string, o RetryOptions) (b Batch, err error) {
	in := struct {
		FromRound int      `json:"from_round"`
		IDs       []string `json:"ids,omitempty"`
		Indexes   []int    `json:"indexes,omitempty"`
		ExpiresIn string   `json:"expires_in,omitempty"`
	}{FromRound: o.FromRound, IDs: o.IDs, Indexes: o.Indexes}
	if o.ExpiresIn > 0 {
		in.ExpiresIn = o.ExpiresIn.String()
	}
	err = c.postOnce(ctx, batchPath(id)+"/retry", o.IdempotencyKey, in, &b)
	return b, err
}

// Delete removes a batch that has ended or is still open, with its results
// and messages. While messages are owed it is a conflict, unless force is set.
func (c *Client) Delete(ctx context.Context, id string, force bool) error {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	return c.remove(ctx, batchPath(id), q)
}

// remove has what is at a path taken away.
func (c *Client) remove(ctx context.Context, path string, q url.Values) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errSlow)
	defer cancel()
	req, err := c.request(ctx, http.MethodDelete, path, q, nil)
	if err != nil {
		return err
	}
	res, err := c.send(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		return c.stranger(res)
	}
	return nil
}

// batchPath is where a batch is.
func batchPath(id string) string { return "/v1/batches/" + url.PathEscape(id) }
