package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ListOptions select batches. What is empty selects nothing away.
type ListOptions struct {
	Status        string            // only what is so now
	Processor     string            // only what it works on
	Metadata      map[string]string // only what has all these pairs
	CreatedAfter  time.Time         // only what was made later
	CreatedBefore time.Time         // only what was made earlier
	Limit         int               // at most in a page; default the server's
	Cursor        string            // what the page before gave as Next
}

func (o ListOptions) query() url.Values {
	q := pageQuery(o.Limit, o.Cursor)
	text := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	text("status", o.Status)
	text("processor", o.Processor)
	for k, v := range o.Metadata {
		q.Set("metadata."+k, v)
	}
	if !o.CreatedAfter.IsZero() {
		q.Set("created_after", o.CreatedAfter.UTC().Format(time.RFC3339Nano))
	}
	if !o.CreatedBefore.IsZero() {
		q.Set("created_before", o.CreatedBefore.UTC().Format(time.RFC3339Nano))
	}
	return q
}

// pageQuery asks for a page of a list.
func pageQuery(limit int, cursor string) url.Values {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	return q
}

// A Page is a part of a list. Next is the cursor of the next one, empty on
// the last.
type Page[T any] struct {
	Data []T    `json:"data"`
	Next string `json:"next"`
}

// List returns a page of the batches, newest first. A page may be empty and
// not the last.
func (c *Client) List(ctx context.Context, o ListOptions) (p Page[Batch], err error) {
	err = c.call(ctx, http.MethodGet, "/v1/batches", o.query(), &p)
	return p, err
}

// All returns the batches one by one, newest first, page after page. After an
// error there is no more.
func (c *Client) All(ctx context.Context, o ListOptions) iter.Seq2[Batch, error] {
	return pages(func(cursor string) (Page[Batch], error) {
		o.Cursor = cursor
		return c.List(ctx, o)
	}, o.Cursor)
}

// pages returns what is in a list, page after page, from a cursor on.
func pages[T any](page func(cursor string) (Page[T], error), cursor string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for at := cursor; ; {
			p, err := page(at)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, entry := range p.Data {
				if !yield(entry, nil) {
					return
				}
			}
			if at = p.Next; at == "" {
				return
			}
		}
	}
}
