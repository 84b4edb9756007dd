package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// An Error is what the server said instead of doing what it was asked.
type Error struct {
	Status     int           `json:"status"`
	Title      string        `json:"title"`
	Detail     string        `json:"detail"`
	Code       string        `json:"code"` // what to switch on: "wrong_state"; empty if it was no Callbatch server that spoke
	RequestID  string        `json:"request_id"`
	Errors     []Place       `json:"errors"`
	More       int           `json:"more"` // places there were beyond Errors
	RetryAfter time.Duration `json:"-"`    // how long the server asked to be left alone; 0: it did not say
}

// A Place says where an input is wrong.
type Place struct {
	Part    *int   `json:"part"` // whose index and line these are; nil: the batch's
	Index   *int   `json:"index"`
	Line    *int   `json:"line"`
	Pointer string `json:"pointer"`
	Code    string `json:"code"`
	Detail  string `json:"detail"`
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("the server answered %d %s", e.Status, e.Title)
	}
	return e.Detail
}

// Temporary reports whether the same call may succeed a while later, after
// RetryAfter at the earliest: the server is overloaded or away (429, 502, 503,
// 504).
func (e *Error) Temporary() bool { return passing(e) }

// stranger is the error for an answer that no Callbatch server gives.
func (c *Client) stranger(res *http.Response) *Error {
	return &Error{
		Status: res.StatusCode, Title: http.StatusText(res.StatusCode),
		Detail: fmt.Sprintf("what answered at %s is not a Callbatch server (%d %s)", c.base, res.StatusCode, http.StatusText(res.StatusCode)),
	}
}

// Unreachable says that no whole answer came.
type Unreachable struct {
	URL     string
	Unknown bool // the request may have arrived, and what it asked for may be done
	Err     error
}

func (u *Unreachable) Error() string {
	if u.Unknown {
		return fmt.Sprintf("the connection to %s broke before the answer: %v", u.URL, u.Err)
	}
	return fmt.Sprintf("%s is not reachable: %v", u.URL, u.Err)
}

func (u *Unreachable) Unwrap() error { return u.Err }

// errSlow is the cause of a call's own timeout.
var errSlow = errors.New("the server took too long to answer")

// unreachable says why there was no answer. A caller who gave up knows that
// himself.
func unreachable(req *http.Request, err error) error {
	switch cause := context.Cause(req.Context()); cause {
	case nil:
	case errSlow:
		err = errSlow
	default:
		return cause
	}
	var dial *net.OpError
	dialing := errors.As(err, &dial) && dial.Op == "dial"
	var repeated *url.Error // names method and URL once more
	if errors.As(err, &repeated) {
		err = repeated.Err
	}
	return &Unreachable{URL: req.URL.Scheme + "://" + req.URL.Host, Unknown: !dialing, Err: err}
}

// refused reads an answer that is no success.
func (c *Client) refused(res *http.Response) error {
	const most = 1 << 20
	e := &Error{}
	b, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil || json.Unmarshal(b, e) != nil || e.Code == "" {
		e = c.stranger(res) // whose words are not repeated
	}
	e.Status, e.Title = res.StatusCode, http.StatusText(res.StatusCode)
	e.RetryAfter = retryAfter(res.Header)
	return e
}

// retryAfter reads a Retry-After in seconds, which is how our server says it.
func retryAfter(h http.Header) time.Duration {
	const most = 600 // a client is not put off for longer
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(min(n, most)) * time.Second
}
