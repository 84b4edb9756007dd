package client

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// WaitOptions say how to wait for a batch.
type WaitOptions struct {
	Progress func(Batch)   // called whenever the batch has changed, and once at the start; nil: nobody watches
	Patience time.Duration // how long the server may be away or overloaded; default 1 min, negative: for ever
}

// Wait asks after a batch, which the server answers when it has changed, until
// it has ended, and returns it. A restart of the server within patience does not
// disturb it.
func (c *Client) Wait(ctx context.Context, id string, o WaitOptions) (Batch, error) {
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	var b Batch
	var tag string
	heard := time.Now()
	for {
		next, changed, err := c.poll(ctx, id, &tag, &b)
		switch {
		case err == nil:
			heard = time.Now()
		case ctx.Err() != nil || !passing(err) || o.Patience > 0 && time.Since(heard) > o.Patience:
			return b, err
		}
		if changed && o.Progress != nil {
			o.Progress(b)
		}
		if err == nil && b.Terminal() {
			return b, nil
		}
		select {
		case <-ctx.Done():
			return b, context.Cause(ctx)
		case <-time.After(next):
		}
	}
}

// longestWait is how many seconds a server is asked to wait for a change; less
// than a call may take.
const longestWait = 30

// poll asks once. It says how long to leave the server alone and whether the
// batch is another than under *tag.
func (c *Client) poll(ctx context.Context, id string, tag *string, b *Batch) (next time.Duration, changed bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errSlow)
	defer cancel()
	req, err := c.request(ctx, http.MethodGet, batchPath(id), nil, nil)
	if err != nil {
		return 0, false, err
	}
	if *tag != "" {
		req.Header.Set("If-None-Match", *tag)
		req.Header.Set("Prefer", "wait="+strconv.Itoa(longestWait))
	}
	var got Batch
	asked := time.Now()
	res, err := c.decode(req, &got)
	const usual = time.Second
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			next = e.RetryAfter
		}
		return max(usual, next), false, err
	}
	if changed = res.StatusCode != http.StatusNotModified; changed {
		*b, *tag = got, res.Header.Get("ETag")
	}
	if next = retryAfter(res.Header); next == 0 {
		next = usual
	}
	if res.Header.Get("Preference-Applied") != "" && (changed || time.Since(asked) > usual) {
		next = 0 // it was waited for, and changes come at a pace
	}
	return next, changed, nil
}

// passing reports whether an error may pass by itself.
func passing(err error) bool {
	var away *Unreachable
	if errors.As(err, &away) {
		return true
	}
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}
