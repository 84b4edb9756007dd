package intake

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// padding is how much white space around a value is put up with, in bytes.
const padding = 64 << 10

// readNDJSON reads one item a line.
func readNDJSON(ctx context.Context, s *submission, in *bufio.Reader) error {
	l := lines{in: in, share: s.share, most: s.limits.ItemBytes + padding}
	for {
		raw, err := l.next()
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, errLineTooLong) {
			return s.itemTooLarge(s.items, l.number)
		}
		if err != nil {
			return err
		}
		index, err := s.admit(len(raw), l.number)
		if err != nil {
			return err
		}
		if err := s.take(ctx, index, l.number, raw, false); err != nil {
			return err
		}
		if index == 0 && (s.problems.any() || s.waiting != nil) && isUnfinished(raw) {
			return refuse(batch.Malformed, batch.Problem{
				Index: index, Line: l.number, Code: "invalid_json",
				Detail: "the value goes on behind its line; a body that is one JSON document is application/json",
			})
		}
	}
}

// isUnfinished reports whether a line is the beginning of an object or array:
// of a document that was printed over several lines.
func isUnfinished(line []byte) bool {
	if line[0] != '{' && line[0] != '[' {
		return false
	}
	err := jsontext.NewDecoder(bytes.NewReader(line)).SkipValue()
	return errors.Is(err, io.ErrUnexpectedEOF)
}

var errLineTooLong = errors.New("line too long")

// lines splits a text at its line feeds.
type lines struct {
	in     *bufio.Reader
	share  *share
	most   int    // bytes of a line; at least the buffer of in
	number int    // of the last line returned, from 1
	long   []byte // a line larger than the buffer of in
	held   int    // for long
}

// next returns the next line that is not blank, without the white space around
// it. The bytes are good until the next call. It returns io.EOF at the end, and
// errLineTooLong without having read much more than the line may have.
func (l *lines) next() ([]byte, error) {
	for {
		line, err := l.physical()
		if err != nil && err != io.EOF {
			return nil, err
		}
		if line = trim(line); len(line) > 0 || err != nil {
			if len(line) > 0 {
				err = nil
			}
			return line, err
		}
	}
}

// physical returns the next line as it is, and io.EOF with the last one.
func (l *lines) physical() ([]byte, error) {
	l.number++
	line, err := l.in.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return line, err
	}
	for l.long = l.long[:0]; ; {
		if err := l.append(line); err != nil {
			return nil, err
		}
		switch {
		case len(l.long) > l.most:
			return nil, errLineTooLong
		case err != bufio.ErrBufferFull:
			return l.long, err
		}
		line, err = l.in.ReadSlice('\n')
	}
}

// append adds what goes on to the long line.
func (l *lines) append(more []byte) error {
	if n := len(l.long) + len(more); n > cap(l.long) {
		size := max(n, min(2*cap(l.long), l.most+readBuffer))
		if err := l.share.grow(&l.held, size); err != nil {
			return err
		}
		l.long = append(make([]byte, 0, size), l.long...)
	}
	l.long = append(l.long, more...)
	return nil
}

// trim cuts off the white space of JSON on both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
