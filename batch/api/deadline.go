package api

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// An answer is a response whose write deadline moves along with what gets
// through: a client that does not read is given up after patience. What has
// no deadlines, as in some tests, does without.
type answer struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
	request  *http.Request
	status   int   // 0 until the header is written
	broken   error // what keeps the client from getting the answer
	gone     bool  // the connection was given up
	body     *body // of the request; nil if it has none
}

// newAnswer returns the answer to r, and gives the body of r its deadline.
func newAnswer(w http.ResponseWriter, r *http.Request, patience time.Duration) *answer {
	a := &answer{ResponseWriter: w, control: http.NewResponseController(w), patience: patience, request: r}
	if r.Body != nil && r.Body != http.NoBody {
		a.body = &body{ReadCloser: r.Body, control: a.control, patience: patience}
		r.Body = a.body
	}
	return a
}

// Unwrap is for [http.ResponseController].
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	a.status = status
	if a.leftover() {
		// Else net/http would wait for the rest before it sends the answer.
		a.Header().Set("Connection", "close")
	}
	a.extend()
	a.ResponseWriter.WriteHeader(status)
}

// leftover reports whether there may be more of the body on the connection
// than was read. HTTP/2 keeps that apart by itself.
func (a *answer) leftover() bool {
	return a.body != nil && !a.body.whole && a.request.ProtoMajor == 1
}

// What is read of a body that nobody needs, once its answer is out.
const (
	lingerBytes = 16 << 20
	lingerTime  = 5 * time.Second
)

// linger sends the answer off and then reads on for a while: a connection
// that is closed on a client still sending may take the answer with it. Who
// asked whether to send has his answer and is not waited for.
func (a *answer) linger() {
	if a.gone || !a.leftover() || a.FlushError() != nil {
		return
	}
	until := time.Now()
	if a.body.read > 0 || a.request.Header.Get("Expect") == "" {
		until = until.Add(lingerTime)
	}
	_ = a.control.SetReadDeadline(until)
	_, _ = io.CopyN(io.Discard, a.body.ReadCloser, lingerBytes)
}

func (a *answer) Write(p []byte) (n int, err error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	const step = 32 << 10 // what must get through within patience
	for first := true; first || len(p) > 0 && err == nil; first = false {
		a.extend()
		var m int
		m, err = a.ResponseWriter.Write(p[:min(step, len(p))])
		n, p = n+m, p[m:]
	}
	a.broken = cmp.Or(a.broken, err)
	return n, err
}

// FlushError is for [http.ResponseController].
func (a *answer) FlushError() error {
	a.extend()
	err := a.control.Flush()
	a.broken = cmp.Or(a.broken, err)
	return err
}

// flush sends what was written on its way. Then nothing has a deadline, for
// nothing is on its way: an answer may go on when there is more.
func flush(w http.ResponseWriter) error {
	c := http.NewResponseController(w)
	if err := c.Flush(); err != nil {
		return err
	}
	_ = c.SetWriteDeadline(time.Time{})
	return nil
}

func (a *answer) extend() { _ = a.control.SetWriteDeadline(time.Now().Add(a.patience)) }

// statusLabel is the status for the metrics.
func (a *answer) statusLabel() int {
	const clientGone = 499
	switch {
	case a.gone:
		return clientGone
	case a.status == 0:
		return http.StatusOK
	}
	return a.status
}

// A body is a request's body whose read deadline moves along with what comes
// in: it may pause for patience, and must keep up minRate besides. Time we
// take ourselves between two reads does not count against the client.
type body struct {
	io.ReadCloser
	control  *http.ResponseController
	patience time.Duration
	read     int64
	waited   time.Duration
	whole    bool  // it came to its end
	err      error // what broke it off
}

const minRate = 256 // bytes a second

func (b *body) extend() {
	earned := time.Duration(b.read/minRate) * time.Second
	_ = b.control.SetReadDeadline(time.Now().Add(min(b.patience, b.patience+earned-b.waited)))
}

func (b *body) Read(p []byte) (int, error) {
	b.extend()
	started := time.Now()
	n, err := b.ReadCloser.Read(p)
	b.waited += time.Since(started)
	b.read += int64(n)
	b.whole = err == io.EOF
	if err != nil && !b.whole {
		b.err = err
	}
	return n, err
}

// tooSlow says whether it was the body's slowness that ended its reading,
// whatever its reader made of that.
func tooSlow(r *http.Request) error {
	if b, ok := r.Body.(*body); ok && errors.Is(b.err, os.ErrDeadlineExceeded) {
		return &refusal{http.StatusRequestTimeout, "too_slow", "the body stopped coming or came too slowly"}
	}
	return nil
}

// brokenOff says why a body could not be read to its end.
func brokenOff(r *http.Request) error {
	return cmp.Or(tooSlow(r), badParam("incomplete_body", "the body ended early"))
}

// refuseBody refuses a body where none has a meaning; an empty object is as good
// as none.
func refuseBody(r *http.Request) error {
	const enough = 64
	b, err := io.ReadAll(io.LimitReader(r.Body, enough))
	if err != nil {
		return brokenOff(r)
	}
	if all := bytes.TrimSpace(b); len(b) == enough || len(all) > 0 && string(all) != "{}" {
		return batch.Refuse(batch.Invalid, "unexpected_body", "this call takes no body")
	}
	return nil
}
