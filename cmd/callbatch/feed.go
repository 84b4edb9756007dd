package main

import (
	"context"
	"errors"
	"time"

	"github.com/callbatch/callbatch/batch/client"
)

// feedWait is how long a server is asked to hold back an empty answer.
const feedWait = time.Minute

// A line of the feed is what was pulled, its body, and what follows.
type (
	pulled struct {
		ID      string    `json:"id"`
		Type    string    `json:"type"`
		Created time.Time `json:"created_at"`
	}
	follows struct {
		Next client.Text `json:"next"` // for --after, to go on behind this line; null: not here
	}
)

// pull writes the feed: what there is, or for ever. A reader who has read a
// line with its next has read all before it. Who follows the feed outlasts a
// server that is away.
func (q *inquiry) pull(ctx context.Context, w *world, c *client.Client) error {
	o := client.FeedOptions{After: q.after}
	if q.follow {
		o.Wait = feedWait
	}
	for {
		page, err := q.page(ctx, w, c, o)
		if q.follow && ctx.Err() != nil {
			return nil // as it ends
		}
		if err != nil {
			return err
		}
		o.After = page.Next
		for i, e := range page.Data {
			var then follows
			if i == len(page.Data)-1 {
				then.Next = client.Text(page.Next)
			}
			if err := writeAround(w, pulled{e.ID, e.Type, e.Created}, "body", w.forScreen(e.Body), then); err != nil {
				return err
			}
		}
		if len(page.Data) == 0 && !q.follow {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(page.RetryAfter):
		}
	}
}

func (q *inquiry) page(ctx context.Context, w *world, c *client.Client, o client.FeedOptions) (page client.FeedPage, err error) {
	ask := func() (client.FeedPage, error) { return c.Feed(ctx, o) }
	if q.follow {
		page, err = outlast(ctx, w, ask)
	} else {
		page, err = ask()
	}
	var refused *client.Error
	if errors.As(err, &refused) && refused.Code == "bad_after" {
		err = usage{err}
	}
	return page, err
}
