// Package client is a client of the API. It keeps nothing and decides
// nothing but when to ask again.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// Options say which server to talk to.
type Options struct {
	URL       string       // of the server; default "http://127.0.0.1:8080"
	Key       string       // cbk_…; empty for a server that asks for none
	UserAgent string       // default "callbatch-client"
	HTTP      *http.Client // default: one of its own. Redirects are never followed: the key is for one server
}

// A Client talks to one server. It is safe for use by many goroutines.
type Client struct {
	base      string
	key       string
	userAgent string
	http      http.Client
}

// callTimeout bounds calls that are not streams.
const callTimeout = time.Minute

// New returns a client, or says what is wrong with the URL.
func New(o Options) (*Client, error) {
	if o.URL == "" {
		o.URL = "http://127.0.0.1:8080"
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not the URL of a server: it looks like https://host:port", o.URL)
	}
	if before, _, found := strings.Cut(u.Path+"/", "/v1/"); found {
		u.Path = before
		return nil, fmt.Errorf("%q has a path too many: give the URL of the server alone, %s", o.URL, u)
	}
	c := &Client{base: strings.TrimRight(u.String(), "/"), key: o.Key, userAgent: o.UserAgent}
	if c.userAgent == "" {
		c.userAgent = "callbatch-client"
	}
	if o.HTTP != nil {
		c.http = *o.HTTP
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// SubmitOptions say how a batch is sent and what is asked for with it.
type SubmitOptions struct {
	ContentType     string        // default "application/x-ndjson"
	ContentEncoding string        // of the body as it is given: "gzip"; default none
	Length          int64         // bytes of the body; 0: unknown
	IdempotencyKey  string        // makes it safe to send the batch again; default none
	Options         batch.Options // sent as query parameters, which proxies may log; leave it empty where the body carries them
}

// Submit sends a batch as a stream and returns it once it is durable. It is
// not tried again by itself: after [Unreachable] with Unknown set the batch
// may or may not exist, and only with an idempotency key is it safe to ask. A
// body that is an io.Closer is closed.
// Where the body has validate_only set, the error is a *[Checked].
func (c *Client) Submit(ctx context.Context, body io.Reader, o SubmitOptions) (Batch, error) {
	req, err := c.request(ctx, http.MethodPost, "/v1/batches", optionsQuery(o.Options), body)
	if err != nil {
		return Batch{}, err
	}
	describe(req, o.ContentType, o.ContentEncoding, o.Length)
	bear(req, o.IdempotencyKey)
	var answer submitted
	_, err = c.decode(req, &answer)
	if err == nil && answer.Valid {
		err = &Checked{Total: answer.Total}
	}
	return answer.Batch, err
}

// Checked says that there is no batch: it was only to be checked, and is fine.
type Checked struct{ Total int } // items

func (c *Checked) Error() string {
	return fmt.Sprintf("it was only to be checked: %d items are valid", c.Total)
}

// submitted is the answer to a submission.
type submitted struct {
	Batch
	validity
}

// Validate has a batch checked in full, and nothing of it kept. It returns how
// many items there are.
func (c *Client) Validate(ctx context.Context, body io.Reader, o SubmitOptions) (total int, err error) {
	q := optionsQuery(o.Options)
	q.Set("validate_only", "true")
	req, err := c.request(ctx, http.MethodPost, "/v1/batches", q, body)
	if err != nil {
		return 0, err
	}
	describe(req, o.ContentType, o.ContentEncoding, o.Length)
	var answer validity
	_, err = c.decode(req, &answer)
	return answer.Total, err
}

// validity is the answer to what was only to be checked, and is fine.
type validity struct {
	Valid bool `json:"valid"`
	Total int  `json:"total"`
}

// optionsQuery writes options as query parameters.
func optionsQuery(o batch.Options) url.Values {
	q := url.Values{}
	text := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	number := func(name string, value int) {
		if value != 0 {
			q.Set(name, strconv.Itoa(value))
		}
	}
	text("processor", o.Processor)
	text("callback_url", o.CallbackURL)
	text("callback_mode", string(o.CallbackMode))
	if len(o.CallbackEvents) > 0 {
		q.Set("callback_events", jsonText(o.CallbackEvents))
	}
	if len(o.CallbackHeaders) > 0 {
		q.Set("callback_headers", jsonText(o.CallbackHeaders))
	}
	number("callback_page_bytes", o.CallbackPageBytes)
	number("callback_page_items", o.CallbackPageItems)
	text("id_field", o.IDField)
	text("priority", string(o.Priority))
	if !o.NotBefore.IsZero() {
		q.Set("not_before", o.NotBefore.Format(time.RFC3339Nano))
	}
	if o.ExpiresIn != 0 {
		q.Set("expires_in", o.ExpiresIn.String())
	}
	number("max_attempts", o.MaxAttempts)
	text("max_failures", string(o.MaxFailures))
	number("concurrency", o.Concurrency)
	for k, v := range o.Metadata {
		q.Set("metadata."+k, v)
	}
	return q
}

// jsonText returns plain data as JSON.
func jsonText[T []string | map[string]string | Batch](v T) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("client: it is plain data: " + err.Error())
	}
	return string(b)
}

