package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/callbatch/callbatch/batch"
)

// A Part is a part of a batch that is sent in parts. SHA256 is of the text of
// its items, without any content coding, in hexadecimal digits.
type Part struct {
	Part   int    `json:"part"`
	Items  int    `json:"items"`
	Bytes  int64  `json:"bytes"` // of the same text
	SHA256 string `json:"sha256"`
}

// OpenBatch makes a batch exist that is sent in parts. With an idempotency key,
// which may be empty, it is safe to do again.
func (c *Client) OpenBatch(ctx context.Context, o batch.Options, idempotencyKey string) (b Batch, err error) {
	q := optionsQuery(o)
	q.Set("open", "true")
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errSlow)
	defer cancel()
	req, err := c.request(ctx, http.MethodPost, "/v1/batches", q, nil)
	if err != nil {
		return b, err
	}
	bear(req, idempotencyKey)
	_, err = c.decode(req, &b)
	return b, err
}

// bear gives a request an idempotency key, if there is one.
func bear(req *http.Request, idempotencyKey string) {
	if idempotencyKey != "" {
		req.Header.Set("Idempotency-Key", idempotencyKey)
	}
}

// PartOptions say how a part is sent.
type PartOptions struct {
	ContentType     string // default "application/x-ndjson"
	ContentEncoding string // of the body as it is given: "gzip", "zstd"; default none
	Length          int64  // bytes of the body; 0: unknown
}

// PutPart sends a part of an open batch as a stream and returns it once it is
// durable. It is safe to do again with the same content. A body that is an
// io.Closer is closed.
func (c *Client) PutPart(ctx context.Context, id string, part int, body io.Reader, o PartOptions) (p Part, err error) {
	req, err := c.request(ctx, http.MethodPut, partPath(id, part), nil, body)
	if err != nil {
		return p, err
	}
	describe(req, o.ContentType, o.ContentEncoding, o.Length)
	_, err = c.decode(req, &p)
	return p, err
}

func partPath(id string, part int) string {
	return batchPath(id) + "/parts/" + strconv.Itoa(part)
}

// describe says what the body of a request is.
func describe(req *http.Request, contentType, coding string, length int64) {
	if contentType == "" {
		contentType = "application/x-ndjson"
	}
	req.Header.Set("Content-Type", contentType)
	if coding != "" {
		req.Header.Set("Content-Encoding", coding)
	}
	if length > 0 {
		req.ContentLength = length
	}
}

// DeletePart takes a part out of an open batch, to replace it.
func (c *Client) DeletePart(ctx context.Context, id string, part int) error {
	return c.remove(ctx, partPath(id, part), nil)
}

// Parts returns the parts of a batch that there are, by number.
func (c *Client) Parts(ctx context.Context, id string) ([]Part, error) {
	var list struct{ Data []Part }
	err := c.call(ctx, http.MethodGet, batchPath(id)+"/parts", nil, &list)
	return list.Data, err
}

// Seal ends the sending of parts: there are to be so many, or, if it is 0, as
// many as there are. With an idempotency key, which may be empty, it is safe to
// do again. It takes as long as the server needs to find ids that repeat.
func (c *Client) Seal(ctx context.Context, id string, parts int, idempotencyKey string) (b Batch, err error) {
	in := struct {
		Parts int `json:"parts,omitempty"`
	}{parts}
	body, err := json.Marshal(in)
	if err != nil {
		return b, err
	}
	req, err := c.request(ctx, http.MethodPost, batchPath(id)+"/seal", nil, bytes.NewReader(body))
	if err != nil {
		return b, err
	}
	req.Header.Set("Content-Type", "application/json")
	bear(req, idempotencyKey)
	_, err = c.decode(req, &b)
	return b, err
}

// FindItem returns the item of a batch with an id.
func (c *Client) FindItem(ctx context.Context, id, item string) (it Item, err error) {
	err = c.call(ctx, http.MethodGet, batchPath(id)+"/items", url.Values{"id": {item}}, &it)
	return it, err
}
