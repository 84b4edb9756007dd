package client

import (
	"context"
	"net/http"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// A Test is what came of a callback that was tested.
type Test struct {
	Message   string `json:"message_id"` // its webhook-id
	Delivered bool   `json:"delivered"`
	batch.Attempt
}

// TestCallback has one signed message sent to a URL now and returns what came
// of it. headers are extra ones; nil: none.
func (c *Client) TestCallback(ctx context.Context, url string, headers map[string]string) (t Test, err error) {
	err = c.post(ctx, "/v1/callbacks/test", struct {
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers,omitempty"`
	}{url, headers}, &t)
	return t, err
}

// Secret returns what the tenant's messages are signed with.
func (c *Client) Secret(ctx context.Context) (string, error) {
	var s struct{ Secret string }
	err := c.call(ctx, http.MethodGet, "/v1/callbacks/secret", nil, &s)
	return s.Secret, err
}

// A Rotation is a new secret.
type Rotation struct {
	Secret   string     `json:"secret"`
	OldUntil *time.Time `json:"old_until"` // from when on only the new one signs; nil: from now on
}

// RotateSecret makes a new secret. Those before sign beside it for keep, at
// most 7 days; 0 ends them at once.
func (c *Client) RotateSecret(ctx context.Context, keep time.Duration) (r Rotation, err error) {
	err = c.post(ctx, "/v1/callbacks/secret/rotate", struct {
		Keep string `json:"keep_old_for"`
	}{keep.String()}, &r)
	return r, err
}

// A Host is a receiver's host that does not answer as it should.
type Host struct {
	Host     string     `json:"host"`   // host:port
	Status   string     `json:"status"` // "open": left alone; "recovering"; "failing"
	Failures int        `json:"failures"`
	Since    *time.Time `json:"since"`           // of the first of the failures
	Next     *time.Time `json:"next_attempt_at"` // while it is left alone
}

// Hosts returns the receivers' hosts that do not answer as they should.
func (c *Client) Hosts(ctx context.Context) ([]Host, error) {
	var list struct{ Data []Host }
	err := c.call(ctx, http.MethodGet, "/v1/callbacks/hosts", nil, &list)
	return list.Data, err
}