// Batch returns a batch as it is now.
func (c *Client) Batch(ctx context.Context, id string) (b Batch, err error) {
	err = c.call(ctx, http.MethodGet, batchPath(id), nil, &b)
	return b, err
}

// Item returns one item of a batch.
func (c *Client) Item(ctx context.Context, id string, index int) (it Item, err error) {
	err = c.call(ctx, http.MethodGet, batchPath(id)+"/items/"+strconv.Itoa(index), nil, &it)
	return it, err
}

// Processors returns the processors there are.
func (c *Client) Processors(ctx context.Context) ([]Processor, error) {
	var list struct{ Data []Processor }
	err := c.call(ctx, http.MethodGet, "/v1/processors", nil, &list)
	return list.Data, err
}

// call makes a call without a body and decodes the answer.
func (c *Client) call(ctx context.Context, method, path string, q url.Values, into any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errSlow)
	defer cancel()
	req, err := c.request(ctx, method, path, q, nil)
	if err != nil {
		return err
	}
	_, err = c.decode(req, into)
	return err
}

// post makes a call with a body and decodes the answer.
func (c *Client) post(ctx context.Context, path string, in, into any) error {
	return c.postOnce(ctx, path, "", in, into)
}

// postOnce is post with an idempotency key, which may be empty.
func (c *Client) postOnce(ctx context.Context, path, idempotencyKey string, in, into any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("POST %s: %w", path, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errSlow)
	defer cancel()
	req, err := c.request(ctx, http.MethodPost, path, nil, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	bear(req, idempotencyKey)
	_, err = c.decode(req, into)
	return err
}

func (c *Client) request(ctx context.Context, method, path string, q url.Values, body io.Reader) (*http.Request, error) {
	target := c.base + path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("User-Agent", c.userAgent)
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	return req, nil
}

// send returns an answer of 2xx or 304, whose body is for the caller to
// close; anything else is an error.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	res, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(req, err)
	}
	if res.StatusCode/100 == 2 || res.StatusCode == http.StatusNotModified {
		return res, nil
	}
	defer res.Body.Close()
	return nil, c.refused(res)
}

// mostAnswer bounds what is read of an answer that is not a stream: a
// message with its body and its attempts is the largest.
const mostAnswer = 64 << 20

// decode sends req and decodes the answer, unless there is none in it.
func (c *Client) decode(req *http.Request, into any) (*http.Response, error) {
	res, err := c.send(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotModified {
		return res, nil
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, mostAnswer))
	if err != nil {
		return nil, unreachable(req, err)
	}
	if json.Unmarshal(b, into) != nil || !genuine(into) {
		return nil, c.stranger(res)
	}
	return res, nil
}

// genuine reports whether an answer has what it never lacks.
func genuine(answer any) bool {
	switch a := answer.(type) {
	case *Batch:
		return a.ID != ""
	case *Message:
		return a.ID != ""
	case *validity:
		return a.Valid
	case *submitted:
		return a.ID != "" || a.Valid
	case *FeedPage:
		return a.Next != ""
	case *Part:
		return a.SHA256 != ""
	case *Test:
		return a.Message != ""
	}
	return true
}
