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

// RetryOptions say which items of a finished batch go into its next round.
// Without IDs and Indexes all do that did not succeed.
type RetryOptions struct {
	FromRound int           // the round the caller has seen; another is a conflict
	IDs       []string      // only these, by the client's own ids
	Indexes   []int         // only these, by their place
	ExpiresIn time.Duration // how long the round may take; 0: as long as it does

	// IdempotencyKey makes a repeated call safe: the round is opened once. It
	// is empty where that does not matter.
	IdempotencyKey string
}

// Retry opens the next round of a finished batch and returns the batch as it
// is now.
func (c *Client) Retry(ctx context.Context, id string, o RetryOptions) (b Batch, err error) {
	body := struct {
		FromRound int      `json:"from_round"`
		IDs       []string `json:"ids,omitempty"`
		Indexes   []int    `json:"indexes,omitempty"`
		ExpiresIn string   `json:"expires_in,omitempty"`
	}{FromRound: o.FromRound, IDs: o.IDs, Indexes: o.Indexes}
	if o.ExpiresIn > 0 {
		body.ExpiresIn = o.ExpiresIn.String()
	}
	err = c.post(ctx, batchPath(id)+"/retry", o.IdempotencyKey, body, &b)
	return b, err
}

// Delete removes a batch that has ended or is still open, with its results
// and messages. While messages are owed it is a conflict, unless force is set.
func (c *Client) Delete(ctx context.Context, id string, force bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errSlow)
	defer cancel()
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	req, err := c.request(ctx, http.MethodDelete, batchPath(id), q, nil)
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
