package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/callbatch/callbatch/batch"
)

// A refusal is an error of HTTP itself, of which the domain knows nothing.
type refusal struct {
	status int
	word   string
	detail string
}

func (r *refusal) Error() string { return r.detail }

// statuses are how the kinds of errors look from outside. A kind that is not
// here is internal.
var statuses = map[batch.Code]int{
	batch.Malformed:   http.StatusBadRequest,
	batch.Invalid:     http.StatusUnprocessableEntity,
	batch.TooLarge:    http.StatusRequestEntityTooLarge,
	batch.Unsupported: http.StatusUnsupportedMediaType,
	batch.NotFound:    http.StatusNotFound,
	batch.Gone:        http.StatusGone,
	batch.Conflict:    http.StatusConflict,
	batch.Full:        http.StatusInsufficientStorage,
	batch.Unavailable: http.StatusServiceUnavailable,
}

// retryAfter is how many seconds a client had better wait after a status.
var retryAfter = map[int]int{
	http.StatusTooManyRequests:     5,
	http.StatusServiceUnavailable:  5,
	http.StatusInsufficientStorage: 60,
}

// retryWordAfter is the same for what passes by itself, by its word.
var retryWordAfter = map[string]int{"idempotency_in_progress": 1}

// A problem is an error as RFC 9457 wants it shown.
type problem struct {
	Type      string  `json:"type"`
	Title     string  `json:"title"`
	Status    int     `json:"status"`
	Detail    string  `json:"detail"`
	Code      string  `json:"code"`
	RequestID string  `json:"request_id"`
	Errors    []place `json:"errors,omitempty"`
	More      int     `json:"more,omitempty"`
}

type place struct {
	Part    *int   `json:"part,omitempty"`
	Index   *int   `json:"index,omitempty"`
	Line    *int   `json:"line,omitempty"`
	Pointer string `json:"pointer,omitempty"`
	Code    string `json:"code"`
	Detail  string `json:"detail"`
}

// problemOf is where errors become statuses. What is no error of ours shows
// nothing of itself.
func problemOf(err error) problem {
	p := problem{Status: http.StatusInternalServerError, Code: "internal", Detail: "something went wrong here; the log knows more under this request_id"}
	var ours *batch.Error
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		p.Status, p.Code, p.Detail = refused.status, refused.word, refused.detail
	case errors.As(err, &ours) && statuses[ours.Code] != 0:
		p.Status, p.Code, p.Detail = statuses[ours.Code], ours.Word(), ours.Message
		p.Errors, p.More = places(ours.Places), ours.More
	case errors.As(err, &ours) && ours.Code == batch.Damaged:
		p.Code, p.Detail = ours.Word(), "what was asked for is damaged in the store; the log knows more under this request_id"
	}
	return p
}

func places(problems []batch.Problem) []place {
	var ps []place
	for _, k := range problems {
		p := place{Part: k.Part, Pointer: k.Pointer, Code: k.Code, Detail: k.Detail}
		if k.Index >= 0 {
			p.Index = &k.Index
		}
		if k.Line > 0 {
			p.Line = &k.Line
		}
		ps = append(ps, p)
	}
	return ps
}

// fail answers with the problem. Where an answer has begun, or nobody is
// there to read one, it gives up the connection, so that a part is never
// taken for the whole.
func (s *server) fail(a *answer, r *http.Request, id string, err error) {
	p := problemOf(err)
	internal := p.Status == http.StatusInternalServerError
	abandoned := a.broken != nil || internal && r.Context().Err() != nil
	begun := a.status != 0
	if internal && !abandoned && err != errAborted {
		s.Logger.Error("request failed", "request_id", id, "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if begun || abandoned || errors.Is(err, errAborted) {
		a.gone = true
		panic(http.ErrAbortHandler)
	}
	p.Type, p.Title, p.RequestID = "about:blank", http.StatusText(p.Status), id
	if after := cmp.Or(retryWordAfter[p.Code], retryAfter[p.Status]); after > 0 {
		a.Header().Set("Retry-After", strconv.Itoa(after))
	}
	a.Header().Del("Preference-Applied")
	a.Header().Set("Content-Type", "application/problem+json")
	body := encode(p)
	a.Header().Set("Content-Length", strconv.Itoa(len(body))) // it is whole before the handler is done: see linger
	a.WriteHeader(p.Status)
	// Whether it arrives is the client's affair.
	_, _ = a.Write(body)
}

// encode returns plain data as a line of JSON.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("api: an answer is plain data: " + err.Error())
	}
	return b.Bytes()
}

// unclosed returns plain data as a JSON object without its end, for bytes that
// go into it as they are.
func unclosed(v any) []byte { return bytes.TrimSuffix(encode(v), []byte("}\n")) }

// writeJSON answers with a body that is JSON.
func writeJSON(w http.ResponseWriter, status int, body []byte) error {
	w.Header().Set("Content-Type", "application/json")
	if a, ok := w.(*answer); ok {
		body = codeWhole(w.Header(), a.request.Header.Values("Accept-Encoding"), body)
	}
	w.WriteHeader(status)
	_, err := w.Write(body)
	return err
}
