package api

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// mostInput bounds the body of a call that is no submission, in bytes.
const mostInput = 64 << 10

// input reads the JSON object that is the body of a small call.
func (r *request) input(into any) error {
	b, err := r.inputBytes("application/json")
	if err != nil {
		return err
	}
	return intake.Object(b, into)
}

// inputBytes returns the body of a small call, of one of some content types;
// nothing if there is none.
func (r *request) inputBytes(kinds ...string) ([]byte, error) {
	return r.inputUpTo(mostInput, kinds...)
}

// inputUpTo is inputBytes for a call whose body may have so many bytes.
func (r *request) inputUpTo(most int64, kinds ...string) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	if err := checkForm(r.Header, kinds); err != nil {
		return nil, err
	}
	tooLarge := batch.Refuse(batch.TooLarge, "body_too_large", "the body of this call has at most %d bytes", most)
	if r.ContentLength > most {
		return nil, tooLarge
	}
	b, err := r.budget.ReadAll(r.Context(), io.LimitReader(r.Body, most+1))
	switch {
	case batch.CodeOf(err) == batch.Unavailable:
		return nil, err
	case err != nil:
		return nil, brokenOff(r.Request)
	case int64(len(b)) > most:
		return nil, tooLarge
	}
	return b, nil
}

// checkForm refuses a body that does not say it is plain JSON.
func checkForm(h http.Header, kinds []string) error {
	kind := strings.Join(h.Values("Content-Type"), ", ")
	media, params, err := mime.ParseMediaType(kind)
	if charset := params["charset"]; err != nil || !slices.Contains(kinds, media) || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return batch.Refuse(batch.Unsupported, "unsupported_content_type", "the content type is %s, not %q", strings.Join(kinds, " or "), fmt.Sprintf("%.80s", kind))
	}
	if coding := strings.Join(h.Values("Content-Encoding"), ", "); coding != "" && !strings.EqualFold(coding, "identity") {
		return batch.Refuse(batch.Unsupported, "unsupported_coding", "this call takes its body without a content coding")
	}
	return nil
}

// problemAt is something wrong with one member of a body or one option.
func problemAt(pointer, code, format string, args ...any) batch.Problem {
	return batch.Problem{Index: -1, Line: -1, Pointer: pointer, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// unacceptable is the refusal of a body that is well formed; there is at least
// one problem with it.
func unacceptable(ps ...batch.Problem) error {
	e := &batch.Error{Code: batch.Invalid, Reason: ps[0].Code, Message: ps[0].Detail, Places: ps[:min(len(ps), batch.MaxProblems)]}
	e.More = len(ps) - len(e.Places)
	if slices.ContainsFunc(ps, func(p batch.Problem) bool { return p.Code != e.Reason }) {
		e.Reason = ""
	}
	return e
}
