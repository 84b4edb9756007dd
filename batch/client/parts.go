package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/callbatch/callbatch/batch"
)

// A Part is one part of a batch that is sent in parts.
type Part struct {
	Number int    `json:"part"`
	Items  int    `json:"items"`
	Bytes  int64  `json:"bytes"`  // of its text, decoded
	SHA256 string `json:"sha256"` // of the same, in hexadecimal
}

// Open makes a batch whose items come in parts, and returns it. A key that is
// not empty makes a repeated call safe: it gives the same batch, as it is then.
func (c *Client) Open(ctx context.Context, o batch.Options, key string) (b Batch, err error) {
	q := optionsQuery(o)
	q.Set("open", "true")
	err = c.idempotent(ctx, "/v1/batches", q, key, &b)
	return b, err
}

// PutPart sends a part of an open batch as a stream, and returns it once it is
// durable. The same part may be sent again; another with its number is a
// conflict.
func (c *Client) PutPart(ctx context.Context, id string, number int, body io.Reader, o SubmitOptions) (p Part, err error) {
	req, err := c.upload(ctx, http.MethodPut, batchPath(id)+"/parts/"+strconv.Itoa(number), nil, body, o)
	if err != nil {
		return p, err
	}
	_, err = c.decode(req, &p)
	return p, err
}

// Parts returns the parts of an open batch that are there, in order.
func (c *Client) Parts(ctx context.Context, id string) ([]Part, error) {
	var list struct{ Data []Part }
	err := c.call(ctx, http.MethodGet, batchPath(id)+"/parts", nil, &list)
	return list.Data, err
}

// Seal ends the sending of so many parts, and returns the batch once it is
// there as a whole. A key that is not empty makes a repeated call safe.
func (c *Client) Seal(ctx context.Context, id string, parts int, key string) (b Batch, err error) {
	body := struct {
		Parts int `json:"parts"`
	}{parts}
	err = c.post(ctx, batchPath(id)+"/seal", key, body, &b)
	return b, err
}

// idempotent makes a POST without a body.
func (c *Client) idempotent(ctx context.Context, path string, q url.Values, key string, into any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errSlow)
	defer cancel()
	req, err := c.request(ctx, http.MethodPost, path, q, nil)
	if err != nil {
		return err
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	_, err = c.decode(req, into)
	return err
}
